//! The connections of a run, and what a load may do with them.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::time::Duration;

use fantail::frame::OpCode;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;

use crate::client::{Client, Event, Purpose};
use crate::clock::{self, Nanos};
use crate::dial::dial;
use crate::ending::Ending;
use crate::engine::{Load, WAIT_MAX};
use crate::histogram::Histogram;
use crate::target::Target;
use crate::wire;

/// The most that may be queued in the tool before an open loop leaves out what is due, in bytes: seconds of any rate that can be
/// kept, and less than any machine has.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// The connections.
#[derive(Debug)]
pub struct Net {
    registry: Registry,
    targets: Vec<Target>,
    connections: Slab<Connection>,
    /// Connections with something to write or to be removed.
    dirty: Vec<usize>,
    /// Connections that are read again after a pause, though no new edge tells of them.
    resumed: Vec<usize>,
    /// What a protocol obliges a client to say, while its bytes are read.
    replies: Vec<u8>,
    timeout: Nanos,
    /// Bytes that the kernel has not taken, of all connections.
    queued: usize,
    /// How many connections something is awaited of.
    awaited: usize,
    expired_at: Nanos,
    /// How long an event waited inside the tool, between the end of its wait and its read, or the look at what it says.
    pub lag: Histogram,
    /// Pings that were answered.
    pub pings: u64,
}

/// When the phases of an opening ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// `connect` was called.
    pub started: Nanos,
    /// TCP stood.
    pub established: Nanos,
    /// The 101 was read.
    pub opened: Nanos,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    phase: Phase,
    target: usize,
    purpose: Purpose,
    times: Times,
    /// Behind which it goes on, until it has said so; empty if it begins anew.
    cursor: Box<str>,
    /// None until TCP stands, and while it is lent.
    client: Option<Box<Client>>,
    out: Vec<u8>,
    /// How much of `out` is in the sum of all.
    counted: usize,
    /// When something must have come that is awaited; 0 if nothing is.
    deadline: Nanos,
    /// The server's close, while its end of the stream is awaited.
    said: Option<Ending>,
    is_dirty: bool,
    is_reset: bool,
    is_paused: bool,
    awaits_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    /// To be removed once the event at hand is done with, so that its number isn't given to another meanwhile.
    Dropped,
}

impl Net {
    /// Without connections; what is awaited for longer than `timeout` has failed.
    pub fn new(registry: Registry, target: Target, timeout: Nanos) -> Self {
        Self {
            registry,
            targets: vec![target],
            connections: Slab::new(),
            dirty: Vec::new(),
            resumed: Vec::new(),
            replies: Vec::new(),
            timeout,
            queued: 0,
            awaited: 0,
            expired_at: 0,
            lag: Histogram::new(),
            pings: 0,
        }
    }

    /// Adds somewhere to connect to, and returns its index; the run's own URL has 0.
    pub fn add_target(&mut self, target: Target) -> usize {
        self.targets.push(target);
        self.targets.len() - 1
    }

    /// Where the index leads.
    pub fn target(&self, index: usize) -> &Target {
        &self.targets[index]
    }

    /// Starts a connection and returns its number.
    pub fn open(&mut self, now: Nanos, target: usize, purpose: Purpose) -> Result<usize, Ending> {
        self.open_behind(now, target, purpose, "")
    }

