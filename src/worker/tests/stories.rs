//! Patterns and topics in random stories, on sockets, event streams and `fantail.v1`, read from the past or live.
//!
//! Each publication's offset is known from the answer to its publisher. So a follower has to find, of each topic and for as long as some of
//! its names match, every offset once and in order, or to be told of a gap.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::{Cluster, WINDOW, events, frame, post, take_events, take_frames, take_head, upgrade, upgrade_to_session};
use super::joins::{since_earliest, unsubscribe};
use super::session::{ask, problem, subscribe};
use super::simulation::{seeds, take_answer};
use crate::Config;
use crate::frame::Pattern;
use crate::io::scripted::Mode;

const TOPICS: [&str; 5] = ["x/a", "x/b", "x/a/deep", "y", "z/a"];
const NAMES: [&str; 9] = ["x/a", "x/b", "y", "*", "x/*", "x/**", "x/a/*", "z/*", "**"];

/// How somebody follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Socket,
    Events,
    Session,
}

/// What a follower has of one topic while some of its names match.
#[derive(Default)]
struct Seen {
    last: u64,
    /// The number of the publication that came last.
    number: u64,
    /// Offsets that came, and those that lie in a gap which was told.
    had: BTreeSet<u64>,
    /// A gap was told of which nobody knows the ends.
    unknown: bool,
}

struct Follower {
    how: How,
    /// Everything that is kept was asked for when it came.
    from_earliest: bool,
    bytes: Vec<u8>,
    has_head: bool,
    /// The names it has, each with what had been sent when that was confirmed.
    names: BTreeMap<&'static str, u64>,
    /// Requests under way, by id: the name, and whether it is to be left.
    asked: BTreeMap<u64, (&'static str, bool)>,
    seen: BTreeMap<&'static str, Seen>,
    left: bool,
}

struct Story {
    cluster: Cluster,
    random: fastrand::Rng,
    followers: BTreeMap<u64, Follower>,
    next_peer: u64,
    next_id: u64,
    /// The topic of each publication, by its number.
    sent: Vec<&'static str>,
    /// Those of each publisher that are not answered, in their order.
    unanswered: BTreeMap<u64, Vec<usize>>,
    answers: BTreeMap<u64, Vec<u8>>,
    offsets: BTreeMap<usize, u64>,
    keeps_all: bool,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let keeps_all = random.bool();
        let history_size = if keeps_all { 10_000 } else { random.u32(1..8) };
        let cluster = Cluster::new(random.usize(1..=3), mode, seed, &Config { history_size, ..Config::default() });
        let mut story = Self {
            cluster,
            random,
            followers: BTreeMap::new(),
            next_peer: 1,
            next_id: 1,
            sent: Vec::new(),
            unanswered: BTreeMap::new(),
            answers: BTreeMap::new(),
            offsets: BTreeMap::new(),
            keeps_all,
        };
        for worker in 0..story.cluster.workers.len() {
            let id = 1000 + worker as u64;
            story.cluster.connect(worker, id, WINDOW);
            story.unanswered.insert(id, Vec::new());
        }
        story
    }

    fn run(mut self) {
        for _ in 0..self.random.usize(20..150) {
            match self.random.u8(0..9) {
                0 => self.come(),
                1 | 2 => self.ask(),
                3..=6 => self.publish(),
                7 if self.random.bool() => self.go(),
                _ => {}
            }
            let turns = self.random.usize(0..12);
            self.cluster.step(turns);
            if self.random.bool() {
                self.read_all();
            }
        }
        for _ in 0..150 {
            self.cluster.settle();
            self.read_all();
            for id in self.followers.keys() {
                self.cluster.driver(*id).set_window(*id, WINDOW);
            }
        }
        self.check();
    }

