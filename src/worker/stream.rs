//! Streams, of events or of lines: from a request to a stream, and how it ends.
//!
//! What a client sends on such a connection means nothing any more and is dropped. That a client is there shows only in what the
//! kernel hears: a ping goes out in every interval, and a peer that does not acknowledge it within the pong time-out is lost.

use serde::Serialize;

use crate::frame::{Gap, GapReason, StreamEnd, StreamEvent, chunk};
use crate::http1::Answering;
use crate::io::{Driver, Store};
use crate::limits::Tick;
use crate::metrics::{Cause, Recovery, Transport};
use crate::routes::{self, StreamKind, Subscribe};

use super::Core;
use super::connection::{Pending, Protocol};
use super::positions::Positions;
use super::presence::{CLIENT_KEY, MEMBER};

/// The longest delay that a stream is told before it is lost, in times of the shortest: a crowd of 10,000 then comes back at less than 7,000
/// a second, and nobody waits much longer for a connection that was lost alone.
const RETRY_SPREAD: u32 = 4;

/// The state of a stream.
#[derive(Debug)]
pub struct Stream {
    pub(super) kind: StreamKind,
    /// Where it stands, if it is of several topics.
    pub(super) positions: Option<Box<Positions>>,
    /// When the next ping is due.
    pub(super) ping_due: Tick,
}

/// The first line of a stream of lines: `topic` where there is one topic or pattern, `topics` where there are several.
#[derive(Serialize)]
struct Open<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<&'a str>>,
    cursor: Option<&'a str>,
}

/// What the head of a stream says of where it begins.
pub(super) struct Start {
    /// The cursor of all its topics; a pattern has none.
    pub(super) cursor: Option<String>,
    /// Where it stands by now, if it is of several topics.
    pub(super) positions: Option<Box<Positions>>,
}

impl Stream {
    /// The label its bytes and messages are counted under.
    pub(super) fn transport(&self) -> Transport {
        match self.kind {
            StreamKind::Events => Transport::Events,
            StreamKind::Lines => Transport::Lines,
        }
    }
}

impl<D: Driver> Core<D> {
    /// The subscription is in force: the head goes ahead of what has arrived since.
    pub(super) fn begin_stream(
        &mut self,
        store: &mut Store,
        slot: u32,
        pending: &Pending,
        kind: StreamKind,
        subscribe: &Subscribe,
    ) {
        let Start { cursor, positions } = self.start_of_replay(slot);
        let mut first = self.first_chunk(kind, subscribe, cursor.as_deref());
        let mut recovered = self.recovered(slot);
        if subscribe.has_missed {
            // Where it reads, too, it is counted with that.
            if recovered.replace(false).is_none() {
                self.metrics().recoveries.of(Recovery::Gap).add(1);
            }
            for pattern in &subscribe.patterns {
                Gap::write_unknown(pattern.as_str(), GapReason::Pattern, subscribe.form, &mut first);
            }
        }
        let mut response = routes::stream_of(kind, first).header("Fantail-Connection", self.connection_name(slot));
        if let Some((key, member)) = self.take_identity(slot) {
            response = response.header(CLIENT_KEY, key.as_str()).header(MEMBER, member.to_string());
        }
        if let Some(recovered) = recovered {
            response = response.header("Fantail-Recovered", if recovered { "true" } else { "false" });
        }
        let response = pending.cors.apply(response);
        let date = self.date.at(self.wall_seconds);
        let answering = Answering { keep_alive: false, ..pending.answering };
        let mut head = self.pool.take();
        response.write(date, answering, &mut head);
        let connection = &mut self.connections[slot as usize];
        connection.outbox.push_first(&mut self.entries, store, head);
        connection.flags.set_corked(false);
        connection.flags.set_waiting(false);
        let token = connection.token;
        self.metrics().answered(pending.handler, response.status);
        let ping_due = self.tick.after(self.options.ws.ping_interval);
        self.swap(slot, Protocol::Stream(Stream { kind, positions, ping_due }));
        self.one_way.push(token);
        self.resume_later(token);
    }

    /// What tells the client where it stands before anything has come.
    fn first_chunk(&mut self, kind: StreamKind, subscribe: &Subscribe, cursor: Option<&str>) -> Vec<u8> {
        match kind {
            StreamKind::Events => {
                // Browsers wait for exactly so long, so a crowd that loses its server must be told different times.
                let min_ms = self.options.routes.retry.min_ms;
                let retry_ms = Some(self.random.u32(min_ms..=min_ms * RETRY_SPREAD));
                StreamEvent { retry_ms, id: cursor, ..StreamEvent::default() }.chunk()
            }
            StreamKind::Lines => {
                let names: Vec<&str> = subscribe.names().collect();
                let (topic, topics) = if let [name] = names[..] { (Some(name), None) } else { (None, Some(names)) };
                let open = Open { kind: "open", topic, topics, cursor };
                chunk(&[&serde_json::to_vec(&open).expect("texts always make JSON"), b"\n"])
            }
        }
    }

    /// Has the kernel give up peers of new streams that acknowledge nothing for as long as a WebSocket may be silent.
    pub(super) fn watch_one_way(&mut self, driver: &mut D) {
        let silence = self.options.silence_max;
        for token in self.one_way.drain(..) {
            driver.limit_unacknowledged(token, silence);
        }
    }

    /// A ping is due. Where something waits to be written, that is sign enough.
    pub(super) fn ping_stream(&mut self, store: &mut Store, slot: u32) {
        let due = self.tick.after(self.options.ws.ping_interval);
        let Self { connections, entries, pool, .. } = self;
        let connection = &mut connections[slot as usize];
        let Protocol::Stream(stream) = &mut connection.protocol else { return };
        stream.ping_due = due;
        let ping = match stream.kind {
            // An object, so that whoever reads every event as JSON may.
            StreamKind::Events => StreamEvent { event: Some("ping"), data: Some(b"{}"), ..StreamEvent::default() }.chunk(),
            StreamKind::Lines => chunk(&[b"{\"type\":\"ping\"}\n"]),
        };
        if connection.outbox.is_empty() {
            connection.outbox.append_owned(entries, store, pool, |out| out.extend_from_slice(&ping));
            self.mark_dirty(slot);
        }
        self.arm(slot);
    }

    /// Ends a stream in order, and says why; a reader of events comes back, after `retry_after_ms` if that is given.
    pub(super) fn end_stream(&mut self, store: &mut Store, slot: u32, cause: Cause, retry_after_ms: Option<u32>) {
        if self.connections[slot as usize].flags.keeps_positions() {
            self.tell_positions(store, slot);
        }
        let Self { connections, entries, pool, .. } = self;
        let connection = &mut connections[slot as usize];
        let Protocol::Stream(Stream { kind, .. }) = &connection.protocol else { return };
        if !connection.flags.close_queued() {
            connection.flags.set_close_queued(true);
            let end = StreamEnd { cause: cause.name(), retry_after_ms };
            let last = match kind {
                StreamKind::Events => end.event(),
                StreamKind::Lines => end.line(),
            };
            connection.outbox.append_owned(entries, store, pool, |out| out.extend_from_slice(&last));
        }
        self.last_word(slot, cause);
    }
}
