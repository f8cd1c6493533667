//! A publication to its subscribers: one reference each, one write each at the end of the turn; and who is slow.

use std::sync::Arc;

use crate::frame::{Form, Publication};
use crate::hub::{Subscriber, TopicId};
use crate::io::{Block, Driver, Store};
use crate::limits::BufferPool;
use crate::metrics::{Cause, DropReason};
use crate::routes::refusals;

use super::Core;
use super::options::SlowConsumer;

/// References given out in one turn at most, so that a turn stays short also where its subscribers are few and its publications many.
const DELIVERIES_MAX: usize = 64 * 1024;

/// Publications a worker hands out at the same time. Beyond it the next wait in the rings, then in line for a credit, and so with
/// their publishers: who publishes faster than all subscribers can be served is slowed down, and no queue grows.
pub(super) const FANOUTS_OPEN_MAX: usize = 256;

/// A publication on its way to this worker's subscribers, with the blocks of the forms they take.
#[derive(Debug)]
pub struct Fanned {
    publication: Arc<Publication>,
    blocks: Blocks,
}

/// For each form a block and its length in bytes, once some subscriber has taken it.
type Blocks = [Option<(Block, u32)>; Form::ALL.len()];

impl Fanned {
    /// A publication that no subscriber has yet.
    #[must_use]
    pub fn new(publication: Arc<Publication>) -> Self {
        Self { publication, blocks: [None; Form::ALL.len()] }
    }

    /// The blocks of the forms that `subscribers` take, with their lengths in bytes; each is held in the store from the first time
    /// it is asked for.
    fn blocks(&mut self, store: &mut Store, subscribers: &[Subscriber]) -> Blocks {
        for subscriber in subscribers {
            self.blocks[subscriber.form as usize].get_or_insert_with(|| {
                let block = store.share(&self.publication, subscriber.form);
                (block, store.bytes(block).len() as u32)
            });
        }
        self.blocks
    }

    /// Gives this fan-out's own references back. True if nobody else holds some form any more.
    fn release(self, store: &mut Store, pool: &mut BufferPool) -> bool {
        let mut last = false;
        for (block, _) in self.blocks.into_iter().flatten() {
            last |= store.release(block, pool) != crate::io::Released::Held;
        }
        last
    }
}

impl<D: Driver> Core<D> {
    /// Works on open fan-outs until this turn has begun to write to enough connections.
    pub(super) fn fan_out(&mut self, driver: &mut D) {
        let mut left = DELIVERIES_MAX;
        // Connections that have something to write for another reason are not held against the fan-outs.
        let dirty_max = self.dirty.len() + self.options.fanout_slice;
        while left > 0 && self.dirty.len() < dirty_max {
            let max = left.min(dirty_max - self.dirty.len());
            let Some(mut slice) = self.hub.next_slice(max) else { break };
            self.slice.clear();
            self.slice.extend_from_slice(slice.subscribers);
            left -= self.slice.len();
            let topic = slice.topic;
            let blocks = slice.publication.get_mut().blocks(driver.store(), slice.subscribers);
            let finished = slice.publication.finished();
            for at in 0..self.slice.len() {
                let subscriber = self.slice[at];
                if let Some((block, length)) = blocks[subscriber.form as usize] {
                    self.deliver(driver, subscriber, block, length as usize, topic);
                }
            }
            if let Some(fanned) = finished {
                self.end_fanout(driver, fanned);
            }
        }
    }

    /// Releases what a finished fan-out held.
    fn end_fanout(&mut self, driver: &mut D, fanned: Fanned) {
        let numbered_ns = fanned.publication.numbered_ns;
        if fanned.release(driver.store(), &mut self.pool) {
            let now = driver.now();
            self.metrics().fanout_duration.observe_ns(now.saturating_sub(numbered_ns));
        }
    }

