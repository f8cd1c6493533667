//! The engine that keeps publications in memory: a topic is its epoch, its last offset and its history.
//!
//! A topic's life begins with its first publication or its first subscriber. It ends [`TOPIC_LINGER`] after the last subscriber has
//! left and the last kept publication has gone, and the next life draws another epoch, so that a cursor of the old one is
//! recognised.
//!
//! All histories of a worker together have a bound, too. Over it the oldest publication goes, whichever topic it is of: an index has
//! the topics in the order of their oldest, or of one that was their oldest before. It is put right where it is asked, so a publication
//! costs the same however many topics there are.
//!
//! Keys under which publications came outlive their topics: what was published is not published again, whatever became of the topic.
//!
//! The names of the topics that have ever had something to keep stand in order, too: so who reads what is kept of all topics of a pattern
//! (`memory/scan.rs`) goes on where he stood, however many there are and whichever come and go meanwhile.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::history::History;
use super::idempotency::{Keys, Known};
use super::store::Port;
use super::{Append, AppendError, Appended, Engine, EngineEvent, Extent, Read, Scan, Submission, Terms};
use crate::class::Classes;
use crate::frame::{ClassId, Epoch, Position, Publication, Topic};
use crate::limits::{GiveBack, Tick};

/// How long a topic lives on when it has no subscribers, counted from its last subscriber's leaving or its last publication,
/// whichever is later. A page that reloads finds its topic as it was.
pub const TOPIC_LINGER: Duration = Duration::from_secs(60);

/// Topics looked at in one call of `expire`: some 100 microseconds.
const EXPIRED_TOPICS_MAX: usize = 1024;
/// Publications let go of in one call of `expire`: some 100 microseconds, too.
const EXPIRED_PUBLICATIONS_MAX: usize = 1024;
/// Topics put in their right places in the index to find the oldest publication. Were that not enough, an old one goes in its place.
const CORRECTED_MAX: usize = 16;
/// Publications let go of for one that needs their room. Were that not enough, as when small ones make room for a large one, the next
/// publications go on.
const DROPPED_MAX: usize = 1024;

/// What an engine may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Topics alive.
    pub topics_max: usize,
    /// Bytes of all publications that are kept.
    pub history_bytes_max: u64,
    /// Idempotency keys that are remembered.
    pub keys_max: usize,
    /// For how long each is.
    pub keys_ttl: Duration,
}

/// Numbers publications, and keeps them in memory.
#[derive(Debug)]
pub struct MemoryEngine<R, S = R> {
    topics: HashMap<Topic, Life, RandomState>,
    /// Those whose class keeps something, and that were published to.
    names: BTreeSet<Topic>,
    /// Before which moment everything was numbered that forgotten topics had lost.
    forgotten_before_ns: u64,
    limits: Limits,
    classes: Arc<Classes>,
    kept: Kept,
    keys: Keys,
    /// Histories of lives that were ended: given back a piece at a time, since they may be long.
    discarded: Vec<History>,
    /// Each topic for which there will be something to do, with a deadline not later than its true one; and some that were put off.
    endings: BinaryHeap<Ending>,
    events: VecDeque<EngineEvent<R, S>>,
    random: fastrand::Rng,
    journal: Option<Journal<R>>,
}

/// A topic to be looked at when `at` has come, the earliest first.
#[derive(Debug)]
struct Ending {
    at: Tick,
    topic: Topic,
}

impl<R, S> MemoryEngine<R, S> {
    /// An engine which keeps of each topic what its class says, within `limits`. Epochs are drawn from `seed`, which must differ from
    /// start to start, because the numbers of topics that are not durable begin anew with each.
    #[must_use]
    pub fn new(limits: Limits, classes: Arc<Classes>, seed: u64) -> Self {
        Self {
            topics: HashMap::default(),
            names: BTreeSet::new(),
            forgotten_before_ns: 0,
            limits,
            classes,
            kept: Kept::default(),
            keys: Keys::new(limits.keys_max, Tick::count(limits.keys_ttl)),
            discarded: Vec::new(),
            endings: BinaryHeap::new(),
            events: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
            journal: None,
        }
    }

