//! The engine that numbers and keeps nothing: a topic is its epoch and its last offset.
//!
//! A topic's life begins with its first publication or its first subscriber. It ends [`TOPIC_LINGER`] after the last of both, and
//! the next life draws another epoch, so that a cursor of the old one is recognised.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::{Append, AppendError, Engine, EngineEvent, Extent};
use crate::frame::{Epoch, Position, Publication, Topic};
use crate::limits::{GiveBack, Tick};

/// How long a topic lives on when it has no subscribers, counted from its last subscriber's leaving or its last publication,
/// whichever is later. A page that reloads finds its topic as it was.
pub const TOPIC_LINGER: Duration = Duration::from_secs(60);

/// Topics looked at in one call of `expire`: some 100 microseconds.
const EXPIRED_TOPICS_MAX: usize = 1024;

/// Numbers publications in memory. There is no history yet: [`Extent::first`] is always `last + 1`.
#[derive(Debug)]
pub struct MemoryEngine<R> {
    topics: HashMap<Topic, Life, RandomState>,
    topics_max: usize,
    /// Each topic that nobody subscribed to once, with a deadline not later than its true one.
    endings: BinaryHeap<Ending>,
    events: VecDeque<EngineEvent<R>>,
    random: fastrand::Rng,
}

/// One life of a topic.
#[derive(Clone, Copy, Debug)]
struct Life {
    epoch: Epoch,
    last: u64,
    /// When it ends; [`Tick::NEVER`] while it has subscribers.
    end: Tick,
    /// Whether `endings` holds the topic.
    has_ending: bool,
}

/// A topic to be looked at when `at` has come.
#[derive(Debug)]
struct Ending {
    at: Tick,
    topic: Topic,
}

impl<R> MemoryEngine<R> {
    /// An engine for at most `topics_max` living topics. Epochs are drawn from `seed`, which must differ from start to start,
    /// because numbering begins anew with each.
    #[must_use]
    pub fn new(topics_max: usize, seed: u64) -> Self {
        Self {
            topics: HashMap::default(),
            topics_max,
            endings: BinaryHeap::new(),
            events: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// What the topics take, in bytes, without their names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topics.capacity() * size_of::<(Topic, Life)>() + self.endings.capacity() * size_of::<Ending>()
    }

    /// How many topics live.
    #[must_use]
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// The life of `topic`, begun if need be (the caller says until when), and the one copy of its name that everything shares.
    fn life(&mut self, topic: Topic) -> Result<(Topic, &mut Life), AppendError> {
        let is_full = self.topics.len() >= self.topics_max;
        match self.topics.entry(topic) {
            Entry::Occupied(known) => Ok((known.key().clone(), known.into_mut())),
            Entry::Vacant(_) if is_full => Err(AppendError::TooManyTopics { topics_max: self.topics_max }),
            Entry::Vacant(place) => {
                let epoch = Epoch::from_random(self.random.u64(..));
                let life = Life { epoch, last: 0, end: Tick(0), has_ending: false };
                Ok((place.key().clone(), place.insert(life)))
            }
        }
    }

    fn number(&mut self, topic: Topic, now: Tick) -> Result<(Topic, Position), AppendError> {
        let (topic, life) = self.life(topic)?;
        life.last += 1;
        let position = Position { epoch: life.epoch, offset: life.last };
        if life.end != Tick::NEVER {
            self.linger(&topic, now);
        }
        Ok((topic, position))
    }

    /// Lets a topic without subscribers live on from `now`. An ending it has already is looked at first, and put off then.
    fn linger(&mut self, topic: &Topic, now: Tick) {
        let Some(life) = self.topics.get_mut(topic.as_str()) else { return };
        life.end = now.after(Tick::count(TOPIC_LINGER));
        if !std::mem::replace(&mut life.has_ending, true) {
            self.endings.push(Ending { at: life.end, topic: topic.clone() });
        }
    }

    /// Looks at a topic whose ending has come: it has subscribers again, or was published to since, or its life is over.
    fn settle(&mut self, mut ending: Ending, now: Tick) {
        let Some(life) = self.topics.get_mut(ending.topic.as_str()) else { return };
        if life.end <= now {
            self.topics.remove(ending.topic.as_str());
            self.topics.give_back();
        } else if life.end == Tick::NEVER {
            life.has_ending = false;
        } else {
            ending.at = life.end;
            self.endings.push(ending);
        }
    }
}

impl<R> Engine<R> for MemoryEngine<R> {
    fn append(&mut self, append: Append<R>) {
        let Append { request, topic, payload, at_ms, numbered_ns, forms } = append;
        let numbered = self.number(topic, Tick::from_nanoseconds(numbered_ns));
        let result = numbered.as_ref().map(|(_, position)| *position).map_err(|error| *error);
        self.events.push_back(EngineEvent::Appended { request, result });
        if let Ok((topic, position)) = numbered {
            let publication = Arc::new(Publication::new(topic, position, at_ms, numbered_ns, payload, forms));
            self.events.push_back(EngineEvent::Published { publication });
        }
    }

