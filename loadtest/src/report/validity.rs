//! Whether a report may be believed: doubts of the run, and what shows that the tool measured itself.

use std::thread;

use crate::clock::Nanos;
use crate::histogram::Histogram;

use super::{Report, time};

/// Beyond this share of one processor, or of all there are for its processes together, the tool may have been the bottleneck.
const OWN_CPU_SHARE_MAX: f64 = 0.8;

/// Beyond this share of the time others kept the tool from its CPU. An event that comes at any time meets it waiting with this
/// probability, so the wait is in one latency out of ten, and every p99 is made of it.
const OWN_WAIT_SHARE_MAX: f64 = 0.1;

/// The tool's own lag may be this share of what it reports.
const LAG_SHARE_MAX: f64 = 0.1;

impl Report {
    /// Why the figures must not be quoted; empty if they may.
    pub fn invalid(&self) -> Vec<String> {
        [self.all_doubts(), self.busy_tool()].concat()
    }

    /// Why none of the figures must be quoted: what the command says, and what is the same for all of them.
    pub fn all_doubts(&self) -> Vec<String> {
        let mut doubts = self.doubts.clone();
        if self.measured.server_has_ended {
            doubts.push("the server's process ended before the measurement did".to_owned());
        }
        // Where latencies are told, they are of operations.
        if self.measured.operations == 0 && !self.latencies.is_empty() && !self.interrupted {
            doubts.push(format!("nothing was measured: no {} was completed in the measured part", self.operation));
        }
        if self.has_lost_all() {
            doubts.push("all connections were lost: see why the first was".to_owned());
        }
        doubts
    }

    /// Whether none is left of the connections that were to stay.
    fn has_lost_all(&self) -> bool {
        let wanted = self.parameters.iter().find(|(name, _)| *name == "connections");
        let lost = self.count("connections_lost").unwrap_or_default();
        wanted.and_then(|(_, wanted)| wanted.as_u64()).is_some_and(|wanted| lost > 0 && lost >= wanted)
    }

    /// Why rates and latencies may be the tool's own. What the server used for each operation is right all the same.
    pub fn busy_tool(&self) -> Vec<String> {
        let mut reasons = self.busy.clone();
        // Of several runs each has said it for itself.
        if !self.series.is_empty() {
            return reasons;
        }
        if self.measured.own_cpu_share > OWN_CPU_SHARE_MAX {
            let percent = 100.0 * self.measured.own_cpu_share;
            reasons.push(format!("the load test itself used {percent:.0} % of a CPU: it may have been the bottleneck"));
        }
        // One process has said it of its CPU.
        if self.own_cpu_sum > self.measured.own_cpu_share {
            reasons.extend(crowded(self.own_cpu_sum, thread::available_parallelism().map_or(1, usize::from)));
        }
        if self.measured.own_wait_share > OWN_WAIT_SHARE_MAX {
            let percent = 100.0 * self.measured.own_wait_share;
            reasons.push(format!("the load test waited for its CPU {percent:.0} % of the time: others ran there"));
        }
        let reported =
            self.latencies.iter().filter(|(_, latency)| latency.len() > 0).min_by_key(|(_, latency)| latency.quantile(0.99));
        let Some((name, p99)) = reported.map(|(name, latency)| (name, latency.quantile(0.99))) else { return reasons };
        reasons.extend(beyond_tenth("events waited inside the load test", self.lag.quantile(0.99), name, p99));
        if let Some((name, lateness)) = &self.lateness
            && let Some((_, latency)) = self.latencies.iter().find(|(other, _)| other == name)
        {
            reasons.extend(late(name, lateness, latency));
        }
        reasons
    }
}

/// Why a latency that counts from when something was due must not be quoted, if the tool itself was late.
pub fn late(name: &str, lateness: &Histogram, latency: &Histogram) -> Option<String> {
    beyond_tenth("the load test sent late", lateness.quantile(0.99), name, latency.quantile(0.99))
}

/// Why several processes on so many CPUs may have left too little to themselves and to the server.
fn crowded(sum: f64, cpus: usize) -> Option<String> {
    (sum > OWN_CPU_SHARE_MAX * cpus as f64).then(|| {
        let percent = 100.0 * sum;
        format!(
            "the load test's processes used {percent:.0} % of a CPU together, and there are {cpus}: none was left for the server"
        )
    })
}

fn beyond_tenth(what: &str, lag: Nanos, name: &str, p99: Nanos) -> Option<String> {
    let is_beyond = lag as f64 > LAG_SHARE_MAX * p99 as f64;
    is_beyond.then(|| format!("{what} by {} at p99: more than a tenth of the {} of {name}", time(lag), time(p99)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_run_that_measured_itself_is_invalid_and_says_why() {
        assert_eq!(report(0.8, 1_000, 20_000).invalid(), Vec::<String>::new());
        assert!(report(0.81, 1_000, 20_000).to_string().contains("INVALID: the load test itself used 81 %"));
        let lagging = report(0.1, 1_000, 9_000);
        assert!(lagging.to_string().contains("INVALID: events waited inside the load test by 1.00 µs at p99"));
        assert_eq!(lagging.to_json()["valid"], false);
        let mut late = report(0.1, 10, 9_000);
        late.lateness = Some(("round_trip", report(0.0, 5_000, 1).lag));
        assert_eq!(late.invalid().len(), 1);
    }

    #[test]
    fn a_tool_that_waited_for_its_cpu_is_a_reason_of_its_own() {
        let mut starved = report(0.1, 10, 9_000);
        starved.measured.own_wait_share = 0.1;
        assert!(starved.invalid().is_empty());
        starved.measured.own_wait_share = 0.11;
        assert_eq!(starved.busy_tool(), ["the load test waited for its CPU 11 % of the time: others ran there"]);
    }

    #[test]
    fn a_run_that_could_not_do_what_was_asked_is_invalid() {
        let with = |operations, lost| {
            let mut run = report(0.1, 10, 9_000);
            run.measured.operations = operations;
            run.parameters = vec![("connections", 3.into())];
            run.fault("connections_lost", lost);
            run
        };
        assert!(with(1, 2).invalid().is_empty(), "what is left can be measured");
        assert_eq!(with(1, 3).all_doubts(), ["all connections were lost: see why the first was"]);
        assert_eq!(with(0, 0).all_doubts(), ["nothing was measured: no message was completed in the measured part"]);
        assert_eq!(with(0, 3).to_json()["doubts"].as_array().map(Vec::len), Some(2));
        let idle = Report { latencies: Vec::new(), ..with(0, 0) };
        assert!(idle.invalid().is_empty(), "idle connections complete nothing");
        assert!(Report { interrupted: true, ..with(0, 0) }.invalid().is_empty(), "it had no time to");
    }

    #[test]
    fn several_processes_are_weighed_against_all_cpus() {
        assert_eq!((crowded(1.6, 2), crowded(2.4, 4)), (None, None));
        assert!(crowded(2.37, 2).unwrap().contains("used 237 % of a CPU together, and there are 2"));
        let mut run = report(0.79, 10, 9_000);
        assert!(run.invalid().is_empty());
        // However many CPUs this machine has, these are too many for it.
        (0..2 * thread::available_parallelism().unwrap().get()).for_each(|_| run.add_own_cpu(0.79, false));
        assert_eq!((run.busy_tool().len(), run.measured.own_cpu_share), (1, 0.79));
        assert!(run.busy_tool()[0].contains("the load test's processes used"));
    }
}
