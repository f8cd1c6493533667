//! Publications to their subscribers: one reference each, one write each in a turn; and who is slow.
//!
//! A subscriber for whom the turn has nothing else is handed its frames at once, past its queue: with one fan-out open that is
//! everybody who keeps up. All others get a reference in their outbox, and one write at the end of the turn for all that came.

use std::io;

use crate::frame::{Form, Gap, Position, Topic};
use crate::hub::{Hub, Subscriber, TopicId};
use crate::io::{Driver, Progress, Segment, Served, Store};
use crate::metrics::{Cause, DropReason, Transport};
use crate::routes::refusals;

use super::Core;
use super::options::SlowConsumer;
use super::outbox::Frames;
use super::run::{FramesByForm, Run};

/// References given out in one turn at most, so that a turn stays short also where its subscribers are few, or wait for room, and its
/// publications many: a millisecond's work.
const DELIVERIES_MAX: usize = 16 * 1024;

/// Publications a worker hands out at the same time, joined in runs or not. Beyond it the next wait in the rings, then in line for a credit, and so with
/// their publishers: who publishes faster than all subscribers can be served is slowed down, and no queue grows.
pub(super) const FANOUTS_OPEN_MAX: usize = 256;

impl<D: Driver> Core<D> {
    /// Works on open fan-outs, if they are not held back, until this turn has begun to write to enough connections.
    pub(super) fn fan_out(&mut self, driver: &mut D) {
        let crowded = self.hub.open_fanouts() >= FANOUTS_OPEN_MAX;
        if !self.hub.has_open_fanouts() || !self.gate.lets_through(self.now, crowded) {
            return;
        }
        // Answers and pongs of this turn do not wait for the writes of a fan-out.
        self.flush_dirty(driver);
        let (mut left, mut handed) = (DELIVERIES_MAX, 0);
        // Connections that have something to write for another reason are not held against the fan-outs.
        let dirty_max = self.dirty.len() + self.options.fanout_slice;
        while left > 0 && self.dirty.len() + handed < dirty_max {
            let is_last = self.hub.has_one_fanout();
            let max = left.min(dirty_max - self.dirty.len() - handed);
            let mut subscribers = std::mem::take(&mut self.slice);
            let Some(mut slice) = self.hub.next_slice(max, &mut subscribers) else { break };
            left = left.saturating_sub(slice.looked_at.max(1));
            let topic = slice.topic;
            let run = slice.publication.get_mut();
            let (slow_consumer, position) = (run.slow_consumer, run.position());
            let frames = run.frames(driver.store(), &subscribers);
            let finished = slice.publication.finished();
            handed += self.serve(driver, &subscribers, frames, topic, (slow_consumer, position), is_last);
            self.slice = subscribers;
            if let Some(run) = finished {
                self.end_fanout(driver, run);
            }
        }
        if !self.hub.has_open_fanouts() {
            self.gate.emptied();
        }
    }

    /// Gives a slice of subscribers their frames: at once where `is_only` says that the turn has nothing else for them. Returns to how many it
    /// did that, or tried. A function by itself, because what its loop needs must stand in registers.
    #[inline(never)]
    fn serve(
        &mut self,
        driver: &mut D,
        subscribers: &[Subscriber],
        frames: FramesByForm,
        topic: TopicId,
        (slow_consumer, position): (SlowConsumer, Position),
        is_only: bool,
    ) -> usize {
        let (mut handed, mut at_once) = (0, [0; Form::ALL.len()]);
        for subscriber in subscribers {
            // Who is held reads it from history.
            if subscriber.held.is_some() {
                self.wake_poller(subscriber.slot, topic);
                continue;
            }
            let form = subscriber.form as usize;
            let Some(frames) = frames[form] else { continue };
            if is_only && self.connections[subscriber.slot as usize].flags.is_at_rest() {
                at_once[form] += u64::from(self.hand_over(driver, subscriber.slot, frames, topic));
                handed += 1;
            } else {
                self.deliver(driver, *subscriber, frames, topic, slow_consumer);
                // Queued, or told to be missing: who was cut off keeps no positions any more.
                if self.connections[subscriber.slot as usize].flags.keeps_positions() {
                    self.reach(subscriber.slot, topic, position);
                }
            }
        }
        self.count_handed_over(&frames, at_once);
        handed
    }

    /// Releases what a finished fan-out held.
    fn end_fanout(&mut self, driver: &mut D, run: Run) {
        if let Some(served) = run.release(driver.store(), &mut self.pool) {
            self.observe_fanout(driver.now(), served);
        }
    }

