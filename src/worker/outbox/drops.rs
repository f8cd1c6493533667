//! What a policy drops from a queue, and what stands in its place.
//!
//! ```text
//!   [ a5 sent partly ][ a6 ][ b2 ][ a7 ]      drop a6:  [ a5 ][ gap a 5-6 ][ b2 ][ a7 ]
//!                                             drop a7:  [ a5 ][ gap a 5-7 ][ b2 ]
//! ```
//!
//! A subscriber whose form can tell of it finds a gap where the publication stood, so that what it reads stays in order. A gap that
//! comes before the next dropped one of its topic, with nothing of that topic between them, grows to its end. So a topic has few gaps in a
//! queue however much is dropped. What is kept may be of any topic, and an answer may begin any anew, so no gap grows across either: who has left a
//! name and asks for its topics again would be told ahead of what he gets then of what is dropped behind it.
//!
//! A cursor says that everything ahead of it was sent or told, and so does a gap of its topic. So a gap that grows takes the cursors that it
//! grows across out of the queue, and who is cut off gets neither.

use super::entries::{Class, Entries, Entry, NONE};
use super::{Finished, Outbox, served};
use crate::frame::{Gap, Position};
use crate::hub::TopicId;
use crate::io::Store;
use crate::limits::BufferPool;

impl Outbox {
    /// Drops the oldest publication that may be dropped, of a topic that is `droppable`. `write` writes what tells of it, or nothing.
    pub fn drop_oldest(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        pool: &mut BufferPool,
        droppable: impl Fn(TopicId) -> bool,
        write: impl Fn(TopicId, &Gap, &mut Vec<u8>),
    ) -> Option<Finished> {
        let may_go = |class| matches!(class, Class::Publications(topic, _) if droppable(topic));
        self.drop_first(entries, store, pool, may_go, write)
    }

    /// Drops the oldest publication of `topic` that may be dropped.
    pub fn drop_topic(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        pool: &mut BufferPool,
        topic: TopicId,
        write: impl Fn(TopicId, &Gap, &mut Vec<u8>),
    ) -> Option<Finished> {
        self.drop_first(entries, store, pool, |class| class.is_of(topic), write)
    }

    /// Drops the oldest publication that is not on its way, whatever it is, in silence: the connection ends. What tells of gaps, or
    /// where the reader stands, goes with them: it would move its reader beyond what is dropped before it.
    pub fn drop_any(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool) -> Option<Finished> {
        let (before, at) = self.find(entries, Class::moves_reader)?;
        let finished = self.free(entries, store, pool, at);
        self.unlink(entries, before, at);
        Some(finished)
    }

    /// A publication of `topic` found no room: the queue says so at its end.
    pub fn tell_dropped(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        pool: &mut BufferPool,
        topic: TopicId,
        position: Position,
        write: impl Fn(TopicId, &Gap, &mut Vec<u8>),
    ) {
        if let Some(open) = self.gap_before(entries, topic, NONE) {
            self.drop_cursors(entries, store, pool, open, NONE);
            return self.widen(entries, store, open, topic, position, write);
        }
        let gap = Gap::dropped(position);
        if let Some(bytes) = written(pool, topic, &gap, write) {
            let length = bytes.len();
            let index = self.push(entries, store.own(bytes), length, Class::Gap(topic));
            entries.gaps.insert(index, gap);
        }
    }

    /// Bytes of what tells of drops, and where the stream stands, and is not on its way: no policy drops it.
    pub fn gap_bytes(&self, entries: &Entries) -> usize {
        let (mut bytes, mut at, mut place) = (0, self.head, 0);
        while let Some(entry) = entries.list.get(at as usize) {
            if place >= self.pinned && matches!(entry.class, Class::Gap(_) | Class::Cursor) {
                bytes += entry.length as usize;
            }
            (at, place) = (entry.next, place.saturating_add(1));
        }
        bytes
    }

    /// The connection has left `topic`: what still waits of it is not dropped any more, and its number may become another topic's.
    pub fn forget_topic(&mut self, entries: &mut Entries, topic: TopicId) {
        let mut at = self.head;
        while at != NONE {
            let entry = &mut entries.list[at as usize];
            match entry.class {
                Class::Publications(of, count) if of == topic => entry.class = Class::Kept(count),
                Class::Gap(of) if of == topic => {
                    entry.class = Class::Kept(0);
                    entries.gaps.remove(&at);
                }
                _ => {}
            }
            at = entries.list[at as usize].next;
        }
    }

