//! The promise as a whole, by seed: several workers, topics of every policy, publishers, deletions, times to live, time itself, readers on
//! every transport that are cut, stall, leave and come back, and perhaps a stop in order at the end. Afterwards each reader's story is held
//! against what was accepted ([`truth`]): all of it came once and in order, or it was told that something is missing.
//!
//! Half of the readers keep to one topic and its cursor. The others have several names, topics beside patterns that match them, by one URL
//! with one `since` or one for each, and other names on their next connection: since a cursor of their own, one of all topics, `earliest`, an
//! age, or from now on. Sessions also subscribe and leave by message, in any order, without waiting for answers.
//!
//! What a reader is promised of a topic, whichever of its names ([`names`]) brings it:
//!
//! - Everything that is sent when the head, or the `ok`, of a name that matches has been read, until that name is left: once, in order of
//!   offsets, or covered by what is told to be missing. So what is published behind each `ok` is of most interest, and each draws some.
//! - What the first of these names asked for with `since`, as far as it is kept. A later one adds nothing older; with a `since` it is refused
//!   exactly where a wider one is there.
//! - Nothing twice on a connection, unless nothing brings the topic any more and it is asked for again. A stream that comes back with the
//!   cursor of all its topics goes on from there, so what came behind that comes again; a cursor is never ahead of what came.
//! - Nothing of a topic ahead of the answer to what reads it.
//!
//! Some tens of thousands of steps are in the test command; `scripts/model.sh` makes millions. A failure names its seed.

mod hearing;
mod names;
mod reader;
mod truth;

use std::collections::VecDeque;
use std::time::Duration;

use super::cluster::{Cluster, WINDOW, post_with};
use super::simulation::{seeds, take_any_answer};
use crate::Config;
use crate::config::{ByteSize, TimeSpan};
use crate::io::scripted::Mode;
use crate::worker::Phase;
use crate::worker::replay::Purpose;
use names::TOPICS;
use reader::{How, Reader};
use truth::{Accepted, BRIEF_S, Kept, Moment, Seen, Truth, position};

/// Each topic is of a class of its own.
const POLICIES: [&str; TOPICS.len()] = ["disconnect", "drop-oldest", "latest"];
const PUBLISHERS: u64 = 2;
/// Who there is, and whether with several names.
const READERS: [(How, bool); 10] = [
    (How::WebSocket, false),
    (How::Events, false),
    (How::Lines, false),
    (How::Polls, false),
    (How::WebSocket, true),
    (How::Events, true),
    (How::Lines, true),
    (How::Polls, true),
    (How::Session, true),
    (How::Session, true),
];
/// No topic's life ends by itself before that: all of a story is shorter.
const TIME_MAX: Duration = Duration::from_secs(40);
/// Longer than any hold of `--coalesce` here.
const MOMENT: Duration = Duration::from_millis(64);

/// A request whose answer has not come.
#[derive(Debug)]
enum Asked {
    Publish { topic: usize, text: String, kept: Kept, sent: Moment },
    Delete { topic: usize },
}

/// What all stories came to.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    steps: u64,
    published: u64,
    deleted: u64,
    came: u64,
    cut: u64,
    asked: u64,
    stops: u64,
    seen: Seen,
}

