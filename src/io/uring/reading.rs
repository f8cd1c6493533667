//! Input: arming what brings it, keeping what nobody wants yet, telling it in order.
//!
//! ```text
//!  completion --> arrivals --+--------------------------------> told, lent out of its buffer
//!                            |                                    ^
//!                            +-- reading paused --> tail -- resumed, first of all
//! ```
//!
//! Input that nobody reads belongs into the kernel's buffer of its socket, which stops the peer. So with a pause the receive is ended;
//! a tail holds only what it had brought until then.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use slab::Slab;

use super::Uring;
use super::buffers::Buffers;
use super::operation::Completion;
use super::socket::{End, Input, Socket};
use crate::io::{Event, Received, Token};

/// Input that was not told yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    token: Token,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Bytes { buffer: u16, length: u32 },
    End(End),
}

/// What the worker has been lent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lent {
    Nothing,
    /// A receive buffer.
    Buffer(u16),
    /// The tail of the socket in this slot, from here on.
    Tail {
        slot: u32,
        start: usize,
    },
}

impl Uring {
    /// A receive has brought something.
    pub(super) fn received(&mut self, token: Token, completion: &Completion) {
        let Completion { result, buffer, more, .. } = *completion;
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        if !more {
            socket.input = Input::Idle;
            socket.flags.set_cancelling(false);
        }
        let is_starved = result == -Errno::NOBUFS.raw_os_error();
        self.starvations += u64::from(is_starved);
        let what = match (result, buffer) {
            (1.., Some(buffer)) => Some(What::Bytes { buffer, length: result as u32 }),
            _ => end_of(result).map(What::End),
        };
        match what {
            Some(What::Bytes { .. }) => {
                socket.flags.set_active(true);
                socket.flags.set_quiet(false);
            }
            Some(What::End(_)) => socket.flags.set_ended(true),
            None => {}
        }
        let is_closing = socket.flags.closing();
        match (what, buffer) {
            (Some(What::Bytes { .. }), Some(buffer)) if is_closing => self.buffers.give(buffer),
            (Some(What::End(_)) | None, Some(unused)) => self.buffers.give(unused),
            _ => {}
        }
        if is_closing {
            return self.close_at_rest(token);
        }
        self.arrivals.extend(what.map(|what| Arrival { token, what }));
        match is_starved {
            true => self.list_starved(token),
            false if !more => self.list_input(token),
            false => {}
        }
    }

