//! Who is subscribed to what, what was published, and what of it came: lost, duplicated and reordered are counts, not estimates.
//!
//! Each publication of a topic has a number, each subscription a [`Ledger`]. Steady subscribers are there from before the first
//! publication to after the last, and a publication is done when all of them have it. Passing ones come, go or stop reading; of
//! them only holes count.

use std::collections::HashMap;

use crate::clock::Nanos;
use crate::ending::Ending;
use crate::histogram::Histogram;
use crate::ledger::{Arrival, Ledger};
use crate::payload::{Payload, Stamp};
use crate::report::Report;
use crate::stage::Stage;
use crate::target::Topics;
use crate::topic::Topic;

/// The account of a run.
#[derive(Debug)]
pub struct Traffic {
    payload: Payload,
    topics: Vec<Topic>,
    /// What each connection is subscribed to, by its number.
    members: Vec<Option<Member>>,
    ledgers: Vec<Ledger>,
    /// Publications that not every steady subscriber has.
    under_way: u64,
    moved_at: Nanos,
    /// Another process publishes: a number that was never seen is new, not foreign.
    is_following: bool,
    /// Number and latency of each publication that became complete within the measurement, where they are kept.
    completions: Option<Vec<(u64, Nanos)>>,
    /// Of each publication that was refused, by topic and number, how many deliveries of it are not due.
    refused: HashMap<(u32, u64), u64>,
    /// Steady members whose connection ended: what they did not get is still lost.
    gone: Vec<Member>,
    /// Ledgers of passing members who left, for the next.
    free_ledgers: Vec<usize>,
    /// What was counted.
    pub counts: Counts,
    /// The first ending of a connection that was to stay.
    pub first_ending: Option<String>,
    /// From when it was due to each steady subscriber.
    pub latency: Histogram,
    /// From when it was due to the last steady subscriber.
    pub last: Histogram,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    topics: Topics,
    first_ledger: usize,
    is_steady: bool,
}

/// What came, over the whole run, warm-up included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Publications sent.
    pub published: u64,
    /// Publications the server answered with a refusal.
    pub refused: u64,
    /// Deliveries to steady subscribers.
    pub delivered: u64,
    /// Deliveries to passing subscribers.
    pub passing_delivered: u64,
    /// Holes in what passing subscribers got, of those that have left.
    pub passing_lost: u64,
    /// Came before a passing subscription was confirmed, or had been published before its end was.
    pub passing_beside: u64,
    /// Came again.
    pub duplicated: u64,
    /// Came after a higher number of its topic.
    pub reordered: u64,
    /// Not of this run, damaged, or of a topic the connection has not subscribed to.
    pub foreign: u64,
    /// Steady connections that ended.
    pub connections_lost: u64,
}

impl Counts {
    /// Deliveries to all subscribers: what the server has done.
    pub const fn all_delivered(&self) -> u64 {
        self.delivered + self.passing_delivered
    }
}

/// A message that came for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What its stamp says.
    pub stamp: Stamp,
    /// The last steady subscriber has it now.
    pub is_complete: bool,
}

impl Traffic {
    /// On `topics` topics, with messages of `size` bytes. The run's random number tells messages of another run apart.
    pub fn new(topics: u32, size: usize, run: u64, now: Nanos) -> Self {
        Self {
            payload: Payload::new(size, run),
            topics: vec![Topic::default(); topics as usize],
            members: Vec::new(),
            ledgers: Vec::new(),
            under_way: 0,
            moved_at: now,
            is_following: false,
            completions: None,
            refused: HashMap::new(),
            gone: Vec::new(),
            free_ledgers: Vec::new(),
            counts: Counts::default(),
            first_ending: None,
            latency: Histogram::new(),
            last: Histogram::new(),
        }
    }

    /// On topics to which another process publishes.
    pub fn following(topics: u32, size: usize, run: u64, now: Nanos) -> Self {
        // With several topics each has its subscribers in one process, which then knows itself when the last of them has it.
        let completions = (topics == 1).then(Vec::new);
        Self { is_following: true, completions, ..Self::new(topics, size, run, now) }
    }

    /// Keeps number and latency of each publication that becomes complete, to be compared with other processes'.
    pub fn keep_completions(&mut self) {
        self.completions = Some(Vec::new());
    }

    /// Number and latency of each publication that became complete within the measurement.
    pub fn completions(&self) -> &[(u64, Nanos)] {
        self.completions.as_deref().unwrap_or_default()
    }

    /// So many were published in all, on the topics in turn, and these of them were refused, says the process that did.
    pub fn end(&mut self, published: u64, refused: impl Iterator<Item = (u32, u64)>) {
        let topics = self.topics.len() as u64;
        for topic in 0..topics {
            self.follow_to(topic as usize, published / topics + u64::from(topic < published % topics));
        }
        self.is_following = false;
        refused.filter(|&(topic, _)| u64::from(topic) < topics).for_each(|(topic, number)| self.refuse(topic, number));
    }

