//! Subscribers and what is published to them: what `fanout`, `notify` and `rooms` are, and what others have beside them.

use crate::clock::{MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::feed::Feed;
use crate::net::Net;
use crate::report::Report;
use crate::stage::Stage;
use crate::traffic::{Delivery, Traffic};

use super::common::{Common, PUBLISHER_GONE, tell_left_out};

/// How long to listen on when all has come: what comes now was sent twice.
pub const LINGER: Nanos = 200 * MILLISECOND;

/// Subscribers, publications, and the time in which they are measured.
#[derive(Debug)]
pub struct Crowd {
    /// The account.
    pub traffic: Traffic,
    /// The source.
    pub feed: Feed,
    /// What is measured.
    pub stage: Stage,
    command: &'static str,
    timeout: Nanos,
}

impl Crowd {
    /// A run of `command` whose warm-up starts at `start`.
    pub fn new(common: &Common, command: &'static str, start: Nanos, traffic: Traffic, feed: Feed) -> Self {
        Self { traffic, feed, stage: common.stage(command, start), command, timeout: common.timeout_ns() }
    }

    /// Without a progress bar and without a look at the server's process: beside another that has both.
    pub fn unseen(common: &Common, start: Nanos, traffic: Traffic, feed: Feed) -> Self {
        Self { traffic, feed, stage: common.stage_unseen(start), command: "", timeout: common.timeout_ns() }
    }

    /// One turn of publishing; whether the run is over.
    pub fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.traffic.counts.all_delivered())?;
        if self.is_settled(now) || self.feed.is_stuck(&self.traffic, now, self.timeout) {
            return Ok(Next::Done);
        }
        let due = self.feed.turn(net, &mut self.traffic, &self.stage, now);
        // Waits end after a tenth of a second in any case, which is often enough to look whether all has come.
        Ok(Next::At(due.min(self.stage.next_edge(now))))
    }

    /// Enters what came.
    pub fn message(&mut self, id: usize, payload: &[u8], at: Nanos) -> Option<Delivery> {
        self.traffic.message(&self.stage, id, payload, at)
    }

    /// A connection ended.
    pub fn closed(&mut self, id: usize, ending: &Ending) {
        self.traffic.closed(id, ending);
        self.feed.closed(id);
    }

    /// Whether nothing more is to be expected: all came and it is quiet, or nothing has come for `--timeout`.
    pub fn is_settled(&self, now: Nanos) -> bool {
        let is_done = self.traffic.under_way() == 0 && !self.feed.is_unanswered();
        let patience = if is_done { LINGER } else { self.timeout };
        self.stage.is_over() && now >= self.traffic.moved_at().max(self.stage.until) + patience
    }

    /// How much of what was due was not sent.
    pub fn left_out(&mut self, interrupted: bool) -> u64 {
        if !interrupted && !self.feed.is_broken() {
            // The end may have come before the tool came round to it.
            self.feed.leave_out(0, &self.stage, self.stage.until);
        }
        self.feed.not_sent
    }

    /// Ends the measurement and tells what there was.
    pub fn report(mut self, net: &Net, interrupted: bool) -> Result<Report, Failure> {
        self.stage.finish(net, self.traffic.counts.all_delivered());
        let mut report = Report::new(self.command, "delivery", self.stage.measured(), self.stage.lag().clone());
        self.traffic.tell(&mut report, interrupted);
        if self.feed.is_open_loop() {
            tell_left_out(&mut report, "not_sent", self.left_out(interrupted));
        }
        report.notes.extend(self.feed.first_refusal.take().map(|first| format!("the first publication refused: {first}")));
        if !self.feed.is_open_loop() {
            report.notes.push("flat out: latency is what the window makes of it; compare the rate".to_owned());
        }
        if self.feed.is_broken() {
            report.doubts.push(PUBLISHER_GONE.to_owned());
        }
        report.lateness = self.feed.is_open_loop().then_some(("delivery", self.feed.lateness));
        report.latencies = vec![("delivery", self.traffic.latency), ("last_subscriber", self.traffic.last)];
        report.interrupted = interrupted;
        Ok(report)
    }
}

impl Load for Crowd {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        Self::turn(self, net, now)
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        Self::message(self, id, payload, at);
    }

    fn answered(&mut self, _net: &mut Net, id: usize, result: Result<(), String>, _at: Nanos) {
        self.feed.answered(&mut self.traffic, id, result);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        self.closed(id, &ending);
    }
}
