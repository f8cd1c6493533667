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
use crate::feed::{Feed, Pace, Through};
use crate::report::{Figure, Report};
use crate::schedule::Schedule;
use crate::target::{Target, Topics};
use crate::traffic::Traffic;

use super::common::{Common, Measure};
use super::crowd::{Crowd, gather, purposes};
use super::publishing::{Publishing, check_size};

/// How much shorter the interval gets from one run to the next.
const STEP: f64 = 1.5;

/// The most runs of `--saturate`: 10 ms have become 34 µs by then.
const RUNS_MAX: usize = 15;

/// Flags of `rooms`.
#[derive(Args, Debug)]
pub struct Rooms {
    #[command(flatten)]
    common: Common,
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
    #[arg(long, default_value = "50", value_name = "SIZE")]
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
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        check_size(self.size)?;
        if self.rooms_per_client > self.rooms {
            return Err(Failure::Usage("--rooms-per-client must not be more than --rooms".to_owned()));
        }
        let arcs = self.arcs(Target::resolve(&self.common.url, self.common.sub, self.rooms)?.topics_of_one_max());
        let mut engine = self.common.prepare(arcs.len() + self.publishing.connections(), self.rooms)?;
        let target = self.publishing.target(&mut engine, self.rooms)?;
        let ids = gather(&mut engine, 0, &purposes(&arcs))?;
        let through = match &ids {
            Some(_) => self.publishing.through(&mut engine, &arcs, target)?,
            None => None,
        };
        let members: Vec<(usize, Topics)> = ids.into_iter().flatten().zip(arcs.iter().copied()).collect();
        let mut reports = Vec::new();
        let mut interval = clock::length(self.interval.duration());
        loop {
            let report = self.measure(&mut engine, through.clone(), &members, interval)?;
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

    fn measure(
        &self,
        engine: &mut Engine,
        through: Option<Through>,
        members: &[(usize, Topics)],
        interval: Nanos,
    ) -> Result<Report, Failure> {
        let mut traffic = Traffic::new(self.rooms, self.size.bytes(), fastrand::u64(..), clock::now());
        members.iter().for_each(|&(id, topics)| traffic.subscribe(id, topics));
        let was_interrupted = through.is_none();
        let start = clock::now();
        let pace = Pace::Schedule(Schedule::new(start, SECOND as f64 / interval as f64));
        let feed = Feed::new(pace, through.unwrap_or(Through::First), self.batch);
        let mut crowd = Crowd::new(traffic, feed, self.common.stage("rooms", start), self.common.timeout_ns());
        let interrupted = was_interrupted || engine.run(&mut crowd)?;
        let mut report = crowd.report("rooms", &engine.net, interrupted)?;
        report.parameters = vec![
            ("clients", self.clients.into()),
            ("connections", members.len() as u64),
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
        let is_whole = report.count("lost") == Some(0) && report.count("connections_lost") == Some(0);
        let is_sound = report.invalid().is_empty() && report.count("refused_publications") == Some(0);
        is_whole && is_sound && !report.interrupted && p99.is_some_and(|p99| p99 <= clock::length(self.p99_max.duration()))
    }
}
