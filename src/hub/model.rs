//! The hub against a model that says the same in the plainest words: sets, queues and a log, without a list that is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{Hold, Hub, Origin, Subject, TopicId};
use crate::frame::{Form, Forms, Topic};

const SLOTS: u32 = 7;
const TOPICS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Subscribe { slot: u32, topic: usize, form: Form, held: bool },
    Release { slot: u32, topic: usize },
    Unsubscribe { slot: u32, topic: usize },
    UnsubscribeAll { slot: u32 },
    Publish { topic: usize, joins: bool },
    Slice { max: usize },
    Await { slot: u32 },
    Tell { fails: bool },
    Acknowledge,
}

fn op() -> impl Strategy<Value = Op> {
    let form = prop::sample::select(&Form::ALL);
    prop_oneof![
        6 => (0..SLOTS, 0..TOPICS, form, prop::bool::weighted(0.3))
            .prop_map(|(slot, topic, form, held)| Op::Subscribe { slot, topic, form, held }),
        4 => (0..SLOTS, 0..TOPICS).prop_map(|(slot, topic)| Op::Release { slot, topic }),
        3 => (0..SLOTS, 0..TOPICS).prop_map(|(slot, topic)| Op::Unsubscribe { slot, topic }),
        2 => (0..SLOTS).prop_map(|slot| Op::UnsubscribeAll { slot }),
        6 => (0..TOPICS, any::<bool>()).prop_map(|(topic, joins)| Op::Publish { topic, joins }),
        8 => (1..=SLOTS as usize).prop_map(|max| Op::Slice { max }),
        2 => (0..SLOTS).prop_map(|slot| Op::Await { slot }),
        4 => prop::bool::weighted(0.2).prop_map(|fails| Op::Tell { fails }),
        4 => Just(Op::Acknowledge),
    ]
}

/// What the model carries: a topic, and the first and last number of its publications that go out as one.
type Numbered = (usize, u64, u64);

#[derive(Default)]
struct PlainTopic {
    subscribers: BTreeMap<u32, Form>,
    /// Those who are held; once they were released, the last publication that passes them by.
    held: BTreeMap<u32, (Hold, Option<u64>)>,
    waiting: VecDeque<(u64, u64)>,
    /// Somebody is released behind the last of them, so nothing joins that one.
    releases_behind: bool,
    /// Whom the first of `waiting` has still to reach.
    remaining: BTreeSet<u32>,
    published: u64,
    /// The moment at which each form was last wanted for the first time.
    wanted_since: [u64; Form::ALL.len()],
    /// The moment of the latest telling that was acknowledged.
    acknowledged: u64,
    is_dirty: bool,
}

struct Pair {
    hub: Hub<Numbered>,
    names: [Topic; TOPICS],
    topics: [PlainTopic; TOPICS],
    /// Topics with an open fan-out, in the order of their turns.
    turns: VecDeque<usize>,
    /// Told and not yet acknowledged: topic, version, moment.
    told: VecDeque<(usize, u32, u64)>,
    awaiting: BTreeSet<u32>,
    moment: u64,
    /// What each slot has got, to check order over the whole run.
    got: BTreeMap<(u32, usize), u64>,
}

impl PlainTopic {
    fn forms(&self) -> Forms {
        self.subscribers.values().fold(Forms::NONE, |forms, form| forms.with(*form))
    }

    fn begin(&mut self) {
        self.remaining = self.subscribers.keys().copied().collect();
    }

    /// Whether what is published now would reach just those whom the last that waits will.
    fn may_join(&self) -> bool {
        let is_open = self.waiting.len() > 1 || self.remaining.iter().eq(self.subscribers.keys());
        !self.waiting.is_empty() && is_open && !self.releases_behind
    }

    fn publications(&self) -> u64 {
        self.waiting.iter().map(|(first, last)| last - first + 1).sum()
    }

    fn leave(&mut self, slot: u32) -> bool {
        self.remaining.remove(&slot);
        self.held.remove(&slot);
        let was_there = self.subscribers.remove(&slot).is_some();
        self.is_dirty |= was_there;
        was_there
    }

    fn is_in_force(&self, slot: u32) -> bool {
        self.subscribers.get(&slot).is_none_or(|form| self.acknowledged > self.wanted_since[*form as usize])
    }
}