    fn come(&mut self) {
        let (id, worker) = (self.next_peer, self.random.usize(0..self.cluster.workers.len()));
        self.next_peer += 1;
        let window = if self.random.bool() { WINDOW } else { self.random.usize(100..2000) };
        let how = self.random.choice([How::Socket, How::Events, How::Session]).unwrap();
        let mut names = BTreeMap::new();
        for _ in 0..if how == How::Socket { self.random.usize(1..=4) } else { 1 } {
            names.insert(self.random.choice(NAMES).unwrap(), u64::MAX);
        }
        let from_earliest = how != How::Session && self.random.u8(0..4) > 0;
        let query: Vec<String> = names.keys().map(|name| format!("topic={name}")).collect();
        let since = if from_earliest { "&on-gap=continue&since=earliest" } else { "" };
        let target = format!("/topics?{}&envelope{since}", query.join("&"));
        let request = match how {
            How::Socket => upgrade(&target),
            How::Events => events(&target, None),
            How::Session => upgrade_to_session("/topics"),
        };
        if how == How::Session {
            names.clear();
        }
        self.cluster.connect(worker, id, window);
        self.cluster.write(id, &request);
        let (bytes, asked, seen) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        self.followers.insert(id, Follower { how, from_earliest, bytes, has_head: false, names, asked, seen, left: false });
    }

    /// A session asks for a name, or leaves one.
    fn ask(&mut self) {
        let of = |(id, follower): (&u64, &Follower)| (follower.how == How::Session && !follower.left).then_some(*id);
        let sessions: Vec<u64> = self.followers.iter().filter_map(of).collect();
        let Some(peer) = self.random.choice(sessions) else { return };
        let follower = self.followers.get_mut(&peer).unwrap();
        let name = self.random.choice(NAMES).unwrap();
        let leaves = self.random.u8(0..3) == 0;
        let id = self.next_id;
        self.next_id += 1;
        follower.asked.insert(id, (name, leaves));
        let request = match (leaves, self.random.bool()) {
            (true, _) => unsubscribe(id, name),
            (false, true) => since_earliest(id, name),
            (false, false) => subscribe(id, name),
        };
        ask(&mut self.cluster, peer, &request);
    }

    fn publish(&mut self) {
        let posters: Vec<u64> = self.unanswered.keys().copied().collect();
        let poster = self.random.choice(posters).unwrap();
        for _ in 0..self.random.usize(1..6) {
            let topic = self.random.choice(TOPICS).unwrap();
            self.cluster.write(poster, &post(&format!("/topics/{topic}"), &self.sent.len().to_string()));
            self.unanswered.get_mut(&poster).unwrap().push(self.sent.len());
            self.sent.push(topic);
        }
    }

    fn go(&mut self) {
        let ids: Vec<u64> = self.followers.iter().filter(|(_, follower)| !follower.left).map(|(id, _)| *id).collect();
        let Some(id) = self.random.choice(ids) else { return };
        match self.random.bool() {
            true => self.cluster.driver(id).reset(id),
            false => self.cluster.write(id, &frame(0x88, &1000u16.to_be_bytes())),
        }
        self.followers.get_mut(&id).unwrap().left = true;
    }

    fn read_all(&mut self) {
        let Self { cluster, followers, unanswered, answers, offsets, sent, keeps_all, .. } = self;
        for (poster, waiting) in unanswered {
            let bytes = answers.entry(*poster).or_default();
            bytes.extend(cluster.read(*poster));
            while let Some(answer) = take_answer(bytes) {
                offsets.insert(waiting.remove(0), answer["offset"].as_u64().expect("every POST is accepted"));
            }
        }
        for (id, follower) in followers {
            follower.bytes.extend(cluster.read(*id));
            follower.take_in(sent.len() as u64, *keeps_all);
        }
    }

    fn check(&self) {
        assert!(self.unanswered.values().all(Vec::is_empty), "every POST is answered");
        for (id, follower) in self.followers.iter().filter(|(_, follower)| !follower.left) {
            assert!(follower.has_head && follower.asked.is_empty(), "{id}: {:?}", follower.asked);
            for (number, topic) in self.sent.iter().enumerate() {
                let confirmed = follower.names.iter().filter(|(name, _)| matches(name, topic)).map(|(_, at)| *at).min();
                let is_all_owed = follower.from_earliest && self.keeps_all;
                if confirmed.is_none_or(|at| !is_all_owed && (number as u64) < at) {
                    continue;
                }
                let seen = follower.seen.get(topic);
                let offset = self.offsets[&number];
                let is_known = seen.is_some_and(|seen| seen.had.contains(&offset) || seen.unknown);
                assert!(is_known, "{id} has not got {number}, {offset} of {topic}: {:?}", follower.names);
            }
        }
        for worker in &self.cluster.workers {
            let core = &worker.core;
            assert_eq!((core.replays.len(), core.pages_asked, core.entries.queued_bytes(), worker.driver.blocks()), (0, 0, 0, 0));
        }
    }
}

