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
        self.at(self.taken)
    }

    fn at(&self, number: u64) -> Nanos {
        self.start + (number as f64 * SECOND as f64 / self.per_second) as Nanos
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

    /// Takes all that [`Self::take`] would, and returns how many.
    pub fn take_all(&mut self, now: Nanos, until: Nanos) -> u64 {
        let end = until.min(now.saturating_add(1));
        // Rounding makes this wrong by a few at most.
        let mut all = (end.saturating_sub(self.start) as f64 * self.per_second / SECOND as f64) as u64;
        while all > 0 && self.at(all - 1) >= end {
            all -= 1;
        }
        while self.at(all) < end {
            all += 1;
        }
        let before = self.taken;
        self.taken = before.max(all);
        self.taken - before
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
    fn all_at_once_are_as_many_as_one_by_one() {
        for rate in [0.3, 3.0, 7.0, 999.9, 1e6] {
            for (now, until) in [(5, 9), (7, 6), (6, 7), (6, 6), (4, 9)] {
                let (now, until) = (now * SECOND, until * SECOND);
                let mut one_by_one = Schedule::new(5 * SECOND, rate);
                let mut at_once = one_by_one;
                one_by_one.take(now, until);
                at_once.take(now, until);
                let rest = std::iter::from_fn(|| one_by_one.take(now, until)).count() as u64;
                assert_eq!(at_once.take_all(now, until), rest, "{rate} {now} {until}");
                assert_eq!(at_once.next_at(), one_by_one.next_at());
            }
        }
        let mut endless = Schedule::new(0, 1e9);
        assert_eq!(endless.take_all(Nanos::MAX, 3600 * SECOND), 3600 * SECOND, "and that in no time");
    }

    #[test]
    fn rounding_does_not_add_up() {
        let mut schedule = Schedule::new(0, 7.0);
        while schedule.take(700 * SECOND, 700 * SECOND).is_some() {}
        assert_eq!(schedule.taken, 4900);
    }
}
