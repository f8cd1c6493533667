//! Who on this worker subscribes to what, and how a publication reaches them; [`home`] is the view of a topic's home worker.
//!
//! A topic's subscribers stand in one dense list. While a publication is handed out slice by slice, two cuts divide the list, so
//! that connections may come and go between slices:
//!
//! ```text
//!     served        covered, not served      came later
//!   [ a  b  c  d  |  e  f  g  h  i         |  j  k ]
//!
//!   next_slice(2)    hands out e f; the first cut moves behind them
//!   subscribe(l)     appends behind k: l gets the next publication, not this one
//!   unsubscribe(b)   fills b's place from the end of its part, that place from the end of the next part, and so on:
//!
//!   [ a  d  c  |  i  e  f  g  h  |  k  j ]
//! ```
//!
//! So the list never has a hole: a slice is a plain run of live subscribers, and nothing is left to compact afterwards. Leaving
//! moves three subscribers at most, however long the list is. The order within a part means nothing; what counts is that the
//! publications of one topic go out one after the other, each to everyone it covers, before the next one begins.
//!
//! Who reads history first stands in the list, held: interest is told and publications pass it by, until its release has come
//! behind all publications that the history held already.
//!
//! A pattern has a list as a topic has. What is published on a topic goes through the topic's own list, then through that of each
//! pattern that matches; who stands in several of them gets it from the first.
//!
//! Who reads the history behind a pattern first stands in its list, too; `hub::reading` says which topics it waits for.
//!
//! 1. A connection subscribes; the interest is dirty until [`Hub::poll_interest`] has given it to be told: a topic's to its home worker, a
//!    pattern's to all of them, because a topic that nobody has named yet may have any home.
//! 2. The home workers acknowledge; [`Hub::poll_confirmed`] names the connections that waited for it.
//! 3. A publication arrives with [`Hub::publish`] and goes out through [`Hub::next_slice`], topics taking turns.
//! 4. The last subscriber leaves; the empty interest is told, and the topic is released.
//!
//! Who is there, and who is told of that, is kept beside it, in [`presence`].
//!
//! The hub neither encodes nor sends. It never waits, and no call takes time that grows with a topic's list, but for the two that
//! go through it once: an acknowledgement that brings a form into force, and a list that gives half of its memory back.

mod course;
mod fanout;
mod grace;
pub mod home;
mod interest;
#[cfg(any(test, debug_assertions))]
mod invariants;
#[cfg(test)]
mod model;
#[cfg(test)]
mod overlap;
pub mod presence;
mod reading;
mod subscriptions;
mod topics;
mod trie;

pub use fanout::{Carried, Slice};
pub use home::Interests;
pub use interest::Interest;
pub use reading::{Frontier, Origin};
pub use topics::{Hold, Subject, Subscriber, TopicId};

use crate::frame::{Form, Pattern, Topic};
use fanout::Fanouts;
use grace::Grace;
use interest::{Changes, Confirmations};
use reading::Readings;
use subscriptions::{Entry, Slots};
use topics::Topics;

/// The subscriptions of one worker's own connections, and its open fan-outs of publications `P`.
///
/// A connection is known by its slot, its index in the worker. Slots are dense: the hub keeps a table as long as the highest one
/// that subscribes. A subscription costs 24 bytes here, and at most a quarter more for room to grow.
///
/// ```
/// use fantail::frame::{Form, Topic};
/// use fantail::hub::Hub;
///
/// let (mut hub, chat) = (Hub::new(1), Topic::new("chat").unwrap());
/// hub.subscribe(7, &chat, Form::WsRaw);
/// hub.publish(&chat, "hello").unwrap();
/// let mut subscribers = Vec::new();
/// while let Some(mut slice) = hub.next_slice(256, &mut subscribers) {
///     for subscriber in &subscribers {
///         println!("to {}: {}", subscriber.slot, slice.publication.get_mut());
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Hub<P> {
    slots: Slots,
    topics: Topics,
    fanouts: Fanouts<P>,
    grace: Grace,
    readings: Readings,
    changes: Changes,
    confirmations: Confirmations,
    next_hold: Hold,
    /// Lists that were idle when last looked at. They stay until the next [`Hub::poll_interest`], because until then their
    /// empty interest may turn out untold.
    idle: Vec<TopicId>,
    /// Idle topics whose numbers may still stand in queues of what was handed out.
    retired: Vec<TopicId>,
    /// Workers, which are the homes of all topics.
    homes: usize,
}

impl<P> Hub<P> {
    /// A hub without subscriptions, in a process of so many workers.
    #[must_use]
    pub fn new(homes: usize) -> Self {
        Self {
            slots: Slots::default(),
            topics: Topics::default(),
            fanouts: Fanouts::default(),
            grace: Grace::default(),
            readings: Readings::default(),
            changes: Changes::default(),
            confirmations: Confirmations::default(),
            next_hold: Hold::FIRST,
            idle: Vec::new(),
            retired: Vec::new(),
            homes,
        }
    }

