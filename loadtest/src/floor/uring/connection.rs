//! A connection, and the requests that are made for it: one receive and at most one send under way.
//!
//! ```text
//! Open ----> Closing: sends what it has to send ----> cancelled, once: its receive ----> closed, forgotten
//!   `------> Broken: forgets what it has to send -----^ (a send, too)
//! ```
//!
//! It is closed after the last completion, as its number and its bytes belong to what is under way until then.
#![allow(unsafe_code, reason = "a send names the connection's bytes, or a batch's, by address")]

use std::io;
use std::mem;

use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{opcode, squeue};
use rustix::net::{RecvFlags, SendFlags};

use super::super::protocol::Conversation;
use super::batches::{Batch, Batches};
use super::buffers::GROUP;
use super::ring::{Operation, Ring, outcome};

/// The most that one send is asked for, in bytes; what is longer goes on like a short one.
const SEND_BYTES_MAX: usize = 1 << 30;

/// One client.
pub struct Connection {
    file: Fixed,
    /// What its bytes mean.
    pub conversation: Conversation,
    /// What is to be sent after what is under way.
    pub waiting: Vec<u8>,
    /// Its own bytes that are under way. Not touched meanwhile.
    own: Vec<u8>,
    send: Option<Send>,
    /// Whether a receive is under way.
    pub is_receiving: bool,
    /// Whether what it has under way was told to end.
    is_cancelled: bool,
    phase: Phase,
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Open,
    /// Sends what it has to send, then ends.
    Closing,
    /// Ends as soon as nothing is under way.
    Broken,
}

/// A send under way.
#[derive(Clone, Copy)]
struct Send {
    source: Source,
    sent_bytes: usize,
}

#[derive(Clone, Copy)]
enum Source {
    /// The connection's own bytes.
    Own,
    /// What all subscribers get.
    Batch(usize),
}

impl Connection {
    /// One that begins with the upgrade.
    pub const fn new(file: Fixed) -> Self {
        Self {
            file,
            conversation: Conversation::new(),
            waiting: Vec::new(),
            own: Vec::new(),
            send: None,
            is_receiving: false,
            is_cancelled: false,
            phase: Phase::Open,
        }
    }

    /// How far it is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether nothing is under way.
    pub const fn is_idle(&self) -> bool {
        self.send.is_none() && !self.is_receiving
    }

    /// Whether it has something to send and nothing under way that it would have to wait for.
    pub const fn can_send(&self) -> bool {
        self.send.is_none() && !self.waiting.is_empty()
    }

    /// Asks for all that comes, as long as there are buffers.
    pub fn receive(&mut self, id: usize, ring: &mut Ring) -> io::Result<()> {
        self.is_receiving = true;
        let receive = opcode::RecvMulti::new(self.file, GROUP).build().user_data(Operation::Receive.token(id));
        // SAFETY: it writes to provided buffers only, which are the kernel's until a completion names them.
        unsafe { ring.push(&receive) }
    }

    /// Sends a batch, behind what waits already.
    pub fn send_batch(&mut self, id: usize, number: usize, batch: &mut Batch, ring: &mut Ring) -> io::Result<()> {
        if self.send.is_some() || !self.waiting.is_empty() {
            self.waiting.extend_from_slice(batch.bytes());
            return Ok(());
        }
        self.send = Some(Send { source: Source::Batch(number), sent_bytes: 0 });
        batch.pin();
        // SAFETY: the batch is pinned until this send's completion.
        unsafe { ring.push(&send(id, self.file, batch.bytes())) }
    }

    /// Sends what waits. Nothing may be under way.
    pub fn send_waiting(&mut self, id: usize, ring: &mut Ring) -> io::Result<()> {
        self.own.clear();
        mem::swap(&mut self.own, &mut self.waiting);
        self.send = Some(Send { source: Source::Own, sent_bytes: 0 });
        // SAFETY: its own bytes are touched again, and the connection removed, after this send's completion only.
        unsafe { ring.push(&send(id, self.file, &self.own)) }
    }

    /// Goes on after a send's completion: with its rest, or with what waits. Returns the phase that this leads to.
    pub fn sent(&mut self, id: usize, result: i32, batches: &mut Batches, ring: &mut Ring) -> io::Result<Phase> {
        let Some(under_way) = &mut self.send else { return Ok(self.phase) };
        let bytes = match under_way.source {
            Source::Own => &self.own,
            Source::Batch(number) => batches.get_mut(number).bytes(),
        };
        let sent_bytes = outcome(result).unwrap_or_default();
        under_way.sent_bytes += sent_bytes;
        if sent_bytes > 0 && under_way.sent_bytes < bytes.len() && self.phase != Phase::Broken {
            let rest = send(id, self.file, &bytes[under_way.sent_bytes..]);
            // SAFETY: what it reads from stays pinned, as the send stays under way.
            unsafe { ring.push(&rest)? };
            return Ok(self.phase);
        }
        if let Source::Batch(number) = under_way.source {
            batches.unpin(number);
        }
        self.send = None;
        if sent_bytes == 0 {
            return Ok(Phase::Broken);
        }
        if !self.waiting.is_empty() {
            self.send_waiting(id, ring)?;
        }
        Ok(self.phase)
    }

    /// Takes the next step to its end: first what it has to send, then what is under way, then the file. Returns the request for
    /// that step, which names no memory; `None` while only completions are missing.
    pub fn end(&mut self, phase: Phase) -> Option<squeue::Entry> {
        if self.phase != Phase::Broken {
            self.phase = phase;
        }
        if self.phase == Phase::Broken {
            self.waiting.clear();
        } else if self.send.is_some() || !self.waiting.is_empty() {
            return None;
        }
        if self.is_idle() {
            Some(opcode::Close::new(self.file).build())
        } else if !mem::replace(&mut self.is_cancelled, true) {
            Some(opcode::AsyncCancel2::new(CancelBuilder::fd(self.file).all()).build())
        } else {
            None
        }
    }
}

/// A send of as much as the socket takes and then, as it makes room, of the rest: to finish it is the kernel's work.
fn send(id: usize, file: Fixed, bytes: &[u8]) -> squeue::Entry {
    let flags = RecvFlags::WAITALL.bits() | SendFlags::NOSIGNAL.bits();
    let send = opcode::Send::new(file, bytes.as_ptr(), bytes.len().min(SEND_BYTES_MAX) as u32).flags(flags as i32);
    send.build().user_data(Operation::Send.token(id))
}
