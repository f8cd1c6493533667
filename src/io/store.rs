//! The bytes on their way to the kernel: shared frames, counted without atomics, and bytes of one connection.
//!
//! A publication arrives as an `Arc`, whose count all workers contend for. It is wrapped here once for each worker and fan-out; each
//! subscriber then holds a [`Block`], a 4-byte index with a plain count. The driver owns the store, so what the kernel reads
//! later stays in place however the worker ends.

use std::sync::Arc;

use slab::Slab;

use crate::frame::{Form, Publication};
use crate::limits::BufferPool;

/// A counted reference to bytes in a [`Store`]. Not `Drop`: who holds one releases it through the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(u32);

/// A range of a block, to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The bytes.
    pub block: Block,
    /// The first byte to send.
    pub start: u32,
    /// The end of the range.
    pub end: u32,
}

/// What the last release of a block freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Others still hold the block.
    Held,
    /// Bytes of one connection.
    Owned,
    /// Frames of publications: their last subscriber here has been served.
    Shared(Served),
}

/// Publications that all subscribers of a worker have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// When the first of them was numbered, in nanoseconds of the driver's clock.
    pub numbered_ns: u64,
    /// How many there are; they went out as one.
    pub publications: u32,
}

impl Served {
    fn one(publication: &Publication) -> Self {
        Self { numbered_ns: publication.numbered_ns, publications: 1 }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { numbered_ns: self.numbered_ns.min(other.numbered_ns), publications: self.publications + other.publications }
    }
}

/// The blocks of one worker.
#[derive(Debug, Default)]
pub struct Store {
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    references: u32,
}

#[derive(Debug)]
enum Bytes {
    Shared(Arc<Publication>, Form),
    /// A form the home worker had not been asked for in time, made here.
    Encoded(Arc<Publication>, Box<[u8]>),
    /// A run of frames.
    Run(Box<[u8]>, Served),
    Owned(Vec<u8>),
}

impl Store {
    /// Holds `form` of a publication; makes it here if the home worker did not. The caller has the only reference.
    pub fn share(&mut self, publication: &Arc<Publication>, form: Form) -> Block {
        let bytes = match publication.form(form) {
            Some(_) => Bytes::Shared(Arc::clone(publication), form),
            None => Bytes::Encoded(Arc::clone(publication), publication.encode(form)),
        };
        self.insert(bytes)
    }