    fn drop_first(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        pool: &mut BufferPool,
        wanted: impl Fn(Class) -> bool,
        write: impl Fn(TopicId, &Gap, &mut Vec<u8>),
    ) -> Option<Finished> {
        let (before, at) = self.find(entries, wanted)?;
        let entry = entries.list[at as usize];
        let place = match (entry.class, store.publication(entry.block)) {
            (Class::Publications(topic, _), Some(publication)) => Some((topic, publication.position)),
            _ => None,
        };
        let finished = self.free(entries, store, pool, at);
        let Some((topic, position)) = place else {
            self.unlink(entries, before, at);
            return Some(finished);
        };
        if let Some(open) = self.gap_before(entries, topic, at) {
            self.unlink(entries, before, at);
            let behind = entries.list.get(before as usize).map_or(self.head, |entry| entry.next);
            self.drop_cursors(entries, store, pool, open, behind);
            self.widen(entries, store, open, topic, position, write);
            return Some(finished);
        }
        let gap = Gap::dropped(position);
        match written(pool, topic, &gap, write) {
            None => self.unlink(entries, before, at),
            Some(bytes) => {
                let length = bytes.len() as u32;
                entries.list[at as usize] = Entry { block: store.own(bytes), length, class: Class::Gap(topic), ..entry };
                entries.gaps.insert(at, gap);
                self.count(entries, length);
            }
        }
        Some(finished)
    }

    /// The first entry that is wanted and may leave its place, and the one before it.
    fn find(&self, entries: &Entries, wanted: impl Fn(Class) -> bool) -> Option<(u32, u32)> {
        let (mut before, mut at, mut place) = (NONE, self.head, 0);
        loop {
            let entry = entries.list.get(at as usize)?;
            if place >= self.pinned && wanted(entry.class) {
                return Some((before, at));
            }
            (before, at, place) = (at, entry.next, place.saturating_add(1));
        }
    }

    /// The gap of `topic` that has nothing that may be of that topic behind it before the entry `end`, and is not on its way.
    fn gap_before(&self, entries: &Entries, topic: TopicId, end: u32) -> Option<u32> {
        let (mut open, mut at, mut place) = (None, self.head, 0);
        while at != end {
            let entry = entries.list.get(at as usize)?;
            match entry.class {
                Class::Gap(of) if of == topic => open = (place >= self.pinned).then_some(at),
                Class::Kept(_) | Class::Owned => open = None,
                class if class.is_of(topic) => open = None,
                _ => {}
            }
            (at, place) = (entry.next, place.saturating_add(1));
        }
        open
    }

    /// Takes the cursors out that stand between two entries.
    fn drop_cursors(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool, from: u32, end: u32) {
        let (mut before, mut at) = (from, entries.list[from as usize].next);
        while at != end {
            let Some(Entry { class, next, .. }) = entries.list.get(at as usize).copied() else { return };
            if class == Class::Cursor {
                self.free(entries, store, pool, at);
                self.unlink(entries, before, at);
            } else {
                before = at;
            }
            at = next;
        }
    }

    /// Moves the end of a gap.
    fn widen(
        &mut self,
        entries: &mut Entries,
        store: &mut Store,
        at: u32,
        topic: TopicId,
        to: Position,
        write: impl Fn(TopicId, &Gap, &mut Vec<u8>),
    ) {
        let Entry { block, length, .. } = entries.list[at as usize];
        let (Some(gap), Some(bytes)) = (entries.gaps.get_mut(&at), store.owned_mut(block)) else { return };
        gap.to = to;
        bytes.clear();
        write(topic, gap, bytes);
        let longer = bytes.len() as u32;
        self.uncount(entries, length);
        entries.list[at as usize].length = longer;
        self.count(entries, longer);
    }

    /// Gives up what an entry holds; its place stays.
    fn free(&mut self, entries: &mut Entries, store: &mut Store, pool: &mut BufferPool, at: u32) -> Finished {
        let Entry { block, length, class, .. } = entries.list[at as usize];
        self.uncount(entries, length);
        Finished { messages: class.messages(), served: served(store.release(block, pool)) }
    }

    /// Takes an entry out that holds nothing any more.
    fn unlink(&mut self, entries: &mut Entries, before: u32, at: u32) {
        let next = entries.list[at as usize].next;
        match before {
            NONE => self.head = next,
            before => entries.list[before as usize].next = next,
        }
        if next == NONE {
            self.tail = before;
        }
        entries.remove(at);
    }

    fn count(&mut self, entries: &mut Entries, bytes: u32) {
        self.bytes += bytes;
        entries.queued_bytes += u64::from(bytes);
    }

    fn uncount(&mut self, entries: &mut Entries, bytes: u32) {
        self.bytes -= bytes;
        entries.queued_bytes -= u64::from(bytes);
    }
}

/// What tells of a gap; `None` where nothing does.
fn written(pool: &mut BufferPool, topic: TopicId, gap: &Gap, write: impl Fn(TopicId, &Gap, &mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut bytes = pool.take();
    write(topic, gap, &mut bytes);
    if bytes.is_empty() {
        pool.give(bytes);
        return None;
    }
    Some(bytes)
}
