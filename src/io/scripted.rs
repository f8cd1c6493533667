//! The driver for tests: seeded, with a clock that stands until it is moved, and peers that live in the test.
//!
//! It keeps every duty of the seam as awkwardly as the seam allows: input is cut anywhere, sends are short, sockets are served in
//! any order. In [`Mode::Completion`] sends are finished later, and a close takes effect only when what was in flight has come back,
//! as with io_uring.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slab::Slab;

use super::{Bell, Close, Driver, Event, Progress, Received, Segment, Store, Token};
use crate::limits::BufferPool;
use crate::metrics::Trouble;

/// How sends are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// At once, as with epoll.
    Readiness,
    /// Later, as with io_uring.
    Completion,
}

/// A test's name for a peer.
pub(crate) type PeerId = u64;

/// The peer's end of a connection, and what the kernel would hold for it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    to_server: VecDeque<u8>,
    fin: bool,
    reset: bool,
    from_server: Vec<u8>,
    /// The peer has gone, and the next send is the first to find out.
    pub(crate) lost: bool,
    /// Bytes that each send offered.
    pub(crate) offers: Vec<usize>,
    /// Bytes the kernel still takes from the server until the peer reads.
    window: usize,
    /// The server has shut its write side.
    pub(crate) server_shut: bool,
    /// How the server has closed.
    pub(crate) closed: Option<Close>,
}

/// A connected socket on its way to a driver.
#[derive(Debug)]
pub(crate) struct VirtualSocket {
    id: PeerId,
    peer: Peer,
}

/// The bell of a scripted driver: a flag the test looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedBell(Arc<AtomicBool>);

impl Bell for ScriptedBell {
    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Watched {
    id: PeerId,
    generation: u32,
    paused: bool,
    end_told: bool,
    /// The worker waits for [`Event::Sendable`].
    blocked: bool,
    in_flight: Vec<Segment>,
    closing: Option<Close>,
}

/// The scripted driver.
#[derive(Debug)]
pub(crate) struct Scripted {
    mode: Mode,
    random: fastrand::Rng,
    now: u64,
    bell: ScriptedBell,
    peers: BTreeMap<PeerId, Peer>,
    arriving: VecDeque<PeerId>,
    sockets: Slab<Watched>,
    generation: u32,
    turn: Vec<u32>,
    buffer: Vec<u8>,
    store: Store,
    pool: BufferPool,
    listening: bool,
    closing_listeners: bool,
}

impl Scripted {
    /// A driver without connections at time zero.
    pub(crate) fn new(mode: Mode, seed: u64) -> Self {
        Self {
            mode,
            random: fastrand::Rng::with_seed(seed),
            now: 0,
            bell: ScriptedBell::default(),
            peers: BTreeMap::new(),
            arriving: VecDeque::new(),
            sockets: Slab::new(),
            generation: 0,
            turn: Vec::new(),
            buffer: Vec::new(),
            store: Store::default(),
            pool: BufferPool::new(0),
            listening: true,
            closing_listeners: false,
        }
    }

    /// A peer connects; the kernel takes `window` bytes for it before it must read.
    pub(crate) fn connect(&mut self, id: PeerId, window: usize) {
        assert!(self.listening, "connection refused");
        self.peers.insert(id, Peer { window, ..Peer::default() });
        self.arriving.push_back(id);
    }

    /// The peer sends.
    pub(crate) fn write(&mut self, id: PeerId, bytes: &[u8]) {
        self.peer(id).to_server.extend(bytes);
    }

    /// The peer shuts its side.
    pub(crate) fn shut(&mut self, id: PeerId) {
        self.peer(id).fin = true;
    }

    /// The peer resets the connection.
    pub(crate) fn reset(&mut self, id: PeerId) {
        self.peer(id).reset = true;
    }

    /// The peer reads everything there is, and makes room for as much.
    pub(crate) fn read(&mut self, id: PeerId) -> Vec<u8> {
        let peer = self.peer(id);
        let bytes = std::mem::take(&mut peer.from_server);
        peer.window += bytes.len();
        bytes
    }

    /// The kernel takes this many bytes more before the peer must read.
    pub(crate) fn set_window(&mut self, id: PeerId, window: usize) {
        self.peer(id).window = window;
    }

