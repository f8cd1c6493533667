//! What of a run's JSON is compared: one number by name, with its unit and whether more of it is better.

use std::collections::BTreeMap;

use serde_json::Value;

/// Latencies that stand for their run, by command: connect, fan-outs, echo, publish, resume, storm. Others are parts of these.
const MAIN_LATENCIES: [&str; 6] = ["whole", "delivery", "round_trip", "answer", "up_to_date", "back"];

/// What the server used for what was done, however busy whoever asked for it was.
const SERVER_SIDE: [&str; 8] =
    [CPU, "cpu_user_us", "cpu_system_us", MEMORY, "pss_per_connection", "kernel_per_connection", "rss", "idle_cpu"];

/// Server CPU time per operation, the figure to compare.
pub const CPU: &str = "cpu_us";

/// Operations a second.
pub const RATE: &str = "per_second";

/// Growth of resident memory per connection, what `hold` is about.
pub const MEMORY: &str = "rss_per_connection";

/// How far the figures of a run may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// All of them.
    All,
    /// Only what the server used: the load test itself was busy or late, so rates and latencies may be its own. On a machine of two
    /// CPUs that is what a fast server does to it.
    ServerSide,
    /// None: something was lost, refused, interrupted, or went wrong otherwise.
    Nothing,
}

impl Worth {
    /// Whether this figure may be believed.
    pub fn covers(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::ServerSide => SERVER_SIDE.contains(&name),
            Self::Nothing => false,
        }
    }
}

/// All numbers of a run by name; what it has not is not there.
pub fn values(run: &Value) -> BTreeMap<String, f64> {
    let cpu = &run["server_cpu"];
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: &Value, scale: f64| {
        if let Some(value) = value.as_f64() {
            all.insert(name.to_owned(), value * scale);
        }
    };
    put(CPU, &cpu["us_per_operation"], 1.0);
    put("cpu_user_us", &cpu["user_us_per_operation"], 1.0);
    put("cpu_system_us", &cpu["system_us_per_operation"], 1.0);
    if run["operations"].as_u64().is_some_and(|operations| operations > 0) {
        put(RATE, &run["operations_per_second"], 1.0);
    }
    if let Some((_, latency)) = main_latency(run) {
        put("p50_us", &latency["quantiles"]["p50"], 1e-3);
        put("p99_us", &latency["quantiles"]["p99"], 1e-3);
    }
    for (name, figure) in run["figures"].as_object().into_iter().flatten() {
        put(name, &figure["value"], 1.0);
    }
    all
}

/// The latency that stands for a run, with its name; `None` if it has only parts of one.
pub fn main_latency(run: &Value) -> Option<(&str, &Value)> {
    let all = run["latencies"].as_object()?;
    let counted = |(_, latency): &(&String, &Value)| latency["count"].as_u64().is_some_and(|count| count > 0);
    let main = MAIN_LATENCIES.iter().find_map(|&name| all.get_key_value(name).filter(&counted));
    main.map(|(name, latency)| (name.as_str(), latency))
}

/// The number that a test is about: memory where it is measured, otherwise processor time, otherwise what there is.
pub fn main(names: &[&str]) -> Option<&'static str> {
    [MEMORY, CPU, RATE].into_iter().find(|name| names.contains(name))
}

/// Whether more of it is better.
pub fn more_is_better(name: &str) -> bool {
    name == RATE
}

/// How far a run's figures may be believed.
pub fn worth(run: &Value) -> Worth {
    match (is_wrong(run), strings(&run["busy_tool"]).next().is_some()) {
        (true, _) => Worth::Nothing,
        (false, true) => Worth::ServerSide,
        (false, false) => Worth::All,
    }
}

/// Why a run's figures must not be quoted; empty if they may.
pub fn flaws(run: &Value) -> Vec<String> {
    let invalid = strings(&run["doubts"]).chain(strings(&run["busy_tool"])).map(|reason| format!("INVALID: {reason}"));
    let faults = faults(run).map(|(name, count)| format!("{count} {}", name.replace('_', " ")));
    invalid.chain(faults).collect()
}

/// Whether something was lost, refused, cut short or went wrong otherwise.
fn is_wrong(run: &Value) -> bool {
    run["interrupted"] == true || strings(&run["doubts"]).next().is_some() || faults(run).next().is_some()
}

