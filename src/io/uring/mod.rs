//! The driver on io_uring: operations are handed to the kernel, which completes them, instead of asking it what is ready.
//!
//! # Why this shape
//!
//! The kernel is entered once a turn: [`Driver::wait`] hands over everything the turn has asked for, has it worked on, sleeps, and
//! comes back with what was completed. A fan-out to a thousand subscribers is a thousand entries of a queue in shared memory and a
//! handful of system calls.
//!
//! | file | idea |
//! |---|---|
//! | `arming` | every operation that is handed over, and their end with the driver |
//! | `ring` | the queues shared with the kernel, and the call that moves them |
//! | `operation` | what is asked, and the names that come back |
//! | `buffers` | receive buffers the kernel chooses from |
//! | `socket`, `reading` | one socket: its operations, and its input in order |
//! | `sending` | what a send points at, and what keeps it in place |
//! | `accept` | hearing who comes to the listeners |
//! | `probe` | what the kernel's ring can do, and why there is none |
//!
//! # The life of an operation
//!
//! ```text
//!             armed when wanted                 every completion but the last says "more"
//!   Idle ------------------------> under way ---------------------------------------------+
//!    ^                             |       ^                                              |
//!    |                             |       +----------------------------------------------+
//!    |                             |
//!    |   the last completion:      |   cancelled by its name, when nobody wants it any more
//!    +--- done, failed, cancelled -+   or its socket closes; it may still complete by itself
//! ```
//!
//! Of each socket at most one operation for input and one for output is under way, beside cancellations of them, whose own
//! completions mean nothing. After [`Driver::close`] they are cancelled; with the last completion the descriptor is closed and
//! [`Event::Closed`] told. Only then are slot and descriptor free, so no operation can meet the next owner of either.
//!
//! - **Input** is a multishot receive, bounded to the read budget; behind its end it is armed anew in the next turn, so a loud client
//!   waits its turn there. It is cancelled when reading is still paused at the end of a turn; what it brings until then is copied into
//!   the socket's tail, at most the read budget. A kernel before Linux 6.17 cannot bound it, and receives buffer by buffer instead. Without
//!   a free buffer the kernel ends the receive; in the next turn those that found none are armed first, for one buffer each.
//! - **Quiet sockets are parked**: where no byte came for a while, a poll takes the receive's place, because idle connections are what
//!   a push server has most of. Measured on Linux 6.18, the kernel's memory for a socket beyond the socket itself: 216 bytes with
//!   epoll, 855 with a receive, 264 with a poll. The poll is for once: one that went on would stay beside the receive.
//! - **Output** is one send, or one sendmsg for several segments. The blocks it points at are held in the store until its completion.
//!   It never waits in the kernel: where the socket has no room, a poll waits for some.
//! - **The bell** is a multishot poll of its eventfd, whose counter nobody needs to read. A worker that has a ring could wake another one
//!   by a message to its ring, in the call with which it falls asleep. Measured with two workers on two CPUs, 4,000 publications a
//!   second to 8 subscribers, that is no better: 10.2 µs of CPU time a delivery each way, of 10 pairs.
//!
//! # What it never does
//!
//! It never closes or reuses what an operation under way names, never frees what the kernel may read or write, not even when it is
//! dropped, and copies input only for a socket whose reading is paused.

mod accept;
mod arming;
mod buffers;
mod operation;
mod probe;
mod reading;
mod ring;
mod sending;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use slab::Slab;
use socket2::SockRef;

use super::clock::Clock;
use super::listening::Listeners;
use super::{Close, Driver, Event, EventBell, Kernel, Options, Progress, Received, Segment, Store, Token};
use crate::metrics::Trouble;
use accept::Doorbell;
use buffers::Buffers;
use operation::{Completion, Operation, Receiving, SLOTS_MAX};
use reading::{Arrival, Lent};
use ring::Ring;
use sending::{Messages, Runs};
use socket::{Output, Socket};

pub(crate) use probe::why_not;
pub(crate) use ring::ENTRIES_MAX;