    /// Subscribes `slot` to `topic`. A subscription that is there already stays as it is, also in its form.
    pub fn subscribe(&mut self, slot: u32, topic: &Topic, form: Form) -> TopicId {
        let id = self.topics.find_or_add(topic);
        self.join(id, Subscriber::live(slot, form));
        id
    }

    /// Subscribes `slot` to all topics that `pattern` matches, whether they live or not; the pattern must have a wildcard. A subscription
    /// that is there already stays as it is.
    ///
    /// What is under way may have reached `slot` already, or be about to, by another subscription. So it passes the new one by, which is not
    /// in force before that has come to its end.
    pub fn subscribe_pattern(&mut self, slot: u32, pattern: &Pattern, form: Form) -> TopicId {
        let id = self.topics.find_or_add_pattern(pattern, self.homes);
        self.join_pattern(id, Subscriber::live(slot, form));
        id
    }

    fn join_pattern(&mut self, id: TopicId, subscriber: Subscriber) -> bool {
        if self.grace.is_quiet() {
            return self.join(id, subscriber);
        }
        let hold = self.fresh_hold();
        let is_new = self.join(id, Subscriber { held: Some(hold), ..subscriber });
        if is_new {
            self.grace.wait((subscriber.slot, id, hold));
        }
        is_new
    }

    /// The same as [`Hub::subscribe`] for who reads history first: what is published passes it by until [`Hub::release`]. `None` if `slot` subscribes to
    /// the topic already.
    pub fn subscribe_held(&mut self, slot: u32, topic: &Topic, form: Form) -> Option<(TopicId, Hold)> {
        let id = self.topics.find_or_add(topic);
        let hold = self.fresh_hold();
        self.join(id, Subscriber { held: Some(hold), ..Subscriber::live(slot, form) }).then_some((id, hold))
    }

    fn fresh_hold(&mut self) -> Hold {
        let hold = self.next_hold;
        self.next_hold = hold.next();
        hold
    }

    fn join(&mut self, id: TopicId, subscriber: Subscriber) -> bool {
        if self.slots.position(subscriber.slot, id).is_some() {
            return false;
        }
        let overlaps = subscriber.overlaps || self.readings.reads(subscriber.slot);
        let list = &mut self.topics[id];
        let position = list.push(Subscriber { overlaps, ..subscriber });
        list.interest.join(subscriber.form);
        self.changes.mark(id, &mut list.interest);
        self.slots.add(subscriber.slot, Entry { topic: id, position });
        if !self.topics.patterns.is_empty() {
            self.mark_overlaps(subscriber.slot);
        }
        true
    }

    /// Marks the subscriptions of a slot, if one topic may match several of them.
    fn mark_overlaps(&mut self, slot: u32) {
        let entries = self.slots.of(slot);
        if entries.len() > 1 && entries.iter().any(|entry| self.topics.is_pattern(entry.topic)) {
            for entry in entries {
                self.topics[entry.topic].mark_overlapping(entry.position, true);
            }
        }
    }

    /// `slot` has read everything up to what was given to [`Hub::publish`] so far, and gets what comes behind it. To be called once for a hold.
    pub fn release(&mut self, slot: u32, id: TopicId, hold: Hold) {
        let Some(position) = self.slots.position(slot, id) else { return };
        let list = &mut self.topics[id];
        if list.queue.is_empty() {
            return list.release(position, hold);
        }
        self.fanouts.push_release(&mut list.queue, slot, hold);
        let subscriber = list.subscribers()[position as usize];
        if subscriber.held == Some(hold) {
            self.pass_by_arrived(id, subscriber);
        }
    }

    /// Ends the subscription of `slot` to a topic; false if there is none. It gets nothing more of a fan-out under way. If it was held, what has
    /// arrived until then, or until its release, reaches `slot` by no other list: it is in the pages, or would have been.
    pub fn unsubscribe(&mut self, slot: u32, id: TopicId) -> bool {
        let Some(entry) = self.slots.remove(slot, id) else { return false };
        let gone = self.leave(entry);
        self.pass_by_arrived(id, gone);
        self.linger(slot);
        self.end_reading(slot, id);
        self.confirmations.reconsider(slot);
        true
    }

    /// Ends every subscription of `slot`, and its wait for confirmation: to be called before the slot is used again.
    pub fn unsubscribe_all(&mut self, slot: u32) {
        self.confirmations.forget(slot);
        self.readings.forget(slot);
        while let Some(entry) = self.slots.pop(slot) {
            self.leave(entry);
        }
    }

