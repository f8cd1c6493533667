//! A connection's queue of what waits to be written, bounded in bytes.
//!
//! An [`Outbox`] is five words in the connection: a list threaded through the worker's one array of [`Entries`], so that queueing a
//! publication for a subscriber allocates nothing and an idle connection holds nothing. An entry refers to whole frames, so the
//! queue may be cut between any two entries, but never inside one:
//!
//! ```text
//!   pinned            control          data
//! [ head, partly   ] [ pong, ping ] [ publication, publication, replies ... ]
//!   written, or in
//!   flight: stays
//! ```
//!
//! It never decides who is slow: it says [`Full`], and the worker applies the policy. What is dropped then leaves a gap in its place.

mod drops;
mod entries;
#[cfg(test)]
mod tests;

use crate::frame::OpCode;
use crate::hub::TopicId;
use crate::io::{Block, Released, Segment, Served, Store};
use crate::limits::BufferPool;

pub use entries::{Class, Entries};
use entries::{Entry, NONE};

/// Owned bytes grow in one block up to this size, then a new one is begun: large enough for one send, small enough to be pooled.
const OWNED_BYTES_MAX: usize = 64 * 1024;
/// Pongs that wait are collected up to this size: some hundred, more than any client sends pings at a time.
const PONG_BYTES_MAX: usize = 4 * 1024;

/// One connection's queue.
#[derive(Debug)]
pub struct Outbox {
    head: u32,
    tail: u32,
    /// Bytes queued, those of the head that are already written not counted.
    bytes: u32,
    /// Bytes of the head that are written.
    written: u32,
    /// Entries at the head that must stay where they are: partly written, or in flight.
    pinned: u16,
}

/// What finished when the kernel took bytes, or was thrown away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Publications among them.
    pub messages: u64,
    /// Those whose last reference on this worker ended.
    pub served: Option<Served>,
}

/// Frames of publications, in one block: of one, or of a run.
#[derive(Clone, Copy, Debug)]
pub struct Frames {
    /// Where they are.
    pub block: Block,
    /// Their bytes.
    pub length: u32,
    /// How many.
    pub publications: u16,
}

