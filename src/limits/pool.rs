//! Byte buffers that are lent while there is something to keep, and come back empty.

/// A worker's spare buffers. It keeps a bounded number of bytes; what comes back beyond them is freed.
#[derive(Debug)]
pub struct BufferPool {
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    spare_bytes_max: usize,
}

impl BufferPool {
    /// The largest buffer worth keeping, in bytes: larger ones are rare and would pin memory.
    const BUFFER_BYTES_MAX: usize = 64 * 1024;

    /// A pool that keeps at most `spare_bytes_max` bytes of unused buffers.
    #[must_use]
    pub fn new(spare_bytes_max: usize) -> Self {
        Self { spare: Vec::new(), spare_bytes: 0, spare_bytes_max }
    }

    /// An empty buffer, a spare one if there is one.
    #[must_use]
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.spare_bytes -= buffer.capacity();
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let capacity = buffer.capacity();
        if capacity == 0 || capacity > Self::BUFFER_BYTES_MAX || self.spare_bytes + capacity > self.spare_bytes_max {
            return;
        }
        buffer.clear();
        self.spare_bytes += capacity;
        self.spare.push(buffer);
    }

    /// Bytes held in spare buffers.
    #[must_use]
    pub fn spare_bytes(&self) -> usize {
        self.spare_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_buffers_are_reused_and_bounded() {
        let mut pool = BufferPool::new(3000);
        pool.give(Vec::with_capacity(2000));
        pool.give(Vec::with_capacity(2000));
        assert_eq!(pool.spare_bytes(), 2000);
        assert_eq!(pool.take().capacity(), 2000);
        assert_eq!((pool.take().capacity(), pool.spare_bytes()), (0, 0));
        pool.give(Vec::with_capacity(BufferPool::BUFFER_BYTES_MAX + 1));
        assert_eq!(pool.spare_bytes(), 0);
    }
}
