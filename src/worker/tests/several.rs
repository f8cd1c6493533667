//! Readers of several topics in one stream or poll, cut off at any byte: what they missed is replayed, or told to be gone, and nothing else.
//!
//! The oracle is again the offsets. A reader knows two things of each topic: the last it has got, and where the last cursor of them all says
//! that it stands. The cursor must never be ahead of what has come; and whoever comes back with it must get everything behind it, in order. What
//! was between the cursor and the cut may come again with the cursor, as its messages tell, and must not with a cursor of each topic's own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::{Cluster, WINDOW, events, field, take_frames, take_head, upgrade};
use super::recovery::LiveOnly;
use super::simulation::{seeds, take_answer};
use crate::Config;
use crate::config::ByteSize;
use crate::frame::{Cursor, Cursors, Since};
use crate::io::scripted::Mode;
use crate::metrics::DropReason;
use crate::worker::SlowConsumer;

const TOPICS: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As a browser: the URL stays as it is, and the last id goes with it.
    Events,
    Lines,
    Polls,
    /// A socket, which gets no cursor of all its topics: with those of each.
    Socket,
}

/// Somebody who reads some topics over many connections.
struct Reader {
    how: How,
    topics: Vec<u64>,
    peer: Option<u64>,
    /// What has come and was not taken in yet.
    bytes: Vec<u8>,
    has_head: bool,
    /// Of a stream: the rest of its body without chunks, and how much of the chunk under way is to come.
    text: String,
    chunk: Option<usize>,
    /// The last cursor of all topics.
    cursor: Option<String>,
    /// The offset of the last that came of each topic, or that a gap or a cursor moved it to, on this connection.
    last: BTreeMap<u64, u64>,
    /// Topics asked for from the earliest that is kept: what that is shows with the first that comes.
    from_earliest: BTreeSet<u64>,
    /// A cursor of each topic's own, behind which it has got nothing.
    own: BTreeMap<u64, String>,
    /// It was answered: the next poll is due.
    polls_again: bool,
}

/// What happened of which there should be some in many stories.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    gaps: u64,
    /// Messages that came twice.
    repeats: u64,
    /// Returns with a cursor of several topics.
    returns: u64,
    dropped: u64,
    cut_off: u64,
}

