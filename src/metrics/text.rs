//! Prometheus' text format 0.0.4: a HELP and a TYPE line per metric, then its samples.

use super::{BUCKETS_NS, Label};
use std::fmt::{Display, Write};

/// A page under way. Writing into a `String` cannot fail, so results of `write!` are dropped.
#[derive(Debug, Default)]
pub(super) struct Text {
    page: String,
}

/// The metric whose samples are being written.
pub(super) struct Samples<'t> {
    page: &'t mut String,
    name: &'static str,
}

impl Text {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        debug_assert!(name.ends_with("_total"), "counters end with _total");
        self.metric(name, "counter", help)
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.metric(name, "gauge", help)
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.metric(name, "histogram", help)
    }

    pub(super) fn into_page(self) -> String {
        self.page
    }

    fn metric(&mut self, name: &'static str, kind: &str, help: &str) -> Samples<'_> {
        debug_assert!(!help.contains(['\\', '\n']), "help needs no escape");
        let _ = writeln!(self.page, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Samples { page: &mut self.page, name }
    }
}

impl Samples<'_> {
    /// The only sample of a metric without labels.
    pub(super) fn value(self, value: impl Display) {
        let _ = writeln!(self.page, "{} {value}", self.name);
    }

    /// A sample with one label.
    pub(super) fn labelled(&mut self, label: &str, label_value: impl Display, value: impl Display) {
        let _ = writeln!(self.page, "{}{{{label}=\"{label_value}\"}} {value}", self.name);
    }

    /// A sample with two labels.
    pub(super) fn labelled_twice(&mut self, labels: [(&str, &str); 2], value: impl Display) {
        let [(one, one_value), (two, two_value)] = labels;
        let _ = writeln!(self.page, "{}{{{one}=\"{one_value}\",{two}=\"{two_value}\"}} {value}", self.name);
    }

    /// A sample for each value of a label, also where it's 0: a rate needs a first sample to start from.
    pub(super) fn each<L: Label, V: Display>(mut self, label: &str, value: impl Fn(L) -> V) {
        for &label_value in L::ALL {
            self.labelled(label, label_value.name(), value(label_value));
        }
    }

    /// The samples of a histogram, from the counts of single buckets. Buckets in the format hold what the ones below hold too.
    pub(super) fn buckets(self, counts: [u64; BUCKETS_NS.len() + 1], sum_ns: u64) {
        let Self { page, name } = self;
        let mut count = 0;
        for (&bound_ns, inside) in BUCKETS_NS.iter().zip(counts) {
            count += inside;
            let _ = writeln!(page, "{name}_bucket{{le=\"{}\"}} {count}", seconds(bound_ns));
        }
        count += counts[BUCKETS_NS.len()];
        let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {}\n{name}_count {count}", seconds(sum_ns));
    }
}

/// Nanoseconds in the base unit.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Source;

    #[test]
    fn samples_follow_their_help_and_type() {
        let mut text = Text::default();
        text.gauge("g", "A gauge.").value(1.5);
        text.counter("c_total", "A counter.").each("source", |source: Source| if source == Source::Post { 3 } else { 0 });
        assert_eq!(
            text.into_page(),
            "# HELP g A gauge.\n# TYPE g gauge\ng 1.5\n# HELP c_total A counter.\n# TYPE c_total counter\n\
             c_total{source=\"post\"} 3\nc_total{source=\"websocket\"} 0\n"
        );
    }

    #[test]
    fn buckets_hold_what_is_below_them() {
        let mut counts = [0; BUCKETS_NS.len() + 1];
        (counts[0], counts[2], counts[BUCKETS_NS.len()]) = (2, 1, 4);
        let mut text = Text::default();
        text.histogram("h", "Times.").buckets(counts, 1_500_000_000);
        let page = text.into_page();
        for line in [
            "h_bucket{le=\"0.00001\"} 2",
            "h_bucket{le=\"0.000025\"} 2",
            "h_bucket{le=\"0.00005\"} 3",
            "h_bucket{le=\"10\"} 3",
            "h_bucket{le=\"+Inf\"} 7",
            "h_sum 1.5",
            "h_count 7",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }
}
