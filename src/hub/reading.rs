//! Who reads the history behind a pattern, and how far: what is published where a reader has not been yet passes it by.
//!
//! A pattern's topics are read home by home, and in each by the order of their names, so one place divides them: up to it they have been
//! read to their ends, and what is published on them comes by itself; what is published beyond it will be read.
//!
//! ```text
//!   home 0: a/a  a/b  a/c     home 1: a/d  a/e  |  a/f  a/g     home 2: a/h  a/i
//!                    live                       |  passed by, and read later
//! ```
//!
//! The place moves when a page has come. What was on its way to subscribers by then is in the page, or was handed out; so each publication
//! is measured by the place at the moment when it arrived here. A stamp that counts the moves tells that moment, and a reader's place is not
//! moved again before everything has ended that arrived before its last move: so two places are all that is kept of a reader.
//!
//! A topic that begins its life before the place is never read, so it is live from its first publication, also while the topic behind it is
//! read in several pages.
//!
//! A topic has one reader at most on a connection: the caller leaves out of a reading what an earlier subscription brings (`except`). While
//! the topic waits for its reader, no subscription of the connection brings it, by its name or by another pattern.
//!
//! Who reads a topic by its name is held in its list. What arrives meanwhile must not come by a pattern either, should the topic be left before
//! that has gone out: so where it is read to its end, or left, what has arrived passes the connection by, as if by a reader.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Hub;
use super::topics::{Hold, Subscriber, TopicId};
use crate::frame::{Form, Pattern, Topic};
use crate::limits::GiveBack;

/// Where a publication comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic's home worker.
    pub home: usize,
    /// Whether something of the topic is kept at all. If not, nobody reads it, and nobody has to wait for that.
    pub is_kept: bool,
}

/// How far a reader has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    /// All topics of the home workers before this one have been read.
    pub home: usize,
    /// And of this one's topics those before this name.
    pub topic: Option<Topic>,
    /// And the topic of this name: it has not only been begun.
    pub is_whole: bool,
}

/// How often some reader had moved when a publication arrived.
pub(super) type Stamp = u64;

/// Readings of connections, by slot, and the publications under way that they are measured by.
#[derive(Debug, Default)]
pub(super) struct Readings {
    of: HashMap<u32, Vec<Reading>, RandomState>,
    moves: Stamp,
    /// How many fan-outs are open of each stamp, from the oldest on. A run has the stamp of all that are in it.
    under_way: VecDeque<(Stamp, usize)>,
    /// Readings that end when everything has ended that arrived before this move.
    ending: VecDeque<(Stamp, u32)>,
}

#[derive(Debug)]
struct Reading {
    id: TopicId,
    name: Pattern,
    except: Arc<[Pattern]>,
    /// Of which hold on a topic it is, unless it is of a pattern.
    hold: Option<Hold>,
    /// For what arrived before the last move.
    before: Frontier,
    /// For what has arrived since.
    now: Frontier,
    moved: Stamp,
}

impl Frontier {
    /// Nothing has been read.
    pub const START: Self = Self { home: 0, topic: None, is_whole: false };
    /// Everything has.
    pub const END: Self = Self { home: usize::MAX, topic: None, is_whole: false };

    fn is_beyond(&self, home: usize, topic: &Topic) -> bool {
        let is_read = |at: &Topic| topic < at || (self.is_whole && topic == at);
        home < self.home || (home == self.home && self.topic.as_ref().is_some_and(is_read))
    }
}

impl Reading {
    fn awaits(&self, topic: &Topic, origin: Origin, stamp: Stamp) -> bool {
        let place = if stamp < self.moved { &self.before } else { &self.now };
        origin.is_kept
            && !place.is_beyond(origin.home, topic)
            && self.name.matches(topic.as_str())
            && !self.except.iter().any(|except| except.matches(topic.as_str()))
    }
}

impl Readings {
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Whether the slot reads something.
    pub fn reads(&self, slot: u32) -> bool {
        self.of.contains_key(&slot)
    }

    /// The stamp of what arrives now.
    pub fn stamp(&self) -> Stamp {
        self.moves
    }