    /// Holds `form` of publications that go out in a row: one copy here, so that each subscriber gets one reference instead of many.
    /// The caller has the only reference.
    ///
    /// # Panics
    /// If there is no publication.
    pub fn share_run<'p>(&mut self, publications: impl IntoIterator<Item = &'p Arc<Publication>>, form: Form) -> Block {
        let mut run = Vec::new();
        let mut all: Option<Served> = None;
        for publication in publications {
            match publication.form(form) {
                Some(bytes) => run.extend_from_slice(bytes),
                None => run.extend_from_slice(&publication.encode(form)),
            }
            let served = Served::one(publication);
            all = Some(all.map_or(served, |before| before.and(served)));
        }
        self.insert(Bytes::Run(run.into_boxed_slice(), all.expect("a run has a first publication")))
    }

    /// Holds bytes of one connection. The caller has the only reference.
    pub fn own(&mut self, bytes: Vec<u8>) -> Block {
        self.insert(Bytes::Owned(bytes))
    }

    /// The block's bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self, block: Block) -> &[u8] {
        match &self.entries[block.0 as usize].bytes {
            Bytes::Shared(publication, form) => publication.form(*form).expect("share() holds only forms that exist"),
            Bytes::Encoded(_, bytes) | Bytes::Run(bytes, _) => bytes,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// The one publication whose frame the block is.
    #[must_use]
    pub fn publication(&self, block: Block) -> Option<&Publication> {
        match &self.entries[block.0 as usize].bytes {
            Bytes::Shared(publication, _) | Bytes::Encoded(publication, _) => Some(publication),
            Bytes::Run(..) | Bytes::Owned(_) => None,
        }
    }

    /// An owned block to append to; `None` if it is shared or in flight, because then its bytes must not move.
    pub fn owned_mut(&mut self, block: Block) -> Option<&mut Vec<u8>> {
        match &mut self.entries[block.0 as usize] {
            Entry { bytes: Bytes::Owned(bytes), references: 1 } => Some(bytes),
            _ => None,
        }
    }

    /// Counts `more` references.
    pub fn retain(&mut self, block: Block, more: u32) {
        self.entries[block.0 as usize].references += more;
    }

    /// Gives a reference back; the last one frees the block, an owned buffer into `pool`.
    pub fn release(&mut self, block: Block, pool: &mut BufferPool) -> Released {
        let entry = &mut self.entries[block.0 as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return Released::Held;
        }
        let released = match self.entries.remove(block.0 as usize).bytes {
            Bytes::Shared(publication, _) | Bytes::Encoded(publication, _) => Released::Shared(Served::one(&publication)),
            Bytes::Run(_, served) => Released::Shared(served),
            Bytes::Owned(bytes) => {
                pool.give(bytes);
                Released::Owned
            }
        };
        if self.entries.is_empty() && self.entries.capacity() > Self::IDLE_ENTRIES_MAX {
            self.entries = Slab::new();
        }
        released
    }

    /// How many blocks are held.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.entries.len()
    }

    /// An empty store keeps room for this many blocks; what a burst took beyond it is given back.
    const IDLE_ENTRIES_MAX: usize = 4096;

    fn insert(&mut self, bytes: Bytes) -> Block {
        let index = self.entries.insert(Entry { bytes, references: 1 });
        Block(u32::try_from(index).expect("a worker's outboxes hold fewer than 2^32 blocks"))
    }
}

/// The bytes of a segment.
#[inline]
pub(super) fn slice<'s>(store: &'s Store, segment: &Segment) -> &'s [u8] {
    &store.bytes(segment.block)[segment.start as usize..segment.end as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Epoch, Forms, Kind, Payload, Position, Topic};

    #[test]
    fn a_shared_frame_is_freed_with_its_last_reference() {
        let position = Position { epoch: Epoch::from_random(1), offset: 1 };
        let payload = Payload::new(Kind::Text, b"hi").unwrap();
        let publication = Arc::new(Publication::new(Topic::new("chat").unwrap(), position, 0, 42, payload, Forms::NONE));
        let mut store = Store::default();
        let mut pool = BufferPool::new(1024);
        for form in Form::ALL {
            let block = store.share(&publication, form);
            assert!(store.owned_mut(block).is_none());
            store.retain(block, 1);
            assert_eq!(store.release(block, &mut pool), Released::Held);
            assert_eq!(store.bytes(block), &*publication.encode(form));
            assert!(store.publication(block).is_some_and(|of| std::ptr::eq(of, &*publication)));
            let served = Served { numbered_ns: 42, publications: 1 };
            assert_eq!(store.release(block, &mut pool), Released::Shared(served));
            let run = store.share_run([&publication, &publication], form);
            assert_eq!(store.bytes(run), publication.encode(form).repeat(2));
            assert!(store.publication(run).is_none());
            assert_eq!(store.release(run, &mut pool), Released::Shared(Served { publications: 2, ..served }));
        }
        assert_eq!(Arc::strong_count(&publication), 1);
    }

    #[test]
    fn an_owned_block_moves_only_while_nothing_is_in_flight() {
        let mut store = Store::default();
        let mut pool = BufferPool::new(1024);
        let block = store.own(b"one".to_vec());
        store.owned_mut(block).unwrap().extend_from_slice(b" two");
        store.retain(block, 1);
        assert!(store.owned_mut(block).is_none());
        store.release(block, &mut pool);
        assert_eq!(store.bytes(block), b"one two");
        assert_eq!(store.release(block, &mut pool), Released::Owned);
        assert!(pool.spare_bytes() >= 7 && store.blocks() == 0);
    }
}
