//! `compare FILE.toml`: several servers under the same tests, so that what is said of them is of one machine and one hour.
//!
//! ```text
//! file     servers, tests, settings             plan     the order of runs and their time
//! fleet    servers started, pinned, stopped     warmup   until the rate stays
//! child    one run of this program              rounds   all of them
//! summary  medians and paired ratios            table    what the terminal shows
//! results  the JSON of all that
//! ```
//!
//! On every way out, Ctrl-C and errors included, the servers are stopped; only where this program is killed outright they stay.

mod child;
pub mod file;
mod fleet;
mod plan;
pub mod results;
mod rounds;
pub mod summary;
pub mod table;
mod warmup;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::cpus::Cpus;
use crate::exit;
use crate::failure::Failure;
use crate::interrupt::{self, Second};
use crate::machine::{Commit, Machine, timestamp};
use crate::output;

use file::{Comparison, Server};
use results::{Results, ServerInfo};

/// Flags of `compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// Servers and tests, as TOML
    file: PathBuf,
    /// How often to run each test on each server, instead of what the file says
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Only this server; can be repeated
    #[arg(long = "server", value_name = "NAME")]
    servers: Vec<String>,
    /// Only this test; can be repeated
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Leave out servers whose program is not installed
    #[arg(long)]
    skip_missing: bool,
    /// Write all results, raw histograms included, as JSON; `report` makes a page of them
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `compare`.
pub fn run(options: &Compare) -> Result<ExitCode, Failure> {
    let mut file = Comparison::read(&options.file)?;
    options.output.as_deref().map_or(Ok(()), output::check)?;
    file.only(&options.servers, &options.tests)?;
    let mut results = describe(options, &file);
    leave_out_missing(&mut file, &mut results, options.skip_missing)?;
    let interrupted = interrupt::watch(Second::Waits)?;
    // What this process itself does between runs is not to be in the way of the servers.
    Cpus::one(file.client_cpu).pin()?;
    announce(&file, &results);
    let outcome = rounds::Rounds::new(&file, &mut results, &interrupted).run(|so_far| save(options, so_far));
    results.summary = summary::summarize(&results);
    save(options, &results)?;
    output::print(&table::render(&results))?;
    outcome?;
    Ok(match () {
        () if results.interrupted => ExitCode::from(exit::INTERRUPTED),
        () if has_doubtful_comparison(&results) => ExitCode::from(exit::INVALID),
        () => ExitCode::SUCCESS,
    })
}

/// Whether a server has no sound run for the number by which a test compares.
fn has_doubtful_comparison(results: &Results) -> bool {
    results.tests.iter().any(|test| {
        let cells: Vec<&summary::Cell> = results.summary.iter().filter(|cell| cell.test == test.name).collect();
        let main = summary::main_measure(&cells);
        cells.iter().any(|cell| main.is_none_or(|main| !cell.is_sound(main)))
    })
}

/// All that is known before the first run.
fn describe(options: &Compare, file: &Comparison) -> Results {
    Results {
        tool: concat!("fantail-loadtest ", env!("CARGO_PKG_VERSION")).to_owned(),
        kind: results::KIND.to_owned(),
        started: timestamp(),
        file: options.file.display().to_string(),
        commit: Commit::read(),
        machine: Machine::read(),
        server_cpus: file.server_cpus.to_string(),
        client_cpu: file.client_cpu,
        rounds: options.rounds.unwrap_or(file.rounds),
        interrupted: false,
        servers: file.servers.iter().map(info).collect(),
        tests: file.tests.clone(),
        warmups: Vec::new(),
        runs: Vec::new(),
        summary: Vec::new(),
    }
}

fn info(server: &Server) -> ServerInfo {
    ServerInfo {
        name: server.name.clone(),
        version: fleet::version(server),
        year: server.year,
        old: server.old.clone(),
        start: server.start.clone(),
        env: server.env.clone(),
        settings: server.settings.clone(),
        missing: server.missing().map(|missing| format!("{missing} is not installed")),
    }
}

fn leave_out_missing(file: &mut Comparison, results: &mut Results, skip: bool) -> Result<(), Failure> {
    let needed = file.servers.iter().find(|server| server.missing().is_some() && server.required && !skip);
    if let Some(server) = needed {
        let (name, missing) = (&server.name, server.missing().unwrap_or_default());
        return Err(Failure::Usage(format!("{name}: {missing} is not installed; --skip-missing compares the others")));
    }
    for server in results.servers.iter().filter(|server| server.missing.is_some()) {
        output::remark(&format!("{} is left out: {}", server.name, server.missing.as_deref().unwrap_or_default()));
    }
    file.servers.retain(|server| server.missing().is_none());
    results.tests.retain(|test| file.servers.iter().any(|server| server.has(test)));
    if file.servers.is_empty() { Err(Failure::Usage("no server is left to be compared".to_owned())) } else { Ok(()) }
}

/// How long it will take, for whoever waits at a terminal.
fn announce(file: &Comparison, results: &Results) {
    let steps = plan::steps(file, results.rounds);
    let time = rounds::estimate(&steps).as_secs();
    let (minutes, seconds) = (time / 60, time % 60);
    let (servers, tests) = (file.servers.len(), results.tests.len());
    let (rounds, runs) = (results.rounds, steps.len());
    let of = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let (servers, tests, rounds) = (of(servers, "server"), of(tests, "test"), of(rounds as usize, "round"));
    output::remark(&format!("{servers}, {tests}, {rounds}: {}, some {minutes} min {seconds} s", of(runs, "run")));
}

fn save(options: &Compare, results: &Results) -> Result<(), Failure> {
    options.output.as_deref().map_or(Ok(()), |path| results.write(path))
}
