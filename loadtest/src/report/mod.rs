//! What a run found, as a table for people and as JSON for programs, and whether it may be believed.

use std::fmt;

use serde_json::{Number, Value, json};

use crate::clock::Nanos;
use crate::histogram::{Histogram, QUANTILES};
use crate::kernel::TcpCounters;
use crate::machine::{self, Commit, Machine};
use crate::measure::digits;
use crate::measured::Measured;

mod validity;

pub use validity::late;

/// One run.
#[derive(Debug)]
pub struct Report {
    command: &'static str,
    /// What one operation is.
    operation: &'static str,
    measured: Measured,
    /// What all processes of the tool used, as a share of one processor.
    own_cpu_sum: f64,
    /// The stretch of the kernel's counts of connections: like the tool's own, or like its rates.
    kernel_span: &'static str,
    /// How long events waited inside the tool.
    lag: Histogram,
    /// How late the tool was with what was due, in an open loop, and the name of the latency that counts from then.
    pub lateness: Option<(&'static str, Histogram)>,
    /// What the run was asked for.
    pub parameters: Vec<(&'static str, Number)>,
    /// Why none of the figures must be quoted, beside what holds for all commands.
    pub doubts: Vec<String>,
    /// Why rates and latencies must not be quoted, beside the tool's load and lag in this report: what the tool itself did wrong.
    pub busy: Vec<String>,
    /// What was counted, over the whole run, warm-up included.
    counts: Vec<Count>,
    /// Latencies of what was due within the measurement.
    pub latencies: Vec<(&'static str, Histogram)>,
    /// What is neither a count nor a latency.
    pub figures: Vec<Figure>,
    /// Figures that depend on a number.
    pub series: Vec<Series>,
    /// What a reader has to know to read the rest.
    pub notes: Vec<String>,
    /// Somebody pressed Ctrl-C.
    pub interrupted: bool,
}

#[derive(Debug)]
struct Count {
    name: &'static str,
    value: u64,
    /// More than none of it means that something went wrong.
    is_fault: bool,
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

/// A figure at several values of a number, such as the count of workers.
#[derive(Debug)]
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// Of what.
    pub unit: &'static str,
    /// The number, and the figure there.
    pub points: Vec<(u64, f64)>,
}

impl Report {
    /// A report without latencies and counts.
    pub fn new(command: &'static str, operation: &'static str, measured: Measured, lag: Histogram) -> Self {
        Self {
            command,
            operation,
            own_cpu_sum: measured.own_cpu_share,
            measured,
            kernel_span: "measured part",
            lag,
            lateness: None,
            parameters: Vec::new(),
            doubts: Vec::new(),
            busy: Vec::new(),
            counts: Vec::new(),
            latencies: Vec::new(),
            figures: Vec::new(),
            series: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
        }
    }

    /// Of a run that somebody ended before anything was measured.
    pub fn cut_short(command: &'static str, operation: &'static str) -> Self {
        Self { interrupted: true, ..Self::new(command, operation, Measured::default(), Histogram::new()) }
    }

    /// What was measured between the two ends.
    pub const fn measured(&self) -> &Measured {
        &self.measured
    }

    /// The kernel's counts of connections are of the whole run, as the tool's are to which they are compared.
    pub const fn tell_kernel_of_whole_run(&mut self, tcp: Option<TcpCounters>) {
        self.measured.tcp = tcp;
        self.kernel_span = "whole run";
    }

    /// Tells what was counted.
    pub fn tell(&mut self, name: &'static str, value: u64) {
        self.counts.push(Count { name, value, is_fault: false });
    }

    /// Tells how often something went wrong.
    pub fn fault(&mut self, name: &'static str, value: u64) {
        self.counts.push(Count { name, value, is_fault: true });
    }

    /// A count by its name.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.counts.iter().find(|count| count.name == name).map(|count| count.value)
    }

    /// What went wrong first of all that is counted, and how often.
    pub fn first_fault(&self) -> Option<(&'static str, u64)> {
        self.counts.iter().find(|count| count.is_fault && count.value > 0).map(|count| (count.name, count.value))
    }

    /// Adds to a count that is there.
    pub fn add_count(&mut self, name: &str, more: u64) {
        self.counts.iter_mut().filter(|count| count.name == name).for_each(|count| count.value += more);
    }

    /// Adds the counts of another part of the same run.
    pub fn add_counts_of(&mut self, other: &Self) {
        for &Count { name, value, is_fault } in &other.counts {
            match self.count(name) {
                Some(_) => self.add_count(name, value),
                None => self.counts.push(Count { name, value, is_fault }),
            }
        }
    }

    /// Adds to a latency that is there.
    pub fn add_latency(&mut self, name: &str, more: &Histogram) {
        self.latencies.iter_mut().filter(|(other, _)| *other == name).for_each(|(_, latency)| latency.add(more));
    }

    /// Puts another histogram in the place of a latency that is there.
    pub fn replace_latency(&mut self, name: &str, by: Histogram) {
        if let Some((_, latency)) = self.latencies.iter_mut().find(|(other, _)| *other == name) {
            *latency = by;
        }
    }

    /// Adds another process's lag.
    pub fn add_lag(&mut self, more: &Histogram) {
        self.lag.add(more);
    }

    /// Adds operations that another process counted.
    pub const fn add_operations(&mut self, more: u64) {
        self.measured.operations += more;
    }

    /// Takes another process's use of a CPU into account: added where both share one, else the larger counts, and the sum against
    /// all CPUs.
    pub const fn add_own_cpu(&mut self, share: f64, is_shared: bool) {
        let own = self.measured.own_cpu_share;
        self.own_cpu_sum += share;
        self.measured.own_cpu_share = if is_shared { own + share } else { own.max(share) };
    }

    /// Takes another process's wait for a CPU into account: the longest counts.
    pub const fn add_own_wait(&mut self, share: f64) {
        self.measured.own_wait_share = self.measured.own_wait_share.max(share);
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
            "ended": machine::timestamp(),
            "machine": Machine::read(),
            "commit": Commit::read(),
            "command": self.command,
            "valid": self.invalid().is_empty() && !self.interrupted,
            "invalid_because": self.invalid(),
            "busy_tool": self.busy_tool(),
            "doubts": self.all_doubts(),
            "faults": self.counts.iter().filter(|count| count.is_fault).map(|count| count.name).collect::<Vec<_>>(),
            "interrupted": self.interrupted,
            "parameters": self.parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect::<serde_json::Map<_, _>>(),
            "operation": self.operation,
            "seconds": measured.seconds,
            "operations": measured.operations,
            "operations_per_second": self.rate(),
            "operations_per_cpu_second": self.per_cpu_second(),
            "server_cpu": self.cost().map(|(user, system)| json!({
                "user_us_per_operation": user, "system_us_per_operation": system, "us_per_operation": user + system,
            })),
            "server_cpu_seconds": measured.server.map(|cpu| json!({"user": cpu.user, "system": cpu.system})),
            "own": {"cpu_share": measured.own_cpu_share, "cpu_sum": self.own_cpu_sum, "wait_share": measured.own_wait_share, "lag": self.lag.to_json(), "lateness": self.lateness.as_ref().map(|(_, lateness)| lateness.to_json())},
            "server_workers": {"cpu_seconds": measured.workers, "skew": measured.skew()},
            "softirq": {"seconds": measured.softirq_seconds, "us_per_operation": self.per_operation(measured.softirq_seconds)},
            "tcp": measured.tcp.map(|tcp| json!({
                "span": self.kernel_span, "listen_overflows": tcp.listen_overflows, "syn_retransmits": tcp.syn_retransmits,
                "active_opens": tcp.active_opens, "failed_opens": tcp.failed_opens,
            })),
            "counts": self.counts.iter().map(|count| (count.name.to_owned(), count.value.into())).collect::<serde_json::Map<_, _>>(),
            "figures": figures.collect::<serde_json::Map<_, _>>(),
            "series": self.series.iter().map(|series| json!({"name": series.name, "unit": series.unit, "points": series.points})).collect::<Vec<_>>(),
            "latencies": histograms(&self.latencies),
            "notes": self.notes,
        })
    }