    /// A fan-out of what has just arrived opens.
    pub fn begin(&mut self) -> Stamp {
        match self.under_way.back_mut() {
            Some((stamp, open)) if *stamp == self.moves => *open += 1,
            _ => self.under_way.push_back((self.moves, 1)),
        }
        self.moves
    }

    /// A fan-out of this stamp ends. Returns the slots of which some reading has ended by that.
    pub fn end(&mut self, stamp: Stamp) -> Vec<u32> {
        if let Ok(at) = self.under_way.binary_search_by_key(&stamp, |(stamp, _)| *stamp) {
            self.under_way[at].1 -= 1;
        }
        while self.under_way.front().is_some_and(|(_, open)| *open == 0) {
            self.under_way.pop_front();
        }
        self.under_way.give_back();
        self.take_ended()
    }

    /// A subscription begins to read.
    pub fn add(&mut self, slot: u32, id: TopicId, name: Pattern, except: Arc<[Pattern]>) {
        let (before, now) = (Frontier::START, Frontier::START);
        let reading = Reading { id, name, except, hold: None, before, now, moved: self.moves };
        self.of.entry(slot).or_default().push(reading);
    }

    /// Whether what is published on a topic waits for the slot's reader to come there.
    pub fn awaits(&self, slot: u32, topic: &Topic, origin: Origin, stamp: Stamp) -> bool {
        self.of.get(&slot).is_some_and(|readings| readings.iter().any(|reading| reading.awaits(topic, origin, stamp)))
    }

    /// Whether a reader may be moved: what arrived before its last move has ended.
    pub fn is_settled(&self, slot: u32, id: TopicId) -> bool {
        self.find(slot, id).is_none_or(|reading| self.has_settled(reading.moved))
    }

    /// Moves a reader that has settled on to a place.
    pub fn advance(&mut self, slot: u32, id: TopicId, to: Frontier) {
        debug_assert!(self.is_settled(slot, id), "what arrived before the last move is still under way");
        let moves = self.moves + 1;
        let Some(reading) = self.find_mut(slot, id) else { return };
        reading.before = std::mem::replace(&mut reading.now, to);
        reading.moved = moves;
        self.moves = moves;
    }

    /// A reader has read everything, or the subscription is left: whatever arrives from now on does not wait for it. Returns the slots
    /// of which some reading has ended by that.
    pub fn finish(&mut self, slot: u32, id: TopicId) -> Vec<u32> {
        let moves = self.moves + 1;
        let is_settled = self.is_settled(slot, id);
        let Some(reading) = self.find_mut(slot, id) else { return Vec::new() };
        if is_settled {
            reading.before = std::mem::replace(&mut reading.now, Frontier::END);
        } else {
            reading.now = Frontier::END;
        }
        reading.moved = moves;
        self.moves = moves;
        self.ending.push_back((moves, slot));
        self.take_ended()
    }

    /// What of a topic has arrived by now reaches the slot no more, whichever subscription would bring it. Only the first time counts for a hold.
    /// Returns the slots of which some reading has ended by that.
    pub fn pass_by_arrived(&mut self, slot: u32, id: TopicId, name: Pattern, hold: Hold) -> Vec<u32> {
        let readings = self.of.entry(slot).or_default();
        if readings.iter().any(|reading| (reading.id, reading.hold) == (id, Some(hold))) {
            return Vec::new();
        }
        let moved = self.moves;
        let (before, now) = (Frontier::START, Frontier::START);
        readings.push(Reading { id, name, except: Arc::new([]), hold: Some(hold), before, now, moved });
        self.finish(slot, id)
    }

    /// The slot has left some list. What has arrived by now may have reached it there, so it counts as a reader, though it waits for nothing,
    /// until that has ended: see [`Hub::end_readings`]. Returns the slots of which some reading has ended by that.
    pub fn linger(&mut self, slot: u32) -> Vec<u32> {
        let Some(readings) = self.of.get_mut(&slot) else { return Vec::new() };
        let Some(Reading { id, name, except, .. }) = readings.first() else { return Vec::new() };
        self.moves += 1;
        let (id, name, except, moved) = (*id, name.clone(), Arc::clone(except), self.moves);
        readings.push(Reading { id, name, except, hold: None, before: Frontier::END, now: Frontier::END, moved });
        self.ending.push_back((moved, slot));
        self.take_ended()
    }

