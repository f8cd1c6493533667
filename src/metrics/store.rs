//! What the store's thread counts.

use super::{Counter, Gauge, Histogram, text::Text};

/// The numbers of the store: written by its thread alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct StoreMetrics {
    /// From the moment at which a group was taken to that at which the disk had it; as many as groups.
    pub commit: Histogram,
    /// Changes in those groups.
    pub changes: Counter,
    /// Bytes that were written, copies included.
    pub written_bytes: Counter,
    /// Bytes of the log.
    pub log_bytes: Gauge,
    /// Bytes of what would be left were it written anew.
    pub live_bytes: Gauge,
    /// How often the store went down.
    pub failures: Counter,
    /// 1 while it takes publications.
    pub up: Gauge,
}

impl StoreMetrics {
    /// The store's part of the page, to be put behind that of [`super::render()`].
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Text::default();
        text.gauge("fantail_store_up", "1 while the store takes publications, 0 while it is down.").value(self.up.get());
        text.counter("fantail_store_failures_total", "How often the store went down.").value(self.failures.get());
        text.histogram("fantail_store_commit_seconds", "From taking a group to the disk having it; counts groups.")
            .buckets(self.commit.counts(), self.commit.sum_ns());
        text.counter("fantail_store_changes_total", "Changes in the groups that were stored.").value(self.changes.get());
        text.counter("fantail_store_written_bytes_total", "Bytes written to the store, copies included.")
            .value(self.written_bytes.get());
        text.gauge("fantail_store_log_bytes", "Bytes of the store's files.").value(self.log_bytes.get());
        text.gauge("fantail_store_live_bytes", "Bytes of what would be left were the store written anew.")
            .value(self.live_bytes.get());
        text.into_page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_number() {
        let metrics = StoreMetrics::default();
        metrics.commit.observe_ns(2_000_000);
        metrics.changes.add(3);
        metrics.written_bytes.add(4);
        metrics.log_bytes.set(6);
        metrics.live_bytes.set(5);
        metrics.failures.add(7);
        metrics.up.set(1);
        let page = metrics.render();
        for line in [
            "fantail_store_up 1",
            "fantail_store_failures_total 7",
            "fantail_store_commit_seconds_bucket{le=\"0.0025\"} 1",
            "fantail_store_commit_seconds_count 1",
            "fantail_store_changes_total 3",
            "fantail_store_written_bytes_total 4",
            "fantail_store_log_bytes 6",
            "fantail_store_live_bytes 5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
    }
}
