//! The table against a plain one, by seed; and what must hold in single cases.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;
use crate::class::Presence;
use crate::frame::Topic;
use crate::limits::Tick;
use crate::metrics::Cause;

const GRACE: u32 = 100;
const INTERVAL: u32 = 10;
const OPTIONS: Options = Options { grace: GRACE, interval: INTERVAL, listed_max: 5, graced_max: 20 };

/// A table with one topic that worker 0 watches, and what a watcher knows of it.
struct Bench {
    table: Table,
    topic: Topic,
    presence: Presence,
    now: Tick,
    ticket: u64,
    listed: BTreeMap<String, Value>,
    count: u64,
    /// Objects since they were taken last.
    told: Vec<Value>,
}

impl Bench {
    fn new(presence: Presence, options: Options) -> Self {
        let topic = Topic::new("chat").unwrap();
        let mut table = Table::new(options);
        table.set_watched(&topic, presence, 0, true);
        Self { table, topic, presence, now: Tick(1000), ticket: 0, listed: BTreeMap::new(), count: 0, told: Vec::new() }
    }

    fn change(&mut self, member: u64, more: i32, joined: Option<u64>, cause: Option<Cause>) {
        let change = Change { member: Member::numbered(member), name: None, more, joined, cause };
        self.table.change(&self.topic, self.presence, change, self.now);
    }

    fn join(&mut self, member: u64) {
        self.ticket += 1;
        self.change(member, 1, Some(self.ticket), None);
    }

    fn leave(&mut self, member: u64, cause: Cause) {
        self.change(member, -1, None, Some(cause));
    }

    fn goodbye(&mut self, member: u64) {
        self.ticket += 1;
        self.table.goodbye(Member::numbered(member), self.ticket, self.now);
    }

    /// Lets time pass, a tick at a time.
    fn pass(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.now = Tick(self.now.0 + 1);
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.table.handle_timeout(self.now, usize::MAX);
        while let Some(room) = self.table.next_due(self.now) {
            for object in self.table.tell(room, self.now).into_iter().flat_map(|told| told.objects) {
                let object: Value = serde_json::from_slice(&object).unwrap();
                self.hear(&object);
                self.told.push(object);
            }
        }
        self.table.check();
    }

    fn hear(&mut self, object: &Value) {
        assert_eq!((&object["type"], &object["topic"]), (&"presence".into(), &"chat".into()));
        let member = object["member"].as_str().map(str::to_owned);
        match object["event"].as_str().unwrap() {
            "join" => {
                assert!(self.listed.insert(member.unwrap(), Value::Null).is_none(), "joins once: {object}");
                self.count += 1;
            }
            "leave" => {
                assert!(self.listed.remove(&member.unwrap()).is_some(), "only who is there leaves: {object}");
                self.count -= 1;
            }
            "count" => self.count = object["count"].as_u64().unwrap(),
            "list" => {
                let members = object["members"].as_array().unwrap();
                self.listed = members.iter().map(|member| (member["member"].as_str().unwrap().to_owned(), Value::Null)).collect();
                self.count = object["count"].as_u64().unwrap();
            }
            other => panic!("{other}"),
        }
    }

    fn events(&mut self) -> Vec<String> {
        let told = std::mem::take(&mut self.told);
        told.iter()
            .map(|object| format!("{} {}", object["event"].as_str().unwrap(), object["cause"].as_str().unwrap_or("-")))
            .collect()
    }

    fn state(&mut self) -> Value {
        serde_json::to_value(&*self.table.state(&self.topic, self.presence)).unwrap()
    }
}

/// What presence means, without any haste.
#[derive(Default)]
struct Plain {
    connections: BTreeMap<u64, u32>,
    graced: BTreeMap<u64, (u32, Cause)>,
    said_goodbye: BTreeMap<u64, bool>,
    last_cause: BTreeMap<String, Cause>,
}

impl Plain {
    fn gone(&mut self, member: u64, cause: Cause) {
        self.graced.remove(&member);
        self.said_goodbye.remove(&member);
        self.last_cause.insert(Member::numbered(member).to_string(), cause);
    }

    fn lost(&mut self, member: u64, cause: Cause, now: u32) {
        self.connections.remove(&member);
        let cause = if self.said_goodbye.remove(&member).is_some() { Cause::LeftPage } else { cause };
        if cause.ends_presence() {
            self.gone(member, cause);
        } else {
            self.graced.insert(member, (now + GRACE + 1, cause));
        }
    }

    /// One tick passes. Whoever is told to have left has left for the reason that is told.
    fn pass(&mut self, bench: &mut Bench) {
        let now = bench.now.0 + 1;
        let over: Vec<_> = self.graced.iter().filter(|(_, (due, _))| *due <= now).map(|(member, of)| (*member, of.1)).collect();
        for (member, cause) in over {
            self.gone(member, cause);
        }
        bench.pass(1);
        for left in bench.told.drain(..).filter(|object| object["event"] == "leave") {
            let cause = self.last_cause[left["member"].as_str().unwrap()];
            assert_eq!((&left["cause"], &left["orderly"]), (&cause.name().into(), &cause.is_orderly().into()), "{left}");
        }
    }
}

