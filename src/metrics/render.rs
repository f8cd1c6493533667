//! The page that `/metrics` answers with.

use super::{BUCKETS_NS, Counter, Gauge, Handler, Histogram, Label, ProcessFacts, Status, Transport, WorkerMetrics, text::Text};
use std::borrow::Borrow;

/// The `Content-Type` of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric, in an order that never changes: summed over the workers, except those with a label `worker`.
#[must_use]
pub fn render<W: Borrow<WorkerMetrics>>(workers: &[W], process: &ProcessFacts) -> String {
    let sums = Sums { workers };
    let mut text = Text::default();
    about(&mut text, &sums, process);
    connections(&mut text, &sums);
    messages(&mut text, &sums);
    loops(&mut text, &sums);
    answers(&mut text, &sums);
    of_the_process(&mut text, process);
    text.into_page()
}

fn about<W: Borrow<WorkerMetrics>>(text: &mut Text, sums: &Sums<'_, W>, process: &ProcessFacts) {
    text.gauge("fantail_build_info", "Always 1; the labels tell the version and the driver in use.")
        .labelled_twice([("version", env!("CARGO_PKG_VERSION")), ("io", process.io)], 1);
    text.gauge("fantail_draining", "1 while the server is stopping, else 0.").value(u8::from(process.draining));
    let clients = Transport::ALL.iter().filter(|transport| **transport != Transport::Admin);
    let open = clients.map(|&transport| sums.gauge(|worker| worker.connections.of(transport)));
    let remaining: u64 = if process.draining { open.sum() } else { 0 };
    text.gauge("fantail_drain_remaining_connections", "Connections that a stopping server still has to close.").value(remaining);
}

fn connections<W: Borrow<WorkerMetrics>>(text: &mut Text, sums: &Sums<'_, W>) {
    text.gauge("fantail_connections", "Open connections.")
        .each("transport", |label| sums.gauge(|worker| worker.connections.of(label)));
    text.counter("fantail_connections_accepted_total", "Connections accepted from a listener.")
        .value(sums.counter(|worker| &worker.connections_accepted));
    text.counter("fantail_connections_rejected_total", "Connections refused.")
        .each("reason", |label| sums.counter(|worker| worker.connections_rejected.of(label)));
    text.counter("fantail_connections_closed_total", "Connections ended, by why.")
        .each("cause", |label| sums.counter(|worker| worker.connections_closed.of(label)));
    text.gauge("fantail_subscriptions", "Subscriptions in force.").value(sums.gauge(|worker| &worker.subscriptions));
    text.gauge("fantail_patterns", "Patterns with subscribers, counted on each worker.")
        .value(sums.gauge(|worker| &worker.patterns));
    text.gauge("fantail_topics", "Topics that are alive.").value(sums.gauge(|worker| &worker.topics));
}

fn messages<W: Borrow<WorkerMetrics>>(text: &mut Text, sums: &Sums<'_, W>) {
    text.counter("fantail_messages_published_total", "Publications accepted.")
        .each("source", |label| sums.counter(|worker| worker.messages_published.of(label)));
    text.counter("fantail_messages_sent_total", "Messages whose last byte the kernel took.")
        .each("transport", |label| sums.counter(|worker| worker.messages_sent.of(label)));
    text.counter("fantail_messages_dropped_total", "Messages meant for a subscriber and not sent.")
        .each("reason", |label| sums.counter(|worker| worker.messages_dropped.of(label)));
    text.counter("fantail_received_bytes_total", "Bytes read from sockets.").value(sums.counter(|worker| &worker.received_bytes));
    text.counter("fantail_sent_bytes_total", "Bytes the kernel took.")
        .each("transport", |label| sums.counter(|worker| worker.sent_bytes.of(label)));
    let (counts, sum_ns) = sums.histogram(|worker| &worker.fanout_duration);
    text.histogram(
        "fantail_fanout_duration_seconds",
        "From a publication's number to the last write of its fan-out on a worker.",
    )
    .buckets(counts, sum_ns);
    text.counter("fantail_recoveries_total", "Resumes with a cursor, by whether all that was missed was kept.")
        .each("result", |label| sums.counter(|worker| worker.recoveries.of(label)));
    text.gauge("fantail_presence_members", "Members of topics with presence, those in grace included; each topic counts.")
        .value(sums.gauge(|worker| &worker.presence_members));
    text.gauge("fantail_presence_watchers", "Connections that are told of members; each topic counts.")
        .value(sums.gauge(|worker| &worker.presence_watchers));
    text.counter("fantail_presence_events_total", "What was told of members, counted once for all who were told.")
        .each("event", |label| sums.gauge(|worker| worker.presence_events.of(label)));
    text.gauge("fantail_history_bytes", "Bytes of the publications that are kept.")
        .value(sums.gauge(|worker| &worker.history_bytes));
    text.gauge("fantail_store_queue_bytes", "Bytes of the publications that wait for the store.")
        .value(sums.gauge(|worker| &worker.store_queue_bytes));
    text.gauge("fantail_outbox_bytes", "Bytes that wait in outboxes.").value(sums.gauge(|worker| &worker.outbox_bytes));
}

