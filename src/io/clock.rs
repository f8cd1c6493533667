//! The time, as every driver of the kernel tells it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A clock that begins where it was made: one for all workers, so that their times can be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// A clock whose zero is `started`.
    pub(super) const fn new(started: Instant) -> Self {
        Self(started)
    }

    /// Nanoseconds since its zero.
    pub(super) fn now(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    /// Milliseconds since the Unix epoch; may jump.
    pub(super) fn wall_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
    }
}