    /// The slot subscribes to nothing any more.
    pub fn forget(&mut self, slot: u32) {
        if self.of.remove(&slot).is_some() {
            self.of.give_back();
            self.ending.retain(|(_, ending)| *ending != slot);
        }
    }

    fn has_settled(&self, moved: Stamp) -> bool {
        self.under_way.front().is_none_or(|(oldest, _)| *oldest >= moved)
    }

    fn take_ended(&mut self) -> Vec<u32> {
        let mut ended = Vec::new();
        while let Some((moved, slot)) = self.ending.front().copied().filter(|(moved, _)| self.has_settled(*moved)) {
            self.ending.pop_front();
            let Some(readings) = self.of.get_mut(&slot) else { continue };
            readings.retain(|reading| reading.moved != moved || reading.now != Frontier::END);
            ended.push(slot);
            if readings.is_empty() {
                self.of.remove(&slot);
                self.of.give_back();
            }
        }
        ended
    }

    /// The reading of a subscription that has not been finished.
    fn find(&self, slot: u32, id: TopicId) -> Option<&Reading> {
        self.of.get(&slot)?.iter().find(|reading| reading.id == id && reading.now != Frontier::END)
    }

    fn find_mut(&mut self, slot: u32, id: TopicId) -> Option<&mut Reading> {
        self.of.get_mut(&slot)?.iter_mut().find(|reading| reading.id == id && reading.now != Frontier::END)
    }
}

impl<P> Hub<P> {
    /// [`Hub::subscribe_pattern`] for who reads history first: what is published on a topic passes it by until [`Hub::advance_reading`] has come to that. What
    /// `except` matches is not read. `None` if `slot` subscribes to the pattern already.
    pub fn subscribe_reading(&mut self, slot: u32, pattern: &Pattern, form: Form, except: Arc<[Pattern]>) -> Option<TopicId> {
        let id = self.topics.find_or_add_pattern(pattern, self.homes);
        if !self.join_pattern(id, Subscriber { overlaps: true, ..Subscriber::live(slot, form) }) {
            return None;
        }
        self.readings.add(slot, id, pattern.clone(), except);
        Some(id)
    }

    /// Whether what `slot` reads behind a pattern may be told to have come further: what arrived before it was told so last has ended.
    #[must_use]
    pub fn may_advance_reading(&self, slot: u32, id: TopicId) -> bool {
        self.readings.is_settled(slot, id)
    }

    /// `slot` has read the topics up to a place, of everything that has arrived so far. To be called if it may be, and between what is in
    /// the pages that it has read and what is not.
    pub fn advance_reading(&mut self, slot: u32, id: TopicId, to: Frontier) {
        self.readings.advance(slot, id, to);
    }

    /// The same for all topics: `slot` gets what arrives from now on.
    pub fn end_reading(&mut self, slot: u32, id: TopicId) {
        let ended = self.readings.finish(slot, id);
        self.end_readings(ended);
    }

    /// A topic has been read to its end, or is left, by a subscriber that is held: what has arrived so far must not come by a pattern, now or when
    /// the topic is left.
    pub(super) fn pass_by_arrived(&mut self, id: TopicId, Subscriber { slot, held, overlaps, .. }: Subscriber) {
        if let (Some(hold), Some(topic), true) = (held, self.topics[id].topic(), overlaps) {
            let ended = self.readings.pass_by_arrived(slot, id, Pattern::from(topic), hold);
            self.end_readings(ended);
        }
    }

    /// `slot` has left a list.
    pub(super) fn linger(&mut self, slot: u32) {
        let ended = self.readings.linger(slot);
        self.end_readings(ended);
    }

