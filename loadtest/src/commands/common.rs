//! What all commands have in common: flags, and the way from flags to a loop.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;

use clap::{Arg, Args};
use fantail::config::{ByteSize, TimeSpan};
use serde_json::Number;

use crate::clock::{self, Nanos};
use crate::cpus::Cpus;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::interrupt::{self, Second};
use crate::kernel;
use crate::report::Report;
use crate::stage::Stage;
use crate::target::{Dialect, Target};

/// What a command is to the command line.
pub trait Measure {
    /// Its common flags.
    fn common(&self) -> &Common;
    /// Measures. More than one report where a flag takes several values.
    fn run(&self) -> Result<Vec<Report>, Failure>;
}

/// The URL's help where a command speaks WebSocket only.
pub fn websocket_only(url: Arg) -> Arg {
    url.help("Where to connect: ws://HOST[:PORT]/PATH")
}

/// What the reader of a closed loop's latency has to know.
pub const CLOSED_LOOP: &str = "closed loop: latency is the server's service time, not what a stall would do to clients";

/// Why a run of which nothing was published any more must not be quoted.
pub const PUBLISHER_GONE: &str = "who published is gone: its connection ended, and nothing more was published";

/// Fantail's close code for a reader that can't be given all it missed: not to be tried again with that cursor.
pub const GAP_CODE: u16 = 4104;

/// Tells how much of what was due an open loop left out: the slowest, so no rate and no latency of it may be quoted.
pub fn tell_left_out(report: &mut Report, name: &'static str, count: u64) {
    report.fault(name, count);
    if count > 0 {
        report.busy.push(format!("{} {count}: what was due and left out is in no rate and no latency", name.replace('_', " ")));
    }
}

/// The rate that was asked for, as a parameter of a report.
pub fn rate_parameter(rate: f64) -> (&'static str, Number) {
    let whole = (rate.fract() == 0.0).then_some(Number::from(rate as u64));
    ("rate", whole.or_else(|| Number::from_f64(rate)).unwrap_or(Number::from(0)))
}

/// The most that a closed loop may have under way, in bytes: what the server does not read waits in the tool.
const INFLIGHT_BYTES_MAX: u64 = 1 << 30;

/// What a message under way takes beside its own bytes: its header, its number and its time.
const INFLIGHT_ENTRY_BYTES: u64 = 32;

/// Whether so many messages of this size may be under way on each connection.
pub fn check_inflight(connections: u32, inflight: u32, size: ByteSize) -> Result<(), Failure> {
    let messages = u64::from(connections) * u64::from(inflight);
    if messages.saturating_mul(size.bytes() as u64 + INFLIGHT_ENTRY_BYTES) <= INFLIGHT_BYTES_MAX {
        return Ok(());
    }
    let why = format!("{messages} messages of {size} under way are more than 1GiB, which the load test may have to keep");
    Err(Failure::Usage(format!("--inflight {inflight}: {why}: use fewer, or smaller ones")))
}

/// Flags of every command that measures.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Where to connect: ws://HOST[:PORT]/PATH, http:// for the same, redis://HOST/CHANNEL, nats://HOST/SUBJECT; {topic} stands for a
    /// topic's name
    // The help text, in which brackets are no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    pub url: String,
    /// How subscribers are spoken to; the URL's scheme says it where this doesn't
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    pub sub: Option<Dialect>,
    /// The address to connect from [default: the kernel's choice; on loopback each further process of `fanout`, `notify` and
    /// `hold` has one of its own]
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "TIME")]
    pub duration: TimeSpan,
    /// How long to run before measuring; what happens there is in no latency, rate or cost
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub warmup: TimeSpan,
    /// How long to wait for a connection, an answer or the last message
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub timeout: TimeSpan,
    /// The server's process: its CPU time per operation, its children included
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Keep the load test on this CPU, from 0
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Write the results with raw histograms as JSON; - for standard output, and the table to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Append the results to a CSV file, one figure a line, each with the command line it is of
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
}

impl Common {
    /// Pins the thread, makes room for the connections, resolves the URL.
    pub fn prepare(&self, connections: usize, topics: u32) -> Result<Engine, Failure> {
        self.cpu.map_or(Ok(()), |cpu| Cpus::one(cpu).pin())?;
        kernel::make_room(connections)?;
        if let Some(source) = self.source {
            // Said before the run: of a connection that fails it can not be told apart from a lack of ports.
            UdpSocket::bind((source, 0))
                .map_err(|error| Failure::Usage(format!("--source {source}: {error}; give an address of this machine")))?;
        }
        let mut target = Target::resolve(&self.url, self.sub, topics)?;
        target.source = self.source;
        Engine::new(target, self.timeout_ns(), interrupt::watch(Second::Ends)?)
    }

    /// The same for a command that sends WebSocket messages of its own.
    pub fn prepare_websocket(&self, connections: usize) -> Result<Engine, Failure> {
        let engine = self.prepare(connections, 1)?;
        if engine.net.target(0).is_websocket() {
            return Ok(engine);
        }
        Err(Failure::Usage(format!("{}: this command speaks WebSocket only", self.url)))
    }

    /// A stage whose warm-up starts at `start`.
    pub fn stage(&self, what: &'static str, start: Nanos) -> Stage {
        self.stage_at_once(what, start + clock::length(self.warmup.duration()))
    }

    /// A stage without a warm-up.
    pub fn stage_at_once(&self, what: &'static str, start: Nanos) -> Stage {
        Stage::between(self.pid, what, start, start + clock::length(self.duration.duration()))
    }

    /// The same in which nothing is looked at, and nothing shown.
    pub fn stage_unseen(&self, start: Nanos) -> Stage {
        let from = start + clock::length(self.warmup.duration());
        Stage::unseen(from, from + clock::length(self.duration.duration()))
    }

    /// As long as a warm-up, of which nothing is reported.
    pub fn stage_resting(&self, start: Nanos) -> Stage {
        Stage::between(self.pid, "resting", start, start + clock::length(self.warmup.duration()))
    }

    /// `--timeout` in nanoseconds.
    pub fn timeout_ns(&self) -> Nanos {
        clock::length(self.timeout.duration())
    }
}
