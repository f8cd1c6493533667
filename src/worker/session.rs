//! `fantail.v1` sockets: from the upgrade to `open`, what requests do, and what they are answered.
//!
//! A request never ends the socket: whatever is wrong with it stands in an `error` object. What bounds a client that asks and asks is that it
//! is not read: while [`UNCONFIRMED_MAX`] of its requests wait for a home worker, and while half of its
//! outbox waits for it to read.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::Grant;
use crate::engine::AppendError;
use crate::frame::{Form, FrameHeader, OpCode, Payload, Position, Since, Topic};
use crate::http1::Response;
use crate::io::{Driver, Store};
use crate::limits::GiveBack;
use crate::metrics::Source;
use crate::routes::{self, Command, Subprotocol, Subscribe, refusals};
use crate::v1::{self, Id, Okay, Request, RequestError};
use crate::ws::{self, MessageKind};

use super::Core;
use super::connection::{Pending, Protocol, Session};
use super::letters::Asker;
use super::replay::Asked;
use super::websocket::UNCONFIRMED_MAX;

/// A request, owned: its id, and what it means.
pub(super) type Understood = (Option<Id>, Result<Command, Response>);

/// Reads a message and decides what it means.
pub(super) fn understand(kind: MessageKind, message: &[u8], grant: Grant, is_draining: bool) -> Understood {
    let request = match kind {
        MessageKind::Text => Request::parse(message),
        MessageKind::Binary => Err(RequestError::binary()),
    };
    match request {
        Ok(Request { id, what }) => (id, routes::command(what, grant, is_draining)),
        Err(error) => {
            let refusal = error.problem().into_response();
            (error.id, Err(refusal))
        }
    }
}

impl<D: Driver> Core<D> {
    /// The socket speaks `fantail.v1` from now on. Its 101 waits for nothing, because each topic has an answer of its own.
    pub(super) fn begin_session(
        &mut self,
        store: &mut Store,
        slot: u32,
        pending: &Pending,
        subscribe: &Subscribe,
        (accepted, grant): (&ws::Accepted<Subprotocol>, Grant),
    ) {
        let mut head = self.pool.take();
        self.write_upgrade(slot, accepted, &mut head);
        self.arrive(slot, pending.client.as_deref(), Form::WsEnvelope);
        self.connections[slot as usize].outbox.push_first(&mut self.entries, store, head);
        self.metrics().answered(pending.handler, 101);
        let ping_due = self.tick.after(self.options.ws.ping_interval);
        let socket = ws::Connection::new(self.tick, slot);
        self.swap(slot, Protocol::Session(Session { socket, grant, ping_due }));
        let client = self.connection_name(slot);
        let options = std::sync::Arc::clone(&self.options);
        let identity = self.take_identity(slot);
        let identity = identity.as_ref().map(|(key, member)| (key, *member));
        self.say(store, slot, &routes::open(&client, identity, &options.routes, UNCONFIRMED_MAX));
        for (at, topic) in subscribe.topics.iter().enumerate() {
            let since = subscribe.since.as_ref().map_or(Since::Latest, |since| since[at]);
            self.join(store, slot, topic.clone(), since, Asked::ByUrl);
        }
    }

    /// Does what a request asks for.
    pub(super) fn carry_out(&mut self, store: &mut Store, slot: u32, (id, command): Understood) {
        match command {
            Err(refusal) => self.say_error(store, slot, id.as_ref(), None, &refusal),
            Ok(Command::Ping) => self.say(store, slot, &Okay::new(id.as_ref())),
            Ok(Command::Subscribe { topic, since }) => self.join(store, slot, topic, since, Asked::ByMessage(id)),
            Ok(Command::Unsubscribe { topic }) => self.leave_topic(store, slot, &topic, id.as_ref()),
            Ok(Command::Presence { topic, watch }) => self.request_presence(store, slot, &topic, watch, id),
            Ok(Command::Publish { topic, payload }) => self.publish_for(store, slot, topic, payload, id),
        }
    }

    fn publish_for(&mut self, store: &mut Store, slot: u32, topic: Topic, payload: Payload, id: Option<Id>) {
        if self.is_line_full(self.home_of(topic.as_str())) {
            return self.say_error(store, slot, id.as_ref(), Some(&topic), &refusals::publish_timeout());
        }
        let number = id.map_or(0, |id| self.await_answer(slot, id));
        let asker = self.asker(slot, number, Source::WebSocket);
        self.send_message(slot, asker, topic, payload);
    }

