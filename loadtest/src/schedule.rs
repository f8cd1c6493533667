//! When each operation is due, fixed before the run.
//!
//! Latency counts from here, never from when the tool came round to sending: a server that stalls for a second then shows a
//! second to everything that was due meanwhile, instead of hiding all but one (coordinated omission).

use crate::clock::{Nanos, SECOND};

/// Operations evenly spaced, without end.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    start: Nanos,
    per_second: f64,
    taken: u64,
}

impl Schedule {
    /// `per_second` operations a second from `start` on.
    pub const fn new(start: Nanos, per_second: f64) -> Self {
        Self { start, per_second, taken: 0 }
    }

    /// When the next one is due. Computed from the start each time, so that rounding doesn't add up.
    pub fn next_at(&self) -> Nanos {
        self.start + (self.taken as f64 * SECOND as f64 / self.per_second) as Nanos
    }

    /// How many were taken.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes the next one if it is due by `now` and before `until`, and returns when it was due.
    pub fn take(&mut self, now: Nanos, until: Nanos) -> Option<Nanos> {
        let at = self.next_at();
        (at <= now && at < until).then(|| {
            self.taken += 1;
            at
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_as_many_as_asked_for_however_late_they_are_taken() {
        let mut schedule = Schedule::new(5 * SECOND, 3.0);
        assert_eq!(schedule.take(5 * SECOND - 1, Nanos::MAX), None);
        let until = 6 * SECOND;
        let taken: Vec<Nanos> = std::iter::from_fn(|| schedule.take(9 * SECOND, until)).collect();
        assert_eq!(taken, [5_000_000_000, 5_333_333_333, 5_666_666_666]);
        assert_eq!(schedule.next_at(), until);
    }

    #[test]
    fn rounding_does_not_add_up() {
        let mut schedule = Schedule::new(0, 7.0);
        while schedule.take(700 * SECOND, 700 * SECOND).is_some() {}
        assert_eq!(schedule.taken, 4900);
    }
}
