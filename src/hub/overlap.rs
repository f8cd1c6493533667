//! The hub with patterns against its promises: whatever comes, goes and is published in between, each connection gets each publication
//! of a topic once, in order, and whoever was subscribed in any way the whole time gets it.
//!
//! Some read the history behind a pattern first: what is published where they have not been never reaches them here, by whichever list.
//!
//! The model of topics alone ([`super::model`]) foretells each slice. Here only what a subscriber can see is checked, and what home
//! workers are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

mod readers;

use readers::Reading;

use super::{Hold, Hub, Origin, Subject, TopicId};
use crate::frame::{Form, Forms, Pattern, Topic};

const SLOTS: u32 = 5;
/// Topics, then patterns.
const NAMES: [&str; 6] = ["x/a", "x/b", "c", "x/*", "x/**", "**"];
const TOPICS: usize = 3;
const HOMES: usize = 2;

#[derive(Clone, Debug)]
enum Op {
    Subscribe {
        slot: u32,
        name: usize,
        form: Form,
        held: bool,
    },
    /// Subscribes to a pattern to read what is behind it first.
    Read {
        slot: u32,
        name: usize,
    },
    /// Reads on to the end of a topic, if that is behind the reader's place.
    Advance {
        slot: u32,
        name: usize,
        topic: usize,
        is_whole: bool,
    },
    Finish {
        slot: u32,
        name: usize,
    },
    Release {
        slot: u32,
        topic: usize,
    },
    Unsubscribe {
        slot: u32,
        name: usize,
    },
    UnsubscribeAll {
        slot: u32,
    },
    Publish {
        topic: usize,
        joins: bool,
    },
    Slice {
        max: usize,
    },
    Await {
        slot: u32,
    },
    /// The home worker of this number has no room for it.
    Tell {
        misses: Option<usize>,
    },
    Acknowledge {
        home: usize,
    },
    Retire {
        in_use: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let form = prop::sample::select(&Form::ALL);
    let misses = prop::option::weighted(0.3, 0..HOMES);
    prop_oneof![
        8 => (0..SLOTS, 0..NAMES.len(), form, prop::bool::weighted(0.4))
            .prop_map(|(slot, name, form, held)| Op::Subscribe { slot, name, form, held: held && name < TOPICS }),
        4 => (0..SLOTS, TOPICS..NAMES.len()).prop_map(|(slot, name)| Op::Read { slot, name }),
        6 => (0..SLOTS, TOPICS..NAMES.len(), 0..TOPICS, any::<bool>())
            .prop_map(|(slot, name, topic, is_whole)| Op::Advance { slot, name, topic, is_whole }),
        2 => (0..SLOTS, TOPICS..NAMES.len()).prop_map(|(slot, name)| Op::Finish { slot, name }),
        4 => (0..SLOTS, 0..TOPICS).prop_map(|(slot, topic)| Op::Release { slot, topic }),
        4 => (0..SLOTS, 0..NAMES.len()).prop_map(|(slot, name)| Op::Unsubscribe { slot, name }),
        1 => (0..SLOTS).prop_map(|slot| Op::UnsubscribeAll { slot }),
        8 => (0..TOPICS, any::<bool>()).prop_map(|(topic, joins)| Op::Publish { topic, joins }),
        12 => (1..=SLOTS as usize).prop_map(|max| Op::Slice { max }),
        2 => (0..SLOTS).prop_map(|slot| Op::Await { slot }),
        4 => misses.prop_map(|misses| Op::Tell { misses }),
        5 => (0..HOMES).prop_map(|home| Op::Acknowledge { home }),
        1 => any::<bool>().prop_map(|in_use| Op::Retire { in_use }),
    ]
}

/// A topic, and the first and last number of its publications that go out as one.
type Numbered = (usize, u64, u64);

/// Whom a publication is owed to, and because of which subscriptions: their names, and when each began.
type Owed = BTreeMap<u32, BTreeSet<(usize, u64)>>;

struct Subscription {
    /// When it began, which also tells it from an earlier one.
    since: u64,
    form: Form,
    /// What was under way when it began has ended, or it was in force once: from then on it is owed everything.
    is_ripe: bool,
    /// It reads history; once it was released, the last publication that passes it by.
    held: Option<(Hold, Option<u64>)>,
}

/// What home workers know of one name.
#[derive(Default)]
struct Known {
    is_dirty: bool,
    /// When each form was last wanted for the first time.
    wanted_since: [u64; Form::ALL.len()],
    /// When that was told which each home worker has acknowledged last.
    acknowledged: [u64; HOMES],
}

struct World {
    hub: Hub<Numbered>,
    subscriptions: BTreeMap<(u32, usize), Subscription>,
    known: [Known; NAMES.len()],
    /// For each home worker what it was told: name, version, when.
    told: [VecDeque<(usize, u32, u64)>; HOMES],
    awaiting: BTreeSet<u32>,
    moment: u64,
    /// For each topic, when each of its publications came.
    published: [Vec<u64>; TOPICS],
    open: usize,
    /// For each publication, by topic and number.
    owed: BTreeMap<(usize, u64), Owed>,
    readings: BTreeMap<(u32, usize), Reading>,
    /// Publications that readers find in history: topic, number, slot.
    barred: BTreeSet<(usize, u64, u32)>,
    /// The last publication that each slot has got of a topic.
    got: BTreeMap<(u32, usize), u64>,
    /// Numbers of topics that queues may hold.
    in_use: Vec<(TopicId, usize)>,
}

impl World {
    fn new() -> Self {
        Self {
            hub: Hub::new(HOMES),
            subscriptions: BTreeMap::new(),
            known: Default::default(),
            told: Default::default(),
            awaiting: BTreeSet::new(),
            moment: 0,
            published: Default::default(),
            open: 0,
            owed: BTreeMap::new(),
            readings: BTreeMap::new(),
            barred: BTreeSet::new(),
            got: BTreeMap::new(),
            in_use: Vec::new(),
        }
    }

