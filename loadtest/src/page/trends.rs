//! What changes with size: latency against subscribers, and the series of `scaling`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::measure::{self, Worth};
use crate::statistics::median;

use super::Figures;
use super::canvas::Words;
use super::html::escape;
use super::input::Input;
use super::lines::{Below, Lines, Series};

/// A run and whose it is.
struct Owned<'a> {
    name: &'a str,
    run: &'a Value,
}

/// The sections, where there is something for them.
pub fn sections(input: &Input, figures: &mut Figures) -> String {
    let compared = input.comparisons.iter().flat_map(|results| &results.runs);
    let mut runs: Vec<Owned<'_>> = compared.filter_map(|run| Some(Owned { name: &run.server, run: run.run.as_ref()? })).collect();
    runs.extend(input.singles.iter().map(|single| Owned { name: &single.name, run: &single.run }));
    let names = names(input, &runs);
    subscribers(&runs, &names, figures) + &series(&runs, &names, figures)
}

/// All names, each with its number, which is its colour: servers as in the file, then the others.
fn names<'a>(input: &'a Input, runs: &[Owned<'a>]) -> Vec<&'a str> {
    let servers = input.comparisons.iter().flat_map(|results| &results.servers).map(|server| server.name.as_str());
    let mut names: Vec<&str> = Vec::new();
    for name in servers.chain(runs.iter().map(|run| run.name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// p50 and p99 of paced fan-outs that differ in nothing but their connections.
fn subscribers(runs: &[Owned<'_>], names: &[&str], figures: &mut Figures) -> String {
    // By everything else of the command, then by name, then by connections.
    let mut groups: BTreeMap<String, BTreeMap<usize, BTreeMap<u64, Vec<&Value>>>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.run["command"] == "fanout" && measure::worth(run.run) != Worth::Nothing) {
        let Some((connections, rest)) = connections(run.run) else { continue };
        let number = names.iter().position(|name| *name == run.name).unwrap_or(0);
        groups.entry(rest).or_default().entry(number).or_default().entry(connections).or_default().push(run.run);
    }
    let mut text = String::new();
    for (rest, by_name) in groups {
        for (quantile, title) in [("p50", "median"), ("p99", "99th percentile")] {
            let series: Vec<Series> = by_name
                .iter()
                .filter(|(_, sizes)| sizes.len() > 1)
                .map(|(&number, sizes)| Series {
                    name: names[number].to_owned(),
                    number,
                    points: sizes.iter().filter_map(|(&size, runs)| Some((size as f64, latency(runs, quantile)?))).collect(),
                    is_doubtful: sizes.values().flatten().any(|run| measure::worth(run) != Worth::All),
                    marks: None,
                })
                .collect();
            if series.is_empty() {
                continue;
            }
            let words = Words {
                title: format!("Delivery latency against subscribers, {title}"),
                description: "A line for each server over the number of subscribers; both axes are logarithmic.".to_owned(),
            };
            let lines = Lines {
                series,
                below: Below::Amounts,
                below_title: "subscribers".to_owned(),
                left_title: "latency".to_owned(),
                show: measure::microseconds_short,
                from_zero: false,
            };
            let note = format!(
                "Medians of the runs; <code>{}</code>. Hollow marks and a ! are for servers of which the load test was late in a run.",
                escape(&rest)
            );
            text += &figures.figure(&words, &note, |id, width| lines.draw(id, (width, 300), &words));
        }
    }
    section("Latency against subscribers", &text)
}

/// The number of connections of a run, and all else that its command said of the load.
fn connections(run: &Value) -> Option<(u64, String)> {
    let words: Vec<&str> = run["command_line"].as_array()?.iter().filter_map(Value::as_str).collect();
    let (mut count, mut rest) = (None, vec!["fanout"]);
    let mut words = words.iter().skip(1).filter(|word| **word != "fanout" && !word.contains("://"));
    while let Some(&word) = words.next() {
        let (flag, attached) = word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
        let mut value = || attached.or_else(|| words.next().copied());
        match flag {
            "--connections" => count = value()?.parse().ok(),
            // What changes nothing of the load.
            "--json" | "--pid" | "--cpu" | "--csv" | "--sub" => drop(value()),
            _ => rest.push(word),
        }
    }
    Some((count.unwrap_or(1000), rest.join(" ")))
}

fn latency(runs: &[&Value], quantile: &str) -> Option<f64> {
    let all: Vec<f64> = runs
        .iter()
        .filter_map(|run| measure::main_latency(run)?.1["quantiles"][quantile].as_f64())
        .map(|nanos| nanos / 1e3)
        .collect();
    median(&all)
}

/// The series that runs carry, one figure for each name of a series.
fn series(runs: &[Owned<'_>], names: &[&str], figures: &mut Figures) -> String {
    let mut plots: BTreeMap<(String, String, String), Vec<Series>> = BTreeMap::new();
    for run in runs {
        for one in run.run["series"].as_array().into_iter().flatten() {
            let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
            let command = run.run["command"].as_str().unwrap_or_default().to_owned();
            let points: Vec<(f64, f64)> = one["points"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|point| Some((point[0].as_f64()?, point[1].as_f64()?)))
                .collect();
            let number = names.iter().position(|name| *name == run.name).unwrap_or(0);
            let is_doubtful = measure::worth(run.run) != Worth::All;
            let series = Series { name: run.name.to_owned(), number, points, is_doubtful, marks: None };
            plots.entry((command, text("name"), text("unit"))).or_default().push(series);
        }
    }
    let mut text = String::new();
    for ((command, name, unit), series) in plots {
        let what = name.replace('_', " ");
        let below = if command == "scaling" { "workers" } else { "" };
        let words = Words {
            title: format!("{command}: {what}"),
            description: format!("A line for each server: {what} against {below}, both axes from zero."),
        };
        let lines = Lines {
            series,
            below: Below::Counts,
            below_title: below.to_owned(),
            left_title: if unit.is_empty() { what } else { format!("{what}, {unit}") },
            show: super::intervals::short,
            from_zero: true,
        };
        text += &figures.figure(&words, "Both axes begin at zero. Hollow marks are for runs with flaws.", |id, width| {
            lines.draw(id, (width, 300), &words)
        });
    }
    section("Scaling", &text)
}

fn section(title: &str, text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<section>\n<h2>{title}</h2>\n{text}</section>\n") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::input::Single;
    use super::*;

    fn fanout(connections: &str, p99: u64) -> Value {
        json!({
            "command": "fanout", "valid": true, "counts": {},
            "command_line": ["loadtest", "fanout", "ws://127.0.0.1:1/t", connections, "--rate", "50", "--json", "-", "--pid=3"],
            "latencies": {"delivery": {"count": 9, "quantiles": {"p50": p99 / 2, "p99": p99}}},
        })
    }

    #[test]
    fn connections_are_told_from_the_rest() {
        assert_eq!(connections(&fanout("--connections=30", 1)), Some((30, "fanout --rate 50".to_owned())));
    }

    #[test]
    fn what_differs_in_connections_only_is_a_line() {
        let single = |run| Single { name: "us".to_owned(), file: "us.json".to_owned(), run };
        let singles = vec![single(fanout("--connections=10", 5_000)), single(fanout("--connections=100", 9_000))];
        let mut input = Input { singles, ..Input::default() };
        let text = sections(&input, &mut Figures::new("x".to_owned()));
        assert_eq!(text.matches("<figure>").count(), 2, "median and p99");
        input.singles.pop();
        assert_eq!(sections(&input, &mut Figures::new("x".to_owned())), "", "one point is no line");
    }

    #[test]
    fn every_series_of_a_run_is_plotted() {
        let run = json!({"command": "scaling", "series": [
            {"name": "deliveries_per_second", "unit": "1/s", "points": [[1, 123.0], [2, 240.0]]},
            {"name": "efficiency", "unit": "", "points": [[1, 1.0], [2, 0.97]]},
        ]});
        let mut input = Input::default();
        input.singles.push(Single { name: "us".to_owned(), file: String::new(), run });
        let text = sections(&input, &mut Figures::new("x".to_owned()));
        assert_eq!(text.matches("<figure>").count(), 2);
        assert!(text.contains("scaling: deliveries per second") && text.contains("workers"), "{text}");
    }
}
