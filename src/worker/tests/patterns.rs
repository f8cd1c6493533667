//! Patterns over several workers: each publication once, in order, from the moment of the 101, whatever else a connection subscribes to.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, WINDOW, events, field, frame, post, take_events, take_frames, take_head, upgrade};
use super::cluster::{each, frames, subscribe};
use super::simulation::{seeds, take_answer};
use crate::Config;
use crate::config::ByteSize;
use crate::frame::Pattern;
use crate::io::scripted::Mode;
use crate::metrics::DropReason;

/// The texts of `message` objects; what a policy drops is told between them.
fn texts(cluster: &mut Cluster, id: u64) -> Vec<String> {
    let objects = frames(cluster, id).into_iter().map(|(_, payload)| serde_json::from_slice(&payload).unwrap());
    let messages = objects.filter(|object: &serde_json::Value| object["type"] != "gap");
    messages.map(|object| object["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_new_topic_finds_the_patterns_that_match_whatever_its_home() {
    each(&Config::default(), 3, |cluster| {
        subscribe(cluster, 0, 1, "/topics/news/*?envelope");
        subscribe(cluster, 1, 2, "/topics/**?envelope");
        cluster.connect(2, 3, WINDOW);
        for number in 0..20 {
            cluster.write(3, &post(&format!("/topics/news/{number}"), &number.to_string()));
            cluster.write(3, &post(&format!("/topics/news/{number}/more"), "more"));
        }
        let one: BTreeSet<_> = texts(cluster, 1).into_iter().collect();
        assert_eq!(one, (0..20).map(|number: u32| number.to_string()).collect());
        assert_eq!(texts(cluster, 2).len(), 40);
    });
}

#[test]
fn who_stands_in_several_lists_gets_it_once() {
    each(&Config::default(), 2, |cluster| {
        subscribe(cluster, 0, 1, "/topics?topic=a/b&topic=a/*&topic=**&envelope");
        subscribe(cluster, 0, 2, "/topics/a/b");
        subscribe(cluster, 0, 3, "/topics?topic=**&topic=a/**&envelope");
        for number in 0..5 {
            cluster.write(2, &frame(0x81, number.to_string().as_bytes()));
        }
        let all: Vec<String> = (0..5).map(|number: u32| number.to_string()).collect();
        assert_eq!((texts(cluster, 1), texts(cluster, 3)), (all.clone(), all));
        assert_eq!(frames(cluster, 2).len(), 5);
        cluster.connect(1, 4, WINDOW);
        cluster.write(4, &post("/topics/a/b", "last"));
        cluster.settle();
        assert_eq!(take_answer(&mut cluster.read(4)).unwrap()["subscribers"], 6, "subscriptions that it matches");
    });
}

#[test]
fn a_pattern_is_not_confirmed_before_every_worker_knows_it() {
    let mut cluster = Cluster::new(3, Mode::Readiness, 7, &Config::default());
    cluster.frozen = Some(2);
    cluster.connect(0, 1, WINDOW);
    cluster.write(1, &upgrade("/topics/a/*?envelope"));
    cluster.settle();
    assert!(cluster.read(1).is_empty(), "a topic may have its home there");
    cluster.frozen = None;
    cluster.settle();
    assert_eq!(take_head(&mut cluster.read(1)), Some(101));
}

#[test]
fn the_newest_of_each_topic_is_kept_not_of_each_pattern() {
    let config = Config { slow_consumer: crate::class::SlowConsumer::Latest, ..Config::default() };
    each(&config, 2, |cluster| {
        subscribe(cluster, 0, 1, "/topics/t/*?envelope");
        subscribe(cluster, 0, 2, "/topics?topic=t/0&topic=t/1&topic=t/2&topic=t/3&topic=t/4&envelope");
        for id in [1, 2] {
            cluster.driver(id).set_window(id, 0);
        }
        cluster.connect(1, 3, WINDOW);
        for number in 0..6 {
            for topic in 0..5 {
                cluster.write(3, &post(&format!("/topics/t/{topic}"), &format!("{topic} {number}")));
                cluster.settle();
            }
        }
        for id in [1, 2] {
            cluster.driver(id).set_window(id, WINDOW);
        }
        let (by_pattern, by_name) = (texts(cluster, 1), texts(cluster, 2));
        let newest: BTreeSet<String> = (0..5).map(|topic| format!("{topic} 5")).collect();
        assert!(newest.iter().all(|text| by_pattern.contains(text)), "{by_pattern:?}");
        // What is on its way to a driver that completes later stays, so it is as many as they are for who names the topics.
        assert_eq!(by_pattern, by_name);
        let dropped = cluster.count(|metrics| metrics.messages_dropped.of(DropReason::Latest).get());
        assert_eq!((by_pattern.len() + by_name.len()) as u64 + dropped, 60);
        assert!(dropped > 0);
    });
}

#[test]
fn topics_that_queues_hold_are_remembered_and_then_forgotten() {
    let config = Config { outbox_size: ByteSize(200_000), max_message_size: ByteSize(1000), ..Config::default() };
    let topics = |cluster: &Cluster| cluster.workers[0].core.hub.topics();
    let mut cluster = Cluster::new(1, Mode::Readiness, 1, &config);
    let cluster = &mut cluster;
    subscribe(cluster, 0, 1, "/topics/t/*?envelope");
    subscribe(cluster, 0, 3, "/topics/t/*?envelope");
    cluster.driver(1).set_window(1, 0);
    cluster.connect(0, 2, WINDOW);
    for number in 0..200 {
        cluster.write(2, &post(&format!("/topics/t/{number}"), "x"));
        cluster.settle();
        cluster.read(2);
        cluster.read(3);
    }
    assert!(topics(cluster) >= 199, "those that wait are known: {}", topics(cluster));
    cluster.driver(1).set_window(1, WINDOW);
    assert_eq!(frames(cluster, 1).len(), 200);
    cluster.pass(std::time::Duration::from_secs(2));
    assert_eq!(topics(cluster), 0);
}

#[test]
fn streams_have_patterns_too() {
    each(&Config::default(), 2, |cluster| {
        for (id, target, last) in [(1, "/topics/a/**?envelope", None), (2, "/topics/a/**?envelope", Some("k3Vq.7"))] {
            cluster.connect(id as usize % 2, id, WINDOW);
            cluster.write(id, &events(target, last));
        }
        cluster.connect(0, 3, WINDOW);
        cluster.write(3, b"GET /topics/a/*?as=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cluster.settle();
        cluster.connect(1, 4, WINDOW);
        cluster.write(4, &post("/topics/a/b", "x"));
        for id in 1..=3 {
            let mut bytes = Vec::new();
            for _ in 0..20 {
                cluster.settle();
                bytes.extend(cluster.read(id));
            }
            let head = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(take_head(&mut bytes), Some(200));
            assert_eq!(head.contains("Fantail-Recovered: false\r\n"), id == 2);
            let got = take_events(&mut bytes);
            assert!(got.last().is_some_and(|event| event.contains("\"topic\":\"a/b\"")), "{got:?}");
            let gap = r#"{"type":"gap","topic":"a/**","from":null,"to":null,"reason":"pattern"}"#;
            match id {
                1 => assert_eq!((got.len(), field(&got[0], "id")), (2, None)),
                2 => assert_eq!((got.len(), field(&got[1], "data")), (3, Some(gap.to_owned()))),
                _ => assert_eq!((got.len(), got[0].as_str()), (2, "{\"type\":\"open\",\"topic\":\"a/*\",\"cursor\":null}\n")),
            }
        }
    });
}

#[test]
fn a_socket_with_a_pattern_does_not_publish() {
    each(&Config::default(), 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/a/*?envelope");
        cluster.write(1, &frame(0x81, b"x"));
        let got = frames(cluster, 1);
        assert_eq!((got[0].0, &got[0].1[..2]), (8, &1008u16.to_be_bytes()[..]));
    });
}

#[test]
fn a_worker_takes_its_share_of_patterns() {
    let config = Config { max_patterns: 4, ..Config::default() };
    each(&config, 2, |cluster| {
        subscribe(cluster, 0, 1, "/topics?topic=a/*&topic=b/*&envelope");
        subscribe(cluster, 0, 2, "/topics/a/*?envelope");
        cluster.connect(0, 3, WINDOW);
        cluster.write(3, &upgrade("/topics?topic=c&topic=a/*&topic=d/*&envelope"));
        cluster.settle();
        let mut bytes = cluster.read(3);
        assert_eq!(take_head(&mut bytes), Some(503));
        assert!(String::from_utf8_lossy(&bytes).contains("\"limit_patterns\":2"));
        subscribe(cluster, 1, 4, "/topics/d/*?envelope");
        cluster.driver(1).reset(1);
        cluster.driver(2).reset(2);
        cluster.settle();
        subscribe(cluster, 0, 5, "/topics?topic=c/*&topic=d/*&envelope");
        assert_eq!(cluster.workers[0].core.hub.patterns(), 2, "what was refused has left nothing");
    });
}

/// A subscriber by any names.
struct Follower {
    names: Vec<Pattern>,
    bytes: Vec<u8>,
    confirmed: bool,
    /// What had been sent when it saw its 101: from here on everything is owed to it.
    confirmed_at: u64,
    got: Vec<serde_json::Value>,
    left: bool,
}

/// A random history: subscribers by names and patterns come, stall and go while others publish, on one to three workers.
struct History {
    cluster: Cluster,
    random: fastrand::Rng,
    followers: BTreeMap<u64, Follower>,
    posters: Vec<u64>,
    answers: BTreeMap<u64, Vec<u8>>,
    next: u64,
    sent: Vec<(u64, &'static str)>,
}

const TOPICS: [&str; 4] = ["x/a", "x/b", "x/a/deep", "y"];
const NAMES: [&str; 9] = ["x/a", "x/b", "x/a/deep", "y", "*", "x/*", "x/**", "x/a/*", "**"];

impl History {
    fn run(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let cluster = Cluster::new(random.usize(1..=3), mode, seed, &Config::default());
        let (followers, posters, answers, sent) = (BTreeMap::new(), Vec::new(), BTreeMap::new(), Vec::new());
        let mut history = Self { cluster, random, followers, posters, answers, next: 0, sent };
        for worker in 0..history.cluster.workers.len() {
            let id = 1000 + worker as u64;
            history.cluster.connect(worker, id, WINDOW);
            history.posters.push(id);
        }
        for _ in 0..history.random.usize(10..120) {
            match history.random.u8(0..8) {
                0 | 1 => history.come(),
                2..=5 => history.publish(),
                6 => history.go(),
                _ => {}
            }
            let turns = history.random.usize(0..12);
            history.cluster.step(turns);
            if history.random.bool() {
                history.read_all();
            }
        }
        history.wind_up();
        history.check();
    }

    fn come(&mut self) {
        self.next += 1;
        let (id, worker) = (self.next, self.random.usize(0..self.cluster.workers.len()));
        let mut names: Vec<&str> = (0..self.random.usize(1..=4)).filter_map(|_| self.random.choice(NAMES)).collect();
        names.dedup();
        let window = if self.random.bool() { WINDOW } else { self.random.usize(0..2000) };
        self.cluster.connect(worker, id, window);
        let query: Vec<String> = names.iter().map(|name| format!("topic={name}")).collect();
        self.cluster.write(id, &upgrade(&format!("/topics?{}&envelope", query.join("&"))));
        let names = names.into_iter().map(|name| Pattern::parse(name).unwrap()).collect();
        let (bytes, got) = (Vec::new(), Vec::new());
        self.followers.insert(id, Follower { names, bytes, confirmed: false, confirmed_at: 0, got, left: false });
    }

    fn publish(&mut self) {
        let (Some(poster), Some(topic)) = (self.random.choice(&self.posters).copied(), self.random.choice(TOPICS)) else {
            return;
        };
        for _ in 0..self.random.usize(1..4) {
            self.next += 1;
            self.cluster.write(poster, &post(&format!("/topics/{topic}"), &self.next.to_string()));
            self.sent.push((self.next, topic));
        }
    }

    fn go(&mut self) {
        let ids: Vec<u64> = self.followers.iter().filter(|(_, follower)| !follower.left).map(|(id, _)| *id).collect();
        let Some(id) = self.random.choice(&ids).copied() else { return };
        match self.random.bool() {
            true => self.cluster.driver(id).reset(id),
            false => self.cluster.write(id, &frame(0x88, &1000u16.to_be_bytes())),
        }
        self.followers.get_mut(&id).unwrap().left = true;
    }

    fn read_all(&mut self) {
        for poster in self.posters.clone() {
            self.answers.entry(poster).or_default().extend(self.cluster.read(poster));
        }
        for (id, follower) in &mut self.followers {
            follower.bytes.extend(self.cluster.read(*id));
            if !follower.confirmed && take_head(&mut follower.bytes) == Some(101) {
                (follower.confirmed, follower.confirmed_at) = (true, self.next);
            }
            if follower.confirmed {
                let frames = take_frames(&mut follower.bytes).into_iter().filter(|(opcode, _)| *opcode == 1);
                follower.got.extend(frames.map(|(_, payload)| serde_json::from_slice::<serde_json::Value>(&payload).unwrap()));
            }
        }
    }

    fn wind_up(&mut self) {
        for _ in 0..60 {
            self.cluster.settle();
            self.read_all();
            for id in self.followers.keys() {
                self.cluster.driver(*id).set_window(*id, WINDOW);
            }
        }
    }

    fn check(&self) {
        let answered = self.answers.values().map(|bytes| String::from_utf8_lossy(bytes).matches("HTTP/1.1 200 OK").count());
        let answered: usize = answered.sum();
        assert_eq!(answered, self.sent.len(), "every POST is answered");
        // The numbers that each text was given, as anybody has seen them.
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for follower in self.followers.values().filter(|follower| follower.confirmed) {
            let mut last: BTreeMap<&str, u64> = BTreeMap::new();
            for message in &follower.got {
                let [topic, text, cursor] = ["topic", "text", "cursor"].map(|member| message[member].as_str().unwrap());
                assert!(follower.names.iter().any(|name| name.matches(topic)), "{topic} was not asked for");
                let offset: u64 = cursor.split_once('.').unwrap().1.parse().unwrap();
                assert!(last.insert(topic, offset).is_none_or(|before| before < offset), "once, and in order: {message}");
                assert_eq!(*numbers.entry(text).or_insert(offset), offset);
            }
            if !follower.left {
                let got: BTreeSet<&str> = follower.got.iter().map(|message| message["text"].as_str().unwrap()).collect();
                let wanted = |topic: &str| follower.names.iter().any(|name| name.matches(topic));
                let owed = self.sent.iter().filter(|(number, topic)| *number > follower.confirmed_at && wanted(topic));
                let missing: Vec<_> = owed.filter(|(number, _)| !got.contains(number.to_string().as_str())).collect();
                assert!(missing.is_empty(), "accepted after the 101 and not delivered: {missing:?}");
            }
        }
        for worker in &self.cluster.workers {
            assert_eq!((worker.core.entries.queued_bytes(), worker.driver.blocks()), (0, 0));
        }
    }
}

#[test]
fn random_histories_with_patterns_lose_nothing_and_keep_the_order() {
    // A third of them: each looks at every message.
    for seed in seeds().step_by(3) {
        let outcome = std::panic::catch_unwind(|| History::run(seed));
        assert!(outcome.is_ok(), "replay with FANTAIL_SEEDS={seed}..{}", seed + 1);
    }
}
