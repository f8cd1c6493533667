//! Asking: every operation of a socket is handed to the ring here, where what it points at is known to stay.

// Operations are handed to the kernel.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use super::Uring;
use super::buffers::GROUP;
use super::operation::{self, Operation, Receiving};
use super::socket::{Input, Output};
use crate::io::store::slice;
use crate::io::{Progress, SEGMENTS_MAX, Segment, Token};

/// How long a socket is quiet before it is parked, in nanoseconds; it may take twice as long to be noticed. Well below the usual time
/// between two pings, so that an idle subscriber is parked most of the time; above that between the messages of a lively chat.
/// In tests it is so short that sockets are parked between any two steps.
const QUIET_NS: u64 = if cfg!(test) { 20_000_000 } else { 4_000_000_000 };
/// Slots looked at in one turn.
const SWEEP_SLOTS: usize = 1024;

impl Uring {
    /// Tells the kernel of the receive buffers.
    pub(super) fn register_buffers(&mut self) -> io::Result<()> {
        // SAFETY: dropping a driver ends every operation, or leaves the buffers where they are (`Drop for Uring`).
        unsafe { self.buffers.register(self.ring.uring()) }
    }

    /// Arms the input of the sockets listed for it, and ends that of those whose reading is paused. A pause that the same turn ends costs
    /// nothing.
    ///
    /// Those that found no buffer come first, in the order in which they found none, because buffers are taken in the order of arming:
    /// behind the others they would find none again. Each gets one buffer; more of them than there are buffers would get none.
    pub(super) fn arm_inputs(&mut self) {
        for _ in 0..self.starved.len().min(self.buffers.count()) {
            let token = self.starved.pop_front();
            token.into_iter().for_each(|token| self.arm_input(token, Receiving::Once));
        }
        for _ in 0..self.to_arm.len() {
            let token = self.to_arm.pop_front();
            token.into_iter().for_each(|token| self.arm_input(token, self.receiving));
        }
    }

    fn arm_input(&mut self, token: Token, how: Receiving) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize).filter(|socket| socket.generation == token.generation)
        else {
            return;
        };
        socket.flags.set_listed(false);
        if socket.flags.paused() && socket.input == Input::Receive {
            return self.cancel_input(token);
        }
        if !socket.wants_input() {
            return;
        }
        let entry = match socket.flags.quiet() {
            true => operation::watch(socket.fd.as_raw_fd(), token),
            false => operation::receive(socket.fd.as_raw_fd(), token, GROUP, how),
        };
        socket.input = if socket.flags.quiet() { Input::Watch } else { Input::Receive };
        // SAFETY: neither operation points at memory; buffers are the kernel's while they stand in their ring.
        unsafe { self.ring.push(&entry) };
    }

    /// Has the bell heard.
    pub(super) fn arm_bell(&mut self) {
        if !mem::replace(&mut self.bell_armed, true) {
            // SAFETY: the operation points at no memory.
            unsafe { self.ring.push(&operation::bell(self.bell.as_fd().as_raw_fd())) };
        }
    }

    /// Makes room for one more message of this many slices.
    fn make_room_for_message(&mut self, slices: usize) {
        if !self.messages.has_room(slices) {
            self.ring.submit();
        }
        if self.ring.is_submitted() {
            self.messages.clear();
        }
    }

    /// Hands a send over, the socket's only one.
    pub(super) fn arm_send(&mut self, token: Token, segments: &[Segment]) -> io::Result<Progress> {
        let segments = &segments[..segments.len().min(SEGMENTS_MAX)];
        if segments.len() > 1 {
            self.make_room_for_message(segments.len());
        }
        let Some(socket) = self
            .sockets
            .get_mut(token.slot as usize)
            .filter(|socket| socket.generation == token.generation && !socket.flags.closing())
        else {
            return Ok(Progress::Sent(0));
        };
        match socket.output {
            Output::Idle => {}
            Output::Broken(errno) => return Err(io::Error::from_raw_os_error(errno)),
            Output::Sending(_) | Output::Full | Output::Resting | Output::Sent(_) => {
                unreachable!("at most one send is under way per socket")
            }
        }
        let entry = match segments {
            [only] => operation::send(socket.fd.as_raw_fd(), token, slice(&self.store, only)),
            several => operation::send_message(socket.fd.as_raw_fd(), token, self.messages.add(&self.store, several)),
        };
        socket.output = Output::Sending(self.runs.pin(&mut self.store, segments));
        // SAFETY: the bytes lie in blocks of the store that were just counted for this send: until its completion gives them back none
        // is freed, and an owned one does not grow. Header and slices stay until their entry has left the queue.
        unsafe { self.ring.push(&entry) };
        Ok(Progress::Pending)
    }

    /// Has room in the socket waited for.
    pub(super) fn arm_room(&mut self, token: Token) {
        let Some(socket) = self.socket(token) else { return };
        socket.output = Output::Full;
        let entry = operation::room(socket.fd.as_raw_fd(), token);
        // SAFETY: the operation points at no memory.
        unsafe { self.ring.push(&entry) };
    }

    /// Has the operation end that brings the socket's input, if one is under way.
    pub(super) fn cancel_input(&mut self, token: Token) {
        let Some(socket) = self.sockets.get_mut(token.slot as usize) else { return };
        let operation = match socket.input {
            Input::Receive => Operation::Receive(token),
            Input::Watch => Operation::Watch(token),
            Input::Idle => return,
        };
        if !socket.flags.cancelling() {
            socket.flags.set_cancelling(true);
            self.cancel(operation);
        }
    }

    /// Has an operation end.
    pub(super) fn cancel(&mut self, operation: Operation) {
        // SAFETY: a cancellation points at no memory.
        unsafe { self.ring.push(&operation::cancel(operation)) };
    }

    /// Looks for sockets from which nothing came since the last look, and parks them.
    pub(super) fn sweep(&mut self) {
        let now_ns = self.clock.now();
        if now_ns < self.sweep_ns {
            return;
        }
        let end = self.sweep_slot + SWEEP_SLOTS;
        for slot in self.sweep_slot..end {
            let Some(socket) = self.sockets.get_mut(slot) else { continue };
            if socket.input != Input::Receive {
                continue;
            }
            let was_active = socket.flags.active();
            socket.flags.set_active(false);
            if !was_active && !socket.flags.cancelling() {
                socket.flags.set_quiet(true);
                let token = Token { slot: slot as u32, generation: socket.generation };
                self.cancel_input(token);
            }
        }
        self.sweep_slot = end;
        if end >= self.sockets.capacity() {
            (self.sweep_slot, self.sweep_ns) = (0, now_ns + QUIET_NS);
        }
    }
}

impl Drop for Uring {
    /// Ends every operation before what it names goes. What the kernel does not let go of is left to it for ever: memory that is lost is
    /// better than memory that is written to after it was freed.
    fn drop(&mut self) {
        if self.ring.end_all() {
            return;
        }
        mem::forget(mem::take(&mut self.store));
        self.buffers.leave_to_kernel();
        tracing::error!(operations = self.ring.under_way(), "the kernel does not end its operations; their memory is left to it");
    }
}
