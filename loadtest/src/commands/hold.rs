//! `hold`: what an idle connection costs: memory as the slope between two counts, and processor time of doing nothing.
//!
//! A slope, because a server's first megabytes have nothing to do with connections.

use clap::Args;

use crate::clock;
use crate::cpu::Memory;
use crate::ending::Ending;
use crate::engine::{Engine, Load, Net, Next};
use crate::failure::Failure;
use crate::report::{Figure, Report};

use super::common::Common;
use super::crowd;
use super::stage::Stage;

/// Flags of `hold`.
#[derive(Args, Debug)]
pub struct Hold {
    #[command(flatten)]
    common: Common,
    /// The larger count of connections
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    connections: u32,
    /// The smaller count of connections
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    from: u32,
}

struct Idle {
    stage: Stage,
    lost: u64,
    first_ending: Option<String>,
}

/// Runs `hold`: connects the smaller count, rests for `--warmup`, looks, connects the rest, and so again.
pub fn run(options: &Hold) -> Result<(Report, &Common), Failure> {
    let (few, many) = (options.from as usize, options.connections as usize);
    let Some(pid) = options.common.pid else {
        return Err(Failure::Usage("hold measures a process: give its --pid".to_owned()));
    };
    if few >= many {
        return Err(Failure::Usage(format!("--from {few} must be less than --connections {many}")));
    }
    let mut engine = options.common.prepare(many)?;
    let Some(memory_few) = rest_with(&mut engine, options, few, pid)? else { return interrupted(options, &engine) };
    let Some(memory_many) = rest_with(&mut engine, options, many, pid)? else { return interrupted(options, &engine) };

    let mut idle = Idle { stage: Stage::at_once(&options.common, "idle", clock::now()), lost: 0, first_ending: None };
    let was_interrupted = engine.run(&mut idle)?;
    idle.stage.finish(0)?;
    let measured = idle.stage.measured();
    let slope =
        |with_many: u64, with_few: u64| (with_many as f64 - with_few as f64) / (options.connections - options.from) as f64;
    let mut report = Report::new("hold", "connection", measured, engine.net.lag.clone());
    report.counts =
        vec![("held", many as u64 - idle.lost), ("connections_lost", idle.lost), ("pings_answered", engine.net.pings)];
    report.figures = vec![
        Figure { name: "rss_per_connection", value: slope(memory_many.rss, memory_few.rss), unit: "B" },
        Figure { name: "pss_per_connection", value: slope(memory_many.pss, memory_few.pss), unit: "B" },
        Figure { name: "rss", value: memory_many.rss as f64 / (1 << 20) as f64, unit: "MiB" },
    ];
    if let Some(server) = measured.server {
        let share = 100.0 * (server.user + server.system) / measured.seconds;
        report.figures.push(Figure { name: "idle_cpu", value: share, unit: "%" });
    }
    report.notes.extend(idle.first_ending.map(|first| format!("the first connection lost: {first}")));
    report.notes.push("memory of the process alone: what the kernel keeps for sockets is not in it".to_owned());
    report.interrupted = was_interrupted;
    Ok((report, &options.common))
}

/// Brings the connections to `count`, rests, and looks; `None` after Ctrl-C.
fn rest_with(engine: &mut Engine, options: &Hold, count: usize, pid: u32) -> Result<Option<Memory>, Failure> {
    if !crowd::gather(engine, count)? {
        return Ok(None);
    }
    let mut rest = Idle { stage: Stage::resting(&options.common, clock::now()), lost: 0, first_ending: None };
    if engine.run(&mut rest)? {
        return Ok(None);
    }
    match rest.first_ending {
        Some(ending) => Err(Failure::Usage(format!("{} of {count} connections did not stay: {ending}", rest.lost))),
        None => Memory::of_tree(pid).map(Some),
    }
}

/// Before the second look there is no slope, so there is nothing to print but what stands.
fn interrupted<'a>(options: &'a Hold, engine: &Engine) -> Result<(Report, &'a Common), Failure> {
    let mut report = Report::new("hold", "connection", Default::default(), engine.net.lag.clone());
    report.counts = vec![("held", engine.net.len() as u64)];
    report.interrupted = true;
    Ok((report, &options.common))
}

impl Load for Idle {
    fn turn(&mut self, net: &mut Net, now: clock::Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, 0)?;
        Ok(if self.stage.is_over() { Next::Done } else { Next::At(self.stage.until) })
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: clock::Nanos) {
        self.lost += 1;
        self.first_ending.get_or_insert_with(|| ending.to_string());
    }
}
