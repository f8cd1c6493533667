//! A driver with listeners, peers that are plain sockets, and what the driver has told so far.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::io::{Block, Close, Epoll, Event, Kernel, Options, Progress, Segment, Token, Uring, why_no_uring};
use crate::limits::BufferPool;

/// How long anything may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited for what must not happen.
pub(super) const SILENCE: Duration = Duration::from_millis(60);

/// Small sizes, so that a test meets every limit.
pub(super) const OPTIONS: Options = Options {
    accept_batch: 3,
    read_budget_bytes: 16 * 1024,
    recv_buffer_bytes: 8 * 1024,
    uring_entries: 64,
    uring_buffers: 8,
    uring_buffer_bytes: 4 * 1024,
};

type Make<D> = fn() -> D;

/// A driver under test.
pub(super) struct Bench<D> {
    pub(super) driver: D,
    make: Make<D>,
    pub(super) addresses: Vec<SocketAddr>,
    pool: BufferPool,
    /// Accepted and not adopted: the socket, its peer, the listener's index.
    pub(super) accepted: Vec<(OwnedFd, SocketAddr, usize)>,
    pub(super) told: HashMap<Token, Told>,
    pub(super) listeners_closed: bool,
    pub(super) accept_failures: Vec<io::Error>,
    /// Every received byte becomes this one in place before it is kept, if set.
    pub(super) mask: Option<u8>,
}

/// What was told of one socket.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) received: Vec<u8>,
    /// The largest piece in which bytes came.
    pub(super) piece: usize,
    pub(super) ends: usize,
    pub(super) failures: Vec<io::Error>,
    /// Bytes taken, as far as known, and whether a send is still under way.
    pub(super) taken: usize,
    pub(super) under_way: bool,
    /// The last send was left to the kernel, which reads its bytes later.
    pub(super) is_pinned: bool,
    /// Bytes that had been received when a send was last told of.
    pub(super) received_when_taken: usize,
    pub(super) closed: usize,
}

pub(super) fn epoll() -> Bench<Epoll> {
    Bench::new(|| Epoll::new(OPTIONS, Instant::now()).expect("there are descriptors"))
}

/// `None`, and a word, where this machine has no io_uring.
pub(super) fn uring() -> Option<Bench<Uring>> {
    can_be_had(&OPTIONS).then(|| Bench::new(|| Uring::new(OPTIONS, Instant::now()).expect("there was one just now")))
}

/// io_uring as a kernel before Linux 6.17 has it, which cannot bound a receive.
pub(super) fn uring_once() -> Option<Bench<Uring>> {
    let make: Make<Uring> = || {
        let mut driver = Uring::new(OPTIONS, Instant::now()).expect("there was one just now");
        driver.receive_once();
        driver
    };
    can_be_had(&OPTIONS).then(|| Bench::new(make))
}

/// Where io_uring was asked for it must be there.
pub(in crate::io) fn can_be_had(options: &Options) -> bool {
    let Err(error) = Uring::new(options.clone(), Instant::now()) else { return true };
    let reason = why_no_uring(&error);
    assert!(std::env::var("FANTAIL_IO").as_deref() != Ok("uring"), "io_uring can't be had: {reason}");
    println!("skipped: io_uring can't be had: {reason}");
    false
}

impl<D: Kernel> Bench<D> {
    fn new(make: Make<D>) -> Self {
        let listeners: Vec<_> = (0..2).map(|_| listener()).collect();
        let addresses = listeners.iter().map(address_of).collect();
        let mut driver = make();
        driver.listen(listeners).expect("there is room");
        Self {
            driver,
            make,
            addresses,
            pool: BufferPool::new(0),
            accepted: Vec::new(),
            told: HashMap::new(),
            listeners_closed: false,
            accept_failures: Vec::new(),
            mask: None,
        }
    }

    /// A second driver of the same kind, without listeners.
    pub(super) fn another(&self) -> Self {
        Self { driver: (self.make)(), addresses: Vec::new(), ..Self::new(self.make) }
    }

    /// A peer that connects to the first listener.
    pub(super) fn peer(&self) -> TcpStream {
        let peer = TcpStream::connect(self.addresses[0]).expect("the listener listens");
        peer.set_read_timeout(Some(PATIENCE)).expect("a time-out can be set");
        peer
    }

    /// A peer and the adopted socket.
    pub(super) fn pair(&mut self) -> (TcpStream, Token) {
        let peer = self.peer();
        let local = peer.local_addr().expect("it is connected");
        self.until("the connection is accepted", |bench| bench.accepted.iter().any(|(_, address, _)| *address == local));
        let place = self.accepted.iter().position(|(_, address, _)| *address == local).expect("it was there just now");
        let (socket, ..) = self.accepted.remove(place);
        (peer, self.adopt(socket))
    }

    pub(super) fn adopt(&mut self, socket: OwnedFd) -> Token {
        let token = self.driver.adopt(socket).expect("there is room");
        let before = self.told.insert(token, Told::default());
        assert!(before.is_none(), "a token is used once");
        token
    }

    /// One turn of a worker without work of its own.
    pub(super) fn turn(&mut self, timeout: Duration) {
        self.driver.wait(Some(timeout));
        let start = Instant::now();
        while let Some(event) = self.driver.poll() {
            self.take(event);
            assert!(start.elapsed() < PATIENCE, "the turn does not end; told: {:?}", self.told.keys());
        }
    }

