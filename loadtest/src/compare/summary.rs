//! From runs to medians and paired ratios.
//!
//! Two servers are compared within a round, where they met the same machine, and the ratios of the rounds are what has a median
//! and an interval. Runs that said INVALID or lost something are left out, unless that is all there is, which then is said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::measure;
use crate::statistics::Estimate;

use super::file::Test;
use super::results::{Results, Run};

/// What one server did in one test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// The test.
    pub test: String,
    /// The server.
    pub server: String,
    /// The server that the ratios are to.
    pub base: String,
    /// Runs that were made.
    pub runs: usize,
    /// Why runs were left out, one line each, by round.
    pub flaws: Vec<String>,
    /// Every run had a flaw, so the figures are those of flawed runs.
    pub is_doubtful: bool,
    /// Whether its rate stayed where it was before it was measured; `None` where there is no warming up.
    pub settled: Option<bool>,
    /// Medians by name of the measure.
    pub values: BTreeMap<String, Estimate>,
    /// Ratios to the base, paired by round, by name of the measure.
    pub ratios: BTreeMap<String, Estimate>,
}

/// One usable run: its round and its numbers.
type Sample = (u32, BTreeMap<String, f64>);

/// A cell for each test and server that was run, in the order of the file.
pub fn summarize(results: &Results) -> Vec<Cell> {
    results.tests.iter().flat_map(|test| of_test(results, test)).collect()
}

/// The name of the number that a test's cells are compared by.
pub fn main_measure(cells: &[&Cell]) -> Option<&'static str> {
    let names: Vec<&str> = cells.iter().flat_map(|cell| cell.values.keys()).map(String::as_str).collect();
    measure::main(&names)
}

fn of_test(results: &Results, test: &Test) -> Vec<Cell> {
    let runs_of =
        |name: &str| -> Vec<&Run> { results.runs.iter().filter(|run| run.test == test.name && run.server == name).collect() };
    let present: Vec<&str> =
        results.servers.iter().map(|server| server.name.as_str()).filter(|name| !runs_of(name).is_empty()).collect();
    let Some(&base) = present.first() else { return Vec::new() };
    let base_samples = usable(&runs_of(base)).0;
    present
        .iter()
        .map(|&server| {
            let runs = runs_of(server);
            let (samples, is_doubtful) = usable(&runs);
            let warmup = results.warmups.iter().rfind(|warmup| warmup.test == test.name && warmup.server == server);
            Cell {
                test: test.name.clone(),
                server: server.to_owned(),
                base: base.to_owned(),
                runs: runs.len(),
                flaws: runs.iter().filter_map(|run| flaw(run).map(|flaw| format!("round {}: {flaw}", run.round))).collect(),
                is_doubtful,
                settled: warmup.map(|warmup| warmup.settled),
                values: estimates(names(&samples), |name| column(&samples, name)),
                ratios: if server == base {
                    names(&samples).into_iter().map(|name| (name, Estimate::exact(1.0))).collect()
                } else {
                    estimates(names(&samples), |name| paired(&samples, &base_samples, name))
                },
            }
        })
        .collect()
}

/// The runs to be counted, and whether they are only counted for want of better ones.
fn usable(runs: &[&Run]) -> (Vec<Sample>, bool) {
    let sample = |run: &&&Run| Some((run.round, measure::values(run.run.as_ref()?)));
    let sound: Vec<Sample> = runs.iter().filter(|run| flaw(run).is_none()).filter_map(|run| sample(&run)).collect();
    if sound.is_empty() { (runs.iter().filter_map(|run| sample(&run)).collect(), true) } else { (sound, false) }
}

fn flaw(run: &Run) -> Option<String> {
    match (&run.run, &run.error) {
        (_, Some(error)) => Some(error.clone()),
        (Some(json), None) => Some(measure::flaws(json).join("; ")).filter(|flaws| !flaws.is_empty()),
        (None, None) => Some("no results".to_owned()),
    }
}

