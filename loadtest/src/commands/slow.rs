//! `slow`: some subscribers stop reading; what it costs the others, and the server.
//!
//! `--slow` of the connections are not read from the beginning of the measurement to its end. Then they are read to their end, to
//! see what they were told. Losses and latency are those of the healthy. One of the slow whose connection ends before it stops reading
//! was none: that is a fault of its own.

use clap::Args;
use fantail::config::ByteSize;

use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::cpu;
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::net::Net;
use crate::report::{Figure, Report};

use super::common::{Common, Measure};
use super::crowd::Crowd;
use super::fanout::TOPIC;
use super::party::{Paced, parse_size};

/// How often the server's memory is looked at.
const LOOK: Nanos = 200 * MILLISECOND;

/// How long the slow go on reading at the end when nothing comes any more.
const READ_OUT: Nanos = 2 * SECOND;

/// Flags of `slow`.
#[derive(Args, Debug)]
pub struct Slow {
    #[command(flatten)]
    paced: Paced,
    /// How many subscribers in all
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    connections: u32,
    /// How many of them stop reading
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    slow: u32,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "1KiB", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

struct Mixed {
    crowd: Crowd,
    pid: Option<u32>,
    /// Those that will stop, and have.
    slow: Vec<usize>,
    state: State,
    looked_at: Nanos,
    rss_before: u64,
    most_rss: u64,
    ended: u64,
    /// Slow ones that ended while they still read.
    ended_early: u64,
    first_ending: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// All read.
    Warm,
    /// Some don't.
    Stopped,
    /// They read what they left, since this time.
    ReadingOut(Nanos),
}

impl Measure for Slow {
    fn common(&self) -> &Common {
        &self.paced.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let (all, slow) = (self.connections as usize, self.slow as usize);
        if slow >= all {
            return Err(Failure::Usage(format!("--slow {slow} must be less than --connections {all}: the others are measured")));
        }
        let mut engine = self.paced.publishing.prepare(all, 1)?;
        let Some(mut party) = self.paced.publishing.gather(&mut engine, &vec![TOPIC; all])? else {
            return Ok(vec![Report::cut_short("slow", "delivery")]);
        };
        let slow: Vec<usize> = party.subscribers.split_off(all - slow).into_iter().map(|(id, _)| id).collect();
        let mut traffic = party.traffic(1, self.size, fastrand::u64(..));
        slow.iter().for_each(|&id| traffic.subscribe_passing(id, 0));
        let start = clock::now();
        let mut mixed = Mixed {
            crowd: Crowd::new(self.common(), "slow", start, traffic, self.paced.feed(party.through, start)),
            pid: self.common().pid,
            slow,
            state: State::Warm,
            looked_at: 0,
            rss_before: 0,
            most_rss: 0,
            ended: 0,
            ended_early: 0,
            first_ending: None,
        };
        let interrupted = engine.run(&mut mixed)?;
        self.report(mixed, &engine.net, interrupted).map(|report| vec![report])
    }
}

impl Slow {
    fn report(&self, mut mixed: Mixed, net: &Net, interrupted: bool) -> Result<Report, Failure> {
        let slow = std::mem::take(&mut mixed.slow);
        // Who was not ended has been told of nothing, so all that was published is due to it.
        let published = mixed.crowd.traffic.next_of(0);
        slow.iter().for_each(|&id| mixed.crowd.traffic.leave(id, published));
        let counts = mixed.crowd.traffic.counts;
        let mut report = mixed.crowd.report(net, interrupted)?;
        report.parameters = vec![
            ("connections", self.connections.into()),
            ("slow", self.slow.into()),
            self.paced.parameter(),
            ("size", self.size.bytes().into()),
        ];
        report.tell("slow_delivered", counts.passing_delivered);
        report.fault("slow_lost_in_silence", counts.passing_lost);
        report.tell("slow_ended_by_server", mixed.ended);
        report.fault("slow_ended_early", mixed.ended_early);
        if self.common().pid.is_some() {
            let mebibytes = |bytes: u64| bytes as f64 / (1 << 20) as f64;
            report.figures.extend([
                Figure { name: "rss_before", value: mebibytes(mixed.rss_before), unit: "MiB" },
                Figure { name: "rss_at_most", value: mebibytes(mixed.most_rss), unit: "MiB" },
                Figure {
                    name: "rss_per_slow",
                    value: (mixed.most_rss as f64 - mixed.rss_before as f64) / 1024.0 / slow.len().max(1) as f64,
                    unit: "KiB",
                },
            ]);
        }
        report.notes.extend(mixed.first_ending.map(|first| format!("the first slow one ended: {first}")));
        Ok(report)
    }
}

impl Mixed {
    fn look(&mut self, now: Nanos) -> Result<(), Failure> {
        if let Some(pid) = self.pid.filter(|_| now >= self.looked_at + LOOK && !matches!(self.state, State::ReadingOut(_))) {
            self.looked_at = now;
            // One that has died is told of by the stage; here its last figures stand.
            let rss = match (cpu::rss_of_tree(pid), self.state) {
                (Ok(rss), _) => rss,
                (Err(failure), State::Warm) => return Err(failure),
                (Err(_), _) => return Ok(()),
            };
            if self.state == State::Warm {
                self.rss_before = rss;
            }
            self.most_rss = self.most_rss.max(rss);
        }
        Ok(())
    }
}

impl Load for Mixed {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.look(now)?;
        let next = self.crowd.turn(net, now)?;
        match self.state {
            State::Warm if now >= self.crowd.stage.from => {
                self.slow.iter().for_each(|&id| net.pause(id));
                self.state = State::Stopped;
            }
            State::Stopped if next == Next::Done => {
                self.slow.iter().for_each(|&id| net.resume(id));
                self.state = State::ReadingOut(now);
            }
            State::ReadingOut(since)
                if now >= since.max(self.crowd.traffic.moved_at()) + READ_OUT || self.ended == self.slow.len() as u64 =>
            {
                return Ok(Next::Done);
            }
            State::Warm | State::Stopped | State::ReadingOut(_) => {}
        }
        Ok(if next == Next::Done { Next::At(Nanos::MAX) } else { next })
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        self.crowd.message(id, payload, at);
    }

    fn answered(&mut self, net: &mut Net, id: usize, result: Result<(), String>, at: Nanos) {
        Load::answered(&mut self.crowd, net, id, result, at);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        if let Some(place) = self.slow.iter().position(|&slow| slow == id) {
            if self.state == State::Warm {
                self.slow.swap_remove(place);
                self.ended_early += 1;
            } else {
                self.ended += 1;
            }
            self.first_ending.get_or_insert_with(|| ending.to_string());
        }
        self.crowd.closed(id, &ending);
    }
}
