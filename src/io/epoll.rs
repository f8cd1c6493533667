//! The driver on epoll, by mio.
//!
//! Each socket is registered once, edge-triggered, for both directions. An edge does not come again, so a socket that was not read
//! to its end (its budget is spent, or reading is paused) stays marked readable here, and the ready list brings it back.
//!
//! Receives and sends are made by rustix: bare system calls, without a C library's cancellation points.
//!
//! System calls of a connection: accept4, epoll_ctl, recv, send, close. A receive that did not fill the buffer has emptied the
//! socket (epoll(7)), so the recv that would say EAGAIN is saved.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::Interest;
use mio::unix::SourceFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags};
use slab::Slab;
use socket2::{SockRef, Socket};

use super::clock::Clock;
use super::listening::Listeners;
use super::store::slice;
use super::{Close, Driver, Event, EventBell, Kernel, Options, Progress, Received, SEGMENTS_MAX, Segment, Store, Token};
use crate::metrics::Trouble;

/// Events taken from the kernel in one wait.
const EVENTS_MAX: usize = 1024;
/// Tokens at or above this one name the waker and the listeners.
const SPECIAL: u32 = u32::MAX - 4096;
/// The waker's token; listeners count up from the next one.
const WAKER: u32 = SPECIAL;

/// The driver on epoll.
#[derive(Debug)]
pub struct Epoll {
    poll: mio::Poll,
    events: mio::Events,
    bell: EventBell,
    clock: Clock,
    options: Options,
    listeners: Listeners,
    sockets: Slab<Watched>,
    generation: u32,
    /// Sockets to read in this turn; those whose budget ends go to the back and wait for the next.
    ready: VecDeque<Token>,
    ready_in_turn: usize,
    reading: Option<(Token, usize)>,
    sendable: Vec<Token>,
    closed: Vec<Token>,
    buffer: Box<[u8]>,
    /// Waits that a signal ended.
    interruptions: u64,
    /// Sends that found the kernel short of memory.
    sends_retried: u64,
    store: Store,
}

#[derive(Debug)]
struct Watched {
    socket: OwnedFd,
    generation: u32,
    /// The kernel may hold bytes for us: an edge came, and no receive has found the end since.
    readable: bool,
    /// The peer has shut its side: only a receive of zero bytes is the end.
    hung_up: bool,
    /// The end of its input was told. Every later edge brings it again.
    ended: bool,
    paused: bool,
    /// Stands in the ready list.
    listed: bool,
    /// The last send was short: the worker waits for the next edge.
    blocked: bool,
}

impl Epoll {
    /// Sorts the kernel's events into the lists that `poll` works off.
    fn sort_events(&mut self) {
        for event in &self.events {
            let token = Token::from_bits(event.token().0 as u64);
            if token.generation == 0 && token.slot >= SPECIAL {
                if token.slot > WAKER {
                    self.listeners.came((token.slot - WAKER - 1) as usize);
                }
                continue;
            }
            let Some(watched) = watched(&mut self.sockets, token) else { continue };
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                watched.readable = true;
                watched.hung_up |= event.is_read_closed() || event.is_error();
                list(&mut self.ready, watched, token);
            }
            if watched.blocked && (event.is_writable() || event.is_write_closed()) {
                watched.blocked = false;
                self.sendable.push(token);
            }
        }
        self.events.clear();
    }

    /// Something can be reported without asking the kernel first.
    fn has_work(&self) -> bool {
        !(self.ready.is_empty() && self.sendable.is_empty() && self.closed.is_empty()) || self.listeners.has_work()
    }

    fn read(&mut self) -> Option<Event<OwnedFd>> {
        loop {
            let (token, spent) = match self.reading.take() {
                Some(reading) => reading,
                None if self.ready_in_turn == 0 => return None,
                None => {
                    self.ready_in_turn -= 1;
                    let token = self.ready.pop_front()?;
                    if let Some(watched) = watched(&mut self.sockets, token) {
                        watched.listed = false;
                    }
                    (token, 0)
                }
            };
            let Some(watched) = watched(&mut self.sockets, token) else { continue };
            if watched.paused || !watched.readable {
                continue;
            }
            if spent >= self.options.read_budget_bytes {
                list(&mut self.ready, watched, token);
                continue;
            }
            match rustix::net::recv(&watched.socket, &mut *self.buffer, RecvFlags::empty()) {
                Ok((0, _)) => {
                    watched.readable = false;
                    if !std::mem::replace(&mut watched.ended, true) {
                        return Some(Event::EndOfStream(token));
                    }
                }
                Ok((length, _)) => {
                    watched.readable = length == self.buffer.len() || watched.hung_up;
                    if watched.readable {
                        self.reading = Some((token, spent + length));
                    }
                    return Some(Event::Received(token, Received { length }));
                }
                Err(Errno::AGAIN) => watched.readable = false,
                Err(Errno::INTR) => self.reading = Some((token, spent)),
                Err(error) => {
                    watched.readable = false;
                    return Some(Event::Failed(token, error.into()));
                }
            }
        }
    }
}

