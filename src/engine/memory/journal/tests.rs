//! What waits for the store, against a store that does what it is told, or fails.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::class::{Class, Classes, History, Presence, SlowConsumer};
use crate::engine::memory::{Limits, TOPIC_LINGER};
use crate::engine::store::{Batch, Inbox, Kept, ports};
use crate::engine::{Append, Engine, Page, Read, Submission, Terms};
use crate::frame::{Kind, Payload, Since};
use crate::limits::TICK_MS;

const TICK_NS: u64 = TICK_MS * 1_000_000;
/// A moment, as the time of day and as the clock has it.
const WALL_MS: u64 = 1_000_000_000;
const NOW: Tick = Tick(1_000_000);

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn milliseconds(now: Tick) -> u64 {
    WALL_MS + u64::from(now.0 - NOW.0) * TICK_MS
}

/// An engine whose topics below `d/` are durable and keep `size` publications, and its store.
struct Desk {
    engine: MemoryEngine<u32>,
    inbox: Inbox,
    shelf: Shelf,
}

/// What a store has that has done what it was told, and what of failed batches it will do: what they would have taken away.
#[derive(Clone, Debug, Default)]
struct Shelf(BTreeMap<Topic, Life>, Vec<Change>);

#[derive(Clone, Debug)]
struct Life {
    epoch: Epoch,
    last: u64,
    lost: u64,
    kept: Vec<Record>,
}

impl Shelf {
    fn apply(&mut self, change: &Change) {
        let begin = |epoch| Life { epoch, last: 0, lost: 0, kept: Vec::new() };
        match change {
            Change::Begin { topic, epoch } => drop(self.0.insert(topic.clone(), begin(*epoch))),
            Change::Put(record) => {
                let Position { epoch, offset } = record.publication.position;
                let life = self.0.entry(record.publication.topic.clone()).or_insert_with(|| begin(epoch));
                if life.epoch != epoch {
                    *life = begin(epoch);
                }
                assert_eq!(offset, life.last + 1, "numbers have no holes");
                life.last = offset;
                life.kept.push(record.clone());
            }
            Change::Trim { topic, epoch, first, lost } => {
                if let Some(life) = self.0.get_mut(topic).filter(|life| life.epoch == *epoch) {
                    life.kept.retain(|record| record.publication.position.offset >= *first);
                    life.lost = *lost;
                }
            }
            Change::End { topic, epoch } => {
                if self.0.get(topic).is_some_and(|life| life.epoch == *epoch) {
                    self.0.remove(topic);
                }
            }
        }
    }

    fn remember(&mut self, failed: &[Batch]) {
        let takes_away = |change: &&Change| matches!(change, Change::Trim { .. } | Change::End { .. });
        self.1.extend(failed.iter().flat_map(|batch| &batch.changes).filter(takes_away).cloned());
    }

    fn read(&self) -> Vec<Stored> {
        let kept = |record: &Record| Kept {
            offset: record.publication.position.offset,
            at_ms: record.publication.at_ms,
            payload: Payload::new(record.publication.payload().kind(), record.publication.payload().as_bytes()).unwrap(),
            until_ms: record.until_ms,
            key: record.key.clone(),
        };
        let stored = |(topic, life): (&Topic, &Life)| Stored {
            topic: topic.clone(),
            epoch: life.epoch,
            last: life.last,
            lost: life.lost,
            kept: life.kept.iter().map(kept).collect(),
        };
        self.0.iter().map(stored).collect()
    }
}

fn engine(size: u32, port: Port) -> MemoryEngine<u32> {
    let history = History { size, bytes: u64::MAX, ttl: std::time::Duration::from_millis(5000 * TICK_MS) };
    let (slow_consumer, presence) = (SlowConsumer::Disconnect, Presence::Off);
    let class = |durable| Class { history, slow_consumer, presence, presence_names: false, durable };
    let classes = Classes::new(vec![("d/*".parse().unwrap(), class(true))], class(false));
    let keys_ttl = std::time::Duration::from_millis(9000 * TICK_MS);
    let limits = Limits { topics_max: 99, history_bytes_max: u64::MAX, keys_max: 99, keys_ttl };
    let mut engine = MemoryEngine::new(limits, Arc::new(classes), fastrand::u64(..));
    engine.attach(port, 64, 99);
    engine
}

