//! A topic that is deleted again and again: who is there misses nothing, who reads or comes back is told.
//!
//! The oracle is the list of all that was accepted, life after life, in the order of the answers: one connection publishes and deletes, so
//! it is the order of what happened. A reader may pass something over only where it was told of a gap, and only to begin with
//! the first of a later life.

use std::collections::BTreeMap;

use super::cluster::{Cluster, WINDOW, post, take_frames, take_head, upgrade};
use super::simulation::{seeds, take_any_answer};
use crate::Config;
use crate::io::scripted::Mode;

/// A publication: which life of the topic it is of, and its offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Accepted {
    life: usize,
    offset: u64,
}

/// Somebody on an envelope socket that goes on where something is missing.
#[derive(Default)]
struct Reader {
    /// The cursor it came with; empty if it asked for all there is.
    since: String,
    bytes: Vec<u8>,
    has_head: bool,
    objects: Vec<serde_json::Value>,
}

struct Story {
    cluster: Cluster,
    random: fastrand::Rng,
    answers: Vec<u8>,
    accepted: Vec<Accepted>,
    /// Each cursor's place among them.
    places: BTreeMap<String, usize>,
    /// The lives, by their epochs.
    lives: BTreeMap<String, usize>,
    readers: BTreeMap<u64, Reader>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let config = Config { allow_delete: true, history_size: 10_000, ..Config::default() };
        let mut cluster = Cluster::new(random.usize(1..=3), mode, seed, &config);
        cluster.connect(0, 0, WINDOW);
        let (answers, accepted, readers) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { cluster, random, answers, accepted, places: BTreeMap::new(), lives: BTreeMap::new(), readers }
    }

    /// How many gaps were told.
    fn run(mut self) -> usize {
        // The topic lives from here on.
        self.come(1);
        self.cluster.settle();
        for peer in 2..self.random.u64(10..50) {
            match self.random.u8(0..8) {
                0..=4 => self.publish(),
                5 | 6 => self.come(peer),
                _ => self.cluster.write(0, b"DELETE /topics/t HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            }
            let turns = self.random.usize(0..20);
            self.cluster.step(turns);
            self.read_all();
        }
        for _ in 0..60 {
            self.cluster.settle();
            self.read_all();
            for peer in self.readers.keys() {
                self.cluster.driver(*peer).set_window(*peer, WINDOW);
            }
        }
        self.readers.values().map(|reader| self.check(reader)).sum()
    }

    fn publish(&mut self) {
        for _ in 0..self.random.usize(1..8) {
            let text = "x".repeat(self.random.usize(1..100));
            self.cluster.write(0, &post("/topics/t", &text));
        }
    }

    fn come(&mut self, peer: u64) {
        let cursors: Vec<&String> = self.places.keys().collect();
        let since = match self.random.bool() {
            true => self.random.choice(cursors).cloned().unwrap_or_default(),
            false => String::new(),
        };
        let worker = self.random.usize(0..self.cluster.workers.len());
        let window = if self.random.bool() { WINDOW } else { self.random.usize(100..1000) };
        let asked = if since.is_empty() { "earliest" } else { &since };
        let request = upgrade(&format!("/topics/t?envelope&on-gap=continue&since={asked}"));
        self.cluster.connect(worker, peer, window);
        self.cluster.write(peer, &request);
        self.readers.insert(peer, Reader { since, ..Reader::default() });
    }

    fn read_all(&mut self) {
        self.answers.extend(self.cluster.read(0));
        while let Some((status, answer)) = take_any_answer(&mut self.answers) {
            // A deletion for which there is no credit is refused at once.
            if status == 503 {
                assert_eq!(answer["type"], "urn:fantail:problem:busy");
                continue;
            }
            assert_eq!(status, 200, "{answer}");
            let lives = self.lives.len();
            let life = *self.lives.entry(answer["epoch"].as_str().expect("the topic lives").to_owned()).or_insert(lives);
            // A deletion is answered without an offset.
            if let Some(offset) = answer["offset"].as_u64() {
                self.places.insert(answer["cursor"].as_str().unwrap().to_owned(), self.accepted.len());
                self.accepted.push(Accepted { life, offset });
            }
        }
        for (peer, reader) in &mut self.readers {
            reader.bytes.extend(self.cluster.read(*peer));
            reader.has_head |= !reader.has_head && take_head(&mut reader.bytes) == Some(101);
            if reader.has_head {
                let frames = take_frames(&mut reader.bytes).into_iter();
                reader.objects.extend(frames.map(|(_, payload)| serde_json::from_slice::<serde_json::Value>(&payload).unwrap()));
            }
        }
    }

    /// Follows a reader through all that was accepted; how many gaps it was told.
    fn check(&self, reader: &Reader) -> usize {
        // Where it stands: the place of what it must get next, if that is known.
        let mut next = self.places.get(&reader.since).map(|place| place + 1);
        let (mut told, mut gaps) = (next.is_none(), 0);
        for object in &reader.objects {
            if object["type"] == "gap" {
                assert_eq!(object["reason"], "epoch", "{object}");
                (told, gaps) = (true, gaps + 1);
                continue;
            }
            let place = self.places[object["cursor"].as_str().unwrap()];
            let now = self.accepted[place];
            if told {
                assert_eq!(now.offset, 1, "a life begins with its first: {object}");
                let before = next.and_then(|next| self.accepted.get(next.checked_sub(1)?));
                assert!(before.is_none_or(|before| before.life < now.life), "{before:?} {now:?}");
            } else {
                assert_eq!(Some(place), next, "{object}");
            }
            (next, told) = (Some(place + 1), false);
        }
        // What it has not got is of lives that have ended, if it was told so.
        let rest = &self.accepted[next.unwrap_or(0)..];
        let last_life = self.lives.len().saturating_sub(1);
        assert!(rest.iter().all(|accepted| told && accepted.life < last_life), "not up to date: {rest:?}");
        gaps
    }
}

#[test]
fn a_deletion_is_told_to_whom_it_concerns() {
    let mut gaps = 0;
    for seed in seeds() {
        match std::panic::catch_unwind(|| Story::new(seed).run()) {
            Ok(told) => gaps += told,
            Err(_) => panic!("replay with FANTAIL_SEEDS={seed}..{}", seed + 1),
        }
    }
    assert!(gaps > 0, "in no story anybody was told anything");
}