/// The driver on io_uring.
#[derive(Debug)]
pub struct Uring {
    ring: Ring,
    /// The bell's poll is under way.
    bell_armed: bool,
    bell: EventBell,
    clock: Clock,
    receiving: Receiving,
    recv_buffer_bytes: usize,
    doorbell: Doorbell,
    listeners: Listeners,
    sockets: Slab<Socket>,
    generation: u32,
    /// Scratch: what the kernel has completed.
    completed: Vec<Completion>,
    /// Sockets whose input may have to be armed, or ended.
    to_arm: VecDeque<Token>,
    /// Those of them that found no buffer.
    starved: VecDeque<Token>,
    /// Input in the order of its arrival.
    arrivals: VecDeque<Arrival>,
    /// Sockets that are read again and whose tails come first.
    tails: VecDeque<Token>,
    /// Bytes of all tails.
    kept_bytes: usize,
    /// The bytes the worker works on.
    lent: Lent,
    /// Sockets whose send has been completed.
    sent: Vec<Token>,
    /// Sockets that are asked for room again at this time: the kernel was short of memory, or a poll can't tell when they have some.
    resting: VecDeque<Token>,
    retry_ns: u64,
    /// Sockets whose send has failed.
    broken: Vec<Token>,
    closed: Vec<Token>,
    /// When the next sweep for quiet sockets begins or goes on, and at which slot.
    sweep_ns: u64,
    sweep_slot: usize,
    /// Receives that found no free buffer.
    starvations: u64,
    /// Sends that found the kernel short of memory.
    sends_retried: u64,
    messages: Messages,
    runs: Runs,
    buffers: Buffers,
    store: Store,
}

/// How long a send waits that a poll can't wait for: long enough to cost nothing, short enough for a peer that reads on after it has shut
/// its side.
const RETRY: Duration = Duration::from_millis(10);
/// Sockets that are asked at a time, 2 microseconds each: a crowd of such peers must not have the worker to itself.
const RETRIES_MAX: usize = if cfg!(test) { 2 } else { 256 };

impl Uring {
    /// Receives as with a kernel that cannot bound a receive.
    #[cfg(test)]
    pub(super) fn receive_once(&mut self) {
        self.receiving = Receiving::Once;
    }

    /// Takes what the kernel has completed into the lists that `poll` works off.
    fn reap(&mut self) {
        let mut completed = mem::take(&mut self.completed);
        self.ring.take_completed(&mut completed);
        for completion in &completed {
            let Completion { operation, result, more, .. } = *completion;
            match operation {
                Operation::Receive(token) => self.received(token, completion),
                Operation::Watch(token) => self.watched(token),
                Operation::Send(token) => self.send_completed(token, result),
                Operation::Room(token) => self.room_completed(token, result),
                Operation::Doorbell => self.doorbell.rang(&mut self.listeners),
                Operation::Bell => self.bell_armed = more,
                Operation::Cancel => {}
            }
        }
        self.completed = completed;
    }