struct Story {
    cluster: Cluster,
    random: fastrand::Rng,
    readers: Vec<Reader>,
    published: BTreeMap<u64, u64>,
    live_only: LiveOnly,
    next_peer: u64,
    tally: Tally,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let policies = [SlowConsumer::Disconnect, SlowConsumer::DropOldest, SlowConsumer::Latest];
        let config = Config {
            history_size: if random.bool() { 200 } else { random.u32(1..30) },
            outbox_size: ByteSize(if random.bool() { 1 << 20 } else { random.usize(2000..6000) }),
            slow_consumer: policies[random.usize(0..3)],
            ..Config::default()
        };
        let mut cluster = Cluster::new(random.usize(1..=4), mode, seed, &config);
        cluster.connect(0, 0, WINDOW);
        let readers = [How::Events, How::Events, How::Events, How::Lines, How::Lines, How::Polls, How::Polls, How::Socket];
        let readers = readers.map(|how| {
            let mut topics: Vec<u64> = (0..TOPICS).collect();
            random.shuffle(&mut topics);
            topics.truncate(random.usize(2..=TOPICS as usize));
            Reader::new(how, topics)
        });
        let (readers, published, live_only) = (readers.into(), BTreeMap::new(), LiveOnly::default());
        Self { cluster, random, readers, published, live_only, next_peer: 1, tally: Tally::default() }
    }

    fn run(mut self) -> Tally {
        for _ in 0..self.random.usize(20..200) {
            match self.random.u8(0..10) {
                0..=4 => self.publish(),
                5 | 6 => {
                    let index = self.random.usize(0..self.readers.len());
                    self.come_back(index);
                }
                7 => self.cut(),
                _ => {}
            }
            let turns = self.random.usize(0..10);
            self.cluster.step(turns);
            if self.random.bool() {
                self.read_all();
            }
        }
        self.wind_up();
        let dropped = |reason| self.cluster.count(|metrics| metrics.messages_dropped.of(reason).get());
        self.tally.dropped = dropped(DropReason::DropOldest) + dropped(DropReason::Latest);
        self.tally
    }

    fn publish(&mut self) {
        for _ in 0..self.random.usize(1..8) {
            let request = self.live_only.publication(TOPICS, &mut self.random, &mut self.published);
            self.cluster.write(0, &request);
        }
    }

    fn come_back(&mut self, index: usize) {
        let worker = self.random.usize(0..self.cluster.workers.len());
        let window = if self.random.bool() { WINDOW } else { self.random.usize(100..2000) };
        let exactly = self.random.bool();
        let reader = &mut self.readers[index];
        if reader.peer.is_some() {
            return;
        }
        // The cursor may know more topics than the URL, and another order.
        self.random.shuffle(&mut reader.topics);
        let request = reader.request(exactly);
        self.tally.returns += u64::from(reader.cursor.is_some() && !(exactly && reader.how != How::Events));
        reader.peer = Some(self.next_peer);
        self.cluster.connect(worker, self.next_peer, window);
        self.cluster.write(self.next_peer, &request);
        self.next_peer += 1;
    }

    /// The connection is lost, at any byte of what was under way.
    fn cut(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        let Some(peer) = self.readers[index].peer else { return };
        let mut bytes = self.cluster.read(peer);
        bytes.truncate(self.random.usize(0..=bytes.len()));
        self.readers[index].take_in(bytes, &mut self.tally, &self.live_only);
        self.readers[index].peer = None;
        self.cluster.driver(peer).reset(peer);
    }

    fn read_all(&mut self) {
        self.cluster.read(0);
        for reader in &mut self.readers {
            let Some(peer) = reader.peer else { continue };
            let bytes = self.cluster.read(peer);
            reader.take_in(bytes, &mut self.tally, &self.live_only);
            if std::mem::take(&mut reader.polls_again) {
                let exactly = self.random.bool();
                self.tally.returns += u64::from(!exactly);
                let request = reader.request(exactly);
                self.cluster.write(peer, &request);
            }
            if self.cluster.driver(peer).peer(peer).closed.is_some() {
                reader.peer = None;
            }
        }
    }

    fn wind_up(&mut self) {
        let mut rounds_left = 400;
        while rounds_left > 0 {
            // Some more, in which nothing may come again.
            rounds_left = if self.is_up_to_date() { rounds_left.min(5) } else { rounds_left } - 1;
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
            let stand = |topic: &u64| (*topic, reader.last.get(topic).copied(), self.published.get(topic).copied());
            let topics: Vec<_> = reader.topics.iter().map(stand).collect();
            assert!(self.has_all(reader), "{:?} stands at {topics:?}", reader.how);
        }
        for worker in &self.cluster.workers {
            assert_eq!(worker.core.entries.queued_bytes(), 0);
        }
    }
}

impl Story {
    fn is_up_to_date(&self) -> bool {
        self.readers.iter().all(|reader| self.has_all(reader))
    }

    fn has_all(&self, reader: &Reader) -> bool {
        reader.peer.is_some()
            && reader.topics.iter().all(|topic| {
                let (seen, last) = (reader.last.get(topic).copied(), self.published.get(topic).copied().unwrap_or_default());
                seen.is_some_and(|seen| seen <= last && self.live_only.fill(*topic, seen..last + 1))
            })
    }
}

impl Reader {
    fn new(how: How, topics: Vec<u64>) -> Self {
        let (bytes, text, chunk) = (Vec::new(), String::new(), None);
        let (last, own, from_earliest) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (peer, has_head, cursor, polls_again) = (None, false, None, false);
        Self { how, topics, peer, bytes, has_head, text, chunk, cursor, last, from_earliest, own, polls_again }
    }

    /// Asks to go on, with the cursor of them all or exactly, with that of each; from then on the reader knows where each topic begins.
    fn request(&mut self, exactly: bool) -> Vec<u8> {
        self.bytes.clear();
        self.text.clear();
        (self.has_head, self.chunk) = (false, None);
        let exactly = (exactly && self.how != How::Events) || self.how == How::Socket;
        let names: Vec<String> = self.topics.iter().map(|topic| format!("topic=t{topic}")).collect();
        let since = self.cursor.as_deref().unwrap_or("earliest");
        let query = if exactly {
            // Nothing may come twice.
            let place = |topic: &u64| Some((*topic, self.own.get(topic)?.parse::<Cursor>().unwrap().0.offset));
            self.last = self.topics.iter().filter_map(place).collect();
            let of_each = self.topics.iter().zip(&names).map(|(topic, name)| {
                let since = self.own.get(topic).map_or(since, String::as_str);
                format!("{name}&since={since}")
            });
            of_each.collect::<Vec<_>>().join("&")
        } else {
            if let Some(cursors) = self.cursor.as_deref().map(|cursor| cursor.parse::<Cursors>().unwrap()) {
                for topic in &self.topics {
                    let Since::After(at) = cursors.since(&format!("t{topic}")) else {
                        panic!("t{topic} has no place in the cursor")
                    };
                    self.last.insert(*topic, at.offset);
                }
            } else {
                self.last.clear();
            }
            let since = if self.how == How::Events { "earliest" } else { since };
            format!("{}&since={since}", names.join("&"))
        };
        self.from_earliest = self.topics.iter().filter(|topic| !self.last.contains_key(topic)).copied().collect();
        let get = |rest: &str| format!("GET /topics?{query}&{rest} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        match self.how {
            How::Events => events(&format!("/topics?{query}&envelope"), self.cursor.as_deref()),
            How::Lines => get("as=ndjson"),
            How::Polls => get("wait=60"),
            How::Socket => upgrade(&format!("/topics?{query}&envelope&on-gap=continue")),
        }
    }

