//! Buffers from which the kernel takes one for each receive, so that a connection that waits has none.
//!
//! They lie in one block, and are offered in a ring of entries that the kernel reads. Both are leaked, as the kernel may use them
//! for as long as the process lives. A buffer is ours from the completion that names it until it is given back.
#![allow(unsafe_code, reason = "the kernel writes to the buffers and reads the entries")]

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;

/// The number by which a receive names these buffers; there are no others.
pub const GROUP: u16 = 0;

/// How many receives a turn can bring before the kernel runs out of buffers and ends them.
const BUFFERS: u16 = 256;

/// Bytes of one of them.
const BUFFER_BYTES: usize = 16 * 1024;

const PAGE_BYTES: usize = 4096;

/// Bytes of all entries.
const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

const _: () = assert!(BUFFERS.is_power_of_two(), "the kernel takes no other number");

/// The buffers and their ring.
pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

impl Buffers {
    /// All of them the kernel's.
    pub fn new(ring: &Ring) -> io::Result<Self> {
        let entries = Box::leak(vec![Page([0; PAGE_BYTES]); ENTRIES_BYTES.div_ceil(PAGE_BYTES)].into_boxed_slice());
        let memory = Box::leak(vec![0; usize::from(BUFFERS) * BUFFER_BYTES].into_boxed_slice());
        let mut buffers = Self { entries: entries.as_mut_ptr().cast(), memory: memory.as_mut_ptr(), tail: 0 };
        // SAFETY: the entries are aligned to a page, as many as is said, and leaked as the buffers are.
        unsafe { ring.provide(buffers.entries, BUFFERS, GROUP)? };
        for buffer in 0..BUFFERS {
            // SAFETY: each is given once.
            unsafe { buffers.give_back(buffer) };
        }
        Ok(buffers)
    }

    /// The first `bytes` of a buffer.
    ///
    /// # Safety
    ///
    /// A completion has named this buffer and so many bytes of it, and it was not given back since.
    pub unsafe fn filled(&mut self, buffer: u16, bytes: usize) -> &mut [u8] {
        // SAFETY: the kernel names buffers that it was given, fills them no further than they reach, and is done with this one.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(usize::from(buffer) * BUFFER_BYTES), bytes) }
    }

    /// Lets the kernel use a buffer.
    ///
    /// # Safety
    ///
    /// The buffer is one of ours, and no slice of it is in use.
    pub unsafe fn give_back(&mut self, buffer: u16) {
        // SAFETY: the index is below the number of entries, and the kernel reads none that lies at or behind the tail.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
        // SAFETY: the buffer's number is below the number of buffers.
        entry.set_addr(unsafe { self.memory.add(usize::from(buffer) * BUFFER_BYTES) } as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies within the first entry, is aligned, and only read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        // Release: the entry is whole before the kernel sees the tail behind it.
        tail.store(self.tail, Ordering::Release);
    }
}
