//! `fanout`: one publishes, N subscribers get it; how late, and what didn't come.
//!
//! The first subscriber publishes, over its own WebSocket, so a server that sends to all on a URL makes exactly publications
//! times subscribers deliveries; with `--publish post` a connection of its own does. Paced (`--rate`) is an open loop; flat out
//! (`--window`) publishes the next when one has reached all.

use clap::Args;
use fantail::config::ByteSize;

use crate::failure::Failure;
use crate::report::Report;
use crate::target::Topics;

use super::common::{Common, Measure};
use super::party::{Paced, parse_size};
use super::spread::{Layout, Processes, Spread};

/// The one topic there is.
pub const TOPIC: Topics = Topics { first: 0, count: 1 };

/// Flags of `fanout`.
#[derive(Args, Debug)]
pub struct Fanout {
    #[command(flatten)]
    paced: Paced,
    #[command(flatten)]
    processes: Processes,
    /// How many subscribers
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
    /// Several sizes, measured one after the other with the same subscribers
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = parse_size, conflicts_with = "size")]
    sizes: Vec<ByteSize>,
}

impl Measure for Fanout {
    fn common(&self) -> &Common {
        &self.paced.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let sizes = if self.sizes.is_empty() { vec![self.size] } else { self.sizes.clone() };
        let layout = Layout { topics: 1, each: 1 };
        let Some(mut spread) = Spread::gather(&self.paced, "fanout", layout, self.connections, self.processes)? else {
            return Ok(vec![Report::cut_short("fanout", "delivery")]);
        };
        let mut reports: Vec<Report> = Vec::new();
        for size in sizes {
            if let Some(last) = reports.last_mut() {
                let lost = last.count("connections_lost").unwrap_or_default();
                if lost > 0 {
                    last.notes.push("not all subscribers are left: no further size was measured".to_owned());
                }
                if lost > 0 || last.interrupted {
                    break;
                }
            }
            let mut report = spread.measure(size)?;
            report.parameters = vec![
                ("connections", self.connections.into()),
                self.paced.parameter(),
                ("size", size.bytes().into()),
                ("processes", spread.processes().into()),
            ];
            reports.push(report);
        }
        Ok(reports)
    }
}