impl Kernel for Epoll {
    fn new(options: Options, started: Instant) -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let bell = EventBell::new()?;
        // Edge-triggered like everything else: each ring is an edge, so the counter need not be read.
        poll.registry().register(&mut SourceFd(&bell.as_fd().as_raw_fd()), mio::Token(WAKER as usize), Interest::READABLE)?;
        Ok(Self {
            poll,
            events: mio::Events::with_capacity(EVENTS_MAX),
            bell,
            clock: Clock::new(started),
            buffer: vec![0; options.recv_buffer_bytes].into_boxed_slice(),
            listeners: Listeners::new(options.accept_batch, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK),
            options,
            sockets: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            ready_in_turn: 0,
            reading: None,
            sendable: Vec::new(),
            closed: Vec::new(),
            interruptions: 0,
            sends_retried: 0,
            store: Store::default(),
        })
    }

    fn listen(&mut self, listeners: Vec<Socket>) -> io::Result<()> {
        for (index, socket) in listeners.iter().enumerate() {
            let token = mio::Token(WAKER as usize + 1 + index);
            self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        }
        self.listeners.add(listeners);
        Ok(())
    }
}

impl Driver for Epoll {
    type Socket = OwnedFd;
    type Bell = EventBell;

    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn buffer_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn troubles(&self, kind: Trouble) -> u64 {
        match kind {
            Trouble::Interrupted => self.interruptions,
            Trouble::AcceptAborted => self.listeners.aborted,
            Trouble::SendRetried => self.sends_retried,
            // One buffer is enough, and epoll waits with what finds no room.
            Trouble::BuffersExhausted | Trouble::CompletionsOverflowed | Trouble::OperationsRefused => 0,
        }
    }

    fn wall_ms(&self) -> u64 {
        Clock::wall_ms()
    }

