//! From one flat [`Config`] to the settings of each module.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{ByteSize, Config, TimeSpan};
use crate::class::{Class, Classes, History, Presence};
use crate::hub::presence;
use crate::limits::Tick;
use crate::{engine, http1, io, routes, worker, ws};

impl Config {
    /// The settings of each of so many `workers`. `connections_max` is what the machine allows, or what was asked for; `io_name` the
    /// driver they run on.
    #[must_use]
    pub fn worker_options(&self, workers: usize, connections_max: usize, io_name: &'static str) -> worker::Options {
        worker::Options {
            io: self.driver_options(),
            http: http1::Limits { head_bytes_max: bytes(self.max_head_size), body_bytes_max: bytes(self.max_message_size) },
            ws: ws::Options {
                message_bytes_max: bytes(self.max_message_size),
                ping_interval: ticks(self.ping_interval),
                pong_timeout: ticks(self.pong_timeout),
                message_timeout: ticks(self.message_timeout),
                close_timeout: ticks(self.close_timeout),
            },
            routes: self.routes_options(),
            outbox_bytes_max: bytes(self.outbox_size),
            worker_outbox_bytes_max: self.worker_outbox_size.bytes() as u64,
            coalesce: self.coalesce.into(),
            classes: Arc::new(self.classes()),
            engine: engine::Limits {
                topics_max: (self.max_topics as usize).div_ceil(workers),
                history_bytes_max: (bytes(self.history_memory) / workers) as u64,
                keys_max: self.idempotency_keys as usize,
                keys_ttl: self.idempotency_ttl.into(),
            },
            store_queue_bytes_max: bytes(self.store_queue),
            head_timeout: ticks(self.head_timeout),
            idle_timeout: ticks(self.idle_timeout),
            body_timeout: ticks(self.message_timeout),
            write_timeout: ticks(self.write_timeout),
            close_timeout: ticks(self.close_timeout),
            publish_timeout: ticks(self.publish_timeout),
            drain_window: self.drain_window.into(),
            connections_max,
            connections_per_address_max: self.max_connections_per_ip,
            accept_rate: (self.accept_rate > 0).then(|| f64::from(self.accept_rate)),
            rebalance: self.rebalance,
            fanout_slice: self.fanout_slice as usize,
            mailbox_requests: self.mailbox_size as usize,
            mailbox_deliveries: self.mailbox_size as usize,
            silence_max: Duration::from(self.ping_interval) + Duration::from(self.pong_timeout),
            keep_alive: format!("timeout={}", (millis(self.ping_interval) + millis(self.pong_timeout)).div_ceil(1000)),
            io_name,
            patterns_max: self.max_patterns as usize,
            presence: self.presence_options(),
        }
    }

    fn presence_options(&self) -> presence::Options {
        presence::Options {
            grace: ticks(self.presence_grace),
            interval: ticks(self.presence_interval),
            listed_max: self.max_presence_members as usize,
            graced_max: PRESENCE_GRACED_MAX,
        }
    }

    /// What holds for which topics.
    #[must_use]
    pub fn classes(&self) -> Classes {
        let default = Class {
            history: History { size: self.history_size, bytes: bytes(self.history_bytes) as u64, ttl: self.history_ttl.into() },
            slow_consumer: self.slow_consumer,
            presence: Presence::Off,
            presence_names: false,
            durable: false,
        };
        Classes::new(self.topic_class.iter().map(|rule| (rule.pattern.clone(), rule.over(default))).collect(), default)
    }

    /// The driver's settings.
    pub(crate) fn driver_options(&self) -> io::Options {
        io::Options {
            accept_batch: self.accept_batch as usize,
            read_budget_bytes: bytes(self.read_budget),
            recv_buffer_bytes: bytes(self.recv_buffer_size),
            uring_entries: self.uring_entries,
            uring_buffers: self.uring_buffers as u16,
            uring_buffer_bytes: bytes(self.uring_buffer_size),
        }
    }

    /// Whether the server starts also where this address cannot exist: it is a default, not somebody's choice.
    pub(crate) fn may_do_without(&self, address: SocketAddr) -> bool {
        address.is_ipv6() && self.listen == Self::default().listen
    }

    fn routes_options(&self) -> routes::Options {
        routes::Options {
            allow_anonymous: self.allow_anonymous,
            allow_origin: self.allow_origin.clone(),
            base_path: self.base_path.clone(),
            allow_delete: self.allow_delete,
            page: self.page,
            echo: self.echo,
            subscriptions_max: self.max_subscriptions as usize,
            classes: Arc::new(self.classes()),
            timeouts: routes::Timeouts {
                head_timeout_ms: millis(self.head_timeout),
                idle_timeout_ms: millis(self.idle_timeout),
                message_timeout_ms: millis(self.message_timeout),
                write_timeout_ms: millis(self.write_timeout),
                close_timeout_ms: millis(self.close_timeout),
                publish_timeout_ms: millis(self.publish_timeout),
                idempotency_ttl_ms: millis(self.idempotency_ttl),
                presence_grace_ms: millis(self.presence_grace),
                ping_ms: millis(self.ping_interval),
                pong_timeout_ms: millis(self.pong_timeout),
            },
            limits: routes::Limits {
                max_head_bytes: bytes(self.max_head_size),
                max_message_bytes: bytes(self.max_message_size),
                max_batch_publications: self.max_batch as usize,
                max_outbox_bytes: bytes(self.outbox_size),
            },
            ..routes::Options::default()
        }
    }
}

/// Members of a worker's topics in grace at a time: more than connections of it can be lost in one grace, but for attackers.
const PRESENCE_GRACED_MAX: usize = 100_000;

fn bytes(size: ByteSize) -> usize {
    size.bytes()
}

fn ticks(span: TimeSpan) -> u32 {
    Tick::count(span.into())
}

fn millis(span: TimeSpan) -> u64 {
    Duration::from(span).as_millis() as u64
}
