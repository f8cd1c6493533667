//! One test: its servers in groups that can be told apart, what each did, and how late.

use crate::compare::file::Test;
use crate::compare::results::Results;
use crate::compare::summary::{Cell, main_measure, worth};
use crate::compare::table::{self, NOT_SETTLED};
use crate::measure::{self, Worth};
use crate::statistics::{Estimate, tie_groups};

use super::Figures;
use super::canvas::Words;
use super::html::{Table, command, escape};
use super::intervals::{Dot, Panel, Trellis};
use super::latency;
use super::lines::{Below, Lines, Series};
use super::overview::{INTERVAL, MARK, interval, label, measured, what};

/// The section.
pub fn section(results: &Results, test: &Test, figures: &mut Figures) -> String {
    let cells: Vec<&Cell> = results.summary.iter().filter(|cell| cell.test == test.name).collect();
    if cells.is_empty() {
        return String::new();
    }
    let mut text = format!("<section id=\"{0}\">\n<h2>{1}</h2>\n", escape(&test.name), escape(&test.title));
    text += &format!("<p class=\"command\">{}</p>\n", command(&test.command));
    text += &medians(results, test, &cells);
    text += &remarks(&cells);
    text += &amounts(results, &cells, figures);
    text += &latencies(results, test, figures);
    text + "</section>\n"
}

fn medians(results: &Results, test: &Test, cells: &[&Cell]) -> String {
    let main = main_measure(cells);
    let columns = table::columns(cells);
    let mut heads = vec!["Server".to_owned()];
    heads.extend(main.map(|main| format!("Ratio to {} <small>{}</small>", escape(&cells[0].base), what(main))));
    heads.extend(columns.iter().map(|name| escape(&measure::title(name))));
    let row = |cell: &Cell| {
        let name = results.servers.iter().find(|server| server.name == cell.server).map_or(cell.server.clone(), label);
        let mark = |text: String, is_doubtful: bool| if is_doubtful { MARK.to_owned() + &text } else { text };
        let shown = |name: &str| Some(mark(measure::show(name, cell.values.get(name)?.median), cell.doubtful.contains(name)));
        let compared = |name: &str| Some(mark(interval(cell.ratios.get(name)?), cell.doubtful_ratios.contains(name)));
        let mut row = vec![escape(&name)];
        row.extend(main.map(|name| compared(name).unwrap_or("–".to_owned())));
        row.extend(columns.iter().map(|name| shown(name).unwrap_or("–".to_owned())));
        row
    };
    let mut table = Table::new(&format!("{}: medians, least cost first where it can be told", test.title), &heads);
    for (standing, group) in groups(cells, main) {
        let rows: Vec<Vec<String>> = group.iter().map(|&cell| row(cells[cell])).collect();
        table.group(standing.remark(), &rows);
    }
    table.finish()
}

/// What is to be said of a group of cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// One alone, told apart from all others.
    Apart,
    /// Several whose intervals overlap.
    Tie,
    /// Those that are not to be ranked: no ratio, or none from a run without a flaw.
    Unranked,
}

impl Standing {
    const fn remark(self) -> Option<&'static str> {
        match self {
            Self::Apart => None,
            Self::Tie => Some("Not told apart, in the order of the file"),
            Self::Unranked => Some("Not ranked: no ratio of runs without a flaw"),
        }
    }
}

/// The cells in groups, least cost first. A doubtful base makes every ratio doubtful.
pub fn groups(cells: &[&Cell], main: Option<&str>) -> Vec<(Standing, Vec<usize>)> {
    let estimate = |cell: usize| cells[cell].sound_ratio(main?);
    let (known, without): (Vec<usize>, Vec<usize>) = (0..cells.len()).partition(|&cell| estimate(cell).is_some());
    let estimates: Vec<Estimate> = known.iter().filter_map(|&cell| estimate(cell)).collect();
    let named = |group: Vec<usize>| {
        let standing = if group.len() > 1 { Standing::Tie } else { Standing::Apart };
        (standing, group.into_iter().map(|at| known[at]).collect())
    };
    let mut groups: Vec<(Standing, Vec<usize>)> = tie_groups(&estimates).into_iter().map(named).collect();
    if main.is_some_and(measure::more_is_better) {
        groups.reverse();
    }
    groups.extend((!without.is_empty()).then_some((Standing::Unranked, without)));
    groups
}

fn remarks(cells: &[&Cell]) -> String {
    let mut items = Vec::new();
    for cell in cells {
        let name = escape(&cell.server);
        if !cell.flaws.is_empty() {
            let what = escape(&table::remarks(cell).join("; "));
            let flaws: Vec<String> = cell.flaws.iter().map(|flaw| format!("<li>{}</li>", escape(flaw))).collect();
            items.push(format!("<details><summary><b>{name}</b>: {what}</summary><ul>{}</ul></details>\n", flaws.join("")));
        }
        if cell.settled == Some(false) {
            items.push(format!("<p class=\"note\"><b>{name}</b>: {NOT_SETTLED}.</p>\n"));
        }
    }
    items.concat()
}