    /// The same for a subscriber who comes back: it goes on behind this cursor, unless that is empty.
    pub fn open_behind(&mut self, now: Nanos, target: usize, purpose: Purpose, cursor: &str) -> Result<usize, Ending> {
        let mut socket = dial(&self.targets[target])?;
        socket.set_nodelay(true)?;
        let entry = self.connections.vacant_entry();
        let id = entry.key();
        self.registry.register(&mut socket, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        entry.insert(Connection {
            socket,
            phase: Phase::Connecting,
            target,
            purpose,
            times: Times { started: now, ..Times::default() },
            cursor: cursor.into(),
            client: None,
            out: Vec::new(),
            counted: 0,
            deadline: 0,
            said: None,
            is_dirty: false,
            is_reset: false,
            is_paused: false,
            awaits_end: false,
        });
        self.expect(id, now);
        Ok(id)
    }

    /// What a connection is for, also while its end is being told.
    pub fn purpose(&self, id: usize) -> Purpose {
        self.connections[id].purpose
    }

    /// Whether it had been opened, also while its end is being told.
    pub fn was_open(&self, id: usize) -> bool {
        self.connections[id].times.opened != 0
    }

    /// Queues a WebSocket frame; it leaves at the end of the event or turn, with all that was queued meanwhile.
    pub fn send(&mut self, id: usize, opcode: OpCode, payload: &[u8]) {
        if let Some(connection) = self.connections.get_mut(id) {
            wire::write_masked(opcode, payload, &mut connection.out);
            self.mark(id);
        }
    }

    /// Queues a publication in the connection's own way; with `confirm` an answer follows where the protocol has one.
    pub fn publish(&mut self, id: usize, topic: u32, payload: &[u8], confirm: bool) {
        if let Some(connection) = self.connections.get_mut(id) {
            Client::publish(&self.targets[connection.target], topic, payload, confirm, &mut connection.out);
            self.mark(id);
        }
    }

    /// Queues a long-poll, which waits for so many seconds; [`Load::body`] and [`Load::answered`] follow.
    pub fn poll(&mut self, id: usize, topic: u32, cursor: &str, wait: u32) {
        if let Some(connection) = self.connections.get_mut(id) {
            Client::poll(&self.targets[connection.target], topic, cursor, wait, &mut connection.out);
            self.mark(id);
        }
    }

    /// Queues a subscription of an open connection; [`Load::confirmed`] follows.
    pub fn subscribe(&mut self, id: usize, topic: u32) {
        if let Some(connection) = self.connections.get_mut(id) {
            Client::subscribe(&self.targets[connection.target], topic, &mut connection.out);
            self.mark(id);
        }
    }

    /// Queues its end; [`Load::confirmed`] follows.
    pub fn unsubscribe(&mut self, id: usize, topic: u32) {
        if let Some(connection) = self.connections.get_mut(id) {
            Client::unsubscribe(&self.targets[connection.target], topic, &mut connection.out);
            self.mark(id);
        }
    }

    /// Whether an answer follows a publication on this connection.
    pub fn answers(&self, id: usize, confirm: bool) -> bool {
        self.connections.get(id).is_some_and(|connection| self.targets[connection.target].answers(confirm))
    }

    /// Whether what is due at `now` can't be sent any more: too much waits for the kernel, or the time was over at `until` for longer
    /// than `--timeout`.
    pub const fn is_overrun(&self, now: Nanos, until: Nanos) -> bool {
        self.queued >= QUEUED_BYTES_MAX || self.is_past(now, until)
    }

    /// Whether the time was over at `until` for longer than `--timeout`.
    pub const fn is_past(&self, now: Nanos, until: Nanos) -> bool {
        now >= until.saturating_add(self.timeout)
    }

    /// Ends a connection with RST: nothing stays behind, neither here nor there.
    pub fn reset(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_reset = true;
            // Where it can't be set, the connection ends with FIN instead.
            let _ = socket2::SockRef::from(&connection.socket).set_linger(Some(Duration::ZERO));
        }
        self.drop_connection(id);
    }

    /// Ends our direction at once and goes on reading until the server ends the other, which must be within `--timeout`.
    pub fn half_close(&mut self, id: usize, now: Nanos) {
        if let Some(connection) = self.connections.get(id) {
            // Where it can't, the connection has ended, which its next read tells.
            let _ = connection.socket.shutdown(Shutdown::Write);
            self.expect(id, now);
        }
    }

    /// Ends our direction after what is queued.
    pub fn drop_connection(&mut self, id: usize) {
        if self.connections.contains(id) {
            self.settle_expectation(id);
            self.connections[id].phase = Phase::Dropped;
            self.mark(id);
        }
    }