fn matches(name: &str, topic: &str) -> bool {
    Pattern::parse(name).unwrap().matches(topic)
}

impl Follower {
    fn take_in(&mut self, sent: u64, keeps_all: bool) {
        if !self.has_head {
            let Some(status) = take_head(&mut self.bytes) else { return };
            assert_eq!(status, if self.how == How::Events { 200 } else { 101 });
            self.has_head = true;
            self.names.values_mut().for_each(|at| *at = sent);
        }
        if self.how == How::Events {
            for event in take_events(&mut self.bytes) {
                if let Some(data) = super::cluster::field(&event, "data") {
                    self.object(&serde_json::from_str(&data).unwrap(), sent, keeps_all);
                }
            }
            return;
        }
        for (opcode, payload) in take_frames(&mut self.bytes) {
            if opcode == 1 {
                self.object(&serde_json::from_slice(&payload).unwrap(), sent, keeps_all);
            }
        }
    }

    fn object(&mut self, object: &Value, sent: u64, keeps_all: bool) {
        match object["type"].as_str().unwrap() {
            "message" => self.message(object),
            "gap" if object["from"].is_null() => {
                let name = object["topic"].as_str().unwrap();
                for topic in TOPICS.into_iter().filter(|topic| matches(name, topic)) {
                    self.seen.entry(topic).or_default().unknown = true;
                }
            }
            "gap" => {
                assert!(!keeps_all && object["reason"] == "trimmed", "{object}");
                let seen = self.seen_of(&object["topic"]);
                let (from, to) = (offset(&object["from"]), offset(&object["to"]));
                // Who has got nothing yet is promised what came behind the head of the answer.
                assert!(seen.last == from || seen.last == 0 || seen.unknown, "{object} behind {}", seen.last);
                assert!(to > seen.last);
                seen.had.extend(from + 1..=to);
                seen.last = to;
            }
            "ok" => self.answered(object, sent),
            "error" => {
                let (name, leaves) = self.asked.remove(&object["id"].as_u64().unwrap()).unwrap();
                assert!(!leaves && ["covered", "cancelled"].contains(&problem(object)), "{object}");
                assert!(!self.names.contains_key(name), "{object}");
            }
            kind => assert!(["open", "ping"].contains(&kind), "{object}"),
        }
    }

    fn answered(&mut self, object: &Value, sent: u64) {
        let (name, leaves) = self.asked.remove(&object["id"].as_u64().unwrap()).unwrap();
        assert_eq!(object["topic"], name);
        if leaves {
            self.names.remove(name);
            let names = &self.names;
            self.seen.retain(|topic, _| names.keys().any(|name| matches(name, topic)));
        } else if object.get("already").is_none() {
            self.names.insert(name, sent);
        }
    }

    fn message(&mut self, object: &Value) {
        let (at, number) = (offset(&object["cursor"]), object["text"].as_str().unwrap().parse().unwrap());
        // What comes before the head of the answer is no promise: another subscription on the worker may have brought it.
        let is_promised = self.how == How::Session || self.from_earliest;
        let confirmed = self.names.values().copied().min().filter(|_| !is_promised).unwrap_or_default();
        let seen = self.seen_of(&object["topic"]);
        let follows = at == seen.last + 1 || seen.last == 0 || seen.unknown || seen.number < confirmed;
        assert!(at > seen.last && follows, "{object} behind {}", seen.last);
        (seen.last, seen.number) = (at, number);
        seen.had.insert(at);
    }

    /// What it has of a topic, which some name of it has to match.
    fn seen_of(&mut self, topic: &Value) -> &mut Seen {
        let topic = TOPICS.into_iter().find(|name| topic == name).expect("a topic of the story");
        let asked = self.asked.values().map(|(name, _)| name);
        assert!(self.names.keys().chain(asked).any(|name| matches(name, topic)), "{topic} was not asked for: {:?}", self.names);
        self.seen.entry(topic).or_default()
    }
}

fn offset(cursor: &Value) -> u64 {
    cursor.as_str().unwrap().split_once('.').unwrap().1.parse().unwrap()
}

#[test]
fn random_stories_of_patterns_lose_nothing_in_silence_and_keep_the_order() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| Story::new(seed).run());
        assert!(outcome.is_ok(), "replay with FANTAIL_SEEDS={seed}..{}", seed + 1);
    }
}
