//! Latencies to three digits between a nanosecond and an hour.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde_json::{Value, json};

use crate::clock::{Nanos, SECOND};
use crate::failure::Failure;

/// The percentiles that tables and JSON show.
pub const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// The longest latency told apart; a longer one is recorded as this.
const LATENCY_MAX: Nanos = 3600 * SECOND;

/// Latencies in nanoseconds. Recording allocates nothing.
#[derive(Clone, Debug)]
pub struct Histogram(hdrhistogram::Histogram<u64>);

impl Histogram {
    /// An empty one.
    #[expect(clippy::expect_used, reason = "the bounds are constants that the crate accepts")]
    pub fn new() -> Self {
        Self(hdrhistogram::Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("fixed bounds"))
    }

    /// Records one latency.
    pub fn record(&mut self, latency: Nanos) {
        self.0.saturating_record(latency);
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.0.reset();
    }

    /// How many were recorded.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// The latency that a share (0 to 1) of all did not exceed; 0 of none.
    pub fn quantile(&self, share: f64) -> Nanos {
        self.0.value_at_quantile(share)
    }

    /// The same, if so many were recorded that one of them lies beyond; always for the median, unless there is none.
    pub fn known_quantile(&self, share: f64) -> Option<Nanos> {
        let beyond = self.len() as f64 * (1.0 - share);
        let is_known = self.len() > 0 && (share <= 0.5 || share >= 1.0 || beyond >= 1.0 - 1e-9);
        is_known.then(|| self.quantile(share))
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so there is always room.
        let _ = self.0.add(&other.0);
    }

    /// All of it as V2 of the HdrHistogram formats.
    pub fn to_base64(&self) -> String {
        let mut raw = Vec::new();
        // Writing into memory can't fail.
        let _ = V2Serializer::new().serialize(&self.0, &mut raw);
        BASE64_STANDARD.encode(raw)
    }

    /// The way back.
    pub fn from_base64(text: &str) -> Result<Self, Failure> {
        let raw = BASE64_STANDARD.decode(text).map_err(|_| Failure::Histogram)?;
        Deserializer::new().deserialize(&mut &raw[..]).map(Self).map_err(|_| Failure::Histogram)
    }

    /// Percentiles for readers, as far as there are enough for them, and all of it as V2 in base64 for other tools.
    pub fn to_json(&self) -> Value {
        let quantiles: serde_json::Map<_, _> =
            QUANTILES.iter().filter_map(|&(name, share)| Some((name.to_owned(), self.known_quantile(share)?.into()))).collect();
        json!({
            "unit": "ns", "count": self.len(), "min": if self.len() == 0 { 0 } else { self.0.min() }, "mean": self.0.mean(),
            "quantiles": quantiles, "hdr_v2_base64": self.to_base64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_carries_the_whole_histogram() {
        let mut histogram = Histogram::new();
        (1..=10_000).for_each(|latency| histogram.record(latency * 1000));
        let json = histogram.to_json();
        let mut back = Histogram::from_base64(json["hdr_v2_base64"].as_str().unwrap()).unwrap();
        assert_eq!((back.len(), back.quantile(0.99)), (10_000, histogram.quantile(0.99)));
        back.add(&histogram);
        assert_eq!((back.len(), back.quantile(0.99)), (20_000, histogram.quantile(0.99)));
        assert!(Histogram::from_base64("AAAA").is_err());
        let p99 = json["quantiles"]["p99"].as_u64().unwrap();
        assert!((9_900_000..=9_910_000).contains(&p99), "{p99}");
    }

    #[test]
    fn what_is_beyond_an_hour_is_an_hour_and_nothing_is_nothing() {
        let mut histogram = Histogram::new();
        assert_eq!((histogram.quantile(0.99), histogram.known_quantile(0.5)), (0, None));
        assert_eq!(histogram.to_json()["quantiles"], json!({}));
        histogram.record(Nanos::MAX);
        assert!(histogram.quantile(1.0) >= LATENCY_MAX);
        assert!(histogram.known_quantile(0.5).is_some() && histogram.known_quantile(1.0).is_some());
        assert_eq!(histogram.known_quantile(0.9), None, "none of one lies beyond");
        (0..9).for_each(|_| histogram.record(1));
        assert_eq!((histogram.known_quantile(0.9), histogram.known_quantile(0.99)), (Some(1), None));
    }
}
