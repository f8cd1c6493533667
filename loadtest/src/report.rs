//! What a run found, as a table for people and as JSON for programs, and whether it may be believed.

use std::fmt;

use serde_json::{Value, json};

use crate::clock::Nanos;
use crate::cpu::CpuTime;
use crate::histogram::{Histogram, QUANTILES};
use crate::kernel::TcpCounters;
use crate::machine::{self, Commit, Machine};

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
    /// How late the tool was with what was due, in an open loop, and the name of the latency that counts from then.
    pub lateness: Option<(&'static str, Histogram)>,
    /// What the run was asked for.
    pub parameters: Vec<(&'static str, u64)>,
    /// Why none of the figures must be quoted.
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

/// What there was between the two ends of the measurement.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// How long it took.
    pub seconds: f64,
    /// Operations that were completed.
    pub operations: u64,
    /// The tool's own processor time, as a share of one processor.
    pub own_cpu_share: f64,
    /// The server's processor time.
    pub server: Option<CpuTime>,
    /// Processor time of each of the server's workers, in seconds, the idle ones included.
    pub workers: Vec<f64>,
    /// What the whole machine spent in softirqs, in seconds.
    pub softirq_seconds: f64,
    /// By the kernel's count.
    pub tcp: TcpCounters,
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

impl Measured {
    /// Two stretches one after the other, as if they were one. What workers did is told of each alone.
    pub fn and(self, other: &Self) -> Self {
        let seconds = self.seconds + other.seconds;
        let own_seconds = self.own_cpu_share * self.seconds + other.own_cpu_share * other.seconds;
        Self {
            seconds,
            operations: self.operations + other.operations,
            own_cpu_share: if seconds > 0.0 { own_seconds / seconds } else { 0.0 },
            server: self.server.map_or(other.server, |server| other.server.map(|other| server.and(other))),
            workers: Vec::new(),
            softirq_seconds: self.softirq_seconds + other.softirq_seconds,
            tcp: self.tcp.and(other.tcp),
        }
    }

    /// How much busier the busiest worker was than the mean of them: 1 is even. None of a server with one worker.
    pub fn skew(&self) -> Option<f64> {
        let busiest = self.workers.iter().copied().fold(0.0, f64::max);
        let mean = self.workers.iter().sum::<f64>() / self.workers.len() as f64;
        (self.workers.len() > 1 && mean > 0.0).then_some(busiest / mean)
    }
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

    /// Takes another process's use of a CPU into account: added where both share one, else the larger counts.
    pub const fn add_own_cpu(&mut self, share: f64, is_shared: bool) {
        let own = self.measured.own_cpu_share;
        self.measured.own_cpu_share = if is_shared { own + share } else { own.max(share) };
    }

    /// Why the figures must not be quoted; empty if they may.
    pub fn invalid(&self) -> Vec<String> {
        [self.doubts.clone(), self.busy_tool()].concat()
    }

    /// Why rates and latencies may be the tool's own. What the server used for each operation is right all the same.
    pub fn busy_tool(&self) -> Vec<String> {
        let mut reasons = self.busy.clone();
        if self.measured.own_cpu_share > OWN_CPU_SHARE_MAX {
            let percent = 100.0 * self.measured.own_cpu_share;
            reasons.push(format!("the load test itself used {percent:.0} % of a CPU: it may have been the bottleneck"));
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
            "doubts": self.doubts,
            "faults": self.counts.iter().filter(|count| count.is_fault).map(|count| count.name).collect::<Vec<_>>(),
            "interrupted": self.interrupted,
            "parameters": self.parameters.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, _>>(),
            "operation": self.operation,
            "seconds": measured.seconds,
            "operations": measured.operations,
            "operations_per_second": self.rate(),
            "operations_per_cpu_second": self.per_cpu_second(),
            "server_cpu": self.cost().map(|(user, system)| json!({
                "user_us_per_operation": user, "system_us_per_operation": system, "us_per_operation": user + system,
            })),
            "server_cpu_seconds": measured.server.map(|cpu| json!({"user": cpu.user, "system": cpu.system})),
            "own": {"cpu_share": measured.own_cpu_share, "lag": self.lag.to_json(), "lateness": self.lateness.as_ref().map(|(_, lateness)| lateness.to_json())},
            "server_workers": {"cpu_seconds": measured.workers, "skew": measured.skew()},
            "softirq": {"seconds": measured.softirq_seconds, "us_per_operation": self.per_operation(measured.softirq_seconds)},
            "tcp": {
                "listen_overflows": measured.tcp.listen_overflows, "syn_retransmits": measured.tcp.syn_retransmits,
                "active_opens": measured.tcp.active_opens, "failed_opens": measured.tcp.failed_opens,
            },
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

    /// Operations a second of the server's processor time.
    pub fn per_cpu_second(&self) -> Option<f64> {
        let server = self.measured.server?;
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

    /// Appends a line for each figure: command, parameters, name, value, unit.
    pub fn write_csv(&self, out: &mut String) {
        let parameters: Vec<String> = self.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let head = format!("{},{}", self.command, parameters.join(";"));
        let mut line = |name: &str, value: &dyn fmt::Display, unit: &str| {
            out.extend([&head, ",", name, ",", &value.to_string(), ",", unit, "\n"])
        };
        line("valid", &u8::from(self.invalid().is_empty() && !self.interrupted), "");
        line("seconds", &self.measured.seconds, "s");
        line("operations", &self.measured.operations, self.operation);
        line("rate", &self.rate(), "1/s");
        if let Some((user, system)) = self.cost() {
            line("server_cpu_user", &user, "µs");
            line("server_cpu_system", &system, "µs");
        }
        self.figures.iter().for_each(|figure| line(figure.name, &figure.value, figure.unit));
        self.counts.iter().for_each(|count| line(count.name, &count.value, ""));
        for (name, latency) in &self.latencies {
            QUANTILES.iter().for_each(|(quantile, share)| line(&format!("{name} {quantile}"), &latency.quantile(*share), "ns"));
        }
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
            writeln!(f, "  {:<22} {:.1} {}", figure.name.replace('_', " "), figure.value, figure.unit)?;
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
        let TcpCounters { listen_overflows, syn_retransmits, active_opens, failed_opens } = self.measured.tcp;
        write!(f, "  {:<22} {listen_overflows} listen overflows, {syn_retransmits} SYN retransmits", "kernel")?;
        writeln!(f, ", {active_opens} opens, {failed_opens} of them failed")?;
        let (percent, lag) = (100.0 * self.measured.own_cpu_share, self.lag.quantile(0.99));
        write!(f, "  {:<22} {percent:.0} % of a CPU, lag p99 {}", "load test itself", time(lag))?;
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
            QUANTILES.iter().try_for_each(|&(_, share)| write!(f, " {:>10}", time(latency.quantile(share))))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Why a latency that counts from when something was due must not be quoted, if the tool itself was late.
pub fn late(name: &str, lateness: &Histogram, latency: &Histogram) -> Option<String> {
    beyond_tenth("the load test sent late", lateness.quantile(0.99), name, latency.quantile(0.99))
}

fn beyond_tenth(what: &str, lag: Nanos, name: &str, p99: Nanos) -> Option<String> {
    let is_beyond = lag as f64 > LAG_SHARE_MAX * p99 as f64;
    is_beyond.then(|| format!("{what} by {} at p99: more than a tenth of the {} of {name}", time(lag), time(p99)))
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
        assert!(lagging.to_string().contains("INVALID: events waited inside the load test by 1.00 µs at p99"));
        assert_eq!(lagging.to_json()["valid"], false);
        let mut late = report(0.1, 10, 9_000);
        late.lateness = Some(("round_trip", report(0.0, 5_000, 1).lag));
        assert_eq!(late.invalid().len(), 1);
    }

    #[test]
    fn cost_is_per_operation_and_absent_without_a_process() {
        let mut report = report(0.1, 1, 1_000_000);
        assert!(report.to_json()["server_cpu"].is_null());
        report.measured.server = Some(CpuTime { user: 0.001, system: 0.002, ..CpuTime::default() });
        assert!(report.to_string().contains("300.00 µs a message (100.00 user, 200.00 system)"), "{report}");
    }

    #[test]
    fn skew_is_told_of_several_workers_the_starved_included() {
        let skew = |workers: &[f64]| Measured { workers: workers.to_vec(), ..Measured::default() }.skew();
        assert_eq!((skew(&[3.0, 1.0]), skew(&[3.0, 0.0, 0.0])), (Some(1.5), Some(3.0)));
        assert_eq!((skew(&[3.0]), skew(&[]), skew(&[0.0, 0.0])), (None, None, None));
    }

    #[test]
    fn csv_has_a_line_for_each_figure() {
        let mut report = report(0.1, 1, 9_000);
        report.parameters = vec![("size", 64), ("connections", 3)];
        report.fault("lost", 2);
        let mut csv = String::new();
        report.write_csv(&mut csv);
        assert!(csv.contains("echo,size=64;connections=3,lost,2,\n"), "{csv}");
        assert!(
            csv.contains("echo,size=64;connections=3,round_trip p99,") && csv.lines().all(|line| line.split(',').count() == 5)
        );
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(
            [5, 1_234, 56_780, 999_499_999, 61_000_000_000].map(time),
            ["5.00 ns", "1.23 µs", "56.8 µs", "999 ms", "61.0 s"]
        );
    }
}