struct Story {
    cluster: Cluster,
    random: fastrand::Rng,
    history_size: u64,
    passed: Duration,
    readers: Vec<Reader>,
    /// For each publisher, what it has asked for, and the bytes of answers.
    asked: Vec<(VecDeque<Asked>, Vec<u8>)>,
    sent: u64,
    /// For each topic.
    accepted: Vec<Vec<Accepted>>,
    deleted: Vec<Vec<String>>,
    next_peer: u64,
    totals: Totals,
    is_stopping: bool,
    /// Nothing more is published.
    is_resting: bool,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        // Now and then too little is kept, and too little may wait.
        let history_size = if random.bool() { 100 } else { random.u32(1..30) };
        let outbox_size = if random.bool() { ByteSize(1 << 20) } else { ByteSize(random.usize(1200..5000)) };
        let coalesce = TimeSpan(Duration::from_millis(if random.bool() { 0 } else { random.u64(1..50) }));
        let classes =
            TOPICS.iter().zip(POLICIES).map(|(topic, policy)| format!("{topic};slow-consumer={policy}").parse().unwrap());
        let config = Config {
            history_size,
            outbox_size,
            worker_outbox_size: ByteSize(outbox_size.bytes() * random.usize(1..8)),
            max_message_size: ByteSize(600),
            coalesce,
            topic_class: classes.collect(),
            allow_delete: true,
            // Nobody is given up who has nothing to publish yet.
            head_timeout: TimeSpan(TIME_MAX * 2),
            drain_window: TimeSpan(Duration::from_millis(random.u64(0..500))),
            ..Config::default()
        };
        let mut cluster = Cluster::new(random.usize(1..=4), mode, seed, &config);
        for peer in 0..PUBLISHERS {
            let worker = random.usize(0..cluster.workers.len());
            cluster.connect(worker, peer, WINDOW);
        }
        let readers = READERS.map(|(how, is_several)| Reader::new(how, is_several, random.fork()));
        Self {
            cluster,
            readers: readers.into(),
            random,
            history_size: history_size.into(),
            passed: Duration::ZERO,
            asked: (0..PUBLISHERS).map(|_| Default::default()).collect(),
            sent: 0,
            accepted: vec![Vec::new(); POLICIES.len()],
            deleted: vec![Vec::new(); POLICIES.len()],
            next_peer: PUBLISHERS,
            totals: Totals::default(),
            is_stopping: false,
            is_resting: false,
        }
    }

    fn run(mut self) -> Totals {
        for _ in 0..self.random.usize(20..120) {
            self.step();
        }
        self.catch_up();
        if self.random.u8(0..3) == 0 {
            self.stop();
        } else {
            self.check_rest();
        }
        self.judge();
        self.totals
    }

    fn step(&mut self) {
        match self.random.u8(0..32) {
            0..=12 => self.publish(),
            13..=18 => self.come(),
            19..=21 => self.go(),
            22..=24 => self.ask(),
            25 | 26 => self.stall(),
            27 => self.delete(),
            28 => {
                let moments = self.random.u32(1..60);
                self.pass(MOMENT * moments);
            }
            29 => self.pass(MOMENT),
            30 => self.freeze(),
            _ => {}
        }
        let turns = self.random.usize(0..12);
        self.cluster.step(turns);
        if self.random.bool() {
            self.read_all();
        }
    }

    fn now(&self) -> Moment {
        Moment { ns: self.passed.as_nanos() as u64, sent: self.sent }
    }

    fn pass(&mut self, time: Duration) {
        // What is asked of a worker that gets no time would not be answered in time.
        self.cluster.frozen = None;
        if self.passed + time < TIME_MAX {
            self.passed += time;
            self.cluster.pass(time);
            self.totals.steps += 1;
        }
    }

    fn freeze(&mut self) {
        self.cluster.frozen = self.random.bool().then(|| self.random.usize(0..self.cluster.workers.len()));
        self.totals.steps += 1;
    }

    fn publish(&mut self) {
        for _ in 0..self.random.usize(1..6) {
            let topic = self.random.usize(0..TOPICS.len());
            self.publish_on(topic);
        }
    }

    fn publish_on(&mut self, topic: usize) {
        let publisher = self.random.u64(0..PUBLISHERS);
        let text = format!("{} {}", self.sent, "x".repeat(self.random.usize(1..200)));
        let (kept, line) = match self.random.u8(0..8) {
            0 => (Kept::Briefly, format!("TTL: {BRIEF_S}\r\n")),
            1 => (Kept::Not, "TTL: 0\r\n".to_owned()),
            _ => (Kept::AsItsClassSays, String::new()),
        };
        self.cluster.write(publisher, &post_with(&format!("/topics/{}", TOPICS[topic]), &line, &text));
        let asked = Asked::Publish { topic, text, kept, sent: self.now() };
        self.asked[publisher as usize].0.push_back(asked);
        self.sent += 1;
        self.totals.steps += 1;
    }

    /// What somebody has heard to be in force shows what that promises. Its home may have something else to do first.
    fn publish_behind_answer(&mut self, topic: usize) {
        if self.random.bool() {
            self.cluster.frozen = Some(self.cluster.shared.home_of(TOPICS[topic]));
        }
        self.publish_on(topic);
    }

    /// By one publisher alone, so that the order of the lives is known.
    fn delete(&mut self) {
        let topic = self.random.usize(0..POLICIES.len());
        let request = format!("DELETE /topics/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", TOPICS[topic]);
        self.cluster.write(0, request.as_bytes());
        self.asked[0].0.push_back(Asked::Delete { topic });
        self.totals.steps += 1;
    }

    fn come(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        self.come_back(index);
    }

    fn come_back(&mut self, index: usize) {
        if self.readers[index].peer.is_some() {
            return;
        }
        let (worker, peer) = (self.random.usize(0..self.cluster.workers.len()), self.next_peer);
        let (now, window) = (self.now(), if self.random.bool() { WINDOW } else { self.random.usize(100..2000) });
        self.next_peer += 1;
        let request = self.readers[index].come(peer, self.random.bool(), now);
        self.cluster.connect(worker, peer, window);
        self.cluster.write(peer, &request);
        self.totals.came += 1;
        self.totals.steps += 1;
    }

    fn go(&mut self) {
        let index = self.random.usize(0..self.readers.len());
        let reader = &mut self.readers[index];
        let Some(peer) = reader.peer else { return };
        reader.is_live = false;
        self.totals.steps += 1;
        reader.end();
        match self.random.u8(0..3) {
            0 => self.cluster.driver(peer).reset(peer),
            1 => self.cluster.driver(peer).shut(peer),
            _ => self.cluster.write(peer, &super::cluster::frame(0x88, &1000u16.to_be_bytes())),
        }
        self.totals.cut += 1;
    }

    /// A session asks for names, and leaves some.
    fn ask(&mut self) {
        let now = self.now();
        let there = self.readers.iter_mut().filter(|reader| reader.how == How::Session && reader.peer.is_some());
        let there: Vec<&mut Reader> = there.collect();
        let Some(reader) = self.random.choice(there) else { return };
        reader.now = now;
        let (peer, request) = (reader.peer.unwrap(), reader.ask());
        self.cluster.write(peer, &request);
        self.totals.asked += 1;
        self.totals.steps += 1;
        // What is published when an answer has been heard shows what it promises.
        for _ in 0..self.random.usize(0..8) {
            if self.random.bool() {
                self.freeze();
            }
            let turns = self.random.usize(0..6);
            self.cluster.step(turns);
            self.read_all();
        }
        self.cluster.frozen = None;
    }

    /// A reader reads nothing for a while.
    fn stall(&mut self) {
        let peers: Vec<u64> = self.readers.iter().filter_map(|reader| reader.peer).collect();
        if let Some(&peer) = self.random.choice(&peers) {
            let window = if self.random.bool() { 0 } else { self.random.usize(100..2000) };
            self.cluster.driver(peer).set_window(peer, window);
            self.totals.steps += 1;
        }
    }

    fn read_all(&mut self) -> usize {
        self.totals.steps += 1;
        (0..PUBLISHERS).for_each(|publisher| self.take_answers(publisher));
        let (mut read, now, mut answered) = (0, self.now(), Vec::new());
        for reader in &mut self.readers {
            let Some(peer) = reader.peer else { continue };
            let bytes = self.cluster.read(peer);
            read += bytes.len();
            reader.take_in(bytes, now);
            answered.append(&mut reader.answered);
            while let Some(says) = reader.says.pop_front() {
                self.cluster.write(peer, &says);
            }
            if self.cluster.driver(peer).peer(peer).closed.is_some() {
                reader.end();
            }
        }
        if !self.is_resting {
            answered.into_iter().for_each(|topic| self.publish_behind_answer(topic));
        }
        read
    }

    fn take_answers(&mut self, publisher: u64) {
        let answered_ns = self.now().ns;
        let (asked, bytes) = &mut self.asked[publisher as usize];
        bytes.extend(self.cluster.read(publisher));
        while let Some((status, answer)) = take_any_answer(bytes) {
            let asked = asked.pop_front().expect("an answer to something");
            if status == 503 {
                let kind = answer["type"].as_str().unwrap();
                // There is no line for what asks a home worker for something else than to publish.
                let is_busy = matches!(asked, Asked::Delete { .. }) && kind.ends_with(":busy");
                assert!(is_busy || (self.is_stopping && kind.ends_with(":draining")), "{asked:?}: {answer}");
                continue;
            }
            assert_eq!(status, 200, "{asked:?}: {answer}");
            match asked {
                Asked::Delete { topic } => {
                    self.deleted[topic].extend(answer["epoch"].as_str().map(str::to_owned));
                    self.totals.deleted += 1;
                }
                Asked::Publish { topic, text, kept, sent } => {
                    let at = position(answer["cursor"].as_str().unwrap());
                    self.accepted[topic].push(Accepted { at, text, kept, sent, answered_ns });
                    self.totals.published += 1;
                }
            }
        }
    }

    /// Everybody comes back and reads until nothing more comes.
    fn catch_up(&mut self) {
        (self.cluster.frozen, self.is_resting) = (None, true);
        let mut quiet = 0;
        for _ in 0..2000 {
            // Held publications go out; half-closed polls wait for their time, and block nobody.
            self.cluster.pass(MOMENT);
            self.passed += MOMENT;
            let is_there = self.readers.iter().all(|reader| reader.peer.is_some());
            quiet = if self.read_all() == 0 && is_there { quiet + 1 } else { 0 };
            if quiet == 8 {
                return;
            }
            (PUBLISHERS..self.next_peer).for_each(|peer| self.cluster.driver(peer).set_window(peer, WINDOW));
            (0..self.readers.len()).for_each(|index| self.come_back(index));
        }
        panic!("the readers never catch up");
    }

    fn check_rest(&self) {
        assert!(self.asked.iter().all(|(asked, _)| asked.is_empty()), "all is answered: {:?}", self.asked);
        for worker in &self.cluster.workers {
            let core = &worker.core;
            assert!(core.replays.values().all(|replay| replay.purpose == Purpose::Poll), "nobody else reads any more");
            assert_eq!((core.entries.queued_bytes(), core.entries.gaps(), core.pages_asked), (0, 0, 0));
        }
    }

    /// The server stops in order while some are publishing: what it accepts reaches everybody who was there.
    fn stop(&mut self) {
        for reader in self.readers.iter_mut().filter(|reader| reader.how != How::Polls) {
            reader.begin_live(self.sent);
        }
        let stops_at = self.random.usize(0..20);
        for step in 0..20 {
            self.publish();
            if step < stops_at {
                // Some are away, or on their way back.
                match self.random.u8(0..3) {
                    0 => self.go(),
                    1 => self.come(),
                    _ => self.ask(),
                }
            }
            if step == stops_at {
                self.is_stopping = true;
                self.cluster.shared.advance(Phase::Leaving);
                self.cluster.shared.advance(Phase::Draining);
                self.cluster.shared.ring_all();
            }
            let turns = self.random.usize(0..8);
            self.cluster.step(turns);
            self.read_all();
        }
        let began = self.passed;
        while !self.cluster.is_done() {
            assert!(self.passed - began < Duration::from_secs(8), "the stop takes too long");
            self.cluster.pass(MOMENT);
            self.passed += MOMENT;
            self.read_all();
        }
        for reader in self.readers.iter().filter(|reader| reader.is_live) {
            assert!(reader.is_drained || reader.is_cut, "{:?} is not told why it ends", reader.how);
        }
        self.totals.stops += 1;
    }

    fn judge(&mut self) {
        for reader in &self.readers {
            for (topic, track) in reader.tracks.iter().enumerate() {
                let (deleted, accepted) = (&self.deleted[topic], self.accepted[topic].clone());
                let truth = Truth::new(deleted, accepted, self.history_size, POLICIES[topic] != "disconnect");
                // Of a server that stops those get everything who were there; a poll that is under way is answered with nothing.
                let must_have_all = !self.is_stopping || (reader.is_live && !reader.is_cut);
                let end = must_have_all.then(|| self.now());
                let judged = std::panic::catch_unwind(|| truth.follow(&track.story, end));
                let Ok(seen) = judged else {
                    let lines: Vec<String> =
                        track.story.iter().map(|told| format!("{told:.90?}").chars().take(180).collect()).collect();
                    panic!("{:?} of {} was told:\n{}", reader.how, TOPICS[topic], lines.join("\n"));
                };
                self.totals.seen.add(seen);
            }
        }
    }
}

