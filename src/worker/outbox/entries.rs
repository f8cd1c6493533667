//! The entries of all outboxes of a worker: one array, threaded into lists, so that queueing allocates nothing.

use crate::frame::OpCode;
use crate::hub::TopicId;
use crate::io::Block;

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// What an entry is, and with that what may be done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Publications of this topic, one or a run: may be dropped by policy, count as messages.
    Publications(TopicId, u16),
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
            Self::Publications(topic, _) => Some(topic),
            Self::Head | Self::Owned | Self::Control(_) => None,
        }
    }

    /// Whether these are publications of `topic`.
    pub(super) fn is_of(self, topic: TopicId) -> bool {
        matches!(self, Self::Publications(of, _) if of == topic)
    }

    /// How many publications.
    pub(super) fn messages(self) -> u64 {
        if let Self::Publications(_, count) = self { u64::from(count) } else { 0 }
    }
}

/// The entries of all outboxes of a worker.
#[derive(Debug)]
pub struct Entries {
    pub(super) list: Vec<Entry>,
    free: u32,
    used: usize,
    pub(super) queued_bytes: u64,
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
        Self { list: Vec::new(), free: NONE, used: 0, queued_bytes: 0 }
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
        self.list[index as usize].next = self.free;
        self.free = index;
        self.used -= 1;
        if self.used == 0 && self.list.capacity() > Self::IDLE_ENTRIES_MAX {
            (self.list, self.free) = (Vec::new(), NONE);
        }
    }

    /// With all outboxes empty, room for this many entries is kept; what a burst took beyond it is given back.
    const IDLE_ENTRIES_MAX: usize = 16 * 1024;
}