    /// Does not end with the server's close but waits for the end of its stream: the server closes TCP first (RFC 6455 section
    /// 7.1.1).
    pub fn await_end(&mut self, id: usize, now: Nanos) {
        self.connections[id].awaits_end = true;
        self.expect(id, now);
    }

    /// Something must come within `--timeout`, else the connection ends as timed out.
    pub fn expect(&mut self, id: usize, now: Nanos) {
        let connection = &mut self.connections[id];
        self.awaited += usize::from(connection.deadline == 0);
        connection.deadline = now + self.timeout;
    }

    /// What was expected has come.
    pub fn settle_expectation(&mut self, id: usize) {
        self.awaited -= usize::from(mem::take(&mut self.connections[id].deadline) != 0);
    }

    /// Reads nothing more of a connection, so that the server's writes to it run full.
    pub fn pause(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_paused = true;
        }
    }

    /// Reads it again, beginning with what waits.
    pub fn resume(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id)
            && mem::take(&mut connection.is_paused)
        {
            self.resumed.push(id);
        }
    }

    /// Passes on what the kernel told of a connection; `ends` if the end of its stream is there, too, of which no other edge tells.
    pub fn handle(&mut self, id: usize, ends: bool, receive: &mut [u8], woke_at: Nanos, load: &mut impl Load) {
        // The event may be about one that was removed a moment ago.
        let Some(connection) = self.connections.get(id) else { return };
        let result = match connection.phase {
            Phase::Connecting => self
                .finish_connect(id, woke_at, load)
                .and_then(|stands| if stands { self.read(id, ends, receive, woke_at, load) } else { Ok(()) }),
            Phase::Upgrading | Phase::Open => {
                if !connection.out.is_empty() {
                    self.mark(id);
                }
                self.read(id, ends, receive, woke_at, load)
            }
            Phase::Dropped => Ok(()),
        };
        // Of one that the load has dropped meanwhile nothing more is told.
        if let Err(ending) = result
            && self.connections[id].phase != Phase::Dropped
        {
            self.end(id, ending, load);
        }
        self.settle(load);
    }

    /// Reads those that were resumed.
    pub fn handle_resumed(&mut self, receive: &mut [u8], load: &mut impl Load) {
        while let Some(id) = self.resumed.pop() {
            self.handle(id, true, receive, clock::now(), load);
        }
    }

    /// Whether TCP stands; if so the greeting is queued.
    fn finish_connect(&mut self, id: usize, woke_at: Nanos, load: &mut impl Load) -> Result<bool, Ending> {
        let connection = &mut self.connections[id];
        if let Some(error) = connection.socket.take_error()? {
            return Err(error.into());
        }
        match connection.socket.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            result => result?,
        };
        let cursor = mem::take(&mut connection.cursor);
        let client = Client::greet(&self.targets[connection.target], connection.purpose, &cursor, &mut connection.out);
        let is_open = client.is_open_at_once();
        connection.client = Some(Box::new(client));
        connection.times.established = clock::now();
        self.lag.record(connection.times.established - woke_at);
        connection.phase = Phase::Upgrading;
        if is_open {
            let at = connection.times.established;
            self.tell(id, Event::Opened, at, load);
        }
        self.mark(id);
        Ok(true)
    }

    /// Reads until there is nothing more, as an edge-triggered socket must be.
    fn read(&mut self, id: usize, ends: bool, receive: &mut [u8], woke_at: Nanos, load: &mut impl Load) -> Result<(), Ending> {
        // The client is taken out for as long as it lends payloads, so that the load may send meanwhile.
        let Some(mut client) = self.connections[id].client.take() else { return Ok(()) };
        let result = loop {
            let connection = &mut self.connections[id];
            if connection.phase == Phase::Dropped || connection.is_paused {
                break Ok(());
            }
            let bytes = match connection.socket.read(receive) {
                Ok(0) => break Err(connection.said.take().unwrap_or_else(|| client.handle_end())),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error.into()),
            };
            let at = clock::now();
            self.lag.record(at - woke_at);
            let mut replies = mem::take(&mut self.replies);
            let mut close = None;
            let read = client.handle_input(&receive[..bytes], &mut replies, |event| {
                close = self.tell(id, event, at, load).or(close.take());
            });
            self.reply(id, replies);
            if let Some(ending) = close.map_or_else(|| read.err(), Some) {
                break Err(ending);
            }
            if bytes < receive.len() && !ends {
                break Ok(());
            }
        };
        self.connections[id].client = Some(client);
        result
    }

    fn reply(&mut self, id: usize, mut replies: Vec<u8>) {
        if !replies.is_empty() {
            self.connections[id].out.append(&mut replies);
            self.mark(id);
        }
        self.replies = replies;
    }

    /// Passes an event on; an ending if it was the server's close.
    fn tell(&mut self, id: usize, event: Event<'_>, at: Nanos, load: &mut impl Load) -> Option<Ending> {
        let connection = &mut self.connections[id];
        match event {
            _ if connection.phase == Phase::Dropped => {}
            Event::Opened if connection.phase != Phase::Upgrading => {}
            Event::Opened => {
                connection.phase = Phase::Open;
                connection.times.opened = at;
                let times = connection.times;
                self.settle_expectation(id);
                load.opened(self, id, times);
            }
            Event::Message(payload) => load.message(self, id, payload, at),
            Event::Position(cursor) => load.position(self, id, cursor),
            Event::Gap(words) => load.gap(self, id, words),
            Event::Body(body) => load.body(self, id, body, at),
            Event::Answered(result) => load.answered(self, id, result, at),
            Event::Confirmed => load.confirmed(self, id, at),
            Event::Pinged => self.pings += 1,
            Event::Close(code, reason) => {
                let ending = Ending::Closed { code, reason: reason.to_owned() };
                if !connection.awaits_end {
                    return Some(ending);
                }
                connection.said = Some(ending);
            }
        }
        None
    }

    fn end(&mut self, id: usize, ending: Ending, load: &mut impl Load) {
        self.drop_connection(id);
        load.closed(self, id, ending, clock::now());
    }

    fn mark(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        connection.count_queued(&mut self.queued);
        if !mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(id);
        }
    }

    /// Writes what is queued and removes what was dropped.
    pub fn settle(&mut self, load: &mut impl Load) {
        while let Some(id) = self.dirty.pop() {
            let connection = &mut self.connections[id];
            connection.is_dirty = false;
            let written = write_out(connection);
            connection.count_queued(&mut self.queued);
            if connection.phase == Phase::Dropped {
                self.queued -= connection.counted;
                let mut connection = self.connections.remove(id);
                // The descriptor is closed right after, which removes it from epoll in any case.
                let _ = self.registry.deregister(&mut connection.socket);
                // A FIN before the RST would be the end of the stream to a server that is quick.
                if !connection.is_reset {
                    let _ = connection.socket.shutdown(Shutdown::Write);
                }
            } else if let Err(error) = written {
                self.end(id, error.into(), load);
            }
        }
    }

    /// Ends those of whom something was awaited for too long. Nothing to do while nothing is, so it costs nothing where messages
    /// flow.
    pub fn expire(&mut self, now: Nanos, load: &mut impl Load) {
        if self.awaited == 0 || now < self.expired_at + WAIT_MAX {
            return;
        }
        self.expired_at = now;
        let is_late = |connection: &Connection| connection.deadline != 0 && connection.deadline < now;
        let late: Vec<usize> = self.connections.iter().filter(|(_, connection)| is_late(connection)).map(|(id, _)| id).collect();
        for id in late {
            self.end(id, Ending::TimedOut, load);
        }
        self.settle(load);
    }
}

impl Connection {
    /// Brings the sum of all that is queued up to date.
    fn count_queued(&mut self, queued: &mut usize) {
        *queued = *queued - self.counted + self.out.len();
        self.counted = self.out.len();
    }
}

/// Writes as much as the kernel takes; the rest waits for the next edge.
fn write_out(connection: &mut Connection) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        if written == connection.out.len() || connection.phase == Phase::Connecting {
            break Ok(());
        }
        match connection.socket.write(&connection.out[written..]) {
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    connection.out.drain(..written);
    result
}
