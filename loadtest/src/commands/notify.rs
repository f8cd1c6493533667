//! `notify`: very many topics with one subscriber each, the common case of notifications.
//!
//! Topics are published to in turn, so each publication finds another subscriber. Where the URL names topics in a query, or the
//! protocol names them itself, one connection has several (`--per-connection`).

use clap::Args;
use fantail::config::ByteSize;

use crate::clock;
use crate::failure::Failure;
use crate::feed::Through;
use crate::payload::TOPICS_MAX;
use crate::report::Report;
use crate::target::{Target, Topics};
use crate::traffic::Traffic;

use super::common::{Common, Measure};
use super::crowd::{Crowd, subscribe};
use super::publishing::{Pacing, Publishing, check_size};

/// Flags of `notify`.
#[derive(Args, Debug)]
pub struct Notify {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    publishing: Publishing,
    #[command(flatten)]
    pacing: Pacing,
    /// How many topics
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..TOPICS_MAX as i64))]
    topics: u32,
    /// How many topics one connection has [default: 10 where the URL allows it, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_connection: Option<u32>,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE")]
    size: ByteSize,
}

impl Measure for Notify {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        check_size(self.size)?;
        let most = Target::resolve(&self.common.url, self.common.sub, self.topics)?.topics_of_one_max();
        let each = self.per_connection.unwrap_or(10.min(most));
        if each > most {
            let url = &self.common.url;
            return Err(Failure::Usage(format!(
                "--per-connection {each}: {url} has room for {most} topic only; put it into the query"
            )));
        }
        let connections = self.topics.div_ceil(each);
        let mut engine = self.common.prepare(connections as usize + self.publishing.connections(), self.topics)?;
        let target = self.publishing.target(&mut engine, self.topics)?;
        let mut traffic = Traffic::new(self.topics, self.size.bytes(), fastrand::u64(..), clock::now());
        let arcs: Vec<Topics> =
            (0..connections).map(|at| Topics { first: at * each, count: each.min(self.topics - at * each) }).collect();
        let through = match subscribe(&mut engine, 0, &mut traffic, &arcs)? {
            true => self.publishing.through(&mut engine, &arcs, target)?,
            false => None,
        };
        let was_interrupted = through.is_none();
        let start = clock::now();
        let feed = self.pacing.feed(through.unwrap_or(Through::First), start);
        let mut crowd = Crowd::new(traffic, feed, self.common.stage("notify", start), self.common.timeout_ns());
        let interrupted = was_interrupted || engine.run(&mut crowd)?;
        let mut report = crowd.report("notify", &engine.net, interrupted)?;
        report.parameters =
            vec![("topics", self.topics.into()), ("connections", connections.into()), ("size", self.size.bytes() as u64)];
        Ok(vec![report])
    }
}
