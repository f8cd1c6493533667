//! The results as tables in a terminal: servers in the order of the file, never by rank.

use std::fmt::Write as _;

use crate::measure;
use crate::statistics::{Estimate, SAMPLES_MIN};

use super::results::Results;
use super::summary::{Cell, main_measure};

/// What is shown of a test's servers, in this order, as far as there is any of it.
const MEASURES: [&str; 11] = [
    "rss_per_connection",
    "pss_per_connection",
    "kernel_per_connection",
    "rss",
    "idle_cpu",
    measure::CPU,
    "cpu_user_us",
    "cpu_system_us",
    measure::RATE,
    "p50_us",
    "p99_us",
];

/// What is to be said of a server whose rate still changed.
pub const NOT_SETTLED: &str = "its rate had not settled within 2 % when it had been warmed up";

/// The servers with their versions, and one table per test.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    for server in results.servers.iter().filter(|server| server.missing.is_none()) {
        let parts = [
            server.version.clone(),
            server.year.map(|year| format!("({year})")),
            server.old.as_ref().map(|why| format!("old: {why}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            let _ = writeln!(text, "{} {}", server.name, parts.join(" "));
        }
    }
    for test in &results.tests {
        let cells: Vec<&Cell> = results.summary.iter().filter(|cell| cell.test == test.name).collect();
        let Some(first) = cells.first() else { continue };
        let main = main_measure(&cells);
        let _ = writeln!(text, "\n{}: {}", test.name, test.title);
        let columns = columns(&cells);
        let mut rows = vec![vec!["server".to_owned()]];
        rows[0].extend(columns.iter().map(|name| measure::title(name)));
        rows[0].extend(main.map(|name| format!("{} to {}", measure::title(name), first.base)));
        rows.extend(cells.iter().map(|cell| row(cell, &columns, main)));
        write_rows(&mut text, &rows);
        if has_marks(&cells, &columns, main) {
            let _ = writeln!(text, "  ! doubtful: no run without a flaw tells it, or what it is compared to");
        }
        cells.iter().for_each(|cell| write_remarks(&mut text, cell));
    }
    for server in &results.servers {
        if let Some(missing) = &server.missing {
            let _ = writeln!(text, "\n{} was left out: {missing}", server.name);
        }
    }
    text
}

/// The measures that a table of these cells has a column for, in order; [`measure::title`] is what each is called.
pub fn columns(cells: &[&Cell]) -> Vec<&'static str> {
    MEASURES.into_iter().filter(|&name| cells.iter().any(|cell| cell.values.contains_key(name))).collect()
}

/// A ratio with its interval, if it has one, and what that rests on.
pub fn ratio(estimate: &Estimate) -> String {
    let median = measure::ratio(estimate.median);
    match (estimate.low, estimate.high) {
        _ if estimate.samples == 0 => format!("{}", estimate.median),
        (Some(low), Some(high)) => {
            format!("{median} [{}, {}] ({})", measure::ratio(low), measure::ratio(high), pairs(estimate))
        }
        _ => format!("{median} ({})", pairs(estimate)),
    }
}

/// What the interval of a ratio rests on.
pub fn pairs(estimate: &Estimate) -> String {
    match estimate.samples {
        1 => "1 pair".to_owned(),
        SAMPLES_MIN => format!("range of {SAMPLES_MIN}"),
        many => format!("{many} pairs"),
    }
}

fn row(cell: &Cell, columns: &[&str], main: Option<&str>) -> Vec<String> {
    let mark = |text: String, is_doubtful: bool| if is_doubtful { format!("! {text}") } else { text };
    let shown =
        |name: &str| cell.values.get(name).map(|value| mark(measure::show(name, value.median), cell.doubtful.contains(name)));
    let compared = |name: &str| cell.ratios.get(name).map(|value| mark(ratio(value), cell.doubtful_ratios.contains(name)));
    let mut row = vec![cell.server.clone()];
    row.extend(columns.iter().map(|name| shown(name).unwrap_or("-".to_owned())));
    row.extend(main.map(|name| compared(name).unwrap_or("-".to_owned())));
    row
}