fn loops<W: Borrow<WorkerMetrics>>(text: &mut Text, sums: &Sums<'_, W>) {
    let mut busy = text.gauge("fantail_worker_busy_ratio", "Share of the time in which a worker was not waiting.");
    for (number, worker) in sums.workers.iter().enumerate() {
        busy.labelled("worker", number, worker.borrow().busy_ratio.get());
    }
    let (counts, sum_ns) = sums.histogram(|worker| &worker.turn);
    text.histogram("fantail_worker_turn_seconds", "How long a worker's turns take, without the wait.").buckets(counts, sum_ns);
    text.counter("fantail_mailbox_full_total", "Messages that found the mailbox of a worker full and had to wait.")
        .value(sums.counter(|worker| &worker.mailbox_full));
    text.counter("fantail_io_troubles_total", "What the kernel refused a driver for the moment; all of it is made good.")
        .each("kind", |label| sums.gauge(|worker| worker.io_troubles.of(label)));
    text.gauge("fantail_memory_bytes", "Memory by use.").each("kind", |label| sums.gauge(|worker| worker.memory_bytes.of(label)));
}

/// Only what occurred: most handlers never give most codes.
fn answers<W: Borrow<WorkerMetrics>>(text: &mut Text, sums: &Sums<'_, W>) {
    let mut requests = text.counter("fantail_http_requests_total", "Requests answered.");
    for &handler in Handler::ALL {
        for &status in Status::ALL {
            let answers = sums.add(|worker| worker.answers(handler, status));
            if answers > 0 {
                requests.labelled_twice([("handler", handler.name()), ("code", status.name())], answers);
            }
        }
    }
}

fn of_the_process(text: &mut Text, process: &ProcessFacts) {
    text.counter(
        "fantail_log_lines_dropped_total",
        "Lines of the log that were lost: stderr was not read, or could not be written.",
    )
    .value(process.log_lines_dropped);
    if let Some(overflows) = process.listen_overflows {
        text.counter(
            "fantail_listen_overflows_total",
            "Connections the kernel dropped at a full listen queue, in the whole network namespace.",
        )
        .value(overflows);
    }
    if let Some(bytes) = process.resident_memory_bytes {
        text.gauge("process_resident_memory_bytes", "Physical memory in use.").value(bytes);
    }
    if let Some(seconds) = process.cpu_seconds {
        text.counter("process_cpu_seconds_total", "Processor time used.").value(seconds);
    }
    if let Some(descriptors) = process.open_fds {
        text.gauge("process_open_fds", "Open file descriptors.").value(descriptors);
    }
    if let Some(descriptors) = process.max_fds {
        text.gauge("process_max_fds", "The soft limit of file descriptors.").value(descriptors);
    }
    if let Some(seconds) = process.start_time_seconds {
        text.gauge("process_start_time_seconds", "When the process started, since 1970.").value(seconds);
    }
}

/// Adds up cells over the workers. Sums wrap as gauges do.
struct Sums<'w, W> {
    workers: &'w [W],
}