impl Pair {
    fn new() -> Self {
        Self {
            hub: Hub::new(1),
            names: ["a", "b", "c"].map(|name| Topic::new(name).unwrap()),
            topics: Default::default(),
            turns: VecDeque::new(),
            told: VecDeque::new(),
            awaiting: BTreeSet::new(),
            moment: 0,
            got: BTreeMap::new(),
        }
    }

    fn step(&mut self, op: Op) {
        self.moment += 1;
        match op {
            Op::Subscribe { slot, topic, form, held } => self.subscribe(slot, topic, form, held),
            Op::Release { slot, topic } => self.release(slot, topic),
            Op::Unsubscribe { slot, topic } => self.unsubscribe(slot, topic),
            Op::UnsubscribeAll { slot } => self.unsubscribe_all(slot),
            Op::Publish { topic, joins } => self.publish(topic, joins),
            Op::Slice { max } => self.slice(max),
            Op::Await { slot } => {
                self.hub.await_confirmation(slot);
                self.awaiting.insert(slot);
            }
            Op::Tell { fails } => self.tell(fails),
            Op::Acknowledge => self.acknowledge(),
        }
        self.hub.check_invariants();
        self.compare();
    }

    fn id(&self, topic: usize) -> Option<TopicId> {
        (0..SLOTS).flat_map(|slot| self.hub.topics_of(slot)).find(|id| self.hub.topic(*id) == Some(&self.names[topic]))
    }

    fn subscribe(&mut self, slot: u32, topic: usize, form: Form, held: bool) {
        let name = &self.names[topic];
        let hold = if held {
            self.hub.subscribe_held(slot, name, form)
        } else {
            let id = self.hub.subscribe(slot, name, form);
            assert_eq!(self.hub.topic(id), Some(name));
            None
        };
        let plain = &mut self.topics[topic];
        if plain.subscribers.contains_key(&slot) {
            return assert_eq!(hold, None);
        }
        assert_eq!(hold.is_some(), held);
        if let Some((_, hold)) = hold {
            plain.held.insert(slot, (hold, None));
        }
        if !plain.forms().contains(form) {
            plain.wanted_since[form as usize] = self.moment;
        }
        plain.subscribers.insert(slot, form);
        plain.is_dirty = true;
    }

    fn release(&mut self, slot: u32, topic: usize) {
        let Some(id) = self.id(topic) else { return };
        let plain = &mut self.topics[topic];
        let Some((hold, passed)) = plain.held.get_mut(&slot) else { return };
        passed.get_or_insert(plain.published);
        plain.releases_behind = !plain.waiting.is_empty();
        self.hub.release(slot, id, *hold);
    }

    fn unsubscribe(&mut self, slot: u32, topic: usize) {
        let was_there = self.id(topic).is_some_and(|id| self.hub.unsubscribe(slot, id));
        assert_eq!(was_there, self.topics[topic].leave(slot));
    }

    fn unsubscribe_all(&mut self, slot: u32) {
        self.hub.unsubscribe_all(slot);
        self.awaiting.remove(&slot);
        for plain in &mut self.topics {
            plain.leave(slot);
        }
    }

    fn publish(&mut self, topic: usize, joins: bool) {
        let plain = &mut self.topics[topic];
        let number = plain.published + 1;
        let publication = (topic, number, number);
        let mut asked = false;
        let result =
            self.hub.publish_or_join(&self.names[topic], Origin { home: 0, is_kept: true }, publication, |last, next| {
                asked = true;
                assert_eq!((last.0, last.2 + 1), (next.0, next.1), "joins what it does not follow");
                if joins {
                    last.2 = next.2;
                }
                (!joins).then_some(next)
            });
        if plain.subscribers.is_empty() {
            assert_eq!(result, Err(publication));
            return;
        }
        assert_eq!(result, Ok(()));
        plain.published += 1;
        assert_eq!(asked, plain.may_join());
        if let Some(last) = plain.waiting.back_mut().filter(|_| asked && joins) {
            last.1 = number;
            return;
        }
        if plain.waiting.is_empty() {
            plain.begin();
            self.turns.push_back(topic);
        }
        plain.waiting.push_back((number, number));
        plain.releases_behind = false;
    }

