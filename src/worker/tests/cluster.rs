//! Several workers on scripted drivers, woken exactly as real ones would be, and peers that speak HTTP and WebSocket.

use std::sync::Arc;
use std::time::Duration;

use crate::Config;
use crate::io::scripted::{Mode, PeerId, Scripted, ScriptedBell};
use crate::mailbox::mesh;
use crate::worker::{Listener, Options, Phase, Shared, Worker};

/// Bytes a peer that reads takes at a time.
pub(super) const WINDOW: usize = 1 << 20;
/// Turns after which a cluster that still has work is taken to be in a livelock.
const TURNS_MAX: usize = 200_000;

/// A server of several workers.
pub(super) struct Cluster {
    pub(super) workers: Vec<Worker<Scripted>>,
    pub(super) shared: Arc<Shared<ScriptedBell>>,
    /// For each worker, until when it sleeps if nothing wakes it; `None` while it is awake.
    asleep: Vec<Option<u64>>,
    done: Vec<bool>,
    /// A worker that gets no time.
    pub(super) frozen: Option<usize>,
    now: u64,
    random: fastrand::Rng,
}

impl Cluster {
    pub(super) fn new(workers: usize, mode: Mode, seed: u64, config: &Config) -> Self {
        let shared = Arc::new(Shared::new(workers, seed, false));
        let options = Arc::new(Options {
            mailbox_requests: 4,
            mailbox_deliveries: 4,
            fanout_slice: 3,
            ..config.worker_options(workers, 1000, "scripted")
        });
        let mailboxes = mesh(workers, options.mailbox_requests, options.mailbox_deliveries);
        let make = |(index, mailbox)| {
            let driver = Scripted::new(mode, seed ^ index as u64);
            let listeners = vec![Listener { loopback: true, admin: false }];
            Worker::new(driver, index, Arc::clone(&options), Arc::clone(&shared), mailbox, listeners)
        };
        Self {
            workers: mailboxes.into_iter().enumerate().map(make).collect(),
            shared,
            asleep: vec![None; workers],
            done: vec![false; workers],
            frozen: None,
            now: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Turns workers in random order until all of them sleep and nothing wakes one.
    ///
    /// # Panics
    /// If that does not happen.
    pub(super) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn_one() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// Some turns, fewer than it may take to come to rest.
    pub(super) fn step(&mut self, turns: usize) {
        for _ in 0..turns {
            self.turn_one();
        }
    }

    /// Lets time pass in small steps, as deadlines ask for it.
    pub(super) fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(16);
        let mut left = time;
        while !left.is_zero() {
            let by = left.min(step);
            self.now += by.as_nanos() as u64;
            for worker in &mut self.workers {
                worker.driver.advance(by);
            }
            self.settle();
            left -= by;
        }
    }

    /// One turn of one worker that is awake or would be woken; false if there is none.
    fn turn_one(&mut self) -> bool {
        let ready: Vec<usize> = (0..self.workers.len()).filter(|worker| self.would_turn(*worker)).collect();
        let Some(index) = self.random.choice(&ready).copied() else { return false };
        let worker = &mut self.workers[index];
        if self.asleep[index].take().is_some() {
            use crate::io::Driver;
            worker.driver.wait(None);
            worker.work();
            worker.check();
            self.done[index] = worker.core.drain.is_done();
        } else {
            let timeout = worker.core.sleep_time().expect("a worker sleeps a second at most");
            self.asleep[index] = Some(self.now + timeout.as_nanos() as u64);
        }
        true
    }

    fn would_turn(&self, worker: usize) -> bool {
        if self.frozen == Some(worker) || self.done[worker] || self.shared.phase() == Phase::Stopped {
            return false;
        }
        self.asleep[worker].is_none_or(|until| until <= self.now || self.workers[worker].driver.has_something())
    }

    /// Every worker has ended.
    pub(super) fn is_done(&self) -> bool {
        self.done.iter().all(|done| *done)
    }

    pub(super) fn connect(&mut self, worker: usize, id: PeerId, window: usize) {
        self.workers[worker].driver.connect(id, window);
    }

    /// The driver that has the peer.
    pub(super) fn driver(&mut self, id: PeerId) -> &mut Scripted {
        let worker = self.workers.iter_mut().find(|worker| worker.driver.has(id)).expect("some worker has the peer");
        &mut worker.driver
    }

    pub(super) fn write(&mut self, id: PeerId, bytes: &[u8]) {
        self.driver(id).write(id, bytes);
    }

    pub(super) fn read(&mut self, id: PeerId) -> Vec<u8> {
        self.driver(id).read(id)
    }

    /// A counter, summed over the workers.
    pub(super) fn count(&self, counter: impl Fn(&crate::metrics::WorkerMetrics) -> u64) -> u64 {
        self.shared.all_metrics().map(counter).sum()
    }
}

/// Runs a scenario on both kinds of driver and some seeds.
pub(super) fn each(config: &Config, workers: usize, scenario: impl Fn(&mut Cluster)) {
    for mode in [Mode::Readiness, Mode::Completion] {
        for seed in 0..20 {
            let mut cluster = Cluster::new(workers, mode, seed, config);
            // Shown when the scenario fails.
            println!("{mode:?}, seed {seed}");
            scenario(&mut cluster);
        }
    }
}

/// Connects a WebSocket and reads its 101.
pub(super) fn subscribe(cluster: &mut Cluster, worker: usize, id: u64, target: &str) {
    cluster.connect(worker, id, WINDOW);
    cluster.settle();
    cluster.write(id, &upgrade(target));
    cluster.settle();
    let mut bytes = cluster.read(id);
    assert_eq!(take_head(&mut bytes), Some(101));
    assert!(bytes.is_empty());
}

pub(super) fn frames(cluster: &mut Cluster, id: u64) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    // What a short send left behind comes with the next reads.
    for _ in 0..20 {
        cluster.settle();
        bytes.extend(cluster.read(id));
    }
    let frames = take_frames(&mut bytes);
    assert!(bytes.is_empty(), "half a frame: {bytes:?}");
    frames
}

