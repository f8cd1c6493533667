//! The home worker's duties: number, keep, hand out.
//!
//! It takes a request only while every interested worker has room for what follows from it, so accepting never outruns handing out.
//! Deliveries are taken in every turn, because they end in an outbox that has a policy; only where too many fan-outs are open already
//! do they wait in their ring, and with them whoever publishes so fast.

use std::sync::Arc;

use crate::engine::{Append, AppendError, Engine, EngineEvent, Read, Submission};
use crate::frame::{Forms, Publication, Topic};
use crate::io::Driver;

use super::Core;
use super::fanout::FANOUTS_OPEN_MAX;
use super::letters::{Asker, Delivery, Request};
use super::run;

impl<D: Driver> Core<D> {
    /// The mailbox's part of the turn: what was delivered, then requests, each as far as there is room.
    pub(super) fn take_mail(&mut self, driver: &mut D) {
        self.take_stored(driver);
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

    /// What has come back from the store goes on, as far as there is room for it: where there is none, its coming wakes this worker.
    fn take_stored(&mut self, driver: &mut D) {
        self.engine.receive();
        self.work_off_engine(driver);
        while let Some(topic) = self.engine.ready().cloned() {
            if !self.has_room_for(&topic) {
                return;
            }
            self.engine.finish(self.tick);
            self.work_off_engine(driver);
        }
    }

    /// Whether something of the store can be taken now.
    pub(super) fn has_stored(&mut self) -> bool {
        let ready = self.engine.ready().cloned();
        self.engine.has_news() || ready.is_some_and(|topic| self.has_room_for(&topic))
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
                Request::Publish { asker, submission } => self.append(driver, asker, submission),
                Request::Interest { worker, topic, forms, subscribers, version } => {
                    let answer = match self.set_interest(worker, &topic, forms, subscribers, version) {
                        Ok(()) => Delivery::InterestKnown(topic, version),
                        Err(error) => Delivery::InterestRefused(topic, error),
                    };
                    self.reply(driver, other, answer);
                }
                Request::PatternInterest { worker, pattern, forms, subscribers, version } => {
                    self.interests.update_pattern(worker, &pattern, forms, subscribers, version);
                    self.reply(driver, other, Delivery::PatternKnown(pattern, version));
                }
                Request::Information { asker, topic } => {
                    let extent = self.engine.extent(topic.as_str());
                    let subscribers = self.interests.subscribers(&topic);
                    self.reply(driver, other, Delivery::Information { asker, topic, extent, subscribers });
                }
                Request::Delete { asker, topic } => {
                    self.engine.delete((asker, topic.clone()), topic);
                    self.work_off_engine(driver);
                }
                Request::Read { asker, topic, since, bytes_max } => {
                    let request = (asker, topic.clone());
                    self.engine.read(Read { request, topic, since, bytes_max, now_ns: self.now });
                    self.work_off_engine(driver);
                }
                Request::Scan(mut scan) => {
                    scan.now_ns = self.now;
                    self.engine.scan(*scan);
                    self.work_off_engine(driver);
                }
                Request::Presence(letter) => {
                    let states = self.read_letter(*letter);
                    self.reply(driver, other, Delivery::PresenceNoted(states));
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
            Some(Request::Publish { submission, .. }) => submission.topic.clone(),
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
        interests.interested(topic).all(|(worker, _)| {
            if worker == *index {
                return here;
            }
            let lane = mailbox.lane(worker);
            lane.has_room(1) || lane.wait_for_room()
        })
    }

    /// Notes a worker's interest, and with it that the topic lives.
    pub(super) fn set_interest(
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

    fn append(&mut self, driver: &mut D, asker: Asker, submission: Submission) {
        let forms = self.interests.forms(&submission.topic);
        let (at_ms, numbered_ns) = (driver.wall_ms(), self.now);
        self.engine.append(Append { request: (asker, submission.topic.clone()), submission, at_ms, numbered_ns, forms });
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
                EngineEvent::Deleted { request: (asker, topic), result } => {
                    self.reply(driver, asker.worker, Delivery::Deleted { asker, topic, result });
                }
                EngineEvent::Scanned { request: asker, sheaf } => {
                    self.reply(driver, asker.worker, Delivery::Scanned(asker, Box::new(sheaf)));
                }
                // Between the publications that the page holds and those that it does not.
                EngineEvent::Read { request: (asker, _), result } => {
                    self.reply(driver, asker.worker, Delivery::Page { asker, result: result.map(Box::new) });
                }
            }
        }
        for (asker, topic, result) in answers.drain(..) {
            let subscribers = self.interests.subscribers(&topic);
            let result = result.map(|appended| (appended, subscribers));
            self.reply(driver, asker.worker, Delivery::Published { asker, topic, result });
        }
        self.answers = answers;
    }

    fn hand_out(&mut self, publication: &Arc<Publication>) {
        let Self { interests, mailbox, to_wake, hub, index, options, .. } = self;
        for (worker, _) in interests.interested(&publication.topic) {
            if worker == *index {
                run::begin(hub, options, *index, Arc::clone(publication));
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
}
