//! The receive buffers, and the ring that tells the kernel which of them are free.
//!
//! One block of memory, cut into buffers of one size. A free buffer stands in the ring; the kernel takes the one at its head when
//! bytes arrive and names it in the completion; from then on it is the driver's, which lends its bytes and puts it back at the tail.
//! So an idle connection holds no buffer, and a buffer is never both the kernel's and ours.

// The memory is shared with the kernel, which no safe type can say.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The kernel's name of this set of buffers; a ring has one.
pub(super) const GROUP: u16 = 0;

/// The kernel wants the ring to begin with a page, whose size is the machine's.
fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// The buffers of one ring.
pub(super) struct Buffers {
    /// `count` entries; the first one's reserved field is the tail, which the kernel reads.
    entries: NonNull<BufRingEntry>,
    bytes: NonNull<u8>,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
    /// The kernel may write into them for ever.
    is_left_to_kernel: bool,
}

impl Buffers {
    /// `count` buffers, a power of two up to 32768, of `buffer_bytes` each, none of them with the kernel.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub(super) fn new(count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two() && buffer_bytes > 0, "buffers are counted in powers of two, and not empty");
        let bytes = allocate(Self::bytes_layout(count, buffer_bytes))?;
        let entries = allocate(Self::entries_layout(count))?.cast();
        Ok(Self { entries, bytes, count, buffer_bytes, tail: 0, is_left_to_kernel: false })
    }

    /// Tells the kernel of the buffers and gives it all of them.
    ///
    /// # Safety
    /// The buffers must not be dropped before every operation that may use them has had its last completion, unless they were left to
    /// the kernel.
    ///
    /// # Errors
    /// The kernel's, when it has no such rings or no memory.
    pub(super) unsafe fn register(&mut self, uring: &IoUring) -> io::Result<()> {
        let address = self.entries.as_ptr().expose_provenance() as u64;
        // SAFETY: the entries are `count` long, begin with a page, and stay, by the caller's promise.
        unsafe { uring.submitter().register_buf_ring_with_flags(address, self.count, GROUP, 0)? };
        for buffer in 0..self.count {
            self.give(buffer);
        }
        Ok(())
    }

    /// Their memory is never freed.
    pub(super) fn leave_to_kernel(&mut self) {
        self.is_left_to_kernel = true;
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.into()
    }

    /// What all of them take, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.count() * self.buffer_bytes
    }

    /// The first `length` bytes of a buffer that the kernel has filled.
    pub(super) fn bytes(&mut self, buffer: u16, length: usize) -> &mut [u8] {
        assert!(buffer < self.count && length <= self.buffer_bytes, "the kernel fills buffers it was given");
        // SAFETY: within the block, which was zeroed when it was made and is ours while `self` is borrowed; the kernel writes only
        // into buffers that stand in the ring, and this one comes back by `give` alone, which needs `self`.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr().add(usize::from(buffer) * self.buffer_bytes), length) }
    }

    /// Gives a buffer to the kernel. Its bytes were ours until now.
    pub(super) fn give(&mut self, buffer: u16) {
        assert!(buffer < self.count, "there is no buffer {buffer}");
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: the place is within the entries, which are ours to write from the tail on: at most `count` buffers exist, and none
        // is given twice, so the kernel has read what stood here before.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.bytes.as_ptr().add(usize::from(buffer) * self.buffer_bytes).expose_provenance() as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the first entry is initialized, and its reserved field is the tail; the kernel only reads it, atomically as here.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    fn entries_layout(count: u16) -> Layout {
        Layout::array::<BufRingEntry>(count.into()).and_then(|layout| layout.align_to(page_bytes())).expect("at most 512 KiB")
    }

    fn bytes_layout(count: u16, buffer_bytes: usize) -> Layout {
        Layout::from_size_align(usize::from(count) * buffer_bytes, page_bytes()).expect("sizes are validated")
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if self.is_left_to_kernel {
            return;
        }
        // SAFETY: allocated in `new` with these layouts; the kernel does not use them any more, as `register` was promised.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), Self::entries_layout(self.count));
            dealloc(self.bytes.as_ptr(), Self::bytes_layout(self.count, self.buffer_bytes));
        }
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Buffers").field("count", &self.count).field("buffer_bytes", &self.buffer_bytes).finish()
    }
}

/// Memory of zeroes. They are written, so that all of it is there from the start: buffers are used in turn, and memory that grows until
/// each had its turn would look like a leak.
fn allocate(layout: Layout) -> io::Result<NonNull<u8>> {
    // SAFETY: no layout here is of size 0.
    let memory = NonNull::new(unsafe { alloc(layout) }).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: it has just been allocated with this size.
    unsafe { memory.write_bytes(0, layout.size()) };
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_side_by_side() {
        let mut buffers = Buffers::new(4, 100).unwrap();
        for buffer in 0..4 {
            buffers.bytes(buffer, 100).fill(buffer as u8 + 1);
        }
        for buffer in 0..4 {
            assert_eq!(buffers.bytes(buffer, 100), [buffer as u8 + 1; 100]);
        }
        assert_eq!((buffers.count(), buffers.size_bytes()), (4, 400));
    }

    #[test]
    #[should_panic(expected = "the kernel fills buffers it was given")]
    fn a_buffer_that_does_not_exist_is_not_lent() {
        Buffers::new(4, 100).unwrap().bytes(4, 1);
    }
}
