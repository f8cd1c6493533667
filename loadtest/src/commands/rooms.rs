//! `rooms`: the benchmark that CometD's own load test made known: a thousand clients in ten of a hundred rooms each, batches of ten
//! small messages, each for a hundred clients.
//!
//! A client is one connection where that can have all its rooms, else a connection for each. `--saturate` runs again and again with
//! a shorter interval, until the 99th percentile breaks.

use clap::Args;
use fantail::config::{ByteSize, TimeSpan};

use crate::clock::{self, Nanos, SECOND};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::feed::{Feed, Pace};
use crate::report::{Figure, Report};
use crate::schedule::Schedule;
use crate::target::{Target, Topics};

use super::common::{Common, Measure};
use super::crowd::Crowd;
use super::party::{Party, Publishing, parse_size};

/// How much shorter the interval gets from one run to the next.
const STEP: f64 = 1.5;

/// The most runs of `--saturate`: 10 ms have become 34 µs by then.
const RUNS_MAX: usize = 15;

/// Flags of `rooms`.
#[derive(Args, Debug)]
pub struct Rooms {
    #[command(flatten)]
    publishing: Publishing,
    /// How many clients
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// How many rooms
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rooms: u32,
    /// In how many rooms each client is
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rooms_per_client: u32,
    /// How many messages leave at a time, each to another room
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Time from one batch to the next
    #[arg(long, default_value = "10ms", value_name = "TIME")]
    interval: TimeSpan,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "50", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
    /// Shorten the interval by a third from run to run until p99 is beyond --p99-max
    #[arg(long)]
    saturate: bool,
    /// What the 99th percentile of deliveries may be with --saturate
    #[arg(long, default_value = "100ms", value_name = "TIME")]
    p99_max: TimeSpan,
}

impl Measure for Rooms {
    fn common(&self) -> &Common {
        &self.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        if self.rooms_per_client > self.rooms {
            return Err(Failure::Usage("--rooms-per-client must not be more than --rooms".to_owned()));
        }
        let Common { url, sub, .. } = self.common();
        let arcs = self.arcs(Target::resolve(url, *sub, self.rooms)?.topics_of_one_max());
        let mut engine = self.publishing.prepare(arcs.len(), self.rooms)?;
        let Some(party) = self.publishing.gather(&mut engine, &arcs)? else {
            return Ok(vec![Report::cut_short("rooms", "delivery")]);
        };
        let mut reports = Vec::new();
        let mut interval = clock::length(self.interval.duration());
        loop {
            let report = self.measure(&mut engine, &party, interval)?;
            let holds = self.holds(&report);
            reports.push(report);
            if !self.saturate || !holds || reports.len() == RUNS_MAX {
                return Ok(reports);
            }
            interval = (interval as f64 / STEP) as Nanos;
        }
    }
}

impl Rooms {
    /// Each client's rooms: an arc of them, shifted by one from client to client, so every room has as many clients. A client that
    /// can have but one room on a connection has a connection for each.
    fn arcs(&self, most: u32) -> Vec<Topics> {
        let per_connection = if most >= self.rooms_per_client { self.rooms_per_client } else { 1 };
        let of_client = |client: u32| (0..self.rooms_per_client / per_connection).map(move |at| (client + at) % self.rooms);
        (0..self.clients).flat_map(of_client).map(|first| Topics { first, count: per_connection }).collect()
    }

    fn measure(&self, engine: &mut Engine, party: &Party, interval: Nanos) -> Result<Report, Failure> {
        let traffic = party.traffic(self.rooms, self.size, fastrand::u64(..));
        let start = clock::now();
        let pace = Pace::Schedule(Schedule::new(start, SECOND as f64 / interval as f64));
        let feed = Feed::new(pace, party.through.clone(), self.batch);
        let mut crowd = Crowd::new(self.common(), "rooms", start, traffic, feed);
        let interrupted = engine.run(&mut crowd)?;
        let mut report = crowd.report(&engine.net, interrupted)?;
        report.parameters = vec![
            ("clients", self.clients.into()),
            ("connections", party.subscribers.len() as u64),
            ("rooms", self.rooms.into()),
            ("rooms_per_client", self.rooms_per_client.into()),
            ("batch", self.batch.into()),
            ("size", self.size.bytes() as u64),
        ];
        report.figures.push(Figure { name: "interval", value: interval as f64 / 1e6, unit: "ms" });
        Ok(report)
    }

    /// Whether a shorter interval is worth a try.
    fn holds(&self, report: &Report) -> bool {
        let p99 = report.latencies.iter().find(|(name, _)| *name == "delivery").map(|(_, latency)| latency.quantile(0.99));
        let is_sound = report.is_faultless() && report.invalid().is_empty() && !report.interrupted;
        is_sound && p99.is_some_and(|p99| p99 <= clock::length(self.p99_max.duration()))
    }
}
