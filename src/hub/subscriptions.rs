//! From a connection to its topics: a table by slot, with the one subscription that most connections have stored in place.

use super::topics::TopicId;
use crate::limits::{GiveBack, reserve_tight};

/// One subscription, seen from its connection: where it stands in the topic's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub topic: TopicId,
    pub position: u32,
}

/// The subscriptions of every slot of the worker.
///
/// A slot's entries are searched from front to back: `--max-subscriptions` keeps them few, and 128 of them are one kilobyte.
#[derive(Debug, Default)]
pub(super) struct Slots {
    table: Vec<Own>,
    subscriptions: usize,
}

/// The subscriptions of one slot, in 16 bytes.
#[derive(Debug, Default)]
enum Own {
    #[default]
    None,
    One(Entry),
    Many(Box<Many>),
}

/// Boxed whole, because a vector's three words in place would make every slot pay for the few that have several.
#[derive(Debug)]
struct Many {
    entries: Vec<Entry>,
}

impl Slots {
    /// All subscriptions of all slots.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    /// The subscriptions of `slot`, in no particular order.
    pub fn of(&self, slot: u32) -> &[Entry] {
        self.table.get(slot as usize).map_or(&[], Own::entries)
    }

    /// Where `slot` stands in the list of a topic that it subscribes to.
    pub fn position(&self, slot: u32, topic: TopicId) -> Option<u32> {
        self.of(slot).iter().find(|entry| entry.topic == topic).map(|entry| entry.position)
    }

    /// Notes a subscription that `slot` does not have yet.
    pub fn add(&mut self, slot: u32, entry: Entry) {
        let index = slot as usize;
        if index >= self.table.len() {
            let missing = index + 1 - self.table.len();
            reserve_tight(&mut self.table, missing);
            self.table.resize_with(index + 1, Own::default);
        }
        self.table[index].add(entry);
        self.subscriptions += 1;
    }

    /// Forgets the subscription of `slot` to `topic`.
    pub fn remove(&mut self, slot: u32, topic: TopicId) -> Option<Entry> {
        let own = self.table.get_mut(slot as usize)?;
        let index = own.entries().iter().position(|entry| entry.topic == topic)?;
        let entry = own.remove(index);
        self.removed_one();
        Some(entry)
    }

    /// Forgets some subscription of `slot`, the last first.
    pub fn pop(&mut self, slot: u32) -> Option<Entry> {
        let own = self.table.get_mut(slot as usize)?;
        let index = own.entries().len().checked_sub(1)?;
        let entry = own.remove(index);
        self.removed_one();
        Some(entry)
    }

    /// The topic's list has moved the subscriber `slot` to `position`.
    pub fn moved(&mut self, slot: u32, topic: TopicId, position: u32) {
        let entries = self.table[slot as usize].entries_mut();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.topic == topic) {
            entry.position = position;
        }
    }

    /// The table ends with its last used slot, so a mass disconnect gives it back.
    fn removed_one(&mut self) {
        self.subscriptions -= 1;
        while let Some(Own::None) = self.table.last() {
            self.table.pop();
        }
        self.table.give_back();
    }

    /// How many slots the table spans.
    #[cfg(any(test, debug_assertions))]
    pub fn span(&self) -> u32 {
        self.table.len() as u32
    }

    /// Bytes of the table, without what slots with several subscriptions hold beside it.
    pub fn table_bytes(&self) -> usize {
        self.table.capacity() * size_of::<Own>()
    }
}

impl Own {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::None => &[],
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(many) => &many.entries,
        }
    }

    fn entries_mut(&mut self) -> &mut [Entry] {
        match self {
            Self::None => &mut [],
            Self::One(entry) => std::slice::from_mut(entry),
            Self::Many(many) => &mut many.entries,
        }
    }

    fn add(&mut self, entry: Entry) {
        match self {
            Self::None => *self = Self::One(entry),
            Self::One(first) => *self = Self::Many(Box::new(Many { entries: vec![*first, entry] })),
            Self::Many(many) => {
                reserve_tight(&mut many.entries, 1);
                many.entries.push(entry);
            }
        }
    }

    fn remove(&mut self, index: usize) -> Entry {
        let entry = self.entries()[index];
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(many) => {
                many.entries.swap_remove(index);
                many.entries.give_back();
                if let [last] = many.entries[..] {
                    *self = Self::One(last);
                }
            }
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(topic: u32) -> Entry {
        Entry { topic: TopicId::from_index(topic as usize), position: topic }
    }

    #[test]
    fn a_slot_with_one_topic_takes_16_bytes() {
        assert_eq!(size_of::<Own>(), 16);
    }

    #[test]
    fn a_slot_spills_and_comes_back() {
        let mut slots = Slots::default();
        for topic in 0..100 {
            slots.add(3, entry(topic));
        }
        for topic in 1..100 {
            assert_eq!(slots.remove(3, entry(topic).topic), Some(entry(topic)));
            assert_eq!(slots.remove(3, entry(topic).topic), None);
        }
        assert!(matches!(slots.table[3], Own::One(_)));
        assert_eq!((slots.pop(3), slots.pop(3), slots.subscriptions()), (Some(entry(0)), None, 0));
    }

    #[test]
    fn the_table_ends_with_its_last_used_slot() {
        let mut slots = Slots::default();
        for slot in 0..10_000 {
            slots.add(slot, entry(0));
        }
        for slot in (1..10_000).rev() {
            slots.pop(slot);
        }
        assert_eq!(slots.span(), 1);
        assert!(slots.table_bytes() < 16 * size_of::<Own>());
    }
}
