//! `fanout`: one publishes, N subscribers get it; how late, and what didn't come.
//!
//! The first subscriber publishes, over its own WebSocket, so a server that sends to all on a URL makes exactly publications
//! times subscribers deliveries; with `--publish post` a connection of its own does. Paced (`--rate`) is an open loop; flat out
//! (`--window`) publishes the next when one has reached all.

use clap::Args;
use fantail::config::ByteSize;

use crate::clock::{self, MILLISECOND, Nanos};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::feed::Through;
use crate::report::Report;
use crate::target::Topics;
use crate::traffic::Traffic;

use super::common::{Common, Measure};
use super::crowd::{Crowd, gather, purposes};
use super::followers::{self, Followers, PROCESSES_MAX};
use super::publishing::{Pacing, Publishing, check_size};

/// How long followers have to take note of what is measured.
const FOLLOWERS_HEAD_START: Nanos = 300 * MILLISECOND;

/// The one topic there is.
pub const TOPIC: Topics = Topics { first: 0, count: 1 };

/// Flags of `fanout`.
#[derive(Args, Clone, Debug)]
pub struct Fanout {
    #[command(flatten)]
    pub common: Common,
    #[command(flatten)]
    pub publishing: Publishing,
    #[command(flatten)]
    pub pacing: Pacing,
    /// How many subscribers
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// On how many processes to spread them [default: as many as the descriptor limit needs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    pub processes: Option<u32>,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE")]
    pub size: ByteSize,
    /// Several sizes, measured one after the other with the same subscribers
    #[arg(long, value_name = "SIZES", value_delimiter = ',', conflicts_with = "size")]
    pub sizes: Vec<ByteSize>,
}

impl Measure for Fanout {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let sizes = if self.sizes.is_empty() { vec![self.size] } else { self.sizes.clone() };
        sizes.iter().try_for_each(|&size| check_size(size))?;
        let shares = followers::shares(self.connections + self.publishing.publishers, self.processes)?;
        if shares.len() > 1 && self.pacing.window.is_some() {
            let why = "--window needs to know when a message has come to all, which of several processes none does";
            return Err(Failure::Usage(format!("{why}: use --rate, or fewer connections")));
        }
        let own = shares[0] - self.publishing.publishers.min(shares[0] - 1);
        let mut engine = self.common.prepare(shares[0] as usize, 1)?;
        let target = self.publishing.target(&mut engine, 1)?;
        let subscribers = gather(&mut engine, 0, &purposes(&vec![TOPIC; own as usize]))?;
        let through = match &subscribers {
            Some(_) => self.publishing.through(&mut engine, &[TOPIC], target)?,
            None => None,
        };
        let mut reports: Vec<Report> = Vec::new();
        for size in sizes {
            if !reports.last().is_some_and(|report| report.interrupted) {
                let ready = through.clone().zip(subscribers.as_deref());
                reports.push(self.measure(&mut engine, ready, &shares[1..], size)?);
            }
        }
        Ok(reports)
    }
}

impl Fanout {
    /// One size, with those who publish and those who subscribe: nobody if somebody pressed Ctrl-C while they connected.
    fn measure(
        &self,
        engine: &mut Engine,
        ready: Option<(Through, &[usize])>,
        others: &[u32],
        size: ByteSize,
    ) -> Result<Report, Failure> {
        let run = fastrand::u64(..);
        let mut traffic = Traffic::new(1, size.bytes(), run, clock::now());
        let was_interrupted = ready.is_none();
        let (through, subscribers) = ready.unwrap_or((Through::First, &[]));
        subscribers.iter().for_each(|&id| traffic.subscribe(id, TOPIC));
        if !others.is_empty() {
            traffic.keep_completions();
        }
        let mut followers = Followers::start(&self.common, others, size.bytes(), run)?;
        followers.open(others)?;
        let start = clock::now() + if others.is_empty() { 0 } else { FOLLOWERS_HEAD_START };
        let feed = self.pacing.feed(through, start);
        let mut crowd = Crowd::new(traffic, feed, self.common.stage("fanout", start), self.common.timeout_ns());
        followers.measure(&crowd.stage)?;
        let interrupted = was_interrupted || engine.run(&mut crowd)?;
        let (published, completions) = (crowd.traffic.counts.published, crowd.traffic.completions().to_vec());
        let mut report = crowd.report("fanout", &engine.net, interrupted)?;
        if !interrupted && !followers.is_empty() {
            let accounts = followers.end(published)?;
            followers::merge(&mut report, &accounts, &completions, self.common.cpu.is_some())?;
        }
        if interrupted && !others.is_empty() {
            report.notes.push("of this process's own subscribers only".to_owned());
        }
        report.parameters =
            vec![("connections", self.connections.into()), ("size", size.bytes() as u64), ("processes", 1 + others.len() as u64)];
        Ok(report)
    }
}
