//! One write per connection and turn; what the kernel took, and who stalls.

use crate::io::{Driver, Progress, SEGMENTS_MAX, Token};
use crate::metrics::Cause;

use super::Core;

/// Below this many bytes in a write time-out a connection that has as many waiting is stalled.
pub(super) const STALLED_BYTES: u16 = 4096;
/// Bytes offered in one call: what a socket buffer takes at best.
const OFFER_BYTES_MAX: usize = 1024 * 1024;
/// Calls for one connection in one turn; a queue of many small frames goes on in the next.
const SENDS_MAX: usize = 4;

impl<D: Driver> Core<D> {
    /// Flushes what the turn made dirty, then closes what ended.
    pub(super) fn flush(&mut self, driver: &mut D) {
        self.watch_one_way(driver);
        self.flush_dirty(driver);
        while let Some((token, how)) = self.closing.pop() {
            driver.close(token, how);
        }
    }

    /// Flushes what the turn has made dirty so far.
    pub(super) fn flush_dirty(&mut self, driver: &mut D) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            self.connections[slot as usize].flags.set_dirty(false);
            self.flush_one(driver, slot);
        }
        // Queues of very many small frames stand here again.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// The socket takes more; `taken` bytes of the send before went out meanwhile.
    pub(super) fn sendable(&mut self, driver: &mut D, token: Token, taken: usize) {
        let Some(connection) = self.connection(token) else { return };
        connection.flags.set_blocked(false);
        self.account(driver, token.slot, taken);
        self.mark_dirty(token.slot);
    }

    /// Offers the connection's queue to the kernel.
    pub(super) fn flush_one(&mut self, driver: &mut D, slot: u32) {
        for _ in 0..SENDS_MAX {
            let connection = &mut self.connections[slot as usize];
            if connection.flags.gone() || connection.flags.blocked() || connection.flags.corked() {
                return;
            }
            if connection.flags.keeps_positions() {
                self.tell_positions(driver.store(), slot);
            }
            let connection = &mut self.connections[slot as usize];
            let offered = connection.outbox.offer(&self.entries, &mut self.segments, SEGMENTS_MAX, OFFER_BYTES_MAX);
            if self.segments.is_empty() {
                return self.flushed(driver, slot);
            }
            let count = self.segments.len();
            match driver.send(connection.token, &self.segments) {
                Ok(Progress::Sent(taken)) if taken == offered => self.account(driver, slot, taken),
                Ok(progress) => return self.offered(driver, slot, count, progress),
                Err(error) => return self.lost(driver.store(), slot, &error),
            }
            if self.connections[slot as usize].outbox.is_empty() {
                return self.flushed(driver, slot);
            }
        }
        self.mark_dirty(slot);
    }

    /// The kernel did not take at once all of the `count` entries at the head of the queue that it was offered.
    pub(super) fn offered(&mut self, driver: &mut D, slot: u32, count: usize, progress: Progress) {
        match progress {
            Progress::Sent(taken) => self.account(driver, slot, taken),
            Progress::Pending => self.connections[slot as usize].outbox.pin(count),
        }
        self.blocked(slot);
    }

    /// Counts what the kernel took.
    fn account(&mut self, driver: &mut D, slot: u32, taken: usize) {
        let Self { connections, entries, pool, .. } = self;
        let connection = &mut connections[slot as usize];
        let finished = connection.outbox.taken(entries, driver.store(), pool, taken);
        connection.window_taken = connection.window_taken.saturating_add(taken.min(STALLED_BYTES as usize) as u16);
        let half_empty = connection.outbox.bytes() <= self.options.outbox_bytes_max / 2;
        let resumes = connection.flags.choked() && half_empty;
        let (token, transport) = (connection.token, connection.transport());
        let reads = connection.flags.reading() && half_empty;
        let catches_up = connection.flags.behind() && half_empty;
        if resumes {
            self.connections[slot as usize].flags.set_choked(false);
            self.resume_later(token);
        }
        if reads {
            self.read_on(slot);
        }
        if catches_up {
            self.catch_up(slot);
        }
        let metrics = self.metrics();
        metrics.sent_bytes.of(transport).add(taken as u64);
        if finished.messages > 0 {
            metrics.messages_sent.of(transport).add(finished.messages);
        }
        if let Some(served) = finished.served {
            self.observe_fanout(driver.now(), served);
        }
    }

    /// The kernel did not take everything: the write window begins, unless one is open.
    fn blocked(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        connection.flags.set_blocked(true);
        if connection.window_needed == 0 {
            connection.window_taken = 0;
            connection.window_needed = connection.outbox.bytes().min(STALLED_BYTES as usize) as u16;
            self.write_windows.set(slot as usize, self.tick.after(self.options.write_timeout));
        }
    }

    /// A write window has ended: another one begins, or the connection is stalled.
    pub(super) fn window_ended(&mut self, driver: &mut D, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.flags.gone() || connection.window_needed == 0 {
            return;
        }
        let stalled = connection.window_taken < connection.window_needed;
        connection.window_needed = 0;
        if stalled {
            return self.reset(driver.store(), slot, Cause::StalledWrite);
        }
        if connection.flags.blocked() {
            self.blocked(slot);
        }
    }

    /// Nothing waits any more: the end that was put off comes now.
    fn flushed(&mut self, driver: &mut D, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.window_needed != 0 {
            connection.window_needed = 0;
            self.write_windows.clear(slot as usize);
        }
        let connection = &mut self.connections[slot as usize];
        if connection.flags.parked() {
            self.unpark(driver.store(), slot);
        } else if connection.flags.close_when_flushed() {
            let cause = connection.cause.unwrap_or(Cause::ClientClose);
            self.finish(driver.store(), slot, cause, crate::io::Close::InOrder);
        } else if connection.flags.linger_when_flushed() {
            self.linger(driver, slot);
        }
    }
}
