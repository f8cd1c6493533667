//! What a home worker knows of its topics: which workers want them, and in which forms; by name, or by a pattern.
//!
//! Interest in a topic is told to its home worker alone. A topic that no one has named yet may have any home, so interest in a pattern is
//! told to all of them.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use slab::Slab;

use super::interest::is_at_least;
use super::trie::Trie;
use crate::frame::{Forms, Pattern, Topic};
use crate::limits::{GiveBack, reserve_tight};

/// The most workers a process may have: a worker's number is kept in one byte.
pub const WORKERS_MAX: usize = 256;

/// The interest of all workers in the topics of one home worker.
///
/// Most topics have subscribers on one worker only; that one's entry is stored in place, and a list is made for the others.
#[derive(Debug)]
pub struct Interests {
    workers: usize,
    topics: HashMap<Topic, Workers, RandomState>,
    /// Which entry of `by_pattern` has a pattern's workers.
    patterns: Trie<u32>,
    by_pattern: Slab<Workers>,
    /// Scratch: the workers of one topic, those who want it by a pattern included.
    merged: Vec<Entry>,
}

/// What one worker wants of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    subscribers: u64,
    version: u32,
    worker: u8,
    forms: Forms,
}

/// The workers interested in one topic: never none, each once.
#[derive(Debug)]
enum Workers {
    One(Entry),
    Many(Vec<Entry>),
}

impl Interests {
    /// For a process of `workers` workers.
    ///
    /// # Panics
    /// If there are more than [`WORKERS_MAX`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        assert!(workers <= WORKERS_MAX, "at most {WORKERS_MAX} workers");
        Self { workers, topics: HashMap::default(), patterns: Trie::default(), by_pattern: Slab::new(), merged: Vec::new() }
    }

    /// Notes what `worker` has told of a topic, and returns whether any worker is interested in it now. What was told before the
    /// known version is passed over.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn update(&mut self, worker: usize, topic: &Topic, forms: Forms, subscribers: u64, version: u32) -> bool {
        let entry = self.entry(worker, forms, subscribers, version);
        match self.topics.get_mut(topic.as_str()) {
            Some(workers) if forms.is_empty() => {
                let is_last = workers.remove(entry);
                if is_last {
                    self.topics.remove(topic.as_str());
                    self.topics.give_back();
                }
                !is_last
            }
            Some(workers) => {
                workers.set(entry);
                true
            }
            None if forms.is_empty() => false,
            None => {
                self.topics.insert(topic.clone(), Workers::One(entry));
                true
            }
        }
    }

    /// Notes what `worker` has told of a pattern. What was told before the known version is passed over.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn update_pattern(&mut self, worker: usize, pattern: &Pattern, forms: Forms, subscribers: u64, version: u32) {
        let entry = self.entry(worker, forms, subscribers, version);
        match self.patterns.get(pattern) {
            Some(place) if forms.is_empty() => {
                if self.by_pattern[place as usize].remove(entry) {
                    self.patterns.remove(pattern);
                    self.by_pattern.remove(place as usize);
                    if self.by_pattern.is_empty() {
                        self.by_pattern = Slab::new();
                    }
                }
            }
            Some(place) => self.by_pattern[place as usize].set(entry),
            None if forms.is_empty() => {}
            None => {
                let place = self.by_pattern.insert(Workers::One(entry));
                self.patterns.insert(pattern, place as u32);
            }
        }
    }

    /// The workers that want publications of `topic`, each once, with the forms it needs.
    pub fn interested(&mut self, topic: &Topic) -> impl Iterator<Item = (usize, Forms)> {
        self.entries(topic).iter().map(|entry| (usize::from(entry.worker), entry.forms))
    }

    /// What is known of the topics, in bytes, without their names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topics.capacity() * size_of::<(Topic, Workers)>()
            + self.patterns.bytes()
            + self.by_pattern.capacity() * size_of::<Workers>()
    }

    /// Every form that some worker needs.
    #[must_use]
    pub fn forms(&mut self, topic: &Topic) -> Forms {
        self.entries(topic).iter().fold(Forms::NONE, |forms, entry| forms.union(entry.forms))
    }

    /// The subscriptions on all workers that the topic matches, as last told.
    #[must_use]
    pub fn subscribers(&mut self, topic: &Topic) -> u64 {
        self.entries(topic).iter().map(|entry| entry.subscribers).sum()
    }

    /// How many topics some worker is interested in by name.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// How many patterns some worker is interested in.
    #[must_use]
    pub fn patterns(&self) -> usize {
        self.patterns.len()
    }

    fn entry(&self, worker: usize, forms: Forms, subscribers: u64, version: u32) -> Entry {
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        Entry { subscribers, version, worker: worker as u8, forms }
    }

    fn entries(&mut self, topic: &Topic) -> &[Entry] {
        let named = self.topics.get(topic.as_str()).map_or(&[][..], Workers::entries);
        if self.patterns.is_empty() {
            return named;
        }
        let matching = self.patterns.matching(topic);
        if matching.is_empty() {
            return named;
        }
        self.merged.clear();
        self.merged.extend_from_slice(named);
        for entry in matching.iter().flat_map(|(_, place)| self.by_pattern[*place as usize].entries()) {
            match self.merged.iter_mut().find(|known| known.worker == entry.worker) {
                Some(known) => {
                    known.forms = known.forms.union(entry.forms);
                    known.subscribers += entry.subscribers;
                }
                None => self.merged.push(*entry),
            }
        }
        &self.merged
    }
}

