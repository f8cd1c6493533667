//! Random histories by seed: peers come, publish, stall, read and go, in any order of turns; afterwards the books must balance. Some
//! publish the same under one key, some several in one request.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, WINDOW, frame, post_with, take_frames, take_head, upgrade};
use crate::Config;
use crate::io::scripted::Mode;
use crate::metrics::{DropReason, Label, Transport};

/// Histories in the test command. `FANTAIL_SEEDS=FIRST..END` replays others.
const SEEDS: std::ops::Range<u64> = 0..300;
const TOPICS: u64 = 3;

/// A subscriber of the history.
#[derive(Default)]
struct Follower {
    topic: u64,
    bytes: Vec<u8>,
    confirmed: bool,
    /// What had been sent when it saw its 101: names from here on are owed to it.
    confirmed_at: u64,
    got: Vec<String>,
    left: bool,
}

/// A connection that posts.
#[derive(Default)]
struct Poster {
    /// Topic and text of what it has sent and not seen answered, request by request.
    waiting: Vec<Vec<(u64, String)>>,
    bytes: Vec<u8>,
}

struct History {
    cluster: Cluster,
    random: fastrand::Rng,
    followers: BTreeMap<u64, Follower>,
    posters: BTreeMap<u64, Poster>,
    /// For each topic, in the order of their offsets, what was answered with 200.
    answered: BTreeMap<u64, BTreeMap<u64, String>>,
    next: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let cluster = Cluster::new(random.usize(1..=3), mode, seed, &Config::default());
        Self { cluster, random, followers: BTreeMap::new(), posters: BTreeMap::new(), answered: BTreeMap::new(), next: 0 }
    }

    fn run(mut self) {
        for _ in 0..self.random.usize(10..150) {
            match self.random.u8(0..10) {
                0 | 1 => self.follower_comes(),
                2 => self.poster_comes(),
                3 | 4 => self.post(),
                5 => self.post_batch(),
                6 => self.message(),
                7 => self.follower_goes(),
                _ => {}
            }
            let turns = self.random.usize(0..12);
            self.cluster.step(turns);
            if self.random.bool() {
                self.read_all();
            }
        }
        self.wind_up();
        self.check();
    }

    fn worker(&mut self) -> usize {
        self.random.usize(0..self.cluster.workers.len())
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn follower_comes(&mut self) {
        let (worker, id, topic) = (self.worker(), self.fresh(), self.random.u64(0..TOPICS));
        let window = if self.random.bool() { WINDOW } else { self.random.usize(0..400) };
        self.cluster.connect(worker, id, window);
        self.cluster.write(id, &upgrade(&format!("/topics/t{topic}")));
        self.followers.insert(id, Follower { topic, ..Follower::default() });
    }

    fn poster_comes(&mut self) {
        let (worker, id) = (self.worker(), self.fresh());
        self.cluster.connect(worker, id, WINDOW);
        self.posters.insert(id, Poster::default());
    }

    fn post(&mut self) {
        let (topic, text) = (self.random.u64(0..TOPICS), format!("p{}", self.fresh()));
        let key = format!("Idempotency-Key: {text}\r\n");
        // One in four is sent again, by somebody else, before it is answered.
        let times = if self.random.u8(0..4) == 0 { 2 } else { 1 };
        for _ in 0..times {
            self.send(post_with(&format!("/topics/t{topic}"), &key, &text), vec![(topic, text.clone())]);
        }
    }

    fn post_batch(&mut self) {
        let count = self.random.usize(0..40);
        let texts: Vec<(u64, String)> = (0..count).map(|_| (self.random.u64(0..TOPICS), format!("p{}", self.fresh()))).collect();
        let elements: Vec<_> = texts.iter().map(|(topic, text)| format!(r#"{{"topic":"t{topic}","text":"{text}"}}"#)).collect();
        let body = format!("[{}]", elements.join(","));
        self.send(post_with("/topics", "Content-Type: application/json\r\n", &body), texts);
    }

    /// Has some poster send a request that publishes these.
    fn send(&mut self, request: Vec<u8>, texts: Vec<(u64, String)>) {
        let ids: Vec<u64> = self.posters.keys().copied().collect();
        let Some(id) = self.random.choice(&ids).copied() else { return };
        self.cluster.write(id, &request);
        self.posters.get_mut(&id).unwrap().waiting.push(texts);
    }

    fn message(&mut self) {
        let ids: Vec<u64> = self.followers.iter().filter(|(_, f)| !f.left).map(|(id, _)| *id).collect();
        let Some(id) = self.random.choice(&ids).copied() else { return };
        for _ in 0..self.random.usize(1..30) {
            let text = format!("m{}", self.fresh());
            self.cluster.write(id, &frame(0x81, text.as_bytes()));
        }
    }

    fn follower_goes(&mut self) {
        let ids: Vec<u64> = self.followers.iter().filter(|(_, f)| !f.left).map(|(id, _)| *id).collect();
        let Some(id) = self.random.choice(&ids).copied() else { return };
        match self.random.u8(0..3) {
            0 => self.cluster.driver(id).reset(id),
            1 => self.cluster.driver(id).shut(id),
            _ => self.cluster.write(id, &frame(0x88, &1000u16.to_be_bytes())),
        }
        self.followers.get_mut(&id).unwrap().left = true;
    }

    fn read_all(&mut self) {
        for (id, poster) in &mut self.posters {
            poster.bytes.extend(self.cluster.read(*id));
            while let Some(answer) = take_answer(&mut poster.bytes) {
                let texts = poster.waiting.remove(0);
                let results = if let serde_json::Value::Array(results) = answer { results } else { vec![answer] };
                assert_eq!(results.len(), texts.len(), "each has its result");
                for ((topic, text), result) in texts.into_iter().zip(results) {
                    assert_eq!(result["topic"], format!("t{topic}"));
                    let offset = result["offset"].as_u64().expect("a publication is answered with its offset");
                    let other = self.answered.entry(topic).or_default().insert(offset, text.clone());
                    assert!(other.is_none_or(|other| other == text), "an offset is given once");
                }
            }
        }
        for (id, follower) in &mut self.followers {
            follower.bytes.extend(self.cluster.read(*id));
            if !follower.confirmed && take_head(&mut follower.bytes) == Some(101) {
                follower.confirmed = true;
                follower.confirmed_at = self.next;
            }
            if follower.confirmed {
                let frames = take_frames(&mut follower.bytes).into_iter().filter(|(opcode, _)| *opcode == 1);
                follower.got.extend(frames.map(|(_, payload)| String::from_utf8(payload).unwrap()));
            }
        }
    }

    /// Everybody reads until nothing more comes.
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
        assert!(self.posters.values().all(|poster| poster.waiting.is_empty()), "every POST is answered");
        for topic in 0..TOPICS {
            self.check_topic(topic);
        }
        self.check_balance();
    }

    /// All subscribers of a topic saw one order; who stayed missed nothing that was accepted after its 101.
    fn check_topic(&self, topic: u64) {
        let followers: Vec<&Follower> = self.followers.values().filter(|f| f.topic == topic && f.confirmed).collect();
        let Some(longest) = followers.iter().max_by_key(|follower| follower.got.len()) else { return };
        let place: BTreeMap<&String, usize> = longest.got.iter().enumerate().map(|(at, text)| (text, at)).collect();
        assert_eq!(place.len(), longest.got.len(), "nothing comes twice");
        let posted: Vec<&String> = self.answered.get(&topic).into_iter().flat_map(BTreeMap::values).collect();
        assert_eq!(posted.iter().collect::<BTreeSet<_>>().len(), posted.len(), "a key has one offset");
        for follower in followers {
            let places: Vec<usize> = follower.got.iter().filter_map(|text| place.get(text).copied()).collect();
            assert!(places.is_sorted(), "one order for everybody: {places:?}");
            let own: Vec<&String> = posted.iter().filter(|text| follower.got.contains(text)).copied().collect();
            let order: Vec<&String> = follower.got.iter().filter(|text| text.starts_with('p')).collect();
            assert_eq!(own, order, "the order of the offsets");
            if !follower.left {
                let owed = posted.iter().filter(|text| text[1..].parse::<u64>().unwrap() > follower.confirmed_at);
                let missing: Vec<_> = owed.filter(|text| !follower.got.contains(text)).collect();
                assert!(missing.is_empty(), "accepted after the 101 and not delivered: {missing:?}");
            }
        }
    }

    /// References given out = sent + dropped, with nothing queued any more.
    fn check_balance(&self) {
        let cluster = &self.cluster;
        let got: usize = self.followers.values().filter(|f| !f.left).map(|f| f.got.len()).sum();
        let sent: u64 = Transport::ALL.iter().map(|label| cluster.count(|m| m.messages_sent.of(*label).get())).sum();
        assert!(sent >= got as u64, "sent {sent}, received {got}");
        assert_eq!(cluster.count(|m| m.messages_dropped.of(DropReason::DropOldest).get()), 0);
        for worker in &cluster.workers {
            assert_eq!(worker.core.entries.queued_bytes(), 0);
            assert_eq!(worker.driver.blocks(), 0);
        }
    }
}

/// Takes one whole answer off `bytes`, which must be 200: its JSON body.
pub(super) fn take_answer(bytes: &mut Vec<u8>) -> Option<serde_json::Value> {
    let (status, body) = take_any_answer(bytes)?;
    assert_eq!(status, 200, "{body}");
    Some(body)
}

/// Takes one whole answer off `bytes`: its status and its JSON body.
pub(super) fn take_any_answer(bytes: &mut Vec<u8>) -> Option<(u16, serde_json::Value)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let head_end = text.find("\r\n\r\n")? + 4;
    let status = text.get(9..12)?.parse().ok()?;
    let length: usize = text[..head_end].split("Content-Length: ").nth(1)?.lines().next()?.parse().ok()?;
    if bytes.len() < head_end + length {
        return None;
    }
    let body = bytes.drain(..head_end + length).skip(head_end).collect::<Vec<u8>>();
    Some((status, serde_json::from_slice(&body).ok()?))
}

pub(super) fn seeds() -> std::ops::Range<u64> {
    let given = std::env::var("FANTAIL_SEEDS").ok();
    let range = given.as_deref().and_then(|text| text.split_once(".."));
    range.and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?)).unwrap_or(SEEDS)
}

#[test]
fn random_histories_lose_nothing_and_keep_the_order() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| History::new(seed).run());
        assert!(outcome.is_ok(), "replay with FANTAIL_SEEDS={seed}..{}", seed + 1);
    }
}
