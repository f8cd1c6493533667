//! Topics of a `fantail.v1` socket, which come and go while everything else goes on.
//!
//! ```text
//! subscribe ─> listed, held ─> in force ─> look ─> ok ─> page, page, ... ─> released: what is published comes by itself
//!                  │ no room                          │ nothing was missed: released at once
//!                  └─> error
//! ```
//!
//! The subscription is held from its first moment, so nothing that is published overtakes its `ok`, and the look behind it finds where the
//! topic stands: that is the cursor of the `ok`, also for who asked for nothing old. What the URL names takes the same way, unasked.
//!
//! A pattern takes the same way, too, but has no cursor: who asks for nothing old has its `ok` when it is in force, and behind those of its
//! topics that were asked for before. What one subscription brings already no other one reads, because it would come twice, and the older
//! behind the newer.

use crate::engine::AppendError;
use crate::frame::{Form, GapReason, Pattern, Position, Since, Topic};
use crate::hub::{Subject, TopicId};
use crate::io::{Driver, Store};
use crate::routes::{OnGap, refusals};
use crate::v1::{Id, Okay};

use super::Core;
use super::connection::Protocol;
use super::replay::{Asked, Purpose, Reading, Replay, Stage};
use super::scanning::Scanning;

impl<D: Driver> Core<D> {
    /// Subscribes a socket to a topic.
    pub(super) fn join(&mut self, store: &mut Store, slot: u32, topic: Topic, since: Since, asked: Asked) {
        if self.topic_of(slot, &topic).is_some() {
            return self.say(store, slot, &Okay::new(asked.id()).topic(topic.as_str()).already());
        }
        let subscriptions_max = self.options.routes.subscriptions_max;
        if self.hub.topics_of(slot).count() >= subscriptions_max {
            return self.say_error(
                store,
                slot,
                asked.id(),
                Some(topic.as_str()),
                &refusals::too_many_subscriptions(subscriptions_max),
            );
        }
        let held = match self.covering(slot, &Pattern::from(&topic)) {
            Some(pattern) if since != Since::Latest => {
                return self.say_error(store, slot, asked.id(), Some(topic.as_str()), &refusals::covered(&pattern));
            }
            // What the pattern brings must not pass the socket by until it is known where the topic stands.
            Some(_) => (self.hub.subscribe(slot, &topic, Form::WsEnvelope), None),
            None => {
                let Some((id, hold)) = self.hub.subscribe_held(slot, &topic, Form::WsEnvelope) else { return };
                (id, Some(hold))
            }
        };
        let reading = Reading::new(topic, held, since.fixed(self.now), Stage::Force, self.await_force(slot, asked));
        self.session_replay(slot).topics.push(reading);
    }

    /// Subscribes a socket to a pattern.
    pub(super) fn join_pattern(&mut self, store: &mut Store, slot: u32, pattern: Pattern, since: Since, asked: Asked) {
        if self.id_of(slot, &pattern).is_some() {
            return self.say(store, slot, &Okay::new(asked.id()).topic(pattern.as_str()).already());
        }
        let subscriptions_max = self.options.routes.subscriptions_max;
        let refusal = if self.hub.topics_of(slot).count() >= subscriptions_max {
            Some(refusals::too_many_subscriptions(subscriptions_max))
        } else {
            self.covering(slot, &pattern).filter(|_| since != Since::Latest).map(|wider| refusals::covered(&wider))
        };
        let except = self.names_that_meet(slot, &pattern);
        let begun = match refusal {
            Some(refusal) => Err(refusal),
            None => self.subscribe_reading(slot, &pattern, Form::WsEnvelope, &except),
        };
        match begun {
            Err(refusal) => self.say_error(store, slot, asked.id(), Some(pattern.as_str()), &refusal),
            Ok(None) => {}
            Ok(Some(id)) => {
                let (since, asked) = (since.fixed(self.now), self.await_force(slot, asked));
                let scanning = Scanning::new(pattern, id, since, except, Stage::Force, asked);
                self.session_replay(slot).patterns.push(scanning);
            }
        }
    }

