//! What the events of HTTP do: a head is routed, a complete body starts the request's work, an answer ends it.

use crate::engine::Submission;
use crate::frame::{Payload, PayloadError};
use crate::http1::{self, Answering, BodyPlan, Event, Head, HttpError, Response};
use crate::hub::presence::ClientKey;
use crate::io::{Driver, Store};
use crate::limits::Tick;
use crate::metrics::{Cause, Handler, ProcessFacts, StoreMetrics, WorkerMetrics, render};
use crate::routes::{self, Action, AdminAction, Cors, Drain, Routed, refusals};

use super::Core;
use super::connection::{Do, Http, Pending};
use super::input::{Took, protocol_step};
use super::shared::Phase;

/// What one step of the reader came to, with nothing borrowed from the input any more.
enum Came {
    Nothing,
    Head(Box<Pending>, Result<bool, HttpError>),
    Body(Box<Pending>, Content),
    Broken(HttpError),
}

/// What a complete body is.
enum Content {
    /// Nothing that is asked for.
    None,
    /// A publication.
    One(Result<Payload, PayloadError>),
    /// Several.
    Batch(Result<Vec<Result<Submission, Response>>, Response>),
    /// A client's key.
    Key(Result<ClientKey, Response>),
}

impl<D: Driver> Core<D> {
    /// One step of an HTTP connection.
    pub(super) fn step_http(&mut self, store: &mut Store, slot: u32, input: &mut [u8]) -> Took {
        let step = protocol_step(|| {
            #[cfg(test)]
            super::tests::fail_on_request(input);
            self.read_http(slot, input)
        });
        match step {
            Err(cause) => {
                self.refuse(store, slot, refusals::internal(), cause);
                Took::All
            }
            Ok((0, Came::Nothing)) => Took::All,
            Ok((consumed, Came::Nothing)) => Took::Event(consumed),
            Ok((_, Came::Broken(error))) => {
                self.refuse(store, slot, error.into_response(), error.cause());
                Took::All
            }
            Ok((consumed, Came::Head(pending, ready))) => {
                self.head(store, slot, *pending, ready);
                Took::Event(consumed)
            }
            Ok((consumed, Came::Body(pending, content))) => {
                self.act(store, slot, *pending, content);
                Took::Event(consumed)
            }
        }
    }

    /// Runs the reader and the router on the input; changes nothing but this connection.
    fn read_http(&mut self, slot: u32, input: &mut [u8]) -> (usize, Came) {
        let drain = match self.shared.phase() {
            Phase::Running => Drain::No,
            Phase::Leaving => Drain::Announced,
            Phase::Draining | Phase::Stopped => Drain::Refusing,
        };
        let head_due = self.tick.after(self.options.head_timeout);
        let body_due = self.tick.after(self.options.body_timeout);
        let Some(http) = self.connections[slot as usize].http() else { return (0, Came::Nothing) };
        if !input.is_empty() && std::mem::take(&mut http.between_requests) {
            http.due = head_due;
        }
        let step = match http.parser.handle_input(input, &self.options.http, &mut self.pool) {
            Ok(step) => step,
            Err(error) => return (0, Came::Broken(error)),
        };
        let consumed = step.consumed;
        match step.event {
            None => (consumed, Came::Nothing),
            Some(Event::Head(bytes)) => {
                let mut space = http1::header_space();
                let head = match Head::parse(bytes, &mut space) {
                    Ok(head) => head,
                    Err(error) => return (consumed, Came::Broken(error)),
                };
                let facts = Facts { admin: http.admin, peer: http.peer_is_loopback, listener: http.listener_is_loopback, drain };
                http.requests = http.requests.wrapping_add(1);
                let pending = understand(&head, http.requests, facts, &self.options.routes);
                let plan = match pending.action {
                    Do::Public(Action::Publish { .. } | Action::PublishBatch | Action::Bye { key: None }) => BodyPlan::Collect,
                    _ => BodyPlan::Discard,
                };
                http.due = body_due;
                let (expects, framing) = (head.expects_continue, head.framing());
                let ready = http.parser.begin_body(framing, plan, &self.options.http).map(|()| expects);
                (consumed, Came::Head(Box::new(pending), ready))
            }
            Some(Event::Body(body)) => {
                let Some(pending) = http.pending.take() else { return (consumed, Came::Nothing) };
                let content = match &pending.action {
                    Do::Public(Action::Publish { kind, .. }) => Content::One(Payload::new(*kind, body)),
                    Do::Public(Action::PublishBatch) => {
                        Content::Batch(routes::read_batch(body, self.options.routes.limits.max_batch_publications))
                    }
                    Do::Public(Action::Bye { key: None }) => Content::Key(routes::read_bye(body)),
                    _ => Content::None,
                };
                (consumed, Came::Body(Box::new(pending), content))
            }
        }
    }