    /// Keeps the id of a publication until its answer comes under the number that is returned.
    fn await_answer(&mut self, slot: u32, id: Id) -> u16 {
        let waiting = self.publish_ids.entry(slot).or_default();
        // Fewer wait than there are numbers, so one is free.
        let number = (1..).find(|number| waiting.iter().all(|(other, _)| other != number)).unwrap_or_default();
        waiting.push((number, id));
        number
    }

    /// A publication of the socket has its number, or was refused.
    pub(super) fn answer_publication(
        &mut self,
        store: &mut Store,
        asker: Asker,
        topic: &Topic,
        result: Result<Position, AppendError>,
    ) {
        let slot = asker.token.slot;
        let id = self.take_publish_id(slot, asker.number);
        match (result, &id) {
            (Ok(position), Some(id)) => self.say(store, slot, &Okay::new(Some(id)).topic(topic.as_str()).cursor(position)),
            (Ok(_), None) => {}
            (Err(error), id) => self.say_error(store, slot, id.as_ref(), Some(topic), &refusals::append_error(error)),
        }
    }

    fn take_publish_id(&mut self, slot: u32, number: u16) -> Option<Id> {
        let waiting = self.publish_ids.get_mut(&slot)?;
        let at = waiting.iter().position(|(of, _)| *of == number)?;
        let (_, id) = waiting.swap_remove(at);
        if waiting.is_empty() {
            self.forget_publish_ids(slot);
        }
        Some(id)
    }

    /// Nothing is answered any more.
    pub(super) fn forget_publish_ids(&mut self, slot: u32) {
        if self.publish_ids.remove(&slot).is_some() {
            self.publish_ids.give_back();
        }
    }

    /// A request waits for a home worker. With too many of them the socket is read no further, so none is dropped.
    pub(super) fn count_unconfirmed(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.unconfirmed += 1;
        connection.flags.set_waiting(connection.flags.unsent() || connection.unconfirmed >= UNCONFIRMED_MAX);
    }

    /// One of them has its answer.
    pub(super) fn confirm_one(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.unconfirmed = connection.unconfirmed.saturating_sub(1);
        let token = connection.token;
        self.publish_on(token);
    }

    /// A visible ping is due: a page does not see those of the WebSocket. Where something waits to be written, that is sign enough.
    pub(super) fn ping_session(&mut self, store: &mut Store, slot: u32) {
        let due = self.tick.after(self.options.ws.ping_interval);
        let Self { connections, entries, ping, .. } = self;
        let connection = &mut connections[slot as usize];
        let Protocol::Session(session) = &mut connection.protocol else { return };
        session.ping_due = due;
        if connection.outbox.is_empty() && !connection.flags.close_queued() {
            // One block for all of them.
            let block = *ping.get_or_insert_with(|| store.own(framed(v1::PING)));
            store.retain(block, 1);
            connection.outbox.push_shared(entries, block, store.bytes(block).len());
            self.mark_dirty(slot);
        }
    }

    /// Tells why a request is not done: the problem that HTTP would be told.
    pub(super) fn say_error(&mut self, store: &mut Store, slot: u32, id: Option<&Id>, topic: Option<&Topic>, refusal: &Response) {
        let problem = serde_json::from_slice::<&RawValue>(refusal.body.as_bytes());
        let error = v1::Error::new(id, problem.expect("the body of a refusal is a problem"));
        self.say(store, slot, &topic.map_or(error, |topic| error.topic(topic.as_str())));
    }

    /// Sends an object, unless the close has been sent.
    pub(super) fn say(&mut self, store: &mut Store, slot: u32, object: &impl Serialize) {
        let Self { connections, entries, pool, .. } = self;
        let connection = &mut connections[slot as usize];
        if connection.flags.close_queued() {
            return;
        }
        let mut text = pool.take();
        serde_json::to_writer(&mut text, object).expect("texts and numbers always make JSON");
        connection.outbox.append_owned(entries, store, pool, |out| {
            out.extend_from_slice(FrameHeader::new(OpCode::Text, text.len()).as_bytes());
            out.extend_from_slice(&text);
        });
        pool.give(text);
        self.mark_dirty(slot);
    }
}

/// A text message of these bytes.
fn framed(text: &[u8]) -> Vec<u8> {
    [FrameHeader::new(OpCode::Text, text.len()).as_bytes(), text].concat()
}