impl Totals {
    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.published += other.published;
        self.deleted += other.deleted;
        self.came += other.came;
        self.cut += other.cut;
        self.stops += other.stops;
        self.asked += other.asked;
        self.seen.add(other.seen);
    }
}

#[test]
fn nothing_is_lost_in_silence() {
    let mut totals = Totals::default();
    for seed in seeds() {
        match std::panic::catch_unwind(|| Story::new(seed).run()) {
            Ok(story) => totals.add(story),
            Err(_) => panic!("replay with FANTAIL_SEEDS={seed}..{}", seed + 1),
        }
    }
    let Totals { steps, published, deleted, came, cut, asked, stops, seen } = totals;
    let Seen { messages, gaps: [trimmed, slow, epoch], lost } = seen;
    println!(
        "figure: model: {steps} steps in {} stories: {published} publications, {deleted} deletions, {came} comings, {cut} cuts, {asked} \
         askings, {stops} stops; {messages} messages came, {} gaps were told ({trimmed} trimmed, {slow} slow, {epoch} epoch, {lost} \
         unknown), lost in silence 0",
        seeds().count(),
        trimmed + slow + epoch + lost
    );
    let all = [deleted, asked, stops, trimmed, slow, epoch, lost];
    assert!(seeds().count() < 100 || all.iter().all(|count| *count > 0), "nothing is left untried");
}
