//! Bytes on their way to the kernel: what it is pointed at, and the references that keep it in place.

// Message headers are made of addresses.
#![allow(unsafe_code)]

use std::fmt;
use std::mem::MaybeUninit;

use slab::Slab;

use crate::io::store::slice;
use crate::io::{Block, SEGMENTS_MAX, Segment, Store};
use crate::limits::BufferPool;

/// Blocks that a send in flight holds. The store keeps their bytes in place until the send's completion gives them back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pins {
    /// None: an empty send.
    None,
    /// One block.
    One(Block),
    /// Several, by their number in [`Runs`].
    Run(u32),
}

/// The blocks of sends of several segments.
#[derive(Debug, Default)]
pub(super) struct Runs {
    in_flight: Slab<Vec<Block>>,
    spare: Vec<Vec<Block>>,
    /// Where an owned block ends whose last reference is the send's: its connection is gone, and nobody waits for the buffer.
    pool: Option<BufferPool>,
}

impl Runs {
    /// Spare lists that are kept.
    const SPARE_MAX: usize = 64;

    /// Counts a reference to every block.
    pub(super) fn pin(&mut self, store: &mut Store, segments: &[Segment]) -> Pins {
        for segment in segments {
            store.retain(segment.block, 1);
        }
        match segments {
            [] => Pins::None,
            [only] => Pins::One(only.block),
            several => {
                let mut run = self.spare.pop().unwrap_or_default();
                run.extend(several.iter().map(|segment| segment.block));
                Pins::Run(self.in_flight.insert(run) as u32)
            }
        }
    }

    /// Gives the references back: the send has had its completion.
    pub(super) fn release(&mut self, store: &mut Store, pins: Pins) {
        let Self { in_flight, spare, pool } = self;
        let pool = pool.get_or_insert_with(|| BufferPool::new(0));
        match pins {
            Pins::None => {}
            Pins::One(block) => drop(store.release(block, pool)),
            Pins::Run(index) => {
                let mut run = in_flight.remove(index as usize);
                for block in run.drain(..) {
                    store.release(block, pool);
                }
                if spare.len() < Self::SPARE_MAX {
                    spare.push(run);
                }
            }
        }
    }
}

/// Message headers and their slices, for sends that wait in the submission queue. The kernel copies them when it takes the entry, so
/// when the queue is empty all of them may go.
pub(super) struct Messages {
    headers: Vec<libc::msghdr>,
    slices: Vec<libc::iovec>,
}

impl Messages {
    /// Messages that wait at a time.
    const HEADERS_MAX: usize = 256;
    /// Slices of all of them.
    const SLICES_MAX: usize = Self::HEADERS_MAX * 8;

    pub(super) fn new() -> Self {
        const { assert!(SEGMENTS_MAX <= Self::SLICES_MAX) };
        Self { headers: Vec::with_capacity(Self::HEADERS_MAX), slices: Vec::with_capacity(Self::SLICES_MAX) }
    }

    /// Whether a message of this many slices finds room; if not, the queue must be submitted and the messages cleared.
    pub(super) fn has_room(&self, slices: usize) -> bool {
        self.headers.len() < Self::HEADERS_MAX && self.slices.len() + slices <= Self::SLICES_MAX
    }

    /// Forgets all messages. Their entries have left the submission queue.
    pub(super) fn clear(&mut self) {
        self.headers.clear();
        self.slices.clear();
    }

    /// A message of these segments. Its address holds until [`Messages::clear`].
    pub(super) fn add(&mut self, store: &Store, segments: &[Segment]) -> *const libc::msghdr {
        assert!(self.has_room(segments.len()), "what is pointed at must not move");
        let first = self.slices.len();
        self.slices.extend(segments.iter().map(|segment| {
            let bytes = slice(store, segment);
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
        }));
        // SAFETY: zeroes are a valid message header: no address, no control data, no slices.
        let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.msg_iov = self.slices[first..].as_ptr().cast_mut();
        header.msg_iovlen = segments.len();
        self.headers.push(header);
        &raw const self.headers[self.headers.len() - 1]
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Messages").field("waiting", &self.headers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_in_flight_holds_its_blocks() {
        let (mut store, mut runs, mut pool) = (Store::default(), Runs::default(), BufferPool::new(0));
        let segments: Vec<_> = [b"one".to_vec(), b"two".to_vec()]
            .into_iter()
            .map(|bytes| Segment { block: store.own(bytes), start: 0, end: 3 })
            .collect();
        for count in 0..=2 {
            let pins = runs.pin(&mut store, &segments[..count]);
            assert!((0..2).all(|at| store.owned_mut(segments[at].block).is_none() == (at < count)));
            runs.release(&mut store, pins);
            assert!((0..2).all(|at| store.owned_mut(segments[at].block).is_some()));
        }
        let pins = runs.pin(&mut store, &segments);
        for segment in &segments {
            store.release(segment.block, &mut pool);
        }
        assert_eq!(store.blocks(), 2, "their connection is gone, the kernel still reads them");
        runs.release(&mut store, pins);
        assert_eq!(store.blocks(), 0);
    }

    #[test]
    fn what_waits_in_the_queue_does_not_move() {
        let mut store = Store::default();
        let block = store.own(b"bytes".to_vec());
        let segments = [Segment { block, start: 1, end: 3 }; SEGMENTS_MAX];
        let mut messages = Messages::new();
        let mut added = Vec::new();
        while messages.has_room(2) {
            added.push(messages.add(&store, &segments[..2]));
        }
        assert_eq!(added.len(), Messages::HEADERS_MAX);
        let (start, length) = (slice(&store, &segments[0]).as_ptr(), 2);
        for message in added {
            // SAFETY: made by `add`, and not cleared since.
            let slices = unsafe { std::slice::from_raw_parts((*message).msg_iov, (*message).msg_iovlen) };
            assert!(slices.iter().all(|slice| slice.iov_base.cast_const() == start.cast() && slice.iov_len == length));
        }
        messages.clear();
        while messages.has_room(SEGMENTS_MAX) {
            messages.add(&store, &segments);
        }
        assert_eq!(messages.slices.len(), Messages::SLICES_MAX);
    }
}
