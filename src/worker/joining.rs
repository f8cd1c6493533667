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

use crate::engine::AppendError;
use crate::frame::{Form, Position, Since, Topic};
use crate::hub::TopicId;
use crate::io::{Driver, Store};
use crate::routes::{OnGap, refusals};
use crate::v1::{Id, Okay};

use super::Core;
use super::connection::Protocol;
use super::replay::{Asked, Purpose, Reading, Replay, Stage};

impl<D: Driver> Core<D> {
    /// Subscribes a socket to a topic.
    pub(super) fn join(&mut self, store: &mut Store, slot: u32, topic: Topic, since: Since, asked: Asked) {
        if self.topic_of(slot, &topic).is_some() {
            return self.say(store, slot, &Okay::new(asked.id()).topic(topic.as_str()).already());
        }
        let subscriptions_max = self.options.routes.subscriptions_max;
        if self.hub.topics_of(slot).count() >= subscriptions_max {
            return self.say_error(store, slot, asked.id(), Some(&topic), &refusals::too_many_subscriptions(subscriptions_max));
        }
        let Some(held) = self.hub.subscribe_held(slot, &topic, Form::WsEnvelope) else { return };
        self.hub.await_confirmation(slot);
        if let Asked::ByMessage(_) = asked {
            self.count_unconfirmed(slot);
        }
        let reading = Reading::new(topic, held, since.fixed(self.now), Stage::Force, asked);
        if !self.replays.contains_key(&slot) {
            let replay = Replay::new(self.new_reader(slot), Form::WsEnvelope, OnGap::Continue, Purpose::Session);
            self.replays.insert(slot, replay);
            self.connections[slot as usize].flags.set_reading(true);
        }
        if let Some(replay) = self.replays.get_mut(&slot) {
            replay.topics.push(reading);
        }
    }

    /// All its subscriptions are in force: the new ones are looked at.
    pub(super) fn joined(&mut self, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        for reading in replay.topics.iter_mut().filter(|reading| reading.stage == Stage::Force) {
            reading.stage = Stage::Look;
        }
        self.read_next(slot);
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
        let Some(reading) = self.take_reading(slot, waits) else { return };
        self.hub.unsubscribe(slot, reading.id);
        self.say_error(store, slot, reading.asked.id(), Some(topic), &refusals::append_error(error));
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
        if let Some(reading) = self.take_reading(slot, |reading| reading.id == of)
            && reading.stage != Stage::Page
        {
            self.say_error(store, slot, reading.asked.id(), Some(topic), &refusals::cancelled());
            self.is_answered(slot, &reading.asked);
        }
        if id.is_some() {
            self.say(store, slot, &Okay::new(id).topic(topic.as_str()));
        }
    }

    /// The number of a topic that the socket subscribes to; `--max-subscriptions` keeps them few.
    fn topic_of(&self, slot: u32, topic: &Topic) -> Option<TopicId> {
        self.hub.topics_of(slot).find(|id| self.hub.topic(*id) == Some(topic))
    }

    /// Takes out what is not read to its end. A page that is under way may be one of it, so the others ask anew.
    fn take_reading(&mut self, slot: u32, which: impl Fn(&Reading) -> bool) -> Option<Reading> {
        let replay = self.replays.get(&slot)?;
        let at = replay.topics.iter().position(which)?;
        let reader = self.new_reader(slot);
        let replay = self.replays.get_mut(&slot)?;
        (replay.reader, replay.is_waiting) = (reader, false);
        let reading = replay.topics.remove(at);
        self.read_next(slot);
        Some(reading)
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
