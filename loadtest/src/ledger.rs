//! What one subscriber got of a numbered sequence: lost, duplicated, reordered, each exactly.
//!
//! A number ahead of its turn opens a hole for each number it jumped. A number that comes later into its hole was reordered; one
//! that comes again was duplicated; a hole that stays was lost.

use std::collections::BTreeSet;

/// How a number stood to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// New, in its turn or ahead of it.
    InOrder,
    /// New, after a higher one.
    Reordered,
    /// Seen before.
    Duplicate,
}

/// One subscriber's account.
#[derive(Debug, Default)]
pub struct Ledger {
    /// One more than the highest number seen; before the first, the one that must come at the latest.
    next: u64,
    /// Numbers below `next` that have not come. Empty with a server that loses nothing, and then free.
    holes: BTreeSet<u64>,
    /// Nothing has come yet, and what was under way before the subscription stood may still come.
    may_begin_earlier: bool,
}

impl Ledger {
    /// Of a subscriber who came when `next` was the next to be published: that one must come, earlier ones may.
    pub const fn joining(next: u64) -> Self {
        Self { next, holes: BTreeSet::new(), may_begin_earlier: true }
    }

    /// Enters a number.
    pub fn enter(&mut self, number: u64) -> Arrival {
        if std::mem::take(&mut self.may_begin_earlier) {
            self.next = self.next.min(number);
        }
        if number >= self.next {
            self.holes.extend(self.next..number);
            self.next = number + 1;
            Arrival::InOrder
        } else if self.holes.remove(&number) {
            Arrival::Reordered
        } else {
            Arrival::Duplicate
        }
    }

    /// How many of `published` never came.
    pub fn lost(&self, published: u64) -> u64 {
        published.saturating_sub(self.next) + self.holes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_with_every_fault_has_exactly_those() {
        let mut ledger = Ledger::default();
        let arrivals: Vec<Arrival> = [0, 1, 1, 4, 3, 3, 0, 6].into_iter().map(|number| ledger.enter(number)).collect();
        use Arrival::{Duplicate, InOrder, Reordered};
        assert_eq!(arrivals, [InOrder, InOrder, Duplicate, InOrder, Reordered, Duplicate, Duplicate, InOrder]);
        assert_eq!(ledger.lost(9), 4, "2, 5, 7 and 8");
    }

    #[test]
    fn who_joins_may_begin_with_what_was_under_way_but_not_later() {
        let mut early = Ledger::joining(5);
        assert_eq!(
            [3, 4, 5, 4].map(|number| early.enter(number)),
            [Arrival::InOrder, Arrival::InOrder, Arrival::InOrder, Arrival::Duplicate]
        );
        assert_eq!(early.lost(6), 0);
        let mut late = Ledger::joining(5);
        assert_eq!(late.enter(7), Arrival::InOrder);
        assert_eq!(late.lost(8), 2, "5 and 6");
        assert_eq!(Ledger::joining(5).lost(5), 0);
    }

    #[test]
    fn random_arrivals_give_what_a_plain_count_gives() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let numbers: Vec<u64> = (0..random.usize(..60)).map(|_| random.u64(..40)).collect();
            let mut ledger = Ledger::default();
            let (mut seen, mut highest) = (BTreeSet::new(), None);
            for &number in &numbers {
                let expected = match () {
                    () if seen.contains(&number) => Arrival::Duplicate,
                    () if highest > Some(number) => Arrival::Reordered,
                    () => Arrival::InOrder,
                };
                assert_eq!(ledger.enter(number), expected, "{numbers:?}");
                seen.insert(number);
                highest = highest.max(Some(number));
            }
            assert_eq!(ledger.lost(40), 40 - seen.len() as u64, "{numbers:?}");
        }
    }
}
