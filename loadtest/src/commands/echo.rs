//! `echo`: messages a second and their round trips.
//!
//! Without `--rate` a closed loop: each connection keeps `--inflight` messages under way. With it an open loop: messages are due
//! at fixed times, in turn over the connections, whatever has come back, and latency counts from when they were due.

use std::collections::VecDeque;

use clap::Args;
use fantail::config::ByteSize;
use fantail::frame::OpCode;

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::net::Net;
use crate::payload::{Payload, Stamp};
use crate::report::Report;
use crate::schedule::Schedule;
use crate::stage::Stage;

use super::common::{CLOSED_LOOP, Common, Measure, check_inflight, rate_parameter, tell_left_out};
use super::gather::gather;
use super::party::parse_size;

/// Flags of `echo`.
#[derive(Args, Debug)]
#[command(mut_arg("url", super::common::websocket_only), mut_arg("sub", |arg| arg.hide(true)))]
pub struct Echo {
    #[command(flatten)]
    common: Common,
    /// How many connections
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many messages each connection has under way in the closed loop
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "rate")]
    inflight: u32,
    /// Messages a second over all connections: the open loop
    #[arg(long, value_name = "PER_SECOND", value_parser = super::parse_rate)]
    rate: Option<f64>,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "64", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

struct Pairs {
    schedule: Option<Schedule>,
    inflight: u32,
    /// Of each connection, number and due time of what has not come back.
    under_way: Vec<VecDeque<(u64, Nanos)>>,
    turn_of: usize,
    payload: Payload,
    stage: Stage,
    timeout: Nanos,
    started: bool,
    sent: u64,
    returned: u64,
    /// Came back behind one that was sent later on the same connection.
    reordered: u64,
    duplicated: u64,
    /// Of each connection, the highest number that has come back.
    highest: Vec<u64>,
    /// Under way on connections that ended.
    lost: u64,
    not_sent: u64,
    foreign: u64,
    /// Connections that ended: nothing more is sent on them.
    gone: Vec<bool>,
    lost_connections: u64,
    first_ending: Option<String>,
    latency: Histogram,
    lateness: Histogram,
}

impl Measure for Echo {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        if self.rate.is_none() {
            check_inflight(self.connections, self.inflight, self.size)?;
        }
        let connections = self.connections as usize;
        let mut engine = self.common.prepare_websocket(connections)?;
        if gather(&mut engine, 0, &vec![Purpose::Visit; connections])?.is_none() {
            return Ok(vec![Report::cut_short("echo", "message")]);
        }
        let start = clock::now();
        let mut pairs = Pairs {
            schedule: self.rate.map(|rate| Schedule::new(start, rate)),
            inflight: self.inflight,
            under_way: vec![VecDeque::new(); connections],
            turn_of: 0,
            payload: Payload::new(self.size.bytes(), fastrand::u64(..)),
            stage: self.common.stage("echo", start),
            timeout: self.common.timeout_ns(),
            started: false,
            sent: 0,
            returned: 0,
            reordered: 0,
            duplicated: 0,
            highest: vec![0; connections],
            lost: 0,
            not_sent: 0,
            foreign: 0,
            gone: vec![false; connections],
            lost_connections: 0,
            first_ending: None,
            latency: Histogram::new(),
            lateness: Histogram::new(),
        };
        let interrupted = engine.run(&mut pairs)?;
        pairs.stage.finish(&engine.net, pairs.returned);
        self.report(pairs, interrupted).map(|report| vec![report])
    }
}

