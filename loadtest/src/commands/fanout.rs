//! `fanout`: one publishes, N subscribers get it; how late, and what didn't come.
//!
//! The first subscriber publishes, over its own WebSocket, so a server that sends to all on a URL makes exactly publications
//! times subscribers deliveries. Each message is numbered, each subscriber has a ledger: lost, duplicated and reordered are
//! counts, not estimates. Paced (`--rate`) is an open loop; flat out (`--window`) publishes the next when one has reached all.

use clap::Args;
use fantail::config::ByteSize;
use fantail::frame::OpCode;

use crate::clock::{self, MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Net, Next};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::ledger::{Arrival, Ledger};
use crate::report::Report;
use crate::schedule::Schedule;

use super::common::Common;
use super::payload::Payload;
use super::stage::Stage;
use super::{check_size, crowd};

/// How long to listen on when all has come: what comes now was sent twice.
const LINGER: Nanos = 200 * MILLISECOND;

/// Flags of `fanout`.
#[derive(Args, Debug)]
pub struct Fanout {
    #[command(flatten)]
    common: Common,
    /// How many subscribers; the first of them publishes
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Publications a second, at fixed times: the open loop
    #[arg(long, default_value = "50", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    rate: f64,
    /// Flat out instead: so many publications under way at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "rate")]
    window: Option<u32>,
    /// Bytes of a message, at least 16
    #[arg(long, default_value = "128", value_name = "SIZE")]
    size: ByteSize,
}

struct Crowd {
    pace: Pace,
    payload: Payload,
    /// Added to each number, so that messages of another run on the same topic are known for what they are.
    base: u64,
    publications: Vec<Publication>,
    ledgers: Vec<Ledger>,
    stage: Stage,
    timeout: Nanos,
    under_way: u64,
    moved_at: Nanos,
    counts: Counts,
    first_ending: Option<String>,
    latency: Histogram,
    last: Histogram,
    lateness: Histogram,
}

enum Pace {
    Schedule(Schedule),
    Window(u64),
}

#[derive(Clone, Copy)]
struct Publication {
    due: Nanos,
    /// Subscribers that have not got it.
    remaining: u32,
}

#[derive(Default)]
struct Counts {
    delivered: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
    lost_connections: u64,
}

/// Runs `fanout`.
pub fn run(options: &Fanout) -> Result<(Report, &Common), Failure> {
    check_size(options.size)?;
    let subscribers = options.connections as usize;
    let mut engine = options.common.prepare(subscribers)?;
    let gathered = crowd::gather(&mut engine, subscribers)?;
    let mut crowd = Crowd::new(options, clock::now());
    let interrupted = !gathered || engine.run(&mut crowd)?;
    crowd.stage.finish(crowd.counts.delivered)?;
    let mut report = Report::new("fanout", "delivery", crowd.stage.measured(), engine.net.lag.clone());
    // Of what was under way when somebody pressed Ctrl-C nobody knows whether it would have come; only holes count then.
    let published = crowd.publications.len() as u64;
    let due = if interrupted { 0 } else { published };
    report.counts = vec![
        ("published", published),
        ("delivered", crowd.counts.delivered),
        ("lost", crowd.ledgers.iter().map(|ledger| ledger.lost(due)).sum()),
        ("duplicated", crowd.counts.duplicated),
        ("reordered", crowd.counts.reordered),
        ("foreign", crowd.counts.foreign),
        ("connections_lost", crowd.counts.lost_connections),
    ];
    report.notes.extend(crowd.first_ending.map(|first| format!("the first connection lost: {first}")));
    if options.window.is_some() {
        report.notes.push("flat out: latency is what the window makes of it; compare the rate".to_owned());
    }
    report.latencies = vec![("delivery", crowd.latency), ("last_subscriber", crowd.last)];
    report.lateness = options.window.is_none().then_some(crowd.lateness);
    report.interrupted = interrupted;
    Ok((report, &options.common))
}

