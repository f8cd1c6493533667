//! What the routes are told by the command line, and what they tell clients of it.

use std::sync::Arc;

use serde::Serialize;

use crate::auth::{AllowAnonymous, OriginPattern};
use crate::class::Classes;

/// The routes' share of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--allow-anonymous`.
    pub allow_anonymous: AllowAnonymous,
    /// `--allow-origin`; empty for the default, the same origin.
    pub allow_origin: Vec<OriginPattern>,
    /// `--base-path`: everything lives below it. `/`, `/push` and `/push/` are all fine.
    pub base_path: String,
    /// `--allow-delete`: who may publish may also delete what is kept.
    pub allow_delete: bool,
    /// `--page`: the embedded pages also on listeners that are not loopback.
    pub page: bool,
    /// `--echo`: the echo also on listeners that are not loopback.
    pub echo: bool,
    /// `--max-subscriptions` of one connection.
    pub subscriptions_max: usize,
    /// What holds for which topics.
    pub classes: Arc<Classes>,
    /// What `/.well-known/fantail` tells of time.
    pub timeouts: Timeouts,
    /// What it tells of sizes.
    pub limits: Limits,
    /// What it tells a client that lost its connection.
    pub retry: Retry,
    /// The ways to subscribe and publish that are in force.
    pub transports: Vec<&'static str>,
}

impl Options {
    /// The base path without a slash at its end: empty for `/`.
    pub(super) fn prefix(&self) -> &str {
        self.base_path.trim_end_matches('/')
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_anonymous: AllowAnonymous::Local,
            allow_origin: Vec::new(),
            base_path: "/".into(),
            allow_delete: false,
            page: false,
            echo: false,
            subscriptions_max: 128,
            classes: Arc::new(Classes::plain()),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            retry: Retry::default(),
            transports: vec!["websocket", "sse", "ndjson", "poll", "post"],
        }
    }
}

/// Every time-out a client can meet, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timeouts {
    /// `--head-timeout`: the whole head of a request.
    pub head_timeout_ms: u64,
    /// `--idle-timeout`: between two requests of a connection.
    pub idle_timeout_ms: u64,
    /// `--message-timeout`: a body or a WebSocket message, from its first byte to its last.
    pub message_timeout_ms: u64,
    /// `--write-timeout`: an outbox that does not get emptier.
    pub write_timeout_ms: u64,
    /// `--close-timeout`: a close that is not answered.
    pub close_timeout_ms: u64,
    /// `--publish-timeout`: until a POST is told 503.
    pub publish_timeout_ms: u64,
    /// `--idempotency-ttl`: how long a key is remembered.
    pub idempotency_ttl_ms: u64,
    /// `--presence-grace`: how long a member that was lost may stay away without having left.
    pub presence_grace_ms: u64,
    /// `--ping-interval`: silence before the server asks whether the client is there. 0 is never.
    pub ping_ms: u64,
    /// `--pong-timeout`: silence after that before it is taken for lost.
    pub pong_timeout_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            message_timeout_ms: 30_000,
            write_timeout_ms: 10_000,
            close_timeout_ms: 5_000,
            publish_timeout_ms: 5_000,
            idempotency_ttl_ms: 300_000,
            presence_grace_ms: 15_000,
            ping_ms: 25_000,
            pong_timeout_ms: 10_000,
        }
    }
}

/// Every size a client can run into, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// `--max-head-size`.
    pub max_head_bytes: usize,
    /// `--max-message-size`, of bodies and of WebSocket messages.
    pub max_message_bytes: usize,
    /// `--max-batch`: publications in one POST on `/topics`; a number, not bytes.
    pub max_batch_publications: usize,
    /// `--outbox-size`: what may wait for one connection.
    pub max_outbox_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_head_bytes: 16 << 10, max_message_bytes: 64 << 10, max_batch_publications: 100, max_outbox_bytes: 1 << 20 }
    }
}

/// How a client should come back: after a random time (full jitter) between `min_ms` and a bound that doubles up to `max_ms`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Retry {
    /// The shortest delay.
    pub min_ms: u32,
    /// Where the doubling ends.
    pub max_ms: u32,
    /// How the delay is drawn.
    pub jitter: &'static str,
}

impl Default for Retry {
    fn default() -> Self {
        Self { min_ms: 500, max_ms: 20_000, jitter: "full" }
    }
}
