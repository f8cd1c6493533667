//! `report RESULTS.json... -o report.html`: one page that explains itself: no script, no other file, light and dark, on paper too.
//!
//! ```text
//! input     comparisons and single runs         html       escaped text, tables
//! canvas    SVG in the page's colours           intervals  medians with intervals
//! latency   merged histograms                   lines      lines with their names
//! overview test_section trends single about: the sections
//! ```
//!
//! It ranks only what can be told apart: where intervals overlap, servers stand together in the order of the file.

mod about;
mod canvas;
mod html;
mod input;
mod intervals;
mod latency;
mod lines;
mod overview;
mod single;
mod test_section;
mod trends;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::failure::Failure;

use canvas::Words;
use input::Input;

/// Pictures are drawn twice, because text that shrinks with a picture cannot be read on a telephone.
const WIDE: u32 = 840;
const NARROW: u32 = 360;

/// Flags of `report`.
#[derive(Args, Debug)]
pub struct ReportPage {
    /// What `compare -o` or `--json` wrote
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// The page to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "plot")]
    output: Option<PathBuf>,
    /// Write one picture for a README: server CPU per operation of the first comparison, as a ratio to its first server
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Runs `report`.
pub fn run(options: &ReportPage) -> Result<ExitCode, Failure> {
    let input = Input::read(options.results.iter().map(PathBuf::as_path))?;
    if let Some(path) = &options.output {
        write(path, &page(&input))?;
    }
    if let Some(path) = &options.plot {
        let picture = input.comparisons.first().and_then(overview::standalone);
        let nothing = || Failure::Usage("--plot: there is no comparison with the CPU time of its servers".to_owned());
        write(path, &picture.ok_or_else(nothing)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn page(input: &Input) -> String {
    let mut body = String::new();
    for (number, results) in input.comparisons.iter().enumerate() {
        let mut figures = Figures::new(format!("c{number}"));
        body += &overview::section(results, &mut figures);
        for test in &results.tests {
            body += &test_section::section(results, test, &mut figures);
        }
    }
    if input.comparisons.is_empty() {
        body += &format!("<header>\n<h1>{}</h1>\n</header>\n", html::escape(&title(input)));
    }
    let mut figures = Figures::new("x".to_owned());
    body += &trends::sections(input, &mut figures);
    body += &single::sections(&input.singles, &mut figures);
    input.comparisons.iter().for_each(|results| body += &about::section(results));
    let (colours, style) = (canvas::COLOURS, include_str!("page.css"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{colours}{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        title = html::escape(&title(input))
    )
}

fn title(input: &Input) -> String {
    match input.comparisons.first() {
        Some(results) => format!("WebSocket servers compared, {}", date(results.started.as_str())),
        None => "Load test of WebSocket servers".to_owned(),
    }
}

/// The day of a timestamp.
fn date(timestamp: &str) -> &str {
    timestamp.split('T').next().unwrap_or(timestamp)
}

/// Numbers the figures of a page, and draws each for wide and for narrow screens.
#[derive(Debug)]
struct Figures {
    prefix: String,
    count: usize,
}

impl Figures {
    const fn new(prefix: String) -> Self {
        Self { prefix, count: 0 }
    }

    /// A figure with what is to be read below it, as HTML.
    fn figure(&mut self, words: &Words, note: &str, draw: impl Fn(&str, u32) -> String) -> String {
        self.count += 1;
        let id = format!("{}-{}", self.prefix, self.count);
        let (wide, narrow) = (draw(&format!("{id}-w"), WIDE), draw(&format!("{id}-n"), NARROW));
        format!(
            "<figure>\n<div class=\"wide\">{wide}</div>\n<div class=\"narrow\">{narrow}</div>\n\
             <figcaption><b>{}.</b> {note}</figcaption>\n</figure>\n",
            html::escape(&words.title)
        )
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| Failure::File { path: path.display().to_string(), what: error.to_string() })
}
