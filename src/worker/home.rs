//! Requests to home workers and their answers, and the home worker's own duties: number, keep, hand out.
//!
//! A worker is its own home for its share of the topics; a request to itself takes the same path without a ring. A request needs a
//! credit; who gets none waits in line for the next one. The home worker takes a request only while every interested worker has
//! room for what follows from it, so accepting never outruns handing out.

use std::sync::Arc;

use crate::engine::{Append, AppendError, Engine, EngineEvent, Extent};
use crate::frame::{Forms, Payload, Position, Publication, Topic};
use crate::hub::Interest;
use crate::io::{Driver, Store, Token};
use crate::metrics::{Cause, Source};
use crate::routes::{self, refusals};

use super::Core;
use super::accept::Origin;
use super::connection::{Do, Pending};
use super::fanout::{FANOUTS_OPEN_MAX, Fanned};

/// What one worker asks of another.
#[derive(Debug)]
pub enum Request<S> {
    /// Number this and hand it out.
    Publish {
        /// Who gets the answer.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// The payload, checked and framed.
        payload: Payload,
    },
    /// These are the forms my subscribers of the topic need.
    Interest {
        /// The worker whose subscribers they are.
        worker: usize,
        /// The topic.
        topic: Topic,
        /// Their forms; none when the last has left.
        forms: Forms,
        /// How many they are.
        subscribers: u64,
        /// Which state this is, for the answer.
        version: u32,
    },
    /// Where does this topic stand?
    Information {
        /// Who gets the answer.
        asker: Asker,
        /// The topic.
        topic: Topic,
    },
    /// Take this connection.
    Adopt {
        /// The socket.
        socket: S,
        /// What is known of it.
        origin: Origin,
    },
}

/// Which request of which connection waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The worker.
    pub worker: usize,
    /// Its connection.
    pub token: Token,
    /// The number of the request; 0 for a message.
    pub number: u16,
    /// How the publication came in.
    pub source: Source,
}

/// What a worker gets from another.
#[derive(Debug)]
pub enum Delivery {
    /// A publication for its subscribers.
    Publication(Arc<Publication>),
    /// The answer to [`Request::Publish`].
    Published {
        /// Who asked.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// Where the publication stands, and how many subscribers the home worker knew; or why it was refused.
        result: Result<(Position, u64), AppendError>,
    },
    /// The answer to [`Request::Interest`]: it is in force.
    InterestKnown(Topic, u32),
    /// The other answer: the topic has no room.
    InterestRefused(Topic, AppendError),
    /// The answer to [`Request::Information`].
    Information {
        /// Who asked.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// Its life and what is kept of it, if it lives.
        extent: Option<Extent>,
        /// Its subscribers, on all workers.
        subscribers: u64,
    },
    /// The answer to [`Request::Adopt`].
    Adopted,
}

/// Who waits for a credit.
#[derive(Debug)]
pub enum Waiter {
    /// A POST to this home worker, whose publication waits in the connection until its time is up.
    Post(Asker, usize),
    /// A message, which is sent even if its sender has gone.
    Message(Asker, Topic, Payload),
}

/// One in so many credits is left to interest.
const INTEREST_SHARE: usize = 8;

/// Publications that may wait for a credit of one home worker. A message waits here even if its sender has gone, so without a bound
/// senders that come and go could pile them up.
const WAITING_MAX: usize = 16 * 1024;

impl<D: Driver> Core<D> {
    /// Sends a request to a worker, itself included.
    ///
    /// # Errors
    /// Gives the request back if there is no credit.
    pub(super) fn request(&mut self, home: usize, request: Request<D::Socket>) -> Result<(), Request<D::Socket>> {
        if home != self.index {
            self.mailbox.lane(home).try_request(request)?;
            self.to_wake[home] = true;
            return Ok(());
        }
        if !self.own_credits.take() {
            return Err(request);
        }
        self.own_requests.push_back(request);
        Ok(())
    }

    /// Asks the topic's home worker to publish.
    ///
    /// # Errors
    /// Gives topic and payload back if there is no credit.
    pub(super) fn request_publish(&mut self, asker: Asker, topic: Topic, payload: Payload) -> Result<(), (Topic, Payload)> {
        let home = self.home_of(topic.as_str());
        if !self.has_credit(home) {
            return Err((topic, payload));
        }
        self.request(home, Request::Publish { asker, topic, payload }).map_err(|request| match request {
            Request::Publish { topic, payload, .. } => (topic, payload),
            _ => unreachable!("a refused request comes back as it was"),
        })
    }