impl Workers {
    fn entries(&self) -> &[Entry] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }

    fn known(&mut self, worker: u8) -> Option<&mut Entry> {
        let entries = match self {
            Self::One(entry) => std::slice::from_mut(entry),
            Self::Many(entries) => entries,
        };
        entries.iter_mut().find(|entry| entry.worker == worker)
    }

    fn set(&mut self, entry: Entry) {
        if let Some(known) = self.known(entry.worker) {
            if is_at_least(entry.version, known.version) {
                *known = entry;
            }
            return;
        }
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, entry]),
            Self::Many(entries) => {
                reserve_tight(entries, 1);
                entries.push(entry);
            }
        }
    }

    /// Takes a worker out; true if it was the last, which stays for the caller to drop with the whole.
    fn remove(&mut self, entry: Entry) -> bool {
        let is_stale = self.known(entry.worker).is_none_or(|known| !is_at_least(entry.version, known.version));
        match self {
            _ if is_stale => return false,
            Self::One(_) => return true,
            Self::Many(entries) => {
                entries.retain(|known| known.worker != entry.worker);
                entries.give_back();
                if let [last] = entries[..] {
                    *self = Self::One(last);
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::Form;

    #[test]
    fn a_topic_of_one_worker_takes_24_bytes_beside_its_name() {
        assert_eq!(size_of::<Workers>(), 24);
    }

    #[test]
    fn what_was_told_earlier_is_passed_over() {
        let (mut interests, topic) = (Interests::new(1), Topic::new("chat").unwrap());
        let raw = Forms::NONE.with(Form::WsRaw);
        assert!(interests.update(0, &topic, raw, 2, 0));
        assert!(interests.update(0, &topic, raw, 1, u32::MAX));
        assert!(interests.update(0, &topic, Forms::NONE, 0, u32::MAX));
        assert_eq!(interests.subscribers(&topic), 2);
        assert!(!interests.update(0, &topic, Forms::NONE, 0, 1));
        assert_eq!(interests.topics(), 0);
    }

    fn forms() -> impl Strategy<Value = Forms> {
        any::<[bool; 2]>().prop_map(|wanted| {
            Form::ALL.into_iter().zip(wanted).fold(Forms::NONE, |forms, (form, yes)| if yes { forms.with(form) } else { forms })
        })
    }

    /// What is told of, by the index that the updates use: topics, then patterns.
    const NAMES: [&str; 6] = ["x/a", "x/b", "c", "x/*", "x/**", "**"];
    const TOPICS: usize = 3;

    proptest! {
        #[test]
        fn interests_agree_with_a_plain_table(
            updates in prop::collection::vec((0..5usize, 0..NAMES.len(), forms(), 1..9u64), 1..100),
        ) {
            let patterns = NAMES.map(|name| Pattern::parse(name).unwrap());
            let mut interests = Interests::new(5);
            let mut table = BTreeMap::new();
            for (version, (worker, name, forms, subscribers)) in updates.into_iter().enumerate() {
                table.remove(&(name, worker));
                if !forms.is_empty() {
                    table.insert((name, worker), (forms, subscribers));
                }
                if name < TOPICS {
                    let topic = Topic::new(NAMES[name]).unwrap();
                    let is_wanted = interests.update(worker, &topic, forms, subscribers, version as u32);
                    prop_assert_eq!(is_wanted, table.keys().any(|key| key.0 == name));
                } else {
                    interests.update_pattern(worker, &patterns[name], forms, subscribers, version as u32);
                }
                for text in &NAMES[..TOPICS] {
                    let topic = Topic::new(text).unwrap();
                    let rows = || table.iter().filter(|(key, _)| patterns[key.0].matches(text));
                    let mut plain: BTreeMap<usize, Forms> = BTreeMap::new();
                    for (key, row) in rows() {
                        let forms = plain.entry(key.1).or_default();
                        *forms = forms.union(row.0);
                    }
                    let mut interested: Vec<_> = interests.interested(&topic).collect();
                    interested.sort_by_key(|(worker, _)| *worker);
                    prop_assert_eq!(interested, plain.into_iter().collect::<Vec<_>>());
                    prop_assert_eq!(interests.subscribers(&topic), rows().map(|(_, row)| row.1).sum::<u64>());
                    let union = rows().fold(Forms::NONE, |union, (_, row)| union.union(row.0));
                    prop_assert_eq!(interests.forms(&topic), union);
                }
                let known = |names: std::ops::Range<usize>| names.filter(|name| table.keys().any(|key| key.0 == *name)).count();
                prop_assert_eq!((interests.topics(), interests.patterns()), (known(0..TOPICS), known(TOPICS..NAMES.len())));
            }
        }
    }
}
