//! Subscribers who pass: they join at fixed times, stay, and leave when they have what was published until then.
//!
//! ```text
//! Free --due--> Joining --confirmed--> Staying --time is over--> Parting --has all--> Leaving --confirmed--> Free
//!                                                                            \--a connection of its own: reset
//! ```

use std::collections::VecDeque;

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::net::{Net, Times};
use crate::report::Report;
use crate::schedule::Schedule;

use super::crowd::Crowd;
use super::failures::Failures;
use super::fanout::TOPIC;

/// Those who pass, beside a crowd that stays.
#[derive(Debug)]
pub struct Passing {
    crowd: Crowd,
    joins: Schedule,
    stay: Nanos,
    timeout: Nanos,
    /// Open connections on which nobody is subscribed; None where each joins by a connection of its own.
    free: Option<Vec<usize>>,
    /// Of each connection, where it stands; [`State::Elsewhere`] if it is none of ours.
    states: Vec<State>,
    /// Whose stay ends when, in order.
    staying: VecDeque<(Nanos, usize)>,
    /// Whose stay is over, and who waits for what was published until then.
    parting: Vec<usize>,
    /// How many are joining or leaving.
    changing: u64,
    joined: u64,
    left: u64,
    ended_early: u64,
    none_free: u64,
    failures: Failures,
    join: Histogram,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Steady, a publisher, or nobody's.
    Elsewhere,
    /// What was published below `number` may still come: it is from before its subscription's end was confirmed.
    Free {
        number: u64,
    },
    Joining {
        due: Nanos,
    },
    Staying {
        until: Nanos,
    },
    /// It leaves when it has all below `number`, or at `at` in any case.
    Parting {
        at: Nanos,
        number: u64,
    },
    Leaving {
        number: u64,
    },
}

impl Passing {
    /// With `standing` connections that are open already, or None.
    pub fn new(crowd: Crowd, joins: Schedule, stay: Nanos, timeout: Nanos, standing: Option<Vec<usize>>) -> Self {
        let mut states = Vec::new();
        for &id in standing.iter().flatten() {
            states.resize(states.len().max(id + 1), State::Elsewhere);
            states[id] = State::Free { number: 0 };
        }
        Self {
            crowd,
            joins,
            stay,
            timeout,
            free: standing,
            states,
            staying: VecDeque::new(),
            parting: Vec::new(),
            changing: 0,
            joined: 0,
            left: 0,
            ended_early: 0,
            none_free: 0,
            failures: Failures::default(),
            join: Histogram::new(),
        }
    }

    /// Tells what there was.
    pub fn report(self, net: &Net, interrupted: bool) -> Result<Report, Failure> {
        let counts = self.crowd.traffic.counts;
        let mut report = self.crowd.report(net, interrupted)?;
        report.tell("joined", self.joined);
        report.tell("left", self.left);
        report.fault("ended_early", self.ended_early);
        report.fault("none_free", self.none_free);
        report.tell("passing_delivered", counts.passing_delivered);
        report.tell("passing_beside", counts.passing_beside);
        report.fault("passing_lost", counts.passing_lost);
        self.failures.tell(&mut report);
        report.notes.push("server CPU: joins and leaves are in it; deliveries to those who pass are operations, too".to_owned());
        report.latencies.push(("join", self.join));
        Ok(report)
    }

    fn state(&self, id: usize) -> State {
        self.states.get(id).copied().unwrap_or(State::Elsewhere)
    }

    fn begin(&mut self, net: &mut Net, due: Nanos) {
        let now = clock::now();
        if self.crowd.stage.is_measured(due) {
            self.crowd.feed.lateness.record(now - due);
        }
        let id = match &mut self.free {
            Some(free) => {
                let Some(id) = free.pop() else {
                    self.none_free += 1;
                    return;
                };
                net.subscribe(id, TOPIC.first);
                net.expect(id, now);
                id
            }
            None => match net.open(now, 0, Purpose::Subscribe(TOPIC)) {
                Ok(id) => id,
                Err(ending) => return self.failures.count(&ending),
            },
        };
        self.states.resize(self.states.len().max(id + 1), State::Elsewhere);
        self.states[id] = State::Joining { due };
        self.changing += 1;
    }