    /// Whether the peer is at this driver.
    pub(crate) fn has(&self, id: PeerId) -> bool {
        self.peers.contains_key(&id)
    }

    /// The peer's end.
    pub(crate) fn peer(&mut self, id: PeerId) -> &mut Peer {
        self.peers.get_mut(&id).expect("the peer is at this driver")
    }

    /// Moves the clock.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.now += by.as_nanos() as u64;
    }

    /// Blocks held for sending.
    pub(crate) fn blocks(&self) -> usize {
        self.store.blocks()
    }

    /// Sockets adopted and not yet closed.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// A wait would return at once.
    pub(crate) fn has_something(&self) -> bool {
        self.bell.0.load(Ordering::SeqCst)
            || (self.listening && !self.arriving.is_empty())
            || self.closing_listeners
            || self.sockets.iter().any(|(_, watched)| self.is_ready(watched))
    }

    fn is_ready(&self, watched: &Watched) -> bool {
        let peer = &self.peers[&watched.id];
        let waits_for_room = watched.blocked || !watched.in_flight.is_empty();
        let input = !peer.to_server.is_empty() || ((peer.fin || peer.reset) && !watched.end_told);
        watched.closing.is_some() || (waits_for_room && (peer.window > 0 || peer.reset)) || (input && !watched.paused)
    }

    /// One event of one socket, or `None` if it has nothing to tell.
    fn serve(&mut self, slot: u32) -> Option<Event<VirtualSocket>> {
        let watched = self.sockets.get_mut(slot as usize)?;
        let token = Token { slot, generation: watched.generation };
        let peer = self.peers.get_mut(&watched.id).expect("an adopted socket has a peer");
        if let Some(how) = watched.closing {
            for segment in watched.in_flight.drain(..) {
                self.store.release(segment.block, &mut self.pool);
            }
            peer.closed = Some(how);
            self.sockets.remove(slot as usize);
            return Some(Event::Closed(token));
        }
        // Who is not read finds out by what is being sent.
        let is_sending = watched.blocked || !watched.in_flight.is_empty();
        if peer.reset && !watched.end_told && (!watched.paused || is_sending) {
            watched.end_told = true;
            return Some(Event::Failed(token, io::ErrorKind::ConnectionReset.into()));
        }
        if !watched.in_flight.is_empty() && peer.window > 0 {
            return self.complete(token).map(|taken| Event::Sendable(token, taken));
        }
        if watched.blocked && watched.in_flight.is_empty() && peer.window > 0 {
            watched.blocked = false;
            return Some(Event::Sendable(token, 0));
        }
        if !watched.paused {
            if !peer.to_server.is_empty() {
                let length = self.random.usize(1..=peer.to_server.len());
                self.buffer.clear();
                self.buffer.extend(peer.to_server.drain(..length));
                return Some(Event::Received(token, Received { length }));
            }
            if peer.fin && !watched.end_told {
                watched.end_told = true;
                return Some(Event::EndOfStream(token));
            }
        }
        None
    }

    /// Finishes a send that is in flight: the kernel took some of it, or none.
    fn complete(&mut self, token: Token) -> Option<usize> {
        let watched = self.sockets.get_mut(token.slot as usize).filter(|watched| watched.generation == token.generation)?;
        let offered = std::mem::take(&mut watched.in_flight);
        let peer = self.peers.get_mut(&watched.id).filter(|_| !offered.is_empty())?;
        let taken = take(&self.store, &offered, peer, &mut self.random);
        for segment in offered {
            self.store.release(segment.block, &mut self.pool);
        }
        Some(taken)
    }

    fn watched(&mut self, token: Token) -> Option<&mut Watched> {
        self.sockets
            .get_mut(token.slot as usize)
            .filter(|watched| watched.generation == token.generation && watched.closing.is_none())
    }
}

impl Driver for Scripted {
    type Socket = VirtualSocket;
    type Bell = ScriptedBell;

    fn now(&self) -> u64 {
        self.now
    }

    fn buffer_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn troubles(&self, _kind: Trouble) -> u64 {
        0
    }

    fn wall_ms(&self) -> u64 {
        1_800_000_000_000 + self.now / 1_000_000
    }

    fn bell(&self) -> ScriptedBell {
        self.bell.clone()
    }