    /// Has a store keep what is published on durable topics: at most `waiting_max` publications of `bytes_max` bytes wait for it at a time. To
    /// be said before anything else.
    pub fn attach(&mut self, port: Port, bytes_max: usize, waiting_max: usize) {
        self.journal = Some(Journal::new(port, bytes_max, waiting_max));
    }

    /// What topics and keys take, in bytes, without the topics' names and what is kept of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let topics = self.topics.capacity() * size_of::<(Topic, Life)>() + self.endings.capacity() * size_of::<Ending>();
        topics + self.names.len() * size_of::<Topic>() + self.keys.bytes()
    }

    /// Bytes of all publications that are kept.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        self.kept.bytes
    }

    /// Bytes of all publications that wait for the store.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::bytes)
    }

    /// How many topics live.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The life of `topic`, begun if need be (the caller says until when), and the one copy of its name that everything shares.
    fn life(&mut self, topic: Topic) -> Result<(Topic, &mut Life), AppendError> {
        let topics_max = self.limits.topics_max;
        let is_full = self.topics.len() >= topics_max;
        match self.topics.entry(topic) {
            Entry::Occupied(known) => Ok((known.key().clone(), known.into_mut())),
            Entry::Vacant(_) if is_full => Err(AppendError::TooManyTopics { topics_max }),
            Entry::Vacant(place) => {
                let epoch = Epoch::from_random(self.random.u64(..));
                let mut life = Life::new(epoch, &self.classes, place.key());
                if let Some(journal) = &mut self.journal {
                    life.history.is_stored = self.classes.get(life.class).durable;
                    if life.history.is_stored {
                        journal.begin(place.key(), epoch);
                    }
                }
                Ok((place.key().clone(), place.insert(life)))
            }
        }
    }

    /// Gives a topic's next publication its number.
    fn number(&mut self, topic: Topic) -> Result<(Topic, Position, ClassId, bool), AppendError> {
        let (topic, life) = self.life(topic)?;
        let newest = life.newest();
        let position = Position { offset: newest.offset + 1, ..newest };
        if life.history.is_stored {
            life.send_off(position);
        }
        Ok((topic, position, life.class, life.history.is_stored))
    }

    /// What is numbered counts from now on: it is kept, and to be handed out.
    fn publish(&mut self, publication: Arc<Publication>, ttl: Option<Duration>, now: Tick) {
        let is_unwanted = self.keep(&publication, ttl);
        if is_unwanted {
            self.linger(&publication.topic, now);
        }
        self.events.push_back(EngineEvent::Published { publication });
    }

    /// Keeps a topic's newest publication as its class says, for `ttl` at most; true if the topic has no subscribers.
    fn keep(&mut self, publication: &Arc<Publication>, ttl: Option<Duration>) -> bool {
        let Self { topics, kept, names, .. } = self;
        let topic = &publication.topic;
        let Some(life) = topics.get_mut(topic.as_str()) else { return false };
        let keep = life.keep;
        life.last = life.last.max(publication.position.offset);
        if life.last == 1 && keep.publications > 0 {
            names.insert(topic.clone());
        }
        kept.change(topic, &mut life.history, |history| history.push(Arc::clone(publication), keep, ttl));
        let is_unwanted = life.end != Tick::NEVER;
        if let Some(at) = life.history.due(keep).filter(|at| *at < life.looked_at) {
            self.schedule(topic, at);
        }
        self.make_room();
        is_unwanted
    }

    /// The oldest of all topics make room for what was kept last.
    fn make_room(&mut self) {
        for _ in 0..DROPPED_MAX {
            if self.kept.bytes <= self.limits.history_bytes_max {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Lets go of the oldest publication of all topics.
    fn drop_oldest(&mut self) {
        let Self { topics, kept, .. } = self;
        for corrected in 0..=CORRECTED_MAX {
            let Some((place, topic)) = kept.oldest.first().cloned() else { return };
            let Some(Life { history, .. }) = topics.get_mut(topic.as_str()) else { return };
            let oldest = history.oldest_ns();
            if oldest == Some(place) || corrected == CORRECTED_MAX {
                return kept.change(&topic, history, History::drop_first);
            }
            kept.move_to(&topic, history, Some(place), oldest);
        }
    }

    /// Begins another life of a topic, with nothing of the one before.
    fn begin_anew(&mut self, request: R, topic: &Topic, epoch: Epoch) {
        let Self { topics, kept, discarded, .. } = self;
        if let Some(life) = topics.get_mut(topic.as_str()) {
            discarded.push(kept.change(topic, &mut life.history, History::end));
            (life.epoch, life.last) = (epoch, 0);
        }
        self.events.push_back(EngineEvent::Deleted { request, result: Ok(Some(epoch)) });
    }

    /// Gives back what histories of ended lives still hold, at most `left` publications, which it counts down.
    fn give_back_discarded(&mut self, left: &mut usize) {
        while let Some(history) = self.discarded.last_mut().filter(|_| *left > 0) {
            history.drop_first();
            *left -= 1;
            if history.is_empty() {
                self.discarded.pop();
            }
        }
        self.discarded.give_back();
    }

    /// Has a topic looked at when `at` has come, unless it will be before.
    fn schedule(&mut self, topic: &Topic, at: Tick) {
        let Some(life) = self.topics.get_mut(topic.as_str()).filter(|life| at < life.looked_at) else { return };
        life.looked_at = at;
        self.endings.push(Ending { at, topic: topic.clone() });
    }

    /// Lets a topic without subscribers live on from `now`.
    fn linger(&mut self, topic: &Topic, now: Tick) {
        let Some(life) = self.topics.get_mut(topic.as_str()) else { return };
        life.end = now.after(Tick::count(TOPIC_LINGER));
        let at = life.end;
        self.schedule(topic, at);
    }

    /// Looks at a topic for which there may be something to do: what is too old goes, at most `left` publications, and where nothing
    /// is left, the topic.
    fn settle(&mut self, ending: Ending, now: Tick, left: &mut usize) {
        let Self { topics, names, kept, forgotten_before_ns, .. } = self;
        let Ending { at, topic } = ending;
        // An earlier look has taken the place of this one, or the topic has begun another life.
        let Some(life) = topics.get_mut(topic.as_str()).filter(|life| life.looked_at == at) else { return };
        life.looked_at = Tick::NEVER;
        let keep = life.keep;
        if let Some(gone) = kept.change(&topic, &mut life.history, |history| history.expire(keep, now, left)) {
            life.end = life.end.max(gone.after(Tick::count(TOPIC_LINGER)));
        }
        match life.due() {
            None => {}
            // It goes on when its publication is on the disk, or has failed.
            Some(due) if due <= now && life.on_its_way.is_some() => self.schedule(&topic, now.after(1)),
            Some(due) if due <= now && life.history.is_empty() => {
                if let Some(journal) = self.journal.as_mut().filter(|_| life.history.is_stored) {
                    journal.end(&topic, life.epoch);
                }
                // What keeps nothing has promised nothing.
                if keep.publications > 0 {
                    *forgotten_before_ns = life.history.lost_before_ns().max(*forgotten_before_ns);
                }
                names.remove(topic.as_str());
                topics.remove(topic.as_str());
                topics.give_back();
            }
            Some(due) => self.schedule(&topic, due),
        }
    }
}

impl<R, S> Engine<R, S> for MemoryEngine<R, S> {
    fn append(&mut self, append: Append<R>) {
        let Append { request, submission: Submission { topic, payload, terms }, at_ms, numbered_ns, forms } = append;
        let (now, Terms { ttl, key }) = (Tick::from_nanoseconds(numbered_ns), terms.map_or_else(Terms::default, |terms| *terms));
        let known = key.as_ref().and_then(|key| self.keys.find(&topic, key, &payload, now));
        if let Some(known) = known {
            let result = match known {
                Known::Same(position) => Ok(Appended { position, is_repeated: true }),
                Known::Other => Err(AppendError::KeyReused),
            };
            return self.answer_behind(&topic, request, result);
        }
        let numbered = self.admit(&topic, payload.as_bytes().len()).and_then(|()| self.number(topic));
        let (topic, position, class, is_stored) = match numbered {
            Ok(numbered) => numbered,
            Err(error) => return self.events.push_back(EngineEvent::Appended { request, result: Err(error) }),
        };
        if let Some(key) = &key {
            let fingerprint = self.keys.fingerprint(&payload);
            self.keys.remember(topic.clone(), key.clone(), fingerprint, position, now);
        }
        let mut publication = Publication::new(topic, position, at_ms, numbered_ns, payload, forms);
        publication.class = class;
        let publication = Arc::new(publication);
        if is_stored {
            // Its life ends some time also if this fails.
            if self.topics.get(publication.topic.as_str()).is_some_and(|life| life.end != Tick::NEVER) {
                self.linger(&publication.topic, now);
            }
            return self.store(request, publication, ttl, key);
        }
        self.events.push_back(EngineEvent::Appended { request, result: Ok(Appended { position, is_repeated: false }) });
        self.publish(publication, ttl, now);
    }

    fn read(&mut self, read: Read<R>) {
        let Read { request, topic, since, bytes_max, now_ns } = read;
        let now = Tick::from_nanoseconds(now_ns);
        let result = self.life(topic).map(|(topic, life)| {
            let page = life.history.page(life.epoch, life.last, since, bytes_max, now_ns);
            (topic, page, life.end == Tick::NEVER)
        });
        let result = result.map(|(topic, page, is_wanted)| {
            if !is_wanted {
                self.linger(&topic, now);
            }
            page
        });
        self.events.push_back(EngineEvent::Read { request, result });
    }

    fn scan(&mut self, scan: Scan<S>) {
        let sheaf = self.gather(&scan);
        self.events.push_back(EngineEvent::Scanned { request: scan.request, sheaf });
    }

    fn delete(&mut self, request: R, topic: Topic) {
        let Some(life) = self.topics.get_mut(topic.as_str()) else {
            return self.events.push_back(EngineEvent::Deleted { request, result: Ok(None) });
        };
        let epoch = Epoch::from_random(self.random.u64(..));
        match &mut self.journal {
            Some(journal) if life.history.is_stored => {
                if let Err((request, error)) = journal.delete(request, topic, life, epoch) {
                    self.events.push_back(EngineEvent::Deleted { request, result: Err(error) });
                }
            }
            _ => self.begin_anew(request, &topic, epoch),
        }
    }

    fn poll(&mut self) -> Option<EngineEvent<R, S>> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.give_back();
        }
        event
    }

    fn has_news(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::has_news)
    }

    fn receive(&mut self) {
        self.hear();
    }

    fn ready(&self) -> Option<&Topic> {
        self.journal.as_ref()?.ready()
    }

    fn finish(&mut self, now: Tick) {
        self.finish_first(now);
    }

    fn submit(&mut self) {
        self.hand_over();
    }

    fn extent(&self, topic: &str) -> Option<Extent> {
        let life = self.topics.get(topic)?;
        Some(Extent { epoch: life.epoch, first: life.history.first().unwrap_or(life.last + 1), last: life.last })
    }

    fn set_interest(&mut self, topic: &Topic, is_wanted: bool, now: Tick) -> Result<(), AppendError> {
        if is_wanted {
            self.life(topic.clone())?.1.end = Tick::NEVER;
        } else if self.topics.get(topic.as_str()).is_some_and(|life| life.end == Tick::NEVER) {
            self.linger(topic, now);
        }
        Ok(())
    }

    fn expire(&mut self, now: Tick) {
        let mut left = EXPIRED_PUBLICATIONS_MAX;
        self.give_back_discarded(&mut left);
        for _ in 0..EXPIRED_TOPICS_MAX {
            let Some(first) = self.endings.peek_mut() else { break };
            if first.at > now || left == 0 {
                break;
            }
            let ending = std::collections::binary_heap::PeekMut::pop(first);
            self.settle(ending, now, &mut left);
        }
        self.endings.give_back();
        self.keys.expire(now, &mut left);
    }

    fn poll_timeout(&self) -> Option<Tick> {
        let discarded = (!self.discarded.is_empty()).then_some(Tick(0));
        self.endings.peek().map(|ending| ending.at).into_iter().chain(self.keys.due()).chain(discarded).min()
    }
}

/// The earliest ending is the greatest: `BinaryHeap` gives that one first.
impl Ord for Ending {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Ending {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ending {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Ending {}

mod journal;
mod life;
mod scan;
#[cfg(test)]
mod tests;

use journal::Journal;
use life::{Kept, Life};