    fn join(&mut self, id: usize, due: Nanos, at: Nanos) {
        self.changing -= 1;
        self.joined += 1;
        if self.crowd.stage.is_measured(due) {
            self.join.record(at - due);
        }
        self.crowd.traffic.subscribe_passing(id, TOPIC.first);
        let until = at + self.stay;
        self.states[id] = State::Staying { until };
        self.staying.push_back((until, id));
    }

    /// Those leave whose time is over, once they have what was published until then; behind the end of the run all of them.
    fn part(&mut self, net: &mut Net, now: Nanos) {
        let is_over = self.crowd.stage.is_over() && self.crowd.is_settled(now);
        let number = self.crowd.traffic.next_of(TOPIC.first);
        while let Some(&(until, id)) = self.staying.front().filter(|&&(until, _)| until <= now || is_over) {
            self.staying.pop_front();
            // It may have ended before its time, and its number may be another's by now.
            if self.state(id) == (State::Staying { until }) {
                self.states[id] = State::Parting { at: now + self.timeout, number };
                self.parting.push(id);
            }
        }
        for id in std::mem::take(&mut self.parting) {
            let State::Parting { at, number } = self.state(id) else { continue };
            if self.crowd.traffic.missing_to(id, number) > 0 && now < at {
                self.parting.push(id);
            } else if self.free.is_some() {
                // Until that is confirmed, more may come.
                net.unsubscribe(id, TOPIC.first);
                net.expect(id, now);
                self.states[id] = State::Leaving { number };
                self.changing += 1;
            } else {
                net.reset(id);
                self.leave(id, number);
                self.states[id] = State::Elsewhere;
            }
        }
    }

    fn leave(&mut self, id: usize, number: u64) {
        self.crowd.traffic.leave(id, number);
        self.left += 1;
    }
}

impl Load for Passing {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        while let Some(due) = self.joins.take(now, self.crowd.stage.until) {
            self.begin(net, due);
        }
        self.part(net, now);
        let Next::At(due) = self.crowd.turn(net, now)? else {
            // The last who came have left before the run ends.
            let is_over = self.changing == 0 && self.staying.is_empty() && self.parting.is_empty();
            return Ok(if is_over { Next::Done } else { Next::At(Nanos::MAX) });
        };
        let joining = if self.crowd.stage.is_over() { Nanos::MAX } else { self.joins.next_at() };
        let parting = self.staying.front().map_or(Nanos::MAX, |&(until, _)| until);
        Ok(Next::At(due.min(joining).min(parting)))
    }

    fn opened(&mut self, _net: &mut Net, id: usize, times: Times) {
        if let State::Joining { due } = self.state(id) {
            self.join(id, due, times.opened);
        }
    }

    fn confirmed(&mut self, net: &mut Net, id: usize, at: Nanos) {
        net.settle_expectation(id);
        match self.state(id) {
            State::Joining { due } => self.join(id, due, at),
            State::Leaving { number } => {
                self.changing -= 1;
                self.leave(id, number);
                self.states[id] = State::Free { number: self.crowd.traffic.next_of(TOPIC.first) };
                self.free.iter_mut().for_each(|free| free.push(id));
            }
            State::Elsewhere | State::Free { .. } | State::Staying { .. } | State::Parting { .. } => {}
        }
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        match self.state(id) {
            State::Joining { .. } => self.crowd.traffic.message_beside(payload, at, u64::MAX),
            State::Free { number } => self.crowd.traffic.message_beside(payload, at, number),
            _ => drop(self.crowd.message(id, payload, at)),
        }
    }

    fn answered(&mut self, net: &mut Net, id: usize, result: Result<(), String>, at: Nanos) {
        Load::answered(&mut self.crowd, net, id, result, at);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        let state = self.state(id);
        if state == State::Elsewhere {
            return self.crowd.closed(id, &ending);
        }
        self.states[id] = State::Elsewhere;
        self.free.iter_mut().for_each(|free| free.retain(|&other| other != id));
        self.changing -= u64::from(matches!(state, State::Joining { .. } | State::Leaving { .. }));
        if self.crowd.traffic.is_member(id) {
            self.crowd.traffic.leave(id, 0);
            self.ended_early += 1;
        }
        self.failures.count(&ending);
    }
}
