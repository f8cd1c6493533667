//! The start of a page: what was compared, every ratio in one table and in one picture.

use crate::compare::results::{Results, ServerInfo};
use crate::compare::summary::{Cell, main_measure};
use crate::compare::table::ratio;
use crate::measure;

use super::canvas::{COLOURS, Words};
use super::html::{Table, escape};
use super::intervals::{Panel, Trellis};
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
            "Each dot is the median of the ratios of all rounds, each line its 95\u{a0}% interval. Further left costs less. \
                    Axes are logarithmic, one for each panel; the line at 1 is {}.",
            escape(base)
        );
        text += &figures.figure(&words, &note, |id, width| trellis.draw(id, width, &words));
    }
    text + &caution(results) + "</section>\n"
}

/// The picture that stands in a README.
pub fn standalone(results: &Results) -> Option<String> {
    let base = results.summary.first()?.base.as_str();
    let trellis = trellis(results, &tests(results))?;
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
        "Medians of the ratios, paired by round, with 95\u{a0}% intervals; servers in the order of the file",
        &heads,
    );
    table.group(None, &rows);
    table.finish()
}

fn shown(cell: &Cell, main: &str) -> String {
    let mark = if cell.is_doubtful { "<abbr title=\"no run without a flaw\">!</abbr> " } else { "" };
    cell.ratios.get(main).map_or("–".to_owned(), |estimate| mark.to_owned() + &interval(&ratio(estimate)))
}

/// A number, and its interval smaller.
pub fn interval(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, interval)) => format!("{number} <small>{}</small>", interval.replace(", ", " – ").replace(['[', ']'], "")),
        None => text.to_owned(),
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
                .map(|(_, server)| test.cell(&server.name).and_then(|cell| cell.ratios.get(test.main)).copied())
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
        description:
            "One panel a test, one row a server: the median of the paired ratios and its 95\u{a0}% interval on a logarithmic \
                      axis. The numbers stand beside the dots."
                .to_owned(),
    }
}

fn what(main: &str) -> &'static str {
    match main {
        measure::CPU => "CPU per operation",
        measure::MEMORY => "memory per connection",
        _ => "operations a second",
    }
}

/// What intervals of few rounds are worth.
fn caution(results: &Results) -> String {
    match results.rounds {
        1 => "<p class=\"warning\">One round has no interval: nothing here can be told apart.</p>\n".to_owned(),
        2..5 => {
            "<p class=\"warning\">With fewer than five rounds an interval holds the true median less often than 95 times in a \
                 hundred.</p>\n"
                .to_owned()
        }
        _ => String::new(),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