    fn take_in(&mut self, bytes: Vec<u8>, tally: &mut Tally, live_only: &LiveOnly) {
        self.bytes.extend(bytes);
        if self.how == How::Polls {
            while let Some(answer) = take_answer(&mut self.bytes) {
                self.answer(&answer, tally, live_only);
            }
            return;
        }
        if !self.has_head {
            let text = String::from_utf8_lossy(&self.bytes).into_owned();
            let Some(status) = take_head(&mut self.bytes) else { return };
            assert_eq!(status, if self.how == How::Socket { 101 } else { 200 }, "{text}");
            self.has_head = true;
        }
        match self.how {
            How::Socket => {
                for (opcode, payload) in take_frames(&mut self.bytes) {
                    match opcode {
                        1 => self.object(&serde_json::from_slice(&payload).unwrap(), tally, live_only),
                        8 => {
                            assert_eq!(payload[..2], 1013u16.to_be_bytes());
                            (self.peer, tally.cut_off) = (None, tally.cut_off + 1);
                        }
                        _ => {}
                    }
                }
            }
            How::Events => {
                for event in self.take_text("\n\n") {
                    self.event(&event, tally, live_only);
                }
            }
            How::Lines => {
                for line in self.take_text("\n") {
                    self.object(&serde_json::from_str(&line).unwrap(), tally, live_only);
                }
            }
            How::Polls => {}
        }
    }

    /// Whole parts of the body, as a client has them that reads on through a chunk that has not ended.
    fn take_text(&mut self, end: &str) -> Vec<String> {
        loop {
            match self.chunk {
                None => {
                    let Some(line) = self.bytes.windows(2).position(|pair| pair == b"\r\n") else { break };
                    let size: Vec<u8> = self.bytes.drain(..line + 2).collect();
                    self.chunk = Some(usize::from_str_radix(std::str::from_utf8(&size[..line]).unwrap(), 16).unwrap());
                }
                Some(0) if self.bytes.len() < 2 => break,
                Some(0) => {
                    assert_eq!(self.bytes.drain(..2).collect::<Vec<_>>(), b"\r\n");
                    self.chunk = None;
                }
                Some(_) if self.bytes.is_empty() => break,
                Some(left) => {
                    let taken = left.min(self.bytes.len());
                    let bytes: Vec<u8> = self.bytes.drain(..taken).collect();
                    self.text.push_str(std::str::from_utf8(&bytes).unwrap());
                    self.chunk = Some(left - taken);
                }
            }
        }
        let Some(whole) = self.text.rfind(end) else { return Vec::new() };
        let rest = self.text.split_off(whole + end.len());
        let taken = std::mem::replace(&mut self.text, rest);
        taken.strip_suffix(end).unwrap().split(end).map(str::to_owned).collect()
    }