    /// The socket's send is done, or has failed.
    fn send_completed(&mut self, token: Token, result: i32) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        if let Output::Sending(pins) = mem::replace(&mut socket.output, Output::Sent(result.max(0) as u32)) {
            self.runs.release(&mut self.store, pins);
        }
        let had_room = socket.flags.had_room();
        socket.flags.set_had_room(false);
        if socket.flags.closing() {
            return self.close_at_rest(token);
        }
        if result >= 0 {
            return self.sent.push(token);
        }
        match Errno::from_raw_os_error(-result) {
            Errno::AGAIN if !had_room => self.arm_room(token),
            // The kernel is short of memory, of which polls know nothing, or was interrupted; the connection is not broken. The write
            // time-out bounds the wait.
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR => {
                self.sends_retried += 1;
                self.rest(token);
            }
            errno => {
                socket.output = Output::Broken(errno.raw_os_error());
                self.broken.push(token);
            }
        }
    }

    /// The socket takes more, or its peer has shut its side, and with that all further polls would end at once.
    fn room_completed(&mut self, token: Token, result: i32) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        socket.output = Output::Sent(0);
        socket.flags.set_had_room(operation::is_room(result));
        match (socket.flags.closing(), socket.flags.had_room()) {
            (true, _) => self.close_at_rest(token),
            (false, true) => self.sent.push(token),
            (false, false) => self.rest(token),
        }
    }

    /// Has the socket asked for room in a moment.
    fn rest(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        socket.output = Output::Resting;
        if self.resting.is_empty() {
            self.retry_ns = self.clock.now() + RETRY.as_nanos() as u64;
        }
        self.resting.push_back(token);
    }

    /// Asks the first of the sockets that rest for room, if it is time; how long until it is time for the next.
    fn retry(&mut self) -> Option<Duration> {
        if self.resting.is_empty() {
            return None;
        }
        let now_ns = self.clock.now();
        if self.retry_ns <= now_ns {
            self.retry_ns = now_ns + RETRY.as_nanos() as u64;
            for _ in 0..self.resting.len().min(RETRIES_MAX) {
                let token = self.resting.pop_front();
                token.into_iter().for_each(|token| self.arm_room(token));
            }
        }
        (!self.resting.is_empty()).then(|| Duration::from_nanos(self.retry_ns - now_ns))
    }

    /// Closes the descriptor of a closing socket after its last completion.
    fn close_at_rest(&mut self, token: Token) {
        if self.sockets.get(token.slot as usize).is_some_and(Socket::is_at_rest) {
            self.closed.push(token);
        }
    }

    /// Something can be told without asking the kernel first.
    fn has_work(&self) -> bool {
        let lists_are_empty = self.sent.is_empty() && self.broken.is_empty() && self.closed.is_empty();
        let no_input = self.arrivals.is_empty() && self.tails.is_empty();
        let all_armed = self.to_arm.is_empty() && self.starved.is_empty();
        !(lists_are_empty && no_input && all_armed) || self.listeners.has_work()
    }

    /// The socket of a token that is neither closed nor closing.
    fn socket(&mut self, token: Token) -> Option<&mut Socket> {
        self.sockets
            .get_mut(token.slot as usize)
            .filter(|socket| socket.generation == token.generation && !socket.flags.closing())
    }

    /// How many bytes of its send the kernel took, if that is known and was not told.
    fn take_sent(&mut self, token: Token) -> Option<usize> {
        let socket = self.socket(token)?;
        let Output::Sent(taken) = socket.output else { return None };
        socket.output = Output::Idle;
        Some(taken as usize)
    }
}

impl Kernel for Uring {
    fn new(options: Options, started: Instant) -> io::Result<Self> {
        let mut ring = Ring::new(options.uring_entries)?;
        probe::check(ring.uring())?;
        let receiving = probe::receiving(&mut ring, options.read_budget_bytes)?;
        let mut driver = Self {
            ring,
            bell_armed: false,
            bell: EventBell::new()?,
            clock: Clock::new(started),
            receiving,
            recv_buffer_bytes: options.recv_buffer_bytes,
            doorbell: Doorbell::new()?,
            listeners: Listeners::new(options.accept_batch, SocketFlags::CLOEXEC),
            sockets: Slab::new(),
            generation: 0,
            completed: Vec::new(),
            to_arm: VecDeque::new(),
            starved: VecDeque::new(),
            arrivals: VecDeque::new(),
            tails: VecDeque::new(),
            kept_bytes: 0,
            lent: Lent::Nothing,
            sent: Vec::new(),
            resting: VecDeque::new(),
            retry_ns: 0,
            broken: Vec::new(),
            closed: Vec::new(),
            sweep_ns: 0,
            sweep_slot: 0,
            starvations: 0,
            sends_retried: 0,
            messages: Messages::new(),
            runs: Runs::default(),
            buffers: Buffers::new(options.uring_buffers, options.uring_buffer_bytes)?,
            store: Store::default(),
        };
        driver.register_buffers()?;
        Ok(driver)
    }

    fn listen(&mut self, listeners: Vec<socket2::Socket>) -> io::Result<()> {
        self.doorbell.listen(&listeners)?;
        self.listeners.add(listeners);
        Ok(())
    }
}

impl Driver for Uring {
    type Socket = OwnedFd;
    type Bell = EventBell;

    fn now(&self) -> u64 {
        self.clock.now()
    }

    fn buffer_bytes(&self) -> usize {
        self.buffers.size_bytes() + self.kept_bytes
    }

    fn troubles(&self, kind: Trouble) -> u64 {
        match kind {
            Trouble::Interrupted => self.ring.interruptions,
            Trouble::AcceptAborted => self.listeners.aborted,
            Trouble::SendRetried => self.sends_retried,
            Trouble::BuffersExhausted => self.starvations,
            Trouble::CompletionsOverflowed => self.ring.overflows,
            Trouble::OperationsRefused => self.ring.refused,
        }
    }

