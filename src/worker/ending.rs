//! Every way a connection ends, with its cause.
//!
//! ```text
//! fail, answer+close ──> last word queued ──flushed──> write side shut, input dropped ──> closed
//! close_in_handshake ──> close frame queued ──> the peer's close ──> flushed, closed
//! peer_closed ─────────> its echo queued ──flushed──> write side shut, input dropped ──> closed
//! finish, reset ───────> closed at once
//! ```
//!
//! The cause that was known first is the one that counts.

use std::io;

use crate::http1::Response;
use crate::io::{Close, Driver, Store, Token};
use crate::limits::{TICK_MS, Tick};
use crate::metrics::{Cause, DropReason};
use crate::routes::refusals;
use crate::ws::{self, CloseCode, ClosePayload};

use super::Core;
use super::connection::Protocol;

/// Input read and dropped behind a last word, in bytes, so that closing does not reset the connection under it.
pub(super) const LINGER_BYTES_MAX: u32 = 64 * 1024;
/// How long that goes on, in ticks: one second.
const LINGER_TICKS: u32 = (1000 / TICK_MS) as u32;

/// Ends counted for the log: one line a second at most.
#[derive(Debug)]
pub(super) struct Ended {
    by_cause: [u32; Cause::ALL.len()],
    since: Tick,
    warned: Tick,
}

impl Default for Ended {
    fn default() -> Self {
        Self { by_cause: [0; Cause::ALL.len()], since: Tick(0), warned: Tick(0) }
    }
}

impl Ended {
    /// When the next line is due: a second after the first end it counts.
    pub(super) fn due(&self) -> Option<Tick> {
        self.by_cause.iter().any(|count| *count > 0).then(|| self.since.after(LINGER_TICKS))
    }

    /// One line with counts by cause.
    pub(super) fn log(&mut self, worker: usize) {
        let mut counts = String::new();
        for (cause, count) in Cause::ALL.into_iter().zip(&mut self.by_cause).filter(|(_, count)| **count > 0) {
            counts.push_str(&format!(" {}={}", cause.name(), std::mem::take(count)));
        }
        tracing::info!(worker, "connections ended:{counts}");
    }

    /// Whether a warning that bad peers can provoke may be written: one a second.
    pub(super) fn may_warn(&mut self, now: Tick) -> bool {
        let may = self.warned == Tick(0) || now.since(self.warned) > LINGER_TICKS;
        if may {
            self.warned = now;
        }
        may
    }

    fn count(&mut self, cause: Cause, now: Tick) {
        if self.by_cause.iter().all(|count| *count == 0) {
            self.since = now;
        }
        self.by_cause[cause as usize] += 1;
    }
}

impl<D: Driver> Core<D> {
    /// Ends a WebSocket whose peer, or whose outbox, broke a rule: the close frame is the last word.
    pub(super) fn fail(&mut self, store: &mut Store, slot: u32, cause: Cause, detail: Option<&str>) {
        match self.connections[slot as usize].protocol {
            Protocol::Topics(_) | Protocol::Session(_) | Protocol::Echo(_) => {
                self.queue_close(store, slot, cause, None, detail);
                self.last_word(slot, cause);
            }
            Protocol::Stream(_) => self.end_stream(store, slot, cause, None),
            Protocol::Http(_) => self.refuse(store, slot, refusals::internal(), cause),
            // It has had its last word.
            Protocol::Lingering(_) | Protocol::Vacant => {}
        }
    }

    /// Closes a WebSocket in order: what is queued goes first, then the close frame; the peer's answer ends it.
    pub(super) fn close_in_handshake(&mut self, store: &mut Store, slot: u32, cause: Cause, retry_after_ms: Option<u32>) {
        self.queue_close(store, slot, cause, retry_after_ms, None);
        self.connections[slot as usize].cause.get_or_insert(cause);
        self.unsubscribe_all(slot);
        self.deadlines.clear(slot as usize);
        self.arm(slot);
        self.mark_dirty(slot);
    }

    /// The peer has closed: its code goes back, and the connection ends behind it (RFC 6455 section 5.5.1).
    pub(super) fn peer_closed(&mut self, store: &mut Store, slot: u32, cause: Cause, code: Option<CloseCode>) {
        let Self { connections, entries, pool, .. } = self;
        let connection = &mut connections[slot as usize];
        if !connection.flags.close_queued() {
            connection.flags.set_close_queued(true);
            connection.outbox.append_owned(entries, store, pool, |out| {
                ws::write_close(&code.map_or_else(ClosePayload::empty, ClosePayload::bare), out)
            });
        }
        self.last_word(slot, cause);
    }

    /// The last word is queued: once it is out, the write side is shut, and what the peer still sends is dropped for a while.
    pub(super) fn last_word(&mut self, slot: u32, cause: Cause) {
        let due = self.tick.after(self.options.close_timeout);
        let connection = &mut self.connections[slot as usize];
        connection.cause.get_or_insert(cause);
        connection.flags.set_waiting(false);
        connection.flags.set_close_when_flushed(connection.flags.read_closed());
        connection.flags.set_linger_when_flushed(!connection.flags.read_closed());
        self.unsubscribe_all(slot);
        self.deadlines.set(slot as usize, due);
        self.mark_dirty(slot);
    }