/// The head of a WebSocket handshake.
pub(super) fn upgrade(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// A POST.
pub(super) fn post(target: &str, body: &str) -> Vec<u8> {
    post_with(target, "", body)
}

/// A POST with further header lines, each with its end.
pub(super) fn post_with(target: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The head of a handshake that offers `fantail.v1`.
pub(super) fn upgrade_to_session(target: &str) -> Vec<u8> {
    let head = String::from_utf8(upgrade(target)).unwrap();
    head.replacen("\r\n\r\n", "\r\nSec-WebSocket-Protocol: fantail.v1\r\n\r\n", 1).into_bytes()
}

/// A masked frame of less than 64 KiB; the mask is zero, so the payload stands as it is.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = match u16::try_from(payload.len()).expect("a short payload") {
        length if length < 126 => vec![first, 0x80 | length as u8],
        length => [&[first, 0x80 | 126][..], &length.to_be_bytes()].concat(),
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Takes the head of an answer off `bytes`: its status, if it is complete.
pub(super) fn take_head(bytes: &mut Vec<u8>) -> Option<u16> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head: Vec<u8> = bytes.drain(..end).collect();
    std::str::from_utf8(&head[9..12]).ok()?.parse().ok()
}

/// Takes the whole frames off `bytes`: opcode and payload.
pub(super) fn take_frames(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 2 {
        assert_eq!(bytes[0] & 0x70, 0, "no reserved bit");
        assert_eq!(bytes[0] & 0x80, 0x80, "whole messages");
        let (start, length) = match bytes[1] {
            126 if bytes.len() >= 4 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
            length if length < 126 => (2, usize::from(length)),
            _ => break,
        };
        if bytes.len() < start + length {
            break;
        }
        let payload = bytes[start..start + length].to_vec();
        frames.push((bytes[0] & 0xF, payload));
        bytes.drain(..start + length);
    }
    frames
}

/// A request for an event stream.
pub(super) fn events(target: &str, last_event_id: Option<&str>) -> Vec<u8> {
    let id = last_event_id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{id}\r\n").into_bytes()
}

/// Takes whole chunks off `bytes`: an event each; the end of the stream is empty.
pub(super) fn take_events(bytes: &mut Vec<u8>) -> Vec<String> {
    let mut events = Vec::new();
    loop {
        let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return events };
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
        if bytes.len() < line + 2 + length + 2 {
            return events;
        }
        let chunk: Vec<u8> = bytes.drain(..line + 2 + length + 2).collect();
        events.push(String::from_utf8(chunk[line + 2..line + 2 + length].to_vec()).unwrap());
    }
}

/// The values of a field of an event, joined as a client joins the lines of its data.
pub(super) fn field(event: &str, name: &str) -> Option<String> {
    let values: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
    (!values.is_empty()).then(|| values.join("\n"))
}