    /// Counts publications that all subscribers on this worker have got.
    pub(super) fn observe_fanout(&self, now: u64, served: Served) {
        let duration = now.saturating_sub(served.numbered_ns);
        self.metrics().fanout_duration.observe_many_ns(duration, served.publications);
    }

    /// Gives publications to the kernel for a subscriber with an empty outbox; true if it took all. Else what is left is queued.
    fn hand_over(&mut self, driver: &mut D, slot: u32, frames: Frames, topic: TopicId) -> bool {
        let whole = [Segment { block: frames.block, start: 0, end: frames.length }];
        match driver.send(self.connections[slot as usize].token, &whole) {
            Ok(Progress::Sent(taken)) if taken == frames.length as usize => true,
            result => {
                self.handed_in_part(driver, slot, frames, topic, result);
                false
            }
        }
    }

    /// The kernel has not taken all of it, or not yet, or the connection is lost.
    #[cold]
    fn handed_in_part(&mut self, driver: &mut D, slot: u32, frames: Frames, topic: TopicId, result: io::Result<Progress>) {
        match result {
            Ok(progress) => {
                let queued = self.queue(driver.store(), slot, frames, topic);
                debug_assert!(queued, "an empty outbox takes frames of any size");
                self.offered(driver, slot, 1, progress);
            }
            Err(error) => {
                self.metrics().messages_dropped.of(DropReason::ConnectionClosed).add(u64::from(frames.publications));
                self.lost(driver.store(), slot, &error);
            }
        }
    }

    /// Counts subscribers of each form who were handed everything at once.
    fn count_handed_over(&self, frames: &FramesByForm, at_once: [u64; Form::ALL.len()]) {
        for (form, count) in Form::ALL.into_iter().zip(at_once) {
            if let (Some(frames), 1..) = (frames[form as usize], count) {
                let transport = match form {
                    Form::WsRaw | Form::WsEnvelope => Transport::WebSocket,
                    Form::Events | Form::EventsEnvelope | Form::EventsOfSeveral => Transport::Events,
                    Form::Lines => Transport::Lines,
                };
                let metrics = self.metrics();
                metrics.sent_bytes.of(transport).add(u64::from(frames.length) * count);
                metrics.messages_sent.of(transport).add(u64::from(frames.publications) * count);
            }
        }
    }

    /// Queues publications for one subscriber.
    #[inline(never)]
    fn deliver(&mut self, driver: &mut D, to: Subscriber, frames: Frames, topic: TopicId, slow_consumer: SlowConsumer) {
        let slot = to.slot;
        if slow_consumer == SlowConsumer::Latest {
            self.replace_older(driver, to, topic);
            if self.connections[slot as usize].flags.gone() {
                return;
            }
        }
        if self.queue(driver.store(), slot, frames, topic) {
            return self.mark_dirty(slot);
        }
        // What this turn brought may just not have been offered to the kernel yet: nobody is slow before that.
        if self.offer_now(driver, slot)
            && (self.connections[slot as usize].flags.gone() || self.queue(driver.store(), slot, frames, topic))
        {
            return self.mark_dirty(slot);
        }
        match slow_consumer {
            SlowConsumer::DropOldest => self.make_room(driver, to, frames, topic),
            SlowConsumer::Disconnect | SlowConsumer::Latest => self.cut_off(driver, slot, frames),
        }
    }

    /// Offers what is queued to the kernel before the turn ends; false if that has been tried already and the socket is full.
    fn offer_now(&mut self, driver: &mut D, slot: u32) -> bool {
        let connection = &self.connections[slot as usize];
        let (token, flags) = (connection.token, connection.flags);
        if flags.corked() {
            return false;
        }
        if flags.blocked() {
            let Some(taken) = driver.push(token) else { return false };
            self.sendable(driver, token, taken);
        }
        self.flush_one(driver, slot);
        if let Some(taken) = driver.push(token) {
            self.sendable(driver, token, taken);
        }
        true
    }