    fn bell(&self) -> EventBell {
        self.bell.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        let timeout = match self.has_work() {
            true => Some(Duration::ZERO),
            false => [timeout, self.listeners.time_left()].into_iter().flatten().min(),
        };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => self.sort_events(),
            Err(error) if error.kind() == ErrorKind::Interrupted => self.interruptions += 1,
            // Only a descriptor that is no epoll can fail here: a fault of ours, and the process ends.
            Err(error) => panic!("epoll_wait: {error}"),
        }
        self.ready_in_turn = self.ready.len();
        self.listeners.begin_turn();
    }

    fn poll(&mut self) -> Option<Event<OwnedFd>> {
        if let Some(token) = self.closed.pop() {
            self.sockets.remove(token.slot as usize);
            return Some(Event::Closed(token));
        }
        while let Some(token) = self.sendable.pop() {
            if watched(&mut self.sockets, token).is_some() {
                return Some(Event::Sendable(token, 0));
            }
        }
        self.read().or_else(|| self.listeners.next())
    }

    fn lend(&mut self, received: Received) -> (&mut [u8], &mut Store) {
        (&mut self.buffer[..received.length], &mut self.store)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<Token> {
        let entry = self.sockets.vacant_entry();
        self.generation = self.generation.wrapping_add(1).max(1);
        let token = Token { slot: entry.key() as u32, generation: self.generation };
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), mio::Token(token.to_bits() as usize), both)?;
        entry.insert(Watched {
            socket,
            generation: token.generation,
            readable: false,
            hung_up: false,
            ended: false,
            paused: false,
            listed: false,
            blocked: false,
        });
        Ok(token)
    }

    // Into the loop of a fan-out, which it is half of.
    #[inline(always)]
    fn send(&mut self, token: Token, segments: &[Segment]) -> io::Result<Progress> {
        let Some(watched) = watched(&mut self.sockets, token) else { return Ok(Progress::Sent(0)) };
        let (offered, result) = match segments {
            [only] => {
                let bytes = slice(&self.store, only);
                (bytes.len(), rustix::net::send(&watched.socket, bytes, NO_SIGNAL))
            }
            segments => gather(&watched.socket, &self.store, segments),
        };
        let sent = match result {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            // The kernel is short of memory, not the connection broken: the write time-out bounds the wait.
            Err(Errno::NOBUFS) => {
                self.sends_retried += 1;
                0
            }
            Err(error) => return Err(error.into()),
        };
        watched.blocked = sent < offered;
        Ok(Progress::Sent(sent))
    }

    fn push(&mut self, _token: Token) -> Option<usize> {
        // Every send was answered at once.
        None
    }

    fn pause_read(&mut self, token: Token) {
        if let Some(watched) = watched(&mut self.sockets, token) {
            watched.paused = true;
        }
    }

    fn resume_read(&mut self, token: Token) {
        if let Some(watched) = watched(&mut self.sockets, token) {
            watched.paused = false;
            if watched.readable {
                list(&mut self.ready, watched, token);
            }
        }
    }

    fn limit_unacknowledged(&mut self, token: Token, limit: Duration) {
        if let Some(watched) = watched(&mut self.sockets, token) {
            // Fails only where the peer has already gone.
            let _ = SockRef::from(&watched.socket).set_tcp_user_timeout(Some(limit));
        }
    }

    fn shutdown_write(&mut self, token: Token) {
        if let Some(watched) = watched(&mut self.sockets, token) {
            // Fails only where the peer has already gone, which the next receive reports.
            let _ = SockRef::from(&watched.socket).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token, how: Close) {
        let Some(watched) = watched(&mut self.sockets, token) else { return };
        if how == Close::Reset {
            let _ = SockRef::from(&watched.socket).set_linger(Some(Duration::ZERO));
        }
        // Generation 0 has no owner: until `poll` has reported the close and freed the slot, nothing finds it.
        watched.generation = 0;
        self.closed.push(token);
    }

    fn pause_accept(&mut self) {
        self.listeners.pause();
    }

    fn resume_accept(&mut self) {
        self.listeners.resume();
    }

    fn close_listeners(&mut self, keep: Option<usize>) {
        self.listeners.close(keep);
    }
}

/// A peer that has gone must not kill the process by SIGPIPE.
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// Gives several blocks to the kernel in one call; says how many bytes they have, too. By itself, because the slices are much to have
/// on the stack of who sends one block.
#[inline(never)]
fn gather(socket: &OwnedFd, store: &Store, segments: &[Segment]) -> (usize, rustix::io::Result<usize>) {
    let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
    let mut offered = 0;
    let count = segments.len().min(SEGMENTS_MAX);
    for (place, segment) in slices.iter_mut().zip(segments) {
        *place = IoSlice::new(slice(store, segment));
        offered += place.len();
    }
    let mut nothing = SendAncillaryBuffer::default();
    (offered, rustix::net::sendmsg(socket, &slices[..count], &mut nothing, NO_SIGNAL))
}

fn watched(sockets: &mut Slab<Watched>, token: Token) -> Option<&mut Watched> {
    sockets.get_mut(token.slot as usize).filter(|watched| watched.generation == token.generation)
}

fn list(ready: &mut VecDeque<Token>, watched: &mut Watched, token: Token) {
    if !watched.listed && !watched.paused {
        watched.listed = true;
        ready.push_back(token);
    }
}
