//! What the tool can do, and the way from words on a command line to a report.

mod absence;
mod churn;
mod common;
mod connect;
mod crowd;
mod echo;
mod failures;
mod fanout;
mod follow;
mod followers;
mod gather;
mod hold;
mod notify;
mod party;
mod passing;
mod publish;
mod rest;
mod resume;
mod returning;
mod rooms;
mod scaling;
mod slow;
mod spread;
mod storm;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compare;
use crate::exit;
use crate::failure::Failure;
use crate::floor;
use crate::output;
use crate::page;

use common::Measure;

/// A load test for WebSocket servers, in figures that can be quoted.
#[derive(Parser, Debug)]
#[command(
    version,
    term_width = 79,
    after_help = "Exit status: 0 measured, 1 could not be run, 2 wrong flags, 3 INVALID, 4 a promise was broken (verify), 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Connections a second, and the latency of TCP, upgrade and first echo
    Connect(Box<connect::Connect>),
    /// Messages a second to an echo, and their round trips
    Echo(Box<echo::Echo>),
    /// One publishes, many get it: delivery latency, lost, duplicated, reordered
    Fanout(Box<fanout::Fanout>),
    /// Publications a second, each answered
    Publish(Box<publish::Publish>),
    /// Memory and CPU time of idle connections
    Hold(Box<hold::Hold>),
    /// Very many topics with one subscriber each
    Notify(Box<notify::Notify>),
    /// Chat rooms, as CometD's benchmark has them
    Rooms(Box<rooms::Rooms>),
    /// Subscribers come and go while messages flow
    Churn(Box<churn::Churn>),
    /// All drop and come back at once
    Storm(Box<storm::Storm>),
    /// All are cut off, miss messages, and come back with their cursors
    Resume(Box<resume::Resume>),
    /// Some subscribers stop reading
    Slow(Box<slow::Slow>),
    /// What more workers are worth, on a server that it starts
    Scaling(Box<scaling::Scaling>),
    /// Whether what was accepted is delivered once and in order, or a gap announced
    Verify(verify::Verify),
    /// A share of another run's subscribers
    #[command(hide = true)]
    Follow(follow::Follow),
    /// Several servers under the same tests, in interleaved rounds
    Compare(compare::Compare),
    /// Results as one page, or as one picture
    Report(page::ReportPage),
    /// The barest echo and fan-out server there is, to compare with
    Floor(floor::Floor),
}

/// Does what the command line says.
pub fn run() -> Result<ExitCode, Failure> {
    let command = Cli::parse().command;
    let measure: &dyn Measure = match &command {
        Command::Compare(options) => return compare::run(options),
        Command::Report(options) => return page::run(options),
        Command::Floor(options) => return floor::run(options).map(|()| ExitCode::SUCCESS),
        Command::Verify(options) => return verify::run(options),
        Command::Follow(options) => return follow::run(options).map(|()| ExitCode::SUCCESS),
        Command::Connect(options) => &**options,
        Command::Echo(options) => &**options,
        Command::Fanout(options) => &**options,
        Command::Publish(options) => &**options,
        Command::Hold(options) => &**options,
        Command::Notify(options) => &**options,
        Command::Rooms(options) => &**options,
        Command::Churn(options) => &**options,
        Command::Storm(options) => &**options,
        Command::Resume(options) => &**options,
        Command::Slow(options) => &**options,
        Command::Scaling(options) => &**options,
    };
    let common = measure.common();
    let json = common.json.as_deref().filter(|path| !output::is_stdout(path));
    json.into_iter().chain(common.csv.as_deref()).try_for_each(output::check)?;
    let reports = measure.run()?;
    output::write(&reports, common.json.as_deref(), common.csv.as_deref())?;
    Ok(match () {
        () if reports.iter().any(|report| report.interrupted) => ExitCode::from(exit::INTERRUPTED),
        () if reports.iter().any(|report| !report.invalid().is_empty()) => ExitCode::from(exit::INVALID),
        () => ExitCode::SUCCESS,
    })
}

/// A rate that a schedule can keep.
fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("give operations a second, between 0.001 and 1000000000".to_owned()),
    }
}
