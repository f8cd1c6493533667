//! Bytes to the protocol, and what must wait.
//!
//! Input is taken in until the protocol wants more, or until it must wait: for a credit, for an answer of a home worker, for a
//! client that does not read its replies. What then is left is kept as the connection's residual, bounded by one receive buffer
//! because reading pauses, and is the first to be taken in when the waiting ends.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::io::{Driver, Store, Token};
use crate::metrics::Cause;

use super::Core;
use super::connection::Protocol;

/// How a step of a protocol went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// This many bytes, and something happened: there may be more.
    Event(usize),
    /// All of it; more input is needed.
    All,
}

/// Runs a protocol's step on input of the peer. A panic in it is a fault of ours that ends this connection alone.
pub(super) fn protocol_step<T>(step: impl FnOnce() -> T) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|_| Cause::Internal)
}

impl<D: Driver> Core<D> {
    /// Takes bytes in that the driver lent; afterwards the driver is told to pause if the connection must wait.
    pub(super) fn received(&mut self, driver: &mut D, token: Token, received: crate::io::Received) {
        self.metrics().received_bytes.add(received.len() as u64);
        let Some(connection) = self.connection(token) else { return };
        debug_assert!(connection.residual.is_none(), "a driver keeps what arrives for a paused socket");
        let (bytes, store) = driver.lend(received);
        self.feed(store, token.slot, bytes);
        self.pause_if_waiting(driver, token);
    }

    /// Takes in what was kept, then reads on, for each connection whose waiting has ended.
    pub(super) fn resume(&mut self, driver: &mut D) {
        let mut resumed = std::mem::take(&mut self.resumed);
        for token in resumed.drain(..) {
            let Some(connection) = self.connection(token) else { continue };
            if let Some(mut residual) = connection.residual.take() {
                self.feed(driver.store(), token.slot, &mut residual);
                self.pool.give(*residual);
            }
            let Some(connection) = self.connection(token) else { continue };
            if connection.residual.is_some() || connection.flags.waiting() || connection.flags.choked() {
                continue;
            }
            if connection.flags.read_closed() {
                self.end_of_stream(driver.store(), token);
            } else if connection.flags.paused() {
                connection.flags.set_paused(false);
                driver.resume_read(token);
            }
        }
        resumed.append(&mut self.resumed);
        self.resumed = resumed;
    }

    /// Has the connection's input taken in again before the turn ends.
    pub(super) fn resume_later(&mut self, token: Token) {
        self.resumed.push(token);
    }

    /// The peer has shut its side: what is under way is still answered, then the connection ends.
    pub(super) fn end_of_stream(&mut self, store: &mut Store, token: Token) {
        let Some(connection) = self.connection(token) else { return };
        connection.flags.set_read_closed(true);
        if connection.flags.waiting() || connection.flags.choked() || connection.residual.is_some() {
            return;
        }
        let known = connection.cause;
        let cause = match &connection.protocol {
            Protocol::Http(http) if http.parser.is_idle() => Cause::ClientClose,
            _ => Cause::EndOfStream,
        };
        let cause = known.unwrap_or(cause);
        // A peer that has shut its side may still read what it asked for; publications alone are no answer to anything.
        let answers_wait =
            !matches!(connection.protocol, Protocol::Topics(_) | Protocol::Stream(_)) || connection.flags.close_queued();
        if answers_wait && !connection.outbox.is_empty() {
            return self.last_word(token.slot, cause);
        }
        self.finish(store, token.slot, cause, crate::io::Close::InOrder);
    }

    fn feed(&mut self, store: &mut Store, slot: u32, bytes: &mut [u8]) {
        let mut at = 0;
        loop {
            let connection = &mut self.connections[slot as usize];
            if connection.flags.gone() || connection.flags.close_when_flushed() || connection.flags.linger_when_flushed() {
                return;
            }
            // Replies and echoes never count as slow: who does not read them is not read either.
            let replies = matches!(connection.protocol, Protocol::Http(_) | Protocol::Session(_) | Protocol::Echo(_));
            let replies = replies && !connection.flags.corked();
            connection.flags.set_choked(replies && connection.outbox.bytes() > self.options.outbox_bytes_max / 2);
            if connection.flags.waiting() || connection.flags.choked() {
                break;
            }
            let took = match &mut connection.protocol {
                Protocol::Http(_) => self.step_http(store, slot, &mut bytes[at..]),
                Protocol::Topics(_) | Protocol::Session(_) | Protocol::Echo(_) => {
                    self.step_websocket(store, slot, &mut bytes[at..])
                }
                Protocol::Lingering(left) => {
                    *left = left.saturating_sub((bytes.len() - at) as u32);
                    if *left == 0 {
                        self.finish_lingering(store, slot);
                    }
                    return;
                }
                Protocol::Stream(_) | Protocol::Vacant => return,
            };
            match took {
                Took::Event(consumed) => at += consumed,
                Took::All => break self.arm(slot),
            }
        }
        let connection = &mut self.connections[slot as usize];
        if !connection.flags.gone() && (connection.flags.waiting() || connection.flags.choked()) && at < bytes.len() {
            let mut rest = self.pool.take();
            rest.extend_from_slice(&bytes[at..]);
            connection.residual = Some(Box::new(rest));
        }
    }

    fn pause_if_waiting(&mut self, driver: &mut D, token: Token) {
        let Some(connection) = self.connection(token) else { return };
        if (connection.flags.waiting() || connection.flags.choked()) && !connection.flags.paused() {
            connection.flags.set_paused(true);
            driver.pause_read(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_protocol_step_is_a_cause() {
        assert_eq!(protocol_step(|| 7), Ok(7));
        let empty: &[u8] = &[];
        assert_eq!(protocol_step(|| empty[std::hint::black_box(1)]), Err(Cause::Internal));
    }
}
