//! The engine that keeps publications in memory: a topic is its epoch, its last offset and its history.
//!
//! A topic's life begins with its first publication or its first subscriber. It ends [`TOPIC_LINGER`] after the last subscriber has
//! left and the last kept publication has gone, and the next life draws another epoch, so that a cursor of the old one is
//! recognised.
//!
//! All histories of a worker together have a bound, too. Over it the oldest publication goes, whichever topic it is of: an index has
//! the topics in the order of their oldest.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use super::history::{History, Keep};
use super::{Append, AppendError, Engine, EngineEvent, Extent, Read};
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
/// Publications let go of for one that needs their room. Were that not enough, as when small ones make room for a large one, the next
/// publications go on.
const DROPPED_MAX: usize = 1024;

/// Numbers publications, and keeps them in memory.
#[derive(Debug)]
pub struct MemoryEngine<R> {
    topics: HashMap<Topic, Life, RandomState>,
    topics_max: usize,
    classes: Arc<Classes>,
    kept: Kept,
    history_bytes_max: u64,
    /// Each topic for which there will be something to do, with a deadline not later than its true one; and some that were put off.
    endings: BinaryHeap<Ending>,
    events: VecDeque<EngineEvent<R>>,
    random: fastrand::Rng,
}

/// One life of a topic.
#[derive(Debug)]
struct Life {
    epoch: Epoch,
    last: u64,
    class: ClassId,
    keep: Keep,
    history: History,
    /// When it ends, unless something is kept; [`Tick::NEVER`] while it has subscribers.
    end: Tick,
    /// When `endings` has it looked at next.
    looked_at: Tick,
}

impl Life {
    /// When there is something to do for it: a publication is too old, or its end has come.
    fn due(&self) -> Option<Tick> {
        self.history.due(self.keep).or((self.end != Tick::NEVER).then_some(self.end))
    }
}

/// What all histories hold together.
#[derive(Debug, Default)]
struct Kept {
    /// When each topic's oldest publication was numbered, and which topic that is.
    oldest: BTreeSet<(u64, Topic)>,
    /// Bytes of all publications.
    bytes: u64,
}

impl Kept {
    /// Changes a topic's history and keeps count of it.
    fn change<T>(&mut self, topic: &Topic, history: &mut History, change: impl FnOnce(&mut History) -> T) -> T {
        let (oldest, bytes) = (history.oldest_ns(), history.bytes());
        let result = change(history);
        self.bytes = self.bytes + history.bytes() - bytes;
        let now_oldest = history.oldest_ns();
        if oldest != now_oldest {
            if let Some(oldest) = oldest {
                self.oldest.remove(&(oldest, topic.clone()));
            }
            self.oldest.extend(now_oldest.map(|oldest| (oldest, topic.clone())));
        }
        result
    }
}

/// A topic to be looked at when `at` has come, the earliest first.
#[derive(Debug)]
struct Ending {
    at: Tick,
    topic: Topic,
}

impl<R> MemoryEngine<R> {
    /// An engine for at most `topics_max` living topics, which keeps of each what its class says, and of all together at most
    /// `history_bytes_max` bytes. Epochs are drawn from `seed`, which must differ from start to start,
    /// because numbering begins anew with each.
    #[must_use]
    pub fn new(topics_max: usize, classes: Arc<Classes>, history_bytes_max: u64, seed: u64) -> Self {
        Self {
            topics: HashMap::default(),
            topics_max,
            classes,
            kept: Kept::default(),
            history_bytes_max,
            endings: BinaryHeap::new(),
            events: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// What the topics take, in bytes, without their names and what is kept of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.topics.capacity() * size_of::<(Topic, Life)>() + self.endings.capacity() * size_of::<Ending>()
    }

    /// Bytes of all publications that are kept.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        self.kept.bytes
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
                let class = self.classes.id_of(place.key().as_str());
                let keep = self.classes.get(class).history.into();
                let life =
                    Life { epoch, last: 0, class, keep, history: History::default(), end: Tick(0), looked_at: Tick::NEVER };
                Ok((place.key().clone(), place.insert(life)))
            }
        }
    }

    fn number(&mut self, topic: Topic, now: Tick) -> Result<(Topic, Position, ClassId), AppendError> {
        let (topic, life) = self.life(topic)?;
        life.last += 1;
        let (position, class) = (Position { epoch: life.epoch, offset: life.last }, life.class);
        if life.end != Tick::NEVER {
            self.linger(&topic, now);
        }
        Ok((topic, position, class))
    }

    /// Keeps a publication as its topic's class says; the oldest of all topics make room for it.
    fn keep(&mut self, publication: &Arc<Publication>) {
        let Self { topics, kept, .. } = self;
        let topic = &publication.topic;
        let Some(life) = topics.get_mut(topic.as_str()).filter(|life| life.keep.publications > 0) else { return };
        let keep = life.keep;
        kept.change(topic, &mut life.history, |history| history.push(Arc::clone(publication), keep));
        if let Some(at) = life.history.due(keep).filter(|at| *at < life.looked_at) {
            self.schedule(topic, at);
        }
        for _ in 0..DROPPED_MAX {
            if self.kept.bytes <= self.history_bytes_max {
                break;
            }
            self.drop_oldest();
        }
    }

    /// Lets go of the oldest publication of all topics.
    fn drop_oldest(&mut self) {
        let Self { topics, kept, .. } = self;
        let Some((_, topic)) = kept.oldest.first().cloned() else { return };
        let Some(life) = topics.get_mut(topic.as_str()) else { return };
        kept.change(&topic, &mut life.history, History::drop_first);
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
        let Self { topics, kept, .. } = self;
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
            Some(due) if due <= now && life.history.is_empty() => {
                topics.remove(topic.as_str());
                topics.give_back();
            }
            Some(due) => self.schedule(&topic, due),
        }
    }
}

