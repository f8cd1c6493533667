//! `publish`: publications a second, each answered, with none, one or many subscribers.
//!
//! A closed loop: each publisher has a topic of its own and keeps `--inflight` publications under way. A POST is answered, as is
//! Redis' PUBLISH; a PUB of NATS is when the PONG behind it came; a WebSocket's message when it has come back to its publisher.

use std::collections::VecDeque;

use clap::Args;
use fantail::config::ByteSize;

use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::feed::Through;
use crate::histogram::Histogram;
use crate::net::Net;
use crate::report::Report;
use crate::stage::Stage;
use crate::target::Topics;
use crate::traffic::Traffic;

use super::common::{CLOSED_LOOP, Common, Measure, PUBLISHER_GONE, check_inflight};
use super::party::{Publishing, parse_size};

/// Flags of `publish`.
#[derive(Args, Debug)]
pub struct Publish {
    #[command(flatten)]
    publishing: Publishing,
    /// How many subscribers each publisher's topic has, measured one after the other; a WebSocket that publishes is one itself
    #[arg(long, default_value = "1", value_name = "N,N...", value_delimiter = ',')]
    subscribers: Vec<u32>,
    /// How many publications each publisher has under way
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    inflight: u32,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

struct Publishers {
    traffic: Traffic,
    stage: Stage,
    timeout: Nanos,
    inflight: usize,
    /// By topic.
    all: Vec<Publisher>,
    started: bool,
    /// An answer is a message that came back.
    by_delivery: bool,
    answered: u64,
    first_refusal: Option<String>,
    latency: Histogram,
}

struct Publisher {
    id: usize,
    unanswered: VecDeque<(u64, Nanos)>,
    is_gone: bool,
}

impl Measure for Publish {
    fn common(&self) -> &Common {
        &self.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        check_inflight(self.publishing.publishers, self.inflight, self.size)?;
        let mut reports: Vec<Report> = Vec::new();
        for &subscribers in &self.subscribers {
            if !reports.last().is_some_and(|report| report.interrupted) {
                reports.push(self.measure(subscribers)?);
            }
        }
        Ok(reports)
    }
}

impl Publish {
    fn measure(&self, subscribers: u32) -> Result<Report, Failure> {
        let topics = self.publishing.publishers;
        let all = u64::from(topics) * u64::from(subscribers);
        let mut engine = self.publishing.prepare(usize::try_from(all).unwrap_or(usize::MAX), topics)?;
        let arcs: Vec<Topics> = (0..topics * subscribers).map(|at| Topics { first: at % topics, count: 1 }).collect();
        let Some(party) = self.publishing.gather(&mut engine, &arcs)? else {
            return Ok(Report::cut_short("publish", "publication"));
        };
        let traffic = party.traffic(topics, self.size, fastrand::u64(..));
        let publisher_of = |topic| party.through.connection_of(&traffic, topic);
        let Some(ids) = (0..topics).map(publisher_of).collect::<Option<Vec<usize>>>() else {
            let why = "a WebSocket that publishes is a subscriber itself: use --publish post for --subscribers 0";
            return Err(Failure::Usage(why.to_owned()));
        };
        let all = ids.into_iter().map(|id| Publisher { id, unanswered: VecDeque::new(), is_gone: false }).collect();
        let mut publishers = Publishers {
            traffic,
            stage: self.common().stage("publish", clock::now()),
            timeout: self.common().timeout_ns(),
            inflight: self.inflight as usize,
            all,
            started: false,
            by_delivery: matches!(party.through, Through::First),
            answered: 0,
            first_refusal: None,
            latency: Histogram::new(),
        };
        let interrupted = engine.run(&mut publishers)?;
        self.report(publishers, &engine, subscribers, interrupted)
    }

    fn report(&self, mut run: Publishers, engine: &Engine, subscribers: u32, interrupted: bool) -> Result<Report, Failure> {
        run.stage.finish(&engine.net, run.answered);
        let mut report = Report::new("publish", "publication", run.stage.measured(), run.stage.lag().clone());
        report.parameters = vec![
            ("subscribers", subscribers.into()),
            ("publishers", self.publishing.publishers.into()),
            ("inflight", self.inflight.into()),
            ("size", self.size.bytes().into()),
        ];
        report.tell("answered", run.answered);
        report.fault("unanswered", if interrupted { 0 } else { run.unanswered() });
        run.traffic.tell(&mut report, interrupted);
        report.notes.extend(run.first_refusal.map(|first| format!("the first publication refused: {first}")));
        report.notes.push(CLOSED_LOOP.to_owned());
        if run.all.iter().any(|publisher| publisher.is_gone) {
            report.doubts.push(PUBLISHER_GONE.to_owned());
        }
        report.latencies = vec![("answer", run.latency)];
        report.interrupted = interrupted;
        Ok(report)
    }
}

impl Publishers {
    /// Publishes as many as may be under way.
    fn fill(&mut self, net: &mut Net, topic: u32) {
        let publisher = &mut self.all[topic as usize];
        while publisher.unanswered.len() < self.inflight && !publisher.is_gone && clock::now() < self.stage.until {
            let now = clock::now();
            publisher.unanswered.push_back((self.traffic.next_of(topic), now));
            net.publish(publisher.id, topic, self.traffic.publication(topic, now), true);
        }
    }

    /// The publication with this number is answered, or the oldest where the answer names none.
    fn answer(&mut self, net: &mut Net, topic: u32, number: Option<u64>, result: Result<(), String>, at: Nanos) {
        let unanswered = &mut self.all[topic as usize].unanswered;
        let place = number.map_or(Some(0), |number| unanswered.iter().position(|&(sent, _)| sent == number));
        let Some((number, due)) = place.and_then(|place| unanswered.remove(place)) else { return };
        match result {
            Ok(()) => {
                self.answered += 1;
                if self.stage.is_measured(due) {
                    self.latency.record(at - due);
                }
            }
            Err(words) => {
                self.traffic.refuse(topic, number);
                self.first_refusal.get_or_insert(words);
            }
        }
        self.fill(net, topic);
    }

    fn unanswered(&self) -> u64 {
        self.all.iter().map(|publisher| publisher.unanswered.len() as u64).sum()
    }

    fn topic_of(&self, id: usize) -> Option<u32> {
        self.all.iter().position(|publisher| publisher.id == id).map(|topic| topic as u32)
    }
}

impl Load for Publishers {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.answered)?;
        let is_settled = self.unanswered() == 0 && self.traffic.under_way() == 0;
        if self.stage.is_over() && (is_settled || now >= self.stage.until + self.timeout) {
            return Ok(Next::Done);
        }
        if !std::mem::replace(&mut self.started, true) {
            (0..self.traffic.topics()).for_each(|topic| self.fill(net, topic));
        }
        Ok(Next::At(self.stage.next_edge(now)))
    }

    fn message(&mut self, net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        let delivery = self.traffic.message(&self.stage, id, payload, at);
        if let Some(delivery) = delivery.filter(|_| self.by_delivery)
            && self.all[delivery.stamp.topic as usize].id == id
        {
            self.answer(net, delivery.stamp.topic, Some(delivery.stamp.number), Ok(()), at);
        }
    }

    fn answered(&mut self, net: &mut Net, id: usize, result: Result<(), String>, at: Nanos) {
        if let Some(topic) = self.topic_of(id) {
            self.answer(net, topic, None, result, at);
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        self.traffic.closed(id, &ending);
        if let Some(topic) = self.topic_of(id) {
            self.all[topic as usize].is_gone = true;
        }
    }
}