    /// How long events waited inside the tool.
    pub const fn lag(&self) -> &Histogram {
        &self.lag
    }

    /// Operations a second of the server's processor time; None without operations.
    pub fn per_cpu_second(&self) -> Option<f64> {
        let server = self.measured.server.filter(|_| self.measured.operations > 0)?;
        Some(self.measured.operations as f64 / (server.user + server.system)).filter(|rate| rate.is_finite())
    }

    /// Operations a second.
    pub fn rate(&self) -> f64 {
        if self.measured.seconds > 0.0 { self.measured.operations as f64 / self.measured.seconds } else { 0.0 }
    }

    /// Microseconds an operation; None without operations.
    fn per_operation(&self, seconds: f64) -> Option<f64> {
        (self.measured.operations > 0).then(|| seconds * 1e6 / self.measured.operations as f64)
    }

    /// The server's processor time per operation in microseconds, user and system.
    fn cost(&self) -> Option<(f64, f64)> {
        let server = self.measured.server?;
        self.per_operation(server.user).zip(self.per_operation(server.system))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { seconds, operations, .. } = self.measured;
        write!(f, "{}, {seconds:.1} s measured{}", self.command, if self.interrupted { ", interrupted" } else { "" })?;
        self.parameters.iter().try_for_each(|(name, value)| write!(f, ", {} {value}", name.replace('_', " ")))?;
        writeln!(f)?;
        if operations > 0 {
            writeln!(f, "  {:<22} {:.0} a second ({operations} in all)", plural(self.operation), self.rate())?;
        }
        if let Some((user, system)) = self.cost() {
            let sum = user + system;
            writeln!(f, "  {:<22} {sum:.2} µs a {} ({user:.2} user, {system:.2} system)", "server CPU", self.operation)?;
        }
        if let Some(rate) = self.per_cpu_second() {
            writeln!(f, "  {:<22} {rate:.0} a second of the server's CPU time", "")?;
        }
        if let Some(skew) = self.measured.skew() {
            writeln!(f, "  {:<22} the busiest had {skew:.2} times the mean's CPU time", "server workers")?;
        }
        if let Some(softirq) = self.per_operation(self.measured.softirq_seconds) {
            writeln!(f, "  {:<22} {softirq:.2} µs a {}, of the whole machine", "softirq", self.operation)?;
        }
        for figure in &self.figures {
            writeln!(f, "  {:<22} {} {}", figure.name.replace('_', " "), digits(figure.value), figure.unit)?;
        }
        for Series { name, unit, points } in &self.series {
            write!(f, "  {:<22}", name.replace('_', " "))?;
            points.iter().try_for_each(|(at, value)| write!(f, " {at}: {value:.2}{unit}"))?;
            writeln!(f)?;
        }
        self.write_latencies(f)?;
        for Count { name, value, .. } in &self.counts {
            writeln!(f, "  {:<22} {value}", name.replace('_', " "))?;
        }
        if let Some(TcpCounters { listen_overflows, syn_retransmits, active_opens, failed_opens }) = self.measured.tcp {
            let name = format!("kernel, {}", self.kernel_span);
            write!(f, "  {name:<22} {listen_overflows} listen overflows, {syn_retransmits} SYN retransmits")?;
            writeln!(f, ", {active_opens} opens, {failed_opens} of them failed")?;
        }
        let [used, waited] = [self.measured.own_cpu_share, self.measured.own_wait_share].map(|share| 100.0 * share);
        write!(f, "  {:<22} {used:.0} % of a CPU, {waited:.1} % waiting for it", "load test itself")?;
        write!(f, ", lag p99 {}", time(self.lag.quantile(0.99)))?;
        match &self.lateness {
            Some((_, lateness)) => writeln!(f, ", sent late p99 {}", time(lateness.quantile(0.99)))?,
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
        write!(f, "  {:<22}", "latency")?;
        QUANTILES.iter().try_for_each(|(name, _)| write!(f, " {name:>10}"))?;
        writeln!(f)?;
        for (name, latency) in &self.latencies {
            write!(f, "  {:<22}", name.replace('_', " "))?;
            let shown = |share| latency.known_quantile(share).map_or_else(|| "-".to_owned(), time);
            QUANTILES.iter().try_for_each(|&(_, share)| write!(f, " {:>10}", shown(share)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Three digits and the unit they suit.
fn time(nanos: Nanos) -> String {
    let (value, unit) = match nanos {
        0..1_000 => (nanos as f64, "ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "µs"),
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
    use crate::cpu::CpuTime;

    /// A run with one event of this lag and one message of this latency.
    pub fn report(own_cpu_share: f64, lag: Nanos, latency: Nanos) -> Report {
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
    fn cost_is_per_operation_and_absent_without_a_process() {
        let mut report = report(0.1, 1, 1_000_000);
        assert!(report.to_json()["server_cpu"].is_null());
        report.measured.server = Some(CpuTime { user: 0.001, system: 0.002, ..CpuTime::default() });
        assert!(report.to_string().contains("300.00 µs a message (100.00 user, 200.00 system)"), "{report}");
        assert!(report.to_string().contains("of the server's CPU time"), "{report}");
        report.measured.operations = 0;
        assert!(!report.to_string().contains("CPU time") && report.per_cpu_second().is_none(), "no zero: {report}");
    }

    #[test]
    fn the_kernel_s_counts_say_what_they_are_of_and_are_no_zeros_where_there_are_none() {
        let mut report = report(0.1, 1, 1_000_000);
        assert!(report.to_json()["tcp"].is_null() && !report.to_string().contains("kernel"), "{report}");
        report.measured.tcp = Some(TcpCounters { active_opens: 5, ..TcpCounters::default() });
        assert!(report.to_string().contains("kernel, measured part"), "{report}");
        report.tell_kernel_of_whole_run(Some(TcpCounters { active_opens: 7, ..TcpCounters::default() }));
        assert!(report.to_string().contains("kernel, whole run      0 listen overflows, 0 SYN retransmits, 7 opens"), "{report}");
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            [5, 1_234, 56_780, 999_499_999, 61_000_000_000].map(time),
            ["5.00 ns", "1.23 µs", "56.8 µs", "999 ms", "61.0 s"]
        );
    }
}
