//! What is asked of the kernel, and the name under which its answer comes back.
//!
//! An entry carries 64 bits of the driver's choice, and its completions bring them back: the kind of the operation, and of whom.
//!
//! ```text
//!  63    56 55            32 31             0
//! +--------+----------------+----------------+
//! |  kind  |      slot      |   generation   |
//! +--------+----------------+----------------+
//! ```
//!
//! A slot is free only after its last completion, so the generation is not what keeps a late completion from the slot's next owner.
//! It makes an operation's name its own for ever: an operation is cancelled by its name, never by its descriptor, whose number may
//! by then be another connection's.

// The crate's receive has no setter for the field that bounds how many bytes it brings.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{cqueue, opcode};
use rustix::event::PollFlags;
use rustix::net::SendFlags;

use crate::io::Token;

/// An operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Brings a socket's bytes.
    Receive(Token),
    /// Waits for a socket's bytes without taking them.
    Watch(Token),
    /// Takes bytes to a socket.
    Send(Token),
    /// Waits until a socket takes more.
    Room(Token),
    /// Waits until somebody comes to a listener.
    Doorbell,
    /// Waits for the bell.
    Bell,
    /// Ends another one. What became of that one its own completion tells.
    Cancel,
}

/// Slots have 24 bits of an operation's name.
pub(super) const SLOTS_MAX: usize = 1 << 24;

const RECEIVE: u64 = 1;
const WATCH: u64 = 2;
const SEND: u64 = 3;
const DOORBELL: u64 = 4;
const BELL: u64 = 5;
const CANCEL: u64 = 6;
const ROOM: u64 = 7;

impl Operation {
    /// The name as the kernel carries it.
    pub(super) const fn to_bits(self) -> u64 {
        let (kind, slot, generation) = match self {
            Self::Receive(token) => (RECEIVE, token.slot, token.generation),
            Self::Watch(token) => (WATCH, token.slot, token.generation),
            Self::Send(token) => (SEND, token.slot, token.generation),
            Self::Room(token) => (ROOM, token.slot, token.generation),
            Self::Doorbell => (DOORBELL, 0, 0),
            Self::Bell => (BELL, 0, 0),
            Self::Cancel => (CANCEL, 0, 0),
        };
        kind << 56 | (slot as u64) << 32 | generation as u64
    }

    /// The operation of this name.
    pub(super) fn from_bits(bits: u64) -> Self {
        let slot = (bits >> 32) as u32 & (SLOTS_MAX as u32 - 1);
        let token = Token { slot, generation: bits as u32 };
        match bits >> 56 {
            RECEIVE => Self::Receive(token),
            WATCH => Self::Watch(token),
            SEND => Self::Send(token),
            ROOM => Self::Room(token),
            DOORBELL => Self::Doorbell,
            BELL => Self::Bell,
            CANCEL => Self::Cancel,
            kind => unreachable!("the kernel brings back names it was given, and none is of kind {kind}"),
        }
    }
}

/// How a kernel can receive into buffers of its choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    /// On and on, but no more than this many bytes (Linux 6.17).
    Bounded(u32),
    /// One buffer, then the next operation. Slower, and as bounded.
    Once,
}

/// Receives from a socket into buffers of the group.
pub(super) fn receive(socket: RawFd, token: Token, group: u16, how: Receiving) -> Entry {
    let name = Operation::Receive(token).to_bits();
    match how {
        Receiving::Bounded(bytes_max) => bounded(opcode::RecvMulti::new(Fd(socket), group).build(), bytes_max).user_data(name),
        Receiving::Once => opcode::Recv::new(Fd(socket), std::ptr::null_mut(), 0)
            .buf_group(group)
            .build()
            .flags(io_uring::squeue::Flags::BUFFER_SELECT)
            .user_data(name),
    }
}

/// Bounds the bytes that a multishot receive brings until it ends: the field `optlen` of `struct io_uring_sqe`.
fn bounded(mut entry: Entry, bytes_max: u32) -> Entry {
    const OPTLEN_AT: usize = 44;
    const { assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= align_of::<u32>()) };
    // SAFETY: an `Entry` is `struct io_uring_sqe` and nothing else (`repr(C)`, one field), whose 64 bytes are fixed by the kernel's
    // interface; this field is 4 bytes at offset 44, within the value and aligned, and any bits are valid in it.
    unsafe { std::ptr::from_mut(&mut entry).cast::<u8>().add(OPTLEN_AT).cast::<u32>().write(bytes_max) };
    entry
}

