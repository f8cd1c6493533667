//! What a run found, as a table for people and as JSON for programs, and whether it may be believed.

use std::fmt;

use serde_json::{Value, json};

use crate::clock::Nanos;
use crate::cpu::CpuTime;
use crate::histogram::{Histogram, QUANTILES};

/// Beyond this share of one processor the tool may have been the bottleneck.
const OWN_CPU_SHARE_MAX: f64 = 0.8;

/// The tool's own lag may be this share of what it reports.
const LAG_SHARE_MAX: f64 = 0.1;

/// One run.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    /// What one operation is.
    operation: &'static str,
    measured: Measured,
    /// How long events waited inside the tool.
    lag: Histogram,
    /// How late the tool was with what was due, in an open loop.
    pub lateness: Option<Histogram>,
    /// What was counted, over the whole run, warm-up included.
    pub counts: Vec<(&'static str, u64)>,
    /// Latencies of what was due within the measurement.
    pub latencies: Vec<(&'static str, Histogram)>,
    /// What is neither a count nor a latency.
    pub figures: Vec<Figure>,
    /// What a reader has to know to read the rest.
    pub notes: Vec<String>,
    /// Somebody pressed Ctrl-C.
    pub interrupted: bool,
}

/// What there was between the two ends of the measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// How long it took.
    pub seconds: f64,
    /// Operations that were completed.
    pub operations: u64,
    /// The tool's own processor time, as a share of one processor.
    pub own_cpu_share: f64,
    /// The server's processor time.
    pub server: Option<CpuTime>,
    /// By the kernel's count.
    pub listen_overflows: u64,
    /// By the kernel's count.
    pub syn_retransmits: u64,
}

/// A named amount.
#[derive(Debug)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

impl Report {
    /// A report without latencies and counts.
    pub fn new(command: &'static str, operation: &'static str, measured: Measured, lag: Histogram) -> Self {
        Self {
            command,
            operation,
            measured,
            lag,
            lateness: None,
            counts: Vec::new(),
            latencies: Vec::new(),
            figures: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
        }
    }