impl Desk {
    fn new(size: u32) -> Self {
        let (mut ports, inbox) = ports(1, |_| {});
        Self { engine: engine(size, ports.remove(0)), inbox, shelf: Shelf::default() }
    }

    /// Another engine goes on from what the store has.
    fn restart(&mut self, size: u32, now: Tick) {
        let (mut ports, inbox) = ports(1, |_| {});
        self.engine = engine(size, ports.remove(0));
        self.inbox = inbox;
        self.shelf.1.clear();
        assert_eq!(self.engine.restore(self.shelf.read(), u64::from(now.0) * TICK_NS, milliseconds(now)), 0);
    }

    fn append(&mut self, request: u32, name: &str, terms: Terms, now: Tick) {
        let payload = Payload::new(Kind::Text, format!("{request:08}").as_bytes()).unwrap();
        let submission = Submission { topic: topic(name), payload, terms: Some(Box::new(terms)) };
        let numbered_ns = u64::from(now.0) * TICK_NS;
        self.engine.append(Append { request, submission, at_ms: milliseconds(now), numbered_ns, forms: Forms::NONE });
    }

    /// What the store gets.
    fn take(&mut self) -> Vec<Batch> {
        self.engine.submit();
        let group = self.inbox.wait(Some(std::time::Duration::ZERO)).unwrap();
        let missed = self.inbox.missed();
        self.shelf.remember(&missed);
        group
    }

    fn fail(&mut self, group: &[Batch]) {
        self.shelf.remember(group);
        self.inbox.failed(group);
    }

    fn store(&mut self, group: &[Batch]) {
        std::mem::take(&mut self.shelf.1).iter().for_each(|change| self.shelf.apply(change));
        group.iter().flat_map(|batch| &batch.changes).for_each(|change| self.shelf.apply(change));
        self.inbox.stored(group);
    }

    /// All that has come back.
    fn events(&mut self, now: Tick) -> Vec<String> {
        self.engine.receive();
        while self.engine.ready().is_some() {
            self.engine.finish(now);
        }
        let told = |event| match event {
            EngineEvent::Appended { request, result: Ok(Appended { position, is_repeated }) } => {
                format!("{request} is {}{}", position.offset, if is_repeated { " again" } else { "" })
            }
            EngineEvent::Appended { request, result: Err(error) } => format!("{request} not: {error}"),
            EngineEvent::Published { publication } => format!("{} {}", publication.topic, publication.position.offset),
            EngineEvent::Deleted { request, result: Ok(_) } => format!("{request} deleted"),
            EngineEvent::Deleted { request, result: Err(error) } => format!("{request} not: {error}"),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| self.engine.poll()).map(told).collect()
    }

    /// Hands over, has it stored, and hears of it.
    fn settle(&mut self, now: Tick) -> Vec<String> {
        let group = self.take();
        self.store(&group);
        self.events(now)
    }

    fn page(&mut self, name: &str, now: Tick) -> Page {
        let (topic, now_ns) = (topic(name), u64::from(now.0) * TICK_NS);
        self.engine.read(Read { request: 0, topic, since: Since::Earliest, bytes_max: usize::MAX, now_ns });
        match self.engine.poll() {
            Some(EngineEvent::Read { result: Ok(page), .. }) => page,
            other => panic!("{other:?}"),
        }
    }

    fn kept(&mut self, name: &str, now: Tick) -> Vec<u64> {
        self.page(name, now).publications.iter().map(|publication| publication.position.offset).collect()
    }
}

fn key(text: &str) -> Terms {
    Terms { key: Some(text.parse().unwrap()), ttl: None }
}

const NOT: &str = "not: the store of durable topics cannot write; nothing was published";

