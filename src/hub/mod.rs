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
//! 1. A connection subscribes; the topic's interest is dirty until [`Hub::poll_interest`] has given it to be told.
//! 2. Its home worker acknowledges; [`Hub::poll_confirmed`] names the connections that waited for it.
//! 3. A publication arrives with [`Hub::publish`] and goes out through [`Hub::next_slice`], topics taking turns.
//! 4. The last subscriber leaves; the empty interest is told, and the topic is released.
//!
//! The hub neither encodes nor sends. It never waits, and no call takes time that grows with a topic's list, but for the two that
//! go through it once: an acknowledgement that brings a form into force, and a list that gives half of its memory back.

mod fanout;
pub mod home;
mod interest;
#[cfg(test)]
mod model;
mod subscriptions;
mod topics;

pub use fanout::{Carried, Slice};
pub use home::Interests;
pub use interest::Interest;
pub use topics::{Subscriber, TopicId};

use crate::frame::{Form, Topic};
use fanout::Fanouts;
use interest::{Changes, Confirmations};
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
/// let mut hub = Hub::new();
/// hub.subscribe(7, &Topic::new("chat").unwrap(), Form::WsRaw);
/// hub.publish("chat", "hello").unwrap();
/// while let Some(mut slice) = hub.next_slice(256) {
///     for subscriber in slice.subscribers {
///         println!("to {}: {}", subscriber.slot, slice.publication.get_mut());
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Hub<P> {
    slots: Slots,
    topics: Topics,
    fanouts: Fanouts<P>,
    changes: Changes,
    confirmations: Confirmations,
    /// Topics that were idle when last looked at. They stay until the next [`Hub::poll_interest`], because until then their
    /// empty interest may turn out untold.
    idle: Vec<TopicId>,
}