    /// Why the figures must not be quoted; empty if they may.
    pub fn invalid(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.measured.own_cpu_share > OWN_CPU_SHARE_MAX {
            let percent = 100.0 * self.measured.own_cpu_share;
            reasons.push(format!("the load test itself used {percent:.0} % of a CPU: it may have been the bottleneck"));
        }
        let reported =
            self.latencies.iter().filter(|(_, latency)| latency.len() > 0).min_by_key(|(_, latency)| latency.quantile(0.99));
        let Some((name, p99)) = reported.map(|(name, latency)| (name, latency.quantile(0.99))) else { return reasons };
        let lags = [("events waited inside the load test", Some(&self.lag)), ("the load test sent late", self.lateness.as_ref())];
        for (what, lag) in lags.into_iter().filter_map(|(what, lag)| Some((what, lag?.quantile(0.99)))) {
            if lag as f64 > LAG_SHARE_MAX * p99 as f64 {
                reasons.push(format!("{what} by {} at p99: more than a tenth of the {} of {name}", time(lag), time(p99)));
            }
        }
        reasons
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let measured = &self.measured;
        let histograms = |all: &[(&'static str, Histogram)]| -> Value {
            all.iter()
                .map(|(name, histogram)| ((*name).to_owned(), histogram.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let figures =
            self.figures.iter().map(|figure| (figure.name.to_owned(), json!({"value": figure.value, "unit": figure.unit})));
        json!({
            "tool": concat!("fantail-loadtest ", env!("CARGO_PKG_VERSION")),
            "command_line": std::env::args().collect::<Vec<_>>(),
            "kernel": rustix::system::uname().release().to_string_lossy(),
            "cpus": std::thread::available_parallelism().map_or(0, usize::from),
            "command": self.command,
            "valid": self.invalid().is_empty() && !self.interrupted,
            "invalid_because": self.invalid(),
            "interrupted": self.interrupted,
            "operation": self.operation,
            "seconds": measured.seconds,
            "operations": measured.operations,
            "operations_per_second": self.rate(),
            "server_cpu": self.cost().map(|(user, system)| json!({
                "user_us_per_operation": user, "system_us_per_operation": system, "us_per_operation": user + system,
            })),
            "server_cpu_seconds": measured.server.map(|cpu| json!({"user": cpu.user, "system": cpu.system})),
            "own": {"cpu_share": measured.own_cpu_share, "lag": self.lag.to_json(), "lateness": self.lateness.as_ref().map(Histogram::to_json)},
            "tcp": {"listen_overflows": measured.listen_overflows, "syn_retransmits": measured.syn_retransmits},
            "counts": self.counts.iter().map(|&(name, count)| (name.to_owned(), count.into())).collect::<serde_json::Map<_, _>>(),
            "figures": figures.collect::<serde_json::Map<_, _>>(),
            "latencies": histograms(&self.latencies),
            "notes": self.notes,
        })
    }

    fn rate(&self) -> f64 {
        if self.measured.seconds > 0.0 { self.measured.operations as f64 / self.measured.seconds } else { 0.0 }
    }

    /// The server's processor time per operation in microseconds, user and system.
    fn cost(&self) -> Option<(f64, f64)> {
        let per_operation = |seconds: f64| seconds * 1e6 / self.measured.operations as f64;
        let server = self.measured.server.filter(|_| self.measured.operations > 0)?;
        Some((per_operation(server.user), per_operation(server.system)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { seconds, operations, .. } = self.measured;
        writeln!(f, "{}, {seconds:.1} s measured{}", self.command, if self.interrupted { ", interrupted" } else { "" })?;
        if operations > 0 {
            writeln!(f, "  {:<18} {:.0} a second ({operations} in all)", plural(self.operation), self.rate())?;
        }
        if let Some((user, system)) = self.cost() {
            let sum = user + system;
            writeln!(f, "  {:<18} {sum:.2} us a {} ({user:.2} user, {system:.2} system)", "server CPU", self.operation)?;
        }
        for figure in &self.figures {
            writeln!(f, "  {:<18} {:.1} {}", figure.name.replace('_', " "), figure.value, figure.unit)?;
        }
        self.write_latencies(f)?;
        for (name, count) in &self.counts {
            writeln!(f, "  {:<18} {count}", name.replace('_', " "))?;
        }
        let Measured { listen_overflows, syn_retransmits, own_cpu_share, .. } = self.measured;
        writeln!(f, "  {:<18} {listen_overflows} listen overflows, {syn_retransmits} SYN retransmits", "kernel")?;
        let (percent, lag) = (100.0 * own_cpu_share, self.lag.quantile(0.99));
        write!(f, "  {:<18} {percent:.0} % of a CPU, lag p99 {}", "load test itself", time(lag))?;
        match &self.lateness {
            Some(lateness) => writeln!(f, ", sent late p99 {}", time(lateness.quantile(0.99)))?,
            None => writeln!(f)?,
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))?;
        self.invalid().iter().try_for_each(|reason| writeln!(f, "INVALID: {reason}"))
    }
}

impl Report {
    fn write_latencies(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.latencies.is_empty() {
            return Ok(());
        }
        write!(f, "  {:<18}", "latency")?;
        QUANTILES.iter().try_for_each(|(name, _)| write!(f, " {name:>10}"))?;
        writeln!(f)?;
        for (name, latency) in &self.latencies {
            write!(f, "  {:<18}", name.replace('_', " "))?;
            QUANTILES.iter().try_for_each(|&(_, share)| write!(f, " {:>10}", time(latency.quantile(share))))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits and the unit they suit.
fn time(nanos: Nanos) -> String {
    let (value, unit) = match nanos {
        0..1_000 => (nanos as f64, "ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

fn plural(operation: &str) -> String {
    operation.strip_suffix('y').map_or_else(|| format!("{operation}s"), |stem| format!("{stem}ies"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(own_cpu_share: f64, lag: Nanos, latency: Nanos) -> Report {
        let filled = |value| {
            let mut histogram = Histogram::new();
            histogram.record(value);
            histogram
        };
        let measured = Measured { seconds: 2.0, operations: 10, own_cpu_share, ..Measured::default() };
        let mut report = Report::new("echo", "message", measured, filled(lag));
        report.latencies = vec![("round_trip", filled(latency))];
        report
    }

    #[test]
    fn a_run_that_measured_itself_is_invalid_and_says_why() {
        assert_eq!(report(0.8, 1_000, 20_000).invalid(), Vec::<String>::new());
        assert!(report(0.81, 1_000, 20_000).to_string().contains("INVALID: the load test itself used 81 %"));
        let lagging = report(0.1, 1_000, 9_000);
        assert!(lagging.to_string().contains("INVALID: events waited inside the load test by 1.00 us at p99"));
        assert_eq!(lagging.to_json()["valid"], false);
        let mut late = report(0.1, 10, 9_000);
        late.lateness = Some(report(0.0, 5_000, 1).lag);
        assert_eq!(late.invalid().len(), 1);
    }

    #[test]
    fn cost_is_per_operation_and_absent_without_a_process() {
        let mut report = report(0.1, 1, 1_000_000);
        assert!(report.to_json()["server_cpu"].is_null());
        report.measured.server = Some(CpuTime { user: 0.001, system: 0.002 });
        assert!(report.to_string().contains("300.00 us a message (100.00 user, 200.00 system)"), "{report}");
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            [5, 1_234, 56_780, 999_499_999, 61_000_000_000].map(time),
            ["5.00 ns", "1.23 us", "56.8 us", "999 ms", "61.0 s"]
        );
    }
}
