//! What a worker can be told.

use std::sync::Arc;
use std::time::Duration;

use crate::class::Classes;
pub use crate::class::SlowConsumer;
use crate::hub::presence;
use crate::{engine, http1, io, routes, ws};

/// Settings of a worker; times in ticks, sizes in bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver's.
    pub io: io::Options,
    /// The HTTP reader's.
    pub http: http1::Limits,
    /// The WebSocket's.
    pub ws: ws::Options,
    /// What URLs mean.
    pub routes: routes::Options,
    /// Bytes that may wait for one connection.
    pub outbox_bytes_max: usize,
    /// Bytes that may wait for all connections of a worker.
    pub worker_outbox_bytes_max: u64,
    /// How long a publication waits for others before it is handed out.
    pub coalesce: Duration,
    /// What holds for which topics.
    pub classes: Arc<Classes>,
    /// The engine's.
    pub engine: engine::Limits,
    /// Bytes of durable publications that may wait for the disk.
    pub store_queue_bytes_max: usize,
    /// From the accept, or the first byte, to the end of a head.
    pub head_timeout: u32,
    /// Between two requests.
    pub idle_timeout: u32,
    /// From the head to the end of a body.
    pub body_timeout: u32,
    /// The window in which the kernel must take some bytes.
    pub write_timeout: u32,
    /// From a close frame to its answer.
    pub close_timeout: u32,
    /// How long a publication waits for its home worker.
    pub publish_timeout: u32,
    /// Over how long the closes of a drain are spread.
    pub drain_window: Duration,
    /// Connections of all workers together.
    pub connections_max: usize,
    /// Connections of one address; 0 for no limit.
    pub connections_per_address_max: u32,
    /// Connections accepted a second by all workers together.
    pub accept_rate: Option<f64>,
    /// A worker with far more connections than another hands new ones over.
    pub rebalance: bool,
    /// Connections that one turn begins to write to for a fan-out.
    pub fanout_slice: usize,
    /// Requests under way from one worker to another.
    pub mailbox_requests: usize,
    /// Deliveries waiting in one worker for another.
    pub mailbox_deliveries: usize,
    /// After how long a silent client is given up: ping interval and pong time-out.
    pub silence_max: Duration,
    /// The value of `Keep-Alive` on a 101: after how many seconds of silence a socket is cut.
    pub keep_alive: String,
    /// The name of the driver, for metrics.
    pub io_name: &'static str,
    /// Patterns with subscribers, counted on each worker, all workers together.
    pub patterns_max: usize,
    /// Presence's.
    pub presence: presence::Options,
}
