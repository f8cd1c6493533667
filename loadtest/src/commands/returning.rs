//! The way back of subscribers who were cut off: each opens a connection with its cursor, tries again where that fails, and is up
//! to date with the last message that it missed.

use crate::client::Purpose;
use crate::clock::Nanos;
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::envelope;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::ledger::{Arrival, Ledger};
use crate::net::{Net, Times};
use crate::payload::Payload;
use crate::report::Report;
use crate::stage::Stage;

use super::absence::MARK;
use super::common::GAP_CODE;
use super::crowd::LINGER;
use super::failures::Failures;
use super::fanout::TOPIC;

/// Subscribers on their way back.
#[derive(Debug)]
pub struct Returning {
    /// What is measured: from their setting out until the last is up to date.
    pub stage: Stage,
    /// What was counted.
    pub counts: Counts,
    /// Until a connection was open again.
    pub back: Histogram,
    /// Until the last missed message came.
    pub up_to_date: Histogram,
    payload: Payload,
    subscribers: Vec<Subscriber>,
    /// Whose each connection is, by its number.
    owners: Vec<Option<usize>>,
    /// How many messages there are in all, the first included.
    published: u64,
    set_out_at: Nanos,
    /// When the last of them was up to date.
    moved_at: Nanos,
    is_under_way: bool,
    retry: Nanos,
    /// Who tries again when, the last first.
    again: Vec<(Nanos, usize)>,
    failures: Failures,
}

#[derive(Debug)]
struct Subscriber {
    cursor: String,
    ledger: Ledger,
    is_up_to_date: bool,
    has_gap: bool,
}

/// What there was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    returned: u64,
    retried: u64,
    lost_again: u64,
    up_to_date: u64,
    /// Closed with the word that something is missing.
    given_up: u64,
    /// Messages that came, each once.
    pub replayed: u64,
    duplicated: u64,
    reordered: u64,
    foreign: u64,
    /// Subscribers that were told of something that they will never get.
    pub gaps_announced: u64,
}

impl Returning {
    /// Who stands behind these cursors and has missed so many messages sets out now.
    pub fn new(stage: Stage, payload: Payload, cursors: Vec<String>, missed: u64, retry: Nanos, now: Nanos) -> Self {
        let subscriber = |cursor| {
            let mut ledger = Ledger::default();
            ledger.enter(MARK);
            Subscriber { cursor, ledger, is_up_to_date: false, has_gap: false }
        };
        Self {
            stage,
            counts: Counts::default(),
            back: Histogram::new(),
            up_to_date: Histogram::new(),
            payload,
            subscribers: cursors.into_iter().map(subscriber).collect(),
            owners: Vec::new(),
            published: MARK + 1 + missed,
            set_out_at: now,
            moved_at: now,
            is_under_way: false,
            retry,
            again: Vec::new(),
            failures: Failures::default(),
        }
    }

    /// How long it took until the last was up to date; None if not all are.
    pub fn until_all_are_up_to_date(&self) -> Option<Nanos> {
        (self.counts.up_to_date == self.subscribers.len() as u64).then(|| self.moved_at - self.set_out_at)
    }

    /// Tells what was counted.
    pub fn tell(&self, report: &mut Report) {
        let (counts, all) = (self.counts, self.subscribers.len() as u64);
        let missing = |has_gap| -> u64 {
            let those = self.subscribers.iter().filter(|subscriber| subscriber.has_gap == has_gap);
            those.map(|subscriber| subscriber.ledger.lost(self.published)).sum()
        };
        report.tell("back", counts.returned);
        report.tell("up_to_date", counts.up_to_date);
        report.fault("behind", all - counts.up_to_date);
        report.tell("retried", counts.retried);
        report.fault("lost_again", counts.lost_again);
        report.tell("replayed", counts.replayed);
        report.fault("lost", missing(false));
        report.fault("duplicated", counts.duplicated);
        report.fault("reordered", counts.reordered);
        report.fault("foreign", counts.foreign);
        report.fault("gaps_announced", counts.gaps_announced);
        report.tell("missing_and_announced", missing(true));
        self.failures.tell(report);
    }

    fn open(&mut self, net: &mut Net, subscriber: usize, now: Nanos) {
        match net.open_behind(now, 0, Purpose::Subscribe(TOPIC), &self.subscribers[subscriber].cursor) {
            Ok(id) => {
                if self.owners.len() <= id {
                    self.owners.resize(id + 1, None);
                }
                self.owners[id] = Some(subscriber);
            }
            Err(ending) => self.fail(subscriber, &ending, now),
        }
    }

