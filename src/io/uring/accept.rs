//! The listeners: one multishot accept each, and what it has brought.
//!
//! An accept goes on until it fails, or is cancelled because accepting pauses. It cannot be told a number, so what it brings beyond
//! `accept_batch` waits here for the next turn; the kernel's own queue, `--backlog`, bounds it.
//!
//! System calls of a new connection: none for the accept, which is a completion, and getpeername(2), because a multishot accept
//! brings no address.

// An operation is handed to the kernel.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{SockRef, Socket};

use super::operation::{self, Operation};
use super::ring::Ring;
use crate::io::Event;
use crate::io::listening::{LISTENER_GRACE, out_of_resources, refuse_handshakes};

/// The listeners of one driver.
#[derive(Debug)]
pub(super) struct Listeners {
    /// By index; closed ones are gone.
    list: Vec<Option<Listener>>,
    /// The listener that stays when the others are closed.
    keep: Option<usize>,
    accepting: bool,
    /// When the listeners close; until then no new handshake begins at them, and those that had begun are accepted.
    closing: Option<Instant>,
    /// Accepted and not yet told, in their order, with the index of the listener.
    waiting: VecDeque<(usize, OwnedFd)>,
    /// Why nothing more can be accepted, not yet told.
    failure: Option<io::Error>,
    batch: usize,
    /// Connections whose peer had gone before they were told.
    pub(super) aborted: u64,
}

#[derive(Debug)]
struct Listener {
    socket: Socket,
    armed: bool,
    cancelling: bool,
    accepted_in_turn: usize,
}

impl Listeners {
    /// Listeners in the order of their indices; each tells at most `batch` connections in a turn.
    pub(super) fn new(sockets: Vec<Socket>, batch: usize) -> Self {
        let listener = |socket| Some(Listener { socket, armed: false, cancelling: false, accepted_in_turn: 0 });
        Self {
            list: sockets.into_iter().map(listener).collect(),
            keep: None,
            accepting: true,
            closing: None,
            waiting: VecDeque::new(),
            failure: None,
            batch,
            aborted: 0,
        }
    }

    /// Begins a turn: accepts are armed where they should be, and cancelled where they should not.
    pub(super) fn arm(&mut self, ring: &mut Ring) {
        let is_over = self.is_over();
        for (index, listener) in self.list.iter_mut().enumerate() {
            let Some(listener) = listener else { continue };
            listener.accepted_in_turn = 0;
            let closes = self.closing.is_some() && Some(index) != self.keep;
            let wanted = if closes { !is_over && self.accepting } else { self.accepting };
            let entry = match (wanted, listener.armed) {
                (true, false) => operation::accept(listener.socket.as_raw_fd(), index as u32),
                (false, true) if !listener.cancelling => operation::cancel(Operation::Accept(index as u32)),
                _ => continue,
            };
            listener.cancelling = listener.armed;
            listener.armed = true;
            // SAFETY: neither operation points at memory.
            unsafe { ring.push(&entry) };
        }
    }

    /// An accept has brought something.
    pub(super) fn completed(&mut self, index: u32, result: i32, more: bool) {
        let index = index as usize;
        if let Some(listener) = self.list[index].as_mut().filter(|_| !more) {
            (listener.armed, listener.cancelling) = (false, false);
        }
        if result >= 0 {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
            return self.waiting.push_back((index, unsafe { OwnedFd::from_raw_fd(result) }));
        }
        let error = io::Error::from_raw_os_error(-result);
        if out_of_resources(&error) {
            self.fail(error);
        } else if result != -Errno::CANCELED.raw_os_error() {
            // The peer gave up while it was queued, or its network failed; the next one may be well (accept(2)).
            self.aborted += 1;
        }
    }

    /// Nothing is accepted until [`Listeners::resume`].
    fn fail(&mut self, error: io::Error) {
        if std::mem::take(&mut self.accepting) {
            self.failure = Some(error);
        }
    }

    /// The next thing to tell.
    pub(super) fn next(&mut self) -> Option<Event<OwnedFd>> {
        while let Some((index, _)) = self.waiting.front() {
            let index = *index;
            if let Some(Some(listener)) = self.list.get_mut(index) {
                if listener.accepted_in_turn == self.batch {
                    return None;
                }
                listener.accepted_in_turn += 1;
            }
            let (listener, socket) = self.waiting.pop_front()?;
            match SockRef::from(&socket).peer_addr().map(|peer| peer.as_socket()) {
                Ok(Some(peer)) => return Some(Event::Accepted { socket, peer, listener }),
                // It was reset in the queue.
                _ => self.aborted += 1,
            }
        }
        if let Some(error) = self.failure.take() {
            return Some(Event::AcceptFailed(error));
        }
        self.close_when_over()
    }

    /// Something can be told without asking the kernel first.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.failure.is_some() || (self.is_over() && !self.leaving().any(|listener| listener.armed))
    }

    /// How long until the listeners close, if they are to.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.closing.map(|at| at.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }

    pub(super) fn pause(&mut self) {
        self.accepting = false;
    }

    pub(super) fn resume(&mut self) {
        self.accepting = true;
    }

    /// Closes all listeners but `keep` once the handshakes that had begun have ended.
    pub(super) fn close(&mut self, keep: Option<usize>) {
        self.closing = Some(Instant::now() + LISTENER_GRACE);
        self.keep = keep;
        self.accepting = true;
        self.leaving().for_each(|listener| refuse_handshakes(&listener.socket));
    }

    fn is_over(&self) -> bool {
        self.closing.is_some_and(|at| at <= Instant::now())
    }

    /// The listeners that are to be closed.
    fn leaving(&self) -> impl Iterator<Item = &Listener> {
        self.list.iter().enumerate().filter(|(index, _)| Some(*index) != self.keep).filter_map(|(_, listener)| listener.as_ref())
    }

    /// Closes the listeners when their time is over, no accept is under way and nobody is queued.
    fn close_when_over(&mut self) -> Option<Event<OwnedFd>> {
        if !self.is_over() || self.leaving().any(|listener| listener.armed) {
            return None;
        }
        // The last look: who came between the accept's last completion and now.
        for index in (0..self.list.len()).filter(|index| Some(*index) != self.keep) {
            while let Some(listener) = &self.list[index] {
                match listener.socket.accept() {
                    Ok((socket, address)) => {
                        if let Some(peer) = address.as_socket() {
                            return Some(Event::Accepted { socket: socket.into(), peer, listener: index });
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => self.aborted += 1,
                    // Nobody is queued, or cannot be had: the listener closes.
                    Err(_) => self.list[index] = None,
                }
            }
        }
        self.closing = None;
        Some(Event::ListenersClosed)
    }
}