    /// A pattern of the socket that brings all that this name would, if there is one.
    fn covering(&self, slot: u32, name: &Pattern) -> Option<Pattern> {
        self.names_of(slot).find(|other| other != name && other.covers(name))
    }

    /// The request is answered when its subscription is in force.
    fn await_force(&mut self, slot: u32, asked: Asked) -> Asked {
        self.hub.await_confirmation(slot);
        if let Asked::ByMessage(_) = asked {
            self.count_unconfirmed(slot);
        }
        asked
    }

    /// What the socket reads, begun if need be.
    fn session_replay(&mut self, slot: u32) -> &mut Replay {
        let reader = self.new_reader(slot);
        self.connections[slot as usize].flags.set_reading(true);
        let begin = || Replay::new(reader, Form::WsEnvelope, OnGap::Continue, Purpose::Session);
        self.replays.entry(slot).or_insert_with(begin)
    }

    /// All its subscriptions are in force: the new ones are looked at.
    pub(super) fn joined(&mut self, store: &mut Store, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        for reading in replay.topics.iter_mut().filter(|reading| reading.stage == Stage::Force) {
            reading.stage = Stage::Look;
        }
        for scanning in replay.patterns.iter_mut().filter(|scanning| scanning.stage == Stage::Force) {
            scanning.stage = if scanning.since == Since::Latest { Stage::Page } else { Stage::Look };
        }
        self.confirm_patterns_of_now(store, slot);
        self.read_next(slot);
    }

    /// Patterns are in force of which nothing old was asked for, and their topics have been looked at that are read by name: so nothing that
    /// comes behind their answers is lost without a word.
    pub(super) fn confirm_patterns_of_now(&mut self, store: &mut Store, slot: u32) {
        while let Some(at) = self.replays.get(&slot).and_then(Replay::pattern_of_now) {
            self.confirm_pattern(store, slot, at);
            let Some(replay) = self.replays.get_mut(&slot) else { return };
            let scanning = replay.patterns.remove(at);
            self.hub.end_reading(slot, scanning.id);
        }
    }

