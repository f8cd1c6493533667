//! `/.well-known/fantail` (RFC 8615): what a client may rely on, so that nothing has to be guessed before connecting.
//!
//! The object is flat and its names carry their unit, so that they are the same wherever a client meets them on the wire.

use serde::Serialize;

use super::json;
use super::options::{Limits, Options, Retry, Timeouts};

use crate::http1::Response;

#[derive(Serialize)]
struct WellKnown<'a> {
    server: &'static str,
    version: &'static str,
    transports: &'a [&'static str],
    #[serde(flatten)]
    timeouts: &'a Timeouts,
    #[serde(flatten)]
    limits: &'a Limits,
    max_subscriptions: usize,
    retry: &'a Retry,
}

/// Time-outs, limits and transports in force.
pub(super) fn well_known(options: &Options) -> Response {
    let told = WellKnown {
        server: "fantail",
        version: env!("CARGO_PKG_VERSION"),
        transports: &options.transports,
        timeouts: &options.timeouts,
        limits: &options.limits,
        max_subscriptions: options.subscriptions_max,
        retry: &options.retry,
    };
    json(&told).header("Cache-Control", "no-cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_client_may_rely_on_is_told() {
        let answer = well_known(&Options::default());
        let body: serde_json::Value = serde_json::from_slice(answer.body.as_bytes()).unwrap();
        let snapshot = serde_json::json!({
            "server": "fantail",
            "version": env!("CARGO_PKG_VERSION"),
            "transports": ["websocket", "sse", "ndjson", "poll", "post"],
            "head_timeout_ms": 10000,
            "idle_timeout_ms": 60000,
            "message_timeout_ms": 30000,
            "write_timeout_ms": 10000,
            "close_timeout_ms": 5000,
            "publish_timeout_ms": 5000,
            "idempotency_ttl_ms": 300000,
            "presence_grace_ms": 15000,
            "ping_ms": 25000,
            "pong_timeout_ms": 10000,
            "max_head_bytes": 16384,
            "max_message_bytes": 65536,
            "max_batch_publications": 100,
            "max_outbox_bytes": 1048576,
            "max_subscriptions": 128,
            "retry": { "min_ms": 500, "max_ms": 20000, "jitter": "full" },
        });
        assert_eq!((answer.status, body), (200, snapshot));
    }
}
