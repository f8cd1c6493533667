//! Lives of topics, what is kept of them, and the bounds of both.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::class::{Class, History, Presence, SlowConsumer};
use crate::engine::Terms;
use crate::frame::{Form, Forms, Kind, Payload, Since};
use crate::limits::TICK_MS;

pub(super) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

/// An engine that keeps nothing.
pub(super) fn engine(topics_max: usize) -> MemoryEngine<u32> {
    keeping(topics_max, 0, Tick(0))
}

/// An engine that keeps this many publications of each topic, for this long.
pub(super) fn keeping(topics_max: usize, size: u32, age: Tick) -> MemoryEngine<u32> {
    let history = History { size, bytes: u64::MAX, ttl: Duration::from_millis(u64::from(age.0) * TICK_MS) };
    let class = Class {
        history,
        slow_consumer: SlowConsumer::Disconnect,
        presence: Presence::Off,
        presence_names: false,
        durable: false,
    };
    let limits = Limits { topics_max, history_bytes_max: u64::MAX, keys_max: 2, keys_ttl: Duration::from_millis(50 * TICK_MS) };
    MemoryEngine::new(limits, Arc::new(Classes::new(Vec::new(), class)), 1)
}

pub(super) fn append(engine: &mut MemoryEngine<u32>, request: u32, name: &str, now: Tick) -> Result<Position, AppendError> {
    append_with(engine, request, name, now, Terms::default())
}

