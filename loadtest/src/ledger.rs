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
    /// One more than the highest number seen.
    next: u64,
    /// Numbers below `next` that have not come. Empty with a server that loses nothing, and then free.
    holes: BTreeSet<u64>,
}

impl Ledger {
    /// Enters a number.
    pub fn enter(&mut self, number: u64) -> Arrival {
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
