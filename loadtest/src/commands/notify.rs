//! `notify`: very many topics with one subscriber each, the common case of notifications.
//!
//! Topics are published to in turn, so each publication finds another subscriber. Where the URL names topics in a query, or the
//! protocol names them itself, one connection has several (`--per-connection`).

use clap::Args;
use fantail::config::ByteSize;

use crate::failure::Failure;
use crate::payload::TOPICS_MAX;
use crate::report::Report;
use crate::target::Target;

use super::common::{Common, Measure};
use super::party::{Paced, parse_size};
use super::spread::{Layout, Processes, Spread};

/// Flags of `notify`.
#[derive(Args, Debug)]
pub struct Notify {
    #[command(flatten)]
    paced: Paced,
    #[command(flatten)]
    processes: Processes,
    /// How many topics
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..TOPICS_MAX as i64))]
    topics: u32,
    /// How many topics one connection has [default: 10 where the URL allows it, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    per_connection: Option<u32>,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

impl Measure for Notify {
    fn common(&self) -> &Common {
        &self.paced.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let Common { url, sub, .. } = self.common();
        let most = Target::resolve(url, *sub, self.topics)?.topics_of_one_max();
        let each = self.per_connection.unwrap_or(10.min(most));
        if each > most {
            let why = format!("{url} has room for {most} topic only; put it into the query");
            return Err(Failure::Usage(format!("--per-connection {each}: {why}")));
        }
        let layout = Layout { topics: self.topics, each };
        let connections = self.topics.div_ceil(each);
        let Some(mut spread) = Spread::gather(&self.paced, "notify", layout, connections, self.processes)? else {
            return Ok(vec![Report::cut_short("notify", "delivery")]);
        };
        let mut report = spread.measure(self.size)?;
        report.parameters = vec![
            ("topics", self.topics.into()),
            ("connections", connections.into()),
            self.paced.parameter(),
            ("size", self.size.bytes().into()),
            ("processes", spread.processes().into()),
        ];
        Ok(vec![report])
    }
}