    /// A head was read: a refusal does not wait for the body, everything else does.
    fn head(&mut self, store: &mut Store, slot: u32, pending: Pending, ready: Result<bool, HttpError>) {
        match ready {
            Err(error) => self.answer(store, slot, error.into_response(), &pending),
            Ok(expects_continue) => {
                let refused = matches!(&pending.action, Do::Public(Action::Respond(response)) if response.status >= 400);
                if refused && expects_continue {
                    return self.answer_now(store, slot, pending);
                }
                if expects_continue {
                    let Self { connections, entries, pool, .. } = self;
                    let outbox = &mut connections[slot as usize].outbox;
                    outbox.append_owned(entries, store, pool, |out| out.extend_from_slice(http1::CONTINUE));
                    self.mark_dirty(slot);
                }
                if let Some(http) = self.connections[slot as usize].http() {
                    http.pending = Some(pending);
                }
            }
        }
    }

    /// The client asked before sending its body, and may not: it is told at once, and the connection ends, because the body may
    /// be on its way all the same (RFC 9110 section 10.1.1).
    fn answer_now(&mut self, store: &mut Store, slot: u32, mut pending: Pending) {
        if let Do::Public(Action::Respond(response)) = std::mem::replace(&mut pending.action, Do::Asked) {
            self.answer(store, slot, response.close(), &pending);
        }
    }

    /// The request is complete.
    fn act(&mut self, store: &mut Store, slot: u32, mut pending: Pending, content: Content) {
        let upgrades = matches!(pending.action, Do::Public(Action::Subscribe(_) | Action::Echo(_)));
        if upgrades && !self.connections[slot as usize].outbox.is_empty() {
            return self.park(slot, pending);
        }
        match std::mem::replace(&mut pending.action, Do::Asked) {
            Do::Public(Action::Respond(response)) => self.answer(store, slot, response, &pending),
            Do::Public(Action::Publish { topic, terms, .. }) => match content {
                Content::One(Ok(payload)) => self.publish_posted(store, slot, pending, Submission { topic, payload, terms }),
                Content::One(Err(error)) => self.answer(store, slot, refusals::payload_error(&error), &pending),
                Content::Batch(_) | Content::Key(_) | Content::None => self.answer(store, slot, refusals::internal(), &pending),
            },
            Do::Public(Action::PublishBatch) => match content {
                Content::Batch(Ok(read)) => self.publish_batch(store, slot, pending, read),
                Content::Batch(Err(refusal)) => self.answer(store, slot, refusal, &pending),
                Content::One(_) | Content::Key(_) | Content::None => self.answer(store, slot, refusals::internal(), &pending),
            },
            Do::Public(Action::Subscribe(subscribe)) => self.subscribe(store, slot, pending, *subscribe),
            Do::Public(Action::Echo(accepted)) => self.upgrade_to_echo(store, slot, &pending, &accepted),
            Do::Public(Action::Information { topic, base_url }) => self.ask_information(store, slot, pending, topic, base_url),
            Do::Public(Action::Presence { topic }) => self.ask_presence(store, slot, pending, &topic),
            Do::Public(Action::Bye { key }) => {
                let key = match (key, content) {
                    (Some(key), _) => Ok(key),
                    (None, Content::Key(key)) => key,
                    (None, _) => Err(refusals::internal()),
                };
                let response = key.map_or_else(|refusal| refusal, |key| self.say_goodbye(&key));
                self.answer(store, slot, response, &pending);
            }
            Do::Public(Action::Delete { topic }) => {
                if self.shared.phase() >= Phase::Draining {
                    return self.answer(store, slot, refusals::draining(), &pending);
                }
                self.ask_to_delete(store, slot, pending, topic);
            }
            Do::Admin(action) => {
                let response = self.admin(action);
                self.answer(store, slot, response, &pending);
            }
            Do::Publish(_) | Do::Batch(_) | Do::Inform(_) | Do::Presence | Do::Delete | Do::Asked | Do::Poll => {}
        }
    }

