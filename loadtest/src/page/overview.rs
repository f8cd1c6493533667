//! The start of a page: what was compared, every ratio in one table and in one picture.

use crate::compare::results::{Results, ServerInfo};
use crate::compare::summary::{Cell, main_measure};
use crate::compare::table::pairs;
use crate::measure;
use crate::statistics::{Estimate, SAMPLES_MIN};

use super::canvas::{COLOURS, Words};
use super::html::{Table, escape};
use super::intervals::{Dot, Panel, Trellis};
use super::{Figures, date};

/// How wide a README shows a picture, in pixels.
const STANDALONE_WIDTH: u32 = 880;

/// The section.
pub fn section(results: &Results, figures: &mut Figures) -> String {
    let base = results.summary.first().map_or("", |cell| cell.base.as_str());
    let tests = tests(results);
    let mut text = format!(
        "<header>\n<h1>WebSocket servers compared</h1>\n<p class=\"lead\">{}, {}. {} {} of each test on each server, interleaved; \
         servers on CPU {}, load test on CPU {}; {}. Loopback and shared hardware: relative cost, not capacity.</p>\n</header>\n",
        count(results.servers.iter().filter(|server| server.missing.is_none()).count(), "server"),
        date(&results.started),
        results.rounds,
        if results.rounds == 1 { "round" } else { "rounds" },
        escape(&results.server_cpus),
        results.client_cpu,
        escape(&results.machine.cpu),
    );
    if results.interrupted {
        text += "<p class=\"warning\">The comparison was interrupted: rounds are missing.</p>\n";
    }
    if tests.is_empty() {
        return text + "<p>Nothing was measured.</p>\n";
    }
    text += &format!("<section>\n<h2>Cost as a ratio to {}</h2>\n", escape(base));
    text += &table(results, &tests);
    if let Some(trellis) = trellis(results, &tests) {
        let words = words(base);
        let note = format!(
            "Each dot is the median of the ratios of all rounds, each line {INTERVAL}. Further left costs less. \
                    Hollow dots are doubtful. Axes are logarithmic, one for each panel; the line at 1 is {}.",
            escape(base)
        );
        text += &figures.figure(&words, &note, |id, width| trellis.draw(id, width, &words));
    }
    text + caution(results) + "</section>\n"
}

/// The picture that stands in a README, where no remark is beside it: doubtful ratios are not in it.
pub fn standalone(results: &Results) -> Option<String> {
    let base = results.summary.first()?.base.as_str();
    let mut trellis = trellis(results, &tests(results))?;
    trellis.leave_out(|dot| dot.is_doubtful);
    if trellis.panels.is_empty() {
        return None;
    }
    let picture = trellis.draw("fantail", STANDALONE_WIDTH, &words(base));
    let style = format!(
        "<style>\n{COLOURS}text {{ font-family: system-ui, sans-serif; }}\nsvg {{ background: var(--ground); }}\n</style>\n<title"
    );
    Some(picture.replacen("<title", &style, 1))
}

/// What a server is called: its name and version.
pub fn label(server: &ServerInfo) -> String {
    server.version.as_ref().map_or_else(|| server.name.clone(), |version| format!("{} {version}", server.name))
}

/// The servers that were measured, each with its number in the file, which is its colour.
pub fn measured(results: &Results) -> Vec<(usize, &ServerInfo)> {
    let is_measured = |server: &ServerInfo| results.summary.iter().any(|cell| cell.server == server.name);
    results.servers.iter().enumerate().filter(|(_, server)| is_measured(server)).collect()
}

/// A test with cells, and the number they are compared by.
struct Compared<'a> {
    title: &'a str,
    main: &'static str,
    cells: Vec<&'a Cell>,
}

impl Compared<'_> {
    fn cell(&self, server: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.server == server).copied()
    }
}

fn tests(results: &Results) -> Vec<Compared<'_>> {
    let with_cells = results.tests.iter().filter_map(|test| {
        let cells: Vec<&Cell> = results.summary.iter().filter(|cell| cell.test == test.name).collect();
        main_measure(&cells).map(|main| Compared { title: &test.title, main, cells })
    });
    with_cells.collect()
}

