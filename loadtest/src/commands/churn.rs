//! `churn`: subscribers come and go while messages flow.
//!
//! Beside the steady subscribers of a fan-out, `--joins` a second connect, subscribe, stay a while and leave. What is published
//! after a subscription was confirmed must reach its subscriber until it leaves: holes are counted, for those who stay and for
//! those who pass.

use std::collections::VecDeque;

use clap::Args;
use fantail::config::{ByteSize, TimeSpan};

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::net::{Net, Times};
use crate::report::Report;
use crate::schedule::Schedule;

use super::common::{Common, Measure};
use super::crowd::Crowd;
use super::failures::Failures;
use super::fanout::TOPIC;
use super::party::{Paced, parse_size};

/// Flags of `churn`.
#[derive(Args, Debug)]
pub struct Churn {
    #[command(flatten)]
    paced: Paced,
    /// How many subscribers stay
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many join a second
    #[arg(long, default_value = "200", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    joins: f64,
    /// How long each of those stays
    #[arg(long, default_value = "1s", value_name = "TIME")]
    stay: TimeSpan,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

struct Coming {
    crowd: Crowd,
    schedule: Schedule,
    stay: Nanos,
    /// Of each passing connection, when it was due.
    due: Vec<Option<Nanos>>,
    opening: u64,
    /// Who leaves when, in order.
    leaving: VecDeque<(Nanos, usize)>,
    /// Whose time is over, and up to which number it is to get all before it leaves.
    parting: Vec<(Nanos, usize, u64)>,
    timeout: Nanos,
    joined: u64,
    left: u64,
    ended_early: u64,
    failures: Failures,
    join: Histogram,
}

impl Measure for Churn {
    fn common(&self) -> &Common {
        &self.paced.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let common = self.common();
        let most_passing = (self.joins * (self.stay.duration() + common.timeout.duration()).as_secs_f64()) as usize + 64;
        let steady = self.connections as usize;
        let mut engine = self.paced.publishing.prepare(steady + most_passing, 1)?;
        let Some(party) = self.paced.publishing.gather(&mut engine, &vec![TOPIC; steady])? else {
            return Ok(vec![Report::cut_short("churn", "delivery")]);
        };
        let traffic = party.traffic(1, self.size, fastrand::u64(..));
        let start = clock::now();
        let mut coming = Coming {
            crowd: Crowd::new(common, "churn", start, traffic, self.paced.feed(party.through, start)),
            schedule: Schedule::new(start, self.joins),
            stay: clock::length(self.stay.duration()),
            due: Vec::new(),
            opening: 0,
            leaving: VecDeque::new(),
            parting: Vec::new(),
            timeout: common.timeout_ns(),
            joined: 0,
            left: 0,
            ended_early: 0,
            failures: Failures::default(),
            join: Histogram::new(),
        };
        let interrupted = engine.run(&mut coming)?;
        let counts = coming.crowd.traffic.counts;
        let mut report = coming.crowd.report(&engine.net, interrupted)?;
        report.parameters = vec![("connections", self.connections.into()), ("size", self.size.bytes() as u64)];
        report.tell("joined", coming.joined);
        report.tell("left", coming.left);
        report.fault("ended_early", coming.ended_early);
        report.tell("passing_delivered", counts.passing_delivered);
        report.fault("passing_lost", counts.passing_lost);
        coming.failures.tell(&mut report);
        report.latencies.push(("join", coming.join));
        Ok(vec![report])
    }
}

impl Coming {
    fn join(&mut self, net: &mut Net, due: Nanos) {
        let now = clock::now();
        if self.crowd.stage.is_measured(due) {
            self.crowd.feed.lateness.record(now - due);
        }
        match net.open(now, 0, Purpose::Subscribe(TOPIC)) {
            Ok(id) => {
                if self.due.len() <= id {
                    self.due.resize(id + 1, None);
                }
                self.due[id] = Some(due);
                self.opening += 1;
            }
            Err(ending) => self.failures.count(&ending),
        }
    }

    /// Those leave whose time has come, once they have what was published until then; behind the end of the run all of them.
    fn part(&mut self, net: &mut Net, now: Nanos) {
        let is_over = self.crowd.stage.is_over() && self.crowd.is_settled(now);
        let published = self.crowd.traffic.next_of(0);
        while let Some(&(at, id)) = self.leaving.front().filter(|&&(at, _)| at <= now || is_over) {
            self.leaving.pop_front();
            self.parting.push((at, id, published));
        }
        let (traffic, timeout) = (&mut self.crowd.traffic, self.timeout);
        self.parting.retain(|&(at, id, until)| {
            // It may have ended before its time, and its number may be another's by now.
            if self.due.get(id).copied().flatten() != Some(at) {
                return false;
            }
            let stays = traffic.missing_to(id, until) > 0 && now < at + timeout;
            if !stays {
                self.due[id] = None;
                traffic.leave(id, until);
                net.reset(id);
                self.left += 1;
            }
            stays
        });
    }
}

impl Load for Coming {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        while let Some(due) = self.schedule.take(now, self.crowd.stage.until) {
            self.join(net, due);
        }
        self.part(net, now);
        let next = self.crowd.turn(net, now)?;
        let Next::At(due) = next else {
            // The last openings have an answer before the run ends.
            return Ok(if self.opening == 0 && self.leaving.is_empty() && self.parting.is_empty() {
                Next::Done
            } else {
                Next::At(Nanos::MAX)
            });
        };
        let joining = if self.crowd.stage.is_over() { Nanos::MAX } else { self.schedule.next_at() };
        let parting = self.leaving.front().map_or(Nanos::MAX, |&(at, _)| at);
        Ok(Next::At(due.min(joining).min(parting)))
    }

    fn opened(&mut self, _net: &mut Net, id: usize, times: Times) {
        let Some(due) = self.due.get(id).copied().flatten() else { return };
        self.opening -= 1;
        self.joined += 1;
        if self.crowd.stage.is_measured(due) {
            self.join.record(times.opened - due);
        }
        self.crowd.traffic.subscribe_passing(id, 0);
        let leaves_at = times.opened + self.stay;
        self.due[id] = Some(leaves_at);
        self.leaving.push_back((leaves_at, id));
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        self.crowd.message(id, payload, at);
    }

    fn answered(&mut self, net: &mut Net, id: usize, result: Result<(), String>, at: Nanos) {
        Load::answered(&mut self.crowd, net, id, result, at);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, at: Nanos) {
        let Some(due) = self.due.get_mut(id).and_then(Option::take) else {
            self.crowd.closed(id, &ending);
            return;
        };
        if self.crowd.traffic.is_member(id) {
            self.crowd.traffic.leave(id, 0);
            self.ended_early += 1;
        } else {
            debug_assert!(due <= at);
            self.opening -= 1;
        }
        self.failures.count(&ending);
    }
}
