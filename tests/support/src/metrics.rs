//! Reads `/metrics` of the admin listener.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::server::Server;
use crate::wire::Connection;
use crate::{PATIENCE, eventually};

/// All series at one moment.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    series: Vec<Series>,
}

#[derive(Clone, Debug)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the text format. Label values hold no quotes or commas: no client can put any there.
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { series: lines.map(series).collect() }
    }

    /// The sum of the series with this name and these labels; 0 if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |series: &&Series| {
            series.name == name && labels.iter().all(|(key, value)| series.labels.get(*key).is_some_and(|found| found == value))
        };
        // Starts from +0.0: the sum of no floats at all is -0.0, which would be printed.
        self.series.iter().filter(matches).fold(0.0, |sum, series| sum + series.value)
    }

    /// Whether a series has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.series.iter().any(|series| series.name == name)
    }
}

/// Reads `/metrics` again and again on one connection, so that looking adds to no count of connections.
pub struct Scraper(Connection);

impl Scraper {
    /// What `/metrics` says now.
    #[must_use]
    #[track_caller]
    pub fn metrics(&mut self) -> Metrics {
        let response = self.0.get("/metrics");
        assert_eq!(response.status, 200);
        Metrics::parse(response.text())
    }

    /// Waits until the sum of these series is `value`: workers may publish their counts a turn later.
    #[track_caller]
    pub fn expect_metric(&mut self, name: &str, labels: &[(&str, &str)], value: f64) -> Duration {
        let what = format!("{name}{labels:?} = {value}");
        eventually(&what, PATIENCE, || self.metrics().sum(name, labels) == value)
    }
}

impl Server {
    /// A reader of `/metrics` that stays connected.
    #[must_use]
    #[track_caller]
    pub fn scraper(&self) -> Scraper {
        Scraper(Connection::open(self.admin))
    }

    /// What `/metrics` says now.
    #[must_use]
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        self.scraper().metrics()
    }

    /// Waits as [`Scraper::expect_metric`] does.
    #[track_caller]
    pub fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) -> Duration {
        self.scraper().expect_metric(name, labels, value)
    }
}

#[track_caller]
fn series(line: &str) -> Series {
    let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line:?}"));
    let (name, labels) = key.strip_suffix('}').and_then(|key| key.split_once('{')).unwrap_or((key, ""));
    let label = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("not a label: {line:?}"));
        (name.to_string(), value.trim_matches('"').to_string())
    };
    Series {
        name: name.into(),
        labels: labels.split(',').filter(|pair| !pair.is_empty()).map(label).collect(),
        value: value.parse().unwrap_or_else(|_| panic!("not a number: {line:?}")),
    }
}
