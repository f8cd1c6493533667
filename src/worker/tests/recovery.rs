//! Who comes back: what it missed is replayed, once and in order, or it is told that something is gone.
//!
//! The oracle is the offsets: a reader that remembers the last cursor it saw must find every offset behind it, in order, whatever
//! happens between its connections, unless the server said that it can't. Those that were never to be kept it may miss in silence.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{
    Cluster, WINDOW, events, field, frame, post_with, take_events, take_frames, take_head, upgrade, upgrade_to_session,
};
use super::simulation::{seeds, take_answer};
use crate::Config;
use crate::frame::Cursor;
use crate::io::scripted::Mode;
use crate::worker::replay::Purpose;

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
    /// A session has asked to leave its topic, and has not been answered.
    is_leaving: bool,
    /// It was: it subscribes again on the same socket.
    rejoins: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum How {
    #[default]
    WebSocket,
    Events,
    Polls,
    Session,
}

/// Topics and offsets.
#[derive(Default)]
pub(super) struct LiveOnly(BTreeSet<(u64, u64)>);

impl LiveOnly {
    /// A POST to one of so many topics, which perhaps limits how long it is kept; the newest offset of each topic is counted.
    pub(super) fn publication(&mut self, topics: u64, random: &mut fastrand::Rng, published: &mut BTreeMap<u64, u64>) -> Vec<u8> {
        let topic = random.u64(0..topics);
        let offset = published.entry(topic).or_default();
        *offset += 1;
        let text = "x".repeat(random.usize(1..100));
        let lines = ["", "TTL: 3\r\n", "TTL: 0\r\n"][random.usize(0..12).saturating_sub(9)];
        if lines.contains('0') {
            self.0.insert((topic, *offset));
        }
        post_with(&format!("/topics/t{topic}"), lines, &text)
    }

    /// Whether nothing else stands between two offsets of a topic.
    pub(super) fn fill(&self, topic: u64, between: std::ops::Range<u64>) -> bool {
        (between.start + 1..between.end).all(|offset| self.0.contains(&(topic, offset)))
    }
}
/// Ids of a session's requests: to subscribe to its topic, and to another one beside it; to leave.
const JOIN: u64 = 1;
const BESIDE: u64 = 2;
const LEAVE: u64 = 3;

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
        let how = [How::WebSocket, How::Events, How::Polls, How::Session];
        let readers = (0..8).map(|number| Reader { topic: number % TOPICS, how: how[number as usize / 2], ..Reader::default() });
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
            let request = self.live_only.publication(TOPICS, &mut self.random, &mut self.published);
            self.cluster.write(self.publisher, &request);
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
            How::Session => {
                let mut bytes = upgrade_to_session("/topics");
                bytes.extend(reader.join());
                if on_gap {
                    bytes.extend(request(BESIDE, "subscribe", TOPICS - 1 - reader.topic, Some("earliest")));
                }
                bytes
            }
        };
        let is_told_of_gaps = on_gap || matches!(reader.how, How::Events | How::Session);
        (reader.peer, reader.head, reader.is_continuing) = (Some(peer), None, is_told_of_gaps);
        (reader.is_leaving, reader.rejoins) = (false, false);
        reader.resumed_from.clone_from(&reader.cursor);
        reader.bytes.clear();
        self.cluster.connect(worker, peer, window);
        self.cluster.write(peer, &request);
    }

    fn go(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        let reader = &mut self.readers[index];
        if let (How::Session, Some(peer), true) = (reader.how, reader.peer, self.random.bool()) {
            if !std::mem::replace(&mut reader.is_leaving, true) {
                let leave = request(LEAVE, "unsubscribe", reader.topic, None);
                self.cluster.write(peer, &leave);
            }
            return;
        }
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
            if std::mem::take(&mut reader.rejoins) {
                reader.resumed_from.clone_from(&reader.cursor);
                self.cluster.write(peer, &reader.join());
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
            assert!(core.replays.values().all(|replay| replay.purpose == Purpose::Poll) && core.entries.queued_bytes() == 0);
            for (slot, connection) in core.connections.iter().enumerate() {
                assert_eq!(connection.flags.reading(), core.replays.contains_key(&(slot as u32)), "slot {slot}");
            }
        }
    }
}

/// A request of a session.
fn request(id: u64, kind: &str, topic: u64, since: Option<&str>) -> Vec<u8> {
    let request = serde_json::json!({"id": id, "type": kind, "topic": format!("t{topic}"), "since": since});
    frame(0x81, request.to_string().as_bytes())
}

impl Reader {
    fn join(&self) -> Vec<u8> {
        request(JOIN, "subscribe", self.topic, Some(self.cursor.as_deref().unwrap_or("earliest")))
    }

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
            let is_told = self.resumed_from.is_some() && self.how != How::Session;
            assert_eq!(told.is_some(), is_told, "told if and only if a cursor was given: {text}");
            self.head = Some(told);
        }
        if self.how == How::Events {
            return self.take_events(gaps, live_only);
        }
        for (opcode, payload) in take_frames(&mut self.bytes) {
            match opcode {
                1 if self.how == How::Session => self.session_object(&serde_json::from_slice(&payload).unwrap(), gaps, live_only),
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

    fn session_object(&mut self, object: &serde_json::Value, gaps: &mut u64, live_only: &LiveOnly) {
        match (object["type"].as_str().unwrap(), object["id"].as_u64()) {
            ("open", None) | ("ok", Some(BESIDE)) => {}
            ("ok", Some(LEAVE)) => {
                assert!(self.is_leaving && object.get("already").is_none(), "{object}");
                (self.is_leaving, self.rejoins) = (false, true);
            }
            ("ok", Some(JOIN)) => {
                let recovered = object.get("recovered").map(|told| told == true);
                assert_eq!(recovered.is_some(), self.resumed_from.is_some(), "{object}");
                if let Some(Cursor(from)) = self.resumed_from.as_deref().map(|cursor| cursor.parse().unwrap()) {
                    let Cursor(told) = object["cursor"].as_str().unwrap().parse().unwrap();
                    // It may stand behind what was never to be kept.
                    let is_there = told.epoch == from.epoch && live_only.fill(self.topic, from.offset..told.offset + 1);
                    assert!(is_there, "{object} for {from:?}");
                }
                // Nothing overtakes the answer.
                assert_eq!(self.cursor, self.resumed_from);
            }
            ("error", Some(JOIN)) => assert_eq!(object["problem"]["type"], "urn:fantail:problem:cancelled"),
            ("message" | "gap", None) if object["topic"] == format!("t{}", self.topic) => self.object(object, gaps, live_only),
            ("message" | "gap", None) => {}
            other => panic!("{other:?}: {object}"),
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