fn has_marks(cells: &[&Cell], columns: &[&str], main: Option<&str>) -> bool {
    let is_marked = |cell: &&Cell| {
        columns.iter().any(|name| cell.doubtful.contains(*name)) || main.is_some_and(|name| cell.doubtful_ratios.contains(name))
    };
    cells.iter().any(is_marked)
}

fn write_rows(text: &mut String, rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in rows {
        let _ = write!(text, "  {:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(text, "  {cell:>0$}", width(column));
        }
        text.push('\n');
    }
}

fn write_remarks(text: &mut String, cell: &Cell) {
    for remark in remarks(cell) {
        let _ = writeln!(text, "  {}: {remark}", cell.server);
    }
    for flaw in &cell.flaws {
        let _ = writeln!(text, "      {flaw}");
    }
    if cell.settled == Some(false) {
        let _ = writeln!(text, "  {}: {NOT_SETTLED}", cell.server);
    }
}

/// What is to be said of a server's flawed runs.
pub fn remarks(cell: &Cell) -> Vec<String> {
    let (runs, spoilt, busy) = (cell.runs, cell.runs_spoilt, cell.runs_of_busy_tool);
    let mut remarks = Vec::new();
    if spoilt == runs {
        remarks.push("no run without a loss or failure; its figures are those of flawed runs".to_owned());
    } else if spoilt > 0 {
        remarks.push(format!("{spoilt} of {runs} runs left out"));
    }
    if busy > 0 && busy + spoilt == runs {
        remarks.push(format!("rates and latencies are doubtful: the load test itself was busy or late in {busy} of {runs} runs"));
    } else if busy > 0 {
        remarks.push(format!("rates and latencies of {busy} of {runs} runs left out: the load test itself was busy or late"));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::super::summary::{summarize, tests::results};
    use super::*;

    #[test]
    fn a_table_has_medians_ratios_and_what_was_left_out() {
        let mut results = results();
        results.servers[2].missing = Some("idled is not installed".to_owned());
        let other = &mut results.servers[1];
        (other.version, other.year, other.old) = (Some("1.2".to_owned()), Some(2021), Some("9.0 is current".to_owned()));
        for run in results.runs.iter_mut().filter(|run| run.server == "base") {
            run.run.as_mut().unwrap()["busy_tool"] = serde_json::json!(["the load test itself used 90 % of a CPU"]);
        }
        results.summary = summarize(&results);
        let expected = "other 1.2 (2021) old: 9.0 is current

echo: Echo
  server  CPU µs/op  ops/s  CPU µs/op to base
  base         2.00  ! 100                  1
  other        5.50     50     1.75 (2 pairs)
  ! doubtful: no run without a flaw tells it, or what it is compared to
  base: rates and latencies are doubtful: the load test itself was busy or late in 3 of 3 runs
      round 1: INVALID: the load test itself used 90 % of a CPU
      round 2: INVALID: the load test itself used 90 % of a CPU
      round 3: INVALID: the load test itself used 90 % of a CPU
  other: 1 of 3 runs left out
      round 3: 5 lost
  other: its rate had not settled within 2 % when it had been warmed up

idle was left out: idled is not installed
";
        assert_eq!(render(&results), expected);
    }

    #[test]
    fn a_ratio_tells_what_it_rests_on() {
        let shown = |samples: &[f64]| ratio(&Estimate::of(samples).unwrap());
        assert_eq!(shown(&[1.5]), "1.50 (1 pair)");
        assert_eq!(shown(&[1.5, 1.6, 1.7, 1.8]), "1.65 (4 pairs)");
        assert_eq!(shown(&[1.5, 1.6, 1.7, 1.8, 1.9]), "1.70 [1.50, 1.90] (range of 5)");
        assert_eq!(shown(&[1.5; 7]), "1.50 [1.50, 1.50] (7 pairs)");
    }
}
