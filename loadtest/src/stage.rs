//! Warm-up, measurement, end: what is counted in between, and what it cost the server and the tool.

use std::collections::BTreeMap;

use crate::clock::{self, Nanos, SECOND};
use crate::cpu::{self, CpuTime, Queueing, Thread};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::kernel::TcpCounters;
use crate::measured::Measured;
use crate::net::Net;
use crate::progress::{self, Progress};

/// The stretch of time that is measured.
#[derive(Debug)]
pub struct Stage {
    pid: Option<u32>,
    /// When it begins.
    pub from: Nanos,
    /// When it ends.
    pub until: Nanos,
    begun: Option<Sample>,
    ended: Option<Sample>,
    /// How long events waited inside the tool, of those between the ends. What was due before the end and comes behind it is in the
    /// latencies; how its backlog waited here says nothing of the time that was measured.
    lag: Histogram,
    progress: Progress,
}

#[derive(Debug)]
struct Sample {
    at: Nanos,
    operations: u64,
    own_cpu: Nanos,
    own_queueing: Queueing,
    server: Option<CpuTime>,
    threads: BTreeMap<u32, Thread>,
    softirq: f64,
    tcp: Option<TcpCounters>,
}

impl Stage {
    /// A stretch between two times, in which the process with this number is measured.
    pub fn between(pid: Option<u32>, what: &'static str, from: Nanos, until: Nanos) -> Self {
        let progress = Progress::new(what, until - from);
        Self { pid, from, until, begun: None, ended: None, lag: Histogram::new(), progress }
    }

    /// A stretch that nobody watches, in a process that is not the server's.
    pub fn unseen(from: Nanos, until: Nanos) -> Self {
        let (lag, progress) = (Histogram::new(), Progress::hidden());
        Self { pid: None, from, until, begun: None, ended: None, lag, progress }
    }

    /// One in which everything is measured, for tests.
    #[cfg(test)]
    pub fn endless() -> Self {
        Self::between(None, "test", 0, Nanos::MAX)
    }

    /// Takes the samples at the two ends as they pass; the server's process must be there at the first. `operations` is the count so far.
    pub fn tick(&mut self, net: &mut Net, now: Nanos, operations: u64) -> Result<(), Failure> {
        if self.begun.is_none() && now >= self.from {
            let server = self.pid.map(CpuTime::of_tree).transpose()?;
            self.begun = Some(self.sample(server, operations));
            net.lag.reset();
        }
        if self.ended.is_none() && now >= self.until {
            self.finish(net, operations);
        }
        if self.ended.is_none() {
            let begun = self.begun.as_ref().map(|begun| (begun.at, begun.operations));
            let text = || standing(begun, now, self.until, operations);
            self.progress.show(now, now.saturating_sub(self.from), text);
        }
        Ok(())
    }

    /// Ends the stage now, if it has begun: at its end, or because somebody pressed Ctrl-C.
    pub fn finish(&mut self, net: &Net, operations: u64) {
        if self.ended.is_none() && self.begun.is_some() {
            // A server that has died meanwhile is what the run found out, so its report is not thrown away.
            let server = self.pid.and_then(|pid| CpuTime::of_tree(pid).ok());
            self.ended = Some(self.sample(server, operations));
            self.lag = net.lag.clone();
        }
    }

    /// Whether what was due at this time counts.
    pub fn is_measured(&self, at: Nanos) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Whether the end has passed.
    pub const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// When it begins or, once it has begun, ends: a turn is due then at the latest.
    pub const fn next_edge(&self, now: Nanos) -> Nanos {
        if self.ended.is_some() {
            Nanos::MAX
        } else if now < self.from {
            self.from
        } else {
            self.until
        }
    }

    /// How long events waited inside the tool between the ends.
    pub const fn lag(&self) -> &Histogram {
        &self.lag
    }

