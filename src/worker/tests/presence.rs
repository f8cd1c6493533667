//! Presence on several workers, in any order of turns: members come, are lost, come back, and watchers end up knowing who is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::each;
use super::cluster::{
    Cluster, WINDOW, events, field, frame, post_with, take_events, take_frames, take_head, upgrade, upgrade_to_session,
};
use super::simulation::take_any_answer;
use crate::Config;
use crate::config::TimeSpan;
use crate::hub::presence::ClientKey;
use crate::io::Token;
use crate::metrics::Source;
use crate::worker::Phase;
use crate::worker::asking::Waiter;
use crate::worker::letters::Asker;

/// How long the tests wait for everything to be told: the grace, and a few intervals.
pub(super) const LONG: Duration = Duration::from_millis(1500);

pub(super) fn config(rule: &str) -> Config {
    Config {
        topic_class: vec![rule.parse().unwrap()],
        presence_grace: TimeSpan(Duration::from_secs(1)),
        presence_interval: TimeSpan(Duration::from_millis(100)),
        ..Config::default()
    }
}

pub(super) fn key(number: u64) -> String {
    format!("key-of-client-{number:08}")
}

pub(super) fn member(number: u64) -> String {
    ClientKey::new(&key(number)).unwrap().member().to_string()
}

/// A member that does not watch.
fn enter(cluster: &mut Cluster, worker: usize, id: u64, number: u64) {
    cluster.connect(worker, id, WINDOW);
    cluster.write(id, &upgrade(&format!("/topics/chat?client-key={}", key(number))));
    cluster.settle();
    let mut head = cluster.read(id);
    assert_eq!(take_head(&mut head), Some(101));
}

/// A member that watches, with envelopes.
fn watch(cluster: &mut Cluster, worker: usize, id: u64, number: u64) {
    cluster.connect(worker, id, WINDOW);
    cluster.write(id, &upgrade(&format!("/topics/chat?presence&envelope&client-key={}", key(number))));
    cluster.settle();
}

/// What a watcher was told, its head left out.
fn told(cluster: &mut Cluster, id: u64) -> Vec<Value> {
    let mut bytes = Vec::new();
    for _ in 0..30 {
        cluster.settle();
        bytes.extend(cluster.read(id));
    }
    if bytes.starts_with(b"HTTP/") {
        assert_eq!(take_head(&mut bytes), Some(101));
    }
    let frames = take_frames(&mut bytes).into_iter().filter(|(opcode, _)| *opcode == 1);
    frames.map(|(_, payload)| serde_json::from_slice(&payload).unwrap()).collect()
}

fn leave(member: &str, cause: &str, orderly: bool) -> Value {
    json!({"type": "presence", "topic": "chat", "event": "leave", "member": member, "cause": cause, "orderly": orderly})
}

fn join(member: &str) -> Value {
    json!({"type": "presence", "topic": "chat", "event": "join", "member": member})
}

fn bye(cluster: &mut Cluster, worker: usize, id: u64, number: u64) {
    cluster.connect(worker, id, WINDOW);
    cluster.write(id, &post_with("/bye", "Content-Type: text/plain\r\n", &key(number)));
    cluster.settle();
    assert!(String::from_utf8_lossy(&cluster.read(id)).starts_with("HTTP/1.1 204 "));
}

#[test]
fn a_watcher_knows_who_is_there_and_then_who_comes_and_goes() {
    each(&config("chat;presence=list"), 3, |cluster| {
        enter(cluster, 0, 1, 1);
        cluster.pass(LONG);
        watch(cluster, 1, 2, 2);
        cluster.pass(LONG);
        let first = told(cluster, 2);
        assert_eq!(first[0]["event"], "list");
        assert!(first[0]["members"].as_array().unwrap().contains(&json!({"member": member(1)})), "{first:?}");
        enter(cluster, 2, 3, 3);
        cluster.pass(LONG);
        assert_eq!(told(cluster, 2), [join(&member(3))]);
        cluster.write(3, &frame(0x88, &1001_u16.to_be_bytes()));
        cluster.pass(Duration::from_millis(300));
        assert_eq!(told(cluster, 2), [leave(&member(3), "left_page", true)]);
        cluster.driver(1).reset(1);
        cluster.pass(Duration::from_millis(300));
        assert!(told(cluster, 2).is_empty(), "it may come back");
        cluster.pass(LONG);
        assert_eq!(told(cluster, 2), [leave(&member(1), "reset", false)]);
    });
}