#[test]
fn the_table_agrees_with_a_plain_one() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let presence = if random.bool() { Presence::List } else { Presence::Count };
        let (mut bench, mut plain) = (Bench::new(presence, OPTIONS), Plain::default());
        println!("seed {seed}");
        for _ in 0..200 {
            let member = random.u64(0..8);
            match random.u8(0..6) {
                0 | 1 => {
                    bench.join(member);
                    *plain.connections.entry(member).or_default() += 1;
                    plain.graced.remove(&member);
                    plain.said_goodbye.remove(&member);
                }
                2 | 3 => {
                    let Some(connections) = plain.connections.get_mut(&member) else { continue };
                    *connections -= 1;
                    let cause = Cause::ALL[random.usize(0..Cause::ALL.len())];
                    bench.leave(member, cause);
                    if *connections == 0 {
                        plain.lost(member, cause, bench.now.0);
                    }
                }
                4 => {
                    bench.goodbye(member);
                    if plain.graced.contains_key(&member) {
                        plain.gone(member, Cause::LeftPage);
                    } else if plain.connections.contains_key(&member) {
                        plain.said_goodbye.insert(member, true);
                    }
                }
                _ => {
                    for _ in 0..random.u32(0..60) {
                        plain.pass(&mut bench);
                    }
                }
            }
            bench.table.check();
            assert_eq!(bench.table.members(), plain.connections.len() + plain.graced.len());
        }
        // Nothing happens for as long as an interval lasts: everybody knows everything.
        for _ in 0..=INTERVAL + 1 {
            plain.pass(&mut bench);
        }
        let there: Vec<String> =
            plain.connections.keys().chain(plain.graced.keys()).map(|member| Member::numbered(*member).to_string()).collect();
        assert_eq!(bench.count, there.len() as u64);
        if presence == Presence::List {
            assert_eq!(bench.listed.len(), there.len().min(OPTIONS.listed_max));
            assert!(bench.listed.keys().all(|member| there.contains(member)));
        }
        let state = bench.state();
        assert_eq!(state["count"], bench.count);
        assert_eq!(state["members"].as_array().map(Vec::len), (presence == Presence::List).then_some(bench.listed.len()));
    }
}

#[test]
fn who_comes_back_within_the_grace_never_left() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    bench.join(1);
    bench.turn();
    assert_eq!(bench.events(), ["join -"]);
    bench.leave(1, Cause::Reset);
    bench.pass(GRACE);
    bench.join(1);
    bench.pass(3 * GRACE);
    assert!(bench.events().is_empty());
    bench.leave(1, Cause::NoPong);
    bench.pass(GRACE + 2);
    assert_eq!(bench.events(), ["leave no_pong"]);
}

#[test]
fn who_comes_and_is_lost_at_once_has_been_there() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    bench.change(1, 0, Some(1), Some(Cause::Gap));
    bench.change(2, 0, Some(2), Some(Cause::ClientClose));
    bench.pass(GRACE);
    assert_eq!(bench.events(), ["join -"], "but not who left in order");
    bench.change(1, 0, Some(3), Some(Cause::TooBig));
    bench.pass(GRACE);
    bench.pass(INTERVAL + 2);
    assert_eq!(bench.events(), ["leave too_big"], "and comes back with it");
}

#[test]
fn who_leaves_in_order_or_must_not_return_is_gone_at_once() {
    for cause in Cause::ALL {
        let mut bench = Bench::new(Presence::List, OPTIONS);
        bench.join(1);
        bench.turn();
        bench.leave(1, cause);
        bench.pass(INTERVAL + 1);
        let is_gone = bench.listed.is_empty();
        let at_once = [Cause::ClientClose, Cause::LeftPage, Cause::Unsubscribed, Cause::Forbidden].contains(&cause);
        assert_eq!(is_gone, at_once, "{cause:?}");
    }
}

