//! `storm`: all drop and come back at once, as after a failed switch or a restarted proxy: how long until all are in again.
//!
//! Every connection counts from when it was due to come back, whatever it met on its way: refusals, full queues, its own pauses.

use clap::Args;
use fantail::config::TimeSpan;

use crate::client::Purpose;
use crate::clock::{self, Nanos, SECOND};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::net::{Net, Times};
use crate::report::{Figure, Report};
use crate::schedule::Schedule;
use crate::stage::Stage;

use super::common::{Common, Measure};
use super::failures::Failures;
use super::fanout::TOPIC;
use super::gather::gather;
use super::rest::Rest;

/// Flags of `storm`.
#[derive(Args, Debug)]
pub struct Storm {
    #[command(flatten)]
    common: Common,
    /// How many connections
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Come back spread over this time, instead of all at once
    #[arg(long, default_value = "0s", value_name = "TIME")]
    spread: TimeSpan,
    /// How long one waits that failed, half of it at least, before it tries again
    #[arg(long, default_value = "500ms", value_name = "TIME")]
    retry: TimeSpan,
}

struct Returning {
    wanted: usize,
    stage: Stage,
    dropped_at: Nanos,
    returns: Schedule,
    retry: Nanos,
    /// When those try again that failed, and when each was due at first; the last first.
    again_at: Vec<(Nanos, Nanos)>,
    /// By the number of a connection, when it was due.
    dues: Vec<Nanos>,
    dropped: Option<Vec<usize>>,
    all_back_at: Option<Nanos>,
    returned: u64,
    retried: u64,
    failures: Failures,
    lost_again: u64,
    back: Histogram,
}

impl Measure for Storm {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let wanted = self.connections as usize;
        let mut engine = self.common.prepare(wanted, 1)?;
        let ids = gather(&mut engine, 0, &vec![Purpose::Subscribe(TOPIC); wanted])?;
        if ids.is_none() || !Rest::undisturbed(&mut engine, self.common.stage_resting(clock::now()))? {
            return Ok(vec![Report::cut_short("storm", "connection")]);
        }
        let now = clock::now();
        let spread = clock::length(self.spread.duration()).max(1);
        let mut returning = Returning {
            wanted,
            stage: self.common.stage_at_once("storm", now),
            dropped_at: now,
            returns: Schedule::new(now, wanted as f64 * SECOND as f64 / spread as f64),
            retry: clock::length(self.retry.duration()).max(1),
            again_at: Vec::new(),
            dues: Vec::new(),
            dropped: ids,
            all_back_at: None,
            returned: 0,
            retried: 0,
            failures: Failures::default(),
            lost_again: 0,
            back: Histogram::new(),
        };
        let interrupted = engine.run(&mut returning)?;
        self.report(returning, &engine, interrupted).map(|report| vec![report])
    }
}

impl Storm {
    fn report(&self, mut run: Returning, engine: &Engine, interrupted: bool) -> Result<Report, Failure> {
        run.stage.finish(&engine.net, run.returned);
        let mut report = Report::new("storm", "connection", run.stage.measured(), run.stage.lag().clone());
        report.parameters = vec![("connections", self.connections.into())];
        report.tell("back", run.returned);
        report.fault("missing", (run.wanted as u64).saturating_sub(run.returned - run.lost_again));
        report.tell("retried", run.retried);
        report.fault("lost_again", run.lost_again);
        run.failures.tell(&mut report);
        match run.all_back_at {
            Some(at) => {
                let value = (at - run.dropped_at) as f64 / 1e6;
                report.figures.push(Figure { name: "until_all_are_back", value, unit: "ms" });
            }
            None => report.doubts.push("not all are back: raise --duration, or see the failures".to_owned()),
        }
        report.latencies = vec![("back", run.back)];
        report.interrupted = interrupted;
        Ok(report)
    }
}

impl Returning {
    fn open(&mut self, net: &mut Net, now: Nanos, due: Nanos) {
        match net.open(now, 0, Purpose::Subscribe(TOPIC)) {
            Ok(id) => {
                self.dues.resize(self.dues.len().max(id + 1), 0);
                self.dues[id] = due;
            }
            Err(ending) => self.fail(&ending, now, due),
        }
    }

    fn fail(&mut self, ending: &Ending, now: Nanos, due: Nanos) {
        self.failures.count(ending);
        let at = now + self.retry / 2 + fastrand::u64(..=self.retry / 2);
        let place = self.again_at.partition_point(|&(other, _)| other > at);
        self.again_at.insert(place, (at, due));
    }
}

impl Load for Returning {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.returned)?;
        if let Some(ids) = self.dropped.take() {
            ids.into_iter().for_each(|id| net.reset(id));
            // Their numbers and descriptors are free for the next turn only.
            return Ok(Next::At(now));
        }
        if self.returned - self.lost_again >= self.wanted as u64 || self.stage.is_over() {
            self.stage.finish(net, self.returned);
            return Ok(Next::Done);
        }
        let all = self.wanted as u64;
        while self.returns.taken() < all
            && let Some(due) = self.returns.take(now, Nanos::MAX)
        {
            self.open(net, now, due);
        }
        while let Some((_, due)) = self.again_at.pop_if(|(at, _)| *at <= now) {
            self.retried += 1;
            self.open(net, now, due);
        }
        let first = if self.returns.taken() < all { self.returns.next_at() } else { Nanos::MAX };
        Ok(Next::At(first.min(self.again_at.last().map_or(Nanos::MAX, |&(at, _)| at)).min(self.stage.next_edge(now))))
    }

    fn opened(&mut self, _net: &mut Net, id: usize, times: Times) {
        self.returned += 1;
        self.back.record(times.opened - self.dues[id]);
        if self.returned - self.lost_again == self.wanted as u64 {
            self.all_back_at = Some(times.opened);
        }
    }

    fn closed(&mut self, net: &mut Net, id: usize, ending: Ending, at: Nanos) {
        self.lost_again += u64::from(net.was_open(id));
        self.fail(&ending, at, self.dues[id]);
    }
}
