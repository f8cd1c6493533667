//! POST: one publication, or a batch of them, on the way to their home workers and back to an answer.
//!
//! A batch takes the path of single ones. Its publications are sent in their order, so those of a topic keep it: when one must wait for
//! a credit, those behind it wait, too. It stands in its home worker's line like everybody else, for one publication at a time, and has
//! a bounded number under way; so a long batch delays a single POST by as much as a few others would. It is answered when all of its
//! publications are, or when `--publish-timeout` is over: then each one's result says what is known of it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::Submission;
use crate::http1::Response;
use crate::io::{Driver, Store};
use crate::metrics::Source;
use crate::routes::{self, refusals};

use super::Core;
use super::asking::Waiter;
use super::connection::{Do, Http, Pending};
use super::letters::Asker;
use super::shared::Phase;

/// Publications of one batch that may wait for their answers, as many as those of one socket.
const UNDER_WAY_MAX: usize = 16;

/// A batch whose publications are on their way.
#[derive(Debug)]
pub struct Batch {
    /// The results known so far, in the order of the publications.
    results: Vec<Option<Response>>,
    /// Those not sent yet, with their places.
    unsent: VecDeque<(u16, Submission)>,
    under_way: usize,
    /// The first of those not sent stands in line for a credit.
    in_line: bool,
}

impl Batch {
    fn new(read: Vec<Result<Submission, Response>>) -> Self {
        let (mut results, mut unsent) = (Vec::with_capacity(read.len()), VecDeque::with_capacity(read.len()));
        for (place, submission) in (0..).zip(read) {
            results.push(match submission {
                Ok(submission) => {
                    unsent.push_back((place, submission));
                    None
                }
                Err(refusal) => Some(refusal),
            });
        }
        Self { results, unsent, under_way: 0, in_line: false }
    }

    fn is_done(&self) -> bool {
        self.under_way == 0 && self.unsent.is_empty()
    }

    /// The answer. Of what has no result it says whether it may have been published.
    fn answer(mut self) -> Response {
        for (place, _) in self.unsent {
            self.results[usize::from(place)] = Some(refusals::publish_timeout());
        }
        let results: Vec<Response> = self.results.into_iter().map(|result| result.unwrap_or_else(refusals::unanswered)).collect();
        routes::batch_published(&results)
    }
}

impl<D: Driver> Core<D> {
    /// Sends a POST's publication to its home worker, or keeps it until there is a credit.
    pub(super) fn publish_posted(&mut self, store: &mut Store, slot: u32, mut pending: Pending, submission: Submission) {
        if self.shared.phase() >= Phase::Draining {
            return self.answer(store, slot, refusals::draining(), &pending);
        }
        let home = self.home_of(submission.topic.as_str());
        if self.is_line_full(home) {
            return self.answer(store, slot, refusals::publish_timeout(), &pending);
        }
        pending.kept_for = self.kept_for(&submission);
        let asker = self.asker(slot, pending.number, Source::Post);
        let due = self.tick.after(self.options.publish_timeout);
        pending.action = match self.submit(asker, submission) {
            Ok(()) => Do::Asked,
            Err(submission) => {
                self.wait_for_credit(Waiter::Post(asker, home));
                Do::Publish(submission)
            }
        };
        self.wait_for_answer(slot, pending, due);
    }

    /// For how long a publication is kept at most, if its publisher says for how long it may be.
    fn kept_for(&self, submission: &Submission) -> Option<Duration> {
        let ttl = submission.terms.as_ref()?.ttl?;
        let history = self.options.classes.of(submission.topic.as_str()).history;
        Some(if history.size == 0 { Duration::ZERO } else { ttl.min(history.ttl) })
    }

