//! What a log says of its topics, frame by frame: the same while it is read and while it is written.
//!
//! After a group is on the disk its own frames are applied, so what is known here is at any moment what reading the log would give. `V` is
//! what is held of each publication beyond its place: all of it while the log is read, nothing afterwards.
//!
//! A log whose oldest segments have gone is read from the middle of topics' lives. What was needed of those segments stands behind, as a
//! state and copies of publications: so publications may come in any order, and more than once.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use super::record::{Entry, FRAME_BYTES, Put, State};
use super::{Kept, Stored};
use crate::frame::{Epoch, Topic, TopicError};
use crate::limits::GiveBack;

/// The topics that live.
#[derive(Debug)]
pub(super) struct Topics<V> {
    lives: HashMap<Topic, Life<V>, RandomState>,
    /// Bytes of all frames that would have to be copied were the log written anew.
    live_bytes: u64,
    records: u64,
}

/// One life of a topic.
#[derive(Debug)]
pub(super) struct Life<V> {
    pub epoch: Epoch,
    pub last: u64,
    pub first: u64,
    pub lost: u64,
    /// The segment that says that it lives.
    pub segment: u64,
    pub records: BTreeMap<u64, Held<V>>,
    /// Bytes of their frames.
    bytes: u64,
}

/// A publication that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held<V> {
    /// The segment in which it stands; the latest, if in several.
    pub segment: u64,
    /// Bytes of its frame.
    bytes: u32,
    pub value: V,
}

impl<V> Topics<V> {
    pub fn new() -> Self {
        Self { lives: HashMap::default(), live_bytes: 0, records: 0 }
    }

    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// How many topics live.
    pub fn count(&self) -> usize {
        self.lives.len()
    }

    /// How many publications are kept.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The topic, if it lives this life.
    pub fn life(&self, topic: &str, epoch: Epoch) -> Option<&Life<V>> {
        self.lives.get(topic).filter(|life| life.epoch == epoch)
    }

    /// Does what a frame of so many bytes says, which stands in this segment; `value` is held of a publication.
    pub fn apply(&mut self, entry: &Entry<'_>, segment: u64, bytes: usize, value: V) -> Result<(), TopicError> {
        match *entry {
            Entry::State(State { topic, epoch, last, first, lost }) => self.change(topic, epoch, segment, |life| {
                (life.last, life.first, life.lost, life.segment) = (last, first, lost, segment);
            }),
            // Nobody ever reads it back: it has a number, and that is all there is to keep.
            Entry::Put(Put { topic, epoch, offset, until_ms: Some(0), .. }) => {
                self.change(topic, epoch, segment, |life| life.last = life.last.max(offset))
            }
            Entry::Put(put) => {
                let held = Held { segment, bytes: bytes as u32, value };
                self.change(put.topic, put.epoch, segment, |life| {
                    life.last = life.last.max(put.offset);
                    life.bytes += bytes as u64;
                    if let Some(copied) = life.records.insert(put.offset, held) {
                        life.bytes -= u64::from(copied.bytes);
                    }
                })
            }
            Entry::Trim { topic, epoch, first, lost } if self.life(topic, epoch).is_some() => {
                self.change(topic, epoch, segment, |life| {
                    // What of a failed group was taken back can't have been trimmed.
                    life.first = life.first.max(first.min(life.last + 1));
                    life.lost = life.lost.max(lost.min(life.last));
                })
            }
            Entry::End { topic, epoch } if self.life(topic, epoch).is_some() => {
                self.end(topic);
                Ok(())
            }
            Entry::Trim { .. } | Entry::End { .. } | Entry::Close => Ok(()),
        }
    }

    /// Changes a topic's life, which begins if it is another one than that before, and lets go of what it does not keep then.
    fn change(&mut self, topic: &str, epoch: Epoch, segment: u64, change: impl FnOnce(&mut Life<V>)) -> Result<(), TopicError> {
        if self.life(topic, epoch).is_none() {
            let name = Topic::new(topic)?;
            self.end(topic);
            self.lives.insert(name, Life { epoch, last: 0, first: 1, lost: 0, segment, records: BTreeMap::new(), bytes: 0 });
            self.live_bytes += state_bytes(topic, epoch);
        }
        let Some(life) = self.lives.get_mut(topic) else { return Ok(()) };
        let before = life.weight();
        change(life);
        while let Some(oldest) = life.records.first_entry().filter(|oldest| *oldest.key() < life.first) {
            life.bytes -= u64::from(oldest.remove().bytes);
        }
        let after = life.weight();
        self.live_bytes = self.live_bytes - before.1 + after.1;
        self.records = self.records - before.0 + after.0;
        Ok(())
    }

    fn end(&mut self, topic: &str) {
        if let Some(life) = self.lives.remove(topic) {
            let (records, bytes) = life.weight();
            self.records -= records;
            self.live_bytes -= bytes + state_bytes(topic, life.epoch);
            self.lives.give_back();
        }
    }
}

impl<V> Life<V> {
    /// How many publications it keeps, and the bytes of their frames.
    fn weight(&self) -> (u64, u64) {
        (self.records.len() as u64, self.bytes)
    }
}