/// Waits until a socket has something to receive.
pub(super) fn watch(socket: RawFd, token: Token) -> Entry {
    let events = PollFlags::IN | PollFlags::RDHUP;
    opcode::PollAdd::new(Fd(socket), u32::from(events.bits())).build().user_data(Operation::Watch(token).to_bits())
}

/// Sends bytes that lie in one piece.
pub(super) fn send(socket: RawFd, token: Token, bytes: &[u8]) -> Entry {
    opcode::Send::new(Fd(socket), bytes.as_ptr(), bytes.len() as u32)
        .flags(SEND_FLAGS)
        .build()
        .user_data(Operation::Send(token).to_bits())
}

/// Sends what a message header points at.
pub(super) fn send_message(socket: RawFd, token: Token, message: *const libc::msghdr) -> Entry {
    opcode::SendMsg::new(Fd(socket), message).flags(SEND_FLAGS as u32).build().user_data(Operation::Send(token).to_bits())
}

/// Waits until a socket takes more, or its peer has shut its side: the kernel adds that to what every poll waits for.
pub(super) fn room(socket: RawFd, token: Token) -> Entry {
    opcode::PollAdd::new(Fd(socket), u32::from(PollFlags::OUT.bits())).build().user_data(Operation::Room(token).to_bits())
}

/// Whether [`room`] has ended for another reason than that the peer has shut its side.
pub(super) fn is_room(result: i32) -> bool {
    let events = PollFlags::OUT | PollFlags::ERR | PollFlags::HUP;
    result < 0 || result & i32::from(events.bits()) != 0
}

/// Waits until somebody is queued at a listener: `epoll` has them all.
pub(super) fn doorbell(epoll: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(epoll), u32::from(PollFlags::IN.bits())).build().user_data(Operation::Doorbell.to_bits())
}

/// Waits for each ring of the bell.
pub(super) fn bell(eventfd: RawFd) -> Entry {
    opcode::PollAdd::new(Fd(eventfd), u32::from(PollFlags::IN.bits())).multi(true).build().user_data(Operation::Bell.to_bits())
}

/// Ends an operation.
pub(super) fn cancel(operation: Operation) -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::user_data(operation.to_bits())).build().user_data(Operation::Cancel.to_bits())
}

/// Ends every operation of the ring.
pub(super) fn cancel_all() -> Entry {
    opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(Operation::Cancel.to_bits())
}

/// What the kernel tells of an operation: its answer, and whether more will come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) operation: Operation,
    /// Not negative: the answer. Negative: an errno.
    pub(super) result: i32,
    /// The buffer the kernel has filled.
    pub(super) buffer: Option<u16>,
    /// The operation goes on; without it this was its last completion.
    pub(super) more: bool,
}

impl Completion {
    pub(super) fn new(entry: &cqueue::Entry) -> Self {
        Self {
            operation: Operation::from_bits(entry.user_data()),
            result: entry.result(),
            buffer: cqueue::buffer_select(entry.flags()),
            more: cqueue::more(entry.flags()),
        }
    }
}

/// A peer that has gone must not kill the process by SIGPIPE. And a send that finds no room comes back at once: left to itself the kernel
/// waits by a poll, which a peer that has shut its side ends without room; after some tries it gives the send to a thread of its own that
/// blocks, one for each such peer.
const SEND_FLAGS: i32 = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT).bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let token = Token { slot: SLOTS_MAX as u32 - 1, generation: u32::MAX };
        for operation in [
            Operation::Receive(token),
            Operation::Watch(token),
            Operation::Send(token),
            Operation::Room(token),
            Operation::Doorbell,
            Operation::Bell,
            Operation::Cancel,
        ] {
            assert_eq!(Operation::from_bits(operation.to_bits()), operation);
        }
    }

    #[test]
    fn the_bound_lies_where_the_kernel_looks_for_it() {
        let token = Token { slot: 3, generation: 4 };
        let entry = receive(5, token, 6, Receiving::Bounded(0x1234_5678));
        // The twin of the write: the kernel's struct, field by field. Only the bound differs from a receive without one.
        let text = format!("{entry:?}");
        assert_eq!(entry.get_user_data(), Operation::Receive(token).to_bits(), "{text}");
        let plain = opcode::RecvMulti::new(Fd(5), 6).build().user_data(Operation::Receive(token).to_bits());
        // SAFETY: both are 64 bytes without padding.
        let [bytes, without] = unsafe { [entry, plain].map(|entry| std::mem::transmute::<Entry, [u8; 64]>(entry)) };
        assert_eq!(bytes[44..48], 0x1234_5678_u32.to_ne_bytes());
        assert!((0..64).all(|at| (44..48).contains(&at) || bytes[at] == without[at]));
    }
}