#[test]
fn nothing_is_seen_before_it_is_on_the_disk() {
    let mut desk = Desk::new(9);
    desk.append(1, "d/a", Terms::default(), NOW);
    desk.append(2, "other", Terms::default(), NOW);
    desk.append(3, "d/a", Terms::default(), NOW);
    assert_eq!(desk.events(NOW), ["2 is 1", "other 1"], "who needs no disk does not wait");
    assert_eq!((desk.engine.extent("d/a").unwrap().last, desk.kept("d/a", NOW)), (0, vec![]));
    let group = desk.take();
    assert_eq!((desk.events(NOW), desk.kept("d/a", NOW)), (vec![], vec![]));
    desk.append(4, "d/a", Terms::default(), NOW);
    desk.store(&group);
    assert_eq!(desk.events(NOW), ["1 is 1", "d/a 1", "3 is 2", "d/a 2"]);
    assert_eq!(desk.kept("d/a", NOW), [1, 2]);
    assert_eq!(desk.settle(NOW), ["4 is 3", "d/a 3"]);
}

#[test]
fn what_failed_is_refused_and_its_numbers_are_given_again() {
    let mut desk = Desk::new(9);
    desk.append(1, "d/a", Terms::default(), NOW);
    let stored = desk.take();
    desk.append(2, "d/a", key("k"), NOW);
    desk.append(3, "d/b", Terms::default(), NOW);
    let failed = desk.take();
    desk.append(4, "d/a", Terms::default(), NOW);
    let behind = desk.take();
    desk.store(&stored);
    desk.fail(&failed);
    assert_eq!(behind.len(), 1);
    assert_eq!(
        desk.events(NOW),
        ["2", "3", "4"]
            .map(|request| format!("{request} {NOT}"))
            .into_iter()
            .chain(["1 is 1", "d/a 1"].map(str::to_owned))
            .collect::<Vec<_>>()
    );
    desk.append(2, "d/a", key("k"), NOW);
    desk.append(5, "d/b", Terms::default(), NOW);
    assert_eq!(desk.settle(NOW), ["2 is 2", "d/a 2", "5 is 1", "d/b 1"], "nobody has heard of the numbers, nor of the key");
}

#[test]
fn a_store_that_takes_nothing_or_is_behind_is_no_use_to_wait_for() {
    let mut desk = Desk::new(9);
    for request in 0..9 {
        desk.append(request, "d/a", Terms::default(), NOW);
    }
    assert_eq!(desk.events(NOW), ["8 not: as much waits for the disk as may"]);
    desk.append(9, "other", Terms::default(), NOW);
    assert_eq!(desk.events(NOW).len(), 2);
    assert_eq!(desk.settle(NOW).len(), 16);
    desk.inbox.set_up(false);
    desk.append(10, "d/a", Terms::default(), NOW);
    desk.engine.delete(11, topic("d/a"));
    assert_eq!(desk.events(NOW), [format!("10 {NOT}"), format!("11 {NOT}")]);
    desk.inbox.set_up(true);
    desk.append(12, "d/a", Terms::default(), NOW);
    assert_eq!(desk.settle(NOW), ["12 is 9", "d/a 9"]);
}

#[test]
fn a_key_that_came_before_is_answered_behind_what_came_under_it() {
    let mut desk = Desk::new(9);
    desk.append(1, "d/a", key("k"), NOW);
    desk.append(1, "d/a", key("k"), NOW);
    assert_eq!(desk.events(NOW), [""; 0]);
    assert_eq!(desk.settle(NOW), ["1 is 1", "d/a 1", "1 is 1 again"]);
    desk.append(1, "d/a", key("k"), NOW);
    assert_eq!(desk.events(NOW), ["1 is 1 again"]);
    desk.append(2, "d/a", key("l"), NOW);
    let group = desk.take();
    desk.append(2, "d/a", key("l"), NOW);
    assert!(desk.take().is_empty(), "it has nothing to be stored");
    desk.store(&group);
    assert_eq!(desk.events(NOW), ["2 is 2", "d/a 2", "2 is 2 again"]);
}

#[test]
fn what_waits_is_bounded_also_where_it_needs_no_room() {
    let mut desk = Desk::new(9);
    desk.append(1, "d/a", key("k"), NOW);
    for _ in 0..100 {
        desk.append(1, "d/a", key("k"), NOW);
    }
    desk.engine.delete(2, topic("d/a"));
    let busy = "not: as much waits for the disk as may";
    assert_eq!(desk.events(NOW), [format!("1 {busy}"), format!("1 {busy}"), format!("2 {busy}")]);
    assert_eq!(desk.settle(NOW).len(), 100, "with what was published");
}