fn names(samples: &[Sample]) -> Vec<String> {
    let mut names: Vec<String> = samples.iter().flat_map(|(_, values)| values.keys().cloned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn estimates(names: Vec<String>, column: impl Fn(&str) -> Vec<f64>) -> BTreeMap<String, Estimate> {
    names.into_iter().filter_map(|name| Estimate::of(&column(&name)).map(|estimate| (name, estimate))).collect()
}

fn column(samples: &[Sample], name: &str) -> Vec<f64> {
    samples.iter().filter_map(|(_, values)| values.get(name).copied()).collect()
}

/// The ratios of the rounds in which both have a number, and the base's isn't zero.
fn paired(samples: &[Sample], base: &[Sample], name: &str) -> Vec<f64> {
    let of_base = |round: u32| base.iter().find(|(other, _)| *other == round)?.1.get(name).copied().filter(|&value| value != 0.0);
    samples.iter().filter_map(|(round, values)| Some(values.get(name)? / of_base(*round)?)).collect()
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(test: &str, server: &str, round: u32, json: Value) -> Run {
        let run = Some(json);
        Run { test: test.into(), server: server.into(), round, order: 0, command: vec![], run, error: None }
    }

    fn echo(cpu: f64, rate: f64, lost: u64) -> Value {
        json!({
            "command": "echo", "valid": true, "invalid_because": [], "counts": {"lost": lost}, "operations": 1,
            "operations_per_second": rate, "server_cpu": {"us_per_operation": cpu},
        })
    }

    /// Three rounds of two servers, of which the second lost something in the last.
    pub fn results() -> Results {
        let server = |name: &str| json!({"name": name, "start": ["x"], "env": {}, "settings": ""});
        let mut results: Results = serde_json::from_value(json!({
            "tool": "t", "kind": "comparison", "started": "2026-01-01T00:00:00Z", "file": "f.toml", "commit": null,
            "machine": Machine::default(), "server_cpus": "0", "client_cpu": 1, "rounds": 3, "interrupted": false,
            "servers": [server("base"), server("other"), server("idle")],
            "tests": [{"name": "echo", "title": "Echo", "url": "echo", "command": ["echo"]}],
            "warmups": [{"test": "echo", "server": "other", "rates": [1.0, 9.0], "settled": false}],
            "runs": [], "summary": [],
        }))
        .unwrap();
        for (round, base, other, lost) in [(1, 2.0, 3.0, 0), (2, 4.0, 8.0, 0), (3, 1.0, 9.0, 5)] {
            results.runs.push(run("echo", "base", round, echo(base, 100.0, 0)));
            results.runs.push(run("echo", "other", round, echo(other, 50.0, lost)));
        }
        results
    }

    use crate::machine::Machine;

    #[test]
    fn ratios_are_paired_by_round_and_flawed_runs_are_left_out() {
        let cells = summarize(&results());
        let [base, other] = &cells[..] else { panic!("a server without runs has no cell: {cells:#?}") };
        assert_eq!((base.values["cpu_us"].median, base.ratios["cpu_us"].median), (2.0, 1.0));
        assert_eq!(base.ratios["cpu_us"].bounds(), (1.0, 1.0), "known without measuring");
        let ratio = other.ratios["cpu_us"];
        assert_eq!((ratio.samples, ratio.median, ratio.bounds()), (2, 1.75, (1.5, 2.0)));
        assert_eq!(other.values["cpu_us"].median, 5.5);
        assert_eq!((other.flaws.as_slice(), other.is_doubtful), (&["round 3: 5 lost".to_owned()][..], false));
        assert_eq!((base.settled, other.settled), (None, Some(false)));
        assert_eq!(main_measure(&[base, other]), Some("cpu_us"));
    }

    #[test]
    fn where_all_are_flawed_they_are_shown_as_such() {
        let mut results = results();
        for run in results.runs.iter_mut().filter(|run| run.server == "other") {
            run.run.as_mut().unwrap()["invalid_because"] = json!(["the tool was busy"]);
        }
        let cells = summarize(&results);
        assert!(cells[1].is_doubtful && cells[1].flaws.len() == 3, "{cells:#?}");
        assert_eq!(cells[1].ratios["cpu_us"].samples, 3);
        assert_eq!(cells[1].flaws[2], "round 3: INVALID: the tool was busy; 5 lost");
    }

    #[test]
    fn a_run_that_failed_is_a_flaw_and_no_figure() {
        let mut results = results();
        results.runs[1].run = None;
        results.runs[1].error = Some("gone".to_owned());
        let cells = summarize(&results);
        assert_eq!(cells[1].flaws[0], "round 1: gone");
        assert_eq!((cells[1].runs, cells[1].values["cpu_us"].samples), (3, 1));
    }
}