#[test]
fn who_comes_back_to_any_worker_never_left() {
    each(&config("chat;presence=list"), 3, |cluster| {
        watch(cluster, 1, 2, 2);
        enter(cluster, 0, 1, 1);
        cluster.pass(LONG);
        told(cluster, 2);
        for (worker, id) in [(1, 11), (2, 12), (0, 13)] {
            let before = if id == 11 { 1 } else { id - 1 };
            cluster.driver(before).reset(before);
            cluster.pass(Duration::from_millis(700));
            enter(cluster, worker, id, 1);
            cluster.pass(LONG);
            assert!(told(cluster, 2).is_empty());
        }
        // The new connection may be there before the old one is known to be lost.
        enter(cluster, 1, 14, 1);
        cluster.driver(13).reset(13);
        cluster.pass(LONG);
        assert!(told(cluster, 2).is_empty());
    });
}

#[test]
fn a_crowd_is_counted_and_one_that_comes_back_is_silent() {
    each(&config("chat;presence=count"), 2, |cluster| {
        watch(cluster, 0, 99, 99);
        for number in 0..15 {
            enter(cluster, number as usize % 2, number, number);
        }
        cluster.pass(LONG);
        let counts = told(cluster, 99);
        assert!(counts.iter().all(|object| object["event"] == "count" && object.get("members").is_none()), "{counts:?}");
        assert_eq!(counts.last().unwrap()["count"], 16);
        for number in 0..15 {
            cluster.driver(number).reset(number);
        }
        cluster.pass(Duration::from_millis(500));
        for number in 0..15 {
            enter(cluster, number as usize % 2, number + 20, number);
        }
        cluster.pass(LONG);
        assert!(told(cluster, 99).is_empty());
        for number in 20..35 {
            cluster.driver(number).reset(number);
        }
        cluster.pass(LONG);
        let last = told(cluster, 99);
        assert_eq!(last.last().unwrap()["count"], 1);
        assert!(last.len() <= 3, "one loss is few events: {last:?}");
    });
}

#[test]
fn goodbye_ends_what_is_there_and_what_is_in_grace_and_nobody_else() {
    each(&config("chat;presence=list"), 3, |cluster| {
        watch(cluster, 1, 9, 9);
        for (worker, number) in [(0, 1), (2, 2), (1, 3)] {
            enter(cluster, worker, number, number);
        }
        cluster.pass(LONG);
        told(cluster, 9);
        bye(cluster, 2, 10, 1);
        cluster.pass(Duration::from_millis(300));
        assert_eq!(told(cluster, 9), [leave(&member(1), "left_page", true)]);
        // Its connection ends later, and nobody minds.
        cluster.driver(1).reset(1);
        cluster.driver(2).reset(2);
        cluster.pass(Duration::from_millis(300));
        bye(cluster, 0, 11, 2);
        cluster.pass(Duration::from_millis(300));
        assert_eq!(told(cluster, 9), [leave(&member(2), "left_page", true)]);
        bye(cluster, 0, 12, 4);
        cluster.pass(LONG);
        assert!(told(cluster, 9).is_empty());
        // A page that is loaded again has said goodbye before.
        bye(cluster, 0, 13, 3);
        enter(cluster, 2, 14, 3);
        cluster.driver(3).reset(3);
        cluster.pass(LONG);
        let objects = told(cluster, 9);
        assert!(objects.is_empty() || objects == [leave(&member(3), "left_page", true), join(&member(3))], "{objects:?}");
    });
}