/// CPU time and rate, or memory, as amounts with intervals.
fn amounts(results: &Results, cells: &[&Cell], figures: &mut Figures) -> String {
    let servers: Vec<(usize, String)> = measured(results)
        .into_iter()
        .filter(|(_, server)| cells.iter().any(|cell| cell.server == server.name))
        .map(|(number, server)| (number, server.name.clone()))
        .collect();
    let of = |name: &str| -> Vec<Option<Dot>> {
        let dot = |server: &String| {
            let cell = cells.iter().find(|cell| &cell.server == server)?;
            Some(Dot { estimate: *cell.values.get(name)?, is_doubtful: cell.doubtful.contains(name) })
        };
        servers.iter().map(|(_, server)| dot(server)).collect()
    };
    let wanted = [
        (measure::MEMORY, "Resident memory per connection, bytes"),
        (measure::CPU, "Server CPU per operation, µs"),
        (measure::RATE, "Operations a second"),
    ];
    let panels: Vec<Panel> = wanted
        .iter()
        .map(|(name, title)| Panel { title: (*title).to_owned(), rows: of(name) })
        .filter(|panel| panel.rows.iter().any(Option::is_some))
        .collect();
    if panels.is_empty() {
        return String::new();
    }
    let titles: Vec<&str> = panels.iter().map(|panel| panel.title.as_str()).collect();
    let words = Words {
        title: titles.join("; "),
        description: format!(
            "One row a server: the median of its rounds and {INTERVAL}, on a logarithmic axis, the median as a number at the right."
        ),
    };
    let trellis = Trellis {
        names: servers.iter().map(|(_, name)| name.clone()).collect(),
        series: servers.iter().map(|&(number, _)| number).collect(),
        panels,
        reference: None,
        show: measure::digits,
    };
    let note = format!("Medians of the rounds, logarithmic. Each line is {INTERVAL}. Hollow dots are doubtful.");
    figures.figure(&words, &note, |id, width| trellis.draw(id, width, &words))
}

fn latencies(results: &Results, test: &Test, figures: &mut Figures) -> String {
    let series: Vec<Series> = measured(results)
        .into_iter()
        .filter_map(|(number, server)| {
            let runs = results.runs.iter().filter(|run| run.test == test.name && run.server == server.name);
            let (sound, flawed): (Vec<_>, Vec<_>) = runs.partition(|run| worth(run) == Worth::All);
            let is_doubtful = sound.is_empty();
            let counted: Vec<_> = if is_doubtful { flawed } else { sound }.iter().filter_map(|run| run.run.as_ref()).collect();
            let points = latency::curve(&counted);
            let marks = Some(latency::marks());
            (!points.is_empty()).then(|| Series { name: server.name.clone(), number, points, is_doubtful, marks })
        })
        .collect();
    if series.is_empty() {
        return String::new();
    }
    let which = results.runs.iter().filter(|run| run.test == test.name).find_map(|run| measure::main_latency(run.run.as_ref()?));
    let which = which.map_or("latency", |(name, _)| name).replace('_', " ");
    percentiles(&format!("Latency by percentile: {which}"), series, figures)
}

/// A figure of latencies by percentile.
pub fn percentiles(title: &str, series: Vec<Series>, figures: &mut Figures) -> String {
    let words = Words {
        title: title.to_owned(),
        description:
            "A line for each server: how late the given share of all came at the most. Both axes are logarithmic; the lower \
                      one in the distance to 100 %."
                .to_owned(),
    };
    let lines = Lines {
        series,
        below: Below::Percentiles,
        below_title: "percentile".to_owned(),
        left_title: "latency".to_owned(),
        show: measure::microseconds_short,
        from_zero: false,
    };
    let note = "Histograms of all counted rounds added up; each line ends where fewer than ten latencies lie beyond. Hollow marks \
                and a ! are for runs with flaws only.";
    figures.figure(&words, note, |id, width| lines.draw(id, (width, if width < 500 { 300 } else { 360 }), &words))
}

#[cfg(test)]
mod tests {
    use super::super::super::compare::summary::{summarize, tests::results};
    use super::*;

    /// Names of the groups' servers, for a base and others with these ratios.
    fn grouped(ratios: &[(f64, f64)], doubtful: Option<usize>) -> Vec<(Standing, Vec<usize>)> {
        let base = summarize(&results()).remove(0);
        let mut cells = vec![base.clone()];
        cells.extend(ratios.iter().enumerate().map(|(number, &(low, high))| {
            let mut cell = Cell { server: format!("s{number}"), ..base.clone() };
            let estimate = Estimate { median: low, low: Some(low), high: Some(high), samples: 5 };
            cell.ratios.insert(measure::CPU.to_owned(), estimate);
            cell
        }));
        // As the summary has it: of a doubtful base every ratio is doubtful.
        let is_doubtful = |cell: usize| doubtful.is_some_and(|doubtful| doubtful == cell || doubtful == 0);
        for (_, cell) in cells.iter_mut().enumerate().filter(|(number, _)| is_doubtful(*number)) {
            cell.doubtful_ratios.extend([measure::CPU.to_owned()]);
        }
        groups(&cells.iter().collect::<Vec<_>>(), Some(measure::CPU))
    }

    #[test]
    fn only_what_can_be_told_apart_is_ranked() {
        use Standing::{Apart, Tie, Unranked};
        assert_eq!(
            grouped(&[(1.5, 1.9), (0.8, 0.9), (1.2, 1.3)], None),
            [(Apart, vec![2]), (Apart, vec![0]), (Apart, vec![3]), (Apart, vec![1]),]
        );
        let chained = [(1.2, 1.5), (2.0, 2.1), (0.9, 1.2)];
        assert_eq!(grouped(&chained, None), [(Tie, vec![0, 1, 3]), (Apart, vec![2])]);
        assert_eq!(grouped(&chained, Some(3)), [(Apart, vec![0]), (Apart, vec![1]), (Apart, vec![2]), (Unranked, vec![3])]);
        assert_eq!(grouped(&chained, Some(0)), [(Unranked, vec![0, 1, 2, 3])], "ratios to nothing certain");
    }
}