impl<W: Borrow<WorkerMetrics>> Sums<'_, W> {
    fn add(&self, number: impl Fn(&WorkerMetrics) -> u64) -> u64 {
        self.workers.iter().fold(0, |sum, worker| sum.wrapping_add(number(worker.borrow())))
    }

    fn counter(&self, cell: impl Fn(&WorkerMetrics) -> &Counter) -> u64 {
        self.add(|worker| cell(worker).get())
    }

    /// 0 where the sum is below it: one worker's subtraction was read, another's addition not yet.
    fn gauge(&self, cell: impl Fn(&WorkerMetrics) -> &Gauge) -> u64 {
        self.add(|worker| cell(worker).get()).cast_signed().max(0).cast_unsigned()
    }

    fn histogram(&self, cell: impl Fn(&WorkerMetrics) -> &Histogram) -> ([u64; BUCKETS_NS.len() + 1], u64) {
        let mut counts = [0; BUCKETS_NS.len() + 1];
        for worker in self.workers {
            for (sum, count) in counts.iter_mut().zip(cell(worker.borrow()).counts()) {
                *sum += count;
            }
        }
        (counts, self.add(|worker| cell(worker).sum_ns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Cause, DropReason, Source};
    use std::{collections::HashSet, sync::Arc};

    fn two_workers() -> Vec<Arc<WorkerMetrics>> {
        let workers: Vec<Arc<WorkerMetrics>> = (0..2).map(|_| Arc::default()).collect();
        for (number, worker) in workers.iter().enumerate() {
            let n = number as u64 + 1;
            worker.connections.of(Transport::WebSocket).add(10 * n);
            worker.connections_closed.of(Cause::NoPong).add(n);
            worker.messages_published.of(Source::Post).add(n);
            worker.messages_dropped.of(DropReason::Latest).add(n);
            worker.busy_ratio.set(n, 4);
            worker.turn.observe_ns(n * 1_000_000_000);
            worker.answered(Handler::Topics, 200);
            worker.answered(Handler::Other, 299);
        }
        workers
    }

    fn page(draining: bool) -> String {
        let facts = ProcessFacts { io: "epoll", draining, open_fds: Some(9), cpu_seconds: Some(0.25), ..ProcessFacts::default() };
        render(&two_workers(), &facts)
    }

    #[test]
    fn workers_are_added_up_except_where_they_are_named() {
        let page = page(true);
        for line in [
            "fantail_connections{transport=\"websocket\"} 30",
            "fantail_connections{transport=\"http\"} 0",
            "fantail_connections_closed_total{cause=\"no_pong\"} 3",
            "fantail_messages_published_total{source=\"post\"} 3",
            "fantail_messages_dropped_total{reason=\"latest\"} 3",
            "fantail_worker_busy_ratio{worker=\"0\"} 0.25",
            "fantail_worker_busy_ratio{worker=\"1\"} 0.5",
            "fantail_worker_turn_seconds_bucket{le=\"1\"} 1",
            "fantail_worker_turn_seconds_sum 3",
            "fantail_http_requests_total{handler=\"topics\",code=\"200\"} 2",
            "fantail_http_requests_total{handler=\"other\",code=\"other\"} 2",
            "fantail_draining 1",
            "fantail_drain_remaining_connections 30",
            "process_open_fds 9",
            "process_cpu_seconds_total 0.25",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in {page}");
        }
        assert!(!page.contains("process_max_fds"), "what is not known is left out");
    }

    #[test]
    fn a_gauge_read_halfway_is_not_huge() {
        let workers = two_workers();
        workers[0].subscriptions.sub(1);
        assert!(render(&workers, &ProcessFacts::default()).contains("\nfantail_subscriptions 0\n"));
    }

    #[test]
    fn nothing_remains_to_drain_while_nobody_drains() {
        assert!(page(false).contains("\nfantail_drain_remaining_connections 0\n"));
    }

    /// The rules of the format that a scraper insists on: HELP and TYPE once and before the samples, counters named `_total`,
    /// samples of a metric together, none twice, each value a number, a newline at the end.
    #[test]
    fn the_page_keeps_the_rules_of_the_format() {
        let page = page(true);
        assert!(page.ends_with('\n'));
        let (mut metrics, mut samples) = (HashSet::new(), HashSet::new());
        let (mut helped, mut current, mut kind) = ("", "", "");
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split(' ').next().unwrap();
                assert!(metrics.insert(helped) && help.ends_with('.'), "{line}");
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                (current, kind) = typed.split_once(' ').unwrap();
                assert_eq!(current, helped);
                assert_eq!(current.ends_with("_total"), kind == "counter", "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                let own = name.strip_prefix(current).unwrap();
                let parts: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                assert!(parts.contains(&own) && samples.insert(sample), "{line}");
                assert!(value.parse::<f64>().unwrap().is_finite());
            }
        }
    }
}