#[test]
fn a_session_asks_watches_and_leaves_by_message() {
    let config = Config {
        topic_class: ["names/*;presence=list;presence-names=on", "chat;presence=list"].map(|rule| rule.parse().unwrap()).to_vec(),
        ..config("x;presence=count")
    };
    each(&config, 3, |cluster| {
        cluster.connect(0, 1, WINDOW);
        cluster.write(1, &upgrade_to_session(&format!("/topics?member=Ann&client-key={}", key(1))));
        let mut got = told(cluster, 1);
        assert_eq!((&got[0]["client_key"], &got[0]["member"]), (&json!(key(1)), &json!(member(1))));
        let ask = |cluster: &mut Cluster, request: Value| {
            cluster.write(1, &frame(0x81, request.to_string().as_bytes()));
            cluster.pass(Duration::from_millis(300));
            told(cluster, 1)
        };
        got = ask(cluster, json!({"id": 1, "type": "presence", "topic": "names/a"}));
        assert_eq!(got, [json!({"id": 1, "type": "ok", "topic": "names/a", "count": 0, "members": []})]);
        got = ask(cluster, json!({"id": 2, "type": "presence", "topic": "names/a", "watch": true}));
        assert_eq!(got[0], json!({"id": 2, "type": "ok", "topic": "names/a"}));
        assert_eq!(got[1], json!({"type": "presence", "topic": "names/a", "event": "list", "count": 0, "members": []}));
        got = ask(cluster, json!({"id": 3, "type": "subscribe", "topic": "names/a"}));
        let ann = json!({"type": "presence", "topic": "names/a", "event": "join", "member": "Ann", "client": member(1)});
        assert!(got.contains(&ann), "{got:?}");
        got = ask(cluster, json!({"id": 4, "type": "subscribe", "topic": "chat"}));
        assert_eq!(got.len(), 1);
        got = ask(cluster, json!({"id": 5, "type": "presence", "topic": "chat"}));
        assert_eq!(got[0]["members"], json!([{"member": member(1)}]), "names are for where they are allowed");
        got = ask(cluster, json!({"id": 6, "type": "presence", "topic": "names/a", "watch": true}));
        assert_eq!(got, [json!({"id": 6, "type": "ok", "topic": "names/a", "already": true})]);
        got = ask(cluster, json!({"id": 7, "type": "presence", "topic": "elsewhere"}));
        assert_eq!(got[0]["problem"]["type"], "urn:fantail:problem:presence-off");
        cluster.connect(2, 2, WINDOW);
        cluster.write(2, &upgrade("/topics/chat?presence&envelope"));
        cluster.pass(LONG);
        told(cluster, 2);
        got = ask(cluster, json!({"id": 8, "type": "unsubscribe", "topic": "chat"}));
        assert_eq!(got[0]["type"], "ok");
        assert_eq!(told(cluster, 2), [leave(&member(1), "unsubscribed", true)]);
        got = ask(cluster, json!({"id": 9, "type": "presence", "topic": "names/a", "watch": false}));
        assert_eq!(got, [json!({"id": 9, "type": "ok", "topic": "names/a"})]);
        ask(cluster, json!({"id": 10, "type": "unsubscribe", "topic": "names/a"}));
        assert!(told(cluster, 1).is_empty(), "it watches no more");
    });
}

#[test]
fn polls_in_a_row_are_one_member() {
    each(&config("chat;presence=list"), 2, |cluster| {
        watch(cluster, 1, 9, 9);
        cluster.connect(0, 1, WINDOW);
        let poll = format!("GET /topics/chat?wait=1&client-key={} HTTP/1.1\r\nHost: localhost\r\n\r\n", key(1));
        for _ in 0..4 {
            cluster.write(1, poll.as_bytes());
            cluster.pass(LONG);
            let (status, _) = take_any_answer(&mut cluster.read(1)).unwrap();
            assert_eq!(status, 200);
        }
        let objects = told(cluster, 9);
        assert!(objects.contains(&join(&member(1))) && objects.iter().all(|object| object["event"] != "leave"), "{objects:?}");
        cluster.pass(LONG);
        assert_eq!(told(cluster, 9), [leave(&member(1), "not_renewed", false)]);
    });
}

#[test]
fn streams_watch_and_are_members_by_a_key_that_is_told() {
    each(&config("chat;presence=list"), 2, |cluster| {
        cluster.connect(0, 1, WINDOW);
        cluster.write(1, &events("/topics/chat?presence", None));
        cluster.pass(LONG);
        let mut bytes = cluster.read(1);
        let head = String::from_utf8_lossy(&bytes).into_owned();
        let of = |name: &str| head.split(name).nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
        let (drawn, member) = (of("Fantail-Client-Key: "), of("Fantail-Member: "));
        assert_eq!(ClientKey::new(&drawn).unwrap().member().to_string(), member);
        take_head(&mut bytes);
        let lists: Vec<Value> = take_events(&mut bytes)
            .iter()
            .filter(|event| field(event, "event").as_deref() == Some("presence"))
            .map(|event| serde_json::from_str(&field(event, "data").unwrap()).unwrap())
            .collect();
        let known = lists.iter().any(|object| object["member"] == member || object["members"] == json!([{"member": member}]));
        assert!(known, "{lists:?}");
    });
}

