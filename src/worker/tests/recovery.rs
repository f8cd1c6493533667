//! Who comes back: what it missed is replayed, once and in order, or it is told that something is gone.
//!
//! The oracle is the offsets: a reader that remembers the last cursor it saw must find every offset behind it, in order, whatever
//! happens between its connections, unless the server said that it can't. Those that were never to be kept it may miss in silence.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{Cluster, WINDOW, events, field, frame, post, post_with, take_events, take_frames, take_head, upgrade};
use super::simulation::{seeds, take_answer};
use crate::Config;
use crate::io::scripted::Mode;
use crate::metrics::Recovery;

const TOPICS: u64 = 2;

/// Somebody who reads one topic over many connections.
#[derive(Default)]
struct Reader {
    topic: u64,
    /// The connection it has, if any.
    peer: Option<u64>,
    bytes: Vec<u8>,
    /// Whether the 101 has come; then whether it said that everything is recovered.
    head: Option<Option<bool>>,
    resumed_from: Option<String>,
    cursor: Option<String>,
    /// Offsets seen since the last gap that was told.
    offsets: Vec<u64>,
    is_continuing: bool,
    how: How,
    /// A poll was answered: the next is due.
    polls_again: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum How {
    #[default]
    WebSocket,
    Events,
    Polls,
}

/// Topics and offsets.
#[derive(Default)]
struct LiveOnly(BTreeSet<(u64, u64)>);

impl LiveOnly {
    /// Whether nothing else stands between two offsets of a topic.
    fn fill(&self, topic: u64, between: std::ops::Range<u64>) -> bool {
        (between.start + 1..between.end).all(|offset| self.0.contains(&(topic, offset)))
    }
}

struct Story {
    cluster: Cluster,
    random: fastrand::Rng,
    readers: Vec<Reader>,
    publisher: u64,
    published: BTreeMap<u64, u64>,
    /// What was published to be handed out and not kept.
    live_only: LiveOnly,
    next_peer: u64,
    gaps: u64,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        // Now and then too little is kept.
        let config = Config { history_size: if random.bool() { 100 } else { random.u32(1..30) }, ..Config::default() };
        let mut cluster = Cluster::new(random.usize(1..=4), mode, seed, &config);
        cluster.connect(0, 0, WINDOW);
        let how = [How::WebSocket, How::WebSocket, How::Events, How::Events, How::Polls, How::Polls];
        let readers = (0..6).map(|number| Reader { topic: number % TOPICS, how: how[number as usize], ..Reader::default() });
        let readers = readers.collect();
        Self {
            cluster,
            random,
            readers,
            publisher: 0,
            published: BTreeMap::new(),
            live_only: LiveOnly::default(),
            next_peer: 1,
            gaps: 0,
        }
    }

    fn run(mut self) -> u64 {
        for _ in 0..self.random.usize(20..200) {
            match self.random.u8(0..10) {
                0..=4 => self.publish(),
                5 | 6 => self.come(),
                7 => self.go(),
                _ => {}
            }
            let turns = self.random.usize(0..10);
            self.cluster.step(turns);
            if self.random.bool() {
                self.read_all();
            }
        }
        self.wind_up();
        self.gaps
    }

    fn publish(&mut self) {
        for _ in 0..self.random.usize(1..6) {
            let topic = self.random.u64(0..TOPICS);
            let offset = self.published.entry(topic).or_default();
            *offset += 1;
            let text = "x".repeat(self.random.usize(1..60));
            let lines = ["", "TTL: 3\r\n", "TTL: 0\r\n"][self.random.usize(0..12).saturating_sub(9)];
            if lines.contains('0') {
                self.live_only.0.insert((topic, *offset));
            }
            self.cluster.write(self.publisher, &post_with(&format!("/topics/t{topic}"), lines, &text));
        }
    }

    fn come(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        self.come_back(index);
    }

    fn come_back(&mut self, index: usize) {
        let worker = self.random.usize(0..self.cluster.workers.len());
        let window = if self.random.bool() { WINDOW } else { self.random.usize(100..2000) };
        let on_gap = self.random.bool();
        let reader = &mut self.readers[index];
        if reader.peer.is_some() {
            return;
        }
        let peer = self.next_peer;
        self.next_peer += 1;
        let target = format!("/topics/t{}?envelope", reader.topic);
        let since = reader.cursor.as_deref().unwrap_or("earliest");
        let request = match reader.how {
            // As a browser does: the URL stays as it is.
            How::Events => events(&format!("{target}&since=earliest"), reader.cursor.as_deref()),
            How::WebSocket => upgrade(&format!("{target}&since={since}{}", if on_gap { "&on-gap=continue" } else { "" })),
            How::Polls => reader.poll(),
        };
        (reader.peer, reader.head, reader.is_continuing) = (Some(peer), None, on_gap || reader.how == How::Events);
        reader.resumed_from.clone_from(&reader.cursor);
        reader.bytes.clear();
        self.cluster.connect(worker, peer, window);
        self.cluster.write(peer, &request);
    }

