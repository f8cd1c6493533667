//! The unit in which deadlines are kept.

use std::time::Duration;

/// Milliseconds in a tick. A deadline is met at most one tick late; 32 bits of them last 4.3 years.
pub const TICK_MS: u64 = 32;

/// A moment in ticks since the process started: 4 bytes, so that the deadlines of 16 connections fill one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Later than any other: no deadline.
    pub const NEVER: Self = Self(u32::MAX);

    /// The tick that `nanoseconds` of the driver's clock fall into.
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds / (TICK_MS * 1_000_000)) as u32)
    }

    /// How many ticks `duration` takes, rounded up, at least one.
    #[must_use]
    pub const fn count(duration: Duration) -> u32 {
        let ticks = duration.as_millis().div_ceil(TICK_MS as u128);
        if ticks == 0 {
            1
        } else if ticks > (u32::MAX / 2) as u128 {
            u32::MAX / 2
        } else {
            ticks as u32
        }
    }

    /// This moment and `ticks` more; one more than asked for, because the current tick has partly passed.
    #[must_use]
    pub const fn after(self, ticks: u32) -> Self {
        Self(self.0.saturating_add(ticks).saturating_add(1))
    }

    /// Ticks from `earlier` until this one; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_never_comes_early() {
        let start = Tick::from_nanoseconds(31_999_999);
        let due = start.after(Tick::count(Duration::from_millis(64)));
        assert!(u64::from(due.0) * TICK_MS >= 31 + 64);
        assert_eq!(Tick::count(Duration::ZERO), 1);
        assert_eq!(Tick::count(Duration::from_millis(33)), 2);
    }
}
