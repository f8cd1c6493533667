//! From runs to medians and paired ratios.
//!
//! Two servers are compared within a round, where they met the same machine, and the ratios of the rounds are what has a median
//! and an interval. Of each run that counts which its flaws leave sound: nothing of one that lost something, and of one in which
//! the load test itself was busy what the server used. Where no run is sound for a number, those there are stand for it, and it is
//! doubtful; so is a ratio of it or to it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::measure::{self, Worth};
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
    /// Runs of which nothing counts where there are others: something was lost, or they failed.
    #[serde(default)]
    pub runs_spoilt: usize,
    /// Runs of which only what the server used counts, as the load test itself was busy or late.
    #[serde(default)]
    pub runs_of_busy_tool: usize,
    /// What was wrong with runs, one line each, by round.
    pub flaws: Vec<String>,
    /// Whether its rate stayed where it was when it was warmed up; `None` where there is no warming up.
    pub settled: Option<bool>,
    /// Medians by name of the measure.
    pub values: BTreeMap<String, Estimate>,
    /// Ratios to the base, paired by round, by name of the measure.
    pub ratios: BTreeMap<String, Estimate>,
    /// The measures whose values are of flawed runs for want of others.
    #[serde(default)]
    pub doubtful: BTreeSet<String>,
    /// The measures whose ratios are doubtful: their values here are, or the base's.
    #[serde(default)]
    pub doubtful_ratios: BTreeSet<String>,
}

/// A run that has figures.
struct Sample {
    round: u32,
    worth: Worth,
    values: BTreeMap<String, f64>,
}

/// What counts for one measure.
struct Column {
    by_round: Vec<(u32, f64)>,
    is_doubtful: bool,
}

/// A cell for each test and server that was run, in the order of the file.
pub fn summarize(results: &Results) -> Vec<Cell> {
    results.tests.iter().flat_map(|test| of_test(results, test)).collect()
}

/// The name of the number that a test's cells are compared by.
pub fn main_measure(cells: &[&Cell]) -> Option<&'static str> {
    let names: Vec<&str> = cells.iter().flat_map(|cell| cell.values.keys()).map(String::as_str).collect();
    measure::main(&names)
}

impl Cell {
    /// Whether there is such a value, of runs that are sound for it.
    pub fn is_sound(&self, name: &str) -> bool {
        self.values.contains_key(name) && !self.doubtful.contains(name)
    }

    /// A ratio of sound values.
    pub fn sound_ratio(&self, name: &str) -> Option<Estimate> {
        self.ratios.get(name).copied().filter(|_| !self.doubtful_ratios.contains(name))
    }
}

fn of_test(results: &Results, test: &Test) -> Vec<Cell> {
    let runs_of =
        |name: &str| -> Vec<&Run> { results.runs.iter().filter(|run| run.test == test.name && run.server == name).collect() };
    let present: Vec<&str> =
        results.servers.iter().map(|server| server.name.as_str()).filter(|name| !runs_of(name).is_empty()).collect();
    let Some(&base) = present.first() else { return Vec::new() };
    let base_samples = samples(&runs_of(base));
    present
        .iter()
        .map(|&server| {
            let runs = runs_of(server);
            let warmup = results.warmups.iter().rfind(|warmup| warmup.url == test.url && warmup.server == server);
            let count = |wanted: Worth| runs.iter().filter(|run| worth(run) == wanted).count();
            let mut cell = Cell {
                test: test.name.clone(),
                server: server.to_owned(),
                base: base.to_owned(),
                runs: runs.len(),
                runs_spoilt: count(Worth::Nothing),
                runs_of_busy_tool: count(Worth::ServerSide),
                flaws: runs.iter().filter_map(|run| flaw(run).map(|flaw| format!("round {}: {flaw}", run.round))).collect(),
                settled: warmup.map(|warmup| warmup.settled),
                values: BTreeMap::new(),
                ratios: BTreeMap::new(),
                doubtful: BTreeSet::new(),
                doubtful_ratios: BTreeSet::new(),
            };
            cell.add_figures(&samples(&runs), &base_samples);
            cell
        })
        .collect()
}

impl Cell {
    fn add_figures(&mut self, samples: &[Sample], base: &[Sample]) {
        let names: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.values.keys()).collect();
        for name in names {
            let (own, of_base) = (column(samples, name), column(base, name));
            let values: Vec<f64> = own.by_round.iter().map(|&(_, value)| value).collect();
            self.values.extend(Estimate::of(&values).map(|estimate| (name.clone(), estimate)));
            let is_base = self.server == self.base;
            let ratio = if is_base { Some(Estimate::exact(1.0)) } else { Estimate::of(&paired(&own, &of_base)) };
            self.ratios.extend(ratio.map(|ratio| (name.clone(), ratio)));
            self.doubtful.extend(own.is_doubtful.then(|| name.clone()));
            self.doubtful_ratios.extend((own.is_doubtful || of_base.is_doubtful).then(|| name.clone()));
        }
    }
}