    fn go(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        let Some(peer) = self.readers[index].peer.take() else { return };
        match self.random.u8(0..3) {
            0 => self.cluster.driver(peer).reset(peer),
            1 => self.cluster.driver(peer).shut(peer),
            _ => self.cluster.write(peer, &frame(0x88, &1000u16.to_be_bytes())),
        }
    }

    fn read_all(&mut self) {
        self.cluster.read(self.publisher);
        for reader in &mut self.readers {
            let Some(peer) = reader.peer else { continue };
            reader.bytes.extend(self.cluster.read(peer));
            reader.take_in(&mut self.gaps, &self.live_only);
            if std::mem::take(&mut reader.polls_again) {
                self.cluster.write(peer, &reader.poll());
            }
            if self.cluster.driver(peer).peer(peer).closed.is_some() {
                reader.peer = None;
            }
        }
    }

    fn wind_up(&mut self) {
        for _ in 0..400 {
            self.cluster.settle();
            self.read_all();
            for peer in 1..self.next_peer {
                self.cluster.driver(peer).set_window(peer, WINDOW);
            }
            for index in 0..self.readers.len() {
                self.come_back(index);
            }
        }
        for reader in &self.readers {
            let last = self.published.get(&reader.topic).copied().unwrap_or_default();
            let seen = reader.offsets.last().copied().unwrap_or(0);
            assert!(seen <= last && self.live_only.fill(reader.topic, seen..last + 1), "t{} is not up to date", reader.topic);
        }
        for worker in &self.cluster.workers {
            let core = &worker.core;
            assert!(core.replays.values().all(|replay| replay.is_poll) && core.entries.queued_bytes() == 0);
            for (slot, connection) in core.connections.iter().enumerate() {
                assert_eq!(connection.flags.reading(), core.replays.contains_key(&(slot as u32)), "slot {slot}");
            }
        }
    }
}