impl<P> Default for Hub<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Hub<P> {
    /// A hub without subscriptions.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slots: Slots::default(),
            topics: Topics::default(),
            fanouts: Fanouts::default(),
            changes: Changes::default(),
            confirmations: Confirmations::default(),
            idle: Vec::new(),
        }
    }

    /// Subscribes `slot` to `topic`. A subscription that is there already stays as it is, also in its form.
    pub fn subscribe(&mut self, slot: u32, topic: &Topic, form: Form) -> TopicId {
        let id = self.topics.find_or_add(topic);
        if self.slots.of(slot).iter().any(|entry| entry.topic == id) {
            return id;
        }
        let list = &mut self.topics[id];
        let position = list.push(Subscriber { slot, form });
        list.interest.join(form);
        self.changes.mark(id, &mut list.interest);
        self.slots.add(slot, Entry { topic: id, position });
        id
    }

    /// Ends the subscription of `slot` to a topic; false if there is none. It gets nothing more of a fan-out under way.
    pub fn unsubscribe(&mut self, slot: u32, id: TopicId) -> bool {
        let Some(entry) = self.slots.remove(slot, id) else { return false };
        self.leave(entry);
        self.confirmations.reconsider(slot);
        true
    }

    /// Ends every subscription of `slot`, and its wait for confirmation: to be called before the slot is used again.
    pub fn unsubscribe_all(&mut self, slot: u32) {
        self.confirmations.forget(slot);
        while let Some(entry) = self.slots.pop(slot) {
            self.leave(entry);
        }
    }

    fn leave(&mut self, Entry { topic: id, position }: Entry) {
        let list = &mut self.topics[id];
        let gone = list.remove(position, |slot, position| self.slots.moved(slot, id, position));
        list.interest.leave(gone.form);
        self.changes.mark(id, &mut list.interest);
    }

    /// The topics `slot` subscribes to, in no particular order.
    pub fn topics_of(&self, slot: u32) -> impl Iterator<Item = TopicId> {
        self.slots.of(slot).iter().map(|entry| entry.topic)
    }

    /// The name of a topic.
    ///
    /// # Panics
    /// If the topic was released, which does not happen while anybody subscribes to it.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> &Topic {
        &self.topics[id].topic
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

    /// What the subscriptions take, in bytes: the slots' table, each subscriber's place in its topic's list, each topic.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.table_bytes() + self.subscriptions() * size_of::<Subscriber>() + self.topics.len() * Topics::TOPIC_BYTES
    }

    /// The next topic whose interest has changed, in its forms or its number of subscribers, since it was last told.
    ///
    /// To be called until it returns `None`, once a turn: many changes of a topic in one turn are told as one.
    pub fn poll_interest(&mut self) -> Option<Interest> {
        for id in self.idle.drain(..) {
            self.topics.release_idle(id);
        }
        let id = self.changes.next()?;
        let list = &mut self.topics[id];
        let version = self.changes.tell(&mut list.interest);
        if list.is_idle() {
            self.idle.push(id);
        }
        let (forms, subscribers) = (list.interest.forms(), list.interest.subscribers());
        Some(Interest { topic: list.topic.clone(), id, forms, subscribers, version })
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
        let Some(id) = self.topics.find(topic.as_str()) else { return };
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

    /// Whether the home worker of each of the slot's topics knows of an interest in the slot's form.
    #[must_use]
    pub fn in_force(&self, slot: u32) -> bool {
        is_in_force(&self.slots, &self.topics, slot)
    }

    /// `slot` wants to know when all its subscriptions are in force: [`Hub::poll_confirmed`] will name it, once.
    pub fn await_confirmation(&mut self, slot: u32) {
        self.confirmations.add(slot);
    }

    /// The next slot that waits for confirmation and has it.
    pub fn poll_confirmed(&mut self) -> Option<u32> {
        self.confirmations.next(|slot| is_in_force(&self.slots, &self.topics, slot))
    }

    /// Opens a fan-out to the subscribers of `topic`. It covers those who are there when its turn among the topic's fan-outs
    /// comes: at once, if none is open.
    ///
    /// # Errors
    /// Gives the publication back if nobody here subscribes to the topic any more.
    pub fn publish(&mut self, topic: &str, publication: P) -> Result<(), P> {
        self.publish_or_join(topic, publication, |_, publication| Some(publication))
    }

    /// The same, but where the topic's last open fan-out will reach whom this one would, `join` may let that take the publication in,
    /// so that both go out as one; or it gives it back.
    ///
    /// # Errors
    /// Gives the publication back if nobody here subscribes to the topic any more.
    pub fn publish_or_join(&mut self, topic: &str, publication: P, join: impl FnOnce(&mut P, P) -> Option<P>) -> Result<(), P> {
        let Some(id) = self.topics.find(topic) else { return Err(publication) };
        let list = &mut self.topics[id];
        if list.subscribers().is_empty() {
            return Err(publication);
        }
        let left = if list.queue.is_empty() {
            list.begin();
            self.fanouts.queue_turn(id);
            Some(publication)
        } else if list.queue.is_single() && !list.awaits_first_slice() {
            Some(publication)
        } else {
            self.fanouts.join_last(list.queue, publication, join)
        };
        if let Some(publication) = left {
            self.fanouts.push(&mut list.queue, publication);
        }
        Ok(())
    }

    /// The next slice of some open fan-out: at most `max` subscribers, at least one being asked for. Topics take turns slice by
    /// slice, so a topic with a very long list does not delay another.
    pub fn next_slice(&mut self, max: usize) -> Option<Slice<'_, P>> {
        let id = self.fanouts.next_turn()?;
        let list = &mut self.topics[id];
        let (range, finished) = list.cut(max.max(1));
        if !finished {
            self.fanouts.queue_turn(id);
            let publication = Carried::Open(self.fanouts.first(list.queue));
            return Some(Slice { topic: id, subscribers: &list.subscribers()[range], publication });
        }
        let publication = Carried::Finished(self.fanouts.pop(&mut list.queue));
        if !list.queue.is_empty() {
            list.begin();
            self.fanouts.queue_turn(id);
        } else if list.is_idle() {
            self.idle.push(id);
        }
        Some(Slice { topic: id, subscribers: &list.subscribers()[range], publication })
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
        list.interest.in_force(list.subscribers()[entry.position as usize].form)
    })
}