    fn leave(&mut self, Entry { topic: id, position }: Entry) -> Subscriber {
        let list = &mut self.topics[id];
        let gone = list.remove(position, |slot, position| self.slots.moved(slot, id, position));
        list.interest.leave(gone.form);
        self.changes.mark(id, &mut list.interest);
        gone
    }

    /// The topics and patterns `slot` subscribes to, in no particular order.
    pub fn topics_of(&self, slot: u32) -> impl Iterator<Item = TopicId> {
        self.slots.of(slot).iter().map(|entry| entry.topic)
    }

    /// What a number stands for.
    ///
    /// # Panics
    /// If the number was released; see [`TopicId`].
    #[must_use]
    pub fn subject(&self, id: TopicId) -> Subject {
        self.topics[id].subject()
    }

    /// The name of a topic; `None` if it is a pattern's number.
    ///
    /// # Panics
    /// If the number was released; see [`TopicId`].
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics[id].topic()
    }

    /// How many subscriptions there are.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.slots.subscriptions()
    }

    /// How many topics are known, those included whose empty interest has not been told yet.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// How many patterns are known, those included whose empty interest has not been told yet.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.topics.patterns.len()
    }

    /// Whether a pattern is among them.
    #[must_use]
    pub fn knows_pattern(&self, pattern: &Pattern) -> bool {
        self.topics.patterns.get(pattern).is_some()
    }

    /// What the subscriptions take, in bytes: the slots' table, each subscriber's place in its list, each topic and pattern.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.table_bytes() + self.subscriptions() * size_of::<Subscriber>() + self.topics.bytes()
    }

    /// The next topic or pattern the interest in which has changed, in its forms or its number of subscribers, since it was last told.
    ///
    /// To be called until it returns `None`, once a turn: many changes of one in one turn are told as one.
    pub fn poll_interest(&mut self) -> Option<Interest> {
        self.release_idle();
        let id = self.changes.next()?;
        let list = &mut self.topics[id];
        list.begin_telling();
        let version = self.changes.tell(&mut list.interest);
        if list.is_idle() {
            self.idle.push(id);
        }
        let (forms, subscribers) = (list.interest.forms(), list.interest.subscribers());
        Some(Interest { subject: list.subject(), id, forms, subscribers, version })
    }

    /// The interest just polled could not be told: it is dirty still, and comes again after the next `None`, so that a loop over
    /// [`Hub::poll_interest`] ends.
    pub fn interest_told_again(&mut self, id: TopicId) {
        self.changes.defer(id, &mut self.topics[id].interest);
    }

    /// Whether some interest waits to be told.
    #[must_use]
    pub fn has_dirty_interest(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The home worker knows what was told of `topic` up to `version`.
    pub fn acknowledge_interest(&mut self, topic: &Topic, version: u32) {
        if let Some(id) = self.topics.find(topic.as_str()) {
            self.acknowledged(id, version);
        }
    }

    /// The home worker `home` knows what was told of `pattern` up to `version`. Only what all of them know is in force.
    pub fn acknowledge_pattern(&mut self, home: usize, pattern: &Pattern, version: u32) {
        let Some(id) = self.topics.patterns.get(pattern) else { return };
        if let Some(version) = self.topics[id].shared_mut().and_then(|shared| shared.acknowledge(home, version)) {
            self.acknowledged(id, version);
        }
    }

    fn acknowledged(&mut self, id: TopicId, version: u32) {
        let list = &mut self.topics[id];
        let forms = list.interest.acknowledge(version);
        if forms.is_empty() || self.confirmations.is_empty() {
            return;
        }
        for subscriber in list.subscribers().iter().filter(|subscriber| forms.contains(subscriber.form)) {
            self.confirmations.reconsider(subscriber.slot);
        }
    }

    /// Who subscribes to a topic.
    #[must_use]
    pub fn subscribers(&self, topic: &str) -> &[Subscriber] {
        self.topics.find(topic).map_or(&[], |id| self.topics[id].subscribers())
    }

    /// Whether all home workers concerned know of an interest in the slot's form, in each of its topics and patterns.
    #[must_use]
    pub fn in_force(&self, slot: u32) -> bool {
        is_in_force(&self.slots, &self.topics, slot)
    }

    /// `slot` wants to know when all its subscriptions are in force: [`Hub::poll_confirmed`] will name it, once.
    pub fn await_confirmation(&mut self, slot: u32) {
        self.confirmations.add(slot);
    }

    /// Whether some slot may have its confirmation.
    #[must_use]
    pub fn may_confirm(&self) -> bool {
        self.confirmations.has_candidates()
    }

    /// The next slot that waits for confirmation and has it.
    pub fn poll_confirmed(&mut self) -> Option<u32> {
        self.confirmations.next(|slot| is_in_force(&self.slots, &self.topics, slot))
    }

    /// Whether a fan-out is open.
    #[must_use]
    pub fn has_open_fanouts(&self) -> bool {
        self.fanouts.len() > 0
    }

    /// Whether exactly one fan-out is open: of a publication, or of some that have joined.
    #[must_use]
    pub fn has_one_fanout(&self) -> bool {
        self.fanouts.has_one()
    }

    /// How many publications are on their way, joined or not. The hub takes as many as it is given: their bound is what the caller
    /// lets in.
    #[must_use]
    pub fn open_fanouts(&self) -> usize {
        self.fanouts.len()
    }
}

