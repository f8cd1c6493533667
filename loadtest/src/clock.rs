//! Time as whole nanoseconds of the machine's monotonic clock: one number to subtract, the same in every process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub type Nanos = u64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;

/// Nanoseconds in a microsecond.
pub const MICROSECOND: Nanos = 1_000;

/// Nanoseconds in a millisecond.
pub const MILLISECOND: Nanos = 1_000_000;

/// Now.
pub fn now() -> Nanos {
    nanos(clock_gettime(ClockId::Monotonic))
}

/// What this process has used of the processors so far.
pub fn own_cpu() -> Nanos {
    nanos(clock_gettime(ClockId::ProcessCPUTime))
}

/// A length of time in nanoseconds.
pub fn length(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

fn nanos(time: rustix::time::Timespec) -> Nanos {
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}
