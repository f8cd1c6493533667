//! The time, as every driver of the kernel tells it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a clock shows when it begins: what was kept before a restart is numbered before it, and may be as old as the longest
/// `--history-ttl`.
const BEGIN: Duration = Duration::from_secs(30 * 24 * 3600);

/// A clock that begins where it was made: one for all workers, so that their times can be compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    /// A clock that begins at `started`.
    pub(super) const fn new(started: Instant) -> Self {
        Self(started)
    }

    /// Nanoseconds since its zero, which is some time before its beginning.
    pub(super) fn now(self) -> u64 {
        (self.0.elapsed() + BEGIN).as_nanos() as u64
    }

    /// Milliseconds since the Unix epoch; may jump.
    pub(super) fn wall_ms() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
    }
}
