//! The results as tables in a terminal: servers in the order of the file, never by rank.

use std::fmt::Write as _;

use crate::measure;
use crate::statistics::Estimate;

use super::results::Results;
use super::summary::{Cell, main_measure};

/// The columns that a test may have, in this order.
const COLUMNS: [&str; 10] = [
    "rss_per_connection",
    "pss_per_connection",
    "rss",
    "idle_cpu",
    measure::CPU,
    "cpu_user_us",
    "cpu_system_us",
    measure::RATE,
    "p50_us",
    "p99_us",
];

/// One table per test.
pub fn render(results: &Results) -> String {
    let mut text = String::new();
    for test in &results.tests {
        let cells: Vec<&Cell> = results.summary.iter().filter(|cell| cell.test == test.name).collect();
        let Some(first) = cells.first() else { continue };
        let main = main_measure(&cells);
        let _ = writeln!(text, "\n{}: {}", test.name, test.title);
        let columns: Vec<&str> =
            COLUMNS.into_iter().filter(|&name| cells.iter().any(|cell| cell.values.contains_key(name))).collect();
        let mut rows = vec![vec!["server".to_owned()]];
        rows[0].extend(columns.iter().map(|name| measure::title(name)));
        rows[0].extend(main.map(|name| format!("{} to {}", measure::title(name), first.base)));
        rows.extend(cells.iter().map(|cell| row(cell, &columns, main)));
        write_rows(&mut text, &rows);
        cells.iter().for_each(|cell| write_remarks(&mut text, cell));
    }
    for server in &results.servers {
        if let Some(missing) = &server.missing {
            let _ = writeln!(text, "\n{} was left out: {missing} is not installed", server.name);
        }
    }
    text
}

/// A ratio with its interval.
pub fn ratio(estimate: &Estimate) -> String {
    match (estimate.low, estimate.high) {
        _ if estimate.samples == 0 => format!("{}", estimate.median),
        (Some(low), Some(high)) => {
            format!("{} [{}, {}]", measure::ratio(estimate.median), measure::ratio(low), measure::ratio(high))
        }
        _ => format!("{} [one round]", measure::ratio(estimate.median)),
    }
}

fn row(cell: &Cell, columns: &[&str], main: Option<&str>) -> Vec<String> {
    let mark = if cell.is_doubtful { " (!)" } else { "" };
    let mut row = vec![format!("{}{mark}", cell.server)];
    let shown = |name: &&str| cell.values.get(*name).map_or("-".to_owned(), |value| measure::show(name, value.median));
    row.extend(columns.iter().map(shown));
    row.extend(main.map(|name| cell.ratios.get(name).map_or("-".to_owned(), ratio)));
    row
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
    if cell.is_doubtful {
        let _ = writeln!(text, "  (!) {}: no run without a flaw; its figures are those of flawed runs", cell.server);
    } else if !cell.flaws.is_empty() {
        let _ = writeln!(text, "  {}: {} of {} runs left out", cell.server, cell.flaws.len(), cell.runs);
    }
    for flaw in &cell.flaws {
        let _ = writeln!(text, "      {flaw}");
    }
    if cell.settled == Some(false) {
        let _ = writeln!(text, "  {}: its rate had not settled within 2 % when it was measured", cell.server);
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::{summarize, tests::results};
    use super::*;

    #[test]
    fn a_table_has_medians_ratios_and_what_was_left_out() {
        let mut results = results();
        results.servers[2].missing = Some("idled".to_owned());
        results.summary = summarize(&results);
        let expected = "
echo: Echo
  server  CPU µs/op  ops/s  CPU µs/op to base
  base         2.00    100                  1
  other        5.50     50  1.75 [1.50, 2.00]
  other: 1 of 3 runs left out
      round 3: 5 lost
  other: its rate had not settled within 2 % when it was measured

idle was left out: idled is not installed
";
        assert_eq!(render(&results), expected);
    }

    #[test]
    fn a_single_round_has_no_interval() {
        assert_eq!(ratio(&Estimate::of(&[1.5]).unwrap()), "1.50 [one round]");
    }
}
