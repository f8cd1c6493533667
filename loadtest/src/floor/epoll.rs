//! The floor on epoll, edge-triggered: one wait a turn, one receive per readable connection, one send per answer.
//!
//! A connection is registered for reading only. Whoever is told of room to write from the start is told so once for nothing,
//! so room is asked for where a send came short the first time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;

use mio::event::Event;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::fd::AsRawFd as _;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;

use super::protocol::{Conversation, Over, Topics};

const LISTENER: Token = Token(usize::MAX);

/// Room for what one read brings, in bytes; the same as Fantail's default.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How many connections one wait tells of.
const EVENTS_MAX: usize = 1024;

/// The loop.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    topics: Topics,
}

struct Connection {
    socket: TcpStream,
    conversation: Conversation,
    /// What the kernel did not take.
    out: Vec<u8>,
    /// Whether epoll tells of room to write, too.
    awaits_room: bool,
}

impl Server {
    /// A loop for the connections of `listener`.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE)?;
        Ok(Self { poll, listener, connections: Slab::new(), topics: Topics::default() })
    }

    /// Runs until something fails that concerns all connections.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut receive = vec![0; RECEIVE_BYTES];
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(id) => self.handle(id, event, &mut receive),
                }
            }
            self.fan_out();
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            // Without asking for the client's address, which nobody wants to know.
            let socket = match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                // The client that gave up while it was queued.
                Err(Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut socket = TcpStream::from_std(socket.into());
            let entry = self.connections.vacant_entry();
            self.poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE)?;
            entry.insert(Connection { socket, conversation: Conversation::new(), out: Vec::new(), awaits_room: false });
        }
    }

    fn handle(&mut self, id: usize, event: &Event, receive: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let registry = self.poll.registry();
        let mut result = match () {
            // It was reset: what a read could still bring is not worth the call.
            () if event.is_error() => Err(io::ErrorKind::ConnectionReset.into()),
            () if event.is_writable() => connection.flush(id, registry),
            () => Ok(()),
        };
        if result.is_ok() && event.is_readable() {
            result = connection.read(id, event.is_read_closed(), registry, &mut self.topics, receive);
        }
        if result.is_err() {
            self.remove(id);
        }
    }

    /// One send per subscriber of what the turn brought.
    fn fan_out(&mut self) {
        let mut gone = Vec::new();
        let Self { poll, connections, topics, .. } = self;
        topics.drain_busy(|topic| {
            for &id in &topic.subscribers {
                if connections[id].send(&topic.frames, id, poll.registry()).is_err() {
                    gone.push(id);
                }
            }
        });
        for id in gone {
            self.remove(id);
        }
    }

    /// Forgets a connection. Its descriptor is closed, and epoll forgets it with that.
    fn remove(&mut self, id: usize) {
        if let Some(connection) = self.connections.try_remove(id) {
            connection.conversation.leave(id, &mut self.topics);
        }
    }
}

impl Connection {
    /// Reads until a read comes short: whatever comes after that is a new edge. An end that was told already is not.
    fn read(
        &mut self,
        id: usize,
        has_ended: bool,
        registry: &Registry,
        topics: &mut Topics,
        receive: &mut [u8],
    ) -> io::Result<()> {
        loop {
            let bytes = match self.socket.read(receive) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let taken = self.conversation.take(id, &mut receive[..bytes], topics, &mut self.out);
            self.flush(id, registry)?;
            match taken {
                Err(Over::Closed) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(Over::Garbage) => return Err(io::ErrorKind::InvalidData.into()),
                Ok(()) if bytes < receive.len() && !has_ended => return Ok(()),
                Ok(()) => {}
            }
        }
    }

    /// Writes what is new, behind what the kernel has not taken yet.
    fn send(&mut self, bytes: &[u8], id: usize, registry: &Registry) -> io::Result<()> {
        let written = if self.out.is_empty() { self.write(bytes, id, registry)? } else { 0 };
        self.out.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn flush(&mut self, id: usize, registry: &Registry) -> io::Result<()> {
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            let written = self.write(&out, id, registry)?;
            self.out = out;
            self.out.drain(..written);
        }
        Ok(())
    }

    /// Writes as much as the kernel takes, and has epoll tell of more room where that isn't all.
    fn write(&mut self, bytes: &[u8], id: usize, registry: &Registry) -> io::Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.socket.write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut self.awaits_room, true) {
                        registry.reregister(&mut self.socket, Token(id), Interest::READABLE | Interest::WRITABLE)?;
                    }
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}
