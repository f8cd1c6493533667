//! A crowd in this process and, where one may not have all its connections, in others.
//!
//! Connections are numbered over all processes; each process has a run of them, this one the first. Connection `i` has the topics
//! from `i * each` on. This process publishes. On loopback each other process has an address of its own, because between two
//! addresses there are but some 28,000 ports.

use clap::Args;
use fantail::config::ByteSize;

use crate::clock::{self, MILLISECOND, Nanos};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::report::Report;
use crate::target::Topics;

use super::common::Common;
use super::crowd::Crowd;
use super::followers::{self, Followers, PROCESSES_MAX};
use super::party::{Paced, Party};

/// How long followers have to take note of what is measured.
const HEAD_START: Nanos = 300 * MILLISECOND;

/// The flag of commands that can be spread over processes.
#[derive(Args, Clone, Copy, Debug)]
pub struct Processes {
    /// On how many processes to spread the connections [default: as many as the descriptor limit needs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PROCESSES_MAX)))]
    pub processes: Option<u32>,
}

/// Which topics a connection has.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// How many topics there are.
    pub topics: u32,
    /// How many of them one connection has.
    pub each: u32,
}

/// Connected subscribers, those of other processes to come with each measurement.
#[derive(Debug)]
pub struct Spread<'a> {
    paced: &'a Paced,
    command: &'static str,
    layout: Layout,
    shares: Vec<u32>,
    engine: Engine,
    party: Party,
}

impl Layout {
    /// The topics of connections `from` to `to`.
    pub fn of(self, from: u32, to: u32) -> Vec<Topics> {
        let of_one = |at: u32| {
            let first = (u64::from(at) * u64::from(self.each) % u64::from(self.topics)) as u32;
            Topics { first, count: self.each.min(self.topics - first) }
        };
        (from..to).map(of_one).collect()
    }

    /// Whether each topic has its subscribers in one process.
    pub const fn is_divided(self) -> bool {
        self.topics > 1
    }
}

impl<'a> Spread<'a> {
    /// Connects this process's share of `connections`; None if somebody pressed Ctrl-C first.
    pub fn gather(
        paced: &'a Paced,
        command: &'static str,
        layout: Layout,
        connections: u32,
        Processes { processes }: Processes,
    ) -> Result<Option<Self>, Failure> {
        let publishing = &paced.publishing;
        let shares = followers::shares(connections, publishing.publishers, processes)?;
        if shares.len() > 1 && paced.window.is_some() {
            let why = "--window needs to know when a message has come to all, which of several processes none does";
            return Err(Failure::Usage(format!("{why}: use --rate, or fewer connections")));
        }
        let mut engine = publishing.prepare(followers::room(&shares, 0), layout.topics)?;
        let party = publishing.gather(&mut engine, &layout.of(0, shares[0]))?;
        Ok(party.map(|party| Self { paced, command, layout, shares, engine, party }))
    }

    /// Measures with messages of this size.
    pub fn measure(&mut self, size: ByteSize) -> Result<Report, Failure> {
        let common = self.common();
        let (run, others) = (fastrand::u64(..), &self.shares[1..]);
        let mut traffic = self.party.traffic(self.layout.topics, size, run);
        if !others.is_empty() {
            traffic.keep_completions();
        }
        let mut followers = Followers::start(common, others, self.layout, size.bytes(), run)?;
        followers.open(self.shares[0], others)?;
        let start = clock::now() + if followers.is_empty() { 0 } else { HEAD_START };
        let feed = self.paced.feed(self.party.through.clone(), start);
        let mut crowd = Crowd::new(common, self.command, start, traffic, feed);
        followers.measure(&crowd.stage)?;
        let interrupted = self.engine.run(&mut crowd)?;
        let (published, completions) = (crowd.traffic.counts.published, crowd.traffic.completions().to_vec());
        let refused: Vec<(u32, u64)> = crowd.traffic.refused().collect();
        let mut report = crowd.report(&self.engine.net, interrupted)?;
        match (followers.is_empty(), interrupted) {
            (true, _) => {}
            (false, true) => report.notes.push("of this process's own subscribers only".to_owned()),
            (false, false) => {
                let accounts = followers.end(published, refused.into_iter())?;
                followers::merge(&mut report, &accounts, common.cpu.is_some())?;
                if !self.layout.is_divided() {
                    report.replace_latency("last_subscriber", followers::last_of_all(&accounts, &completions));
                }
            }
        }
        Ok(report)
    }

    /// How many processes there are.
    pub const fn processes(&self) -> u64 {
        self.shares.len() as u64
    }

    fn common(&self) -> &'a Common {
        &self.paced.publishing.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_cover_the_topics_once_wherever_they_are_divided() {
        let layout = Layout { topics: 95, each: 10 };
        let whole = layout.of(0, 10);
        assert_eq!(whole.iter().map(|topics| topics.count).sum::<u32>(), 95);
        assert_eq!((whole[9].first, whole[9].count), (90, 5));
        assert_eq!([layout.of(0, 4), layout.of(4, 10)].concat(), whole);
        assert_eq!(Layout { topics: 1, each: 1 }.of(7, 9), vec![Topics { first: 0, count: 1 }; 2]);
    }
}