/// Beside the hub, so that a wait can be looked at while the table of waits is borrowed.
fn is_in_force(slots: &Slots, topics: &Topics, slot: u32) -> bool {
    slots.of(slot).iter().all(|entry| {
        let list = &topics[entry.topic];
        let subscriber = list.subscribers()[entry.position as usize];
        let is_passed_by = list.topic().is_none() && subscriber.held.is_some();
        list.interest.in_force(subscriber.form) && !is_passed_by
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// What a subscriber of a single topic costs in the hub, in bytes, spare room included.
    const SUBSCRIBER_BYTES_MAX: usize = 40;

    #[test]
    fn a_subscriber_of_one_topic_takes_at_most_40_bytes_and_gives_them_back() {
        let mut hub = Hub::<()>::new(1);
        let id = hub.subscribe(0, &topic("chat"), Form::WsRaw);
        for slot in 1..100_000 {
            hub.subscribe(slot, &topic("chat"), Form::WsRaw);
            if slot >= 100 {
                let bytes = hub.slots.table_bytes() + hub.topics[id].bytes();
                assert!(bytes <= SUBSCRIBER_BYTES_MAX * (slot as usize + 1), "{bytes} bytes for {slot} slots");
            }
        }
        for slot in (10..100_000).rev() {
            hub.unsubscribe_all(slot);
        }
        assert!(hub.slots.table_bytes() + hub.topics[id].bytes() <= 4 * 10 * SUBSCRIBER_BYTES_MAX);
    }

    #[test]
    fn topics_take_turns() {
        let mut hub = Hub::new(1);
        for slot in 0..4 {
            hub.subscribe(slot, &topic("long"), Form::WsRaw);
        }
        hub.subscribe(9, &topic("short"), Form::WsRaw);
        for (name, publication) in [("long", 'a'), ("long", 'b'), ("short", 'x')] {
            hub.publish(&topic(name), publication).unwrap();
        }
        let (mut order, mut subscribers) = (String::new(), Vec::new());
        while let Some(mut slice) = hub.next_slice(2, &mut subscribers) {
            order.push(*slice.publication.get_mut());
        }
        assert_eq!(order, "axabb");
    }

    #[test]
    fn a_topic_is_released_once_its_empty_interest_was_told() {
        let mut hub = Hub::new(1);
        let id = hub.subscribe(0, &topic("chat"), Form::WsRaw);
        hub.publish(&topic("chat"), 'a').unwrap();
        hub.unsubscribe_all(0);
        assert_eq!(hub.publish(&topic("chat"), 'b'), Err('b'));
        assert!(hub.poll_interest().unwrap().forms.is_empty());
        hub.interest_told_again(id);
        assert_eq!((hub.poll_interest(), hub.topics()), (None, 1));
        assert!(hub.poll_interest().unwrap().forms.is_empty());
        assert_eq!((hub.poll_interest(), hub.topics()), (None, 1), "a fan-out is open");
        let mut subscribers = Vec::new();
        let slice = hub.next_slice(1, &mut subscribers).unwrap();
        assert_eq!((slice.publication.finished(), subscribers.len()), (Some('a'), 0));
        assert_eq!((hub.poll_interest(), hub.topics(), hub.publish(&topic("chat"), 'c')), (None, 0, Err('c')));
    }

    #[test]
    fn an_answer_to_an_earlier_life_of_a_topic_confirms_nothing() {
        let mut hub = Hub::<()>::new(1);
        hub.subscribe(0, &topic("chat"), Form::WsRaw);
        let early = hub.poll_interest().unwrap().version;
        hub.unsubscribe_all(0);
        while hub.poll_interest().is_some() {}
        hub.subscribe(0, &topic("chat"), Form::WsRaw);
        hub.await_confirmation(0);
        let late = hub.poll_interest().unwrap().version;
        hub.acknowledge_interest(&topic("chat"), early);
        assert_eq!(hub.poll_confirmed(), None);
        hub.acknowledge_interest(&topic("chat"), late);
        assert_eq!((hub.poll_confirmed(), hub.poll_confirmed()), (Some(0), None));
    }
}
