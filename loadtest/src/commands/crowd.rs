//! Subscribers and what is published to them: what `fanout`, `notify` and `rooms` are, and what others have beside them.

use crate::client::Purpose;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::feed::Feed;
use crate::net::{Net, Times};
use crate::progress::Progress;
use crate::report::Report;
use crate::stage::Stage;
use crate::target::Topics;
use crate::traffic::{Delivery, Traffic};

/// How many openings are under way at a time: below the queue of a listener with the kernel's smallest default.
const OPENING_MAX: usize = 64;

/// How long to listen on when all has come: what comes now was sent twice.
pub const LINGER: Nanos = 200 * MILLISECOND;

/// Subscribers, publications, and the time in which they are measured.
#[derive(Debug)]
pub struct Crowd {
    /// The account.
    pub traffic: Traffic,
    /// The source.
    pub feed: Feed,
    /// What is measured.
    pub stage: Stage,
    timeout: Nanos,
}

impl Crowd {
    /// What is on its way for longer than `timeout` is lost.
    pub const fn new(traffic: Traffic, feed: Feed, stage: Stage, timeout: Nanos) -> Self {
        Self { traffic, feed, stage, timeout }
    }

    /// One turn of publishing; whether the run is over.
    pub fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.traffic.counts.delivered)?;
        if self.is_settled(now) || self.feed.is_stuck(&self.traffic, now, self.timeout) {
            return Ok(Next::Done);
        }
        let due = self.feed.turn(net, &mut self.traffic, &self.stage, now);
        // Waits end after a tenth of a second in any case, which is often enough to look whether all has come.
        Ok(Next::At(due.min(self.stage.next_edge(now))))
    }

    /// Enters what came.
    pub fn message(&mut self, id: usize, payload: &[u8], at: Nanos) -> Option<Delivery> {
        self.traffic.message(&self.stage, id, payload, at)
    }

    /// A connection ended.
    pub fn closed(&mut self, id: usize, ending: &Ending) {
        self.traffic.closed(id, ending);
        self.feed.closed(id);
    }

    /// Whether nothing more is to be expected: all came and it is quiet, or nothing has come for `--timeout`.
    pub fn is_settled(&self, now: Nanos) -> bool {
        let is_done = self.traffic.under_way() == 0 && !self.feed.is_unanswered();
        let patience = if is_done { LINGER } else { self.timeout };
        self.stage.is_over() && now >= self.traffic.moved_at().max(self.stage.until) + patience
    }

    /// Ends the measurement and tells what there was.
    pub fn report(mut self, command: &'static str, net: &Net, interrupted: bool) -> Result<Report, Failure> {
        self.stage.finish(self.traffic.counts.delivered)?;
        let mut report = Report::new(command, "delivery", self.stage.measured(), net.lag.clone());
        report.counts = self.counts(interrupted);
        let first_ending = self.traffic.first_ending.as_ref().map(|first| format!("the first connection lost: {first}"));
        let first_refusal = self.feed.first_refusal.as_ref().map(|first| format!("the first publication refused: {first}"));
        report.notes.extend(first_ending.into_iter().chain(first_refusal));
        if !self.feed.is_open_loop() {
            report.notes.push("flat out: latency is what the window makes of it; compare the rate".to_owned());
        }
        if self.feed.is_broken() {
            report.doubts.push("who published is gone: its connection ended, and nothing more was published".to_owned());
        }
        report.lateness = self.feed.is_open_loop().then_some(("delivery", self.feed.lateness));
        report.latencies = vec![("delivery", self.traffic.latency), ("last_subscriber", self.traffic.last)];
        report.interrupted = interrupted;
        Ok(report)
    }

    fn counts(&self, interrupted: bool) -> Vec<(&'static str, u64)> {
        let counts = self.traffic.counts;
        vec![
            ("published", counts.published),
            ("refused_publications", counts.refused),
            ("delivered", counts.delivered),
            ("lost", self.traffic.lost(interrupted)),
            ("duplicated", counts.duplicated),
            ("reordered", counts.reordered),
            ("foreign", counts.foreign),
            ("connections_lost", counts.connections_lost),
        ]
    }
}

impl Load for Crowd {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        Self::turn(self, net, now)
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        Self::message(self, id, payload, at);
    }

    fn answered(&mut self, _net: &mut Net, id: usize, result: Result<(), String>, _at: Nanos) {
        self.feed.answered(&mut self.traffic, id, result);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        self.closed(id, &ending);
    }
}

/// Opens a connection for each purpose and returns their numbers in the same order; None if somebody pressed Ctrl-C first. Many at
/// a time, all or none.
pub fn gather(engine: &mut Engine, target: usize, purposes: &[Purpose]) -> Result<Option<Vec<usize>>, Failure> {
    let progress = Progress::new("connecting", purposes.len() as u64);
    let ids = Vec::with_capacity(purposes.len());
    let mut gathering = Gathering { target, purposes, ids, opened: 0, failed: None, progress };
    Ok(if engine.run(&mut gathering)? { None } else { Some(gathering.ids) })
}

/// A subscriber's purpose for each connection.
pub fn purposes(topics: &[Topics]) -> Vec<Purpose> {
    topics.iter().map(|&topics| Purpose::Subscribe(topics)).collect()
}

/// Opens a connection for each of these and enters them as steady subscribers; false if somebody pressed Ctrl-C first.
pub fn subscribe(engine: &mut Engine, target: usize, traffic: &mut Traffic, topics: &[Topics]) -> Result<bool, Failure> {
    let Some(ids) = gather(engine, target, &purposes(topics))? else { return Ok(false) };
    ids.into_iter().zip(topics).for_each(|(id, &topics)| traffic.subscribe(id, topics));
    Ok(true)
}

struct Gathering<'a> {
    target: usize,
    purposes: &'a [Purpose],
    ids: Vec<usize>,
    opened: usize,
    failed: Option<Ending>,
    progress: Progress,
}

impl Load for Gathering<'_> {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        let wanted = self.purposes.len();
        while self.failed.is_none() && self.ids.len() < wanted && self.ids.len() - self.opened < OPENING_MAX {
            match net.open(clock::now(), self.target, self.purposes[self.ids.len()]) {
                Ok(id) => self.ids.push(id),
                Err(ending) => self.failed = Some(ending),
            }
        }
        if let Some(ending) = self.failed.take() {
            let address = net.target(self.target).address;
            return Err(Failure::Connect { address, number: self.opened + 1, wanted, ending });
        }
        self.progress.show(now, self.opened as u64, || format!("{}", self.opened));
        Ok(if self.opened == wanted { Next::Done } else { Next::At(Nanos::MAX) })
    }

    fn opened(&mut self, _net: &mut Net, _id: usize, _times: Times) {
        self.opened += 1;
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.failed.get_or_insert(ending);
    }
}