    fn slice(&mut self, max: usize) {
        let Some(topic) = self.turns.pop_front() else {
            assert!(self.hub.next_slice(max, &mut Vec::new()).is_none());
            return;
        };
        let mut subscribers = Vec::new();
        let mut slice = self.hub.next_slice(max, &mut subscribers).expect("a fan-out is open");
        let plain = &mut self.topics[topic];
        let (first, last) = plain.waiting[0];
        assert_eq!(*slice.publication.get_mut(), (topic, first, last));
        assert_eq!(subscribers.len(), max.min(plain.remaining.len()));
        for subscriber in subscribers {
            assert!(plain.remaining.remove(&subscriber.slot), "{} gets it twice or unasked", subscriber.slot);
            assert_eq!(plain.subscribers[&subscriber.slot], subscriber.form);
            let passes = plain.held.get(&subscriber.slot).is_some_and(|(_, until)| until.is_none_or(|until| first <= until));
            assert_eq!(subscriber.held.is_some(), passes, "{} is released too early or too late", subscriber.slot);
            if passes {
                continue;
            }
            let before = self.got.insert((subscriber.slot, topic), last);
            assert!(before.is_none_or(|before| before < first), "out of order");
        }
        let finished = plain.remaining.is_empty();
        assert_eq!(slice.publication.finished(), finished.then_some((topic, first, last)));
        if finished {
            plain.waiting.pop_front();
            plain.releases_behind &= !plain.waiting.is_empty();
            plain.begin();
        }
        if plain.waiting.is_empty() {
            plain.remaining.clear();
        } else {
            self.turns.push_back(topic);
        }
    }

    fn tell(&mut self, fails: bool) {
        let Some(interest) = self.hub.poll_interest() else { return };
        let topic = self.names.iter().position(|name| interest.subject == Subject::Topic(name.clone())).unwrap();
        let plain = &mut self.topics[topic];
        assert!(plain.is_dirty, "told without a change");
        assert_eq!((interest.forms, interest.subscribers), (plain.forms(), plain.subscribers.len() as u64));
        if fails {
            self.hub.interest_told_again(interest.id);
        } else {
            plain.is_dirty = false;
            self.told.push_back((topic, interest.version, self.moment));
        }
    }

    fn acknowledge(&mut self) {
        if let Some((topic, version, moment)) = self.told.pop_front() {
            self.hub.acknowledge_interest(&self.names[topic], version);
            self.topics[topic].acknowledged = moment;
        }
    }

    fn compare(&mut self) {
        let subscriptions: usize = self.topics.iter().map(|plain| plain.subscribers.len()).sum();
        assert_eq!(self.hub.subscriptions(), subscriptions);
        assert_eq!(self.hub.has_open_fanouts(), !self.turns.is_empty());
        assert_eq!(self.hub.open_fanouts(), self.topics.iter().map(PlainTopic::publications).sum::<u64>() as usize);
        assert_eq!(self.hub.has_dirty_interest(), self.topics.iter().any(|plain| plain.is_dirty));
        let in_force = |slot| self.topics.iter().all(|plain| plain.is_in_force(slot));
        for slot in 0..SLOTS {
            assert_eq!(self.hub.in_force(slot), in_force(slot), "slot {slot}");
        }
        let expected: BTreeSet<u32> = self.awaiting.iter().copied().filter(|slot| in_force(*slot)).collect();
        let confirmed: Vec<u32> = std::iter::from_fn(|| self.hub.poll_confirmed()).collect();
        assert_eq!(confirmed.len(), expected.len(), "a slot is confirmed once");
        assert_eq!(confirmed.into_iter().collect::<BTreeSet<_>>(), expected);
        self.awaiting.retain(|slot| !expected.contains(slot));
    }

    /// Whatever was going on, it comes to an end, and nothing stays.
    fn wind_up(mut self) {
        while !self.turns.is_empty() {
            self.step(Op::Slice { max: 2 });
        }
        for slot in 0..SLOTS {
            self.step(Op::UnsubscribeAll { slot });
        }
        while self.hub.has_dirty_interest() {
            self.step(Op::Tell { fails: false });
        }
        assert_eq!((self.hub.poll_interest(), self.hub.topics()), (None, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_hub_agrees_with_the_model(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new();
        for op in ops {
            pair.step(op);
        }
        pair.wind_up();
    }
}