#[test]
fn a_watcher_that_does_not_read_gets_the_state_when_it_reads_again() {
    let config = Config { outbox_size: crate::config::ByteSize::kib(128), ..config("chat;presence=list") };
    each(&config, 2, |cluster| {
        cluster.connect(0, 9, 4000);
        cluster.write(9, &upgrade(&format!("/topics/chat?presence&envelope&client-key={}", key(9))));
        cluster.settle();
        let long = "x".repeat(60_000);
        cluster.connect(1, 8, WINDOW);
        for _ in 0..2 {
            cluster.write(8, &post_with("/topics/chat", "Content-Type: text/plain\r\n", &long));
            cluster.settle();
        }
        for number in 0..5 {
            enter(cluster, number as usize % 2, number, number);
            cluster.pass(Duration::from_millis(200));
        }
        let mut bytes = Vec::new();
        for _ in 0..60 {
            cluster.driver(9).set_window(9, WINDOW);
            cluster.settle();
            bytes.extend(cluster.read(9));
            cluster.pass(Duration::from_millis(20));
        }
        assert_eq!(take_head(&mut bytes), Some(101));
        let mut known = View::default();
        for (_, payload) in take_frames(&mut bytes).into_iter().filter(|(opcode, _)| *opcode == 1) {
            known.hear(&serde_json::from_slice(&payload).unwrap());
        }
        let there: BTreeSet<String> = (0..5).chain([9]).map(member).collect();
        assert_eq!(known.members, there);
    });
}

#[test]
fn who_is_told_of_more_topics_at_once_than_find_a_place_gets_their_states() {
    const TOPICS: u64 = 20;
    let topics: Vec<String> = (0..TOPICS).map(|number| format!("topic=rooms%2F{number}")).collect();
    let target = |number| format!("/topics?{}&envelope&client-key={}", topics.join("&"), key(number));
    each(&config("rooms/*;presence=list"), 2, |cluster| {
        cluster.connect(0, 1, WINDOW);
        cluster.write(1, &upgrade(&(target(1) + "&presence")));
        cluster.pass(LONG);
        let mut views: BTreeMap<String, View> = BTreeMap::new();
        let hear = |cluster: &mut Cluster, views: &mut BTreeMap<String, View>| {
            for object in told(cluster, 1) {
                views.entry(object["topic"].as_str().unwrap().to_owned()).or_default().hear(&object);
            }
            views.values().map(|view| view.members.len() as u64).sum::<u64>()
        };
        assert_eq!(hear(cluster, &mut views), TOPICS);
        cluster.connect(1, 2, WINDOW);
        cluster.write(2, &upgrade(&target(2)));
        cluster.pass(LONG);
        assert_eq!(hear(cluster, &mut views), 2 * TOPICS);
        cluster.driver(2).reset(2);
        cluster.pass(LONG);
        assert_eq!(hear(cluster, &mut views), TOPICS);
    });
}

#[test]
fn a_worker_that_takes_nothing_keeps_presence_back_and_no_publication() {
    each(&config("rooms/*;presence=list"), 2, |cluster| {
        let at_home = |name: &str| cluster.shared.home_of(name) == 0;
        let rooms: Vec<String> = (0..).map(|number| format!("rooms/{number}")).filter(|room| at_home(room)).take(12).collect();
        let flow = (0..).map(|number| format!("flow-{number}")).find(|topic| at_home(topic)).unwrap();
        let named: Vec<String> = rooms.iter().map(|room| format!("topic={room}")).collect();
        let target = |number| format!("/topics?{}&envelope&client-key={}", named.join("&"), key(number));
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade(&format!("{}&topic={flow}", target(1))));
        cluster.settle();
        cluster.connect(1, 3, WINDOW);
        cluster.write(3, &upgrade(&(target(3) + "&presence")));
        cluster.pass(LONG);
        for id in [1, 3] {
            told(cluster, id);
        }
        cluster.frozen = Some(1);
        cluster.connect(0, 2, WINDOW);
        cluster.write(2, &upgrade(&target(2)));
        cluster.pass(LONG);
        assert_eq!(take_head(&mut cluster.read(2)), Some(101));
        cluster.connect(0, 4, WINDOW);
        cluster.write(4, &post_with(&format!("/topics/{flow}"), "", "hello"));
        cluster.pass(Duration::from_millis(200));
        assert!(String::from_utf8_lossy(&cluster.read(4)).starts_with("HTTP/1.1 200 "), "there is room for it");
        cluster.frozen = None;
        cluster.pass(LONG);
        assert_eq!(told(cluster, 1).iter().map(|object| &object["text"]).collect::<Vec<_>>(), ["hello"]);
        let joined: BTreeSet<String> =
            told(cluster, 3).iter().map(|object| object["topic"].as_str().unwrap().to_owned()).collect();
        assert_eq!(joined, rooms.into_iter().collect());
    });
}

