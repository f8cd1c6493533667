//! What a turn brought to a topic is one batch, which all its subscribers' sends read from: a message is copied for nobody.
//!
//! Each send under way pins its batch. A pinned batch is not touched; one without pins is used again, with its memory.

use std::mem;

/// All batches, by number.
#[derive(Default)]
pub struct Batches {
    all: Vec<Batch>,
    free: Vec<usize>,
}

/// What one turn brought to one topic.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Sends under way that read from it.
    pins: usize,
}

impl Batches {
    /// Takes the frames of a turn, for which their owner gets an empty buffer; returns the batch's number.
    pub fn fill(&mut self, frames: &mut Vec<u8>) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(Batch::default());
            self.all.len() - 1
        });
        mem::swap(&mut self.all[number].bytes, frames);
        number
    }

    /// The batch of this number.
    pub fn get_mut(&mut self, number: usize) -> &mut Batch {
        &mut self.all[number]
    }

    /// Takes back one pin, as that send is done.
    pub fn unpin(&mut self, number: usize) {
        self.all[number].pins -= 1;
        self.free_if_unpinned(number);
    }

    /// Lets a batch be used again if no send reads from it.
    pub fn free_if_unpinned(&mut self, number: usize) {
        let batch = &mut self.all[number];
        if batch.pins == 0 {
            batch.bytes.clear();
            self.free.push(number);
        }
    }
}

impl Batch {
    /// What is to be sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Keeps the bytes as they are until [`Batches::unpin`].
    pub const fn pin(&mut self) {
        self.pins += 1;
    }
}