    /// What there was between the ends; all zero if the stage never began.
    pub fn measured(&self) -> Measured {
        let (Some(begun), Some(ended)) = (&self.begun, &self.ended) else { return Measured::default() };
        let wall = (ended.at - begun.at).max(1);
        Measured {
            seconds: wall as f64 / SECOND as f64,
            operations: ended.operations - begun.operations,
            own_cpu_share: (ended.own_cpu - begun.own_cpu) as f64 / wall as f64,
            own_wait_share: ended.own_queueing.by_others_since(begun.own_queueing) as f64 / wall as f64,
            server: ended.server.zip(begun.server).map(|(end, begin)| end.since(begin)),
            server_has_ended: begun.server.is_some() && ended.server.is_none(),
            workers: cpu::workers(&begun.threads, &ended.threads),
            softirq_seconds: ended.softirq - begun.softirq,
            tcp: ended.tcp.zip(begun.tcp).map(|(end, begin)| end.since(begin)),
        }
    }

    fn sample(&self, server: Option<CpuTime>, operations: u64) -> Sample {
        let threads = self.pid.map(cpu::threads_of_tree).unwrap_or_default();
        let (softirq, tcp) = (cpu::softirq_seconds(), TcpCounters::read());
        let (own_cpu, own_queueing) = (clock::own_cpu(), Queueing::own());
        Sample { at: clock::now(), operations, own_cpu, own_queueing, server, threads, softirq, tcp }
    }
}

/// What is shown at this time: how long it goes on and, once it has begun at a time with a count, how fast.
fn standing(begun: Option<(Nanos, u64)>, now: Nanos, until: Nanos, operations: u64) -> String {
    let to_go = until.saturating_sub(now);
    match begun {
        Some((at, before)) => progress::pace(operations - before, now.saturating_sub(at), to_go),
        None => format!("warm-up, {}", progress::left(to_go)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MILLISECOND;
    use crate::target::Target;

    fn net() -> Net {
        let registry = mio::Poll::new().unwrap().registry().try_clone().unwrap();
        Net::new(registry, Target::resolve("ws://127.0.0.1:9/", None, 1).unwrap(), SECOND)
    }

    #[test]
    fn lag_is_that_between_the_ends() {
        let (mut stage, mut net) = (Stage::unseen(10, 20), net());
        for (now, lag) in [(0, 7_000), (10, 8), (15, 9), (20, 5_000_000)] {
            stage.tick(&mut net, now, 0).unwrap();
            net.lag.record(lag);
        }
        stage.tick(&mut net, 30, 0).unwrap();
        stage.finish(&net, 0);
        assert_eq!((stage.lag().len(), stage.lag().quantile(1.0)), (2, 9), "neither the warm-up's nor what came behind the end");
    }

    #[test]
    fn the_tool_s_own_share_is_what_it_used_of_the_time() {
        let (mut stage, mut net) = (Stage::unseen(10, 20), net());
        stage.tick(&mut net, 10, 0).unwrap();
        let (before, started) = (clock::own_cpu(), clock::now());
        while clock::own_cpu() < before + 50 * MILLISECOND {}
        stage.tick(&mut net, 20, 0).unwrap();
        let (used, took) = (clock::own_cpu() - before, clock::now() - started);
        let measured = stage.measured();
        // Other tests' threads are of the same process, so what was used is more than a share of one CPU may be.
        let told = measured.own_cpu_share * measured.seconds * SECOND as f64;
        assert!((told - used as f64).abs() < 0.2 * used as f64, "{told} of {used} ns");
        assert!(measured.seconds * SECOND as f64 >= 0.8 * took as f64, "{} s of {took} ns", measured.seconds);
    }

    #[test]
    fn what_is_shown_counts_from_the_beginning_and_to_the_end() {
        assert_eq!(standing(None, 1, 11 * SECOND, 7), "warm-up, 11s left");
        assert_eq!(standing(Some((SECOND, 7)), SECOND, 11 * SECOND, 7), "0/s, 10s left");
        assert_eq!(standing(Some((SECOND, 7)), 3 * SECOND, 11 * SECOND, 27), "10/s, 8s left");
    }
}
