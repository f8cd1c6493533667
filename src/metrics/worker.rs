//! What one worker counts.

use super::{
    Cause, Counter, DropReason, Gauge, Handler, Histogram, Label, MemoryKind, PerLabel, PresenceEvent, Ratio, Recovery,
    RejectReason, Source, Status, Transport, Trouble,
};

/// A worker's numbers: written by that worker alone, read by whoever renders them. They start on a cache line of their own (and
/// on a pair of lines, which some processors fetch together), so that workers don't slow each other down by counting.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    /// When the worker last finished a turn, in nanoseconds of the driver's clock; `/livez` fails when it gets old.
    pub last_turn_ns: Gauge,
    /// Open connections.
    pub connections: PerLabel<Transport, Gauge, { Transport::COUNT }>,
    /// Connections accepted from a listener.
    pub connections_accepted: Counter,
    /// Connections refused.
    pub connections_rejected: PerLabel<RejectReason, Counter, { RejectReason::COUNT }>,
    /// Connections ended.
    pub connections_closed: PerLabel<Cause, Counter, { Cause::ALL.len() }>,
    /// Subscriptions in force.
    pub subscriptions: Gauge,
    /// Patterns that connections of this worker subscribe to.
    pub patterns: Gauge,
    /// Topics that this worker is the home of.
    pub topics: Gauge,
    /// Publications accepted.
    pub messages_published: PerLabel<Source, Counter, { Source::COUNT }>,
    /// Messages whose last byte the kernel took.
    pub messages_sent: PerLabel<Transport, Counter, { Transport::COUNT }>,
    /// Messages meant for a subscriber and not sent.
    pub messages_dropped: PerLabel<DropReason, Counter, { DropReason::COUNT }>,
    /// Bytes read from sockets.
    pub received_bytes: Counter,
    /// Bytes the kernel took.
    pub sent_bytes: PerLabel<Transport, Counter, { Transport::COUNT }>,
    /// From a publication's number to the last write of its fan-out on this worker.
    pub fanout_duration: Histogram,
    /// Resumes with a cursor.
    pub recoveries: PerLabel<Recovery, Counter, { Recovery::COUNT }>,
    /// Members of the topics that this worker is the home of, those in grace included.
    pub presence_members: Gauge,
    /// Watchers of topics, each topic counted, among this worker's connections.
    pub presence_watchers: Gauge,
    /// What watchers of the topics that this worker is the home of were told, each once. Numbers that only grow.
    pub presence_events: PerLabel<PresenceEvent, Gauge, { PresenceEvent::COUNT }>,
    /// Bytes of the publications that are kept.
    pub history_bytes: Gauge,
    /// Bytes of the publications that wait for the store.
    pub store_queue_bytes: Gauge,
    /// Bytes that wait in outboxes.
    pub outbox_bytes: Gauge,
    /// Share of the time in which the worker was not waiting.
    pub busy_ratio: Ratio,
    /// How long turns take, without the wait.
    pub turn: Histogram,
    /// Messages that found a mailbox full and had to wait.
    pub mailbox_full: Counter,
    /// What the kernel refused the driver for the moment. Numbers that only grow, set once a second from the driver's own.
    pub io_troubles: PerLabel<Trouble, Gauge, { Trouble::COUNT }>,
    /// Memory by use.
    pub memory_bytes: PerLabel<MemoryKind, Gauge, { MemoryKind::COUNT }>,
    /// Answers by handler and status code; see [`Self::answered`].
    http_requests: [PerLabel<Status, Counter, { Status::COUNT }>; Handler::COUNT],
}

impl WorkerMetrics {
    /// Counts an answer. For the owner alone.
    pub fn answered(&self, handler: Handler, status_code: u16) {
        self.http_requests[handler.index()].of(Status::from_code(status_code)).add(1);
    }

    /// How many answers of this handler had this status.
    #[must_use]
    pub fn answers(&self, handler: Handler, status: Status) -> u64 {
        self.http_requests[handler.index()].of(status).get()
    }
}
