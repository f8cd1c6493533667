//! From a request to a WebSocket, and what its events do.

use crate::auth::Grant;
use crate::engine::AppendError;
use crate::frame::{Kind, OpCode, Payload, PayloadError, Position, Topic};
use crate::io::{Driver, Store, Token};
use crate::limits::Tick;
use crate::metrics::{Cause, Source};
use crate::routes::{Action, Attach, Subprotocol, Subscribe, refusals};
use crate::ws::{self, CloseCode, Event, MessageKind};

use super::Core;
use super::asking::Waiter;
use super::connection::{Connection, Do, Pending, Protocol, WebSocket};
use super::input::{Took, protocol_step};
use super::letters::Asker;
use super::presence::{CLIENT_KEY, MEMBER};
use super::session::{Understood, understand};
use super::shared::Phase;

/// Publications and subscriptions of one socket that may wait for their answers; then reading pauses, so none is dropped.
pub(super) const UNCONFIRMED_MAX: u8 = 16;

/// What a socket's messages are.
#[derive(Clone, Copy)]
enum Speaks {
    Payloads { text_kind: Kind, may_publish: bool },
    Echo,
    Requests(Grant),
}

/// What a step came to, with nothing borrowed from the input any more.
enum Came {
    /// More input is needed.
    AllTaken,
    /// Who sends does not read what it is answered.
    ManyReplies,
    Publish(Result<Payload, PayloadError>),
    NotAllowed,
    Request(Understood),
    Closed(Cause, Option<CloseCode>),
    Broken(ws::ProtocolError),
}

