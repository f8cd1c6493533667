//! Durable topics on several workers, with a store that is as fast, as slow and as faulty as a test wants.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::{Cluster, WINDOW, each, frames, post, subscribe, take_frames};
use super::simulation::{seeds, take_any_answer};
use crate::Config;
use crate::engine::store::{Batch, Inbox, ports};
use crate::io::scripted::Mode;

fn config() -> Config {
    Config {
        data_dir: Some("/nowhere".into()),
        topic_class: vec!["d/*;durable;history-size=1000".parse().unwrap()],
        ..Config::default()
    }
}

/// Gives the workers a store, and returns the store's end.
fn attach(cluster: &mut Cluster) -> Inbox {
    let shared = std::sync::Arc::clone(&cluster.shared);
    let (ports, inbox) = ports(cluster.workers.len(), move |worker| shared.wake(worker));
    cluster.workers.iter_mut().zip(ports).for_each(|(worker, port)| worker.attach(port, Vec::new()));
    inbox
}

fn take(inbox: &mut Inbox) -> Vec<Batch> {
    inbox.wait(Some(Duration::ZERO)).unwrap()
}

fn answers(cluster: &mut Cluster, id: u64) -> Vec<(u16, Value)> {
    cluster.settle();
    let mut bytes = cluster.read(id);
    std::iter::from_fn(|| take_any_answer(&mut bytes)).collect()
}

fn statuses(cluster: &mut Cluster, id: u64) -> Vec<u16> {
    answers(cluster, id).into_iter().map(|(status, _)| status).collect()
}

#[test]
fn an_answer_waits_for_the_disk_and_nobody_else_does() {
    each(&config(), 3, |cluster| {
        let mut inbox = attach(cluster);
        (0..2).for_each(|id| cluster.connect(id as usize, id, WINDOW));
        for (id, worker) in [(10, 0), (11, 1), (12, 2)] {
            subscribe(cluster, worker, id, "/topics/d/a?envelope=1");
        }
        cluster.write(0, &post("/topics/d/a", "kept"));
        cluster.write(1, &post("/topics/other", "x"));
        assert_eq!((statuses(cluster, 0), statuses(cluster, 1)), (vec![], vec![200]));
        assert!((10..13).all(|id| frames(cluster, id).is_empty()));
        let group = take(&mut inbox);
        inbox.stored(&group);
        assert_eq!(statuses(cluster, 0), [200]);
        assert!((10..13).all(|id| frames(cluster, id).len() == 1));
    });
}

#[test]
fn who_is_refused_is_told_why_and_the_next_goes_on() {
    each(&config(), 2, |cluster| {
        let mut inbox = attach(cluster);
        (0..2).for_each(|id| cluster.connect(id as usize, id, WINDOW));
        subscribe(cluster, 1, 10, "/topics/d/a");
        cluster.write(0, &post("/topics/d/a", "lost"));
        cluster.settle();
        inbox.set_up(false);
        let group = take(&mut inbox);
        inbox.failed(&group);
        let refused = answers(cluster, 0);
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].0, &refused[0].1["type"]), (503, &json!("urn:fantail:problem:not-stored")));
        cluster.write(1, &post("/topics/d/a", "at once"));
        assert_eq!(statuses(cluster, 1), [503], "without the store being asked");
        inbox.set_up(true);
        cluster.write(1, &post("/topics/d/a", "kept"));
        cluster.settle();
        let group = take(&mut inbox);
        inbox.stored(&group);
        let (status, body) = answers(cluster, 1).remove(0);
        assert_eq!((status, &body["offset"]), (200, &json!(1)), "the number nobody has heard of");
        assert_eq!(frames(cluster, 10), [(1, b"kept".to_vec())]);
    });
}

/// Publishers and subscribers of one topic, and a store which has groups under way.
struct Story {
    cluster: Cluster,
    inbox: Inbox,
    random: fastrand::Rng,
    under_way: VecDeque<Vec<Batch>>,
    publishers: Vec<Publisher>,
    next: u64,
    accepted: Vec<(u64, String)>,
    refused: usize,
}