    /// How many topics there are.
    pub fn topics(&self) -> u32 {
        self.topics.len() as u32
    }

    /// Publications that not every steady subscriber has.
    pub const fn under_way(&self) -> u64 {
        self.under_way
    }

    /// When something last came that was new: who sends the same for ever holds up no run.
    pub const fn moved_at(&self) -> Nanos {
        self.moved_at
    }

    /// Somebody who is subscribed to this topic alone: always the same one while that is there.
    pub fn first_member_of(&self, topic: u32) -> Option<usize> {
        self.topics[topic as usize].members.first().copied()
    }

    /// Whether a connection is subscribed to anything.
    pub fn is_member(&self, id: usize) -> bool {
        self.members.get(id).is_some_and(Option::is_some)
    }

    /// A subscriber for the whole run.
    pub fn subscribe(&mut self, id: usize, topics: Topics) {
        self.enter(id, topics, true);
        for topic in self.indices(topics) {
            self.topics[topic].steady += 1;
        }
        if topics.count == 1 {
            self.topics[topics.first as usize].members.insert(id);
        }
    }

    /// A subscriber of one topic who may go, and for whom nothing waits.
    pub fn subscribe_passing(&mut self, id: usize, topic: u32) {
        self.enter(id, Topics { first: topic, count: 1 }, false);
    }

    /// A passing subscriber of one topic goes: what it missed is counted, up to the topic's number `until`, and beyond that up to
    /// the highest that came.
    pub fn leave(&mut self, id: usize, until: u64) {
        if let Some(member) = self.members.get_mut(id).and_then(Option::take) {
            self.counts.passing_lost += self.ledgers[member.first_ledger].lost(until);
            self.free_ledgers.push(member.first_ledger);
        }
    }

    /// How many below the number `until` a passing subscriber has not got.
    pub fn missing_to(&self, id: usize, until: u64) -> u64 {
        let member = self.members.get(id).copied().flatten();
        member.map_or(0, |member| self.ledgers[member.first_ledger].lost(until))
    }

    /// Numbers the topic's next publication and returns the message.
    pub fn publication(&mut self, topic: u32, due: Nanos) -> &[u8] {
        let entry = &mut self.topics[topic as usize];
        let number = entry.publish();
        self.counts.published += 1;
        self.under_way += u64::from(entry.steady > 0);
        self.payload.stamped(Stamp { topic, number, due })
    }

    /// The number that the topic's next publication gets.
    pub fn next_of(&self, topic: u32) -> u64 {
        self.topics[topic as usize].next
    }

    /// The server did not accept a publication: nobody waits for it.
    pub fn refuse(&mut self, topic: u32, number: u64) {
        self.counts.refused += 1;
        let entry = &mut self.topics[topic as usize];
        let remaining = entry.remaining_of(number).map(std::mem::take);
        self.under_way -= u64::from(remaining.is_some());
        entry.forget_done();
        // Also where nobody waits for it here: in another process somebody may.
        self.refused.insert((topic, number), remaining.unwrap_or_default().into());
    }

    /// Topic and number of what was refused.
    pub fn refused(&self) -> impl Iterator<Item = (u32, u64)> {
        self.refused.keys().copied()
    }

    /// Enters what a connection got. None for what was counted as a fault instead.
    pub fn message(&mut self, stage: &Stage, id: usize, message: &[u8], at: Nanos) -> Option<Delivery> {
        let stamp = self.stamp_of(message, at);
        if let Some(stamp) = stamp.filter(|_| self.is_following) {
            self.follow_to(stamp.topic as usize, stamp.number + 1);
        }
        let known = stamp.and_then(|stamp| Some((stamp, self.place_of(id, stamp)?)));
        let Some((stamp, (ledger, is_steady))) = known else {
            self.counts.foreign += 1;
            return None;
        };
        match self.ledgers[ledger].enter(stamp.number) {
            Arrival::Duplicate => {
                self.counts.duplicated += 1;
                return None;
            }
            Arrival::Reordered => self.counts.reordered += 1,
            Arrival::InOrder => {}
        }
        self.moved_at = at;
        if !is_steady {
            self.counts.passing_delivered += 1;
            return Some(Delivery { stamp, is_complete: false });
        }
        self.counts.delivered += 1;
        if !self.refused.is_empty()
            && let Some(not_due) = self.refused.get_mut(&(stamp.topic, stamp.number))
        {
            // Refused, and delivered all the same.
            *not_due = not_due.saturating_sub(1);
        }
        let is_complete = self.take_one(stamp);
        if stage.is_measured(stamp.due) {
            self.latency.record(at - stamp.due);
            if is_complete {
                self.last.record(at - stamp.due);
                self.completions.iter_mut().for_each(|kept| kept.push((stamp.number, at - stamp.due)));
            }
        }
        Some(Delivery { stamp, is_complete })
    }