#[test]
fn a_goodbye_overtakes_a_loss_and_is_overtaken_by_a_return() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    bench.join(1);
    bench.turn();
    bench.leave(1, Cause::Reset);
    bench.goodbye(1);
    bench.pass(INTERVAL + 1);
    assert_eq!(bench.events(), ["join -", "leave left_page"]);
    // The loss is on its way when the goodbye comes.
    bench.join(1);
    bench.pass(INTERVAL + 1);
    bench.goodbye(1);
    bench.leave(1, Cause::Reset);
    bench.pass(INTERVAL + 1);
    assert_eq!(bench.events(), ["join -", "leave left_page"]);
    // The page is loaded again before its loss is known.
    bench.join(1);
    bench.pass(INTERVAL + 1);
    bench.goodbye(1);
    bench.join(1);
    bench.leave(1, Cause::Reset);
    bench.pass(3 * GRACE);
    assert_eq!(bench.events(), ["join -"]);
    bench.goodbye(2);
    // It has come back on another worker before the goodbye is heard of here, and that is lost.
    let late = bench.ticket;
    bench.join(1);
    bench.leave(1, Cause::Reset);
    bench.leave(1, Cause::Reset);
    bench.table.goodbye(Member::numbered(1), late, bench.now);
    bench.pass(3 * GRACE);
    assert_eq!(bench.events(), ["leave reset"]);
}

#[test]
fn a_crowd_that_comes_back_makes_no_event_and_one_that_is_lost_makes_few() {
    const CROWD: u64 = 10_000;
    for presence in [Presence::Count, Presence::List] {
        let mut bench = Bench::new(presence, Options { listed_max: 1000, graced_max: 100_000, ..OPTIONS });
        (0..CROWD).for_each(|member| bench.join(member));
        bench.pass(INTERVAL + 1);
        assert_eq!(bench.count, CROWD);
        bench.told.clear();
        (0..CROWD).for_each(|member| bench.leave(member, Cause::Reset));
        bench.pass(GRACE / 2);
        (0..CROWD).for_each(|member| bench.join(member));
        bench.pass(3 * GRACE);
        assert!(bench.told.is_empty());
        // This time they are lost one after the other, and nobody comes back.
        for member in 0..CROWD {
            bench.leave(member, Cause::Reset);
            if member % 100 == 99 {
                bench.pass(1);
            }
        }
        bench.pass(2 * GRACE);
        assert_eq!((bench.count, bench.listed.len()), (0, 0));
        assert!(bench.told.len() as u64 <= CROWD / 100 / u64::from(INTERVAL) + 2, "{}", bench.told.len());
    }
}

#[test]
fn very_many_changes_are_told_as_one_list() {
    let mut bench = Bench::new(Presence::List, Options { listed_max: 1000, ..OPTIONS });
    bench.join(0);
    bench.turn();
    for member in 1..500 {
        bench.join(member);
    }
    bench.pass(INTERVAL + 1);
    assert_eq!((bench.events(), bench.listed.len()), (vec!["join -".to_owned(), "list -".into()], 500));
    for member in 0..450 {
        bench.leave(member, Cause::ClientClose);
    }
    bench.pass(INTERVAL + 1);
    assert_eq!((bench.events(), bench.listed.len(), bench.count), (vec!["list -".to_owned()], 50, 50));
    let counts = bench.table.counts();
    assert_eq!(counts, Counts { joins: 1, leaves: 0, counts: 0, lists: 2 });
}

#[test]
fn who_finds_no_place_in_the_list_is_counted_and_moves_up() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    for member in 0..7 {
        bench.join(member);
    }
    bench.pass(INTERVAL + 1);
    assert_eq!((bench.listed.len(), bench.count), (5, 7));
    bench.leave(0, Cause::ClientClose);
    bench.pass(INTERVAL + 1);
    assert_eq!((bench.listed.len(), bench.count), (5, 6));
    assert!(bench.listed.contains_key(&Member::numbered(5).to_string()));
}

#[test]
fn too_many_in_grace_end_the_oldest() {
    let mut bench = Bench::new(Presence::List, Options { listed_max: 1000, ..OPTIONS });
    for member in 0..30 {
        bench.join(member);
    }
    bench.pass(INTERVAL + 1);
    for member in 0..30 {
        bench.leave(member, Cause::Reset);
    }
    bench.pass(INTERVAL + 1);
    assert_eq!(bench.count, 20);
}

#[test]
fn nothing_is_left_of_a_topic_that_nobody_cares_for() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    bench.join(1);
    bench.turn();
    bench.table.set_watched(&bench.topic, Presence::List, 0, false);
    bench.leave(1, Cause::Reset);
    bench.pass(3 * GRACE);
    assert!(bench.table.is_empty());
    assert_eq!(bench.state(), serde_json::json!({"count": 0, "members": []}));
    bench.table.set_watched(&bench.topic, Presence::List, 0, false);
    assert!(bench.table.is_empty());
}

#[test]
fn a_room_that_cannot_be_told_is_told_later() {
    let mut bench = Bench::new(Presence::List, OPTIONS);
    bench.join(1);
    let room = bench.table.next_due(bench.now).unwrap();
    assert_eq!(bench.table.watchers(room), [0]);
    bench.table.put_off(room, Tick(bench.now.0 + 2));
    bench.pass(1);
    assert!(bench.told.is_empty());
    bench.pass(1);
    assert_eq!(bench.events(), ["join -"]);
}