    fn wall_ms(&self) -> u64 {
        Clock::wall_ms()
    }

    fn bell(&self) -> EventBell {
        self.bell.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        self.take_back();
        self.sweep();
        self.arm_inputs();
        self.arm_bell();
        self.doorbell.arm(&self.listeners, &mut self.ring);
        let retry = self.retry();
        let timeout = match self.has_work() {
            true => Some(Duration::ZERO),
            false => [timeout, self.listeners.time_left(), retry].into_iter().flatten().min(),
        };
        self.ring.submit_and_wait(timeout);
        self.reap();
        self.listeners.begin_turn();
    }

    fn poll(&mut self) -> Option<Event<OwnedFd>> {
        self.take_back();
        if let Some(token) = self.closed.pop() {
            // With the socket its descriptor is closed.
            self.sockets.remove(token.slot as usize);
            return Some(Event::Closed(token));
        }
        while let Some(token) = self.sent.pop() {
            if let Some(taken) = self.take_sent(token) {
                return Some(Event::Sendable(token, taken));
            }
        }
        if let Some(event) = self.read() {
            return Some(event);
        }
        while let Some(token) = self.broken.pop() {
            if let Some(&Output::Broken(errno)) = self.socket(token).map(|socket| &socket.output) {
                return Some(Event::Failed(token, io::Error::from_raw_os_error(errno)));
            }
        }
        self.listeners.next()
    }

    fn lend(&mut self, received: Received) -> (&mut [u8], &mut Store) {
        (reading::lend(&self.lent, &mut self.buffers, &mut self.sockets, received.length), &mut self.store)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    fn adopt(&mut self, socket: OwnedFd) -> io::Result<Token> {
        let entry = self.sockets.vacant_entry();
        if entry.key() >= SLOTS_MAX {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.generation = self.generation.wrapping_add(1);
        let token = Token { slot: entry.key() as u32, generation: self.generation };
        entry.insert(Socket::new(socket, token.generation));
        self.list_input(token);
        Ok(token)
    }

    fn send(&mut self, token: Token, segments: &[Segment]) -> io::Result<Progress> {
        self.arm_send(token, segments)
    }

    fn push(&mut self, token: Token) -> Option<usize> {
        if matches!(self.socket(token)?.output, Output::Sending(_) | Output::Full) && self.ring.is_due() {
            self.ring.submit();
            self.reap();
        }
        match self.socket(token)?.output {
            // The error comes with the next send.
            Output::Broken(_) => Some(0),
            Output::Idle | Output::Sending(_) | Output::Full | Output::Resting | Output::Sent(_) => self.take_sent(token),
        }
    }

    fn pause_read(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.flags.set_paused(true);
            self.list_input(token);
        }
    }

    fn resume_read(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            socket.flags.set_paused(false);
            match socket.tail {
                Some(_) => self.list_tail(token),
                None => self.list_input(token),
            }
        }
    }

    fn limit_unacknowledged(&mut self, token: Token, limit: Duration) {
        if let Some(socket) = self.socket(token) {
            // Fails only where the peer has already gone.
            let _ = SockRef::from(&socket.fd).set_tcp_user_timeout(Some(limit));
        }
    }

    fn shutdown_write(&mut self, token: Token) {
        if let Some(socket) = self.socket(token) {
            // Fails only where the peer has already gone, which the next receive reports.
            let _ = SockRef::from(&socket.fd).shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, token: Token, how: Close) {
        let Some(socket) = self.socket(token) else { return };
        if how == Close::Reset {
            let _ = SockRef::from(&socket.fd).set_linger(Some(Duration::ZERO));
        }
        socket.flags.set_closing(true);
        let under_way = match socket.output {
            Output::Sending(_) => Some(Operation::Send(token)),
            Output::Full => Some(Operation::Room(token)),
            Output::Idle | Output::Resting | Output::Sent(_) | Output::Broken(_) => None,
        };
        self.drop_tail(token);
        self.cancel_input(token);
        under_way.into_iter().for_each(|operation| self.cancel(operation));
        self.close_at_rest(token);
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
