//! The loop: all completions of a turn first, then one send per connection of what they led to.
//!
//! Most sends are done before the submission returns, so their completions are among those that the same call brings.
#![allow(unsafe_code, reason = "a receive's completion names the buffer that has become ours")]

use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use io_uring::squeue::Flags;
use io_uring::types::{Fd, Fixed};
use io_uring::{cqueue, opcode};
use rustix::io::Errno;
use slab::Slab;

use super::super::protocol::{Over, Topics};
use super::batches::Batches;
use super::buffers::Buffers;
use super::connection::{Connection, Phase};
use super::ring::{COMPLETIONS, Operation, Ring, outcome};

/// The loop.
pub struct Server {
    ring: Ring,
    buffers: Buffers,
    listener: TcpListener,
    connections: Slab<Connection>,
    topics: Topics,
    batches: Batches,
    /// Connections that got something to send while no send was under way.
    dirty: Vec<usize>,
}

impl Server {
    /// A loop for the connections of `listener`, of which there are at most `connections_max`.
    pub fn new(listener: TcpListener, connections_max: usize) -> io::Result<Self> {
        let ring = Ring::new(connections_max)?;
        let buffers = Buffers::new(&ring)?;
        Ok(Self {
            ring,
            buffers,
            listener,
            connections: Slab::new(),
            topics: Topics::default(),
            batches: Batches::default(),
            dirty: Vec::new(),
        })
    }

    /// Runs until something fails that concerns all connections.
    pub fn run(mut self) -> io::Result<()> {
        self.accept()?;
        let mut completions = Vec::with_capacity(COMPLETIONS as usize);
        loop {
            self.ring.wait(&mut completions)?;
            for completion in completions.drain(..) {
                self.handle(&completion)?;
            }
            self.fan_out()?;
            self.answer()?;
        }
    }

    fn handle(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        match Operation::of(completion.user_data()) {
            (Operation::Accept, _) => self.accepted(completion),
            (Operation::Receive, id) => self.received(id, completion),
            (Operation::Send, id) => self.sent(id, completion.result()),
            (Operation::Other, _) => Ok(()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).allocate_file_index(true);
        // SAFETY: an accept without an address names no memory.
        unsafe { self.ring.push(&accept.build().user_data(Operation::Accept.token(0))) }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.accept()?;
        }
        let file = match outcome(completion.result()) {
            Ok(file) => Fixed(file as u32),
            // The client that gave up while it was queued.
            Err(Errno::CONNABORTED) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let id = self.connections.insert(Connection::new(file));
        self.connections[id].receive(id, &mut self.ring)
    }

    fn received(&mut self, id: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.is_receiving = cqueue::more(completion.flags());
        let received = outcome(completion.result());
        let mut phase = match received {
            Ok(1..) | Err(Errno::NOBUFS) => connection.phase(),
            // What it asked for before its end it may still get.
            Ok(0) => Phase::Closing,
            Err(_) => Phase::Broken,
        };
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            if connection.phase() == Phase::Open {
                // SAFETY: the completion names this buffer with so many bytes, and it is given back below.
                let bytes = unsafe { self.buffers.filled(buffer, received.unwrap_or_default()) };
                match connection.conversation.take(id, bytes, &mut self.topics, &mut connection.waiting) {
                    Ok(()) => {}
                    Err(Over::Closed) => phase = Phase::Closing,
                    Err(Over::Garbage) => phase = Phase::Broken,
                }
                if connection.can_send() {
                    self.dirty.push(id);
                }
            }
            // SAFETY: the completion made it ours, and the slice of it is used no more.
            unsafe { self.buffers.give_back(buffer) };
        }
        if phase != Phase::Open {
            return self.end(id, phase);
        }
        // The buffers ran out, or the completion queue: the rest comes into what was given back in this turn.
        if connection.is_receiving { Ok(()) } else { connection.receive(id, &mut self.ring) }
    }

    fn sent(&mut self, id: usize, result: i32) -> io::Result<()> {
        match self.connections[id].sent(id, result, &mut self.batches, &mut self.ring)? {
            Phase::Open => Ok(()),
            phase => self.end(id, phase),
        }
    }

    /// One send per subscriber of what the turn brought.
    fn fan_out(&mut self) -> io::Result<()> {
        let Self { ring, connections, topics, batches, .. } = self;
        let mut result = Ok(());
        topics.drain_busy(|topic| {
            let number = batches.fill(&mut topic.frames);
            let batch = batches.get_mut(number);
            for &id in &topic.subscribers {
                let pushed = connections[id].send_batch(id, number, batch, ring);
                if pushed.is_err() {
                    result = pushed;
                }
            }
            batches.free_if_unpinned(number);
        });
        result
    }

    /// One send per connection of what waits.
    fn answer(&mut self) -> io::Result<()> {
        while let Some(id) = self.dirty.pop() {
            // It may have ended in this turn, and its number may be another's already.
            if let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.can_send()) {
                connection.send_waiting(id, &mut self.ring)?;
            }
        }
        Ok(())
    }

    /// Takes the next step to a connection's end, and forgets it at the last.
    fn end(&mut self, id: usize, phase: Phase) -> io::Result<()> {
        let connection = &mut self.connections[id];
        if connection.phase() == Phase::Open {
            connection.conversation.leave(id, &mut self.topics);
        }
        let Some(request) = connection.end(phase) else { return Ok(()) };
        if connection.is_idle() {
            self.connections.remove(id);
        }
        // SAFETY: a close and a cancellation name no memory.
        unsafe { self.ring.push(&request.flags(Flags::SKIP_SUCCESS).user_data(Operation::Other.token(0))) }
    }
}
