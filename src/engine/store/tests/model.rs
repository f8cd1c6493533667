//! What an engine of a worker would hand over, and what of it a store must have.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::super::{Change, Kept, Outcome, Record, Stored};
use crate::frame::{Epoch, Forms, Kind, Payload, Position, Publication, Topic};

pub(super) const WORKERS: usize = 2;
const TOPICS: usize = 3;
/// Publications that a topic keeps.
const HISTORY: usize = 4;

/// A topic as it should be stored.
#[derive(Clone, Debug, Default)]
struct Life {
    epoch: Option<Epoch>,
    last: u64,
    lost: u64,
    records: BTreeMap<u64, Record>,
}

/// What failed groups would have taken away, which may have come to pass, and does with the next group.
#[derive(Clone, Debug)]
struct Wanted {
    epoch: Epoch,
    first: u64,
    lost: u64,
    has_ended: bool,
}

type Lives = BTreeMap<String, Life>;

/// The engine of one worker.
#[derive(Debug)]
pub(super) struct Engine {
    worker: usize,
    /// What is acknowledged.
    acknowledged: Lives,
    wanted: BTreeMap<String, Wanted>,
    /// What the engine has in memory, all that is under way included.
    present: Lives,
    /// What is under way, with the numbers of their batches.
    under_way: VecDeque<(u64, Vec<Change>)>,
    /// What has failed since something was acknowledged: it may be there, too, if all ended before the store had recovered.
    failed: Vec<Vec<Change>>,
    next: u64,
    drawn: u64,
    /// Topics to which something happens.
    busy: usize,
}

impl Life {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Begin { epoch, .. } => *self = Self { epoch: Some(*epoch), ..Self::default() },
            Change::Put(record) => {
                let Position { epoch, offset } = record.publication.position;
                if self.epoch != Some(epoch) {
                    *self = Self { epoch: Some(epoch), ..Self::default() };
                }
                self.last = offset;
                self.records.insert(offset, record.clone());
            }
            Change::Trim { epoch, first, lost, .. } if self.epoch == Some(*epoch) => self.trim(*first, *lost),
            Change::End { epoch, .. } if self.epoch == Some(*epoch) => *self = Self::default(),
            Change::Trim { .. } | Change::End { .. } => {}
        }
    }

    fn trim(&mut self, first: u64, lost: u64) {
        self.records.retain(|offset, _| *offset >= first);
        self.lost = self.lost.max(lost.min(self.last));
    }
}

fn topic_of(change: &Change) -> &Topic {
    match change {
        Change::Begin { topic, .. } | Change::Trim { topic, .. } | Change::End { topic, .. } => topic,
        Change::Put(record) => &record.publication.topic,
    }
}

fn apply(lives: &mut Lives, changes: &[Change]) {
    for change in changes {
        lives.entry(topic_of(change).to_string()).or_default().apply(change);
    }
}