    /// A parked socket has something to receive, or is unparked.
    pub(super) fn watched(&mut self, token: Token) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        socket.input = Input::Idle;
        socket.flags.set_cancelling(false);
        socket.flags.set_active(true);
        socket.flags.set_quiet(false);
        match socket.flags.closing() {
            true => self.close_at_rest(token),
            false => self.list_input(token),
        }
    }

    /// The next input to tell.
    pub(super) fn read(&mut self) -> Option<Event<OwnedFd>> {
        while let Some(token) = self.tails.pop_front() {
            if let Some(event) = self.read_tail(token) {
                return Some(event);
            }
        }
        while let Some(Arrival { token, what }) = self.arrivals.pop_front() {
            let Some(socket) = self.socket(token) else {
                self.discard(what);
                continue;
            };
            if socket.flags.paused() || socket.tail.is_some() {
                self.keep(token, what);
                continue;
            }
            match what {
                What::Bytes { buffer, length } => {
                    self.lent = Lent::Buffer(buffer);
                    return Some(Event::Received(token, Received::new(length as usize)));
                }
                What::End(end) => return Some(ended(token, end)),
            }
        }
        None
    }

    /// The next part of a tail; behind its last part the socket's input is armed again.
    fn read_tail(&mut self, token: Token) -> Option<Event<OwnedFd>> {
        let part_bytes = self.recv_buffer_bytes;
        let socket = self.socket(token)?;
        socket.flags.set_tail_listed(false);
        if socket.flags.paused() {
            return None;
        }
        let tail = socket.tail.as_mut()?;
        let start = tail.start;
        let length = (tail.bytes.len() - start).min(part_bytes);
        tail.start += length;
        if length > 0 {
            socket.flags.set_tail_listed(true);
            self.lent = Lent::Tail { slot: token.slot, start };
            self.tails.push_front(token);
            return Some(Event::Received(token, Received::new(length)));
        }
        let end = tail.end;
        self.drop_tail(token);
        self.list_input(token);
        end.map(|end| ended(token, end))
    }

    /// Puts input of a socket that is not read behind its tail. It is of one receive, which was under way when reading paused: the
    /// next one is armed when the tail is gone. So a tail is as bounded as a receive.
    fn keep(&mut self, token: Token, what: What) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        let tail = socket.tail.get_or_insert_default();
        match what {
            What::Bytes { buffer, length } if tail.end.is_none() => match tail.bytes.try_reserve(length as usize) {
                Ok(()) => {
                    tail.bytes.extend_from_slice(self.buffers.bytes(buffer, length as usize));
                    self.kept_bytes += length as usize;
                }
                // What came is lost, and with it the connection.
                Err(_) => tail.end = Some(End::Broken(Errno::NOMEM.raw_os_error())),
            },
            What::Bytes { .. } => {}
            What::End(end) => tail.end = tail.end.or(Some(end)),
        }
        self.discard(what);
    }

    /// Gives up what was kept of the socket's input.
    pub(super) fn drop_tail(&mut self, token: Token) {
        let tail = self.sockets.get_mut(token.slot as usize).and_then(|socket| socket.tail.take());
        self.kept_bytes -= tail.map_or(0, |tail| tail.bytes.len());
    }

    /// Gives the buffer of an arrival back.
    fn discard(&mut self, what: What) {
        if let What::Bytes { buffer, .. } = what {
            self.buffers.give(buffer);
        }
    }

    /// Takes back what was lent.
    pub(super) fn take_back(&mut self) {
        if let Lent::Buffer(buffer) = mem::replace(&mut self.lent, Lent::Nothing) {
            self.buffers.give(buffer);
        }
    }

    /// Has the socket's input armed, or ended, before the next sleep.
    pub(super) fn list_input(&mut self, token: Token) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        if !socket.flags.listed() {
            socket.flags.set_listed(true);
            self.to_arm.push_back(token);
        }
    }

    /// As [`Uring::list_input`], before all who found a buffer.
    fn list_starved(&mut self, token: Token) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        if !socket.flags.listed() {
            socket.flags.set_listed(true);
            self.starved.push_back(token);
        }
    }

    /// Has the socket's tail told.
    pub(super) fn list_tail(&mut self, token: Token) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        if !socket.flags.tail_listed() {
            socket.flags.set_tail_listed(true);
            self.tails.push_back(token);
        }
    }
}

/// The bytes that were lent.
pub(super) fn lend<'d>(lent: &Lent, buffers: &'d mut Buffers, sockets: &'d mut Slab<Socket>, length: usize) -> &'d mut [u8] {
    match *lent {
        Lent::Buffer(buffer) => buffers.bytes(buffer, length),
        Lent::Tail { slot, start } => match &mut sockets[slot as usize].tail {
            Some(tail) => &mut tail.bytes[start..start + length],
            None => &mut [],
        },
        Lent::Nothing => &mut [],
    }
}

/// How input ended, if a receive without bytes tells that; otherwise it is to be armed again.
fn end_of(result: i32) -> Option<End> {
    if result >= 0 {
        return Some(End::Stream);
    }
    match Errno::from_raw_os_error(-result) {
        Errno::CANCELED | Errno::NOBUFS | Errno::AGAIN | Errno::INTR | Errno::NOMEM => None,
        errno => Some(End::Broken(errno.raw_os_error())),
    }
}

fn ended(token: Token, end: End) -> Event<OwnedFd> {
    match end {
        End::Stream => Event::EndOfStream(token),
        End::Broken(errno) => Event::Failed(token, io::Error::from_raw_os_error(errno)),
    }
}