    /// It gets nothing more that is published.
    pub(super) fn unsubscribe_all(&mut self, slot: u32) {
        if self.connections[slot as usize].flags.present() {
            self.depart(slot);
        }
        self.hub.unsubscribe_all(slot);
        self.connections[slot as usize].flags.set_keeps_positions(false);
        self.stop_reading(slot);
        self.forget_publish_ids(slot);
    }

    /// The last word is out.
    pub(super) fn linger(&mut self, driver: &mut D, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let token = connection.token;
        connection.release(&mut self.pool);
        connection.flags.set_linger_when_flushed(false);
        connection.flags.set_choked(false);
        self.swap(slot, Protocol::Lingering(LINGER_BYTES_MAX));
        self.deadlines.set(slot as usize, self.tick.after(LINGER_TICKS));
        driver.shutdown_write(token);
        let connection = &mut self.connections[slot as usize];
        if connection.flags.paused() {
            connection.flags.set_paused(false);
            driver.resume_read(token);
        }
    }

    /// Input was dropped long enough.
    pub(super) fn finish_lingering(&mut self, store: &mut Store, slot: u32) {
        let cause = self.connections[slot as usize].cause.unwrap_or(Cause::ClientClose);
        self.finish(store, slot, cause, Close::InOrder);
    }

    /// The kernel says that the connection is broken.
    pub(super) fn lost(&mut self, store: &mut Store, slot: u32, error: &io::Error) {
        let cause = match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Cause::Reset,
            _ => Cause::NetworkError,
        };
        self.finish(store, slot, cause, Close::InOrder);
    }

    /// Ends the connection at once; what it had not taken is thrown away.
    pub(super) fn reset(&mut self, store: &mut Store, slot: u32, cause: Cause) {
        self.finish(store, slot, cause, Close::Reset);
    }

    /// Ends the connection: counted, forgotten by the hub, handed to the driver for closing.
    pub(super) fn finish(&mut self, store: &mut Store, slot: u32, cause: Cause, how: Close) {
        if self.connections[slot as usize].flags.gone() {
            return;
        }
        let cause = *self.connections[slot as usize].cause.get_or_insert(cause);
        self.drop_queue(store, slot);
        self.unsubscribe_all(slot);
        self.deadlines.clear(slot as usize);
        self.write_windows.clear(slot as usize);
        let connection = &mut self.connections[slot as usize];
        connection.release(&mut self.pool);
        connection.flags.set_gone(true);
        if connection.flags.refused() {
            connection.protocol = Protocol::Vacant;
            self.closing.push((connection.token, how));
            self.refused -= 1;
            return;
        }
        let (token, id, transport) = (connection.token, connection.id, connection.transport());
        let (admin, address) = (connection.flags.admin(), connection.address);
        connection.protocol = Protocol::Vacant;
        self.closing.push((token, how));
        self.live -= 1;
        self.ended.count(cause, self.tick);
        self.shared.set_live(self.index, self.live);
        self.leave(admin, address);
        self.metrics().connections.of(transport).sub(1);
        self.metrics().connections_closed.of(cause).add(1);
        tracing::debug!(worker = self.index, id, cause = cause.name(), "ended");
    }

    /// The driver has closed the socket; its slot is free.
    pub(super) fn closed(&mut self, token: Token) {
        let connection = &mut self.connections[token.slot as usize];
        self.admins -= usize::from(connection.flags.admin());
        *connection = super::connection::Connection::vacant();
        self.held -= 1;
        if self.held == 0 && self.connections.capacity() > Self::IDLE_CONNECTIONS_MAX {
            self.connections = Vec::new();
            self.deadlines.truncate(0);
            self.write_windows.truncate(0);
        }
    }

    /// Without connections, room for this many is kept; what a crowd took beyond it is given back. Tests have no crowds.
    const IDLE_CONNECTIONS_MAX: usize = if cfg!(test) { 2 } else { 4096 };

    /// Throws the queue away and counts the publications in it as cut off with their connection.
    pub(super) fn drop_queue(&mut self, store: &mut Store, slot: u32) {
        let Self { connections, entries, pool, .. } = self;
        let mut messages = 0;
        connections[slot as usize].outbox.clear(entries, store, pool, |finished| messages += finished.messages);
        if messages > 0 {
            self.metrics().messages_dropped.of(DropReason::ConnectionClosed).add(messages);
        }
    }

    /// A subscription that could not be confirmed is answered as HTTP.
    pub(super) fn refuse_upgrade(&mut self, store: &mut Store, slot: u32, response: Response, cause: Cause) {
        self.drop_queue(store, slot);
        self.connections[slot as usize].flags.set_corked(false);
        self.refuse(store, slot, response, cause);
    }

    fn queue_close(&mut self, store: &mut Store, slot: u32, cause: Cause, retry_after_ms: Option<u32>, detail: Option<&str>) {
        let Self { connections, entries, pool, tick, .. } = self;
        let connection = &mut connections[slot as usize];
        let already_queued = connection.flags.close_queued();
        let Some(socket) = connection.websocket().filter(|_| !already_queued) else { return };
        socket.close_sent(*tick);
        connection.flags.set_close_queued(true);
        if let Some(payload) = ClosePayload::because(cause, retry_after_ms, detail) {
            connection.outbox.append_owned(entries, store, pool, |out| ws::write_close(&payload, out));
        }
    }
}
