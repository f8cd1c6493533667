//! Runs that belong to no comparison: their figures, as their own tables have them, and their latencies.

use serde::Deserialize as _;
use serde_json::Value;

use crate::histogram::QUANTILES;
use crate::machine::{Commit, Machine};
use crate::measure::{self, Worth};

use super::Figures;
use super::about;
use super::html::{Table, command, definitions, escape};
use super::input::Single;
use super::latency;
use super::lines::Series;
use super::test_section::percentiles;

/// One section a run.
pub fn sections(singles: &[Single], figures: &mut Figures) -> String {
    singles.iter().map(|single| section(single, figures)).collect()
}

fn section(single: &Single, figures: &mut Figures) -> String {
    let run = &single.run;
    let name = run["command"].as_str().unwrap_or_default();
    let mut text = format!("<section>\n<h2>{}: {}</h2>\n", escape(name), escape(&single.file));
    let words: Vec<String> = strings(&run["command_line"]);
    text += &format!("<p class=\"command\">{}</p>\n", command(&words));
    for flaw in measure::flaws(run) {
        text += &format!("<p class=\"warning\">{}</p>\n", escape(&flaw));
    }
    text += &definitions(&facts(run));
    text += &latencies(run);
    let points = latency::curve(&[run]);
    if let Some((which, _)) = measure::main_latency(run)
        && !points.is_empty()
    {
        let is_doubtful = measure::worth(run) != Worth::All;
        let series = Series { name: single.name.clone(), number: 1, points, is_doubtful, marks: Some(latency::marks()) };
        text += &percentiles(&format!("Latency by percentile: {}", which.replace('_', " ")), vec![series], figures);
    }
    strings(&run["notes"]).iter().for_each(|note| text += &format!("<p class=\"note\">{}</p>\n", escape(note)));
    text + &surroundings(run) + "</section>\n"
}

/// Where it was measured, folded up: runs of one page are mostly of one machine.
fn surroundings(run: &Value) -> String {
    let (commit, machine) = (Commit::deserialize(&run["commit"]).ok(), Machine::deserialize(&run["machine"]).unwrap_or_default());
    let mut facts = vec![("ended".to_owned(), escape(run["ended"].as_str().unwrap_or("unknown")))];
    facts.push(("load test".to_owned(), escape(run["tool"].as_str().unwrap_or("unknown"))));
    facts.extend(about::surroundings(commit.as_ref(), &machine));
    format!("<details>\n<summary>Where it was measured</summary>\n{}</details>\n", definitions(&facts))
}

/// Rate, cost, figures, counts, and the tool's own share.
fn facts(run: &Value) -> Vec<(String, String)> {
    let operation = run["operation"].as_str().unwrap_or("operation");
    let mut facts = Vec::new();
    let values = measure::values(run);
    if let Some(&rate) = values.get(measure::RATE) {
        facts.push((format!("{} a second", escape(operation)), measure::thousands(rate)));
    }
    if let Some(&cpu) = values.get(measure::CPU) {
        let part = |name: &str| values.get(name).map_or("–".to_owned(), |value| measure::digits(*value));
        let (user, system) = (part("cpu_user_us"), part("cpu_system_us"));
        facts.push((
            format!("server CPU a {}", escape(operation)),
            format!("{} µs ({user} user, {system} system)", measure::digits(cpu)),
        ));
    }
    for (name, figure) in run["figures"].as_object().into_iter().flatten() {
        let (value, unit) = (figure["value"].as_f64().unwrap_or_default(), figure["unit"].as_str().unwrap_or_default());
        facts.push((escape(&name.replace('_', " ")), format!("{} {}", measure::digits(value), escape(unit))));
    }
    for (name, count) in run["counts"].as_object().into_iter().flatten() {
        facts.push((escape(&name.replace('_', " ")), measure::thousands(count.as_f64().unwrap_or_default())));
    }
    if let Some(share) = run["own"]["cpu_share"].as_f64() {
        facts.push(("load test itself".to_owned(), format!("{:.0} % of a CPU", share * 100.0)));
    }
    facts
}

fn latencies(run: &Value) -> String {
    let Some(all) = run["latencies"].as_object().filter(|all| !all.is_empty()) else { return String::new() };
    let mut heads = vec!["Latency".to_owned()];
    heads.extend(QUANTILES.iter().map(|(name, _)| (*name).to_owned()));
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|(name, latency)| {
            let shown = |quantile: &str| latency["quantiles"][quantile].as_f64().map(|nanos| measure::microseconds(nanos / 1e3));
            let mut row = vec![escape(&name.replace('_', " "))];
            row.extend(QUANTILES.iter().map(|(quantile, _)| shown(quantile).unwrap_or("–".to_owned())));
            row
        })
        .collect();
    let mut table = Table::new("Latencies", &heads);
    table.group(None, &rows);
    table.finish()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
