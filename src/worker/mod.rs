//! The shell: one thread, one event loop, its own listeners, connections, buffers, deadlines and topics.
//!
//! This is the only place where sockets meet protocols. The protocols below are functions of bytes; the worker carries their bytes
//! and events between the driver, the hub and the other workers, and counts what happens.
//!
//! ```text
//!   wait ─> read ─> mailbox ─> interest ─> fan-out slices ─> deadlines ─> drain ─> flush ─> wake others
//!    ^                                                                                         │
//!    └────────────────────────────────────── one turn ─────────────────────────────────────────┘
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `turn` | the loop and what the driver reports |
//! | `accept` | from a socket to a connection, or a refusal |
//! | `connection`, `outbox` | the state of one socket, and its queue |
//! | `input` | bytes to the protocol, and what must wait |
//! | `http`, `websocket`, `stream` | what the events of the protocols do; streams of events and lines |
//! | `session`, `joining` | requests of `fantail.v1` sockets; their topics, which come and go |
//! | `letters`, `asking` | what workers write to one another; requests to home workers and their answers |
//! | `posting` | one publication by POST, or a batch of them |
//! | `home` | the home worker's duties: number, keep, hand out |
//! | `pattern` | subscriptions to patterns, and what is kept for them |
//! | `run` | publications of a topic that go out as one |
//! | `gate` | when they go out |
//! | `fanout` | publications to their subscribers, and who is slow |
//! | `poll` | a request that waits for something to read |
//! | `positions` | where a stream of several topics stands |
//! | `replay`, `readers` | what was missed, page by page, before what is published; whose turn it is |
//! | `flush` | one write per connection and turn; what was taken, what stalls |
//! | `ending` | every way a connection ends |
//! | `presence` | who is there, and who is told of that |
//! | `timers`, `deadlines` | what happens when time has passed |
//! | `drain` | stopping in order |
//!
//! # What it never does
//!
//! It takes no lock, waits nowhere but in [`Driver::wait`], and allocates nothing per subscriber of a publication. A panic in a
//! connection's protocol step ends that connection; any other panic ends the process, because its state can't be trusted.

mod accept;
mod asking;
mod connection;
mod deadlines;
mod drain;
mod ending;
mod fanout;
mod flush;
mod gate;
mod home;
mod http;
mod input;
mod joining;
mod letters;
mod options;
mod outbox;
mod pattern;
mod poll;
mod positions;
mod posting;
mod presence;
mod readers;
mod replay;
mod run;
mod scanning;
mod session;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod timers;
mod turn;
mod websocket;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::engine::store::{Port, Stored};
use crate::engine::{AppendError, Appended, MemoryEngine};
use crate::frame::Topic;
use crate::http1::DateCache;
use crate::hub::{Hub, Interests, Subscriber};
use crate::io::{Block, Close, Driver, Segment, Token};
use crate::limits::{BufferPool, Tick, TokenBucket};
use crate::mailbox::{Credits, Mailbox};
use crate::metrics::WorkerMetrics;
use crate::v1::Id;

pub use accept::Listener;
pub use letters::{Asker, Delivery, Request};
pub use options::{Options, SlowConsumer};
pub use presence::{Goodbye, Letter};
pub use shared::{Phase, Shared};

use asking::Waiter;
use connection::Connection;
use deadlines::Deadlines;
use drain::Drain;
use gate::Gate;
use outbox::Entries;
use presence::Presence;
use readers::Reader;
use replay::Replay;
use run::Run;
use turn::Busy;

/// Spare buffers a worker keeps, in bytes.
const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One event loop and everything it owns.
#[derive(Debug)]
pub struct Worker<D: Driver> {
    driver: D,
    core: Core<D>,
}

/// All of a worker but its driver, so that bytes the driver lends can be worked on.
#[derive(Debug)]
struct Core<D: Driver> {
    index: usize,
    options: Arc<Options>,
    shared: Arc<Shared<D::Bell>>,
    /// Time of this turn: nanoseconds of the driver's clock, and the same in ticks.
    now: u64,
    tick: Tick,
    date: DateCache,
    wall_seconds: u64,
    busy: Busy,
    /// The last turn left deadlines unlooked at.
    unfinished: bool,
    listeners: Vec<Listener>,

    connections: Vec<Connection>,
    /// Connections that are not gone.
    live: usize,
    /// Connections by the admin listener among them.
    admins: usize,
    /// Sockets that were refused and hear why.
    refused: usize,
    /// Connections whose slot is not free yet.
    held: usize,
    next_id: u32,
    entries: Entries,
    pool: BufferPool,
    deadlines: Deadlines,
    write_windows: Deadlines,
    expired: Vec<u32>,
    segments: Vec<Segment>,
    /// Slots with something to flush.
    dirty: Vec<u32>,
    /// Scratch: the subscribers of one slice.
    slice: Vec<Subscriber>,
    /// Connections that may take input again.
    resumed: Vec<Token>,
    /// Connections the driver is to close.
    closing: Vec<(Token, Close)>,