impl Crowd {
    fn new(options: &Fanout, start: Nanos) -> Self {
        let schedule = Pace::Schedule(Schedule::new(start, options.rate));
        Self {
            pace: options.window.map_or(schedule, |window| Pace::Window(window.into())),
            payload: Payload::new(options.size.bytes()),
            base: fastrand::u64(..),
            publications: Vec::with_capacity(1 << 20),
            ledgers: (0..options.connections).map(|_| Ledger::default()).collect(),
            stage: Stage::new(&options.common, "fanout", start),
            timeout: options.common.timeout_ns(),
            under_way: 0,
            moved_at: start,
            counts: Counts::default(),
            first_ending: None,
            latency: Histogram::new(),
            last: Histogram::new(),
            lateness: Histogram::new(),
        }
    }

    /// When the next publication was or is due, if it is to leave now.
    fn take_due(&mut self, now: Nanos) -> Option<Nanos> {
        match &mut self.pace {
            Pace::Schedule(schedule) => schedule.take(now, self.stage.until),
            Pace::Window(window) => (self.under_way < *window && now < self.stage.until).then(clock::now),
        }
    }

    fn publish(&mut self, net: &mut Net, due: Nanos) {
        if self.stage.is_measured(due) {
            self.lateness.record(clock::now() - due);
        }
        let number = self.base.wrapping_add(self.publications.len() as u64);
        net.send(0, OpCode::Text, self.payload.numbered(number));
        self.publications.push(Publication { due, remaining: self.ledgers.len() as u32 });
        self.under_way += 1;
    }

    /// Whether nothing more is to be expected: all came and it is quiet, or nothing has come for `--timeout`.
    fn is_settled(&self, now: Nanos) -> bool {
        let patience = if self.under_way == 0 { LINGER } else { self.timeout };
        self.stage.is_over() && now >= self.moved_at.max(self.stage.until) + patience
    }

    /// Whether a full window has not moved for `--timeout`: something was lost, and nothing would ever be published again.
    fn is_stuck(&self, now: Nanos) -> bool {
        matches!(self.pace, Pace::Window(window) if self.under_way >= window) && now >= self.moved_at + self.timeout
    }
}

impl Load for Crowd {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.counts.delivered)?;
        if self.is_settled(now) || self.is_stuck(now) {
            return Ok(Next::Done);
        }
        while let Some(due) = self.take_due(now) {
            self.publish(net, due);
        }
        let boundary = if now < self.stage.from { self.stage.from } else { self.stage.until };
        Ok(Next::At(match &self.pace {
            // Waits end after a tenth of a second in any case, which is often enough to look whether all has come.
            _ if self.stage.is_over() => Nanos::MAX,
            Pace::Schedule(schedule) => boundary.min(schedule.next_at()),
            Pace::Window(_) => boundary,
        }))
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        let number = self.payload.number_of(payload).map(|number| number.wrapping_sub(self.base));
        let Some((number, publication)) =
            number.and_then(|number| Some((number, self.publications.get_mut(usize::try_from(number).ok()?)?)))
        else {
            self.counts.foreign += 1;
            return;
        };
        self.moved_at = at;
        match self.ledgers[id].enter(number) {
            Arrival::Duplicate => {
                self.counts.duplicated += 1;
                return;
            }
            Arrival::Reordered => self.counts.reordered += 1,
            Arrival::InOrder => {}
        }
        self.counts.delivered += 1;
        publication.remaining -= 1;
        let is_measured = self.stage.is_measured(publication.due);
        if is_measured {
            self.latency.record(at - publication.due);
        }
        if publication.remaining == 0 {
            self.under_way -= 1;
            if is_measured {
                self.last.record(at - publication.due);
            }
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.counts.lost_connections += 1;
        self.first_ending.get_or_insert_with(|| ending.to_string());
    }
}
