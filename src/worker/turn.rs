//! One turn of the loop.

use std::time::Duration;

use crate::engine::Engine;
use crate::io::{Driver, Event};
use crate::limits::{TICK_MS, Tick};
use crate::metrics::{Label, MemoryKind, Trouble, WorkerMetrics};

use super::connection::Connection;
use super::shared::Phase;
use super::{Core, Worker};

/// A worker makes a turn at least this often, so that `/livez` can tell a sleeping worker from a stuck one.
const SLEEP_MAX: Duration = Duration::from_secs(1);

impl<D: Driver> Worker<D> {
    /// Turns until the server stops.
    pub fn run(mut self) {
        while !self.core.drain.is_done() && self.core.shared.phase() != Phase::Stopped {
            self.turn();
        }
        // The last second's ends are counted as well.
        if self.core.ended.due().is_some() {
            self.core.ended.log(self.core.index);
        }
    }

    /// One pass: wait, read, mailbox, interest, fan-out, deadlines, drain, flush, wake others.
    pub fn turn(&mut self) {
        let timeout = self.core.sleep_time();
        self.driver.wait(timeout);
        self.work();
    }

    /// The rest of a turn: everything but falling asleep and waking up.
    pub(super) fn work(&mut self) {
        let Self { driver, core } = self;
        core.shared.sleep(core.index).woke();
        core.begin_turn(driver);
        while let Some(event) = driver.poll() {
            core.handle(driver, event);
        }
        core.resume(driver);
        core.ask_pages();
        core.take_mail(driver);
        core.tell_interest(driver.store());
        core.tell_presence();
        core.resume(driver);
        // They hand out their part of a publication while this worker hands out its own.
        core.wake_others();
        core.fan_out(driver);
        core.hand_out_presence(driver.store());
        let unfinished = core.check_deadlines(driver);
        core.resume_accept(driver);
        core.drain(driver);
        core.flush(driver);
        core.end_turn(driver, unfinished);
    }
}

/// How much of its time a worker worked, told once a second.
#[derive(Debug)]
pub(super) struct Busy {
    since_ns: u64,
    worked_ns: u64,
}

impl Busy {
    pub(super) const fn new(now_ns: u64) -> Self {
        Self { since_ns: now_ns, worked_ns: 0 }
    }

    /// Counts a turn. True once a second, when it has told the share.
    fn count(&mut self, metrics: &WorkerMetrics, began_ns: u64, ended_ns: u64) -> bool {
        self.worked_ns += ended_ns - began_ns;
        let whole = ended_ns - self.since_ns;
        let told = whole >= SLEEP_MAX.as_nanos() as u64;
        if told {
            metrics.busy_ratio.set(self.worked_ns, whole);
            *self = Self::new(ended_ns);
        }
        told
    }
}

impl<D: Driver> Core<D> {
    fn begin_turn(&mut self, driver: &D) {
        self.now = driver.now();
        self.tick = Tick::from_nanoseconds(self.now);
        self.wall_seconds = driver.wall_ms() / 1000;
    }

    fn handle(&mut self, driver: &mut D, event: Event<D::Socket>) {
        match event {
            Event::Accepted { socket, peer, listener } => self.accepted(driver, socket, peer, listener),
            Event::AcceptFailed(error) => self.accept_failed(driver, &error),
            Event::ListenersClosed => self.drain.listeners_closed(),
            Event::Received(token, received) => self.received(driver, token, received),
            Event::EndOfStream(token) => self.end_of_stream(driver.store(), token),
            Event::Sendable(token, taken) => self.sendable(driver, token, taken),
            Event::Failed(token, error) => {
                if self.connection(token).is_some() {
                    self.lost(driver.store(), token.slot, &error);
                }
            }
            Event::Closed(token) => self.closed(token),
        }
    }

    fn end_turn(&mut self, driver: &D, unfinished: bool) {
        self.unfinished = unfinished;
        self.engine.expire(self.tick);
        self.engine.submit();
        self.forget_topics_of_patterns();
        self.wake_others();
        self.count_presence();
        let metrics = self.shared.metrics(self.index);
        metrics.subscriptions.set(self.hub.subscriptions() as u64);
        metrics.patterns.set(self.hub.patterns() as u64);
        metrics.topics.set(self.engine.topics() as u64);
        metrics.history_bytes.set(self.engine.history_bytes());
        metrics.store_queue_bytes.set(self.engine.waiting_bytes());
        metrics.outbox_bytes.set(self.entries.queued_bytes());
        let ended = driver.now();
        metrics.last_turn_ns.set(ended);
        metrics.turn.observe_ns(ended - self.now);
        if self.busy.count(metrics, self.now, ended) {
            self.tell_memory(driver.buffer_bytes());
            for kind in Trouble::ALL {
                metrics.io_troubles.of(*kind).set(driver.troubles(*kind));
            }
        }
    }

    /// Wakes the workers that have mail from this turn.
    fn wake_others(&mut self) {
        for worker in 0..self.to_wake.len() {
            if std::mem::take(&mut self.to_wake[worker]) {
                self.shared.wake(worker);
            }
        }
    }

    /// What the tables and buffers of this worker take.
    fn tell_memory(&self, buffer_bytes: usize) {
        let connections =
            self.connections.capacity() * size_of::<Connection>() + self.deadlines.bytes() + self.write_windows.bytes();
        let buffers = buffer_bytes + self.pool.spare_bytes();
        let memory = &self.metrics().memory_bytes;
        memory.of(MemoryKind::Connections).set(connections as u64);
        memory.of(MemoryKind::Buffers).set(buffers as u64);
        memory.of(MemoryKind::Hub).set((self.hub.bytes() + self.presence.bytes()) as u64);
        memory.of(MemoryKind::Topics).set((self.engine.bytes() + self.interests.bytes()) as u64);
    }

    /// How long the next turn may wait: not at all while there is work, else until the next deadline. Announces the sleep.
    pub(super) fn sleep_time(&mut self) -> Option<Duration> {
        let held_back = self.gate.time_left(self.now);
        let busy = self.unfinished
            || !self.resumed.is_empty()
            || self.may_ask_page()
            || !self.dirty.is_empty()
            || !self.closing.is_empty()
            || (self.hub.has_open_fanouts() && held_back.is_none())
            || (self.hub.has_dirty_interest() && !self.interest_waits)
            || self.hub.may_confirm()
            || self.presence_is_busy()
            || self.can_take(self.index);
        if busy {
            return Some(Duration::ZERO);
        }
        self.shared.sleep(self.index).prepare();
        if self.has_mail() {
            self.shared.sleep(self.index).woke();
            return Some(Duration::ZERO);
        }
        let dues = [
            self.deadlines.next(),
            self.write_windows.next(),
            self.accept_again,
            self.drain_due(),
            self.ended.due(),
            self.engine.poll_timeout(),
            self.presence_due(),
        ];
        let due = dues.into_iter().flatten().min().map(|due| {
            let due_ns = u64::from(due.0) * TICK_MS * 1_000_000;
            Duration::from_nanos(due_ns.saturating_sub(self.now))
        });
        Some([due, held_back].into_iter().flatten().fold(SLEEP_MAX, Duration::min))
    }

    /// Another worker or the store sent something that can be taken now.
    fn has_mail(&mut self) -> bool {
        self.has_stored()
            || self.mailbox.lanes().any(|(_, lane)| lane.has_delivery())
            || (0..self.shared.workers()).any(|other| self.can_take(other))
    }
}
