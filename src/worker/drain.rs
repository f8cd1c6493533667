//! Stopping in order: nobody queued is reset, nothing accepted is lost, and nobody comes back in a crowd.
//!
//! ```text
//! Serving ─> Emptying ─> Quieting ─> Handing ─> Closing ─> Waiting ─> Done
//!            accept what  answer      fan out    one close  for the
//!            is queued    everything  the rest   after the  other
//!                                                other      workers
//! ```
//!
//! The closes are spread over the drain window, or over 10 ms each where they are few: a handful is no crowd. The admin listener goes on until no worker has a client: whoever watches the stop
//! can see its end.
//!
//! The barrier between Quieting and Handing: a worker reports quiet when it has no request under way. A home worker puts deliveries
//! into the rings before the answer, so when all are quiet everything accepted is in a ring; Handing ends when the rings are empty.

use std::time::Duration;

use crate::io::{Close, Driver, Store};
use crate::limits::Tick;
use crate::metrics::Cause;
use crate::routes::refusals;

use super::Core;
use super::connection::Protocol;
use super::shared::Phase;

/// Nobody is asked to come back sooner, in milliseconds: a restart takes that long.
const RETRY_MS_MIN: u32 = 500;

/// Closes of a worker are spread over this many milliseconds each, until that makes the drain window.
const CLOSE_PACE_MS: u64 = 10;
/// How long a new connection may take to send its request.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    Emptying,
    Quieting,
    Handing,
    Closing,
    Waiting,
    Done,
}

/// How far this worker's stop has come.
#[derive(Debug)]
pub(super) struct Drain {
    stage: Stage,
    quiet: bool,
    /// When closing began and how many connections there were, in nanoseconds of the driver's clock.
    began_ns: u64,
    slots: usize,
    /// Slots below this one were looked at.
    next: usize,
    /// Slots that had a request under way when they were looked at.
    again: Vec<u32>,
}

impl Drain {
    pub(super) const fn new() -> Self {
        Self { stage: Stage::Serving, quiet: false, began_ns: 0, slots: 0, next: 0, again: Vec::new() }
    }

    /// The worker must look at the clock more often than its deadlines ask for.
    pub(super) fn is_under_way(&self) -> bool {
        self.stage != Stage::Serving
    }

    /// The worker has nothing left to do.
    pub(super) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// The kernel's queues are empty and the listeners closed.
    pub(super) fn listeners_closed(&mut self) {
        if self.stage == Stage::Emptying {
            self.stage = Stage::Quieting;
        }
    }
}

impl<D: Driver> Core<D> {
    /// The drain's part of the turn.
    pub(super) fn drain(&mut self, driver: &mut D) {
        let handed_out = !self.hub.has_open_fanouts() && !self.has_deliveries();
        match self.drain.stage {
            Stage::Serving if self.shared.phase() >= Phase::Draining => {
                driver.close_listeners(self.listeners.iter().position(|listener| listener.admin));
                self.drain.stage = Stage::Emptying;
            }
            Stage::Quieting => self.report_quiet(),
            Stage::Handing if handed_out => {
                self.drain.stage = Stage::Closing;
                self.drain.began_ns = self.now;
                self.drain.slots = self.connections.len();
                self.close_some(driver.store());
            }
            Stage::Closing => self.close_some(driver.store()),
            Stage::Waiting if self.shared.all_empty() => self.drain.stage = Stage::Done,
            Stage::Serving | Stage::Emptying | Stage::Handing | Stage::Waiting | Stage::Done => {}
        }
    }

    fn report_quiet(&mut self) {
        if !self.drain.quiet && self.has_nothing_under_way() {
            self.drain.quiet = true;
            self.shared.report_quiet();
        }
        if self.shared.all_quiet() {
            self.drain.stage = Stage::Handing;
        }
    }

    /// Closes as many connections as the time that has passed allows, and resets what is left when all time has passed.
    fn close_some(&mut self, store: &mut Store) {
        let passed = self.now - self.drain.began_ns;
        let window = self.window_ns();
        let due = if passed >= window { usize::MAX } else { (self.drain.slots as u64 * passed / window) as usize + 1 };
        let end = due.min(self.connections.len());
        let mut again = std::mem::take(&mut self.drain.again);
        again.extend(self.drain.next as u32..end as u32);
        self.drain.next = end;
        again.retain(|slot| !self.close_slot(store, *slot));
        self.drain.again = again;
        let patience = u64::from(self.options.close_timeout) * crate::limits::TICK_MS * 1_000_000;
        if passed > window + patience {
            for slot in 0..self.connections.len() as u32 {
                if !self.connections[slot as usize].flags.admin() {
                    self.reset(store, slot, Cause::Drain);
                }
            }
        }
        if self.held == self.admins {
            self.drain.stage = Stage::Waiting;
            self.shared.report_empty();
        }
    }

    /// Over how long this worker's closes are spread: the drain window, or less where so few would come back that it is no crowd.
    fn window_ns(&self) -> u64 {
        let pace = Duration::from_millis(CLOSE_PACE_MS) * u32::try_from(self.drain.slots).unwrap_or(u32::MAX);
        self.options.drain_window.min(pace).as_nanos() as u64
    }

    /// Has a connection end; false if it is to be asked again.
    fn close_slot(&mut self, store: &mut Store, slot: u32) -> bool {
        let Some(connection) = self.connections.get(slot as usize) else { return true };
        if connection.flags.gone() || connection.flags.admin() {
            return true;
        }
        match &connection.protocol {
            Protocol::Topics(_) | Protocol::Session(_) | Protocol::Echo(_) | Protocol::Stream(_) => {
                self.close_for_drain(store, slot);
            }
            Protocol::Http(http) if http.is_polling() => self.end_poll(store, slot),
            // No page is asked for any more, so what looks at its history first would wait in vain.
            Protocol::Http(_) if connection.flags.corked() => {
                self.refuse_upgrade(store, slot, refusals::draining(), Cause::Drain);
            }
            // Its first request may be on its way.
            Protocol::Http(http) if !http.between_requests && self.is_fresh(http.due) => return false,
            Protocol::Http(http) if http.parser.is_idle() && http.pending.is_none() => match connection.outbox.is_empty() {
                true => self.finish(store, slot, Cause::Drain, Close::InOrder),
                false => self.last_word(slot, Cause::Drain),
            },
            // Its request is answered with `Connection: close`.
            Protocol::Http(_) => return false,
            Protocol::Lingering(_) | Protocol::Vacant => {}
        }
        true
    }

    /// Whether a connection whose head is due at `due` came less than a second ago.
    fn is_fresh(&self, due: Tick) -> bool {
        due.since(self.tick) + Tick::count(FRESH) > self.options.head_timeout
    }

    /// Closes a WebSocket, or ends an event stream, and tells it when to come back.
    pub(super) fn close_for_drain(&mut self, store: &mut Store, slot: u32) {
        let window_ms = u32::try_from(self.options.drain_window.as_millis()).unwrap_or(u32::MAX);
        let retry_after_ms = RETRY_MS_MIN.saturating_add(self.random.u32(0..=window_ms));
        match self.connections[slot as usize].protocol {
            Protocol::Stream(_) => self.end_stream(store, slot, Cause::Drain, Some(retry_after_ms)),
            _ => self.close_in_handshake(store, slot, Cause::Drain, Some(retry_after_ms)),
        }
    }

    /// The latest moment this worker must look at its drain again.
    pub(super) fn drain_due(&self) -> Option<Tick> {
        self.drain.is_under_way().then(|| Tick(self.tick.0 + 1))
    }
}
