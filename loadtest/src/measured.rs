//! What there was between the two ends of a measurement: operations, and what they cost the server and the tool.

use crate::cpu::CpuTime;
use crate::kernel::TcpCounters;

/// What there was between the two ends of the measurement.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long it took.
    pub seconds: f64,
    /// Operations that were completed.
    pub operations: u64,
    /// The tool's own processor time, as a share of one processor.
    pub own_cpu_share: f64,
    /// How long others kept the tool from its CPU when it was ready to run, as a share of the time.
    pub own_wait_share: f64,
    /// The server's processor time.
    pub server: Option<CpuTime>,
    /// The server's process was there at the beginning and not at the end.
    pub server_has_ended: bool,
    /// Processor time of each of the server's workers, in seconds, the idle ones included.
    pub workers: Vec<f64>,
    /// What the whole machine spent in softirqs, in seconds.
    pub softirq_seconds: f64,
    /// By the kernel's count; None where that can't be read.
    pub tcp: Option<TcpCounters>,
}

impl Measured {
    /// How much busier the busiest worker was than the mean of them: 1 is even. None of a server with one worker.
    pub fn skew(&self) -> Option<f64> {
        let busiest = self.workers.iter().copied().fold(0.0, f64::max);
        let mean = self.workers.iter().sum::<f64>() / self.workers.len() as f64;
        (self.workers.len() > 1 && mean > 0.0).then_some(busiest / mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_is_told_of_several_workers_the_starved_included() {
        let skew = |workers: &[f64]| Measured { workers: workers.to_vec(), ..Measured::default() }.skew();
        assert_eq!((skew(&[3.0, 1.0]), skew(&[3.0, 0.0, 0.0])), (Some(1.5), Some(3.0)));
        assert_eq!((skew(&[3.0]), skew(&[]), skew(&[0.0, 0.0])), (None, None, None));
    }
}
