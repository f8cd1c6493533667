//! A report as rows of a CSV file (RFC 4180), one number each, so that many runs add up to one table.
//!
//! Each row has the whole command line, so two runs that differed in anything can be told apart, whatever it was.

use std::fs::OpenOptions;
use std::path::Path;

use serde_json::Value;

use crate::report::Report;

/// The first row of a file.
const HEAD: [&str; 7] = ["ended", "command_line", "command", "parameters", "name", "value", "unit"];

/// Numbers of a report's JSON beside figures, counts, series and latencies: where they stand there, their name and unit.
const NUMBERS: [(&str, &str, &str); 17] = [
    ("/seconds", "seconds", "s"),
    ("/operations", "operations", ""),
    ("/operations_per_second", "rate", "1/s"),
    ("/operations_per_cpu_second", "rate_per_cpu_second", "1/s"),
    ("/server_cpu/user_us_per_operation", "server_cpu_user", "µs"),
    ("/server_cpu/system_us_per_operation", "server_cpu_system", "µs"),
    ("/server_workers/skew", "server_worker_skew", ""),
    ("/softirq/us_per_operation", "softirq", "µs"),
    ("/tcp/listen_overflows", "listen_overflows", ""),
    ("/tcp/syn_retransmits", "syn_retransmits", ""),
    ("/tcp/active_opens", "active_opens", ""),
    ("/tcp/failed_opens", "failed_opens", ""),
    ("/own/cpu_share", "own_cpu_share", ""),
    ("/own/wait_share", "own_wait_share", ""),
    ("/own/lag/quantiles/p99", "own_lag p99", "ns"),
    ("/own/lag/quantiles/max", "own_lag max", "ns"),
    ("/own/lateness/quantiles/p99", "own_lateness p99", "ns"),
];

/// Appends, so that runs add up; a new file begins with the names of its columns.
///
/// # Errors
/// The kernel's.
pub fn append(reports: &[Report], path: &Path) -> csv::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let is_new = file.metadata()?.len() == 0;
    let mut writer = csv::Writer::from_writer(file);
    if is_new {
        writer.write_record(HEAD)?;
    }
    for report in reports {
        rows(&report.to_json()).iter().try_for_each(|row| writer.write_record(row))?;
    }
    Ok(writer.flush()?)
}

/// The rows of one report, from its JSON.
fn rows(run: &Value) -> Vec<[String; 7]> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words: Vec<String> = run["command_line"].as_array().into_iter().flatten().map(text).collect();
    let members = |member: &str| run[member].as_object().into_iter().flatten();
    let parameters: Vec<String> = members("parameters").map(|(name, value)| format!("{name}={}", text(value))).collect();
    let head = [text(&run["ended"]), words.join(" "), text(&run["command"]), parameters.join(";")];
    let mut rows = Vec::new();
    let mut row = |name: String, value: &Value, unit: &str| {
        if value.is_number() {
            let [ended, line, command, parameters] = head.clone();
            rows.push([ended, line, command, parameters, name, value.to_string(), unit.to_owned()]);
        }
    };
    row("valid".to_owned(), &u8::from(run["valid"] == true).into(), "");
    for (place, name, unit) in NUMBERS {
        row(name.to_owned(), run.pointer(place).unwrap_or(&Value::Null), unit);
    }
    members("figures").for_each(|(name, figure)| row(name.clone(), &figure["value"], &text(&figure["unit"])));
    members("counts").for_each(|(name, value)| row(name.clone(), value, ""));
    for series in run["series"].as_array().into_iter().flatten() {
        for point in series["points"].as_array().into_iter().flatten() {
            row(format!("{} {}", text(&series["name"]), text(&point[0])), &point[1], &text(&series["unit"]));
        }
    }
    for (name, latency) in members("latencies") {
        let quantiles = latency["quantiles"].as_object().into_iter().flatten();
        quantiles.for_each(|(quantile, value)| row(format!("{name} {quantile}"), value, "ns"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_number_of_a_run_has_a_row_that_says_whose_it_is() {
        let run = json!({
            "ended": "2026-11-25T00:00:00Z", "command_line": ["tool", "fanout", "ws://a,b", "--rate", "20"], "command": "fanout",
            "valid": true, "parameters": {"connections": 3, "size": 64}, "seconds": 2.5, "operations": 9, "server_cpu": null,
            "figures": {"rss": {"value": 1.5, "unit": "MiB"}}, "counts": {"lost": 2},
            "series": [{"name": "efficiency", "unit": "", "points": [[1.0, 1.0], [2.0, 0.9]]}],
            "latencies": {"delivery": {"quantiles": {"p50": 7, "p99": 8}}},
        });
        let rows = rows(&run);
        assert!(
            rows.iter()
                .all(|row| row[..4]
                    == ["2026-11-25T00:00:00Z", "tool fanout ws://a,b --rate 20", "fanout", "connections=3;size=64"])
        );
        let tails: Vec<String> = rows.iter().map(|row| row[4..].join(",")).collect();
        let expected = [
            "valid,1,",
            "seconds,2.5,s",
            "operations,9,",
            "rss,1.5,MiB",
            "lost,2,",
            "efficiency 1.0,1.0,",
            "efficiency 2.0,0.9,",
            "delivery p50,7,ns",
            "delivery p99,8,ns",
        ];
        assert_eq!(tails, expected);
    }
}