impl<D: Driver> Core<D> {
    /// Registers the subscriptions of a request. The 101 leaves when every home worker concerned knows the interest.
    pub(super) fn subscribe(&mut self, store: &mut Store, slot: u32, mut pending: Pending, subscribe: Subscribe) {
        if self.shared.phase() >= Phase::Draining {
            return self.answer(store, slot, refusals::draining(), &pending);
        }
        if let Attach::Session { accepted, grant } = &subscribe.attach {
            return self.begin_session(store, slot, &pending, &subscribe, (accepted, *grant));
        }
        if let Err(refusal) = self.begin_subscriptions(slot, &subscribe) {
            self.unsubscribe_all(slot);
            return self.answer(store, slot, refusal.close(), &pending);
        }
        self.hub.await_confirmation(slot);
        self.connections[slot as usize].flags.set_corked(true);
        pending.action = Do::Public(Action::Subscribe(Box::new(subscribe)));
        let due = self.tick.after(self.options.publish_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// The subscriptions are in force: the head of the answer goes ahead of what has arrived since, and the socket speaks WebSocket, or
    /// is an event stream. Who wants to read history first comes here again when it is known what can be read.
    pub(super) fn confirmed(&mut self, store: &mut Store, slot: u32) {
        if self.is_session(slot) {
            return self.joined(store, slot);
        }
        if self.looks_first(slot) {
            return;
        }
        let connection = &mut self.connections[slot as usize];
        let token = connection.token;
        let Some(pending) = connection.http().and_then(|http| http.take_pending()) else { return };
        let Do::Public(Action::Subscribe(subscribe)) = &pending.action else { return };
        self.arrive(slot, pending.client.as_deref(), subscribe.form);
        subscribe.topics.iter().for_each(|topic| self.enter(slot, topic, true));
        let (accepted, text_kind, may_publish) = match &subscribe.attach {
            Attach::WebSocket { accepted, text_kind, may_publish } => (accepted, text_kind, may_publish),
            Attach::Stream(kind) => {
                self.begin_stream(store, slot, &pending, *kind, subscribe);
                return self.begin_reading(store, slot);
            }
            Attach::Poll { wait } => {
                let wait = Tick::count(*wait);
                return self.begin_poll(slot, pending, wait);
            }
            // It has its 101, and asks for topics by itself.
            Attach::Session { .. } => return,
        };
        let socket = ws::Connection::new(self.tick, token.slot);
        let websocket = WebSocket { socket, text_kind: *text_kind, may_publish: *may_publish };
        let mut head = self.pool.take();
        self.write_upgrade(slot, accepted, &mut head);
        let connection = &mut self.connections[slot as usize];
        connection.outbox.push_first(&mut self.entries, store, head);
        connection.flags.set_corked(false);
        connection.flags.set_waiting(false);
        self.metrics().answered(pending.handler, 101);
        self.swap(slot, Protocol::Topics(websocket));
        self.resume_later(token);
        self.begin_reading(store, slot);
    }

    /// The socket echoes from now on.
    pub(super) fn upgrade_to_echo(
        &mut self,
        store: &mut Store,
        slot: u32,
        pending: &Pending,
        accepted: &ws::Accepted<Subprotocol>,
    ) {
        let token = self.connections[slot as usize].token;
        let websocket =
            WebSocket { socket: ws::Connection::new(self.tick, token.slot), text_kind: Kind::Text, may_publish: false };
        let mut head = self.pool.take();
        self.write_upgrade(slot, accepted, &mut head);
        self.connections[slot as usize].outbox.push_first(&mut self.entries, store, head);
        self.metrics().answered(pending.handler, 101);
        self.swap(slot, Protocol::Echo(websocket));
        self.mark_dirty(slot);
    }

    /// One step of a WebSocket.
    pub(super) fn step_websocket(&mut self, store: &mut Store, slot: u32, input: &mut [u8]) -> Took {
        let step = protocol_step(|| {
            #[cfg(test)]
            super::tests::fail_on_request(input);
            self.read_websocket(store, slot, input)
        });
        let (consumed, came) = match step {
            Ok(step) => step,
            Err(cause) => {
                self.fail(store, slot, cause, None);
                return Took::All;
            }
        };
        match came {
            Came::AllTaken => return Took::All,
            Came::ManyReplies => {}
            Came::Publish(Ok(payload)) => self.publish_message(store, slot, payload),
            Came::Publish(Err(error)) => self.fail(store, slot, Cause::Policy, Some(&error.to_string())),
            Came::NotAllowed => self.fail(store, slot, Cause::Forbidden, None),
            Came::Request(request) => self.carry_out(store, slot, request),
            Came::Closed(cause, code) => self.peer_closed(store, slot, cause, code),
            Came::Broken(error) => self.fail(store, slot, error.cause(), Some(error.section())),
        }
        Took::Event(consumed)
    }

    /// Runs the protocol on the input. Echoes and pongs, which need the bytes and nothing but the connection, are queued at once, and it goes
    /// on behind them; what else is to be done ends the step, and is named.
    fn read_websocket(&mut self, store: &mut Store, slot: u32, input: &mut [u8]) -> (usize, Came) {
        let is_draining = self.shared.phase() >= Phase::Draining;
        let Self { connections, entries, pool, options, tick, .. } = self;
        let Connection { protocol, outbox, .. } = &mut connections[slot as usize];
        let (socket, speaks) = match protocol {
            Protocol::Topics(WebSocket { socket, text_kind, may_publish }) => {
                (socket, Speaks::Payloads { text_kind: *text_kind, may_publish: *may_publish })
            }
            Protocol::Echo(websocket) => (&mut websocket.socket, Speaks::Echo),
            Protocol::Session(session) => (&mut session.socket, Speaks::Requests(session.grant)),
            Protocol::Vacant | Protocol::Http(_) | Protocol::Stream(_) | Protocol::Lingering(_) => return (0, Came::AllTaken),
        };
        let (mut consumed, mut has_replied) = (0, false);
        let came = loop {
            let step = match socket.handle_input(&mut input[consumed..], &options.ws, pool, *tick) {
                Ok(step) => step,
                Err(error) => break Came::Broken(error),
            };
            consumed += step.consumed;
            match step.event {
                None if step.consumed == 0 => break Came::AllTaken,
                None | Some(Event::Pong(_)) => {}
                Some(Event::Ping(payload)) => {
                    let (frame, length) = ws::control_frame(OpCode::Pong, payload);
                    outbox.push_control(entries, store, OpCode::Pong, &frame[..length]);
                    has_replied = true;
                }
                Some(Event::Message { kind, payload }) => match (speaks, kind) {
                    (Speaks::Echo, _) => {
                        let mut echoed = Ok(());
                        outbox.append_owned(entries, store, pool, |out| echoed = ws::write_message(kind, payload, out));
                        has_replied = true;
                        match echoed {
                            Err(error) => break Came::Broken(error),
                            Ok(()) if outbox.bytes() > options.outbox_bytes_max / 2 => break Came::ManyReplies,
                            Ok(()) => {}
                        }
                    }
                    (Speaks::Requests(grant), _) => break Came::Request(understand(kind, payload, grant, is_draining)),
                    (Speaks::Payloads { may_publish: false, .. }, _) => break Came::NotAllowed,
                    (_, MessageKind::Binary) => break Came::Publish(Payload::new_unchecked(Kind::Binary, payload)),
                    (Speaks::Payloads { text_kind: Kind::Text, .. }, MessageKind::Text) => {
                        break Came::Publish(Payload::new_unchecked(Kind::Text, payload));
                    }
                    (Speaks::Payloads { text_kind, .. }, MessageKind::Text) => {
                        break Came::Publish(Payload::new(text_kind, payload));
                    }
                },
                Some(Event::Close(close)) => {
                    let code = close.map(|close| close.code);
                    let has_left = code == Some(CloseCode::GOING_AWAY);
                    break Came::Closed(if has_left { Cause::LeftPage } else { Cause::ClientClose }, code);
                }
            }
        };
        if has_replied {
            self.mark_dirty(slot);
        }
        (consumed, came)
    }

    /// Publishes a message on the socket's topic, or makes the socket wait for a credit: it is never dropped.
    pub(super) fn publish_message(&mut self, store: &mut Store, slot: u32, payload: Payload) {
        if self.shared.phase() >= Phase::Draining {
            return self.close_for_drain(store, slot);
        }
        let mut topics = self.hub.topics_of(slot);
        let (Some(id), None) = (topics.next(), topics.next()) else {
            drop(topics);
            return self.fail(store, slot, Cause::Policy, Some("a socket with several topics cannot publish"));
        };
        drop(topics);
        let Some(topic) = self.hub.topic(id).cloned() else {
            return self.fail(store, slot, Cause::Policy, Some("a socket with a pattern cannot publish"));
        };
        if self.is_line_full(self.home_of(topic.as_str())) {
            return self.fail(store, slot, Cause::Overloaded, None);
        }
        let asker = self.asker(slot, 0, Source::WebSocket);
        self.send_message(slot, asker, topic, payload);
    }

    /// Sends a publication to its home worker, or keeps it until there is a credit; then nothing more is read, so the order holds.
    pub(super) fn send_message(&mut self, slot: u32, asker: Asker, topic: Topic, payload: Payload) {
        let sent = self.request_publish(asker, topic, payload);
        let flags = &mut self.connections[slot as usize].flags;
        flags.set_unsent(sent.is_err());
        if let Err((topic, payload)) = sent {
            self.wait_for_credit(Waiter::Message(asker, topic, payload));
        }
        self.count_unconfirmed(slot);
    }

    /// A home worker has numbered a message of this socket, or refused it.
    pub(super) fn message_confirmed(
        &mut self,
        store: &mut Store,
        asker: Asker,
        topic: &Topic,
        result: Result<Position, AppendError>,
    ) {
        if self.connection(asker.token).is_none() {
            return;
        }
        let slot = asker.token.slot;
        if self.is_session(slot) {
            self.answer_publication(store, asker, topic, result);
        } else if let Err(why) = result {
            return self.fail(store, slot, Cause::Limit, Some(&why.to_string()));
        }
        self.confirm_one(slot);
    }

    /// A kept message found its credit.
    pub(super) fn message_sent(&mut self, token: Token) {
        if let Some(connection) = self.connection(token) {
            connection.flags.set_unsent(false);
            self.publish_on(token);
        }
    }

    /// Ends the waiting of a socket that may publish again.
    pub(super) fn publish_on(&mut self, token: Token) {
        let Some(connection) = self.connection(token) else { return };
        if connection.flags.waiting() && !connection.flags.unsent() && connection.unconfirmed < UNCONFIRMED_MAX {
            connection.flags.set_waiting(false);
            self.resume_later(token);
        }
    }

    /// Swaps the protocol in place and starts its deadline.
    pub(super) fn swap(&mut self, slot: u32, protocol: Protocol) {
        let from = self.connections[slot as usize].transport();
        let connection = &mut self.connections[slot as usize];
        connection.protocol = protocol;
        let to = connection.transport();
        if from != to {
            self.metrics().connections.of(from).sub(1);
            self.metrics().connections.of(to).add(1);
        }
        self.deadlines.clear(slot as usize);
        self.arm(slot);
        self.mark_dirty(slot);
    }

    /// The connection's name in the log and in `Fantail-Connection`.
    pub(super) fn connection_name(&self, slot: u32) -> String {
        let id = self.connections[slot as usize].id;
        [itoa::Buffer::new().format(self.index), "-", itoa::Buffer::new().format(id)].concat()
    }

    pub(super) fn write_upgrade(&mut self, slot: u32, accepted: &ws::Accepted<Subprotocol>, out: &mut Vec<u8>) {
        let id = self.connection_name(slot);
        let identity = self.take_identity(slot).map(|(key, member)| (key, member.to_string()));
        let identity = identity.iter().flat_map(|(key, member)| [(CLIENT_KEY, key.as_str()), (MEMBER, member.as_str())]);
        let lines = [("Fantail-Connection", id.as_str()), ("Keep-Alive", &self.options.keep_alive)];
        let recovered = self.recovered(slot).map(|recovered| ("Fantail-Recovered", if recovered { "true" } else { "false" }));
        accepted.write_response(lines.into_iter().chain(recovered).chain(identity), out);
    }
}
