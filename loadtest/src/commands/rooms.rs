//! `rooms`: the benchmark that CometD's own load test made known: a thousand clients in ten of a hundred rooms each, batches of ten
//! small messages, each for a hundred clients.
//!
//! A client is one connection where that can have all its rooms, else a connection for each. `--saturate` runs again and again with
//! a shorter interval, until the 99th percentile breaks or something goes wrong, and says which interval held and why it ended. That
//! the load test itself was late ends nothing: its lateness is in the percentile, so the server is at least that good.

use std::str::FromStr as _;

use clap::Args;
use fantail::config::{ByteSize, TimeSpan};

use crate::clock::{self, Nanos, SECOND};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::feed::{Feed, Pace};
use crate::payload::TOPICS_MAX;
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
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..TOPICS_MAX as i64))]
    rooms: u32,
    /// In how many rooms each client is
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rooms_per_client: u32,
    /// How many messages leave at a time, each to another room
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Time from one batch to the next
    #[arg(long, default_value = "10ms", value_name = "TIME", value_parser = parse_interval)]
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
        let (clients, each) = (self.clients, self.rooms_per_client);
        if u64::from(clients) + u64::from(each) - 1 < self.rooms.into() {
            let why = format!("{clients} clients in {each} rooms each leave some of {} rooms empty", self.rooms);
            return Err(Failure::Usage(format!("{why}: raise --clients, or use fewer --rooms")));
        }
        let Common { url, sub, .. } = self.common();
        let per_connection = self.per_connection(Target::resolve(url, *sub, self.rooms)?.topics_of_one_max());
        let connections = u64::from(clients) * u64::from(each / per_connection);
        let mut engine = self.publishing.prepare(usize::try_from(connections).unwrap_or(usize::MAX), self.rooms)?;
        let Some(party) = self.publishing.gather(&mut engine, &self.arcs(per_connection))? else {
            return Ok(vec![Report::cut_short("rooms", "delivery")]);
        };
        let mut reports = Vec::new();
        let mut interval = clock::length(self.interval.duration());
        let mut held = None;
        loop {
            let mut report = self.measure(&mut engine, &party, interval)?;
            let broke = self.why_broken(&report);
            if broke.is_none() {
                held = Some(interval);
            }
            let end = broke.or_else(|| (reports.len() + 1 == RUNS_MAX).then(|| format!("there are but {RUNS_MAX} runs")));
            if self.saturate
                && let Some(why) = &end
            {
                tell_end(&mut report, held, why);
            }
            reports.push(report);
            if !self.saturate || end.is_some() {
                return Ok(reports);
            }
            interval = ((interval as f64 / STEP) as Nanos).max(1);
        }
    }
}

impl Rooms {
    /// How many of its rooms a client has on one connection that can have `most`: all, else one.
    const fn per_connection(&self, most: u32) -> u32 {
        if most >= self.rooms_per_client { self.rooms_per_client } else { 1 }
    }

    /// Each client's rooms: an arc of them, shifted by one from client to client, so every room has as many clients.
    fn arcs(&self, per_connection: u32) -> Vec<Topics> {
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
            ("connections", party.subscribers.len().into()),
            ("rooms", self.rooms.into()),
            ("rooms_per_client", self.rooms_per_client.into()),
            ("batch", self.batch.into()),
            ("size", self.size.bytes().into()),
        ];
        report.figures.push(Figure { name: "interval", value: interval as f64 / 1e6, unit: "ms" });
        Ok(report)
    }

    /// Why no shorter interval is worth a try, if none is.
    fn why_broken(&self, report: &Report) -> Option<String> {
        let p99 = report.latencies.iter().find(|(name, _)| *name == "delivery").map_or(0, |(_, latency)| latency.quantile(0.99));
        let is_late = p99 > clock::length(self.p99_max.duration());
        let interrupted = report.interrupted.then(|| "somebody pressed Ctrl-C".to_owned());
        interrupted
            .or_else(|| report.all_doubts().into_iter().next())
            .or_else(|| report.first_fault().map(|(name, count)| format!("{name} {count}")))
            .or_else(|| is_late.then(|| format!("p99 {:.1} ms is beyond --p99-max", p99 as f64 / 1e6)))
    }
}

/// Tells in the last report which interval held and why none shorter was tried.
fn tell_end(report: &mut Report, held: Option<Nanos>, why: &str) {
    let milliseconds = |interval: Nanos| interval as f64 / 1e6;
    let words = held.map_or("no interval held".to_owned(), |held| format!("{:.3} ms held", milliseconds(held)));
    let own = if report.busy_tool().is_empty() { "" } else { ", where the load test itself was too busy" };
    report.notes.push(format!("saturate: {words}; it ended as {why}{own}"));
    report.figures.extend(held.map(|held| Figure { name: "interval_held", value: milliseconds(held), unit: "ms" }));
}

/// A time between batches: without one they would have no end.
fn parse_interval(text: &str) -> Result<TimeSpan, String> {
    let interval = TimeSpan::from_str(text).map_err(|error| error.to_string())?;
    if interval.duration().is_zero() {
        return Err("more than 0: it is the time from one batch to the next".to_owned());
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::histogram::Histogram;
    use crate::measured::Measured;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        rooms: Rooms,
    }

    #[test]
    fn saturation_goes_on_where_only_the_tool_was_late_and_ends_with_a_reason() {
        let Line { rooms } = Line::parse_from(["rooms", "ws://127.0.0.1/{topic}", "--p99-max", "1ms"]);
        let of = |value| {
            let mut histogram = Histogram::new();
            histogram.record(value);
            histogram
        };
        let report = |lag, p99| {
            let measured = Measured { seconds: 1.0, operations: 9, ..Measured::default() };
            let mut report = Report::new("rooms", "delivery", measured, of(lag));
            report.latencies = vec![("delivery", of(p99))];
            report
        };
        let mut late = report(900_000, 950_000);
        assert!(!late.invalid().is_empty() && rooms.why_broken(&late).is_none());
        tell_end(&mut late, Some(1_500_000), "there are but 15 runs");
        assert_eq!(
            late.notes,
            ["saturate: 1.500 ms held; it ended as there are but 15 runs, where the load test itself was too busy"]
        );
        assert_eq!(rooms.why_broken(&report(1, 2_000_000)).unwrap(), "p99 2.0 ms is beyond --p99-max");
        let mut lost = report(1, 2);
        lost.fault("lost", 3);
        assert_eq!(rooms.why_broken(&lost).unwrap(), "lost 3");
        let mut nothing = Report::new("rooms", "delivery", Measured::default(), of(1));
        nothing.latencies = vec![("delivery", Histogram::new())];
        assert!(rooms.why_broken(&nothing).unwrap().contains("nothing was measured"), "that is no interval that held");
    }
}