    /// Who has read to the end, and stands in no other list, is looked at no more for each publication. Nothing is under way then that has
    /// reached him by a list that he has left since.
    pub(super) fn end_readings(&mut self, ended: Vec<u32>) {
        for slot in ended {
            if let [entry] = self.slots.of(slot)
                && !self.readings.reads(slot)
            {
                self.topics[entry.topic].mark_overlapping(entry.position, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Origin = Origin { home: 1, is_kept: true };

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn readings(except: &[&str]) -> (Readings, TopicId) {
        let (mut readings, id) = (Readings::default(), TopicId::from_index(0));
        let except = except.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        readings.add(7, id, Pattern::parse("a/*").unwrap(), except);
        (readings, id)
    }

    fn up_to(home: usize, name: &str) -> Frontier {
        Frontier { home, topic: Some(topic(name)), is_whole: true }
    }

    #[test]
    fn what_is_behind_the_place_comes_and_what_is_beyond_waits() {
        let (mut readings, id) = readings(&["a/x"]);
        let awaits = |readings: &Readings, home, name: &str| {
            readings.awaits(7, &topic(name), Origin { home, is_kept: true }, readings.stamp())
        };
        assert!(awaits(&readings, 0, "a/a") && !awaits(&readings, 0, "a/x") && !awaits(&readings, 0, "b"));
        assert!(!readings.awaits(7, &topic("a/a"), Origin { home: 0, is_kept: false }, 0), "nobody will read it");
        assert!(!readings.awaits(8, &topic("a/a"), KEPT, 0));
        readings.advance(7, id, up_to(1, "a/m"));
        for (home, name, waits) in [(0, "a/z", false), (1, "a/m", false), (1, "a/n", true), (2, "a/a", true)] {
            assert_eq!(awaits(&readings, home, name), waits, "{home} {name}");
        }
        readings.advance(7, id, Frontier { is_whole: false, ..up_to(1, "a/o") });
        assert!(!awaits(&readings, 1, "a/n") && awaits(&readings, 1, "a/o"), "it has been begun");
    }

    #[test]
    fn what_arrived_before_a_move_is_measured_by_the_place_of_then() {
        let (mut readings, id) = readings(&[]);
        let early = readings.begin();
        assert!(readings.is_settled(7, id));
        readings.advance(7, id, up_to(1, "a/m"));
        let late = readings.begin();
        assert!(readings.awaits(7, &topic("a/b"), KEPT, early), "it stands in the page");
        assert!(!readings.awaits(7, &topic("a/b"), KEPT, late));
        assert!(!readings.is_settled(7, id));
        assert_eq!(readings.end(early), [0; 0]);
        assert!(readings.is_settled(7, id));
        assert_eq!(readings.finish(7, id), [0; 0], "the late one stands in the last page");
        assert!(readings.awaits(7, &topic("a/n"), KEPT, late) && !readings.awaits(7, &topic("a/n"), KEPT, readings.stamp()));
        assert_eq!((readings.end(late), readings.is_empty()), (vec![7], true));
    }

    #[test]
    fn who_leaves_at_any_moment_gets_nothing_of_before_and_everything_of_after() {
        let (mut readings, id) = readings(&[]);
        let early = readings.begin();
        readings.advance(7, id, up_to(1, "a/m"));
        let between = readings.begin();
        readings.finish(7, id);
        for stamp in [early, between] {
            assert!(readings.awaits(7, &topic("a/n"), KEPT, stamp));
        }
        assert!(!readings.awaits(7, &topic("a/n"), KEPT, readings.stamp()));
        // It comes back meanwhile: another reading of the same number.
        readings.add(7, id, Pattern::parse("a/*").unwrap(), Arc::new([]));
        assert!(readings.awaits(7, &topic("a/n"), KEPT, readings.stamp()));
        assert_eq!(readings.end(early), [0; 0]);
        assert_eq!(readings.end(between), [7]);
        assert!(readings.awaits(7, &topic("a/n"), KEPT, readings.stamp()));
        readings.forget(7);
        assert!(readings.is_empty() && readings.ending.is_empty() && readings.under_way.is_empty());
    }

    #[test]
    fn who_leaves_a_topic_while_its_reading_ends_gets_nothing_twice() {
        let mut hub = Hub::new(1);
        let left = hub.subscribe(0, &topic("a"), Form::WsEnvelope);
        for (slot, name) in [(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "b")] {
            hub.subscribe(slot, &topic(name), Form::WsEnvelope);
        }
        let pattern = Pattern::parse("*").unwrap();
        let id = hub.subscribe_reading(0, &pattern, Form::WsEnvelope, Arc::new([Pattern::from(&topic("a"))])).unwrap();
        hub.publish_or_join(&topic("b"), KEPT, 'e', |_, _| None).unwrap();
        hub.end_reading(0, id);
        hub.publish_or_join(&topic("a"), KEPT, 'p', |_, _| None).unwrap();
        let (mut got, mut subscribers) = (String::new(), Vec::new());
        while let Some(mut slice) = hub.next_slice(1, &mut subscribers) {
            if subscribers.iter().any(|subscriber| subscriber.slot == 0) {
                got.push(*slice.publication.get_mut());
                hub.unsubscribe(0, left);
            }
        }
        assert_eq!(got, "p", "by its name, and not by the pattern once more");
        assert!(hub.readings.is_empty());
        assert!(!hub.topics[id].subscribers()[0].overlaps, "it is looked at no more");
    }

    /// What slot 0 gets, slice by slice.
    fn hand_out(hub: &mut Hub<char>) -> String {
        let (mut got, mut subscribers) = (String::new(), Vec::new());
        while let Some(mut slice) = hub.next_slice(9, &mut subscribers) {
            if subscribers.iter().any(|subscriber| subscriber.slot == 0 && subscriber.held.is_none()) {
                got.push(*slice.publication.get_mut());
            }
        }
        got
    }

    #[test]
    fn who_leaves_the_last_pattern_amid_its_reading_gets_nothing_that_it_has_read_by_name() {
        let mut hub = Hub::new(1);
        let id = hub.subscribe_reading(0, &Pattern::parse("*").unwrap(), Form::WsEnvelope, Arc::new([])).unwrap();
        hub.subscribe(0, &topic("a"), Form::WsEnvelope);
        hub.publish_or_join(&topic("a"), KEPT, 'p', |_, _| None).unwrap();
        hub.advance_reading(0, id, up_to(1, "a"));
        hub.unsubscribe(0, id);
        while hub.poll_interest().is_some() {}
        assert_eq!(hub.patterns(), 0);
        assert_eq!((hand_out(&mut hub).as_str(), hub.readings.is_empty()), ("", true), "it stands in the page");
        hub.publish_or_join(&topic("a"), KEPT, 'q', |_, _| None).unwrap();
        assert_eq!(hand_out(&mut hub), "q");
    }

    #[test]
    fn who_leaves_a_topic_just_read_to_its_end_gets_by_a_pattern_what_came_behind_alone() {
        let pattern = Pattern::parse("*").unwrap();
        let publish = |hub: &mut Hub<char>, text: &str| {
            text.chars().for_each(|one| hub.publish_or_join(&topic("a"), KEPT, one, |_, one| Some(one)).unwrap());
        };
        for (joins_first, comes_back) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut hub = Hub::new(1);
            hub.subscribe(1, &topic("a"), Form::WsEnvelope);
            let (id, hold) = hub.subscribe_held(0, &topic("a"), Form::WsEnvelope).unwrap();
            if joins_first {
                hub.subscribe_pattern(0, &pattern, Form::WsEnvelope);
            }
            publish(&mut hub, "opq");
            hub.release(0, id, hold);
            if !joins_first {
                hub.subscribe_pattern(0, &pattern, Form::WsEnvelope);
            }
            publish(&mut hub, "r");
            hub.unsubscribe(0, id);
            if comes_back {
                hub.subscribe(0, &topic("a"), Form::WsEnvelope);
            }
            publish(&mut hub, "s");
            let got = hand_out(&mut hub);
            publish(&mut hub, "t");
            let owed = match (joins_first, comes_back) {
                (true, _) => "rst",
                (false, true) => "st",
                (false, false) => "t",
            };
            assert!(got.chars().all(|one| "rs".contains(one)), "{joins_first} {comes_back}: {got}");
            assert!((got + &hand_out(&mut hub)).ends_with(owed), "{joins_first} {comes_back}");
            assert!(hub.readings.is_empty());
        }
    }
}