    /// Who asks: a request of the connection in `slot`, or with number 0 a message of it.
    pub(super) fn asker(&self, slot: u32, number: u16, source: Source) -> Asker {
        Asker { worker: self.index, token: self.connections[slot as usize].token, number, source }
    }

    /// Whether a publication or a question may be sent to this worker. Some credits are left to interest, which must get through
    /// however many publish: without it nobody's subscription comes into force.
    fn has_credit(&mut self, home: usize) -> bool {
        let outstanding = if home == self.index { self.own_credits.outstanding() } else { self.mailbox.lane(home).outstanding() };
        outstanding + self.options.mailbox_requests.div_ceil(INTEREST_SHARE) < self.options.mailbox_requests
    }

    /// Whether so many publications wait for a credit of this home worker that one more is not accepted.
    pub(super) fn is_line_full(&self, home: usize) -> bool {
        self.waiting[home].len() >= WAITING_MAX
    }

    /// Puts a publication in line for the next credit of its home worker.
    pub(super) fn wait_for_credit(&mut self, waiter: Waiter) {
        let home = match &waiter {
            Waiter::Post(_, home) => *home,
            Waiter::Message(_, topic, _) => self.home_of(topic.as_str()),
        };
        self.metrics().mailbox_full.add(1);
        self.waiting[home].push_back(waiter);
    }

