//! `verify`: whether a server keeps Fantail's promise: what was accepted is delivered to each subscriber exactly once and in
//! order, or a gap that covers it is announced, whatever happens to connections and, where the load test starts the server, to
//! the server.
//!
//! ```text
//! drill       the loop's load: publishes, cuts, brings back      subscriber posters   who takes part
//! account     who was owed what, and what of it came              position tally       what it knows and says
//! objects     the server's JSON                                   server               kills and starts again
//! ```
//!
//! Topics have two publishers each, one by POST and one by WebSocket, and subscribers by WebSocket with `envelope`, by event
//! stream and by long-poll. Cuts come at random times from a seed; what the network and the server make of it is their own. The
//! URLs are Fantail's.

mod account;
mod drill;
mod events;
mod objects;
mod position;
mod posters;
mod server;
mod subscriber;
mod tally;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use fantail::config::{ByteSize, TimeSpan};

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::engine::Engine;
use crate::exit;
use crate::failure::Failure;
use crate::interrupt::{self, Second};
use crate::kernel;
use crate::launch::free_port;
use crate::output;
use crate::target::{Dialect, Target};

use super::gather::gather;
use super::party::parse_size;
use drill::Drill;
use server::Server;

/// Flags of `verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// A topic's URL, without a query: http://HOST[:PORT]/topics/{topic}; {topic} stands for the topics' names, {port} for a free
    /// port
    // The help text, in which brackets are no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    url: String,
    /// How long to publish and cut
    #[arg(long, default_value = "60s", value_name = "TIME")]
    duration: TimeSpan,
    /// How long to wait at the end for what is still owed, and for connections that are to end
    #[arg(long, default_value = "5s", value_name = "TIME")]
    timeout: TimeSpan,
    /// How many topics, where the URL has a place for their names
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    topics: u32,
    /// How many subscribers a topic has: WebSockets, event streams and long-polls in turn
    #[arg(long, default_value_t = 9, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    subscribers: u32,
    /// Publications a second on each topic, half of them by POST and half by WebSocket
    #[arg(long, default_value = "50", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    rate: f64,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "64", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
    /// How often a subscriber is cut on average: reset, half-closed, stalled or closed in order
    #[arg(long, default_value = "5s", value_name = "TIME")]
    cut_every: TimeSpan,
    /// For how long at most it stays away or is stalled; the server has to keep what is published meanwhile, or to announce a gap
    #[arg(long, default_value = "1s", value_name = "TIME")]
    away: TimeSpan,
    /// What the random choices begin with; printed, so that they can be made again [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How often the server is killed with SIGKILL and started again on the same port
    #[arg(long, value_name = "TIME", requires = "command")]
    kill_every: Option<TimeSpan>,
    /// The command line of a server to start, with {port}
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// How many publications and how many cuts a run may have: each is remembered until its end.
const EVENTS_MAX: f64 = 4e6;

/// How fast things happen.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Publications a second, on all topics together.
    rate: f64,
    /// How often a subscriber is cut on average.
    cut_every: Nanos,
    /// For how long at most it stays away.
    away: Nanos,
    /// How long to wait at the end.
    timeout: Nanos,
}

/// Runs it, prints what it comes to, and says how the process ends.
pub fn run(options: &Verify) -> Result<ExitCode, Failure> {
    if options.url.contains('?') {
        return Err(Failure::Usage(format!(
            "{}: give the topic's URL without a query; the load test appends its own",
            options.url
        )));
    }
    if options.command.is_empty() && options.url.contains("{port}") {
        let why = "{port} stands for the port of a server that the load test starts: give its command line behind --";
        return Err(Failure::Usage(why.to_owned()));
    }
    check_memory(options)?;
    let port = if options.command.is_empty() { 0 } else { free_port()? };
    let url = options.url.replace("{port}", &port.to_string());
    let topics = if url.contains("{topic}") { options.topics } else { 1 };
    let connections = topics as usize * (options.subscribers as usize + 2);
    kernel::make_room(connections)?;
    let target = |query: &str, dialect| Target::resolve(&format!("{url}{query}"), Some(dialect), topics);
    let websocket = target("?envelope&on-gap=continue", Dialect::Raw)?;
    let address = websocket.address;
    let interrupted = interrupt::watch(if options.command.is_empty() { Second::Ends } else { Second::Waits })?;
    let server = match &options.command[..] {
        [] => None,
        command => match Server::start(command, port, address, options.kill_every, &interrupted)? {
            None => return Ok(ExitCode::from(exit::INTERRUPTED)),
            some => some,
        },
    };
    let mut engine = Engine::new(websocket, clock::length(options.timeout.duration()), interrupted)?;
    engine.net.add_target(target("", Dialect::Sse)?);
    let post = engine.net.add_target(target("", Dialect::Post)?);
    let Some(posters) = gather(&mut engine, post, &vec![Purpose::Publish; topics as usize])? else {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    };
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let pace = Pace {
        rate: options.rate * f64::from(topics),
        cut_every: clock::length(options.cut_every.duration()),
        away: clock::length(options.away.duration()),
        timeout: clock::length(options.timeout.duration()),
    };
    let until = clock::now().saturating_add(clock::length(options.duration.duration()));
    let mut drill = Drill::new(pace, until, options.size.bytes(), seed, &posters, options.subscribers as usize, server);
    let was_interrupted = engine.run(&mut drill)?;
    judge(&drill, seed, was_interrupted)
}

/// Refuses what could not be remembered until the end.
fn check_memory(options: &Verify) -> Result<(), Failure> {
    let seconds = options.duration.duration().as_secs_f64();
    let publications = seconds * options.rate * f64::from(options.topics);
    let subscribers = f64::from(options.topics) * f64::from(options.subscribers);
    let cuts = seconds / options.cut_every.duration().as_secs_f64().max(1e-3) * subscribers;
    match [("publications", publications), ("cuts", cuts)].into_iter().find(|&(_, count)| count > EVENTS_MAX) {
        None => Ok(()),
        Some((what, count)) => Err(Failure::Usage(format!(
            "{count:.0} {what} are more than the {EVENTS_MAX} that the load test remembers: use a shorter --duration"
        ))),
    }
}

/// Prints the summary line and what stands beside it.
fn judge(drill: &Drill, seed: u64, was_interrupted: bool) -> Result<ExitCode, Failure> {
    let tally = drill.tally();
    let doubts = drill.doubts(&tally);
    let mut text = format!("{tally}{}", drill.events());
    // Writing into memory can't fail.
    let _ = writeln!(text, "seed {seed}");
    if was_interrupted {
        text.push_str("interrupted: what was under way counts as lost\n");
    }
    doubts.iter().for_each(|doubt| text.extend(["INVALID: ", doubt, "\n"]));
    output::print(&text)?;
    Ok(match () {
        () if was_interrupted => ExitCode::from(exit::INTERRUPTED),
        () if !tally.is_kept() => ExitCode::from(exit::BROKEN),
        () if !doubts.is_empty() => ExitCode::from(exit::INVALID),
        () => ExitCode::SUCCESS,
    })
}
