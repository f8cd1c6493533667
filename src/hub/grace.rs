//! When everything that was under way has come to its end, while new things begin all the time.
//!
//! A publication under way may have reached a connection by one list, or stand in a page that it has read, and come to another list that the
//! connection joins only now. So who joins a pattern is passed by until all publications have ended that had arrived then, also those
//! whose turn had not come:
//!
//! ```text
//!   joined ──> waiting ──────────────────────> ripening ───────────────────────> released
//!                      the earlier half ended,           that half ended, too:
//!                      the halves change places          all that was under way has
//! ```
//!
//! Two counters tell: those that arrived in the earlier half, and those since. Where nothing is under way, nobody waits.

use super::topics::{Hold, TopicId};
use crate::limits::GiveBack;

/// Who joined a list, and is passed by.
pub(super) type Joined = (u32, TopicId, Hold);

/// In which half a publication arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Half(u8);

/// Publications under way, and those who wait for their ends.
#[derive(Debug, Default)]
pub(super) struct Grace {
    under_way: [usize; 2],
    now: Half,
    /// They wait for those of the earlier half, and then for those of this one.
    waiting: Vec<Joined>,
    /// They wait for those of the earlier half.
    ripening: Vec<Joined>,
}

impl Half {
    const fn other(self) -> Self {
        Self(1 - self.0)
    }
}

impl Grace {
    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.under_way == [0, 0]
    }

    /// A publication arrives; it ends in the same half.
    pub fn begin(&mut self) -> Half {
        self.under_way[self.now.0 as usize] += 1;
        self.now
    }

    pub fn end(&mut self, half: Half) {
        self.under_way[half.0 as usize] -= 1;
    }

    /// Somebody joins a list while something is under way.
    pub fn wait(&mut self, joined: Joined) {
        self.waiting.push(joined);
    }

    /// Those who have waited long enough, if a publication has ended since it was asked last.
    pub fn ripe(&mut self) -> Vec<Joined> {
        let mut ripe = Vec::new();
        while self.under_way[self.now.other().0 as usize] == 0 && !(self.waiting.is_empty() && self.ripening.is_empty()) {
            ripe.append(&mut self.ripening);
            std::mem::swap(&mut self.ripening, &mut self.waiting);
            self.now = self.now.other();
        }
        self.waiting.give_back();
        self.ripening.give_back();
        ripe
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_waits_for_all_that_is_under_way_and_for_nothing_else() {
        let joined = |slot| (slot, TopicId::from_index(0), Hold::FIRST);
        let mut grace = Grace::default();
        let first = grace.begin();
        grace.wait(joined(1));
        assert_eq!(grace.ripe(), []);
        let second = grace.begin();
        grace.wait(joined(2));
        assert_eq!(grace.ripe(), []);
        grace.end(first);
        assert_eq!(grace.ripe(), [joined(1)], "the second came later");
        let third = grace.begin();
        grace.end(second);
        assert_eq!(grace.ripe(), [joined(2)], "and so did the third");
        grace.end(third);
        assert!(grace.is_quiet() && grace.ripe().is_empty());
    }
}