    /// A pattern is in force, and all homes have been asked what they have to tell of it: the socket is told, before anything of its topics.
    pub(super) fn confirm_pattern(&mut self, store: &mut Store, slot: u32, at: usize) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let scanning = &mut replay.patterns[at];
        let (pattern, asked) = (scanning.pattern.clone(), std::mem::replace(&mut scanning.asked, Asked::ByUrl));
        self.say(store, slot, &Okay::new(asked.id()).topic(pattern.as_str()));
        self.is_answered(slot, &asked);
    }

    /// It is known where a topic stands: the socket is told, before anything of the topic.
    pub(super) fn confirm_joining(&mut self, store: &mut Store, slot: u32, at: usize, start: Position, is_whole: bool) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let reading = &mut replay.topics[at];
        let recovered = matches!(reading.since, Since::After(_)).then_some(is_whole);
        let (topic, asked) = (reading.topic.clone(), std::mem::replace(&mut reading.asked, Asked::ByUrl));
        self.count_recovery(recovered);
        self.say(store, slot, &Okay::new(asked.id()).topic(topic.as_str()).cursor(start).recovered(recovered));
        self.enter(slot, &topic, matches!(asked, Asked::ByUrl));
        self.is_answered(slot, &asked);
    }

    /// The topic has no room: sockets that wait for it are told so.
    pub(super) fn refuse_joining(&mut self, store: &mut Store, slot: u32, topic: &Topic, error: AppendError) {
        let waits = |reading: &Reading| reading.stage == Stage::Force && reading.topic == *topic;
        let Some(reading) = self.take_reading(store, slot, waits) else { return };
        self.hub.unsubscribe(slot, reading.id);
        self.say_error(store, slot, reading.asked.id(), Some(topic.as_str()), &refusals::append_error(error));
        self.is_answered(slot, &reading.asked);
    }

    /// Ends a subscription. What of it waits in the outbox goes out ahead of the answer; nothing comes behind.
    pub(super) fn leave_topic(&mut self, store: &mut Store, slot: u32, topic: &Topic, id: Option<&Id>) {
        let Some(of) = self.topic_of(slot, topic) else {
            return self.say(store, slot, &Okay::new(id).topic(topic.as_str()).already());
        };
        self.hub.unsubscribe(slot, of);
        self.depart_from(slot, topic);
        let Self { connections, entries, .. } = self;
        connections[slot as usize].outbox.forget_topic(entries, of);
        if let Some(reading) = self.take_reading(store, slot, |reading| reading.id == of) {
            if reading.stage != Stage::Page {
                self.say_error(store, slot, reading.asked.id(), Some(topic.as_str()), &refusals::cancelled());
                self.is_answered(slot, &reading.asked);
            }
            // What was not read passes the socket by, also where a pattern would bring it.
            if reading.hold.is_some() && self.covering(slot, &Pattern::from(topic)).is_some() {
                self.queue_unknown_gap(store, slot, topic.as_str(), Form::WsEnvelope, GapReason::Pattern);
            }
        }
        if id.is_some() {
            self.say(store, slot, &Okay::new(id).topic(topic.as_str()));
        }
    }

    /// Ends the subscription to a pattern in the same way.
    pub(super) fn leave_pattern(&mut self, store: &mut Store, slot: u32, pattern: &Pattern, id: Option<&Id>) {
        let Some(of) = self.id_of(slot, pattern) else {
            return self.say(store, slot, &Okay::new(id).topic(pattern.as_str()).already());
        };
        self.hub.unsubscribe(slot, of);
        if let Some(scanning) = self.take_scanning(slot, of) {
            if scanning.stage != Stage::Page {
                self.say_error(store, slot, scanning.asked.id(), Some(pattern.as_str()), &refusals::cancelled());
                self.is_answered(slot, &scanning.asked);
            }
            if self.names_that_meet(slot, pattern).iter().any(|name| !scanning.except.contains(name)) {
                self.queue_unknown_gap(store, slot, pattern.as_str(), Form::WsEnvelope, GapReason::Pattern);
            }
        }
        if id.is_some() {
            self.say(store, slot, &Okay::new(id).topic(pattern.as_str()));
        }
    }

    /// The number of a pattern that the socket subscribes to.
    fn id_of(&self, slot: u32, pattern: &Pattern) -> Option<TopicId> {
        self.hub.topics_of(slot).find(|id| matches!(self.hub.subject(*id), Subject::Pattern(own) if own == *pattern))
    }

    /// The number of a topic that the socket subscribes to; `--max-subscriptions` keeps them few.
    fn topic_of(&self, slot: u32, topic: &Topic) -> Option<TopicId> {
        self.hub.topics_of(slot).find(|id| self.hub.topic(*id) == Some(topic))
    }

    /// Takes out what is not read to its end. A page that is under way may be one of it, so the others ask anew.
    fn take_reading(&mut self, store: &mut Store, slot: u32, which: impl Fn(&Reading) -> bool) -> Option<Reading> {
        let at = self.replays.get(&slot)?.topics.iter().position(which)?;
        let reading = self.ask_anew(slot)?.topics.remove(at);
        self.confirm_patterns_of_now(store, slot);
        self.read_next(slot);
        Some(reading)
    }

    /// The same for a pattern.
    fn take_scanning(&mut self, slot: u32, id: TopicId) -> Option<Scanning> {
        let at = self.replays.get(&slot)?.patterns.iter().position(|scanning| scanning.id == id)?;
        let scanning = self.ask_anew(slot)?.patterns.remove(at);
        self.read_next(slot);
        Some(scanning)
    }

    fn ask_anew(&mut self, slot: u32) -> Option<&mut Replay> {
        let reader = self.new_reader(slot);
        let replay = self.replays.get_mut(&slot)?;
        (replay.reader, replay.is_waiting) = (reader, false);
        Some(replay)
    }

    /// A request has its answer, so another one may be taken in.
    fn is_answered(&mut self, slot: u32, asked: &Asked) {
        if let Asked::ByMessage(_) = asked {
            self.confirm_one(slot);
        }
    }

    /// Whether a socket asks for topics by message.
    pub(super) fn is_session(&self, slot: u32) -> bool {
        matches!(self.connections[slot as usize].protocol, Protocol::Session(_))
    }
}
