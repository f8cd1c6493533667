//! Publications of durable topics on their way to the disk: numbered, handed to the store, and not known to be there yet.
//!
//! ```text
//! append ──> number ──> waiting ──submit──> store ──receive──> ready ──finish──> kept, Published, Appended
//!                          └─────────────── failed ──> numbers taken back, refused
//! ```
//!
//! What waits is in nobody's sight: readers find the topic as it was, and numbers that fail are given again. Of one topic everything comes
//! in its order, an answer to a key that came before included; a deletion waits in the same row.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::MemoryEngine;
use super::life::Life;
use crate::engine::store::{Change, Port, Record, Stored};
use crate::engine::{AppendError, Appended, EngineEvent, IdempotencyKey};
use crate::frame::{Epoch, Forms, Position, Publication, Topic};
use crate::limits::{GiveBack, Tick};

/// The row of what waits for the store.
#[derive(Debug)]
pub(super) struct Journal<R> {
    port: Port,
    /// In the order of their numbers, each with the batch it is part of.
    waiting: VecDeque<(u64, Waiting<R>)>,
    /// The newest batch that is on the disk.
    stored: u64,
    /// What is handed over at the end of the turn.
    changes: Vec<Change>,
    /// Bytes of all publications that wait.
    bytes: usize,
    bytes_max: usize,
    waiting_max: usize,
}

#[derive(Debug)]
enum Waiting<R> {
    Publication {
        request: R,
        publication: Arc<Publication>,
        ttl: Option<Duration>,
        key: Option<IdempotencyKey>,
    },
    /// An answer that depends on what waits before it.
    Answer {
        request: R,
        topic: Topic,
        result: Result<Appended, AppendError>,
    },
    Deletion {
        request: R,
        topic: Topic,
        epoch: Epoch,
        before: Position,
    },
}

impl<R> Waiting<R> {
    fn topic(&self) -> &Topic {
        match self {
            Self::Publication { publication, .. } => &publication.topic,
            Self::Answer { topic, .. } | Self::Deletion { topic, .. } => topic,
        }
    }
}

impl<R> Journal<R> {
    pub fn new(port: Port, bytes_max: usize, waiting_max: usize) -> Self {
        Self { port, waiting: VecDeque::new(), stored: 0, changes: Vec::new(), bytes: 0, bytes_max, waiting_max }
    }

    /// Bytes of all publications that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// A topic begins its life. Nobody waits for that: if it is not stored, the topic's first publication does it.
    pub fn begin(&mut self, topic: &Topic, epoch: Epoch) {
        self.changes.push(Change::Begin { topic: topic.clone(), epoch });
    }

    /// A topic's life has ended.
    pub fn end(&mut self, topic: &Topic, epoch: Epoch) {
        self.changes.push(Change::End { topic: topic.clone(), epoch });
    }

    /// Has the store delete a topic; gives the request back if it takes nothing.
    pub fn delete(&mut self, request: R, topic: Topic, life: &mut Life, epoch: Epoch) -> Result<(), (R, AppendError)> {
        if !self.port.is_up() || self.is_full() {
            return Err((request, if self.port.is_up() { AppendError::StoreBusy } else { AppendError::NotStored }));
        }
        let before = life.newest();
        life.send_off(Position { epoch, offset: 0 });
        self.changes.push(Change::Begin { topic: topic.clone(), epoch });
        self.wait(Waiting::Deletion { request, topic, epoch, before });
        Ok(())
    }

    /// Whether the store has something to say.
    pub fn has_news(&self) -> bool {
        self.port.has_news()
    }

    /// The topic of what has come back from the store and can be finished.
    pub fn ready(&self) -> Option<&Topic> {
        self.waiting.front().filter(|(batch, _)| *batch <= self.stored).map(|(_, waiting)| waiting.topic())
    }

    /// Whether as many wait as may.
    fn is_full(&self) -> bool {
        self.waiting.len() >= self.waiting_max
    }