#[test]
fn a_fault_of_the_server_is_told_as_such() {
    each(&config("chat;presence=list"), 2, |cluster| {
        watch(cluster, 0, 9, 9);
        enter(cluster, 1, 1, 1);
        cluster.pass(LONG);
        told(cluster, 9);
        // Reads are cut anywhere, so it is said often enough.
        cluster.write(1, &frame(0x81, "fail-on-request ".repeat(100).as_bytes()));
        cluster.pass(Duration::from_millis(300));
        assert!(told(cluster, 9).is_empty(), "it may come back");
        cluster.pass(LONG);
        assert_eq!(told(cluster, 9), [leave(&member(1), "internal", false)]);
    });
}

#[test]
fn who_publishes_where_too_many_wait_is_told_as_such() {
    each(&config("chat;presence=list"), 2, |cluster| {
        let home = cluster.shared.home_of("chat");
        watch(cluster, home, 9, 9);
        enter(cluster, 1 - home, 1, 1);
        cluster.pass(LONG);
        told(cluster, 9);
        cluster.frozen = Some(home);
        let core = &mut cluster.workers[1 - home].core;
        while !core.is_line_full(home) {
            // They have gone meanwhile, and still stand in line.
            let gone =
                Asker { worker: 1 - home, token: Token { slot: u32::MAX, generation: 0 }, ..core.asker(0, 0, Source::Post) };
            core.wait_for_credit(Waiter::Post(gone, home));
        }
        cluster.write(1, &frame(0x81, b"one too many"));
        cluster.settle();
        cluster.frozen = None;
        cluster.pass(LONG);
        assert_eq!(told(cluster, 9), [leave(&member(1), "overloaded", false)]);
    });
}

#[test]
fn a_stopping_server_tells_of_nobody() {
    each(&config("chat;presence=list"), 2, |cluster| {
        watch(cluster, 0, 9, 9);
        for number in 0..4 {
            enter(cluster, number as usize % 2, number, number);
        }
        cluster.pass(LONG);
        told(cluster, 9);
        cluster.shared.advance(Phase::Draining);
        cluster.pass(LONG);
        let objects = told(cluster, 9);
        assert!(objects.iter().all(|object| object["type"] != "presence"), "{objects:?}");
    });
}

#[test]
fn where_no_class_has_presence_nothing_is_kept() {
    each(&Config::default(), 2, |cluster| {
        enter(cluster, 0, 1, 1);
        cluster.connect(1, 2, WINDOW);
        cluster.write(2, &upgrade_to_session("/topics/chat"));
        let objects = objects_behind_head(cluster, 2);
        assert_eq!((objects[0].get("member"), objects[0].get("client_key")), (None, None));
        bye(cluster, 0, 3, 1);
        assert!(cluster.workers.iter().all(|worker| worker.core.presence.is_empty()));
    });
}

fn objects_behind_head(cluster: &mut Cluster, id: u64) -> Vec<Value> {
    cluster.settle();
    let mut bytes = cluster.read(id);
    assert_eq!(take_head(&mut bytes), Some(101));
    take_frames(&mut bytes).into_iter().map(|(_, payload)| serde_json::from_slice(&payload).unwrap()).collect()
}

/// What a watcher knows.
#[derive(Default)]
pub(super) struct View {
    pub(super) members: BTreeSet<String>,
    pub(super) count: u64,
}

impl View {
    pub(super) fn hear(&mut self, object: &Value) {
        let name = || object["member"].as_str().unwrap().to_owned();
        match object["event"].as_str() {
            Some("list") => {
                let members = object["members"].as_array().unwrap();
                self.members = members.iter().map(|member| member["member"].as_str().unwrap().to_owned()).collect();
                self.count = object["count"].as_u64().unwrap();
            }
            Some("count") => self.count = object["count"].as_u64().unwrap(),
            Some("join") => {
                assert!(self.members.insert(name()), "joins once: {object}");
                self.count += 1;
            }
            Some("leave") => {
                assert!(self.members.remove(&name()), "only who is there leaves: {object}");
                self.count -= 1;
            }
            _ => assert_ne!(object["type"], "presence"),
        }
    }
}
