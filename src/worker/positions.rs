//! Where a stream of several topics stands, kept for each such stream and told behind what it is sent.
//!
//! ```text
//! shared frames, without an id      this stream's own
//! [ a 7 ][ b 3 ][ a 8 ]             [ cursor, id: ~ a 8, b 3 ]     one flush
//! ```
//!
//! The frames are those of every other subscriber, so none can say where this one stands. What can is a cursor of all its topics, queued
//! behind what a turn brought, when that is offered to the kernel. It is ahead of nothing that it covers: who is cut off before it has come
//! back for what he has got already, which the cursor of each message tells, and never misses anything. Frames carry no id for that reason: that
//! of one topic, as the last that a browser has seen, would lose the place in all others.
//!
//! Streams of one topic, sockets and polls keep nothing here, and pay a look at a flag.

use crate::frame::{Cursors, Position, StreamEvent, Topic, TopicHash, chunk};
use crate::hub::TopicId;
use crate::io::{Driver, Store};
use crate::routes::StreamKind;

use super::Core;
use super::connection::Protocol;
use super::stream::Stream;

/// Where each topic of a stream stands.
#[derive(Debug)]
pub(super) struct Positions {
    places: Vec<Place>,
    /// Some place has changed since the stream was told.
    is_untold: bool,
}

#[derive(Debug)]
struct Place {
    topic: TopicId,
    name: TopicHash,
    at: Position,
}

impl Positions {
    /// No topic yet; so many will come.
    pub(super) fn with_capacity(topics: usize) -> Self {
        Self { places: Vec::with_capacity(topics), is_untold: false }
    }

    /// A topic begins here, as the head of the stream will say.
    pub(super) fn begin(&mut self, topic: TopicId, name: &Topic, at: Position) {
        self.places.push(Place { topic, name: TopicHash::of(name.as_str()), at });
    }

    /// Everything of the topic up to here is queued, or told to be missing. What a pattern brings of other topics has no place.
    fn reach(&mut self, topic: TopicId, at: Position) {
        if let Some(place) = self.places.iter_mut().find(|place| place.topic == topic)
            && place.at != at
        {
            (place.at, self.is_untold) = (at, true);
        }
    }

    /// The cursor of them all.
    pub(super) fn cursor(&self) -> String {
        Cursors::text(self.places.iter().map(|place| (place.name, place.at)))
    }
}

impl<D: Driver> Core<D> {
    /// A stream that keeps positions has come to this one.
    pub(super) fn reach(&mut self, slot: u32, topic: TopicId, at: Position) {
        let positions = match &mut self.connections[slot as usize].protocol {
            Protocol::Stream(stream) => stream.positions.as_deref_mut(),
            // Its head has not been made yet.
            _ => self.replays.get_mut(&slot).and_then(|replay| replay.positions.as_deref_mut()),
        };
        if let Some(positions) = positions {
            positions.reach(topic, at);
        }
    }

    /// Queues where the stream stands, if that has changed: behind all that it covers.
    pub(super) fn tell_positions(&mut self, store: &mut Store, slot: u32) {
        let Self { connections, entries, .. } = self;
        let connection = &mut connections[slot as usize];
        let Protocol::Stream(Stream { kind, positions: Some(positions), .. }) = &mut connection.protocol else { return };
        if std::mem::take(&mut positions.is_untold) {
            let told = cursor_chunk(*kind, &positions.cursor());
            connection.outbox.push_cursor(entries, store, told);
        }
    }
}

/// What tells a client where it stands and nothing else. The event needs no listener, and has data because some clients take no id from
/// one that has none.
fn cursor_chunk(kind: StreamKind, cursor: &str) -> Vec<u8> {
    match kind {
        StreamKind::Events => StreamEvent { retry_ms: None, id: Some(cursor), event: Some("cursor"), data: Some(b"{}") }.chunk(),
        // It has no character that JSON escapes.
        StreamKind::Lines => chunk(&[b"{\"type\":\"cursor\",\"cursor\":\"", cursor.as_bytes(), b"\"}\n"]),
    }
}