fn table(results: &Results, tests: &[Compared<'_>]) -> String {
    let mut heads = vec!["Server".to_owned(), "Year".to_owned()];
    heads.extend(tests.iter().map(|test| format!("{} <small>{}</small>", escape(test.title), what(test.main))));
    let rows: Vec<Vec<String>> = measured(results)
        .into_iter()
        .map(|(_, server)| {
            let old = server.old.as_ref().map_or(String::new(), |why| format!(" <abbr title=\"{}\">old</abbr>", escape(why)));
            let year = server.year.map_or("–".to_owned(), |year| year.to_string());
            let mut row = vec![escape(&label(server)) + &old, year];
            row.extend(tests.iter().map(|test| test.cell(&server.name).map_or("–".to_owned(), |cell| shown(cell, test.main))));
            row
        })
        .collect();
    let mut table = Table::stacked(
        &format!("Medians of the ratios, paired by round, and {INTERVAL}; ! is doubtful; servers in the order of the file"),
        &heads,
    );
    table.group(None, &rows);
    table.finish()
}

fn shown(cell: &Cell, main: &str) -> String {
    let mark = if cell.doubtful_ratios.contains(main) { MARK } else { "" };
    cell.ratios.get(main).map_or("–".to_owned(), |estimate| mark.to_owned() + &interval(estimate))
}

/// What stands before a number that is of runs with flaws, or compared to such a number.
pub const MARK: &str = "<abbr title=\"doubtful: no run without a flaw\">!</abbr> ";

/// What a line through a dot is.
pub const INTERVAL: &str = "the 95\u{a0}% interval, of five pairs their range, of fewer none";

/// A ratio, and its interval and what that rests on smaller.
pub fn interval(estimate: &Estimate) -> String {
    let median = measure::ratio(estimate.median);
    match (estimate.low, estimate.high) {
        _ if estimate.samples == 0 => format!("{}", estimate.median),
        (Some(low), Some(high)) => {
            let (low, high) = (measure::ratio(low), measure::ratio(high));
            format!("{median} <small>{low} – {high}</small> <small>{}</small>", pairs(estimate))
        }
        _ => format!("{median} <small>{}</small>", pairs(estimate)),
    }
}

fn trellis(results: &Results, tests: &[Compared<'_>]) -> Option<Trellis> {
    let servers = measured(results);
    let panels: Vec<Panel> = tests
        .iter()
        .filter(|test| test.main == measure::CPU)
        .map(|test| Panel {
            title: test.title.to_owned(),
            rows: servers
                .iter()
                .map(|(_, server)| {
                    let cell = test.cell(&server.name)?;
                    let estimate = *cell.ratios.get(test.main)?;
                    Some(Dot { estimate, is_doubtful: cell.doubtful_ratios.contains(test.main) })
                })
                .collect(),
        })
        .collect();
    (!panels.is_empty()).then(|| Trellis {
        names: servers.iter().map(|(_, server)| server.name.clone()).collect(),
        series: servers.iter().map(|&(number, _)| number).collect(),
        panels,
        reference: Some(1.0),
        show: measure::ratio,
    })
}

fn words(base: &str) -> Words {
    Words {
        title: format!("Server CPU time per operation as a ratio to {base}"),
        description: format!(
            "One panel a test, one row a server: the median of the paired ratios and {INTERVAL}, on a logarithmic axis. The numbers \
             stand beside the dots."
        ),
    }
}

/// What is compared, above a column of ratios.
pub fn what(main: &str) -> &'static str {
    match main {
        measure::CPU => "CPU per operation",
        measure::MEMORY => "memory per connection",
        _ => "operations a second",
    }
}

/// What few rounds are worth.
fn caution(results: &Results) -> &'static str {
    match results.rounds as usize {
        0..SAMPLES_MIN => {
            "<p class=\"warning\">With fewer than five rounds there is no interval, so nothing here can be told apart.</p>\n"
        }
        _ => "",
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::super::super::compare::summary::{summarize, tests::results};
    use super::*;

    #[test]
    fn what_is_doubtful_is_not_in_the_picture_that_stands_alone() {
        let mut results = results();
        results.summary = summarize(&results);
        let names = ["base", "other"];
        let shown =
            |results: &Results| names.map(|name| standalone(results).is_some_and(|svg| svg.contains(&format!("\n{name}\n"))));
        assert_eq!(shown(&results), [true, true]);
        results.summary[1].doubtful_ratios.insert(measure::CPU.to_owned());
        assert_eq!(shown(&results), [true, false]);
        results.summary[0].doubtful_ratios.insert(measure::CPU.to_owned());
        assert_eq!(standalone(&results), None, "nothing is left of it");
    }
}
