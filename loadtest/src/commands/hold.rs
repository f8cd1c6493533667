//! `hold`: what an idle connection costs: memory as the slope between two counts, and processor time of doing nothing.
//!
//! A slope, because a server's first megabytes have nothing to do with connections.

use clap::Args;

use crate::client::Purpose;
use crate::clock;
use crate::cpu::Memory;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::kernel;
use crate::payload::SIZE_MIN;
use crate::report::{Figure, Report};

use super::common::{Common, Measure};
use super::fanout::TOPIC;
use super::followers::{self, Followers};
use super::gather::gather;
use super::rest::Rest;
use super::spread::{Layout, Processes};

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
    #[command(flatten)]
    processes: Processes,
}

/// What there was with one count of connections.
#[derive(Clone, Copy)]
struct Look {
    server: Memory,
    /// The kernel's, for both ends of each connection.
    kernel: u64,
}

impl Measure for Hold {
    fn common(&self) -> &Common {
        &self.common
    }

    /// Connects the smaller count, rests for `--warmup`, looks, connects the rest, and so again.
    fn run(&self) -> Result<Vec<Report>, Failure> {
        let (few, many) = (self.from, self.connections);
        let Some(pid) = self.common.pid else {
            return Err(Failure::Usage("hold measures a process: give its --pid".to_owned()));
        };
        if few >= many {
            return Err(Failure::Usage(format!("--from {few} must be less than --connections {many}")));
        }
        let shares = followers::shares(many, 0, self.processes.processes)?;
        let mut engine = self.common.prepare(followers::room(&shares, 0), 1)?;
        let mut followers = Followers::start(&self.common, &shares[1..], Layout { topics: 1, each: 1 }, SIZE_MIN, 0)?;
        let mut left = few;
        let mut take = |&share: &u32| {
            let taken = share.min(left);
            left -= taken;
            taken
        };
        let first: Vec<u32> = shares.iter().map(&mut take).collect();
        let rest: Vec<u32> = shares.iter().zip(&first).map(|(all, first)| all - first).collect();
        // Before the second look there is no slope, so there is nothing to print.
        let cut_short = || Ok(vec![Report::cut_short("hold", "connection")]);
        let Some(with_few) = self.rest_with(&mut engine, &mut followers, &first, pid)? else { return cut_short() };
        let Some(with_many) = self.rest_with(&mut engine, &mut followers, &rest, pid)? else { return cut_short() };

        let mut idle = Rest::new(self.common.stage_at_once("idle", clock::now()));
        let was_interrupted = engine.run(&mut idle)?;
        idle.stage.finish(&engine.net, 0);
        let measured = idle.stage.measured();
        let slope = |many: u64, few: u64| (many as f64 - few as f64) / f64::from(self.connections - self.from);
        let share = measured.server.map(|server| 100.0 * (server.user + server.system) / measured.seconds);
        let mut report = Report::new("hold", "connection", measured, idle.stage.lag().clone());
        report.parameters = vec![("from", few.into()), ("connections", many.into()), ("processes", shares.len().into())];
        report.fault("connections_lost", idle.lost);
        report.tell("pings_answered", engine.net.pings);
        if !was_interrupted {
            followers::merge(&mut report, &followers.end(0, std::iter::empty())?, self.common.cpu.is_some())?;
        }
        let lost = report.count("connections_lost").unwrap_or_default();
        report.tell("held", u64::from(many).saturating_sub(lost));
        report.figures = vec![
            Figure { name: "rss_per_connection", value: slope(with_many.server.rss, with_few.server.rss), unit: "B" },
            Figure { name: "pss_per_connection", value: slope(with_many.server.pss, with_few.server.pss), unit: "B" },
            Figure { name: "kernel_per_connection", value: slope(with_many.kernel, with_few.kernel), unit: "B" },
            Figure { name: "rss", value: with_many.server.rss as f64 / (1 << 20) as f64, unit: "MiB" },
        ];
        report.figures.extend(share.map(|value| Figure { name: "idle_cpu", value, unit: "%" }));
        report.notes.extend(idle.first_ending.map(|first| format!("the first connection lost: {first}")));
        report
            .notes
            .push("PSS: moves, too, when others that run the server's program or share its libraries come or go".to_owned());
        report.notes.push("kernel: what the whole machine's kernel took more, for both ends where both are here".to_owned());
        report.interrupted = was_interrupted;
        Ok(vec![report])
    }
}

impl Hold {
    /// Opens so many more connections in each process, rests, and looks; `None` after Ctrl-C.
    fn rest_with(&self, engine: &mut Engine, followers: &mut Followers, more: &[u32], pid: u32) -> Result<Option<Look>, Failure> {
        if gather(engine, 0, &vec![Purpose::Subscribe(TOPIC); more[0] as usize])?.is_none() {
            return Ok(None);
        }
        followers.open(more[0], &more[1..])?;
        let has_rested = Rest::undisturbed(engine, self.common.stage_resting(clock::now()))?;
        has_rested.then(|| Ok(Look { server: Memory::of_tree(pid)?, kernel: kernel::memory_bytes() })).transpose()
    }
}
