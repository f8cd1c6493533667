//! Random histories of members and watchers by seed: they come, are lost, say goodbye and come back, on any worker and in any order of turns;
//! afterwards every watcher knows who is there, and when all have gone nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::cluster::{Cluster, WINDOW, frame, post_with, take_frames, take_head, upgrade};
use super::presence::{LONG, View, config, key, member};
use super::simulation::seeds;
use crate::Config;
use crate::io::scripted::Mode;

/// One of them.
struct History {
    cluster: Cluster,
    random: fastrand::Rng,
    /// Who each open connection is.
    members: BTreeMap<u64, u64>,
    watchers: BTreeMap<u64, (Vec<u8>, View)>,
    next: u64,
}

impl History {
    fn run(seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let kind = if random.bool() { "chat;presence=list" } else { "chat;presence=count" };
        let config = Config { max_presence_members: random.u32(3..8), ..config(kind) };
        let cluster = Cluster::new(random.usize(1..=3), mode, seed, &config);
        let mut history = Self { cluster, random, members: BTreeMap::new(), watchers: BTreeMap::new(), next: 0 };
        for _ in 0..history.random.usize(10..80) {
            history.one_thing();
            let turns = history.random.usize(0..12);
            history.cluster.step(turns);
            if history.random.u8(0..4) == 0 {
                history.cluster.pass(Duration::from_millis(history.random.u64(0..600)));
            }
            history.read_all();
        }
        history.cluster.pass(2 * LONG);
        history.read_all();
        history.check(kind, config.max_presence_members as usize);
        history.end();
    }

    fn one_thing(&mut self) {
        let (worker, number) = (self.random.usize(0..self.cluster.workers.len()), self.random.u64(0..10));
        self.next += 1;
        let id = self.next;
        match self.random.u8(0..8) {
            0..=2 => {
                self.cluster.connect(worker, id, WINDOW);
                self.cluster.write(id, &upgrade(&format!("/topics/chat?client-key={}", key(number))));
                self.members.insert(id, number);
            }
            3 => {
                self.cluster.connect(worker, id, WINDOW);
                let target = format!("/topics/chat?presence&envelope&client-key={}", key(number));
                self.cluster.write(id, &upgrade(&target));
                self.members.insert(id, number);
                self.watchers.insert(id, Default::default());
            }
            4..=6 => {
                let ids: Vec<u64> = self.members.keys().copied().collect();
                let Some(id) = self.random.choice(&ids).copied() else { return };
                self.go(id);
            }
            _ => {
                self.cluster.connect(worker, id, WINDOW);
                self.cluster.write(id, &post_with("/bye", "", &key(number)));
                // Until it is heard: who comes later is not meant by it. What other workers know of it may come at any time.
                while self.cluster.read(id).is_empty() {
                    self.cluster.step(1);
                }
                // Whoever says so goes.
                let gone: Vec<u64> = self.members.iter().filter(|(_, of)| **of == number).map(|(id, _)| *id).collect();
                gone.into_iter().for_each(|id| self.go(id));
            }
        }
    }

    fn go(&mut self, id: u64) {
        // It is heard of before it goes, so that it has been there.
        self.cluster.settle();
        match self.random.u8(0..3) {
            0 => self.cluster.driver(id).reset(id),
            1 => self.cluster.driver(id).shut(id),
            _ => self.cluster.write(id, &frame(0x88, &1000_u16.to_be_bytes())),
        }
        self.members.remove(&id);
        self.watchers.remove(&id);
    }

    fn read_all(&mut self) {
        for (id, (bytes, view)) in &mut self.watchers {
            bytes.extend(self.cluster.read(*id));
            // No frame begins with this byte.
            if bytes.first() == Some(&b'H') && take_head(bytes).is_none() {
                continue;
            }
            for (_, payload) in take_frames(bytes).into_iter().filter(|(opcode, _)| *opcode == 1) {
                view.hear(&serde_json::from_slice(&payload).unwrap());
            }
        }
    }

    fn check(&mut self, kind: &str, listed_max: usize) {
        let there: BTreeSet<String> = self.members.values().copied().map(member).collect();
        for (id, (_, view)) in &self.watchers {
            assert_eq!(view.count, there.len() as u64, "watcher {id}");
            if kind.ends_with("list") {
                assert_eq!(view.members.len(), there.len().min(listed_max), "watcher {id}");
                assert!(view.members.is_subset(&there), "watcher {id}: {:?} of {there:?}", view.members);
            }
        }
        let members: usize = self.cluster.count(|metrics| metrics.presence_members.get()) as usize;
        assert_eq!(members, there.len());
    }

    /// When everybody has gone, nothing is left.
    fn end(&mut self) {
        for id in self.members.keys().copied().collect::<Vec<_>>() {
            self.go(id);
        }
        self.cluster.pass(2 * LONG);
        for worker in &self.cluster.workers {
            assert!(worker.core.presence.is_empty(), "{:?}", worker.core.presence);
        }
    }
}

#[test]
fn random_histories_end_with_everybody_knowing_who_is_there() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| History::run(seed));
        assert!(outcome.is_ok(), "replay with FANTAIL_SEEDS={seed}..{}", seed + 1);
    }
}