    hub: Hub<Run>,
    /// Connections that read history, by slot.
    replays: HashMap<u32, Replay, RandomState>,
    /// Those among them that wait for a page, and how many pages were asked for and have not come.
    readers: VecDeque<Reader>,
    last_reader: u16,
    pages_asked: usize,
    /// New event streams, whose peers the kernel is to watch.
    one_way: Vec<Token>,
    /// Ids of publications by `fantail.v1` sockets that wait for their answers, by slot, each with the number that its answer brings.
    publish_ids: HashMap<u32, Vec<(u16, Id)>, RandomState>,
    /// The frame of the `ping` object, once one was sent.
    ping: Option<Block>,
    gate: Gate,
    interests: Interests,
    engine: MemoryEngine<(Asker, Topic), Asker>,
    mailbox: Mailbox<Request<D::Socket>, Delivery>,
    /// Requests to this worker by itself: the lane to oneself.
    own_requests: VecDeque<Request<D::Socket>>,
    own_credits: Credits,
    /// For each home worker, who waits for a credit.
    waiting: Vec<VecDeque<Waiter>>,
    /// Scratch: answers that go out behind the publications they answer.
    answers: Vec<(Asker, Topic, Result<Appended, AppendError>)>,
    /// Other workers that have mail from this turn.
    to_wake: Vec<bool>,

    presence: Presence,

    accept_bucket: Option<TokenBucket>,
    accept_again: Option<Tick>,
    drain: Drain,
    random: fastrand::Rng,
    /// Some home worker gave no credit for an interest; the next answer brings one.
    interest_waits: bool,
    ended: ending::Ended,
}

impl<D: Driver> Worker<D> {
    /// A worker on `driver`, which accepts from `listeners`. `mailbox` is its part of the mesh; `shared` is common to all.
    #[must_use]
    pub fn new(
        driver: D,
        index: usize,
        options: Arc<Options>,
        shared: Arc<Shared<D::Bell>>,
        mailbox: Mailbox<Request<D::Socket>, Delivery>,
        listeners: Vec<Listener>,
    ) -> Self {
        let workers = shared.workers();
        let core = Core {
            index,
            now: driver.now(),
            tick: Tick::from_nanoseconds(driver.now()),
            date: DateCache::new(),
            wall_seconds: driver.wall_ms() / 1000,
            busy: Busy::new(driver.now()),
            unfinished: false,
            listeners,
            connections: Vec::new(),
            live: 0,
            admins: 0,
            refused: 0,
            held: 0,
            next_id: 0,
            entries: Entries::new(),
            pool: BufferPool::new(POOL_BYTES_MAX),
            deadlines: Deadlines::new(),
            write_windows: Deadlines::new(),
            expired: Vec::new(),
            segments: Vec::new(),
            dirty: Vec::new(),
            slice: Vec::new(),
            resumed: Vec::new(),
            closing: Vec::new(),
            hub: Hub::new(workers),
            replays: HashMap::default(),
            readers: VecDeque::new(),
            last_reader: 0,
            pages_asked: 0,
            one_way: Vec::new(),
            publish_ids: HashMap::default(),
            ping: None,
            gate: Gate::new(options.coalesce),
            interests: Interests::new(workers),
            engine: MemoryEngine::new(options.engine, Arc::clone(&options.classes), shared.seed(index)),
            mailbox,
            own_requests: VecDeque::new(),
            own_credits: Credits::new(options.mailbox_requests),
            waiting: (0..workers).map(|_| VecDeque::new()).collect(),
            answers: Vec::new(),
            to_wake: vec![false; workers],
            presence: Presence::new(workers, options.classes.any(presence::has_presence), options.presence),
            accept_bucket: options.accept_rate.map(|rate| TokenBucket::new(rate / workers as f64)),
            accept_again: None,
            drain: Drain::new(),
            random: fastrand::Rng::with_seed(shared.seed(index)),
            interest_waits: false,
            ended: ending::Ended::default(),
            options,
            shared,
        };
        core.shared.set_bell(index, driver.bell());
        Self { driver, core }
    }

    /// Has a store keep what is published on durable topics, and goes on from what it has kept of those this worker is home of.
    pub fn attach(&mut self, port: Port, stored: Vec<Stored>) {
        let Self { driver, core } = self;
        // Publications that wait for the disk hold credits, of which others need some, too.
        core.engine.attach(port, core.options.store_queue_bytes_max, core.options.mailbox_requests.div_ceil(2));
        let left = core.engine.restore(stored, driver.now(), driver.wall_ms());
        if left > 0 {
            tracing::warn!(
                worker = core.index,
                topics = left,
                "stored topics are of no durable class now; they stay stored, and begin anew"
            );
        }
    }
}

impl<D: Driver> Core<D> {
    fn metrics(&self) -> &WorkerMetrics {
        self.shared.metrics(self.index)
    }

    /// The connection a token names, if it is still there.
    fn connection(&mut self, token: Token) -> Option<&mut Connection> {
        self.connections.get_mut(token.slot as usize).filter(|connection| connection.token == token && !connection.flags.gone())
    }

    /// The worker that numbers and hands out a topic's publications.
    fn home_of(&self, topic: &str) -> usize {
        self.shared.home_of(topic)
    }

    /// Has the connection flushed at the end of the turn.
    fn mark_dirty(&mut self, slot: u32) {
        let flags = &mut self.connections[slot as usize].flags;
        if !flags.dirty() && !flags.blocked() && !flags.gone() {
            flags.set_dirty(true);
            self.dirty.push(slot);
        }
    }
}

#[cfg(test)]
impl<D: Driver> Worker<D> {
    /// Checks what must hold between two turns.
    fn check(&self) {
        let core = &self.core;
        core.hub.check_invariants();
        core.presence.check();
        let live = core.connections.iter().filter(|connection| !connection.flags.gone()).count();
        assert_eq!(live, core.live + core.refused);
        let queued: u64 = core.connections.iter().map(|connection| connection.outbox.bytes() as u64).sum();
        assert_eq!(queued, core.entries.queued_bytes());
    }
}
