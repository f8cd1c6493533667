//! The entries of all outboxes of a worker: one array, threaded into lists, so that queueing allocates nothing.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::frame::{Gap, OpCode};
use crate::hub::TopicId;
use crate::io::Block;
use crate::limits::GiveBack;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// What an entry is, and with that what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Publications of this topic, one or a run: may be dropped by policy, count as messages.
    Publications(TopicId, u16),
    /// Publications that no policy drops: replayed, or of a topic that the connection has left. They count as messages. With none, what tells
    /// of a gap among them.
    Kept(u16),
    /// Tells that publications of this topic were dropped here.
    Gap(TopicId),
    /// Says where a stream of several topics stands behind all that is queued ahead. Only what it covers may let it stay.
    Cursor,
    /// The head of an answer that turns the connection into a WebSocket: no frame goes before it.
    Head,
    /// Bytes of this connection alone: answers, echoes, the close frame. Never dropped.
    Owned,
    /// Pings or pongs: go ahead of data, never dropped; a newer one may replace those that wait.
    Control(OpCode),
}

impl Class {
    /// The topic that the entry keeps the number of.
    pub(super) fn topic(self) -> Option<TopicId> {
        match self {
            Self::Publications(topic, _) | Self::Gap(topic) => Some(topic),
            Self::Kept(_) | Self::Cursor | Self::Head | Self::Owned | Self::Control(_) => None,
        }
    }

    /// Whether these are publications of `topic`.
    pub(super) fn is_of(self, topic: TopicId) -> bool {
        matches!(self, Self::Publications(of, _) if of == topic)
    }

    /// Whether its reader stands elsewhere behind it.
    pub(super) fn moves_reader(self) -> bool {
        matches!(self, Self::Publications(..) | Self::Kept(_) | Self::Gap(_) | Self::Cursor)
    }

    /// How many publications.
    pub(super) fn messages(self) -> u64 {
        match self {
            Self::Publications(_, count) | Self::Kept(count) => u64::from(count),
            Self::Gap(_) | Self::Cursor | Self::Head | Self::Owned | Self::Control(_) => 0,
        }
    }
}

/// The entries of all outboxes of a worker.
#[derive(Debug)]
pub struct Entries {
    pub(super) list: Vec<Entry>,
    free: u32,
    used: usize,
    pub(super) queued_bytes: u64,
    /// What the entries of class [`Class::Gap`] tell: few and short-lived, because they come of drops.
    pub(super) gaps: HashMap<u32, Gap, RandomState>,
}

/// Whole frames of one block, and what comes behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub block: Block,
    pub length: u32,
    pub next: u32,
    pub class: Class,
}

impl Entries {
    /// No entries.
    #[must_use]
    pub fn new() -> Self {
        Self { list: Vec::new(), free: NONE, used: 0, queued_bytes: 0, gaps: HashMap::default() }
    }

    /// Bytes queued in all outboxes; a shared frame counts for each subscriber.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Entries queued in all outboxes.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.used
    }

    /// Places for entries, used or not.
    #[must_use]
    pub fn places(&self) -> usize {
        self.list.len()
    }

    /// The topics of what is queued, and perhaps of what stood in places that are free now.
    pub fn topics(&self) -> impl Iterator<Item = TopicId> {
        self.list.iter().filter_map(|entry| entry.class.topic())
    }

    /// How many gaps wait to be told.
    #[cfg(test)]
    pub fn gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Takes an entry in and returns its index.
    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        self.used += 1;
        self.queued_bytes += u64::from(entry.length);
        if self.free == NONE {
            self.list.push(entry);
            return (self.list.len() - 1) as u32;
        }
        let index = self.free;
        let place = &mut self.list[index as usize];
        self.free = place.next;
        *place = entry;
        index
    }

    /// Frees an entry's place; its bytes were uncounted by the caller.
    pub(super) fn remove(&mut self, index: u32) {
        let entry = &mut self.list[index as usize];
        entry.next = self.free;
        if let Class::Gap(_) = entry.class {
            self.gaps.remove(&index);
            self.gaps.give_back();
        }
        self.free = index;
        self.used -= 1;
        if self.used == 0 && self.list.capacity() > Self::IDLE_ENTRIES_MAX {
            (self.list, self.free) = (Vec::new(), NONE);
        }
    }

    /// With all outboxes empty, room for this many entries is kept; what a burst took beyond it is given back.
    const IDLE_ENTRIES_MAX: usize = 16 * 1024;
}
