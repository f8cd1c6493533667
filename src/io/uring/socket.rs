//! What the driver knows of one socket.

use std::os::fd::OwnedFd;

use bitfield_struct::bitfield;

use super::sending::Pins;

/// A socket of the driver, small because every idle connection has one.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) generation: u32,
    pub(super) input: Input,
    pub(super) output: Output,
    /// What came while nobody wanted it.
    pub(super) tail: Option<Box<Tail>>,
    pub(super) flags: Flags,
}

/// The operation that brings a socket's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// None is under way.
    Idle,
    /// A receive.
    Receive,
    /// A poll: the connection is so quiet that a receive would cost more memory than it is worth.
    Watch,
}

/// The one send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// None is under way.
    Idle,
    /// The kernel has it, and may read these blocks of the store.
    Sending(Pins),
    /// The socket had no room: a poll waits for some.
    Full,
    /// The kernel is asked for room again in a moment; until then nothing is under way.
    Resting,
    /// So many bytes were taken, which the worker has not been told yet.
    Sent(u32),
    /// The connection is broken by this errno: nothing will be sent any more.
    Broken(i32),
}

/// Conditions of a socket, a bit each.
#[bitfield(u16)]
pub(super) struct Flags {
    /// Nothing is to be told of its input.
    pub(super) paused: bool,
    /// Its input has ended; there is nothing more to receive.
    pub(super) ended: bool,
    /// The input's operation is being cancelled.
    pub(super) cancelling: bool,
    /// Stands in a list of sockets whose input is to be armed.
    pub(super) listed: bool,
    /// Stands in the list of sockets whose tail is to be told.
    pub(super) tail_listed: bool,
    /// Bytes came since the last sweep.
    pub(super) active: bool,
    /// The next operation for its input is a poll.
    pub(super) quiet: bool,
    /// A poll has found room since the last send.
    pub(super) had_room: bool,
    /// Handed over for closing: its descriptor is closed after its last completion.
    pub(super) closing: bool,
    #[bits(7)]
    _unused: u8,
}

/// Input that came for a paused socket, copied out of the receive buffers because those are for all.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
    /// What lies before was told.
    pub(super) start: usize,
    /// What comes behind the bytes.
    pub(super) end: Option<End>,
}

/// How input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has shut its side.
    Stream,
    /// The connection is broken by this errno.
    Broken(i32),
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, generation: u32) -> Self {
        Self { fd, generation, input: Input::Idle, output: Output::Idle, tail: None, flags: Flags::new() }
    }

    /// An operation for its input is to be armed: none is under way, and what it brings is wanted.
    pub(super) fn wants_input(&self) -> bool {
        let is_unwanted = self.flags.paused() || self.flags.ended() || self.flags.closing();
        self.input == Input::Idle && self.tail.is_none() && !is_unwanted
    }

    /// No completion names it any more.
    pub(super) fn is_at_rest(&self) -> bool {
        self.input == Input::Idle && !matches!(self.output, Output::Sending(_) | Output::Full)
    }
}

const _: () = assert!(size_of::<Socket>() <= 32, "two to a cache line (docs/architecture.md, \"Memory\")");