impl Echo {
    fn report(&self, pairs: Pairs, interrupted: bool) -> Result<Report, Failure> {
        let mut report = Report::new("echo", "message", pairs.stage.measured(), pairs.stage.lag().clone());
        let pending = pairs.under_way.iter().map(|queue| queue.len() as u64).sum::<u64>();
        report.parameters = vec![
            ("connections", self.connections.into()),
            self.rate.map_or(("inflight", self.inflight.into()), rate_parameter),
            ("size", self.size.bytes().into()),
        ];
        report.tell("sent", pairs.sent);
        report.tell("returned", pairs.returned);
        report.fault("lost", pairs.lost + if interrupted { 0 } else { pending });
        report.fault("duplicated", pairs.duplicated);
        report.fault("reordered", pairs.reordered);
        report.fault("foreign", pairs.foreign);
        report.fault("connections_lost", pairs.lost_connections);
        report.notes.extend(pairs.first_ending.map(|first| format!("the first connection lost: {first}")));
        if self.rate.is_some() {
            tell_left_out(&mut report, "not_sent", pairs.not_sent);
        } else {
            report.notes.push(CLOSED_LOOP.to_owned());
        }
        report.latencies = vec![("round_trip", pairs.latency)];
        report.lateness = self.rate.map(|_| ("round_trip", pairs.lateness));
        report.interrupted = interrupted;
        Ok(report)
    }
}

impl Pairs {
    fn send(&mut self, net: &mut Net, id: usize, due: Nanos) {
        net.send(id, OpCode::Text, self.payload.stamped(Stamp { topic: 0, number: self.sent, due }));
        self.under_way[id].push_back((self.sent, due));
        self.sent += 1;
    }

    fn start(&mut self, net: &mut Net) {
        for id in 0..self.under_way.len() {
            for _ in 0..self.inflight {
                self.send(net, id, clock::now());
            }
        }
    }

    /// Sends nothing of what is due by now: else it would queue without limit.
    fn leave_out(&mut self, now: Nanos) {
        self.not_sent += self.schedule.as_mut().map_or(0, |schedule| schedule.take_all(now, self.stage.until));
    }

    fn is_settled(&self) -> bool {
        self.under_way.iter().all(VecDeque::is_empty)
    }
}

impl Load for Pairs {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.returned)?;
        if self.stage.is_over() && (self.is_settled() || now >= self.stage.until + self.timeout) {
            self.leave_out(now);
            return Ok(Next::Done);
        }
        let mut next = self.stage.next_edge(now);
        if self.stage.is_over() {
            next = self.stage.until + self.timeout;
        } else if self.schedule.is_none() && !self.started {
            self.started = true;
            self.start(net);
        }
        while let Some(due) = self.schedule.as_mut().and_then(|schedule| schedule.take(now, self.stage.until)) {
            let at = clock::now();
            if self.stage.is_measured(due) {
                self.lateness.record(at - due);
            }
            if net.is_overrun(at, self.stage.until) {
                self.not_sent += 1;
                self.leave_out(now);
                break;
            }
            let all = self.under_way.len();
            let Some(id) = (0..all).map(|at| (self.turn_of + at) % all).find(|&id| !self.gone[id]) else { return Ok(Next::Done) };
            self.send(net, id, due);
            self.turn_of = (id + 1) % all;
        }
        let due = self.schedule.filter(|_| !self.stage.is_over()).map_or(Nanos::MAX, |schedule| schedule.next_at());
        Ok(Next::At(next.min(due)))
    }

    fn message(&mut self, net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        let number = self.payload.stamp_of(payload, at).map(|stamp| stamp.near(self.sent).number);
        let Some(number) = number.filter(|number| *number < self.sent) else {
            self.foreign += 1;
            return;
        };
        let place = self.under_way[id].iter().position(|&(sent, _)| sent == number);
        let Some((_, due)) = place.and_then(|place| self.under_way[id].remove(place)) else {
            self.duplicated += 1;
            return;
        };
        self.returned += 1;
        if number < self.highest[id] {
            self.reordered += 1;
        }
        self.highest[id] = self.highest[id].max(number);
        if self.stage.is_measured(due) {
            self.latency.record(at - due);
        }
        while self.schedule.is_none() && at < self.stage.until && self.under_way[id].len() < self.inflight as usize {
            self.send(net, id, clock::now());
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        self.gone[id] = true;
        self.lost_connections += 1;
        self.first_ending.get_or_insert_with(|| ending.to_string());
        self.lost += self.under_way[id].drain(..).len() as u64;
    }
}