    fn step(&mut self, op: Op) {
        self.moment += 1;
        match op {
            Op::Subscribe { slot, name, form, held } => self.subscribe(slot, name, form, held),
            Op::Read { slot, name } => self.read(slot, name),
            Op::Advance { slot, name, topic, is_whole } => self.advance(slot, name, topic, is_whole),
            Op::Finish { slot, name } => self.finish(slot, name),
            Op::Release { slot, topic } => self.release(slot, topic),
            Op::Unsubscribe { slot, name } => self.unsubscribe(slot, name),
            Op::UnsubscribeAll { slot } => {
                self.hub.unsubscribe_all(slot);
                self.awaiting.remove(&slot);
                (0..NAMES.len()).for_each(|name| self.left(slot, name));
            }
            Op::Publish { topic, joins } => self.publish(topic, joins),
            Op::Slice { max } => self.slice(max),
            Op::Await { slot } => {
                self.hub.await_confirmation(slot);
                self.awaiting.insert(slot);
            }
            Op::Tell { misses } => self.tell(misses),
            Op::Acknowledge { home } => self.acknowledge(home),
            Op::Retire { in_use } => {
                self.hub.release_retired(|_| in_use);
                if !in_use {
                    self.in_use.clear();
                }
            }
        }
        self.hub.check_invariants();
        self.compare();
    }

    fn id(&self, slot: u32, name: usize) -> Option<TopicId> {
        let subject = if name < TOPICS { Subject::Topic(topic(name)) } else { Subject::Pattern(pattern(name)) };
        self.hub.topics_of(slot).find(|id| self.hub.subject(*id) == subject)
    }

