//! A worker on a driver without a kernel, for what a benchmark measures and a test counts: Fantail's own share of a delivery.
//!
//! The driver hands the worker its input and takes every send whole at once.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fantail::Config;
use fantail::io::{Bell, Close, Driver, Event, Progress, Received, Segment, Store, Token};
use fantail::mailbox::mesh;
use fantail::metrics::Trouble;
use fantail::worker::{Listener, Shared, Worker};

/// A message as chats have it, in bytes.
const PAYLOAD_BYTES: usize = 128;

/// One worker and its subscribers, or its publisher.
pub struct Server {
    worker: Worker<Loopless>,
    inbox: Inbox,
    subscribers: usize,
}

#[allow(dead_code, reason = "each of those who measure needs a part of it")]
impl Server {
    /// A worker with nobody.
    fn start(config: &Config, connections: usize) -> Self {
        let shared = Arc::new(Shared::new(1, 1, false));
        let options = Arc::new(config.worker_options(1, connections, "none"));
        let mailbox = mesh(1, options.mailbox_requests, options.mailbox_deliveries).remove(0);
        let inbox = Inbox::default();
        let listeners = vec![Listener { loopback: true, admin: false }];
        let worker = Worker::new(Loopless::new(inbox.clone()), 0, options, shared, mailbox, listeners);
        Self { worker, inbox, subscribers: 0 }
    }

    /// A worker with a connection that posts.
    pub fn posting(config: &Config) -> Self {
        let server = Self::start(config, 1);
        server.inbox.push(Input::Connect);
        server
    }

    /// One POST and its answer.
    pub fn post(&mut self, request: &[u8]) {
        self.inbox.push(Input::Bytes(Token { slot: 0, generation: 1 }, request.to_vec()));
        self.turn_until_sent(1);
    }

    /// A worker with this many subscribers of one topic.
    pub fn with(subscribers: usize) -> Self {
        let mut server = Self { subscribers, ..Self::start(&Config::default(), subscribers) };
        for slot in 0..subscribers as u32 {
            server.inbox.push(Input::Connect);
            server.inbox.push(Input::Bytes(Token { slot, generation: 1 }, handshake()));
        }
        server.turn_until_sent(subscribers);
        server
    }

    /// One publication to everybody.
    pub fn publish(&mut self) {
        self.inbox.push(Input::Bytes(Token { slot: 0, generation: 1 }, message()));
        self.turn_until_sent(self.subscribers);
    }

    fn turn_until_sent(&mut self, sends: usize) {
        let goal = self.inbox.sends() + sends;
        while self.inbox.sends() < goal {
            self.worker.turn();
        }
    }
}

fn handshake() -> Vec<u8> {
    b"GET /topics/chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec()
}

/// A masked text frame.
fn message() -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 126, 0, PAYLOAD_BYTES as u8, 0, 0, 0, 0];
    frame.resize(frame.len() + PAYLOAD_BYTES, b'x');
    frame
}

/// What is given to the driver and learned from it. The mutex is taken by one thread alone, once per event and per send; its few
/// nanoseconds are part of the figures.
#[derive(Clone, Debug, Default)]
struct Inbox(Arc<std::sync::Mutex<(VecDeque<Input>, usize)>>);

#[derive(Debug)]
enum Input {
    Connect,
    Bytes(Token, Vec<u8>),
}

impl Inbox {
    fn push(&self, input: Input) {
        self.0.lock().expect("one thread").0.push_back(input);
    }

    fn pop(&self) -> Option<Input> {
        self.0.lock().expect("one thread").0.pop_front()
    }

    fn sends(&self) -> usize {
        self.0.lock().expect("one thread").1
    }
}

#[derive(Clone, Debug)]
struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

/// A driver without a kernel.
#[derive(Debug)]
struct Loopless {
    inbox: Inbox,
    started: Instant,
    next: u32,
    buffer: Vec<u8>,
    store: Store,
    sends: usize,
}

impl Loopless {
    fn new(inbox: Inbox) -> Self {
        Self { inbox, started: Instant::now(), next: 0, buffer: Vec::new(), store: Store::default(), sends: 0 }
    }
}

impl Driver for Loopless {
    type Socket = ();
    type Bell = NoBell;

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn wall_ms(&self) -> u64 {
        1_800_000_000_000
    }

    fn bell(&self) -> NoBell {
        NoBell
    }

    fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn troubles(&self, _kind: Trouble) -> u64 {
        0
    }

    fn wait(&mut self, _timeout: Option<Duration>) {
        self.inbox.0.lock().expect("one thread").1 += std::mem::take(&mut self.sends);
    }

    fn poll(&mut self) -> Option<Event<()>> {
        match self.inbox.pop()? {
            Input::Connect => Some(Event::Accepted { socket: (), peer: SocketAddr::from(([127, 0, 0, 1], 9)), listener: 0 }),
            Input::Bytes(token, bytes) => {
                self.buffer = bytes;
                Some(Event::Received(token, Received::new(self.buffer.len())))
            }
        }
    }

    fn lend(&mut self, _received: Received) -> (&mut [u8], &mut Store) {
        (&mut self.buffer, &mut self.store)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    fn adopt(&mut self, _socket: ()) -> io::Result<Token> {
        self.next += 1;
        Ok(Token { slot: self.next - 1, generation: 1 })
    }

    fn send(&mut self, _token: Token, segments: &[Segment]) -> io::Result<Progress> {
        self.sends += 1;
        let offered =
            |segment: &Segment| black_box(&self.store.bytes(segment.block)[segment.start as usize..segment.end as usize]).len();
        Ok(Progress::Sent(segments.iter().map(offered).sum()))
    }

    fn push(&mut self, _token: Token) -> Option<usize> {
        None
    }

    fn pause_read(&mut self, _token: Token) {}

    fn resume_read(&mut self, _token: Token) {}

    fn limit_unacknowledged(&mut self, _token: Token, _limit: Duration) {}

    fn shutdown_write(&mut self, _token: Token) {}

    fn close(&mut self, _token: Token, _how: Close) {}

    fn pause_accept(&mut self) {}

    fn resume_accept(&mut self) {}

    fn close_listeners(&mut self, _keep: Option<usize>) {}
}