#[derive(Default)]
struct Publisher {
    sent: VecDeque<String>,
    unread: Vec<u8>,
}

/// Each has one publication under way: together more than a ring holds.
const PUBLISHERS: u64 = 24;
const SUBSCRIBERS: std::ops::Range<u64> = 100..103;

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::Readiness } else { Mode::Completion };
        let workers = random.usize(1..=3);
        let mut cluster = Cluster::new(workers, mode, seed, &config());
        let inbox = attach(&mut cluster);
        (0..PUBLISHERS).for_each(|id| cluster.connect(id as usize % workers, id, WINDOW));
        SUBSCRIBERS.for_each(|id| subscribe(&mut cluster, id as usize % workers, id, "/topics/d/a"));
        let (under_way, publishers, accepted) =
            (VecDeque::new(), (0..PUBLISHERS).map(|_| Publisher::default()).collect(), Vec::new());
        Self { cluster, inbox, random, under_way, publishers, next: 0, accepted, refused: 0 }
    }

    fn run(&mut self) {
        for _ in 0..40 {
            match self.random.u8(0..10) {
                0..=4 => self.publish(),
                5 | 6 => self.under_way.push_back(take(&mut self.inbox)),
                7 | 8 => self.under_way.drain(..).for_each(|group| self.inbox.stored(&group)),
                _ => {
                    let failed: Vec<Batch> = self.under_way.drain(..).flatten().collect();
                    self.inbox.failed(&failed);
                }
            }
            let turns = self.random.usize(0..30);
            self.cluster.step(turns);
            self.read_answers();
        }
        self.under_way.drain(..).for_each(|group| self.inbox.stored(&group));
        while self.publishers.iter().any(|publisher| !publisher.sent.is_empty()) {
            self.cluster.settle();
            let group = take(&mut self.inbox);
            self.inbox.stored(&group);
            self.read_answers();
        }
    }

    fn publish(&mut self) {
        for _ in 0..self.random.usize(1..24) {
            let id = self.random.u64(0..PUBLISHERS);
            self.next += 1;
            let text = self.next.to_string();
            self.cluster.write(id, &post("/topics/d/a", &text));
            self.publishers[id as usize].sent.push_back(text);
        }
    }

    fn read_answers(&mut self) {
        for (id, publisher) in (0..).zip(&mut self.publishers) {
            publisher.unread.extend(self.cluster.read(id));
            while let Some((status, body)) = take_any_answer(&mut publisher.unread) {
                let text = publisher.sent.pop_front().expect("one answer for each request");
                match status {
                    200 => self.accepted.push((body["offset"].as_u64().unwrap(), text)),
                    503 => self.refused += 1,
                    other => panic!("{other}"),
                }
            }
        }
    }
}

/// Who was told yes finds it with every subscriber, once and in order; nobody finds anything else. More comes back from the store at a time
/// than the rings between the workers hold.
#[test]
fn what_comes_back_in_a_crowd_reaches_everybody_in_order() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in seeds() {
        let mut story = Story::new(seed);
        story.run();
        story.accepted.sort();
        assert!(
            story.accepted.iter().zip(1..).all(|((offset, _), number)| *offset == number),
            "seed {seed}: {:?}",
            story.accepted
        );
        for id in SUBSCRIBERS {
            let mut bytes = story.cluster.read(id);
            let got: Vec<_> = take_frames(&mut bytes).into_iter().map(|(_, text)| String::from_utf8(text).unwrap()).collect();
            assert!(got.iter().eq(story.accepted.iter().map(|(_, text)| text)), "seed {seed}: {got:?}");
        }
        accepted += story.accepted.len();
        refused += story.refused;
    }
    assert!(accepted > 50 && refused > 5, "{accepted} {refused}");
}