#[test]
fn a_topic_whose_first_publication_failed_ends() {
    let mut desk = Desk::new(9);
    desk.append(1, "d/a", Terms::default(), NOW);
    let group = desk.take();
    desk.fail(&group);
    assert_eq!((desk.events(NOW), desk.engine.topics()), (vec![format!("1 {NOT}")], 1));
    desk.engine.expire(NOW.after(Tick::count(TOPIC_LINGER)));
    assert_eq!(desk.engine.topics(), 0);
}

#[test]
fn a_deletion_stands_in_the_row() {
    let mut desk = Desk::new(9);
    let before = desk.append_and_settle("d/a", 1);
    desk.engine.delete(2, topic("d/a"));
    desk.append(3, "d/a", Terms::default(), NOW);
    assert_eq!(desk.kept("d/a", NOW), [1]);
    let group = desk.take();
    desk.fail(&group);
    assert_eq!(desk.events(NOW), [format!("2 {NOT}"), format!("3 {NOT}")]);
    assert_eq!((desk.append_and_settle("d/a", 4), desk.kept("d/a", NOW)), (before, vec![1, 2]));
    desk.engine.delete(5, topic("d/a"));
    desk.append(6, "d/a", Terms::default(), NOW);
    assert_eq!(desk.settle(NOW), ["5 deleted", "6 is 1", "d/a 1"]);
    assert_ne!(desk.engine.extent("d/a").unwrap().epoch, before);
    assert_eq!(desk.shelf.0[&topic("d/a")].kept.len(), 1);
}

impl Desk {
    fn append_and_settle(&mut self, name: &str, request: u32) -> Epoch {
        self.append(request, name, Terms::default(), NOW);
        self.settle(NOW);
        self.engine.extent(name).unwrap().epoch
    }
}

#[test]
fn the_store_keeps_what_the_engine_keeps() {
    let mut desk = Desk::new(2);
    for request in 1..=4 {
        desk.append(request, "d/a", Terms::default(), NOW);
    }
    desk.settle(NOW);
    desk.settle(NOW);
    let life = &desk.shelf.0[&topic("d/a")];
    let offsets: Vec<_> = life.kept.iter().map(|record| record.publication.position.offset).collect();
    assert_eq!((offsets, life.lost), (vec![3, 4], 2));
    let old = NOW.after(5001);
    desk.engine.expire(old);
    desk.settle(old);
    let life = &desk.shelf.0[&topic("d/a")];
    assert_eq!((life.kept.len(), life.last), (0, 4), "its numbers go on");
    let end = old.after(Tick::count(TOPIC_LINGER));
    desk.engine.expire(end);
    desk.settle(end);
    assert!(desk.shelf.0.is_empty());
}

#[test]
fn a_topic_goes_on_after_a_restart() {
    let mut desk = Desk::new(9);
    desk.engine.set_interest(&topic("d/quiet"), true, NOW).unwrap();
    let quiet = desk.engine.extent("d/quiet").unwrap().epoch;
    desk.append(1, "d/a", key("k"), NOW);
    let later = NOW.after(3000);
    desk.append(2, "d/a", Terms { ttl: Some(std::time::Duration::from_millis(900 * TICK_MS)), key: None }, later);
    desk.append(3, "d/a", Terms::default(), later);
    desk.settle(later);
    let epoch = desk.engine.extent("d/a").unwrap().epoch;
    let restarted = later.after(1000);
    desk.restart(9, restarted);
    assert_eq!(desk.kept("d/a", restarted), [1, 3], "one had its time, by its publisher's word");
    assert_eq!(desk.engine.extent("d/a").map(|extent| (extent.epoch, extent.last)), Some((epoch, 3)));
    assert_eq!(desk.engine.extent("d/quiet").unwrap().epoch, quiet);
    desk.append(1, "d/a", key("k"), restarted);
    assert_eq!(desk.events(restarted), ["1 is 1 again"]);
    desk.engine.expire(NOW.after(5002));
    assert_eq!(desk.kept("d/a", restarted), [3], "as old as it was when it was numbered");
    assert_eq!(desk.append_and_settle("d/a", 4), epoch);
    assert_eq!(desk.engine.extent("d/a").unwrap().last, 4);
}