impl Reader {
    fn poll(&self) -> Vec<u8> {
        let (topic, since) = (self.topic, self.cursor.as_deref().unwrap_or("earliest"));
        format!("GET /topics/t{topic}?since={since}&wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
    }

    fn take_in(&mut self, gaps: &mut u64, live_only: &LiveOnly) {
        if self.how == How::Polls {
            return self.take_answers(gaps, live_only);
        }
        if self.head.is_none() {
            let text = String::from_utf8_lossy(&self.bytes).into_owned();
            let Some(status) = take_head(&mut self.bytes) else { return };
            assert_eq!(status, if self.how == How::Events { 200 } else { 101 }, "{text}");
            let told = text.contains("Fantail-Recovered: true").then_some(true);
            let told = told.or(text.contains("Fantail-Recovered: false").then_some(false));
            assert_eq!(told.is_some(), self.resumed_from.is_some(), "told if and only if a cursor was given: {text}");
            self.head = Some(told);
        }
        if self.how == How::Events {
            return self.take_events(gaps, live_only);
        }
        for (opcode, payload) in take_frames(&mut self.bytes) {
            match opcode {
                1 => self.object(&serde_json::from_slice(&payload).unwrap(), gaps, live_only),
                8 => {
                    let gap = payload.get(..2) == Some(&4104u16.to_be_bytes());
                    if gap {
                        assert!(!self.is_continuing, "it wanted to go on");
                        *gaps += 1;
                        (self.cursor, self.offsets) = (None, Vec::new());
                    }
                    self.peer = None;
                }
                _ => {}
            }
        }
    }

    fn take_answers(&mut self, gaps: &mut u64, live_only: &LiveOnly) {
        while let Some(answer) = take_answer(&mut self.bytes) {
            if answer["recovered"] == false {
                *gaps += 1;
                self.offsets.clear();
            }
            for message in answer["messages"].as_array().unwrap() {
                self.object(message, gaps, live_only);
            }
            self.cursor = Some(answer["cursor"].as_str().unwrap().to_owned());
            self.polls_again = true;
        }
    }

    fn take_events(&mut self, gaps: &mut u64, live_only: &LiveOnly) {
        for event in take_events(&mut self.bytes) {
            let (id, kind, data) = (field(&event, "id"), field(&event, "event"), field(&event, "data"));
            match (kind.as_deref(), data) {
                (None, None) if event.is_empty() => self.peer = None,
                (None, None) => assert!(field(&event, "retry").is_some() && id.is_some(), "the first event: {event}"),
                (None | Some("gap"), Some(data)) => {
                    self.object(&serde_json::from_str(&data).unwrap(), gaps, live_only);
                    assert_eq!(id, self.cursor, "{event}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn object(&mut self, object: &serde_json::Value, gaps: &mut u64, live_only: &LiveOnly) {
        let offset = |cursor: &serde_json::Value| -> u64 { cursor.as_str().unwrap().split_once('.').unwrap().1.parse().unwrap() };
        if object["type"] == "gap" {
            assert!(self.is_continuing && object["reason"] == "trimmed", "{object}");
            // Who asked for all there is, and has got nothing yet, is promised what came behind the head of the answer.
            if let Some(last) = self.offsets.last() {
                let from = offset(&object["from"]);
                assert!(from >= *last && live_only.fill(self.topic, *last..from + 1), "{object}");
            }
            *gaps += 1;
            self.offsets.push(offset(&object["to"]));
            self.cursor = Some(object["to"].as_str().unwrap().to_owned());
            return;
        }
        let now = offset(&object["cursor"]);
        if let Some(before) = self.offsets.last() {
            assert!(now > *before && live_only.fill(self.topic, *before..now), "t{}: {now} after {:?}", self.topic, self.offsets);
        }
        self.offsets.push(now);
        self.cursor = Some(object["cursor"].as_str().unwrap().to_owned());
    }
}

#[test]
fn whoever_comes_back_misses_nothing_in_silence() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| Story::new(seed).run());
        assert!(outcome.is_ok(), "replay with FANTAIL_SEEDS={seed}..{}", seed + 1);
    }
}

#[test]
fn a_resume_is_counted() {
    let mut cluster = Cluster::new(2, Mode::Readiness, 1, &Config::default());
    cluster.connect(0, 0, WINDOW);
    cluster.write(0, &post("/topics/chat", "one"));
    cluster.settle();
    for (peer, since) in [(1, "earliest"), (2, "latest"), (3, "10m"), (4, "Elsewhere.7")] {
        cluster.connect(1, peer, WINDOW);
        cluster.write(peer, &upgrade(&format!("/topics/chat?since={since}")));
        cluster.settle();
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.extend(cluster.read(peer));
            cluster.settle();
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(take_head(&mut bytes), Some(101));
        assert_eq!(text.contains("Fantail-Recovered: false"), peer == 4, "{text}");
        let expected: &[(u8, Vec<u8>)] = match peer {
            1 | 3 => &[(1, b"one".to_vec())],
            2 => &[],
            _ => &[(8, [&4104u16.to_be_bytes()[..], br#"{"cause":"gap"}"#].concat())],
        };
        assert_eq!(take_frames(&mut bytes), expected, "since={since}");
    }
    let recoveries = |result| cluster.count(|metrics| metrics.recoveries.of(result).get());
    assert_eq!((recoveries(Recovery::Whole), recoveries(Recovery::Gap)), (0, 1));
}

/// A cluster of one worker with a topic `b` of which one publication is kept, and something in `a` that is replayed first.
fn amid_a_replay(config: &Config, scene: impl Fn(&mut Cluster)) {
    for mode in [Mode::Readiness, Mode::Completion] {
        let mut cluster = Cluster::new(1, mode, 1, config);
        cluster.connect(0, 0, WINDOW);
        for number in 0..40 {
            cluster.write(0, &post("/topics/a", &format!("a{number}")));
        }
        cluster.settle();
        cluster.read(0);
        scene(&mut cluster);
    }
}

/// Outboxes so small that a replay takes many turns.
fn narrow() -> Config {
    let (outbox_size, max_message_size) = (crate::config::ByteSize(1200), crate::config::ByteSize(600));
    Config { outbox_size, max_message_size, ..Config::default() }
}

fn objects(cluster: &mut Cluster, peer: u64) -> Vec<serde_json::Value> {
    let mut bytes = Vec::new();
    for _ in 0..40 {
        cluster.driver(peer).set_window(peer, WINDOW);
        cluster.settle();
        bytes.extend(cluster.read(peer));
    }
    let head = take_head(&mut bytes);
    assert!(head.is_none_or(|status| status == 101));
    let texts = take_frames(&mut bytes).into_iter().filter(|(opcode, _)| *opcode == 1);
    texts.map(|(_, payload)| serde_json::from_slice(&payload).unwrap()).collect()
}

#[test]
fn what_goes_while_another_topic_is_replayed_is_told() {
    let config = Config { topic_class: vec!["b;history-size=1".parse().unwrap()], ..narrow() };
    amid_a_replay(&config, |cluster| {
        cluster.write(0, &post("/topics/b", "first"));
        cluster.settle();
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics?topic=a&topic=b&envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        for text in ["second", "third", "fourth"] {
            cluster.write(0, &post("/topics/b", text));
        }
        cluster.settle();
        let of_b: Vec<_> = objects(cluster, 1).into_iter().filter(|object| object["topic"] == "b").collect();
        let told: Vec<_> = of_b.iter().map(|object| object["text"].as_str().or(object["reason"].as_str()).unwrap()).collect();
        assert_eq!(told, ["trimmed", "fourth"], "of what came behind the 101 nothing is missing in silence");
    });
}

#[test]
fn what_is_deleted_while_another_topic_is_replayed_is_told() {
    amid_a_replay(&Config { allow_delete: true, ..narrow() }, |cluster| {
        cluster.write(0, &post("/topics/b", "first"));
        cluster.settle();
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics?topic=a&topic=b&envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        cluster.write(0, b"DELETE /topics/b HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cluster.write(0, &post("/topics/b", "anew"));
        cluster.settle();
        let of_b: Vec<_> = objects(cluster, 1).into_iter().filter(|object| object["topic"] == "b").collect();
        let told: Vec<_> = of_b.iter().map(|object| object["text"].as_str().or(object["reason"].as_str()).unwrap()).collect();
        assert_eq!(told, ["epoch", "anew"], "it was promised what was there when its 101 left");
    });
}

#[test]
fn latest_means_the_same_as_nothing_also_where_nothing_is_kept() {
    let config = Config { history_size: 0, ..Config::default() };
    for target in ["/topics/t?since=latest", "/topics/t?envelope&since=latest"] {
        let mut cluster = Cluster::new(2, Mode::Completion, 1, &config);
        cluster.connect(0, 0, WINDOW);
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade(target));
        for _ in 0..50 {
            cluster.write(0, &post("/topics/t", "x"));
            cluster.step(1);
        }
        let mut bytes = Vec::new();
        for _ in 0..20 {
            cluster.settle();
            bytes.extend(cluster.read(1));
        }
        assert_eq!(take_head(&mut bytes), Some(101));
        assert!(take_frames(&mut bytes).iter().all(|(opcode, _)| *opcode == 1), "{target}: no close");
    }
}

#[test]
fn a_crowd_that_resumes_takes_turns_below_the_workers_limit() {
    let config = Config { worker_outbox_size: crate::config::ByteSize(100_000), ..Config::default() };
    amid_a_replay(&config, |cluster| {
        for peer in 1..=200 {
            cluster.connect(0, peer, 0);
            cluster.write(peer, &upgrade("/topics/a?envelope&since=earliest"));
        }
        cluster.settle();
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!(queued < 150_000, "{queued} bytes wait for who reads nothing");
        let mut got = vec![0; 201];
        for _ in 0..100 {
            for peer in 1..=200 {
                cluster.driver(peer).set_window(peer, WINDOW);
            }
            cluster.settle();
            for peer in 1..=200 {
                let bytes = cluster.read(peer);
                got[peer as usize] += bytes.windows(9).filter(|window| window.starts_with(b"\"text\":\"a")).count();
            }
        }
        assert!(got[1..].iter().all(|count| *count == 40), "{got:?}");
    });
}

#[test]
fn a_stopping_server_does_not_wait_for_who_is_reading() {
    amid_a_replay(&narrow(), |cluster| {
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics/a?envelope&since=earliest"));
        cluster.settle();
        cluster.shared.advance(crate::worker::Phase::Draining);
        cluster.settle();
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!(queued < 1_500, "{queued} bytes: no page was asked for any more");
    });
}

#[test]
fn a_page_that_comes_late_answers_no_other_poll() {
    for steps in 0..40 {
        let mut cluster = Cluster::new(2, Mode::Readiness, 1, &Config::default());
        let poll =
            |topic: &str| format!("GET /topics/{topic}?since=earliest&wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        let homes: Vec<usize> = ["a", "b"].iter().map(|topic| cluster.shared.home_of(topic)).collect();
        cluster.connect(homes[0], 0, WINDOW);
        for topic in ["a", "b"] {
            cluster.write(0, &post(&format!("/topics/{topic}"), topic));
        }
        cluster.settle();
        cluster.connect(1 - homes[0], 1, WINDOW);
        cluster.settle();
        cluster.write(1, &poll("a"));
        cluster.step(steps);
        cluster.frozen = Some(homes[0]);
        cluster.pass(std::time::Duration::from_secs(7));
        cluster.write(1, &poll("b"));
        cluster.step(20);
        cluster.frozen = None;
        let mut bytes = Vec::new();
        for _ in 0..20 {
            cluster.settle();
            bytes.extend(cluster.read(1));
            cluster.pass(std::time::Duration::from_millis(100));
        }
        let text = String::from_utf8(bytes).unwrap();
        let answers = text.matches("HTTP/1.1 ").count();
        let last = text.rsplit("HTTP/1.1 ").next().unwrap();
        assert!(answers >= 1 && !last.contains("\"topic\":\"a\"") || answers == 1, "{steps}: {text}");
        assert!(cluster.workers.iter().all(|worker| worker.core.pages_asked == 0), "{steps}");
    }
}
