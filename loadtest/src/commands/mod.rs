//! What the tool can do, and the way from words on a command line to a report.

mod common;
mod connect;
mod crowd;
mod echo;
mod fanout;
mod hold;
mod payload;
mod stage;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fantail::config::ByteSize;

use crate::compare;
use crate::failure::Failure;
use crate::floor;
use crate::page;
use crate::report::Report;

/// The exit status of a run whose figures must not be quoted.
const STATUS_INVALID: u8 = 3;

/// The exit status after Ctrl-C, as shells have it.
const STATUS_INTERRUPTED: u8 = 130;

/// A load test for WebSocket servers, in figures that can be quoted.
#[derive(Parser, Debug)]
#[command(
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 measured, 1 could not be run, 2 wrong flags, 3 INVALID, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Connections a second, and the latency of TCP and upgrade
    Connect(connect::Connect),
    /// Messages a second to an echo, and their round trips
    Echo(echo::Echo),
    /// One publishes, many get it: delivery latency, lost, duplicated, reordered
    Fanout(fanout::Fanout),
    /// Memory and CPU time of idle connections
    Hold(hold::Hold),
    /// Several servers under the same tests, in interleaved rounds
    Compare(compare::Compare),
    /// Results as one page, or as one picture
    Report(page::ReportPage),
    /// The barest echo and fan-out server there is, to compare with
    Floor(floor::Floor),
}

/// Does what the command line says.
pub fn run() -> Result<ExitCode, Failure> {
    let (report, json) = match &Cli::parse().command {
        Command::Compare(options) => return compare::run(options),
        Command::Report(options) => return page::run(options),
        Command::Floor(options) => return floor::run(options).map(|()| ExitCode::SUCCESS),
        Command::Connect(options) => finish(connect::run(options)?),
        Command::Echo(options) => finish(echo::run(options)?),
        Command::Fanout(options) => finish(fanout::run(options)?),
        Command::Hold(options) => finish(hold::run(options)?),
    };
    print(&report, json.as_deref())?;
    Ok(match () {
        () if report.interrupted => ExitCode::from(STATUS_INTERRUPTED),
        () if !report.invalid().is_empty() => ExitCode::from(STATUS_INVALID),
        () => ExitCode::SUCCESS,
    })
}

/// Lets go of the options but for where the JSON goes.
fn finish((report, common): (Report, &common::Common)) -> (Report, Option<std::path::PathBuf>) {
    (report, common.json.clone())
}

/// The table, and the JSON where it was asked for. Standard output has one of them only, so that it can be piped.
fn print(report: &Report, json: Option<&Path>) -> Result<(), Failure> {
    let text = json.map(|_| format!("{:#}\n", report.to_json()));
    match (json, text) {
        (Some(path), Some(text)) if path == Path::new("-") => {
            eprint!("{report}");
            print!("{text}");
        }
        (Some(path), Some(text)) => {
            print!("{report}");
            fs::write(path, text).map_err(|error| Failure::System("writing the JSON", error))?;
        }
        _ => print!("{report}"),
    }
    Ok(())
}

/// A message needs room for its number.
fn check_size(size: ByteSize) -> Result<(), Failure> {
    if size.bytes() < payload::SIZE_MIN {
        return Err(Failure::Usage(format!("--size must be at least {}: a message carries its number", payload::SIZE_MIN)));
    }
    Ok(())
}

/// A rate that a schedule can keep.
fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("give operations a second, between 0.001 and 1000000000".to_owned()),
    }
}