fn append_with(
    engine: &mut MemoryEngine<u32>,
    request: u32,
    name: &str,
    now: Tick,
    terms: Terms,
) -> Result<Position, AppendError> {
    let payload = Payload::new(Kind::Text, b"hello").unwrap();
    let numbered_ns = u64::from(now.0) * TICK_MS * 1_000_000;
    let forms = Forms::NONE.with(Form::WsEnvelope);
    let submission = Submission { topic: topic(name), payload, terms: Some(Box::new(terms)) };
    engine.append(Append { request, submission, at_ms: 5, numbered_ns, forms });
    let Some(EngineEvent::Appended { request: answered, result }) = engine.poll() else { panic!("no answer") };
    assert_eq!(answered, request);
    if let Ok(Appended { position, is_repeated: false }) = result {
        let Some(EngineEvent::Published { publication }) = engine.poll() else { panic!("not published") };
        assert_eq!((publication.topic.as_str(), publication.position), (name, position));
        assert!(publication.form(Form::WsEnvelope).is_some());
    }
    assert!(engine.poll().is_none());
    result.map(|appended| appended.position)
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
    engine.limits.history_bytes_max = 6 * one;
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
fn the_oldest_is_found_though_the_index_knows_only_what_was_the_oldest_before() {
    // Each topic keeps two, so its oldest changes with each publication, and the index is not asked meanwhile.
    let (mut engine, mut random) = (keeping(20, 2, Tick(100_000)), fastrand::Rng::with_seed(1));
    let mut published: Vec<(usize, u64)> = Vec::new();
    let mut last = [0; 10];
    let mut publish = |engine: &mut MemoryEngine<u32>, published: &mut Vec<(usize, u64)>| {
        let topic = random.usize(0..10);
        last[topic] += 1;
        append(engine, 0, &format!("t{topic}"), Tick(published.len() as u32)).unwrap();
        published.push((topic, last[topic]));
    };
    (0..100).for_each(|_| publish(&mut engine, &mut published));
    let one = engine.history_bytes() / 20;
    // Room for twelve; cursors differ in length.
    engine.limits.history_bytes_max = 12 * one + one / 2;
    for _ in 0..100 {
        publish(&mut engine, &mut published);
        // What the classes alone would keep, the newest twelve of it.
        let class_keeps = |&(topic, offset): &(usize, u64)| offset + 2 > last_of(&published, topic);
        let mut expected: Vec<_> = published.iter().filter(|one| class_keeps(one)).copied().collect();
        expected.drain(..expected.len() - 12);
        let mut kept: Vec<_> = (0..10)
            .flat_map(|topic| kept(&mut engine, &format!("t{topic}"), Tick(0)).into_iter().map(move |offset| (topic, offset)))
            .collect();
        expected.sort_unstable();
        kept.sort_unstable();
        assert_eq!(kept, expected);
    }
}

fn last_of(published: &[(usize, u64)], topic: usize) -> u64 {
    published.iter().filter(|one| one.0 == topic).count() as u64
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
    engine.limits.history_bytes_max = 0;
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
fn a_publishers_time_holds_within_the_classs() {
    let mut engine = keeping(9, 9, Tick(100));
    let terms = |ticks: u64| Terms { ttl: Some(Duration::from_millis(ticks * TICK_MS)), key: None };
    for ticks in [0, 10, 50, 1000] {
        append_with(&mut engine, 0, "chat", Tick(0), terms(ticks)).unwrap();
    }
    append(&mut engine, 0, "chat", Tick(0)).unwrap();
    assert_eq!(kept(&mut engine, "chat", Tick(9)), [2, 3, 4, 5]);
    assert_eq!(kept(&mut engine, "chat", Tick(10)), [3, 4, 5], "over at once, whenever it is cleared away");
    let mut dues = Vec::new();
    while engine.history_bytes() > 0 {
        let due = engine.poll_timeout().unwrap();
        dues.push((due, kept(&mut engine, "chat", Tick(due.0 - 1)).len()));
        engine.expire(due);
    }
    assert_eq!(dues, [(Tick(11), 3), (Tick(51), 2), (Tick(101), 2)]);
    assert_eq!(engine.extent("chat").map(|extent| (extent.first, extent.last)), Some((6, 5)));
}

#[test]
fn what_comes_again_under_its_key_is_not_published_again() {
    let mut engine = keeping(1, 9, Tick(10));
    let keyed = |key: &str| Terms { key: Some(key.parse().unwrap()), ttl: None };
    let first = append_with(&mut engine, 0, "a", Tick(0), keyed("k")).unwrap();
    let full = Err(AppendError::TooManyTopics { topics_max: 1 });
    assert_eq!(append_with(&mut engine, 1, "b", Tick(0), keyed("k")), full);
    assert_eq!(append_with(&mut engine, 2, "a", Tick(1), keyed("k")), Ok(first));
    assert_eq!(engine.extent("a").unwrap().last, 1);
    // The history is over sooner.
    engine.expire(Tick(40));
    assert_eq!(append_with(&mut engine, 3, "a", Tick(50), keyed("k")), Ok(first));
    assert_eq!(engine.poll_timeout(), Some(Tick(51)));
    engine.expire(Tick(51));
    assert_eq!(append_with(&mut engine, 4, "a", Tick(51), keyed("k")).unwrap().offset, 2);
    engine.expire(Tick(9000));
    engine.expire(Tick(9000));
    assert_eq!((engine.topics(), engine.poll_timeout()), (0, None));
    assert_eq!(
        append_with(&mut engine, 5, "b", Tick(9000), keyed("k")).unwrap().offset,
        1,
        "what was refused was not remembered"
    );
}

#[test]
fn a_deleted_topic_begins_another_life_and_gives_its_history_back() {
    let mut engine = keeping(9, 10_000, Tick(5000));
    let delete = |engine: &mut MemoryEngine<u32>, name| {
        engine.delete(7, topic(name));
        let Some(EngineEvent::Deleted { request: 7, result: Ok(epoch) }) = engine.poll() else { panic!("not deleted") };
        assert!(engine.poll().is_none());
        epoch
    };
    assert_eq!((delete(&mut engine, "chat"), engine.topics()), (None, 0), "what does not live is not made to");
    engine.set_interest(&topic("chat"), true, Tick(0)).unwrap();
    for _ in 0..3000 {
        append(&mut engine, 0, "chat", Tick(0)).unwrap();
    }
    let known = append(&mut engine, 0, "chat", Tick(0)).unwrap();
    let epoch = delete(&mut engine, "chat").unwrap();
    assert_ne!(epoch, known.epoch);
    assert_eq!(engine.extent("chat"), Some(Extent { epoch, first: 1, last: 0 }));
    assert_eq!((engine.history_bytes(), engine.kept.oldest.len()), (0, 0));
    assert_eq!(append(&mut engine, 0, "chat", Tick(1)), Ok(Position { epoch, offset: 1 }));
    engine.read(Read { request: 7, topic: topic("chat"), since: Since::After(known), bytes_max: usize::MAX, now_ns: 0 });
    let Some(EngineEvent::Read { result: Ok(page), .. }) = engine.poll() else { panic!("no page") };
    let gap = page.gap.unwrap();
    assert_eq!((gap.from, gap.to, gap.reason.name()), (known, Position { epoch, offset: 0 }, "epoch"));
    assert_eq!(page.gap_behind(known).map(|gap| gap.reason.name()), Some("epoch"));
    assert_eq!(page.publications.len(), 1);
    let mut calls = 0;
    while engine.poll_timeout() == Some(Tick(0)) {
        engine.expire(Tick(1));
        calls += 1;
    }
    assert_eq!((calls, engine.discarded.len(), kept(&mut engine, "chat", Tick(1))), (3, 0, vec![1]));
}

#[test]
fn a_key_is_not_used_for_something_else() {
    let mut engine = keeping(1, 9, Tick(10));
    let terms = Terms { key: Some("k".parse().unwrap()), ttl: None };
    append_with(&mut engine, 0, "a", Tick(0), terms.clone()).unwrap();
    let payload = Payload::new(Kind::Text, b"another").unwrap();
    let submission = Submission { topic: topic("a"), payload, terms: Some(Box::new(terms)) };
    engine.append(Append { request: 1, submission, at_ms: 5, numbered_ns: 0, forms: Forms::NONE });
    let Some(EngineEvent::Appended { request: 1, result: Err(error) }) = engine.poll() else { panic!("no refusal") };
    assert_eq!((error, error.status(), engine.extent("a").unwrap().last), (AppendError::KeyReused, 422, 1));
    assert!(engine.poll().is_none());
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
    Delete(usize),
    SetInterest(usize, bool),
    Pass(u32),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..3usize).prop_map(Op::Append),
        (0..3usize).prop_map(Op::Delete),
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
                Op::Delete(index) => {
                    engine.delete(0, topic(names[index]));
                    let Some(EngineEvent::Deleted { result: Ok(epoch), .. }) = engine.poll() else { panic!("not deleted") };
                    prop_assert_eq!(epoch.is_some(), table.contains_key(&index));
                    if let Some(plain) = table.get_mut(&index) {
                        plain.last = 0;
                        lives[index] += 1;
                    }
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