impl Engine {
    pub fn new(worker: usize) -> Self {
        Self {
            worker,
            acknowledged: Lives::new(),
            wanted: BTreeMap::new(),
            present: Lives::new(),
            under_way: VecDeque::new(),
            failed: Vec::new(),
            next: 1,
            drawn: 0,
            busy: TOPICS,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Something happens to some topics.
    pub fn turn(&mut self, random: &mut fastrand::Rng) -> Vec<Change> {
        let changes: Vec<_> = (0..random.usize(1..5)).flat_map(|_| self.happen(random)).collect();
        self.submit(changes)
    }

    /// From now on something happens to one topic alone.
    pub fn calm_down(&mut self) {
        self.busy = 1;
    }

    /// All topics end.
    pub fn end_all(&mut self) -> Vec<Change> {
        let ends = self.present.iter().filter_map(|(name, life)| {
            let topic = Topic::new(name).unwrap();
            life.epoch.map(|epoch| Change::End { topic, epoch })
        });
        let ends = ends.collect();
        self.submit(ends)
    }

    fn submit(&mut self, changes: Vec<Change>) -> Vec<Change> {
        self.under_way.push_back((self.next, changes.clone()));
        self.next += 1;
        changes
    }

    fn happen(&mut self, random: &mut fastrand::Rng) -> Vec<Change> {
        let topic = Topic::new(&format!("w{}/t{}", self.worker, random.usize(..self.busy))).unwrap();
        self.drawn += 1;
        let drawn = Epoch::from_random((self.drawn << 8 | self.worker as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let life = self.present.entry(topic.to_string()).or_default();
        let mut changes = Vec::new();
        match random.u8(..20) {
            0 => changes.push(Change::Begin { topic: topic.clone(), epoch: drawn }),
            1 => changes.extend(life.epoch.map(|epoch| Change::End { topic: topic.clone(), epoch })),
            2 => changes.extend(life.epoch.map(|epoch| {
                let first = random.u64(..=life.last + 1);
                Change::Trim { topic: topic.clone(), epoch, first, lost: first.saturating_sub(1) }
            })),
            _ => {
                let position = Position { epoch: life.epoch.unwrap_or(drawn), offset: life.last + random.u64(1..3) };
                let text = format!("{} {} ", topic, self.drawn).repeat(random.usize(1..12));
                let payload = Payload::new(Kind::Text, text.as_bytes()).unwrap();
                let publication = Publication::new(topic.clone(), position, self.drawn, 0, payload, Forms::NONE);
                let key = random.bool().then(|| format!("key-{}", self.drawn).parse().unwrap());
                let until_ms = random.bool().then_some(self.drawn);
                changes.push(Change::Put(Record { publication: Arc::new(publication), until_ms, key }));
                if life.records.len() >= HISTORY
                    && let Some(first) = life.records.keys().nth(life.records.len() - HISTORY)
                {
                    let (epoch, first) = (position.epoch, first + 1);
                    changes.push(Change::Trim { topic: topic.clone(), epoch, first, lost: first - 1 });
                }
            }
        }
        changes.iter().for_each(|change| life.apply(change));
        changes
    }

    pub fn hear(&mut self, outcome: Outcome) {
        while let Some((_, changes)) = self.under_way.pop_front_if(|(number, _)| *number <= outcome.stored) {
            // With this group, or one before it, all that was wanted has come to pass.
            self.keep_wanted();
            apply(&mut self.acknowledged, &changes);
            self.failed.clear();
        }
        if !outcome.has_failed {
            return;
        }
        let failed = std::mem::take(&mut self.under_way);
        for (_, changes) in failed {
            for change in &changes {
                self.want(change);
            }
            self.failed.push(changes);
        }
        // Numbers are taken back; what was to go has gone from memory.
        self.present = self.acknowledged.clone();
        for (topic, wanted) in &self.wanted {
            wanted.apply(self.present.get_mut(topic).unwrap());
        }
    }

    fn want(&mut self, change: &Change) {
        let (epoch, first, lost, has_ended) = match change {
            Change::Trim { epoch, first, lost, .. } => (*epoch, *first, *lost, false),
            Change::End { epoch, .. } => (*epoch, 0, 0, true),
            Change::Begin { .. } | Change::Put(_) => return,
        };
        let topic = topic_of(change).to_string();
        if let Some(life) = self.acknowledged.get(&topic).filter(|life| life.epoch == Some(epoch)) {
            let wanted = self.wanted.entry(topic).or_insert(Wanted { epoch, first: 0, lost: 0, has_ended: false });
            wanted.first = wanted.first.max(first.min(life.last + 1));
            wanted.lost = wanted.lost.max(lost);
            wanted.has_ended |= has_ended;
        }
    }

    fn keep_wanted(&mut self) {
        for (topic, wanted) in std::mem::take(&mut self.wanted) {
            wanted.apply(self.acknowledged.get_mut(&topic).unwrap());
        }
    }

    /// Goes on with what a store gives back, if that may be.
    pub fn adopt(&mut self, stored: &[Stored]) -> Result<(), String> {
        let mine = |stored: &&Stored| stored.topic.as_str().starts_with(&format!("w{}/", self.worker));
        let stored: BTreeMap<String, &Stored> =
            stored.iter().filter(mine).map(|stored| (stored.topic.to_string(), stored)).collect();
        let under_way: Vec<_> = self.under_way.iter().map(|(_, changes)| changes.clone()).collect();
        let mut wrong = Vec::new();
        let found = [&under_way, &self.failed].into_iter().any(|more| {
            (0..=more.len()).any(|count| {
                let mut lives = self.acknowledged.clone();
                more[..count].iter().for_each(|changes| apply(&mut lives, changes));
                let difference = self.difference(&lives, &stored);
                let is_it = difference.is_none();
                wrong.extend(difference.map(|error| format!("with {count} more: {error}")));
                is_it
            })
        });
        if !found {
            return Err(format!("worker {}: {}", self.worker, wrong.join("; ")));
        }
        let lives = stored.into_iter().map(|(topic, stored)| {
            let record = |kept: &Kept| (kept.offset, record(stored, kept));
            let records = stored.kept.iter().map(record).collect();
            (topic, Life { epoch: Some(stored.epoch), last: stored.last, lost: stored.lost, records })
        });
        self.acknowledged = lives.collect();
        self.present = self.acknowledged.clone();
        self.wanted.clear();
        self.failed.clear();
        self.under_way.clear();
        self.next = 1;
        Ok(())
    }

    /// What is stored and should not be, or the other way round.
    fn difference(&self, lives: &Lives, stored: &BTreeMap<String, &Stored>) -> Option<String> {
        let none = Life::default();
        for topic in lives.keys().chain(stored.keys()) {
            let (life, stored) = (lives.get(topic).unwrap_or(&none), stored.get(topic));
            let wanted = self.wanted.get(topic).filter(|wanted| Some(wanted.epoch) == life.epoch);
            let Some(stored) = stored else {
                if life.epoch.is_some() && wanted.is_none_or(|wanted| !wanted.has_ended) {
                    return Some(format!("{topic} is missing"));
                }
                continue;
            };
            let mut trimmed = life.clone();
            wanted.into_iter().for_each(|wanted| trimmed.trim(wanted.first, wanted.lost));
            let offsets: Vec<_> = stored.kept.iter().map(|kept| kept.offset).collect();
            let is_one = |life: &Life| {
                (Some(stored.epoch), stored.last, stored.lost) == (life.epoch, life.last, life.lost)
                    && offsets == life.records.keys().copied().collect::<Vec<_>>()
            };
            if !is_one(life) && !is_one(&trimmed) {
                return Some(format!("{topic} is {:?} {} {} {offsets:?}, not {life:?}", stored.epoch, stored.last, stored.lost));
            }
            for kept in &stored.kept {
                let (found, meant) = (record(stored, kept), &life.records[&kept.offset]);
                if format!("{found:?}") != format!("{meant:?}") {
                    return Some(format!("{topic} has {found:?}, not {meant:?}"));
                }
            }
        }
        None
    }
}

impl Wanted {
    fn apply(&self, life: &mut Life) {
        match self.has_ended {
            true => *life = Life::default(),
            false => life.trim(self.first, self.lost),
        }
    }
}

/// What was read back as it was handed over.
fn record(stored: &Stored, kept: &Kept) -> Record {
    let position = Position { epoch: stored.epoch, offset: kept.offset };
    let publication = Publication::new(stored.topic.clone(), position, kept.at_ms, 0, kept.payload.clone(), Forms::NONE);
    Record { publication: Arc::new(publication), until_ms: kept.until_ms, key: kept.key.clone() }
}