    /// Asks the home worker where a topic stands.
    pub(super) fn ask_information(&mut self, store: &mut Store, slot: u32, mut pending: Pending, topic: Topic, origin: String) {
        let asker = self.asker(slot, pending.number, Source::Post);
        let home = self.home_of(topic.as_str());
        if !self.has_credit(home) || self.request(home, Request::Information { asker, topic }).is_err() {
            return self.answer(store, slot, refusals::busy(), &pending);
        }
        pending.action = Do::Inform(origin);
        let due = self.tick.after(self.options.publish_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// The mailbox's part of the turn: what was delivered, then requests, each as far as there is room.
    pub(super) fn take_mail(&mut self, driver: &mut D) {
        let itself = self.index;
        for other in (0..self.shared.workers()).filter(|other| *other != itself) {
            // No more than a ring holds, lest workers that fill it again keep this one from its other work.
            for _ in 0..self.options.mailbox_requests + self.options.mailbox_deliveries {
                let Some(delivery) = self.may_open_fanouts().then(|| self.mailbox.lane(other).take_delivery()).flatten() else {
                    break;
                };
                self.delivered(driver, other, delivery);
            }
            if self.mailbox.lane(other).take_room_request() {
                self.to_wake[other] = true;
            }
        }
        for other in 0..self.shared.workers() {
            self.take_requests(driver, other);
        }
    }

    /// Tells home workers what changed in this worker's interest since they were told last.
    pub(super) fn tell_interest(&mut self, store: &mut Store) {
        while let Some(Interest { topic, id, forms, subscribers, version }) = self.hub.poll_interest() {
            let home = self.home_of(topic.as_str());
            let request = Request::Interest { worker: self.index, topic, forms, subscribers, version };
            if home == self.index {
                // Its own interest needs no credit: it is a step of this same turn.
                if let Request::Interest { topic, .. } = &request {
                    match self.set_interest(self.index, topic, forms, subscribers, version) {
                        Ok(()) => self.hub.acknowledge_interest(topic, version),
                        Err(error) => self.interest_refused(store, topic, error),
                    }
                }
            } else if self.request(home, request).is_err() {
                self.hub.interest_told_again(id);
                self.interest_waits = true;
            }
        }
        while let Some(slot) = self.hub.poll_confirmed() {
            self.confirmed(store, slot);
        }
    }

    /// Whether nothing of this worker's is under way to a home worker, and nothing of others' waits here.
    pub(super) fn has_nothing_under_way(&mut self) -> bool {
        self.own_requests.is_empty()
            && self.waiting.iter().all(std::collections::VecDeque::is_empty)
            && self.own_credits.outstanding() == 0
            && self.mailbox.lanes().all(|(_, lane)| lane.outstanding() == 0 && lane.is_empty())
    }

    /// Whether one more publication may begin its way to this worker's subscribers.
    fn may_open_fanouts(&self) -> bool {
        self.hub.open_fanouts() < FANOUTS_OPEN_MAX
    }

    /// Whether another worker has handed something out that is still in its ring.
    pub(super) fn has_deliveries(&mut self) -> bool {
        self.mailbox.lanes().any(|(_, lane)| lane.has_delivery())
    }

    fn take_requests(&mut self, driver: &mut D, other: usize) {
        for _ in 0..self.options.mailbox_requests {
            let Some(request) = self.can_take(other).then(|| self.take_request(other)).flatten() else { return };
            match request {
                Request::Publish { asker, topic, payload } => self.append(driver, asker, topic, payload),
                Request::Interest { worker, topic, forms, subscribers, version } => {
                    let answer = match self.set_interest(worker, &topic, forms, subscribers, version) {
                        Ok(()) => Delivery::InterestKnown(topic, version),
                        Err(error) => Delivery::InterestRefused(topic, error),
                    };
                    self.reply(driver, other, answer);
                }
                Request::Information { asker, topic } => {
                    let extent = self.engine.extent(topic.as_str());
                    let subscribers = self.interests.subscribers(topic.as_str());
                    self.reply(driver, other, Delivery::Information { asker, topic, extent, subscribers });
                }
                Request::Adopt { socket, origin } => {
                    self.adopt(driver, socket, origin);
                    self.reply(driver, other, Delivery::Adopted);
                }
            }
        }
    }

    /// Whether a worker's next request can be served now. If it must wait for room in some mailbox, the room wakes this worker.
    pub(super) fn can_take(&mut self, other: usize) -> bool {
        let topic = match self.peek_request(other) {
            None => return false,
            Some(Request::Publish { topic, .. }) => topic.clone(),
            Some(_) => return true,
        };
        self.has_room_for(&topic)
    }

    fn peek_request(&mut self, other: usize) -> Option<&Request<D::Socket>> {
        if other == self.index { self.own_requests.front() } else { self.mailbox.lane(other).peek_request() }
    }

    fn take_request(&mut self, other: usize) -> Option<Request<D::Socket>> {
        if other == self.index { self.own_requests.pop_front() } else { self.mailbox.lane(other).take_request() }
    }

    /// Whether every worker interested in the topic has room for one more delivery; if not, its next turn wakes this one, which
    /// does not sleep while its own fan-outs are open.
    fn has_room_for(&mut self, topic: &Topic) -> bool {
        let here = self.may_open_fanouts();
        let Self { interests, mailbox, index, .. } = self;
        interests.interested(topic.as_str()).all(|(worker, _)| {
            if worker == *index {
                return here;
            }
            let lane = mailbox.lane(worker);
            lane.has_room(1) || lane.wait_for_room()
        })
    }

    /// Notes a worker's interest, and with it that the topic lives.
    fn set_interest(
        &mut self,
        worker: usize,
        topic: &Topic,
        forms: Forms,
        subscribers: u64,
        version: u32,
    ) -> Result<(), AppendError> {
        let anyone = self.interests.update(worker, topic, forms, subscribers, version);
        self.engine.set_interest(topic, anyone, self.tick)
    }

    /// A topic has no room: the connections that wait for it are told so.
    fn interest_refused(&mut self, store: &mut Store, topic: &Topic, error: AppendError) {
        let AppendError::TooManyTopics { topics_max } = error;
        let refused: Vec<u32> = self.hub.subscribers(topic.as_str()).iter().map(|subscriber| subscriber.slot).collect();
        for slot in refused {
            if self.connections[slot as usize].flags.corked {
                self.refuse_upgrade(store, slot, refusals::too_many_topics(topics_max as u64), Cause::Limit);
            }
        }
    }

    fn append(&mut self, driver: &mut D, asker: Asker, topic: Topic, payload: Payload) {
        let forms = self.interests.forms(topic.as_str());
        let (at_ms, numbered_ns) = (driver.wall_ms(), self.now);
        self.engine.append(Append { request: (asker, topic.clone()), topic, payload, at_ms, numbered_ns, forms });
        self.work_off_engine(driver);
    }

    /// Hands out what the engine has published, then answers what it has appended: an answer means that the publication is on its
    /// way to everybody who was subscribed.
    fn work_off_engine(&mut self, driver: &mut D) {
        let mut answers = std::mem::take(&mut self.answers);
        while let Some(event) = self.engine.poll() {
            match event {
                EngineEvent::Published { publication } => self.hand_out(&publication),
                EngineEvent::Appended { request: (asker, topic), result } => answers.push((asker, topic, result)),
            }
        }
        for (asker, topic, result) in answers.drain(..) {
            let subscribers = self.interests.subscribers(topic.as_str());
            let result = result.map(|position| (position, subscribers));
            self.reply(driver, asker.worker, Delivery::Published { asker, topic, result });
        }
        self.answers = answers;
    }

    fn hand_out(&mut self, publication: &Arc<Publication>) {
        let Self { interests, mailbox, to_wake, hub, index, .. } = self;
        for (worker, _) in interests.interested(publication.topic.as_str()) {
            if worker == *index {
                // Whoever has left since the interest was told needs nothing any more.
                let _ = hub.publish(publication.topic.as_str(), Fanned::new(Arc::clone(publication)));
            } else {
                let delivered = mailbox.lane(worker).try_deliver(Delivery::Publication(Arc::clone(publication)));
                assert!(delivered.is_ok(), "a request is taken only while every interested worker has room");
                to_wake[worker] = true;
            }
        }
    }

    fn reply(&mut self, driver: &mut D, asker: usize, answer: Delivery) {
        if asker == self.index {
            self.own_credits.give();
            self.delivered(driver, asker, answer);
        } else {
            self.mailbox.lane(asker).reply(answer);
            self.to_wake[asker] = true;
        }
    }

    /// Takes a delivery or an answer in. With an answer a credit came back, for the next in line.
    fn delivered(&mut self, driver: &mut D, home: usize, delivery: Delivery) {
        match delivery {
            Delivery::Publication(publication) => {
                let topic = publication.topic.clone();
                let _ = self.hub.publish(topic.as_str(), Fanned::new(publication));
                return;
            }
            Delivery::Published { asker, topic, result } => self.published(driver.store(), asker, &topic, result),
            Delivery::InterestKnown(topic, version) => self.hub.acknowledge_interest(&topic, version),
            Delivery::InterestRefused(topic, error) => self.interest_refused(driver.store(), &topic, error),
            Delivery::Information { asker, topic, extent, subscribers } => {
                self.informed(driver.store(), asker, &topic, extent, subscribers);
            }
            Delivery::Adopted => {}
        }
        self.interest_waits = false;
        self.next_in_line(home);
    }

    /// A publication was numbered, or refused.
    fn published(&mut self, store: &mut Store, asker: Asker, topic: &Topic, result: Result<(Position, u64), AppendError>) {
        if result.is_ok() {
            self.metrics().messages_published.of(asker.source).add(1);
        }
        if asker.source == Source::WebSocket {
            return self.message_confirmed(store, asker.token, result.err());
        }
        let Some(pending) = self.asked(asker) else { return };
        let response = match result {
            Ok((position, subscribers)) => routes::published(topic, position, subscribers),
            Err(AppendError::TooManyTopics { topics_max }) => refusals::too_many_topics(topics_max as u64),
        };
        self.answer(store, asker.token.slot, response, &pending);
        self.resume_later(asker.token);
    }

    fn informed(&mut self, store: &mut Store, asker: Asker, topic: &Topic, extent: Option<Extent>, subscribers: u64) {
        let Some(pending) = self.asked(asker) else { return };
        let Do::Inform(origin) = &pending.action else { return };
        let (epoch, first, last) = extent.map_or((None, 1, 0), |extent| (Some(extent.epoch), extent.first, extent.last));
        let response = routes::information(topic, epoch, first, last, subscribers, origin);
        self.answer(store, asker.token.slot, response, &pending);
        self.resume_later(asker.token);
    }

    /// The request an answer is for, if it was not given up meanwhile.
    fn asked(&mut self, asker: Asker) -> Option<Pending> {
        self.connection(asker.token)?.http()?.take_asked(asker.number)
    }

    /// Sends what waited longest for a credit of `home`; what has given up meanwhile is passed over.
    fn next_in_line(&mut self, home: usize) {
        while self.has_credit(home)
            && let Some(waiter) = self.waiting[home].pop_front()
        {
            let (asker, publication) = match waiter {
                Waiter::Message(asker, topic, payload) => (asker, Some((topic, payload))),
                Waiter::Post(asker, _) => (asker, self.take_posted(asker)),
            };
            let Some((topic, payload)) = publication else { continue };
            let sent = self.request_publish(asker, topic, payload);
            assert!(sent.is_ok(), "there was a credit, and the topic has one home");
            if asker.source == Source::WebSocket {
                self.message_sent(asker.token);
            }
        }
    }

    /// The publication of a POST that still waits.
    fn take_posted(&mut self, asker: Asker) -> Option<(Topic, Payload)> {
        let pending = self.connection(asker.token)?.http()?.pending.as_mut().filter(|pending| pending.number == asker.number)?;
        match std::mem::replace(&mut pending.action, Do::Asked) {
            Do::Publish(topic, payload) => Some((topic, payload)),
            other => {
                pending.action = other;
                None
            }
        }
    }
}
