//! Latency by percentile: the histograms of several runs as one, and that as a line.

use serde_json::Value;

use crate::histogram::Histogram;
use crate::measure;

/// The most nines that are drawn: beyond, a run of seconds has single latencies only.
const NINES_MAX: f64 = 5.0;

/// Points of a line for each nine.
const POINTS: usize = 12;

/// Where a line is marked: 50 %, 90 %, 99 % and so on.
pub fn marks() -> Vec<f64> {
    [0.5_f64.log10().abs()].into_iter().chain((1..=NINES_MAX as i32).map(f64::from)).collect()
}

/// The line of the latencies that stand for these runs: nines and microseconds. Empty if there is no histogram.
pub fn curve(runs: &[&Value]) -> Vec<(f64, f64)> {
    let Some(all) = merged(runs) else { return Vec::new() };
    // A percentile is shown as long as ten latencies lie beyond it.
    let nines = (all.len() as f64 / 10.0).max(1.0).log10().min(NINES_MAX);
    let steps = (nines * POINTS as f64) as usize;
    let mut at: Vec<f64> = (0..=steps).map(|step| step as f64 / POINTS as f64).collect();
    at.extend(marks().into_iter().filter(|&mark| mark <= nines));
    at.sort_by(f64::total_cmp);
    at.dedup_by(|a, b| (*a - *b).abs() < 1e-9);
    at.into_iter().map(|nines| (nines, all.quantile(1.0 - 10_f64.powf(-nines)) as f64 / 1e3)).collect()
}

fn merged(runs: &[&Value]) -> Option<Histogram> {
    let mut all = Histogram::new();
    for run in runs {
        let raw = measure::main_latency(run).and_then(|(_, latency)| latency["hdr_v2_base64"].as_str());
        raw.and_then(|raw| Histogram::from_base64(raw).ok()).iter().for_each(|one| all.add(one));
    }
    Some(all).filter(|all| all.len() > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(latencies_us: std::ops::RangeInclusive<u64>) -> Value {
        let mut histogram = Histogram::new();
        latencies_us.for_each(|latency| histogram.record(latency * 1000));
        json!({"latencies": {"round_trip": histogram.to_json()}})
    }

    #[test]
    fn runs_are_merged_before_percentiles_are_taken() {
        let curve = curve(&[&run(1..=500), &run(501..=1000)]);
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
        let at = |nines: f64| curve.iter().find(|point| (point.0 - nines).abs() < 1e-9).unwrap().1;
        assert!((at(1.0) - 900.0).abs() < 2.0 && (at(2.0) - 990.0).abs() < 2.0, "{curve:?}");
        assert!((at(0.5_f64.log10().abs()) - 500.0).abs() < 2.0);
        assert_eq!(curve.last().unwrap().0, 2.0, "beyond 99 % there are ten of a thousand");
    }

    #[test]
    fn what_has_no_histogram_has_no_line() {
        assert_eq!(curve(&[]), []);
        assert_eq!(curve(&[&json!({"latencies": {"a": {"count": 1, "hdr_v2_base64": "!"}}})]), []);
    }
}