/// The counts that mean that something went wrong, if there are any.
fn faults(run: &Value) -> impl Iterator<Item = (&str, u64)> {
    strings(&run["faults"]).filter_map(|name| Some((name, run["counts"][name].as_u64().filter(|&count| count > 0)?)))
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What a number is called in a table.
pub fn title(name: &str) -> String {
    match name {
        CPU => "CPU µs/op".to_owned(),
        "cpu_user_us" => "user".to_owned(),
        "cpu_system_us" => "system".to_owned(),
        RATE => "ops/s".to_owned(),
        "p50_us" => "p50".to_owned(),
        "p99_us" => "p99".to_owned(),
        MEMORY => "RSS/conn".to_owned(),
        "pss_per_connection" => "PSS/conn".to_owned(),
        "kernel_per_connection" => "kernel/conn".to_owned(),
        "idle_cpu" => "idle CPU".to_owned(),
        other => other.replace('_', " "),
    }
}

/// A number as a table has it.
pub fn show(name: &str, value: f64) -> String {
    match name {
        RATE => thousands(value),
        "p50_us" | "p99_us" => microseconds(value),
        MEMORY | "pss_per_connection" | "kernel_per_connection" => format!("{} B", thousands(value)),
        "rss" => format!("{value:.1} MiB"),
        "idle_cpu" => format!("{value:.1} %"),
        _ => digits(value),
    }
}

/// Three digits.
pub fn digits(value: f64) -> String {
    match value.abs() {
        100.0.. => thousands(value),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A ratio: two decimals, as more of them would be noise.
pub fn ratio(value: f64) -> String {
    match value {
        100.0.. => thousands(value),
        9.995.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A length of time in its own unit.
pub fn microseconds(value: f64) -> String {
    match value {
        1e6.. => format!("{} s", digits(value / 1e6)),
        1e3.. => format!("{} ms", digits(value / 1e3)),
        _ => format!("{} µs", digits(value)),
    }
}

/// The same for the ticks of an axis, which are round.
pub fn microseconds_short(value: f64) -> String {
    let (value, unit) = match value {
        0.999e6.. => (value / 1e6, "s"),
        0.999e3.. => (value / 1e3, "ms"),
        _ => (value, "µs"),
    };
    format!("{} {unit}", (value * 1e3).round() / 1e3)
}

/// A whole number with its thousands apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value <= -0.5 { format!("−{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::histogram::Histogram;
    use crate::measured::Measured;
    use crate::report::Report;

    #[test]
    fn a_run_is_taken_apart() {
        let run = json!({
            "operations": 10, "operations_per_second": 5.0,
            "server_cpu": {"us_per_operation": 3.0, "user_us_per_operation": 1.0, "system_us_per_operation": 2.0},
            "latencies": {"tcp": {"count": 1, "quantiles": {}}, "whole": {"count": 9, "quantiles": {"p50": 1000, "p99": 2500}}},
            "figures": {"rss_per_connection": {"value": 88.5, "unit": "B"}},
            "counts": {"lost": 0, "reset": 2, "opened": 9}, "faults": ["lost", "reset"],
        });
        let values = values(&run);
        let names: Vec<&str> = values.keys().map(String::as_str).collect();
        assert_eq!(names, ["cpu_system_us", CPU, "cpu_user_us", "p50_us", "p99_us", RATE, MEMORY]);
        assert_eq!((values["p99_us"], values[MEMORY]), (2.5, 88.5));
        assert_eq!(main(&names), Some(MEMORY));
        assert_eq!(main_latency(&run).unwrap().0, "whole");
        let parts = json!({"latencies": {"tcp": {"count": 9}, "whole": {"count": 0}}});
        assert_eq!(main_latency(&parts), None, "a part is not the whole");
        assert_eq!(flaws(&run), ["2 reset"]);
        let invalid = json!({"doubts": ["too slow"], "server_cpu": null});
        assert_eq!((flaws(&invalid), worth(&invalid)), (vec!["INVALID: too slow".to_owned()], Worth::Nothing));
        assert_eq!(super::values(&invalid).len(), 0);
    }

    #[test]
    fn a_busy_tool_says_nothing_against_the_server_s_cpu_time() {
        let report = |own_cpu_share: f64, lag: u64, lost: u64| {
            let measured = Measured { seconds: 1.0, operations: 9, own_cpu_share, ..Measured::default() };
            let of = |value: u64| {
                let mut histogram = Histogram::new();
                histogram.record(value);
                histogram
            };
            let mut report = Report::new("echo", "message", measured, of(lag));
            report.lateness = Some(("round_trip", of(lag)));
            report.latencies = vec![("round_trip", of(10_000))];
            report.fault("lost", lost);
            report
        };
        let worth_of = |report: &Report| worth(&report.to_json());
        assert_eq!(worth_of(&report(0.5, 1, 0)), Worth::All);
        // Its load, its lag, its lateness.
        let busy = report(0.9, 9_000, 0);
        assert_eq!((busy.invalid().len(), worth_of(&busy)), (3, Worth::ServerSide));
        assert_eq!(worth_of(&report(0.9, 1, 1)), Worth::Nothing, "lost");
        for mut cut_short in [report(0.9, 1, 0), report(0.5, 1, 0)] {
            cut_short.interrupted = true;
            assert_eq!(worth_of(&cut_short), Worth::Nothing);
        }
        let mut doubted = report(0.9, 1, 0);
        doubted.doubts = vec!["the kernel counted fewer".to_owned()];
        assert_eq!(worth_of(&doubted), Worth::Nothing, "operations that were none make CPU time per operation wrong");
        assert!(Worth::ServerSide.covers(CPU) && !Worth::ServerSide.covers(RATE) && !Worth::ServerSide.covers("p99_us"));
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0.0, 999.4, 1000.0, 1234567.0, -1234.0].map(thousands), ["0", "999", "1,000", "1,234,567", "−1,234"]);
        assert_eq!([0.1234, 1.236, 23.45, 456.7].map(digits), ["0.123", "1.24", "23.4", "457"]);
        assert_eq!([12.3, 4_560.0, 7.89e6].map(microseconds), ["12.3 µs", "4.56 ms", "7.89 s"]);
    }
}