    /// Queues publications if there is room for them.
    fn queue(&mut self, store: &mut Store, slot: u32, frames: Frames, topic: TopicId) -> bool {
        let outbox = &mut self.connections[slot as usize].outbox;
        let length = u64::from(frames.length);
        let (worker_max, waiting) = (self.options.worker_outbox_bytes_max, outbox.bytes() as u64 + length);
        // Over the worker's limit those pay who hold more than their share of it.
        let is_worker_full = self.entries.queued_bytes() + length > worker_max;
        if is_worker_full && !outbox.is_empty() && waiting > worker_max / self.live.max(1) as u64 {
            return false;
        }
        let queued = outbox.push_publications(&mut self.entries, frames, topic, self.options.outbox_bytes_max).is_ok();
        if queued {
            store.retain(frames.block, 1);
        }
        queued
    }

    /// Policy `latest`: the older publication of this topic goes, the newer one will stand at its own place.
    fn replace_older(&mut self, driver: &mut D, to: Subscriber, topic: TopicId) {
        let Subscriber { slot, form, .. } = to;
        let connection = &self.connections[slot as usize];
        if !connection.outbox.holds(&self.entries, topic) {
            return;
        }
        // What this turn brought goes to the kernel first: who takes it is not slow.
        self.offer_now(driver, slot);
        let Self { connections, entries, pool, hub, .. } = self;
        let outbox = &mut connections[slot as usize].outbox;
        let tell = |topic, gap: &Gap, out: &mut Vec<u8>| tell_gap(hub, topic, gap, form, out);
        while let Some(dropped) = outbox.drop_topic(entries, driver.store(), pool, topic, tell) {
            self.shared.metrics(self.index).messages_dropped.of(DropReason::Latest).add(dropped.messages);
        }
    }

    /// Policy `drop-oldest`: whole publications go from the head until the new one has room. Each topic has its own gap, and a pattern has
    /// any number of topics: where gaps alone fill the outbox, the subscriber is cut off.
    fn make_room(&mut self, driver: &mut D, to: Subscriber, frames: Frames, topic: TopicId) {
        let Subscriber { slot, form, .. } = to;
        loop {
            let Self { connections, entries, pool, hub, options, .. } = self;
            let (classes, store) = (&options.classes, driver.store());
            let outbox = &mut connections[slot as usize].outbox;
            let tell = |topic, gap: &Gap, out: &mut Vec<u8>| tell_gap(hub, topic, gap, form, out);
            // Those of a topic with another policy stay. With no rules there is one policy.
            let droppable = |topic| {
                let is_droppable = |name: &Topic| classes.of(name.as_str()).slow_consumer == SlowConsumer::DropOldest;
                classes.rules().is_empty() || hub.topic(topic).is_some_and(is_droppable)
            };
            let Some(dropped) = outbox.drop_oldest(entries, store, pool, droppable, tell) else {
                // Only what may not be dropped waits: the new publication is the oldest that may be.
                if outbox.gap_bytes(entries) >= options.outbox_bytes_max {
                    return self.cut_off(driver, slot, frames);
                }
                if let Some(position) = store.publication(frames.block).map(|publication| publication.position) {
                    outbox.tell_dropped(entries, store, pool, topic, position, tell);
                }
                return self.metrics().messages_dropped.of(DropReason::DropOldest).add(1);
            };
            self.metrics().messages_dropped.of(DropReason::DropOldest).add(dropped.messages);
            if self.queue(driver.store(), slot, frames, topic) {
                return;
            }
        }
    }

    /// Policy `disconnect`: the close tells the subscriber that there is a gap. What is dropped now must not be told to have come.
    fn cut_off(&mut self, driver: &mut D, slot: u32, frames: Frames) {
        self.connections[slot as usize].flags.set_keeps_positions(false);
        self.metrics().messages_dropped.of(DropReason::ConnectionClosed).add(u64::from(frames.publications));
        if self.connections[slot as usize].flags.corked() {
            return self.refuse_upgrade(driver.store(), slot, refusals::publish_timeout(), Cause::SlowConsumer);
        }
        let Self { connections, entries, pool, .. } = self;
        while let Some(dropped) = connections[slot as usize].outbox.drop_any(entries, driver.store(), pool) {
            self.shared.metrics(self.index).messages_dropped.of(DropReason::ConnectionClosed).add(dropped.messages);
        }
        self.fail(driver.store(), slot, Cause::SlowConsumer, None);
    }
}

/// Writes what tells of a gap. What was published on a topic waits under the topic's number, whatever pattern had it delivered.
fn tell_gap(hub: &Hub<Run>, topic: TopicId, gap: &Gap, form: Form, out: &mut Vec<u8>) {
    let name = hub.topic(topic);
    debug_assert!(name.is_some(), "publications wait under a pattern's number");
    if let Some(name) = name {
        gap.write(name, form, out);
    }
}
