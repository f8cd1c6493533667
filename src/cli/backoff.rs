//! How long a client waits before it connects again: full jitter, so that those who lost one server don't return in step.

use std::time::Duration;

/// Waits that grow with each failure in a row, each drawn between nothing and the ceiling of the moment.
#[derive(Debug)]
pub(super) struct Backoff {
    ceiling_min: Duration,
    ceiling_max: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// The ceilings the server suggests in `/.well-known/fantail`: 0.5 s at first, doubled up to 20 s.
    pub(super) fn suggested() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(20))
    }

    /// Ceilings from `ceiling_min` up to `ceiling_max`.
    pub(super) fn new(ceiling_min: Duration, ceiling_max: Duration) -> Self {
        Self { ceiling_min, ceiling_max, ceiling: ceiling_min }
    }

    /// The next wait. A delay the server named is kept to, up to [`TOLD_MAX`]: it has spread its clients itself.
    pub(super) fn next(&mut self, told: Option<Duration>) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.ceiling_max);
        told.map_or_else(|| ceiling.mul_f64(fastrand::f64()), |delay| delay.min(TOLD_MAX))
    }

    /// Begins anew after a connection of this length, if it was no failure by itself.
    pub(super) fn lasted(&mut self, length: Duration) {
        if length >= self.ceiling_max {
            self.ceiling = self.ceiling_min;
        }
    }
}

/// The longest delay a server is believed.
const TOLD_MAX: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_largest_and_fall_after_a_long_connection() {
        let mut backoff = Backoff::suggested();
        for ceiling_ms in [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000] {
            assert_eq!(backoff.ceiling, Duration::from_millis(ceiling_ms));
            assert!(backoff.next(None) <= Duration::from_millis(ceiling_ms));
        }
        backoff.lasted(Duration::from_secs(19));
        assert_eq!(backoff.ceiling, Duration::from_secs(20));
        backoff.lasted(Duration::from_secs(20));
        assert_eq!(backoff.ceiling, Duration::from_millis(500));
    }

    #[test]
    fn a_told_delay_is_kept_to() {
        let mut backoff = Backoff::suggested();
        assert_eq!(backoff.next(Some(Duration::from_millis(8400))), Duration::from_millis(8400));
        assert_eq!(backoff.next(Some(Duration::MAX)), TOLD_MAX);
    }
}
