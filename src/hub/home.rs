//! What a home worker knows of its topics: which workers want them, and in which forms.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::interest::is_at_least;
use crate::frame::{Forms, Topic};
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
        Self { workers, topics: HashMap::default() }
    }

    /// Notes what `worker` has told of a topic, and returns whether any worker is interested in it now. What was told before the
    /// known version is passed over.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn update(&mut self, worker: usize, topic: &Topic, forms: Forms, subscribers: u64, version: u32) -> bool {
        assert!(worker < self.workers, "worker {worker} of {}", self.workers);
        let entry = Entry { subscribers, version, worker: worker as u8, forms };
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

    /// The workers that want publications of `topic`, each once, with the forms it needs.
    pub fn interested(&self, topic: &str) -> impl Iterator<Item = (usize, Forms)> {
        self.entries(topic).iter().map(|entry| (usize::from(entry.worker), entry.forms))
    }

    /// What is known of the topics, in bytes, without their names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topics.capacity() * size_of::<(Topic, Workers)>()
    }

    /// Every form that some worker needs.
    #[must_use]
    pub fn forms(&self, topic: &str) -> Forms {
        self.entries(topic).iter().fold(Forms::NONE, |forms, entry| forms.union(entry.forms))
    }

    /// The subscribers on all workers, as last told.
    #[must_use]
    pub fn subscribers(&self, topic: &str) -> u64 {
        self.entries(topic).iter().map(|entry| entry.subscribers).sum()
    }

    /// How many topics some worker is interested in.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    fn entries(&self, topic: &str) -> &[Entry] {
        self.topics.get(topic).map_or(&[], Workers::entries)
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
        assert_eq!(interests.subscribers("chat"), 2);
        assert!(!interests.update(0, &topic, Forms::NONE, 0, 1));
        assert_eq!(interests.topics(), 0);
    }

    fn forms() -> impl Strategy<Value = Forms> {
        any::<[bool; 2]>().prop_map(|wanted| {
            Form::ALL.into_iter().zip(wanted).fold(Forms::NONE, |forms, (form, yes)| if yes { forms.with(form) } else { forms })
        })
    }

    proptest! {
        #[test]
        fn interests_agree_with_a_plain_table(updates in prop::collection::vec((0..5usize, 0..3usize, forms(), 1..9u64), 1..100)) {
            let topics = ["a", "b", "c"].map(|name| Topic::new(name).unwrap());
            let mut interests = Interests::new(5);
            let mut table = BTreeMap::new();
            for (version, (worker, topic, forms, subscribers)) in updates.into_iter().enumerate() {
                table.remove(&(topic, worker));
                if !forms.is_empty() {
                    table.insert((topic, worker), (forms, subscribers));
                }
                let is_wanted = interests.update(worker, &topics[topic], forms, subscribers, version as u32);
                prop_assert_eq!(is_wanted, table.keys().any(|key| key.0 == topic));
                for (index, topic) in topics.iter().enumerate() {
                    let rows = || table.iter().filter(|(key, _)| key.0 == index);
                    let mut interested: Vec<_> = interests.interested(topic.as_str()).collect();
                    interested.sort_by_key(|(worker, _)| *worker);
                    prop_assert_eq!(interested, rows().map(|(key, row)| (key.1, row.0)).collect::<Vec<_>>());
                    prop_assert_eq!(interests.subscribers(topic.as_str()), rows().map(|(_, row)| row.1).sum::<u64>());
                    let union = rows().fold(Forms::NONE, |union, (_, row)| union.union(row.0));
                    prop_assert_eq!(interests.forms(topic.as_str()), union);
                }
                let wanted = (0..3).filter(|topic| table.keys().any(|key| key.0 == *topic)).count();
                prop_assert_eq!(interests.topics(), wanted);
            }
        }
    }
}