    /// Enters what a connection got while its subscription was being confirmed, or after its end was. A broker may deliver from one
    /// connection while it answers on another, so that is right for what was published below the number `until`.
    pub fn message_beside(&mut self, message: &[u8], at: Nanos, until: u64) {
        let is_right = self.stamp_of(message, at).is_some_and(|stamp| stamp.number < until);
        *(if is_right { &mut self.counts.passing_beside } else { &mut self.counts.foreign }) += 1;
    }

    /// What a message of this run says of itself.
    fn stamp_of(&self, message: &[u8], at: Nanos) -> Option<Stamp> {
        let stamp = self.payload.stamp_of(message, at).filter(|stamp| stamp.topic < self.topics())?;
        Some(stamp.near(self.next_of(stamp.topic)))
    }

    /// A connection ended that was to stay.
    pub fn closed(&mut self, id: usize, ending: &Ending) {
        match self.members.get_mut(id).and_then(|member| member.take_if(|member| member.is_steady)) {
            None if self.is_member(id) => self.leave(id, 0),
            member => {
                self.counts.connections_lost += 1;
                self.first_ending.get_or_insert_with(|| ending.to_string());
                if let Some(member) = member {
                    // Its number may be another's from now on.
                    self.topics[member.topics.first as usize].members.remove(&id);
                    self.gone.push(member);
                }
            }
        }
    }

    /// How many deliveries to steady subscribers never came. Of what was under way when somebody pressed Ctrl-C nobody knows whether
    /// it would have come; only holes count then.
    pub fn lost(&self, interrupted: bool) -> u64 {
        let lost: u64 = self
            .members
            .iter()
            .flatten()
            .filter(|member| member.is_steady)
            .chain(&self.gone)
            .flat_map(|member| self.indices(member.topics).enumerate().map(|(at, topic)| (member.first_ledger + at, topic)))
            .map(|(ledger, topic)| self.ledgers[ledger].lost(if interrupted { 0 } else { self.topics[topic].next }))
            .sum();
        lost.saturating_sub(self.refused.values().sum())
    }

    /// Tells what was counted.
    pub fn tell(&self, report: &mut Report, interrupted: bool) {
        let counts = self.counts;
        report.tell("published", counts.published);
        report.fault("refused_publications", counts.refused);
        report.tell("delivered", counts.delivered);
        report.fault("lost", self.lost(interrupted));
        report.fault("duplicated", counts.duplicated);
        report.fault("reordered", counts.reordered);
        report.fault("foreign", counts.foreign);
        report.fault("connections_lost", counts.connections_lost);
        report.notes.extend(self.first_ending.as_ref().map(|first| format!("the first connection lost: {first}")));
    }

    fn enter(&mut self, id: usize, topics: Topics, is_steady: bool) {
        let free = if is_steady { None } else { self.free_ledgers.pop() };
        let member = Member { topics, first_ledger: free.unwrap_or(self.ledgers.len()), is_steady };
        for topic in self.indices(topics) {
            let ledger = Ledger::joining(self.topics[topic].next);
            match free {
                Some(place) => self.ledgers[place] = ledger,
                None => self.ledgers.push(ledger),
            }
        }
        if self.members.len() <= id {
            self.members.resize(id + 1, None);
        }
        self.members[id] = Some(member);
    }

    /// All of a topic below `next` were published by another process.
    fn follow_to(&mut self, topic: usize, next: u64) {
        let entry = &mut self.topics[topic];
        while entry.next < next {
            entry.publish();
            self.under_way += u64::from(entry.steady > 0);
        }
    }

    fn indices(&self, topics: Topics) -> impl Iterator<Item = usize> + use<> {
        let all = self.topics.len();
        (0..topics.count as usize).map(move |at| (topics.first as usize + at) % all)
    }

    /// The ledger of a stamp that was published and subscribed to, and whether it is a steady one.
    fn place_of(&self, id: usize, stamp: Stamp) -> Option<(usize, bool)> {
        let member = self.members.get(id)?.as_ref()?;
        let all = self.topics.len() as u32;
        if stamp.number >= self.topics[stamp.topic as usize].next {
            return None;
        }
        let at = (stamp.topic + all - member.topics.first) % all;
        (at < member.topics.count).then_some((member.first_ledger + at as usize, member.is_steady))
    }

    /// One steady subscriber less waits for a publication; whether that was the last.
    fn take_one(&mut self, stamp: Stamp) -> bool {
        let entry = &mut self.topics[stamp.topic as usize];
        let Some(remaining) = entry.remaining_of(stamp.number) else { return false };
        *remaining -= 1;
        let is_complete = *remaining == 0;
        if is_complete {
            self.under_way -= 1;
            entry.forget_done();
        }
        is_complete
    }
}

#[cfg(test)]
mod tests;