    fn fail(&mut self, subscriber: usize, ending: &Ending, now: Nanos) {
        self.failures.count(ending);
        let at = now + self.retry / 2 + fastrand::u64(..=self.retry / 2);
        let place = self.again.partition_point(|&(other, _)| other > at);
        self.again.insert(place, (at, subscriber));
    }

    fn owner(&self, id: usize) -> Option<usize> {
        self.owners.get(id).copied().flatten()
    }

    fn stand(&mut self, subscriber: usize, cursor: &str) {
        let place = &mut self.subscribers[subscriber].cursor;
        place.clear();
        place.push_str(cursor);
    }

    fn tell_gap(&mut self, subscriber: usize) {
        if !std::mem::replace(&mut self.subscribers[subscriber].has_gap, true) {
            self.counts.gaps_announced += 1;
        }
    }

    fn is_settled(&self) -> bool {
        self.counts.up_to_date + self.counts.given_up == self.subscribers.len() as u64
    }
}

impl Load for Returning {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.counts.replayed)?;
        if !std::mem::replace(&mut self.is_under_way, true) {
            (0..self.subscribers.len()).for_each(|subscriber| self.open(net, subscriber, now));
        }
        if self.is_settled() {
            // What comes now was sent twice.
            self.stage.finish(net, self.counts.replayed);
            return Ok(if now >= self.moved_at + LINGER { Next::Done } else { Next::At(self.moved_at + LINGER) });
        }
        if self.stage.is_over() {
            return Ok(Next::Done);
        }
        while let Some((_, subscriber)) = self.again.pop_if(|(at, _)| *at <= now) {
            self.counts.retried += 1;
            self.open(net, subscriber, now);
        }
        let again_at = self.again.last().map_or(Nanos::MAX, |&(at, _)| at);
        Ok(Next::At(again_at.min(self.stage.next_edge(now))))
    }

    fn opened(&mut self, _net: &mut Net, _id: usize, times: Times) {
        self.counts.returned += 1;
        self.back.record(times.opened - self.set_out_at);
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        let Some(owner) = self.owner(id) else { return };
        if let Some(cursor) = envelope::cursor_of(payload) {
            self.stand(owner, cursor);
        } else if let Some(cursor) = envelope::end_of_gap(payload) {
            self.stand(owner, cursor);
            return self.tell_gap(owner);
        }
        let stamp = self.payload.stamp_of(payload, at).filter(|stamp| stamp.topic == 0);
        let Some(number) = stamp.map(|stamp| stamp.near(self.published).number).filter(|&number| number < self.published) else {
            self.counts.foreign += 1;
            return;
        };
        let subscriber = &mut self.subscribers[owner];
        match subscriber.ledger.enter(number) {
            Arrival::Duplicate => {
                self.counts.duplicated += 1;
                return;
            }
            Arrival::Reordered => self.counts.reordered += 1,
            Arrival::InOrder => {}
        }
        self.counts.replayed += 1;
        if number == self.published - 1 {
            subscriber.is_up_to_date = true;
            self.counts.up_to_date += 1;
            self.up_to_date.record(at - self.set_out_at);
            self.moved_at = at;
        }
    }

    fn position(&mut self, _net: &mut Net, id: usize, cursor: &str) {
        if let Some(owner) = self.owner(id) {
            self.stand(owner, cursor);
        }
    }

    fn gap(&mut self, _net: &mut Net, id: usize, _words: &[u8]) {
        if let Some(owner) = self.owner(id) {
            self.tell_gap(owner);
        }
    }

    fn closed(&mut self, net: &mut Net, id: usize, ending: Ending, at: Nanos) {
        let Some(owner) = self.owners.get_mut(id).and_then(Option::take) else { return };
        let is_told = matches!(&ending, Ending::Closed { code: GAP_CODE, .. });
        if is_told {
            self.tell_gap(owner);
        } else {
            self.counts.lost_again += u64::from(net.was_open(id));
        }
        match (self.subscribers[owner].is_up_to_date, is_told) {
            // Nothing is owed to it any more.
            (true, _) => {}
            (false, true) => {
                self.counts.given_up += 1;
                self.moved_at = at;
            }
            (false, false) => self.fail(owner, &ending, at),
        }
    }
}