#[derive(Clone, Debug)]
enum Op {
    Append { name: usize, key: Option<u8> },
    Delete { name: usize },
    Submit,
    Store { groups: usize },
    Fail,
    Hear,
    Pass { ticks: u32 },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..3_usize, prop::option::of(0..4_u8)).prop_map(|(name, key)| Op::Append { name, key }),
        1 => (0..3_usize).prop_map(|name| Op::Delete { name }),
        8 => Just(Op::Submit),
        6 => (1..3_usize).prop_map(|groups| Op::Store { groups }),
        1 => Just(Op::Fail),
        6 => Just(Op::Hear),
        2 => (1..4000_u32).prop_map(|ticks| Op::Pass { ticks }),
        1 => Just(Op::Restart),
    ]
}

proptest! {
    /// Whatever comes in between: who was told a number finds it on the disk, and after a restart; who was refused does not; and when all is
    /// settled the store has what the engine has.
    #[test]
    fn what_is_answered_is_on_the_disk(ops in prop::collection::vec(op(), 1..200)) {
        let names = ["d/a", "d/b", "d/c"];
        let (mut desk, mut now, mut request) = (Desk::new(4), NOW, 0);
        let mut groups: VecDeque<Vec<Batch>> = VecDeque::new();
        for op in ops {
            match op {
                Op::Append { name, key } => {
                    request += 1;
                    // Half of those that have a key are the same publication again.
                    let (number, terms) = match key {
                        Some(text) => (u32::from(text), self::key(&format!("k{text}"))),
                        None => (100 + request, Terms::default()),
                    };
                    desk.append(number, names[name], terms, now);
                }
                Op::Delete { name } => desk.engine.delete(1, topic(names[name])),
                Op::Submit => groups.extend(Some(desk.take()).filter(|group| !group.is_empty())),
                Op::Store { groups: count } => {
                    for group in groups.drain(..count.min(groups.len())).collect::<Vec<_>>() {
                        desk.store(&group);
                    }
                }
                Op::Fail => {
                    // All that was handed over fails together.
                    let failed: Vec<Batch> = groups.drain(..).flatten().collect();
                    desk.fail(&failed);
                }
                Op::Hear => drop(desk.events(now)),
                Op::Pass { ticks } => {
                    now = now.after(ticks);
                    desk.events(now);
                    desk.engine.expire(now);
                }
                Op::Restart => {
                    groups.clear();
                    desk.restart(4, now);
                }
            }
            for name in names {
                let Some(extent) = desk.engine.extent(name) else { continue };
                let Some(life) = desk.shelf.0.get(&topic(name)) else {
                    prop_assert_eq!(extent.last, 0);
                    continue;
                };
                prop_assert!(life.epoch != extent.epoch || life.last >= extent.last, "the disk is ahead of what is seen");
            }
        }
        for group in groups.drain(..).collect::<Vec<_>>() {
            desk.store(&group);
        }
        for _ in 0..3 {
            desk.settle(now);
        }
        let journal = desk.engine.journal.as_ref().unwrap();
        prop_assert!(journal.bytes == 0 && journal.waiting.is_empty());
        for name in names {
            desk.engine.expire(now);
            desk.settle(now);
            let stored = desk.shelf.0.get(&topic(name)).map(|life| (life.epoch, life.last, life.lost, life.kept.iter().map(|record| record.publication.position.offset).collect::<Vec<_>>()));
            if let Some(extent) = desk.engine.extent(name).filter(|extent| extent.last > 0) {
                let page = desk.page(name, now);
                let offsets = page.publications.iter().map(|publication| publication.position.offset).collect::<Vec<_>>();
                prop_assert_eq!(stored, Some((extent.epoch, extent.last, page.lost, offsets)));
            }
        }
    }
}