    fn event(&mut self, event: &str, tally: &mut Tally, live_only: &LiveOnly) {
        let (id, kind, data) = (field(event, "id"), field(event, "event"), field(event, "data"));
        match (id, kind.as_deref(), data) {
            // The first has no data.
            (Some(id), None, None) => self.stands_at(&id, live_only),
            (Some(id), Some("cursor"), Some(_)) => self.stands_at(&id, live_only),
            (None, None | Some("gap"), Some(data)) => self.object(&serde_json::from_str(&data).unwrap(), tally, live_only),
            (None, Some("end"), Some(data)) => self.ended(&data, tally),
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self, why: &str, tally: &mut Tally) {
        assert!(why.contains("slow_consumer"), "{why}");
        tally.cut_off += 1;
        self.peer = None;
    }

    /// A cursor of them all has come: it is ahead of nothing that has not come, and what has come is not ahead of it.
    fn stands_at(&mut self, cursor: &str, live_only: &LiveOnly) {
        let cursors: Cursors = cursor.parse().unwrap();
        for topic in self.topics.clone() {
            let Since::After(at) = cursors.since(&format!("t{topic}")) else { panic!("t{topic} has no place in the cursor") };
            if let Some(last) = self.last.get(&topic) {
                let is_true = at.offset >= *last && live_only.fill(topic, *last..at.offset + 1);
                assert!(is_true, "{:?}: t{topic} stands at {last}, the cursor says {}", self.how, at.offset);
            }
            self.last.insert(topic, at.offset);
            self.has_got(topic, Cursor(at));
        }
        self.cursor = Some(cursor.to_owned());
    }

    fn answer(&mut self, answer: &Value, tally: &mut Tally, live_only: &LiveOnly) {
        let gaps = answer.get("gaps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        assert_eq!(answer["recovered"], gaps.is_empty(), "{answer}");
        for object in gaps.iter().chain(answer["messages"].as_array().unwrap()) {
            self.object(object, tally, live_only);
        }
        self.stands_at(answer["cursor"].as_str().unwrap(), live_only);
        self.polls_again = true;
    }

    fn object(&mut self, object: &Value, tally: &mut Tally, live_only: &LiveOnly) {
        match object["type"].as_str().unwrap() {
            "open" => {
                let topics: Vec<String> = self.topics.iter().map(|topic| format!("t{topic}")).collect();
                assert_eq!(object["topics"], Value::from(topics));
                return self.stands_at(object["cursor"].as_str().unwrap(), live_only);
            }
            "cursor" => return self.stands_at(object["cursor"].as_str().unwrap(), live_only),
            "end" => return self.ended(object["cause"].as_str().unwrap(), tally),
            _ => {}
        }
        let place = |cursor: &Value| cursor.as_str().unwrap().parse::<Cursor>().unwrap().0.offset;
        let topic: u64 = object["topic"].as_str().unwrap().strip_prefix('t').unwrap().parse().unwrap();
        let last = self.last.get(&topic).copied();
        let is_first = self.from_earliest.remove(&topic);
        let from_last = |end: u64| last.is_none_or(|last| end > last && (is_first || live_only.fill(topic, last..end)));
        let reached = match object["type"].as_str().unwrap() {
            "message" => {
                let now = place(&object["cursor"]);
                assert!(from_last(now), "{:?}: t{topic} has {now} behind {last:?}", self.how);
                &object["cursor"]
            }
            "gap" => {
                assert!(object["reason"] == "trimmed" || object["reason"] == "slow", "{object}");
                assert!(from_last(place(&object["from"]) + 1), "{:?}: {object} behind {last:?}", self.how);
                tally.gaps += 1;
                &object["to"]
            }
            other => panic!("{other}"),
        };
        let reached: Cursor = reached.as_str().unwrap().parse().unwrap();
        tally.repeats += u64::from(!self.has_got(topic, reached));
        self.last.insert(topic, reached.0.offset);
    }

    /// Whether that is more of a topic than it had.
    fn has_got(&mut self, topic: u64, cursor: Cursor) -> bool {
        let before = self.own.get(&topic).map(|own| own.parse::<Cursor>().unwrap().0.offset);
        let is_more = before.is_none_or(|before| cursor.0.offset > before);
        if is_more {
            self.own.insert(topic, cursor.to_string());
        }
        is_more
    }
}

#[test]
fn who_reads_several_topics_misses_nothing_in_silence() {
    let mut all = Tally::default();
    // They are long: every third.
    for seed in seeds().step_by(3) {
        match std::panic::catch_unwind(|| Story::new(seed).run()) {
            Ok(Tally { gaps, repeats, returns, dropped, cut_off }) => {
                all.gaps += gaps;
                all.repeats += repeats;
                all.returns += returns;
                all.dropped += dropped;
                all.cut_off += cut_off;
            }
            Err(_) => panic!("replay with FANTAIL_SEEDS={seed}..{}", seed + 1),
        }
    }
    let Tally { gaps, repeats, returns, dropped, cut_off } = all;
    let is_told = gaps > 0 && repeats > 0 && returns > 0 && dropped > 0 && cut_off > 0;
    assert!(is_told || seeds().count() < 100, "nothing was tried: {all:?}");
}