    /// Sends the publications of a batch to their home workers, the first of them at once.
    pub(super) fn publish_batch(
        &mut self,
        store: &mut Store,
        slot: u32,
        mut pending: Pending,
        read: Vec<Result<Submission, Response>>,
    ) {
        if self.shared.phase() >= Phase::Draining {
            return self.answer(store, slot, refusals::draining(), &pending);
        }
        let mut batch = Box::new(Batch::new(read));
        self.send_on(slot, pending.number, &mut batch);
        if batch.is_done() {
            return self.answer(store, slot, batch.answer(), &pending);
        }
        pending.action = Do::Batch(batch);
        let due = self.tick.after(self.options.publish_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// Sends what may be sent of a batch. What finds a full line is refused, as a single one is.
    fn send_on(&mut self, slot: u32, number: u16, batch: &mut Batch) {
        let asker = self.asker(slot, number, Source::Post);
        while !batch.in_line
            && batch.under_way < UNDER_WAY_MAX
            && let Some((place, submission)) = batch.unsent.pop_front()
        {
            let home = self.home_of(submission.topic.as_str());
            if self.is_line_full(home) {
                batch.results[usize::from(place)] = Some(refusals::publish_timeout());
                continue;
            }
            // Who stands in line goes first.
            let sent = if self.is_line_empty(home) { self.submit(Asker { place, ..asker }, submission) } else { Err(submission) };
            match sent {
                Ok(()) => batch.under_way += 1,
                Err(submission) => {
                    batch.unsent.push_front((place, submission));
                    batch.in_line = true;
                    self.wait_for_credit(Waiter::Batch(asker, home));
                }
            }
        }
    }

    /// A batch that stood in line has its turn: the publication that waited, with its place.
    pub(super) fn take_from_batch(&mut self, asker: Asker) -> Option<(Asker, Submission)> {
        let batch = self.connection(asker.token)?.http()?.batch(asker.number)?;
        batch.in_line = false;
        let (place, submission) = batch.unsent.pop_front()?;
        batch.under_way += 1;
        Some((Asker { place, ..asker }, submission))
    }

    /// Sends on, or answers, a batch of which something has become known.
    pub(super) fn go_on_with_batch(&mut self, store: &mut Store, asker: Asker, result: Option<Response>) {
        let slot = asker.token.slot;
        let Some(mut pending) = self.connection(asker.token).and_then(|connection| connection.http()?.take_batch(asker.number))
        else {
            return;
        };
        let Do::Batch(mut batch) = std::mem::replace(&mut pending.action, Do::Asked) else { return };
        if let Some(result) = result {
            batch.results[usize::from(asker.place)] = Some(result);
            batch.under_way -= 1;
        }
        self.send_on(slot, asker.number, &mut batch);
        if batch.is_done() {
            self.answer(store, slot, batch.answer(), &pending);
            return self.resume_later(asker.token);
        }
        pending.action = Do::Batch(batch);
        if let Some(http) = self.connections[slot as usize].http() {
            http.pending = Some(pending);
        }
    }

    /// The time of a batch is over: it is answered with what is known.
    pub(super) fn end_batch(&mut self, store: &mut Store, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let token = connection.token;
        let Some(mut pending) = connection.http().and_then(Http::take_pending) else { return };
        if let Do::Batch(batch) = std::mem::replace(&mut pending.action, Do::Asked) {
            self.answer(store, slot, batch.answer(), &pending);
            self.resume_later(token);
        }
    }
}

impl Http {
    /// The batch under way, if it is that of this request.
    fn batch(&mut self, number: u16) -> Option<&mut Batch> {
        match self.pending.as_mut().filter(|pending| pending.number == number).map(|pending| &mut pending.action) {
            Some(Do::Batch(batch)) => Some(batch),
            _ => None,
        }
    }

    /// The same with its request, taken out.
    fn take_batch(&mut self, number: u16) -> Option<Pending> {
        self.pending.take_if(|pending| pending.number == number && matches!(pending.action, Do::Batch(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Kind, Payload, Topic};

    #[test]
    fn a_batch_whose_time_is_over_says_of_each_what_is_known() {
        let submission =
            || Submission { topic: Topic::new("a").unwrap(), payload: Payload::new(Kind::Text, b"x").unwrap(), terms: None };
        let mut batch = Batch::new(vec![Ok(submission()), Err(refusals::internal()), Ok(submission()), Ok(submission())]);
        assert!(!batch.is_done());
        batch.results[0] = Some(Response::new(200).body(crate::http1::Body::Static(b"{}")));
        batch.unsent.drain(..2);
        batch.under_way = 1;
        let answer = batch.answer();
        let results: serde_json::Value = serde_json::from_slice(answer.body.as_bytes()).unwrap();
        let kinds: Vec<_> = results.as_array().unwrap().iter().map(|result| result["error"]["type"].as_str()).collect();
        let kind = |name| Some(["urn:fantail:problem:", name].concat());
        let expected = [None, kind("internal"), kind("unanswered"), kind("publish-timeout")];
        assert_eq!(kinds, expected.iter().map(Option::as_deref).collect::<Vec<_>>());
        assert!(Batch::new(Vec::new()).is_done());
    }
}