    /// Takes one event in.
    pub(super) fn take(&mut self, event: Event<OwnedFd>) {
        match event {
            Event::Accepted { socket, peer, listener } => self.accepted.push((socket, peer, listener)),
            Event::AcceptFailed(error) => self.accept_failures.push(error),
            Event::ListenersClosed => self.listeners_closed = true,
            Event::Received(token, received) => {
                let length = received.len();
                let (bytes, _) = self.driver.lend(received);
                assert_eq!(bytes.len(), length);
                if let Some(mask) = self.mask {
                    bytes.fill(mask);
                }
                let told = self.told.get_mut(&token).expect("a socket that was adopted");
                assert!(told.ends == 0 && told.closed == 0, "bytes behind the end of {token:?}");
                told.received.extend_from_slice(bytes);
                told.piece = told.piece.max(length);
            }
            Event::EndOfStream(token) => self.living(token).ends += 1,
            Event::Failed(token, error) => self.living(token).failures.push(error),
            Event::Sendable(token, taken) => {
                let told = self.living(token);
                assert!(std::mem::take(&mut told.under_way), "nobody waits for {token:?}");
                told.taken += taken;
                told.received_when_taken = told.received.len();
            }
            Event::Closed(token) => self.living(token).closed += 1,
        }
    }

    /// What was told of a socket that is not closed.
    fn living(&mut self, token: Token) -> &mut Told {
        let told = self.told.get_mut(&token).expect("a socket that was adopted");
        assert_eq!(told.closed, 0, "{token:?} was closed");
        told
    }

    /// Turns until `condition` holds.
    #[track_caller]
    pub(super) fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}; told: {:?}", self.told);
            self.turn(Duration::from_millis(5));
        }
    }

    /// Turns for a while in which nothing should happen.
    pub(super) fn idle(&mut self) {
        let start = Instant::now();
        while start.elapsed() < SILENCE {
            self.turn(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub(super) fn until_received(&mut self, token: Token, bytes: usize) {
        self.until("the bytes are received", |bench| bench.told[&token].received.len() >= bytes);
    }

    /// A block of the store, held until the test ends.
    pub(super) fn block(&mut self, bytes: &[u8]) -> Block {
        self.driver.store().own(bytes.to_vec())
    }

    pub(super) fn release(&mut self, block: Block) {
        self.driver.store().release(block, &mut self.pool);
    }

    /// Offers segments once; how many bytes were taken at once.
    pub(super) fn send(&mut self, token: Token, segments: &[Segment]) -> io::Result<usize> {
        let offered: usize = segments.iter().map(|segment| (segment.end - segment.start) as usize).sum();
        let progress = self.driver.send(token, segments)?;
        let told = self.told.get_mut(&token).expect("a socket that was adopted");
        let taken = match progress {
            Progress::Sent(taken) => taken,
            Progress::Pending => 0,
        };
        told.taken += taken;
        told.under_way = taken < offered;
        told.is_pinned = progress == Progress::Pending;
        Ok(taken)
    }

    /// Sends all of `bytes`, however often that takes.
    #[track_caller]
    pub(super) fn send_all(&mut self, token: Token, bytes: &[u8]) {
        let block = self.block(bytes);
        let before = self.told[&token].taken;
        loop {
            let start = (self.told[&token].taken - before) as u32;
            if start as usize == bytes.len() {
                return self.release(block);
            }
            self.send(token, &[Segment { block, start, end: bytes.len() as u32 }]).expect("the connection is well");
            self.until("the send goes on", |bench| !bench.told[&token].under_way);
        }
    }

    /// Sends until the socket is full and a send is under way; the block it is of, and the bytes taken.
    #[track_caller]
    pub(super) fn fill(&mut self, token: Token) -> Block {
        let block = self.block(&vec![b'x'; FILL_BYTES]);
        let start = Instant::now();
        loop {
            self.send(token, &[Segment { block, start: 0, end: FILL_BYTES as u32 }]).expect("the connection is well");
            for _ in 0..3 {
                self.turn(Duration::from_millis(5));
            }
            if self.told[&token].under_way {
                return block;
            }
            assert!(start.elapsed() < PATIENCE, "the socket takes everything");
        }
    }

    /// Closes, and waits for the word.
    #[track_caller]
    pub(super) fn close(&mut self, token: Token, how: Close) {
        self.driver.close(token, how);
        self.until("the close is told", |bench| bench.told[&token].closed == 1);
    }
}

/// More than a socket takes without a reader.
const FILL_BYTES: usize = 8 * 1024 * 1024;

/// A listener on a free port; what it accepts has small buffers.
fn listener() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).expect("there are descriptors");
    socket.set_send_buffer_size(64 * 1024).expect("a size can be set");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port is free");
    socket.listen(128).expect("it is bound");
    socket
}

fn address_of(listener: &Socket) -> SocketAddr {
    listener.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound")
}

/// Has the socket reset the connection when it is dropped.
pub(super) fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).expect("an option of every socket");
}

pub(super) fn read_exactly(peer: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    peer.read_exact(&mut bytes).expect("the bytes come");
    bytes
}