    fn subscribe(&mut self, slot: u32, name: usize, form: Form, held: bool) {
        let is_there = self.subscriptions.contains_key(&(slot, name));
        // What a pattern brings already is not read once more.
        let held = held && !self.has_wider(slot, name);
        let hold = match (name < TOPICS, held) {
            (true, true) => self.hub.subscribe_held(slot, &topic(name), form).map(|(_, hold)| hold),
            (true, false) => {
                self.hub.subscribe(slot, &topic(name), form);
                None
            }
            (false, _) => {
                self.hub.subscribe_pattern(slot, &pattern(name), form);
                None
            }
        };
        if is_there {
            return assert_eq!(hold, None);
        }
        self.joined(slot, name, form, hold);
    }

    /// Whether the slot has another pattern that covers this name.
    fn has_wider(&self, slot: u32, name: usize) -> bool {
        let own = self.subscriptions.keys().filter(|key| key.0 == slot && key.1 != name);
        own.filter(|key| key.1 >= TOPICS).any(|key| pattern(key.1).covers(&pattern(name)))
    }

    fn joined(&mut self, slot: u32, name: usize, form: Form, hold: Option<Hold>) {
        let forms = self.forms(name);
        let known = &mut self.known[name];
        known.is_dirty = true;
        if !forms.contains(form) {
            known.wanted_since[form as usize] = self.moment;
        }
        let (is_ripe, held) = (name < TOPICS, hold.map(|hold| (hold, None)));
        let subscription = Subscription { since: self.moment, form, is_ripe, held };
        self.subscriptions.insert((slot, name), subscription);
    }

    fn release(&mut self, slot: u32, topic: usize) {
        let Some(id) = self.id(slot, topic) else { return };
        let last = self.published[topic].len() as u64;
        let held = self.subscriptions.get_mut(&(slot, topic)).and_then(|own| own.held.as_mut());
        let Some((hold, passed @ None)) = held else { return };
        *passed = Some(last);
        self.hub.release(slot, id, *hold);
        self.bar_arrived(slot, topic);
    }

    fn unsubscribe(&mut self, slot: u32, name: usize) {
        let id = self.id(slot, name);
        let was_there = id.is_some_and(|id| self.hub.unsubscribe(slot, id));
        assert_eq!(was_there, self.subscriptions.contains_key(&(slot, name)));
        let reads = self.subscriptions.get(&(slot, name)).is_some_and(|own| own.held.is_some_and(|(_, until)| until.is_none()));
        if reads {
            self.bar_arrived(slot, name);
        }
        self.left(slot, name);
    }

    /// What has arrived of a topic was read from history, or has passed its reader by: it is not owed by any subscription.
    fn bar_arrived(&mut self, slot: u32, topic: usize) {
        for (key, slots) in self.owed.iter_mut().filter(|(key, _)| key.0 == topic) {
            self.barred.insert((topic, key.1, slot));
            slots.remove(&slot);
        }
    }

    /// What was owed because of a subscription alone is not owed any more.
    fn left(&mut self, slot: u32, name: usize) {
        let Some(gone) = self.subscriptions.remove(&(slot, name)) else { return };
        let reading = self.readings.remove(&(slot, name));
        for (key, slots) in &mut self.owed {
            // Amid a reading nobody tells apart what it has read.
            let was_read = reading.as_ref().is_some_and(|reading| reading.reads(name, key.0));
            if was_read || self.barred.contains(&(key.0, key.1, slot)) {
                slots.remove(&slot);
            }
        }
        self.known[name].is_dirty = true;
        for slots in self.owed.values_mut() {
            if let Some(reasons) = slots.get_mut(&slot) {
                reasons.remove(&(name, gone.since));
                if reasons.is_empty() {
                    slots.remove(&slot);
                }
            }
        }
        // Who comes back to a topic that nothing brings any more begins anew.
        let own: Vec<usize> = self.subscriptions.keys().filter(|key| key.0 == slot).map(|key| key.1).collect();
        let is_brought = |topic: usize| own.iter().any(|name| pattern(*name).matches(NAMES[topic]));
        self.barred.retain(|(topic, _, of)| *of != slot || is_brought(*topic));
    }