    /// Puts something into the row, behind its change. An answer has none: it depends on what was handed over or is about to be.
    fn wait(&mut self, waiting: Waiting<R>) {
        let batch = self.port.next() - u64::from(self.changes.is_empty());
        self.waiting.push_back((batch, waiting));
    }
}

impl<R, S> MemoryEngine<R, S> {
    /// Whether one more publication may wait for the store, if it has to.
    pub(super) fn admit(&self, topic: &Topic, bytes: usize) -> Result<(), AppendError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let is_full = journal.bytes + bytes > journal.bytes_max || journal.is_full();
        if journal.port.is_up() && !is_full || !self.classes.of(topic.as_str()).durable {
            return Ok(());
        }
        Err(if journal.port.is_up() { AppendError::StoreBusy } else { AppendError::NotStored })
    }

    /// Has the store keep a publication that has its number.
    pub(super) fn store(
        &mut self,
        request: R,
        publication: Arc<Publication>,
        ttl: Option<Duration>,
        key: Option<IdempotencyKey>,
    ) {
        let Some(journal) = &mut self.journal else { return };
        let until_ms = ttl.map(|ttl| match u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) {
            0 => 0,
            ttl_ms => publication.at_ms.saturating_add(ttl_ms),
        });
        journal.bytes += publication.payload().as_bytes().len();
        journal.changes.push(Change::Put(Record { publication: Arc::clone(&publication), until_ms, key: key.clone() }));
        journal.wait(Waiting::Publication { request, publication, ttl, key });
    }

    /// Answers a publisher, behind whatever of the topic waits for the store.
    pub(super) fn answer_behind(&mut self, topic: &Topic, request: R, result: Result<Appended, AppendError>) {
        let waits = self.topics.get(topic.as_str()).is_some_and(|life| life.on_its_way.is_some());
        match self.journal.as_mut().filter(|_| waits) {
            // It holds a credit like a publication.
            Some(journal) if journal.is_full() => {
                self.events.push_back(EngineEvent::Appended { request, result: Err(AppendError::StoreBusy) });
            }
            Some(journal) => journal.wait(Waiting::Answer { request, topic: topic.clone(), result }),
            None => self.events.push_back(EngineEvent::Appended { request, result }),
        }
    }

    /// Hears of the store what it has done; what has failed is refused.
    pub(super) fn hear(&mut self) {
        if !self.journal.as_ref().is_some_and(Journal::has_news) {
            return;
        }
        // What waits here was numbered behind what may have failed, so it shares its fate.
        self.hand_over();
        let Some(journal) = &mut self.journal else { return };
        let Some(outcome) = journal.port.receive() else { return };
        journal.stored = outcome.stored;
        if !outcome.has_failed {
            return;
        }
        let failed = journal.waiting.split_off(journal.waiting.partition_point(|(batch, _)| *batch <= outcome.stored));
        // The newest number first, so that the one before it is the newest then.
        for (_, waiting) in failed.iter().rev() {
            let Some(life) = self.topics.get_mut(waiting.topic().as_str()) else { continue };
            match waiting {
                Waiting::Publication { publication, key, .. } => {
                    let position = publication.position;
                    life.arrive(Some(Position { offset: position.offset - 1, ..position }));
                    journal.bytes -= publication.payload().as_bytes().len();
                    if let Some(key) = key {
                        self.keys.take_back(&publication.topic, key, position);
                    }
                }
                Waiting::Deletion { before, .. } => life.arrive(Some(*before)),
                Waiting::Answer { .. } => {}
            }
        }
        let refused = Err(AppendError::NotStored);
        self.events.extend(failed.into_iter().map(|(_, waiting)| match waiting {
            Waiting::Publication { request, .. } | Waiting::Answer { request, .. } => {
                EngineEvent::Appended { request, result: refused }
            }
            Waiting::Deletion { request, .. } => EngineEvent::Deleted { request, result: Err(AppendError::NotStored) },
        }));
    }

    /// Does what was asked for first, of what the store has done.
    pub(super) fn finish_first(&mut self, now: Tick) {
        let Some(journal) = self.journal.as_mut().filter(|journal| journal.ready().is_some()) else { return };
        let Some((_, waiting)) = journal.waiting.pop_front() else { return };
        journal.waiting.give_back();
        match waiting {
            Waiting::Publication { request, publication, ttl, .. } => {
                journal.bytes -= publication.payload().as_bytes().len();
                if let Some(life) = self.topics.get_mut(publication.topic.as_str()) {
                    life.arrive(None);
                }
                let appended = Appended { position: publication.position, is_repeated: false };
                self.events.push_back(EngineEvent::Appended { request, result: Ok(appended) });
                self.publish(publication, ttl, now);
            }
            Waiting::Answer { request, result, .. } => self.events.push_back(EngineEvent::Appended { request, result }),
            Waiting::Deletion { request, topic, epoch, .. } => {
                if let Some(life) = self.topics.get_mut(topic.as_str()) {
                    life.arrive(None);
                }
                self.begin_anew(request, &topic, epoch);
            }
        }
    }

    /// Hands over what this turn has brought for the store.
    pub(super) fn hand_over(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        let Self { topics, kept, .. } = self;
        for topic in kept.trimmed.drain(..) {
            let Some(life) = topics.get(topic.as_str()) else { continue };
            let (first, lost) = (life.history.first().unwrap_or(life.last + 1), life.history.lost());
            journal.changes.push(Change::Trim { topic, epoch: life.epoch, first, lost });
        }
        kept.trimmed.give_back();
        if !journal.changes.is_empty() {
            journal.port.submit(std::mem::take(&mut journal.changes));
        }
    }

    /// Goes on from what a store has kept. Returns how many of its topics are of no durable class any more: those are left as they are.
    pub fn restore(&mut self, stored: Vec<Stored>, now_ns: u64, wall_ms: u64) -> usize {
        let (now, mut keys, mut strange) = (Tick::from_nanoseconds(now_ns), Vec::new(), 0);
        for Stored { topic, epoch, last, lost, kept } in stored {
            let mut life = Life::new(epoch, &self.classes, &topic);
            if !self.classes.get(life.class).durable {
                strange += 1;
                continue;
            }
            let class = life.class;
            life.last = last;
            life.history.is_stored = true;
            life.history.set_lost(lost);
            self.topics.insert(topic.clone(), life);
            let mut before_ns = 0;
            for record in kept {
                // Kept at most as long as there was to go when it was numbered; a clock that was put back makes nothing younger than now.
                let age_ns = wall_ms.saturating_sub(record.at_ms).saturating_mul(1_000_000);
                let numbered_ns = now_ns.saturating_sub(age_ns).max(before_ns);
                before_ns = numbered_ns;
                let position = Position { epoch, offset: record.offset };
                if let Some(key) = record.key {
                    keys.push((numbered_ns, topic.clone(), key, self.keys.fingerprint(&record.payload), position));
                }
                if record.until_ms.is_some_and(|until_ms| until_ms <= wall_ms) {
                    continue;
                }
                let ttl = record.until_ms.map(|until_ms| Duration::from_millis(until_ms.saturating_sub(record.at_ms)));
                let mut publication =
                    Publication::new(topic.clone(), position, record.at_ms, numbered_ns, record.payload, Forms::NONE);
                publication.class = class;
                self.keep(&Arc::new(publication), ttl);
            }
            if last > 0 {
                self.names.insert(topic.clone());
            }
            self.linger(&topic, now);
        }
        keys.sort_unstable_by_key(|(numbered_ns, ..)| *numbered_ns);
        for (numbered_ns, topic, key, fingerprint, position) in keys {
            self.keys.remember(topic, key, fingerprint, position, Tick::from_nanoseconds(numbered_ns));
        }
        strange
    }
}

#[cfg(test)]
mod tests;
