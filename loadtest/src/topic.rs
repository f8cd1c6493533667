//! A topic's publications: how many there were, and who still waits for which.

use std::collections::{BTreeSet, VecDeque};

/// One topic.
#[derive(Clone, Debug, Default)]
pub struct Topic {
    /// The next publication's number.
    pub next: u64,
    /// How many steady subscribers it has.
    pub steady: u32,
    /// Who is subscribed to this topic alone and so can publish on it: the connections' numbers.
    pub members: BTreeSet<usize>,
    /// Of each publication from `first_open` on, how many steady subscribers have not got it.
    open: VecDeque<u32>,
    first_open: u64,
}

impl Topic {
    /// One with so many publications behind it.
    #[cfg(test)]
    pub fn from_number(next: u64) -> Self {
        Self { next, first_open: next, ..Self::default() }
    }

    /// One publication more, which all steady subscribers wait for; returns its number.
    pub fn publish(&mut self) -> u64 {
        self.open.push_back(self.steady);
        self.next += 1;
        self.forget_done();
        self.next - 1
    }

    /// How many still wait for a publication, if any do.
    pub fn remaining_of(&mut self, number: u64) -> Option<&mut u32> {
        let at = number.checked_sub(self.first_open)?;
        self.open.get_mut(usize::try_from(at).ok()?).filter(|remaining| **remaining > 0)
    }

    /// Keeps nothing of those that all have.
    pub fn forget_done(&mut self) {
        while self.open.front() == Some(&0) {
            self.open.pop_front();
            self.first_open += 1;
        }
    }
}
