//! Warm-up, measurement, end: what is counted in between, and what it cost the server and the tool.

use crate::clock::{self, Nanos, SECOND};
use crate::cpu::CpuTime;
use crate::engine::Net;
use crate::failure::Failure;
use crate::kernel::TcpCounters;
use crate::progress::Progress;
use crate::report::Measured;

use super::common::Common;

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
    progress: Progress,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Nanos,
    operations: u64,
    own_cpu: Nanos,
    server: Option<CpuTime>,
    tcp: TcpCounters,
}

impl Stage {
    /// A stage whose warm-up starts at `start`.
    pub fn new(common: &Common, what: &'static str, start: Nanos) -> Self {
        let from = start + clock::length(common.warmup.duration());
        Self::between(common, what, from, from + clock::length(common.duration.duration()))
    }

    /// A stage without a warm-up.
    pub fn at_once(common: &Common, what: &'static str, start: Nanos) -> Self {
        Self::between(common, what, start, start + clock::length(common.duration.duration()))
    }

    /// As long as a warm-up, of which nothing is reported.
    pub fn resting(common: &Common, start: Nanos) -> Self {
        Self::between(common, "resting", start, start + clock::length(common.warmup.duration()))
    }

    fn between(common: &Common, what: &'static str, from: Nanos, until: Nanos) -> Self {
        let progress = Progress::new(what, until - from);
        Self { pid: common.pid, from, until, begun: None, ended: None, progress }
    }

    /// Takes the samples at the two ends as they pass. `operations` is the count so far.
    pub fn tick(&mut self, net: &mut Net, now: Nanos, operations: u64) -> Result<(), Failure> {
        if self.begun.is_none() && now >= self.from {
            self.begun = Some(self.sample(operations)?);
            net.lag.reset();
        }
        if self.ended.is_none() && now >= self.until {
            self.finish(operations)?;
        }
        if let (Some(begun), None) = (self.begun, self.ended) {
            self.progress.show(now, now - self.from, || {
                format!("{}/s", rate(operations - begun.operations, now.saturating_sub(begun.at)))
            });
        }
        Ok(())
    }

    /// Ends the stage now, if it has begun: at its end, or because somebody pressed Ctrl-C.
    pub fn finish(&mut self, operations: u64) -> Result<(), Failure> {
        if self.ended.is_none() && self.begun.is_some() {
            self.ended = Some(self.sample(operations)?);
        }
        Ok(())
    }

    /// Whether what was due at this time counts.
    pub fn is_measured(&self, at: Nanos) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Whether the end has passed.
    pub const fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// What there was between the ends; all zero if the stage never began.
    pub fn measured(&self) -> Measured {
        let (Some(begun), Some(ended)) = (self.begun, self.ended) else { return Measured::default() };
        let wall = (ended.at - begun.at).max(1);
        Measured {
            seconds: wall as f64 / SECOND as f64,
            operations: ended.operations - begun.operations,
            own_cpu_share: (ended.own_cpu - begun.own_cpu) as f64 / wall as f64,
            server: ended.server.zip(begun.server).map(|(end, begin)| end.since(begin)),
            listen_overflows: ended.tcp.listen_overflows - begun.tcp.listen_overflows,
            syn_retransmits: ended.tcp.syn_retransmits - begun.tcp.syn_retransmits,
        }
    }

    fn sample(&self, operations: u64) -> Result<Sample, Failure> {
        let server = self.pid.map(CpuTime::of_tree).transpose()?;
        Ok(Sample { at: clock::now(), operations, own_cpu: clock::own_cpu(), server, tcp: TcpCounters::read() })
    }
}

fn rate(count: u64, over: Nanos) -> u64 {
    (count as f64 * SECOND as f64 / over.max(1) as f64) as u64
}