    /// Queues one publication for one subscriber.
    fn deliver(&mut self, driver: &mut D, subscriber: Subscriber, block: Block, length: usize, topic: TopicId) {
        let slot = subscriber.slot;
        if self.options.slow_consumer == SlowConsumer::Latest {
            self.replace_older(driver, slot, topic);
            if self.connections[slot as usize].flags.gone {
                return;
            }
        }
        if self.queue(driver.store(), slot, block, length, topic) {
            return self.mark_dirty(slot);
        }
        // What this turn brought may just not have been offered to the kernel yet: nobody is slow before that.
        let flags = self.connections[slot as usize].flags;
        if !flags.blocked && !flags.corked {
            self.flush_one(driver, slot);
            if self.connections[slot as usize].flags.gone || self.queue(driver.store(), slot, block, length, topic) {
                return self.mark_dirty(slot);
            }
        }
        match self.options.slow_consumer {
            SlowConsumer::DropOldest => self.make_room(driver, slot, block, length, topic),
            SlowConsumer::Disconnect | SlowConsumer::Latest => self.cut_off(driver, slot),
        }
    }

    /// Queues the publication if there is room for it.
    fn queue(&mut self, store: &mut Store, slot: u32, block: Block, length: usize, topic: TopicId) -> bool {
        let outbox = &mut self.connections[slot as usize].outbox;
        let (worker_max, waiting) = (self.options.worker_outbox_bytes_max, outbox.bytes() as u64 + length as u64);
        // Over the worker's limit those pay who hold more than their share of it.
        let is_worker_full = self.entries.queued_bytes() + length as u64 > worker_max;
        if is_worker_full && !outbox.is_empty() && waiting > worker_max / self.live.max(1) as u64 {
            return false;
        }
        let queued = outbox.push_publication(&mut self.entries, block, length, topic, self.options.outbox_bytes_max).is_ok();
        if queued {
            store.retain(block, 1);
        }
        queued
    }

    /// Policy `latest`: the older publication of this topic goes, the newer one will stand at its own place.
    fn replace_older(&mut self, driver: &mut D, slot: u32, topic: TopicId) {
        let connection = &self.connections[slot as usize];
        if !connection.outbox.holds(&self.entries, topic) {
            return;
        }
        // What this turn brought goes to the kernel first: who takes it is not slow.
        if !connection.flags.blocked && !connection.flags.corked {
            self.flush_one(driver, slot);
        }
        let Self { connections, entries, pool, .. } = self;
        while let Some(dropped) = connections[slot as usize].outbox.drop_topic(entries, driver.store(), pool, topic) {
            self.shared.metrics(self.index).messages_dropped.of(DropReason::Latest).add(dropped.messages);
        }
    }

    /// Policy `drop-oldest`: whole publications go from the head until the new one has room.
    fn make_room(&mut self, driver: &mut D, slot: u32, block: Block, length: usize, topic: TopicId) {
        loop {
            let Self { connections, entries, pool, .. } = self;
            let Some(dropped) = connections[slot as usize].outbox.drop_oldest(entries, driver.store(), pool) else {
                // Only bytes that may not be dropped wait: the new publication is the oldest that may be.
                return self.metrics().messages_dropped.of(DropReason::DropOldest).add(1);
            };
            self.metrics().messages_dropped.of(DropReason::DropOldest).add(dropped.messages);
            if self.queue(driver.store(), slot, block, length, topic) {
                return;
            }
        }
    }

    /// Policy `disconnect`: the close tells the subscriber that there is a gap.
    fn cut_off(&mut self, driver: &mut D, slot: u32) {
        self.metrics().messages_dropped.of(DropReason::ConnectionClosed).add(1);
        if self.connections[slot as usize].flags.corked {
            return self.refuse_upgrade(driver.store(), slot, refusals::publish_timeout(), Cause::SlowConsumer);
        }
        let Self { connections, entries, pool, .. } = self;
        while let Some(dropped) = connections[slot as usize].outbox.drop_oldest(entries, driver.store(), pool) {
            self.shared.metrics(self.index).messages_dropped.of(DropReason::ConnectionClosed).add(dropped.messages);
        }
        self.fail(driver.store(), slot, Cause::SlowConsumer, None);
    }
}