    fn wait(&mut self, _timeout: Option<Duration>) {
        self.bell.0.store(false, Ordering::SeqCst);
        self.turn = self.sockets.iter().map(|(slot, _)| slot as u32).collect();
        self.random.shuffle(&mut self.turn);
    }

    fn poll(&mut self) -> Option<Event<VirtualSocket>> {
        while let Some(slot) = self.turn.pop() {
            if let Some(event) = self.serve(slot) {
                return Some(event);
            }
        }
        if self.listening
            && let Some(id) = self.arriving.pop_front()
        {
            let peer = self.peers.remove(&id).expect("an arriving peer is at this driver");
            let address = SocketAddr::from(([127, 0, 0, 1], 40_000));
            return Some(Event::Accepted { socket: VirtualSocket { id, peer }, peer: address, listener: 0 });
        }
        if std::mem::take(&mut self.closing_listeners) {
            self.listening = false;
            return Some(Event::ListenersClosed);
        }
        None
    }

    fn lend(&mut self, _received: Received) -> (&mut [u8], &mut Store) {
        (&mut self.buffer, &mut self.store)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    fn adopt(&mut self, socket: VirtualSocket) -> io::Result<Token> {
        self.generation += 1;
        let generation = self.generation;
        self.peers.insert(socket.id, socket.peer);
        let slot = self.sockets.insert(Watched {
            id: socket.id,
            generation,
            paused: false,
            end_told: false,
            blocked: false,
            in_flight: Vec::new(),
            closing: None,
        });
        Ok(Token { slot: slot as u32, generation })
    }

    fn send(&mut self, token: Token, segments: &[Segment]) -> io::Result<Progress> {
        let mode = self.mode;
        let Some(watched) = self.sockets.get_mut(token.slot as usize).filter(|watched| watched.generation == token.generation)
        else {
            return Ok(Progress::Sent(0));
        };
        assert!(watched.in_flight.is_empty() && !watched.blocked, "one send under way per socket");
        let peer = self.peers.get_mut(&watched.id).expect("an adopted socket has a peer");
        if peer.reset || peer.lost {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let offered: usize = segments.iter().map(|segment| (segment.end - segment.start) as usize).sum();
        peer.offers.push(offered);
        if mode == Mode::Completion {
            for segment in segments {
                self.store.retain(segment.block, 1);
            }
            watched.in_flight = segments.to_vec();
            return Ok(Progress::Pending);
        }
        let taken = take(&self.store, segments, peer, &mut self.random);
        watched.blocked = taken < offered;
        Ok(Progress::Sent(taken))
    }

    fn push(&mut self, token: Token) -> Option<usize> {
        self.complete(token)
    }

    fn pause_read(&mut self, token: Token) {
        if let Some(watched) = self.watched(token) {
            watched.paused = true;
        }
    }

    fn resume_read(&mut self, token: Token) {
        if let Some(watched) = self.watched(token) {
            watched.paused = false;
        }
    }

    fn limit_unacknowledged(&mut self, _token: Token, _limit: Duration) {}

    fn shutdown_write(&mut self, token: Token) {
        if let Some(id) = self.watched(token).map(|watched| watched.id) {
            self.peer(id).server_shut = true;
        }
    }

    fn close(&mut self, token: Token, how: Close) {
        if let Some(watched) = self.watched(token) {
            watched.closing = Some(how);
        }
    }

    fn pause_accept(&mut self) {
        self.listening = false;
    }

    fn resume_accept(&mut self) {
        self.listening = true;
    }

    fn close_listeners(&mut self, _keep: Option<usize>) {
        self.closing_listeners = true;
    }
}

/// Hands a part of what is offered to the peer: often all of it, sometimes less, never more than its window.
fn take(store: &Store, segments: &[Segment], peer: &mut Peer, random: &mut fastrand::Rng) -> usize {
    let offered: usize = segments.iter().map(|segment| (segment.end - segment.start) as usize).sum();
    let most = offered.min(peer.window);
    let taken = if random.u8(..) < 64 { random.usize(0..=most) } else { most };
    let mut left = taken;
    for segment in segments {
        let bytes = &store.bytes(segment.block)[segment.start as usize..segment.end as usize];
        let part = &bytes[..bytes.len().min(left)];
        peer.from_server.extend_from_slice(part);
        left -= part.len();
    }
    peer.window -= taken;
    taken
}