    fn publish(&mut self, of: usize, joins: bool) {
        let number = self.published[of].len() as u64 + 1;
        let mut joined = false;
        let origin = Origin { home: home(of), is_kept: true };
        let result = self.hub.publish_or_join(&topic(of), origin, (of, number, number), |last, next| {
            assert_eq!((last.0, last.2 + 1), (next.0, next.1), "joins what it does not follow");
            joined = joins;
            if joins {
                last.2 = next.2;
            }
            (!joins).then_some(next)
        });
        let mut owed = Owed::new();
        let mut matching = self.subscriptions.iter().filter(|(key, _)| pattern(key.1).matches(NAMES[of])).peekable();
        assert_eq!(result.is_ok(), matching.peek().is_some());
        for ((slot, name), own) in matching.filter(|(_, own)| own.is_ripe) {
            if self.awaits(*slot, of) {
                continue;
            }
            owed.entry(*slot).or_default().insert((*name, own.since));
        }
        let barred: Vec<u32> = (0..SLOTS).filter(|slot| self.awaits(*slot, of)).collect();
        self.barred.extend(barred.into_iter().map(|slot| (of, number, slot)));
        if result.is_ok() {
            self.published[of].push(self.moment);
            self.owed.insert((of, number), owed);
            self.open += 1;
        }
    }

    fn slice(&mut self, max: usize) {
        let mut subscribers = Vec::new();
        let Some(mut slice) = self.hub.next_slice(max, &mut subscribers) else { return assert_eq!(self.open, 0) };
        let (of, first, last) = *slice.publication.get_mut();
        let (id, looked_at) = (slice.topic, slice.looked_at);
        let is_finished = slice.publication.finished().is_some();
        assert!(subscribers.len() <= looked_at && looked_at <= max);
        assert_eq!(self.hub.topic(id).map(Topic::as_str), Some(NAMES[of]));
        for subscriber in subscribers {
            let slot = subscriber.slot;
            let mut own = self.subscriptions.iter().filter(|(key, _)| key.0 == slot && pattern(key.1).matches(NAMES[of]));
            assert!(own.any(|(_, own)| own.form == subscriber.form), "{slot} does not want it so");
            let held = self.subscriptions.get(&(slot, of)).and_then(|own| own.held.map(|(_, until)| (own.since, until)));
            let passes = held.filter(|(_, until)| until.is_none_or(|until| first <= until));
            if subscriber.held.is_some() {
                assert!(passes.is_some(), "{slot} is released too late");
            } else {
                let published = self.published[of][first as usize - 1];
                assert!(passes.is_none_or(|(since, _)| since > published), "{slot} gets what it reads from history");
                let before = self.got.insert((slot, of), last);
                assert!(before.is_none_or(|before| before < first), "{slot} gets {first} after {before:?}");
                let barred = (first..=last).find(|number| self.barred.contains(&(of, *number, slot)));
                assert_eq!(barred, None, "{slot} finds it in history");
                if !self.subscriptions.contains_key(&(slot, of)) {
                    self.in_use.push((id, of));
                }
            }
            for number in first..=last {
                self.owed.get_mut(&(of, number)).map(|slots| slots.remove(&slot));
            }
        }
        if is_finished {
            for number in first..=last {
                let left = self.owed.remove(&(of, number));
                assert!(left.as_ref().is_some_and(BTreeMap::is_empty), "{number} of {of} is still owed: {left:?}");
            }
            self.open -= (last - first + 1) as usize;
        }
    }

    fn tell(&mut self, misses: Option<usize>) {
        let Some(interest) = self.hub.poll_interest() else { return };
        let (name, homes) = match &interest.subject {
            Subject::Topic(topic) => (NAMES.iter().position(|name| *name == topic.as_str()).unwrap(), 0..1),
            Subject::Pattern(pattern) => (NAMES.iter().position(|name| *name == pattern.as_str()).unwrap(), 0..HOMES),
        };
        assert!(self.known[name].is_dirty, "told without a change");
        let subscribers = self.subscriptions.keys().filter(|key| key.1 == name).count() as u64;
        assert_eq!((interest.forms, interest.subscribers), (self.forms(name), subscribers));
        self.known[name].is_dirty = misses.is_some_and(|home| homes.contains(&home));
        if self.known[name].is_dirty {
            self.hub.interest_told_again(interest.id);
        }
        for home in homes.filter(|home| misses != Some(*home)) {
            self.told[home].push_back((name, interest.version, self.moment));
        }
    }