/// The queue is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Outbox {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, bytes: 0, written: 0, pinned: 0 }
    }

    /// Nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Queues publications. The caller has counted the reference.
    ///
    /// # Errors
    /// [`Full`] if other bytes wait and both together pass `bytes_max`; an empty queue takes frames of any size.
    pub fn push_publications(
        &mut self,
        entries: &mut Entries,
        frames: Frames,
        topic: TopicId,
        bytes_max: usize,
    ) -> Result<(), Full> {
        let length = frames.length as usize;
        if !self.is_empty() && self.bytes() + length > bytes_max {
            return Err(Full);
        }
        self.push(entries, frames.block, length, Class::Publications(topic, frames.publications));
        Ok(())
    }

    /// Queues publications that no policy drops and no bound refuses: whoever replays them sees to it that few wait.
    pub fn push_kept(&mut self, entries: &mut Entries, frames: Frames) {
        self.push(entries, frames.block, frames.length as usize, Class::Kept(frames.publications));
    }

    /// Queues bytes that other connections are sent, too. The caller has counted the reference.
    pub fn push_shared(&mut self, entries: &mut Entries, block: Block, length: usize) {
        self.push(entries, block, length, Class::Owned);
    }

    /// Queues what says where the stream stands behind everything that is queued.
    pub fn push_cursor(&mut self, entries: &mut Entries, store: &mut Store, bytes: Vec<u8>) {
        let length = bytes.len();
        self.push(entries, store.own(bytes), length, Class::Cursor);
    }

    /// Appends bytes of this connection: `write` gets the last block if it is still open, or a fresh one.
    pub fn append_owned(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        pool: &mut BufferPool,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(open) = self.open_tail(entries, store) {
            let before = open.len();
            write(open);
            let more = open.len() - before;
            entries.list[self.tail as usize].length += more as u32;
            entries.queued_bytes += more as u64;
            self.bytes += more as u32;
            return;
        }
        let mut bytes = pool.take();
        write(&mut bytes);
        let length = bytes.len();
        let block = store.own(bytes);
        self.push(entries, block, length, Class::Owned);
    }

    /// Puts the head of an answer before everything that is queued, which is publications that came since it was asked for. The
    /// caller has seen to it that all earlier answers are written.
    pub fn push_first(&mut self, entries: &mut Entries, store: &mut Store, bytes: Vec<u8>) {
        debug_assert!(self.pinned == 0 && self.written == 0, "earlier answers are written before an upgrade begins");
        let length = bytes.len();
        let next = self.head;
        let index = entries.insert(Entry { block: store.own(bytes), length: length as u32, next, class: Class::Head });
        self.head = index;
        if next == NONE {
            self.tail = index;
        }
        self.bytes += length as u32;
    }

    /// Queues a ping or pong ahead of the data. Pongs that wait are collected up to [`PONG_BYTES_MAX`], then the newest replaces
    /// them: an answer to the latest ping is enough (RFC 6455 section 5.5.3), so pings whose pongs are never read cost no memory.
    pub fn push_control(&mut self, entries: &mut Entries, store: &mut Store, opcode: OpCode, frame: &[u8]) {
        let (mut before, mut at, mut place) = (NONE, self.head, 0);
        while let Some(entry) = entries.list.get(at as usize) {
            match entry.class {
                _ if place < self.pinned => {}
                Class::Head => {}
                Class::Control(waiting) if waiting == opcode => return self.collect(entries, store, at, opcode, frame),
                Class::Control(_) => {}
                Class::Publications(..) | Class::Kept(_) | Class::Gap(_) | Class::Cursor | Class::Owned => break,
            }
            (before, at, place) = (at, entry.next, place.saturating_add(1));
        }
        let entry =
            Entry { block: store.own(frame.to_vec()), length: frame.len() as u32, next: at, class: Class::Control(opcode) };
        let index = entries.insert(entry);
        match before {
            NONE => self.head = index,
            before => entries.list[before as usize].next = index,
        }
        if at == NONE {
            self.tail = index;
        }
        self.bytes += frame.len() as u32;
    }

    /// Whether a publication of `topic` waits that may be dropped.
    pub fn holds(&self, entries: &Entries, topic: TopicId) -> bool {
        let (mut at, mut place) = (self.head, 0);
        while let Some(entry) = entries.list.get(at as usize) {
            if place >= self.pinned && entry.class.is_of(topic) {
                return true;
            }
            (at, place) = (entry.next, place.saturating_add(1));
        }
        false
    }

    /// Fills `segments` with what a send should offer: at most `segments_max` entries and, but for the first, `bytes_max` bytes.
    /// Returns the bytes offered.
    pub fn offer(&self, entries: &Entries, segments: &mut Vec<Segment>, segments_max: usize, bytes_max: usize) -> usize {
        segments.clear();
        let (mut at, mut start, mut offered) = (self.head, self.written, 0);
        while at != NONE && segments.len() < segments_max {
            let entry = &entries.list[at as usize];
            let length = (entry.length - start) as usize;
            if !segments.is_empty() && offered + length > bytes_max {
                break;
            }
            segments.push(Segment { block: entry.block, start, end: entry.length });
            offered += length;
            (at, start) = (entry.next, 0);
        }
        offered
    }

    /// The first `count` entries are in flight: they stay in place until [`Outbox::taken`].
    pub fn pin(&mut self, count: usize) {
        self.pinned = self.pinned.max(count as u16);
    }

    /// The kernel took `bytes` from the head; nothing is in flight any more.
    pub fn taken(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool, mut bytes: usize) -> Finished {
        let mut finished = Finished::default();
        self.bytes -= bytes as u32;
        entries.queued_bytes -= bytes as u64;
        while self.head != NONE {
            let entry = &entries.list[self.head as usize];
            let left = (entry.length - self.written) as usize;
            if bytes < left {
                break;
            }
            bytes -= left;
            self.written = 0;
            self.remove_head(entries, store, pool, &mut finished);
        }
        self.written += bytes as u32;
        self.pinned = u16::from(self.written > 0);
        finished
    }

    /// Empties the queue. What is in flight keeps its bytes by the driver's own reference.
    pub fn clear(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool, mut each: impl FnMut(Finished)) {
        entries.queued_bytes -= u64::from(self.bytes);
        while self.head != NONE {
            let mut finished = Finished::default();
            self.remove_head(entries, store, pool, &mut finished);
            each(finished);
        }
        *self = Self::new();
    }

    fn push(&mut self, entries: &mut Entries, block: Block, length: usize, class: Class) -> u32 {
        let index = entries.insert(Entry { block, length: length as u32, next: NONE, class });
        match self.tail {
            NONE => self.head = index,
            tail => entries.list[tail as usize].next = index,
        }
        self.tail = index;
        self.bytes += length as u32;
        index
    }

    /// The last block, if more may be appended: owned, not in flight, not yet large.
    fn open_tail<'s>(&self, entries: &Entries, store: &'s mut Store) -> Option<&'s mut Vec<u8>> {
        let entry = entries.list.get(self.tail as usize)?;
        if entry.class != Class::Owned || entry.length as usize >= OWNED_BYTES_MAX {
            return None;
        }
        store.owned_mut(entry.block)
    }

    /// Adds a frame to the control frames of its kind that wait, or puts it in their place.
    fn collect(&mut self, entries: &mut Entries, store: &mut Store, at: u32, opcode: OpCode, frame: &[u8]) {
        let entry = &mut entries.list[at as usize];
        let Some(bytes) = store.owned_mut(entry.block) else { return };
        if opcode != OpCode::Pong || bytes.len() + frame.len() > PONG_BYTES_MAX {
            bytes.clear();
        }
        bytes.extend_from_slice(frame);
        let length = bytes.len() as u32;
        self.bytes = self.bytes - entry.length + length;
        entries.queued_bytes = entries.queued_bytes - u64::from(entry.length) + u64::from(length);
        entry.length = length;
    }

    fn remove_head(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool, finished: &mut Finished) {
        let entry = &entries.list[self.head as usize];
        let (index, block, next) = (self.head, entry.block, entry.next);
        finished.messages += entry.class.messages();
        if let Some(served) = served(store.release(block, pool)) {
            finished.served = Some(finished.served.map_or(served, |before| before.and(served)));
        }
        entries.remove(index);
        self.head = next;
        if next == NONE {
            self.tail = NONE;
        }
    }
}

fn served(released: Released) -> Option<Served> {
    match released {
        Released::Shared(served) => Some(served),
        Released::Owned | Released::Held => None,
    }
}