#[cfg(any(test, debug_assertions))]
impl<P> Hub<P> {
    /// Checks everything that must hold between two calls. It walks all tables: for tests and hunting.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check_invariants(&self) {
        self.check_subscriptions();
        let marked: Vec<TopicId> = self.changes.marked().collect();
        let turns: Vec<TopicId> = self.fanouts.turns().collect();
        let mut open = 0;
        for (id, list) in self.topics.iter() {
            list.check_cuts();
            assert_eq!(list.interest.subscribers(), list.subscribers().len() as u64);
            assert_eq!(self.topics.find(list.topic.as_str()), Some(id));
            assert_eq!(marked.iter().filter(|marked| **marked == id).count(), usize::from(list.interest.is_dirty()));
            assert_eq!(turns.iter().filter(|turn| **turn == id).count(), usize::from(!list.queue.is_empty()));
            assert!(!list.is_idle() || self.idle.contains(&id), "{} is never released", list.topic);
            open += self.fanouts.chain_length(list.queue);
        }
        assert_eq!(open, self.fanouts.len());
    }

    fn check_subscriptions(&self) {
        let mut subscriptions = 0;
        for slot in 0..self.slots.span() {
            for (index, entry) in self.slots.of(slot).iter().enumerate() {
                assert_eq!(self.topics[entry.topic].subscribers()[entry.position as usize].slot, slot);
                assert!(self.slots.of(slot)[..index].iter().all(|earlier| earlier.topic != entry.topic));
                subscriptions += 1;
            }
        }
        assert_eq!(subscriptions, self.subscriptions());
        let listed: usize = self.topics.iter().map(|(_, list)| list.subscribers().len()).sum();
        assert_eq!(subscriptions, listed);
    }
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
        let mut hub = Hub::<()>::new();
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
        let mut hub = Hub::new();
        for slot in 0..4 {
            hub.subscribe(slot, &topic("long"), Form::WsRaw);
        }
        hub.subscribe(9, &topic("short"), Form::WsRaw);
        for (name, publication) in [("long", 'a'), ("long", 'b'), ("short", 'x')] {
            hub.publish(name, publication).unwrap();
        }
        let mut order = String::new();
        while let Some(mut slice) = hub.next_slice(2) {
            order.push(*slice.publication.get_mut());
        }
        assert_eq!(order, "axabb");
    }

    #[test]
    fn a_topic_is_released_once_its_empty_interest_was_told() {
        let mut hub = Hub::new();
        let id = hub.subscribe(0, &topic("chat"), Form::WsRaw);
        hub.publish("chat", 'a').unwrap();
        hub.unsubscribe_all(0);
        assert_eq!(hub.publish("chat", 'b'), Err('b'));
        assert!(hub.poll_interest().unwrap().forms.is_empty());
        hub.interest_told_again(id);
        assert_eq!((hub.poll_interest(), hub.topics()), (None, 1));
        assert!(hub.poll_interest().unwrap().forms.is_empty());
        assert_eq!((hub.poll_interest(), hub.topics()), (None, 1), "a fan-out is open");
        let slice = hub.next_slice(1).unwrap();
        assert_eq!((slice.subscribers.len(), slice.publication.finished()), (0, Some('a')));
        assert_eq!((hub.poll_interest(), hub.topics(), hub.publish("chat", 'c')), (None, 0, Err('c')));
    }

    #[test]
    fn an_answer_to_an_earlier_life_of_a_topic_confirms_nothing() {
        let mut hub = Hub::<()>::new();
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