    fn acknowledge(&mut self, home: usize) {
        let Some((name, version, moment)) = self.told[home].pop_front() else { return };
        if name < TOPICS {
            self.hub.acknowledge_interest(&topic(name), version);
            self.known[name].acknowledged = [moment; HOMES];
        } else {
            self.hub.acknowledge_pattern(home, &pattern(name), version);
            self.known[name].acknowledged[home] = moment;
        }
    }

    fn forms(&self, name: usize) -> Forms {
        let own = self.subscriptions.iter().filter(|(key, _)| key.1 == name);
        own.fold(Forms::NONE, |forms, (_, own)| forms.with(own.form))
    }

    fn in_force(&self, slot: u32) -> bool {
        self.subscriptions.iter().filter(|(key, _)| key.0 == slot).all(|((_, name), own)| {
            let known = &self.known[*name];
            known.acknowledged.iter().all(|told| *told > known.wanted_since[own.form as usize])
        })
    }

    fn compare(&mut self) {
        assert_eq!(self.hub.subscriptions(), self.subscriptions.len());
        assert_eq!((self.hub.open_fanouts(), self.hub.has_open_fanouts()), (self.open, self.open > 0));
        assert_eq!(self.hub.has_dirty_interest(), self.known.iter().any(|known| known.is_dirty));
        for (id, of) in &self.in_use {
            assert_eq!(self.hub.topic(*id).map(Topic::as_str), Some(NAMES[*of]), "a number in use is another topic's");
        }
        let is_quiet = self.open == 0;
        for slot in 0..SLOTS {
            let (in_force, is_known) = (self.hub.in_force(slot), self.in_force(slot));
            // What home workers know may still wait for the end of what is under way.
            assert!(in_force == is_known || (is_known && !is_quiet), "slot {slot}: {in_force}");
            for (_, own) in self.subscriptions.iter_mut().filter(|(key, _)| key.0 == slot) {
                own.is_ripe |= in_force || is_quiet;
            }
        }
        let expected: BTreeSet<u32> = self.awaiting.iter().copied().filter(|slot| self.hub.in_force(*slot)).collect();
        let confirmed: BTreeSet<u32> = std::iter::from_fn(|| self.hub.poll_confirmed()).collect();
        assert_eq!(confirmed, expected);
        self.awaiting.retain(|slot| !expected.contains(slot));
    }

    /// Whatever was going on, it comes to an end, and nothing stays.
    fn wind_up(mut self) {
        for _ in 0..10_000 {
            if self.open == 0 {
                break;
            }
            self.step(Op::Slice { max: 1 });
        }
        assert_eq!(self.open, 0, "the fan-outs come to no end");
        for slot in 0..SLOTS {
            self.step(Op::UnsubscribeAll { slot });
        }
        while self.hub.has_dirty_interest() {
            self.step(Op::Tell { misses: None });
        }
        assert_eq!(self.hub.poll_interest(), None);
        self.step(Op::Retire { in_use: false });
        assert_eq!((self.hub.retired(), self.hub.topics(), self.hub.patterns()), (0, 0, 0));
        assert!(self.hub.readings.is_empty());
    }
}

fn topic(name: usize) -> Topic {
    Topic::new(NAMES[name]).unwrap()
}

/// The home worker of a topic.
fn home(topic: usize) -> usize {
    topic % HOMES
}

/// Topics are patterns, too, which match themselves alone.
fn pattern(name: usize) -> Pattern {
    Pattern::parse(NAMES[name]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn patterns_and_topics_together_keep_the_promises(ops in prop::collection::vec(op(), 1..150)) {
        let mut world = World::new();
        for op in ops {
            world.step(op);
        }
        world.wind_up();
    }
}
