//! The engine that keeps publications in memory: a topic is its epoch, its last offset and its history.
//!
//! A topic's life begins with its first publication or its first subscriber. It ends [`TOPIC_LINGER`] after the last subscriber has
//! left and the last kept publication has gone, and the next life draws another epoch, so that a cursor of the old one is
//! recognised.
//!
//! All histories of a worker together have a bound, too. Over it the oldest publication goes, whichever topic it is of: the row of
//! all that are kept is in the order of numbering, and passes over what its topic has let go of meanwhile.

use std::cmp::Ordering;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};
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

/// Numbers publications, and keeps them in memory.
#[derive(Debug)]
pub struct MemoryEngine<R> {
    topics: HashMap<Topic, Life, RandomState>,
    topics_max: usize,
    classes: Arc<Classes>,
    row: Row,
    history_bytes_max: u64,
    /// Each topic that nobody subscribed to once, with a deadline not later than its true one.
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
    /// Whether `endings` holds the topic.
    has_ending: bool,
}

impl Life {
    /// When there is something to do for it: a publication is too old, or its end has come.
    fn due(&self) -> Option<Tick> {
        self.history.due(self.keep).or((self.end != Tick::NEVER).then_some(self.end))
    }
}

/// Everything that is kept, in the order in which it was numbered, by topic and offset.
#[derive(Debug, Default)]
struct Row {
    kept: VecDeque<(Topic, u64)>,
    /// Publications in all histories; what stands in the row beyond them has gone already.
    publications: usize,
    /// Bytes of all histories.
    bytes: u64,
}

impl Row {
    /// What has gone may make up half of the row and this much.
    const GONE_MAX: usize = 1024;

    /// Changes a history and keeps count of it.
    fn change<T>(&mut self, history: &mut History, change: impl FnOnce(&mut History) -> T) -> T {
        let (publications, bytes) = (history.len(), history.bytes());
        let result = change(history);
        self.publications = self.publications + history.len() - publications;
        self.bytes = self.bytes + history.bytes() - bytes;
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
            row: Row::default(),
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
        self.row.bytes
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
                let life = Life { epoch, last: 0, class, keep, history: History::default(), end: Tick(0), has_ending: false };
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
        let topic = &publication.topic;
        let Some(life) = self.topics.get_mut(topic.as_str()).filter(|life| life.keep.publications > 0) else { return };
        let keep = life.keep;
        self.row.change(&mut life.history, |history| history.push(Arc::clone(publication), keep));
        if let Some(at) = life.history.due(keep).filter(|_| !std::mem::replace(&mut life.has_ending, true)) {
            self.endings.push(Ending { at, topic: topic.clone() });
        }
        self.row.kept.push_back((topic.clone(), publication.position.offset));
        while self.row.bytes > self.history_bytes_max {
            self.drop_oldest();
        }
        if self.row.kept.len() > 2 * self.row.publications + Row::GONE_MAX {
            let Self { topics, row, .. } = self;
            row.kept.retain(|(topic, offset)| is_kept(topics, topic, *offset));
            row.kept.give_back();
        }
    }

    /// Lets go of the oldest publication of all topics.
    fn drop_oldest(&mut self) {
        while let Some((topic, offset)) = self.row.kept.pop_front() {
            if let Some(life) = self.topics.get_mut(topic.as_str()).filter(|life| life.history.first() == Some(offset)) {
                return self.row.change(&mut life.history, History::drop_first);
            }
        }
    }

    /// Lets a topic without subscribers live on from `now`. An ending it has already is looked at first, and put off then.
    fn linger(&mut self, topic: &Topic, now: Tick) {
        let Some(life) = self.topics.get_mut(topic.as_str()) else { return };
        life.end = now.after(Tick::count(TOPIC_LINGER));
        if !std::mem::replace(&mut life.has_ending, true) {
            self.endings.push(Ending { at: life.end, topic: topic.clone() });
        }
    }

    /// Looks at a topic for which there may be something to do: what is too old goes, and where nothing is left, the topic.
    fn settle(&mut self, mut ending: Ending, now: Tick) {
        let Some(life) = self.topics.get_mut(ending.topic.as_str()) else { return };
        let keep = life.keep;
        if let Some(gone) = self.row.change(&mut life.history, |history| history.expire(keep, now)) {
            life.end = life.end.max(gone.after(Tick::count(TOPIC_LINGER)));
        }
        match life.due() {
            None => life.has_ending = false,
            Some(due) if due <= now => {
                self.topics.remove(ending.topic.as_str());
                self.topics.give_back();
            }
            Some(due) => {
                ending.at = due;
                self.endings.push(ending);
            }
        }
    }
}

/// Whether a publication is still kept: everything behind the first that is.
fn is_kept(topics: &HashMap<Topic, Life, RandomState>, topic: &Topic, offset: u64) -> bool {
    topics.get(topic.as_str()).and_then(|life| life.history.first()).is_some_and(|first| first <= offset)
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
        append(&mut engine, 0, "a", Tick(0)).unwrap();
        let one = engine.history_bytes();
        engine.history_bytes_max = 6 * one;
        for _ in 0..5 {
            append(&mut engine, 0, "b", Tick(0)).unwrap();
        }
        append(&mut engine, 0, "a", Tick(0)).unwrap();
        assert_eq!((kept(&mut engine, "a", Tick(0)), kept(&mut engine, "b", Tick(0))), (vec![1, 2], vec![2, 3, 4, 5]));
        append(&mut engine, 0, "c", Tick(0)).unwrap();
        append(&mut engine, 0, "c", Tick(0)).unwrap();
        assert_eq!((kept(&mut engine, "a", Tick(0)), kept(&mut engine, "b", Tick(0))), (vec![2], vec![3, 4, 5]));
        assert_eq!(engine.history_bytes(), 6 * one);
    }

    #[test]
    fn what_has_gone_does_not_fill_the_row() {
        let mut engine = keeping(9, 2, Tick(5000));
        append(&mut engine, 0, "a", Tick(0)).unwrap();
        for _ in 0..10_000 {
            append(&mut engine, 0, "b", Tick(0)).unwrap();
        }
        assert!(engine.row.publications == 3 && engine.row.kept.len() <= 6 + Row::GONE_MAX, "{}", engine.row.kept.len());
        engine.history_bytes_max = 0;
        append(&mut engine, 0, "b", Tick(0)).unwrap();
        assert_eq!((engine.row.publications, engine.history_bytes()), (0, 0));
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