impl<R> Engine<R> for MemoryEngine<R> {
    fn append(&mut self, append: Append<R>) {
        let Append { request, topic, payload, at_ms, numbered_ns, forms } = append;
        let numbered = self.number(topic, Tick::from_nanoseconds(numbered_ns));
        let result = numbered.as_ref().map(|(_, position, _)| *position).map_err(|error| *error);
        self.events.push_back(EngineEvent::Appended { request, result });
        if let Ok((topic, position, class)) = numbered {
            let mut publication = Publication::new(topic, position, at_ms, numbered_ns, payload, forms);
            publication.class = class;
            let publication = Arc::new(publication);
            self.keep(&publication);
            self.events.push_back(EngineEvent::Published { publication });
        }
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

    fn poll(&mut self) -> Option<EngineEvent<R>> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.give_back();
        }
        event
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
        for _ in 0..EXPIRED_TOPICS_MAX {
            let Some(first) = self.endings.peek_mut() else { break };
            if first.at > now || left == 0 {
                break;
            }
            let ending = std::collections::binary_heap::PeekMut::pop(first);
            self.settle(ending, now, &mut left);
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
    use crate::class::{Class, History, Presence, SlowConsumer};
    use crate::frame::{Form, Forms, Kind, Payload, Since};
    use crate::limits::TICK_MS;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// An engine that keeps nothing.
    fn engine(topics_max: usize) -> MemoryEngine<u32> {
        keeping(topics_max, 0, Tick(0))
    }

    /// An engine that keeps this many publications of each topic, for this long.
    fn keeping(topics_max: usize, size: u32, age: Tick) -> MemoryEngine<u32> {
        let history = History { size, bytes: u64::MAX, ttl: Duration::from_millis(u64::from(age.0) * TICK_MS) };
        let class = Class { history, slow_consumer: SlowConsumer::Disconnect, presence: Presence::Off };
        MemoryEngine::new(topics_max, Arc::new(Classes::new(Vec::new(), class)), u64::MAX, 1)
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
        let mut engine = engine(9);
        assert_eq!(engine.extent("chat"), None);
        engine.set_interest(&topic("chat"), true, Tick(0)).unwrap();
        let extent = engine.extent("chat").unwrap();
        assert_eq!((extent.first, extent.last), (1, 0));
        assert_eq!(append(&mut engine, 7, "chat", Tick(0)), Ok(Position { epoch: extent.epoch, offset: 1 }));
        assert_eq!(engine.extent("chat"), Some(Extent { epoch: extent.epoch, first: 2, last: 1 }));
    }

    #[test]
    fn the_limit_holds_for_new_topics_alone() {
        let mut engine = engine(1);
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
        let mut engine = engine(1_000_000);
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

    /// Offsets of what is kept of a topic.
    fn kept(engine: &mut MemoryEngine<u32>, name: &str, now: Tick) -> Vec<u64> {
        let now_ns = u64::from(now.0) * TICK_MS * 1_000_000;
        engine.read(Read { request: 7, topic: topic(name), since: Since::Earliest, bytes_max: usize::MAX, now_ns });
        let Some(EngineEvent::Read { request: 7, result: Ok(page) }) = engine.poll() else { panic!("no page") };
        assert!(page.is_last && page.gap.is_none());
        page.publications.iter().map(|publication| publication.position.offset).collect()
    }

    #[test]
    fn a_topic_lives_as_long_as_something_is_kept_of_it_and_a_while_longer() {
        let mut engine = keeping(9, 2, Tick(5000));
        for _ in 0..3 {
            append(&mut engine, 0, "chat", Tick(0)).unwrap();
        }
        assert_eq!(kept(&mut engine, "chat", Tick(0)), [2, 3]);
        let extent = engine.extent("chat").unwrap();
        assert_eq!((extent.first, extent.last), (2, 3));
        engine.expire(Tick(4000));
        assert_eq!(engine.extent("chat"), Some(extent), "it has lingered long enough, but something is kept");
        engine.expire(Tick(5001));
        assert_eq!(engine.extent("chat"), Some(Extent { first: 4, ..extent }));
        let end = Tick(5001).after(Tick::count(TOPIC_LINGER));
        engine.expire(Tick(end.0 - 1));
        assert!(engine.extent("chat").is_some());
        engine.expire(end);
        assert_eq!((engine.extent("chat"), engine.history_bytes(), engine.poll_timeout()), (None, 0, None));
    }

    #[test]
    fn what_is_wanted_for_ever_ages_all_the_same() {
        let mut engine = keeping(9, 9, Tick(100));
        engine.set_interest(&topic("chat"), true, Tick(0)).unwrap();
        append(&mut engine, 0, "chat", Tick(0)).unwrap();
        append(&mut engine, 0, "chat", Tick(50)).unwrap();
        engine.expire(engine.poll_timeout().unwrap());
        assert_eq!(kept(&mut engine, "chat", Tick(101)), [2]);
        engine.expire(engine.poll_timeout().unwrap());
        assert_eq!((kept(&mut engine, "chat", Tick(151)), engine.poll_timeout()), (vec![], None));
        append(&mut engine, 0, "chat", Tick(200)).unwrap();
        assert!(engine.poll_timeout().is_some());
    }

    #[test]
    fn over_the_common_bound_the_oldest_goes_whichever_topic_it_is_of() {
        let mut engine = keeping(9, 4, Tick(5000));
        let mut now = Tick(0);
        let mut append = |engine: &mut MemoryEngine<u32>, name| {
            now = Tick(now.0 + 1);
            append(engine, 0, name, now).unwrap();
        };
        append(&mut engine, "a");
        let one = engine.history_bytes();
        engine.history_bytes_max = 6 * one;
        for _ in 0..5 {
            append(&mut engine, "b");
        }
        append(&mut engine, "a");
        assert_eq!((kept(&mut engine, "a", Tick(0)), kept(&mut engine, "b", Tick(0))), (vec![1, 2], vec![2, 3, 4, 5]));
        append(&mut engine, "c");
        append(&mut engine, "c");
        assert_eq!((kept(&mut engine, "a", Tick(0)), kept(&mut engine, "b", Tick(0))), (vec![2], vec![3, 4, 5]));
        assert_eq!(engine.history_bytes(), 6 * one);
    }

    #[test]
    fn the_index_has_one_entry_for_each_topic_of_which_something_is_kept() {
        let mut engine = keeping(9, 2, Tick(100));
        for life in 0..3u32 {
            let now = Tick(life * 10_000);
            append(&mut engine, 0, "a", now).unwrap();
            for _ in 0..1000 {
                append(&mut engine, 0, "b", now).unwrap();
            }
            assert_eq!(engine.kept.oldest.len(), 2);
            engine.expire(Tick(now.0 + 9000));
            engine.expire(Tick(now.0 + 9000));
            assert_eq!((engine.kept.oldest.len(), engine.history_bytes(), engine.topics()), (0, 0, 0));
        }
        engine.history_bytes_max = 0;
        append(&mut engine, 0, "b", Tick(90_000)).unwrap();
        assert_eq!((engine.kept.oldest.len(), engine.history_bytes()), (0, 0));
    }

    #[test]
    fn a_short_time_is_kept_also_where_a_topic_lingers_longer() {
        let mut engine = keeping(9, 9, Tick(100));
        append(&mut engine, 0, "chat", Tick(0)).unwrap();
        let due = engine.poll_timeout().unwrap();
        assert!(due <= Tick(102), "{due:?}");
        engine.expire(due);
        assert_eq!((kept(&mut engine, "chat", due), engine.topics()), (vec![], 1));
    }

    #[test]
    fn much_that_is_too_old_goes_a_piece_at_a_time() {
        let mut engine = keeping(9, 10_000, Tick(100));
        for _ in 0..5000 {
            append(&mut engine, 0, "chat", Tick(0)).unwrap();
        }
        let due = Tick(200);
        engine.expire(due);
        assert_eq!(kept(&mut engine, "chat", due).len(), 5000 - EXPIRED_PUBLICATIONS_MAX);
        while engine.poll_timeout().is_some_and(|at| at <= due) {
            engine.expire(due);
        }
        assert_eq!(kept(&mut engine, "chat", due).len(), 0);
    }

    #[test]
    fn names_are_kept_once() {
        let mut engine = engine(9);
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
            let mut engine = engine(9);
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
