//! What this worker asks of home workers: to publish, to note interest, to say where a topic stands, to delete what is kept of it; and
//! what the answers do.
//!
//! A request needs a credit, which comes back with its answer; who gets none waits in line for the next one. A worker is its own
//! home for its share of the topics: a request to itself takes the same path without a ring.

use std::collections::VecDeque;

use crate::engine::{AppendError, Appended, Extent, Submission};
use crate::frame::{Payload, Topic};
use crate::hub::{Interest, Subject};
use crate::io::{Driver, Store};
use crate::metrics::{Cause, Source};
use crate::routes::{self, refusals};

use super::Core;
use super::connection::{Do, Pending};
use super::letters::{Asker, Delivery, Request};
use super::run;

/// Who waits for a credit.
#[derive(Debug)]
pub enum Waiter {
    /// A POST to this home worker, whose publication waits in the connection until its time is up.
    Post(Asker, usize),
    /// A batch, whose next publication is for this home worker.
    Batch(Asker, usize),
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
        let submission = Submission { topic, payload, terms: None };
        self.submit(asker, submission).map_err(|submission| (submission.topic, submission.payload))
    }

    /// Asks the topic's home worker to publish on its publisher's terms.
    ///
    /// # Errors
    /// Gives it back if there is no credit.
    pub(super) fn submit(&mut self, asker: Asker, submission: Submission) -> Result<(), Submission> {
        let home = self.home_of(submission.topic.as_str());
        if !self.has_credit(home) {
            return Err(submission);
        }
        self.request(home, Request::Publish { asker, submission }).map_err(|request| match request {
            Request::Publish { submission, .. } => submission,
            _ => unreachable!("a refused request comes back as it was"),
        })
    }

    /// Who asks: a request of the connection in `slot`, or with number 0 a message of it.
    pub(super) fn asker(&self, slot: u32, number: u16, source: Source) -> Asker {
        Asker { worker: self.index, token: self.connections[slot as usize].token, number, place: 0, source }
    }

    /// Whether a publication or a question may be sent to this worker. Some credits are left to interest, which must get through
    /// however many publish: without it nobody's subscription comes into force.
    pub(super) fn has_credit(&mut self, home: usize) -> bool {
        let outstanding = if home == self.index { self.own_credits.outstanding() } else { self.mailbox.lane(home).outstanding() };
        outstanding + self.options.mailbox_requests.div_ceil(INTEREST_SHARE) < self.options.mailbox_requests
    }

    /// Whether so many publications wait for a credit of this home worker that one more is not accepted.
    pub(super) fn is_line_full(&self, home: usize) -> bool {
        self.waiting[home].len() >= WAITING_MAX
    }

    /// Whether nothing waits for a credit of this home worker.
    pub(super) fn is_line_empty(&self, home: usize) -> bool {
        self.waiting[home].is_empty()
    }

    /// Puts a publication in line for the next credit of its home worker.
    pub(super) fn wait_for_credit(&mut self, waiter: Waiter) {
        let home = match &waiter {
            Waiter::Post(_, home) | Waiter::Batch(_, home) => *home,
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

    /// Asks the home worker to delete what is kept of a topic.
    pub(super) fn ask_to_delete(&mut self, store: &mut Store, slot: u32, mut pending: Pending, topic: Topic) {
        let asker = self.asker(slot, pending.number, Source::Post);
        let home = self.home_of(topic.as_str());
        if !self.has_credit(home) || self.request(home, Request::Delete { asker, topic }).is_err() {
            return self.answer(store, slot, refusals::busy(), &pending);
        }
        pending.action = Do::Delete;
        let due = self.tick.after(self.options.publish_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// Tells home workers what changed in this worker's interest since they were told last.
    pub(super) fn tell_interest(&mut self, store: &mut Store) {
        while let Some(interest) = self.hub.poll_interest() {
            let Interest { id, forms, subscribers, version, .. } = interest;
            let topic = match interest.subject {
                Subject::Topic(topic) => topic,
                Subject::Pattern(pattern) => {
                    if !self.tell_pattern_interest(&pattern, forms, subscribers, version) {
                        self.hub.interest_told_again(id);
                        self.interest_waits = true;
                    }
                    continue;
                }
            };
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

    /// A topic has no room: the connections that wait for it are told so.
    fn interest_refused(&mut self, store: &mut Store, topic: &Topic, error: AppendError) {
        let refused: Vec<u32> = self.hub.subscribers(topic.as_str()).iter().map(|subscriber| subscriber.slot).collect();
        for slot in refused {
            if self.connections[slot as usize].flags.corked() {
                self.refuse_upgrade(store, slot, refusals::append_error(error), Cause::Limit);
            } else if self.is_session(slot) {
                self.refuse_joining(store, slot, topic, error);
            }
        }
    }

    /// Whether nothing of this worker's is under way to a home worker, and nothing of others' waits here.
    pub(super) fn has_nothing_under_way(&mut self) -> bool {
        self.own_requests.is_empty()
            && self.waiting.iter().all(VecDeque::is_empty)
            && self.own_credits.outstanding() == 0
            && self.mailbox.lanes().all(|(_, lane)| lane.outstanding() == 0 && lane.is_empty())
    }

    /// Takes a delivery or an answer in. With an answer a credit came back, for the next in line.
    pub(super) fn delivered(&mut self, driver: &mut D, home: usize, delivery: Delivery) {
        match delivery {
            Delivery::Publication(publication) => {
                run::begin(&mut self.hub, &self.options, home, publication);
                return;
            }
            Delivery::PresenceTold(told) => return self.take_told(told),
            Delivery::PresenceNoted(states) => self.letter_answered(home, states),
            Delivery::Published { asker, topic, result } => self.published(driver.store(), asker, &topic, result),
            Delivery::InterestKnown(topic, version) => self.hub.acknowledge_interest(&topic, version),
            Delivery::PatternKnown(pattern, version) => self.hub.acknowledge_pattern(home, &pattern, version),
            Delivery::InterestRefused(topic, error) => self.interest_refused(driver.store(), &topic, error),
            Delivery::Information { asker, topic, extent, subscribers } => {
                self.informed(driver.store(), asker, &topic, extent, subscribers);
            }
            Delivery::Deleted { asker, topic, result } => {
                if let Some(pending) = self.asked(asker) {
                    let answer = result.map_or_else(refusals::append_error, |epoch| routes::deleted(&topic, epoch));
                    self.answer(driver.store(), asker.token.slot, answer, &pending);
                    self.resume_later(asker.token);
                }
            }
            Delivery::Page { asker, result } => self.paged(driver.store(), asker, result),
            Delivery::Scanned(asker, sheaf) => self.scanned(driver.store(), asker, *sheaf),
            Delivery::Adopted => {}
        }
        self.interest_waits = false;
        self.next_in_line(driver.store(), home);
    }

    /// A publication was numbered, or had been, or was refused.
    fn published(&mut self, store: &mut Store, asker: Asker, topic: &Topic, result: Result<(Appended, u64), AppendError>) {
        let is_new = result.as_ref().is_ok_and(|(appended, _)| !appended.is_repeated);
        if is_new {
            self.metrics().messages_published.of(asker.source).add(1);
        }
        if asker.source == Source::WebSocket {
            return self.message_confirmed(store, asker, topic, result.map(|(appended, _)| appended.position));
        }
        let response = match result {
            Ok((appended, subscribers)) => routes::published(topic, appended, subscribers),
            Err(error) => refusals::append_error(error),
        };
        let Some(pending) = self.asked(asker) else { return self.go_on_with_batch(store, asker, Some(response)) };
        // What comes again is kept as the first was.
        let kept_for = pending.kept_for.filter(|_| is_new);
        self.answer(store, asker.token.slot, routes::kept_for(response, kept_for), &pending);
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
    pub(super) fn asked(&mut self, asker: Asker) -> Option<Pending> {
        self.connection(asker.token)?.http()?.take_asked(asker.number)
    }

    /// Sends what waited longest for a credit of `home`; what has given up meanwhile is passed over.
    fn next_in_line(&mut self, store: &mut Store, home: usize) {
        while self.has_credit(home)
            && let Some(waiter) = self.waiting[home].pop_front()
        {
            let is_batch = matches!(waiter, Waiter::Batch(..));
            let next = match waiter {
                Waiter::Message(asker, topic, payload) => Some((asker, Submission { topic, payload, terms: None })),
                Waiter::Post(asker, _) => self.take_posted(asker).map(|submission| (asker, submission)),
                Waiter::Batch(asker, _) => self.take_from_batch(asker),
            };
            let Some((asker, submission)) = next else { continue };
            let sent = self.submit(asker, submission);
            assert!(sent.is_ok(), "there was a credit, and the topic has one home");
            if is_batch {
                self.go_on_with_batch(store, asker, None);
            }
            if asker.source == Source::WebSocket {
                self.message_sent(asker.token);
            }
        }
    }

    /// The publication of a POST that still waits.
    fn take_posted(&mut self, asker: Asker) -> Option<Submission> {
        let pending = self.connection(asker.token)?.http()?.pending.as_mut().filter(|pending| pending.number == asker.number)?;
        match std::mem::replace(&mut pending.action, Do::Asked) {
            Do::Publish(submission) => Some(submission),
            other => {
                pending.action = other;
                None
            }
        }
    }
}