impl Topics<Option<Kept>> {
    /// Parts what was read: what the engines begin with, in no order, and what the log goes on with.
    pub fn part(self) -> (Vec<Stored>, Topics<()>) {
        let mut stored = Vec::with_capacity(self.lives.len());
        let lives = self.lives.into_iter().map(|(topic, life)| {
            let Life { epoch, last, first, lost, segment, bytes, records } = life;
            let mut kept = Vec::with_capacity(records.len());
            let records = records.into_iter().map(|(offset, held)| {
                kept.extend(held.value);
                (offset, Held { segment: held.segment, bytes: held.bytes, value: () })
            });
            let life = Life { epoch, last, first, lost, segment, bytes, records: records.collect() };
            stored.push(Stored { topic: topic.clone(), epoch, last, lost, kept });
            (topic, life)
        });
        let topics = Topics { lives: lives.collect(), live_bytes: self.live_bytes, records: self.records };
        (stored, topics)
    }
}

/// Bytes of the frame of a topic's state.
fn state_bytes(topic: &str, epoch: Epoch) -> u64 {
    (FRAME_BYTES + 2 + topic.len() + epoch.as_str().len() + 24) as u64
}

#[cfg(test)]
mod tests {
    use super::super::record::Put;
    use super::*;
    use crate::frame::Kind;

    fn epoch(number: u64) -> Epoch {
        Epoch::from_random(number)
    }

    fn put(offset: u64, life: u64) -> Entry<'static> {
        let (topic, payload) = ("a", &b"x"[..]);
        Entry::Put(Put { topic, epoch: epoch(life), offset, at_ms: 0, until_ms: None, key: None, kind: Kind::Text, payload })
    }

    fn state(last: u64, first: u64, lost: u64) -> Entry<'static> {
        Entry::State(State { topic: "a", epoch: epoch(1), last, first, lost })
    }

    fn trim(first: u64, lost: u64) -> Entry<'static> {
        Entry::Trim { topic: "a", epoch: epoch(1), first, lost }
    }

    /// Newest, first and lost offset of a topic, and those that are kept.
    type Seen = (u64, u64, u64, Vec<u64>);

    /// Applies entries, each in a segment of its own and of 100 bytes; what is left, and the bytes of it.
    fn apply(entries: &[Entry<'_>]) -> (Option<Seen>, u64) {
        let mut topics = Topics::new();
        for (segment, entry) in entries.iter().enumerate() {
            topics.apply(entry, segment as u64, 100, ()).unwrap();
        }
        let life = topics.lives.get("a");
        assert_eq!(topics.records(), life.map_or(0, |life| life.records.len() as u64));
        let bytes = topics.live_bytes() - life.map_or(0, |life| state_bytes("a", life.epoch));
        (life.map(|life| (life.last, life.first, life.lost, life.records.keys().copied().collect())), bytes)
    }

    #[test]
    fn a_state_has_as_many_bytes_as_its_frame() {
        let mut frame = Vec::new();
        state(1, 2, 3).encode(&mut frame);
        assert_eq!(state_bytes("a", epoch(1)), frame.len() as u64);
    }

    #[test]
    fn publications_are_kept_until_they_are_trimmed() {
        assert_eq!(apply(&[put(1, 1), put(2, 1), put(5, 1), trim(3, 2)]), (Some((5, 3, 2, vec![5])), 100));
        assert_eq!(apply(&[put(1, 1), trim(9, 9)]), (Some((1, 2, 1, vec![])), 0), "what is not there can't be trimmed");
        assert_eq!(apply(&[put(1, 1), put(2, 1), trim(3, 2), trim(2, 1)]), (Some((2, 3, 2, vec![])), 0));
    }

    #[test]
    fn another_life_takes_the_place_of_the_one_before() {
        assert_eq!(apply(&[put(1, 2), put(2, 2), put(1, 1)]), (Some((1, 1, 0, vec![1])), 100));
        assert_eq!(apply(&[put(1, 2), state(0, 1, 0)]), (Some((0, 1, 0, vec![])), 0));
        assert_eq!(apply(&[put(1, 1), put(1, 2), trim(2, 0)]).0.unwrap().3, [1], "a trim of the life before means nothing");
        let end = |life| Entry::End { topic: "a", epoch: epoch(life) };
        assert_eq!(apply(&[put(1, 1), end(2)]).0.unwrap().3, [1]);
        assert_eq!(apply(&[put(1, 1), end(1)]), (None, 0));
    }

    #[test]
    fn copies_come_late_and_twice() {
        assert_eq!(apply(&[put(1, 1), put(2, 1), put(1, 1)]), (Some((2, 1, 0, vec![1, 2])), 200));
        assert_eq!(apply(&[put(7, 1), state(7, 4, 3), put(3, 1), put(5, 1)]), (Some((7, 4, 3, vec![5, 7])), 200));
    }

    #[test]
    fn where_it_stands_is_where_it_came_last() {
        let mut topics = Topics::new();
        for (segment, entry) in [put(1, 1), put(2, 1), put(1, 1), state(2, 1, 0)].iter().enumerate() {
            topics.apply(entry, segment as u64, 100, ()).unwrap();
        }
        let life = topics.life("a", epoch(1)).unwrap();
        assert_eq!((life.segment, life.records[&1].segment, life.records[&2].segment), (3, 2, 1));
        assert!(topics.life("a", epoch(2)).is_none());
    }

    #[test]
    fn a_name_that_is_no_topic_is_refused() {
        let state = Entry::State(State { topic: "a//b", epoch: epoch(1), last: 0, first: 1, lost: 0 });
        assert_eq!(Topics::<()>::new().apply(&state, 0, 1, ()), Err(TopicError::BadSegment));
    }
}