fn samples(runs: &[&Run]) -> Vec<Sample> {
    let sample = |run: &&Run| {
        let values = measure::values(run.run.as_ref()?);
        Some(Sample { round: run.round, worth: worth(run), values })
    };
    runs.iter().filter_map(sample).collect()
}

/// How far a run may be believed.
pub fn worth(run: &Run) -> Worth {
    match (&run.run, &run.error) {
        (Some(json), None) => measure::worth(json),
        _ => Worth::Nothing,
    }
}

fn flaw(run: &Run) -> Option<String> {
    match (&run.run, &run.error) {
        (_, Some(error)) => Some(error.clone()),
        (Some(json), None) => Some(measure::flaws(json).join("; ")).filter(|flaws| !flaws.is_empty()),
        (None, None) => Some("no results".to_owned()),
    }
}

/// What sound runs say of a measure; what all say, if none is sound for it.
fn column(samples: &[Sample], name: &str) -> Column {
    let value = |sample: &Sample| Some((sample.round, *sample.values.get(name)?));
    let sound: Vec<(u32, f64)> = samples.iter().filter(|sample| sample.worth.covers(name)).filter_map(value).collect();
    if sound.is_empty() {
        Column { by_round: samples.iter().filter_map(value).collect(), is_doubtful: true }
    } else {
        Column { by_round: sound, is_doubtful: false }
    }
}

/// The ratios of the rounds in which both have a number, and the base's isn't zero.
fn paired(own: &Column, base: &Column) -> Vec<f64> {
    let of_base = |round: u32| base.by_round.iter().find(|(other, value)| *other == round && *value != 0.0);
    own.by_round.iter().filter_map(|&(round, value)| Some(value / of_base(round)?.1)).collect()
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
            "command": "echo", "busy_tool": [], "doubts": [],
            "counts": {"lost": lost}, "faults": ["lost"], "operations": 1,
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
            "warmups": [{"test": "echo", "url": "echo", "server": "other", "rates": [1.0, 9.0], "settled": false}],
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
        assert_eq!((ratio.samples, ratio.median, ratio.low), (2, 1.75, None), "two rounds have no interval");
        assert_eq!(other.values["cpu_us"].median, 5.5);
        assert_eq!((other.flaws.as_slice(), other.runs_spoilt), (&["round 3: 5 lost".to_owned()][..], 1));
        assert!(other.is_sound("cpu_us") && other.doubtful_ratios.is_empty());
        assert_eq!((base.settled, other.settled), (None, Some(false)));
        assert_eq!(main_measure(&[base, other]), Some("cpu_us"));
    }

    /// Of which `kind` the reason is: `doubts`, or `busy_tool`.
    fn say_invalid(results: &mut Results, server: &str, kind: &str, reason: &str) {
        for run in results.runs.iter_mut().filter(|run| run.server == server) {
            run.run.as_mut().unwrap()[kind] = json!([reason]);
        }
    }

    #[test]
    fn where_all_are_flawed_they_are_shown_as_such() {
        let mut results = results();
        say_invalid(&mut results, "other", "doubts", "the kernel counted fewer");
        let cells = summarize(&results);
        assert_eq!((cells[1].runs_spoilt, cells[1].flaws.len()), (3, 3), "{cells:#?}");
        assert!(!cells[1].is_sound("cpu_us") && cells[1].sound_ratio("cpu_us").is_none() && cells[0].is_sound("cpu_us"));
        assert_eq!(cells[1].ratios["cpu_us"].samples, 3);
        assert_eq!(cells[1].flaws[2], "round 3: INVALID: the kernel counted fewer; 5 lost");
    }

    #[test]
    fn a_busy_tool_makes_rates_doubtful_and_leaves_cpu_time_sound() {
        let mut results = results();
        say_invalid(
            &mut results,
            "base",
            "busy_tool",
            "the load test itself used 95 % of a CPU: it may have been the bottleneck",
        );
        let cells = summarize(&results);
        assert!(cells[0].is_sound("cpu_us") && !cells[0].is_sound("per_second"));
        assert_eq!((cells[0].runs_of_busy_tool, cells[0].runs_spoilt, cells[0].values["cpu_us"].samples), (3, 0, 3));
        assert!(cells[1].is_sound("cpu_us") && cells[1].is_sound("per_second"), "its own runs are sound");
        let doubtful: Vec<&String> = cells[1].doubtful_ratios.iter().collect();
        assert_eq!(doubtful, ["per_second"], "a ratio to a doubtful base is doubtful");
        say_invalid(&mut results, "other", "busy_tool", "the load test sent late by 1 ms at p99: more than a tenth");
        assert_eq!(summarize(&results)[1].values["cpu_us"].samples, 2, "the run that lost something still is none");
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