    /// Puts an upgrade off until the answers before it are written, so that its 101 can go ahead of everything behind it.
    fn park(&mut self, slot: u32, pending: Pending) {
        self.connections[slot as usize].flags.set_parked(true);
        let due = self.tick.after(self.options.write_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// Earlier answers are written: the upgrade begins.
    pub(super) fn unpark(&mut self, store: &mut Store, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.flags.set_parked(false);
        connection.flags.set_waiting(false);
        let token = connection.token;
        let Some(pending) = connection.http().and_then(Http::take_pending) else { return };
        self.act(store, slot, pending, Content::None);
        self.resume_later(token);
    }

    fn admin(&self, action: AdminAction) -> Response {
        match action {
            AdminAction::Respond(response) => response,
            AdminAction::Live => routes::live(self.shared.stuck_worker(self.now)),
            AdminAction::Ready => routes::ready(self.shared.phase() == Phase::Running),
            AdminAction::Metrics => {
                let is_draining = self.shared.phase() != Phase::Running;
                let facts = ProcessFacts::read(self.options.io_name, is_draining, crate::log::dropped_lines());
                let workers: Vec<&WorkerMetrics> = self.shared.all_metrics().collect();
                let store = self.shared.known_store_metrics().map(StoreMetrics::render);
                routes::metrics(render(&workers, &facts) + store.as_deref().unwrap_or_default())
            }
        }
    }

    /// The request waits for its home worker, and nothing more is parsed until the answer is in the outbox.
    pub(super) fn wait_for_answer(&mut self, slot: u32, pending: Pending, due: Tick) {
        let connection = &mut self.connections[slot as usize];
        connection.flags.set_waiting(true);
        if let Some(http) = connection.http() {
            http.pending = Some(pending);
            http.due = due;
        }
        self.arm(slot);
    }

    /// Answers the request under way, and makes the connection ready for the next, or ends it.
    pub(super) fn answer(&mut self, store: &mut Store, slot: u32, mut response: Response, pending: &Pending) {
        if pending.wants_events && pending.answering.http11 && response.status == 503 {
            let retry = &self.options.routes.retry;
            let cause = if self.shared.phase() >= Phase::Draining { Cause::Drain } else { Cause::Overloaded };
            response = routes::come_back(cause, self.random.u32(retry.min_ms..=retry.max_ms));
        }
        self.metrics().answered(pending.handler, response.status);
        let draining = self.shared.phase() >= Phase::Draining;
        let idle_due = self.tick.after(self.options.idle_timeout);
        let date = self.date.at(self.wall_seconds);
        let connection = &mut self.connections[slot as usize];
        let keep_alive = pending.answering.keep_alive && !response.close && !draining && !connection.flags.read_closed();
        let answering = Answering { keep_alive, ..pending.answering };
        let response = pending.cors.apply(response);
        connection.outbox.append_owned(&mut self.entries, store, &mut self.pool, |out| response.write(date, answering, out));
        connection.flags.set_waiting(false);
        connection.flags.set_parked(false);
        if keep_alive {
            if let Some(http) = self.connections[slot as usize].http() {
                http.parser.next_request(&mut self.pool);
                http.between_requests = true;
                http.due = idle_due;
            }
            // What timed out to be answered here has no deadline any more.
            self.arm(slot);
        } else {
            let cause = if response.status >= 400 { Cause::Policy } else { Cause::ClientClose };
            self.last_word(slot, if draining { Cause::Drain } else { cause });
        }
        self.mark_dirty(slot);
    }

    /// Answers something that was not understood, and ends the connection.
    pub(super) fn refuse(&mut self, store: &mut Store, slot: u32, response: Response, cause: Cause) {
        let Some(http) = self.connections[slot as usize].http() else { return };
        let pending = http.pending.take().unwrap_or_else(|| Pending {
            action: Do::Asked,
            number: 0,
            answering: Answering { head_only: false, keep_alive: false, http11: true },
            cors: Cors::default(),
            handler: Handler::Other,
            wants_events: false,
            kept_for: None,
            client: None,
        });
        self.connections[slot as usize].cause.get_or_insert(cause);
        self.answer(store, slot, response.close(), &pending);
    }
}

/// What the router needs to know beside the head.
struct Facts {
    admin: bool,
    peer: bool,
    listener: bool,
    drain: Drain,
}

/// From a head to what it asks for.
fn understand(head: &Head<'_>, number: u16, facts: Facts, options: &routes::Options) -> Pending {
    let answering = Answering { head_only: head.method == http1::Method::Head, keep_alive: head.keep_alive, http11: head.http11 };
    if facts.admin {
        return Pending {
            action: Do::Admin(routes::route_admin(head)),
            number,
            answering,
            cors: Cors::default(),
            handler: Handler::Admin,
            wants_events: false,
            kept_for: None,
            client: None,
        };
    }
    let request =
        routes::Request { head, peer_is_loopback: facts.peer, listener_is_loopback: facts.listener, drain: facts.drain };
    let Routed { action, cors, handler, wants_events, client } = routes::route(&request, options);
    Pending { action: Do::Public(action), number, answering, cors, handler, wants_events, kept_for: None, client }
}

impl Http {
    /// The request under way, taken out.
    pub(super) fn take_pending(&mut self) -> Option<Pending> {
        self.pending.take()
    }

    /// The request under way is a poll that is in force.
    pub(super) fn is_polling(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| matches!(pending.action, Do::Poll))
    }

    /// The request of this number, taken out, if it still waits for an answer.
    pub(super) fn take_asked(&mut self, number: u16) -> Option<Pending> {
        let waits = |action: &Do| matches!(action, Do::Asked | Do::Inform(_) | Do::Presence | Do::Delete);
        self.pending.take_if(|pending| pending.number == number && waits(&pending.action))
    }
}