    fn poll(&mut self) -> Option<EngineEvent<R>> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.give_back();
        }
        event
    }

    fn extent(&self, topic: &str) -> Option<Extent> {
        let life = self.topics.get(topic)?;
        Some(Extent { epoch: life.epoch, first: life.last + 1, last: life.last })
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
        for _ in 0..EXPIRED_TOPICS_MAX {
            let Some(first) = self.endings.peek_mut() else { break };
            if first.at > now {
                break;
            }
            let ending = std::collections::binary_heap::PeekMut::pop(first);
            self.settle(ending, now);
        }
        self.endings.give_back();
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.endings.peek().map(|ending| ending.at)
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Form, Forms, Kind, Payload};
    use crate::limits::TICK_MS;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn append(engine: &mut MemoryEngine<u32>, request: u32, name: &str, now: Tick) -> Result<Position, AppendError> {
        let payload = Payload::new(Kind::Text, b"hello").unwrap();
        let numbered_ns = u64::from(now.0) * TICK_MS * 1_000_000;
        let forms = Forms::NONE.with(Form::WsEnvelope);
        engine.append(Append { request, topic: topic(name), payload, at_ms: 5, numbered_ns, forms });
        let Some(EngineEvent::Appended { request: answered, result }) = engine.poll() else { panic!("no answer") };
        assert_eq!(answered, request);
        if let Ok(position) = result {
            let Some(EngineEvent::Published { publication }) = engine.poll() else { panic!("not published") };
            assert_eq!((publication.topic.as_str(), publication.position), (name, position));
            assert!(publication.form(Form::WsEnvelope).is_some());
        }
        assert!(engine.poll().is_none());
        result
    }

    #[test]
    fn a_topic_with_subscribers_has_an_epoch_before_its_first_publication() {
        let mut engine = MemoryEngine::<u32>::new(9, 1);
        assert_eq!(engine.extent("chat"), None);
        engine.set_interest(&topic("chat"), true, Tick(0)).unwrap();
        let extent = engine.extent("chat").unwrap();
        assert_eq!((extent.first, extent.last), (1, 0));
        assert_eq!(append(&mut engine, 7, "chat", Tick(0)), Ok(Position { epoch: extent.epoch, offset: 1 }));
        assert_eq!(engine.extent("chat"), Some(Extent { epoch: extent.epoch, first: 2, last: 1 }));
    }

    #[test]
    fn the_limit_holds_for_new_topics_alone() {
        let mut engine = MemoryEngine::<u32>::new(1, 1);
        append(&mut engine, 0, "a", Tick(0)).unwrap();
        let refusal = AppendError::TooManyTopics { topics_max: 1 };
        assert_eq!(append(&mut engine, 1, "b", Tick(0)), Err(refusal));
        assert_eq!(engine.set_interest(&topic("b"), true, Tick(0)), Err(refusal));
        assert_eq!(append(&mut engine, 2, "a", Tick(0)).unwrap().offset, 2);
        engine.expire(engine.poll_timeout().unwrap());
        assert_eq!(append(&mut engine, 3, "b", Tick(9999)).unwrap().offset, 1);
    }

    #[test]
    fn many_short_lives_leave_no_memory_and_no_long_call() {
        let mut engine = MemoryEngine::<u32>::new(1_000_000, 1);
        for number in 0..20_000 {
            append(&mut engine, number, &format!("t/{number}"), Tick(0)).unwrap();
        }
        let due = engine.poll_timeout().unwrap();
        engine.expire(due);
        assert_eq!(engine.topics(), 20_000 - EXPIRED_TOPICS_MAX);
        while engine.poll_timeout().is_some() {
            engine.expire(due);
        }
        assert_eq!(engine.topics(), 0);
        assert!(engine.topics.capacity() < 64 && engine.endings.capacity() < 64);
    }

    #[test]
    fn names_are_kept_once() {
        let mut engine = MemoryEngine::<u32>::new(9, 1);
        let mut names = Vec::new();
        for request in 0..2 {
            append(&mut engine, request, "chat", Tick(0)).unwrap();
            names.push(engine.topics.keys().next().unwrap().as_str().as_ptr());
        }
        assert_eq!(names[0], names[1]);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append(usize),
        SetInterest(usize, bool),
        Pass(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..3usize).prop_map(Op::Append),
            (0..3usize, any::<bool>()).prop_map(|(topic, is_wanted)| Op::SetInterest(topic, is_wanted)),
            (0..3000u32).prop_map(Op::Pass),
        ]
    }

    /// A topic of the model: last offset, whether it is wanted, and when it last had something to live for.
    #[derive(Clone, Copy)]
    struct Plain {
        last: u64,
        is_wanted: bool,
        alive_at: Tick,
    }

    proptest! {
        #[test]
        fn lives_agree_with_a_plain_table(ops in prop::collection::vec(op(), 1..80)) {
            let names = ["a", "b", "c"];
            let mut engine = MemoryEngine::<u32>::new(9, 1);
            let mut table: BTreeMap<usize, Plain> = BTreeMap::new();
            let mut epochs: [BTreeSet<String>; 3] = Default::default();
            let mut lives = [0; 3];
            let mut now = Tick(0);
            for op in ops {
                let mut begin = |table: &mut BTreeMap<usize, Plain>, topic| {
                    lives[topic] += usize::from(!table.contains_key(&topic));
                    *table.entry(topic).or_insert(Plain { last: 0, is_wanted: false, alive_at: now })
                };
                match op {
                    Op::Append(topic) => {
                        let plain = begin(&mut table, topic);
                        table.insert(topic, Plain { last: plain.last + 1, alive_at: now, ..plain });
                        let position = append(&mut engine, 0, names[topic], now).unwrap();
                        prop_assert_eq!(position.offset, plain.last + 1);
                    }
                    Op::SetInterest(index, is_wanted) => {
                        engine.set_interest(&topic(names[index]), is_wanted, now).unwrap();
                        if is_wanted {
                            let plain = begin(&mut table, index);
                            table.insert(index, Plain { is_wanted, ..plain });
                        } else if let Some(plain) = table.get_mut(&index).filter(|plain| plain.is_wanted) {
                            (plain.is_wanted, plain.alive_at) = (false, now);
                        }
                    }
                    Op::Pass(ticks) => {
                        now = Tick(now.0 + ticks);
                        engine.expire(now);
                        table.retain(|_, plain| plain.is_wanted || now < plain.alive_at.after(Tick::count(TOPIC_LINGER)));
                    }
                }
                for (index, name) in names.into_iter().enumerate() {
                    let extent = engine.extent(name);
                    prop_assert_eq!(extent.map(|extent| extent.last), table.get(&index).map(|plain| plain.last));
                    epochs[index].extend(extent.map(|extent| extent.epoch.to_string()));
                    prop_assert_eq!(epochs[index].len(), lives[index], "each life has its own epoch");
                }
            }
        }
    }
}
