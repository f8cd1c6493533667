//! One epoll loop over all connections of a run.
//!
//! Sockets are registered once, edge-triggered, for both directions. What a command wants is told by its [`Load`]: the loop asks
//! it in every turn what is due, and tells it what came. Waiting goes through a timer of the kernel's, because epoll itself waits
//! in whole milliseconds, which would be the tool's own lateness in every open-loop figure.

use std::io::{self, Read as _, Write as _};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fantail::frame::OpCode;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use slab::Slab;

use crate::client::{Event, Reader};
use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::ending::Ending;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::target::Target;
use crate::wire;

/// Room for what one read brings, in bytes: larger than any socket's default buffer.
const RECEIVE_BYTES: usize = 256 * 1024;

/// How many sockets one wait tells of.
const EVENTS_MAX: usize = 1024;

/// The longest wait, so that Ctrl-C, time-outs and the progress bar have their turn.
const WAIT_MAX: Nanos = 100 * MILLISECOND;

const TIMER: Token = Token(usize::MAX);

/// What a command does with the loop.
pub trait Load {
    /// Does what is due, and says when the next is.
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure>;
    /// A connection is open: its 101 was checked.
    fn opened(&mut self, _net: &mut Net, _id: usize, _times: Times) {}
    /// A message was read at `at`.
    fn message(&mut self, _net: &mut Net, _id: usize, _payload: &[u8], _at: Nanos) {}
    /// A connection ended that the load had not dropped itself. Its number may be used again from now on.
    fn closed(&mut self, net: &mut Net, id: usize, ending: Ending, at: Nanos);
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Whatever comes; at this time at the latest.
    At(Nanos),
    /// The run is over.
    Done,
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

/// The loop.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    receive: Box<[u8]>,
    interrupted: Arc<AtomicBool>,
    /// The connections.
    pub net: Net,
}

/// The connections of a run, and what a load may do with them.
#[derive(Debug)]
pub struct Net {
    registry: Registry,
    target: Target,
    connections: Slab<Connection>,
    /// Connections with something to write or to be removed.
    dirty: Vec<usize>,
    timeout: Nanos,
    unopened: usize,
    expired_at: Nanos,
    /// How long an event waited inside the tool, between the end of its wait and its read.
    pub lag: Histogram,
    /// Pings that were answered.
    pub pings: u64,
}

#[derive(Debug)]
struct Connection {
    socket: TcpStream,
    phase: Phase,
    times: Times,
    reader: Reader,
    out: Vec<u8>,
    is_dirty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    /// To be removed once the event at hand is done with, so that its number isn't given to another meanwhile.
    Dropped,
}

impl Engine {
    /// A loop for connections to `target`; an opening that takes longer than `timeout` has failed.
    pub fn new(target: Target, timeout: Nanos, interrupted: Arc<AtomicBool>) -> Result<Self, Failure> {
        Self::build(target, timeout, interrupted).map_err(|error| Failure::System("epoll", error))
    }

    fn build(target: Target, timeout: Nanos, interrupted: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let net = Net {
            registry: poll.registry().try_clone()?,
            target,
            connections: Slab::new(),
            dirty: Vec::new(),
            timeout,
            unopened: 0,
            expired_at: 0,
            lag: Histogram::new(),
            pings: 0,
        };
        let receive = vec![0; RECEIVE_BYTES].into_boxed_slice();
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX), timer, receive, interrupted, net })
    }

    /// Runs until the load is done, or somebody pressed Ctrl-C: then true.
    pub fn run(&mut self, load: &mut impl Load) -> Result<bool, Failure> {
        loop {
            let now = clock::now();
            let next = load.turn(&mut self.net, now)?;
            self.net.settle(load);
            let at = match next {
                Next::Done => return Ok(false),
                Next::At(_) if self.is_interrupted() => return Ok(true),
                Next::At(at) => at.min(now + WAIT_MAX),
            };
            self.wait(at).map_err(|error| Failure::System("waiting for events", error))?;
            let woke_at = clock::now();
            for event in &self.events {
                if event.token() != TIMER {
                    self.net.handle(event.token().0, &mut self.receive, woke_at, load);
                }
            }
            self.net.expire(woke_at, load);
        }
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn wait(&mut self, until: Nanos) -> io::Result<()> {
        // A time of zero would disarm the timer; one that has passed fires at once.
        let until = until.max(1);
        let at = Timespec { tv_sec: (until / SECOND) as i64, tv_nsec: (until % SECOND) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        match self.poll.poll(&mut self.events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }
}

impl Net {
    /// Starts a connection and returns its number.
    pub fn open(&mut self, now: Nanos) -> Result<usize, Ending> {
        let mut socket = TcpStream::connect(self.target.address)?;
        socket.set_nodelay(true)?;
        let entry = self.connections.vacant_entry();
        let id = entry.key();
        self.registry.register(&mut socket, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        let times = Times { started: now, ..Times::default() };
        let reader = Reader::default();
        entry.insert(Connection { socket, phase: Phase::Connecting, times, reader, out: Vec::new(), is_dirty: false });
        self.unopened += 1;
        Ok(id)
    }

    /// Who is connected to.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Queues a frame; it leaves at the end of the event or turn, with all that was queued meanwhile.
    pub fn send(&mut self, id: usize, opcode: OpCode, payload: &[u8]) {
        if let Some(connection) = self.connections.get_mut(id) {
            wire::write_masked(opcode, payload, &mut connection.out);
            self.mark(id);
        }
    }

    /// Ends a connection with RST: nothing stays behind, neither here nor there.
    pub fn reset(&mut self, id: usize) {
        if let Some(connection) = self.connections.get(id) {
            // Where it can't be set, the connection ends with FIN instead.
            let _ = socket2::SockRef::from(&connection.socket).set_linger(Some(std::time::Duration::ZERO));
        }
        self.drop_connection(id);
    }

    /// Ends our direction after the close frame that is queued.
    pub fn drop_connection(&mut self, id: usize) {
        if let Some(connection) = self.connections.get_mut(id) {
            self.unopened -= usize::from(matches!(connection.phase, Phase::Connecting | Phase::Upgrading));
            connection.phase = Phase::Dropped;
            self.mark(id);
        }
    }

    fn mark(&mut self, id: usize) {
        let connection = &mut self.connections[id];
        if !mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(id);
        }
    }

    fn handle(&mut self, id: usize, receive: &mut [u8], woke_at: Nanos, load: &mut impl Load) {
        // The event may be about one that was removed a moment ago.
        let Some(connection) = self.connections.get(id) else { return };
        let result = match connection.phase {
            Phase::Connecting => {
                self.finish_connect(id).and_then(|stands| if stands { self.read(id, receive, woke_at, load) } else { Ok(()) })
            }
            Phase::Upgrading | Phase::Open => {
                if !connection.out.is_empty() {
                    self.mark(id);
                }
                self.read(id, receive, woke_at, load)
            }
            Phase::Dropped => Ok(()),
        };
        if let Err(ending) = result {
            self.end(id, ending, load);
        }
        self.settle(load);
    }

    /// Whether TCP stands; if so the request is queued.
    fn finish_connect(&mut self, id: usize) -> Result<bool, Ending> {
        let connection = &mut self.connections[id];
        if let Some(error) = connection.socket.take_error()? {
            return Err(error.into());
        }
        match connection.socket.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            result => result?,
        };
        let key = wire::new_key();
        connection.reader = Reader::new(wire::accept_of(key.as_bytes()));
        connection.times.established = clock::now();
        connection.phase = Phase::Upgrading;
        self.target.write_request(&key, &mut connection.out);
        self.mark(id);
        Ok(true)
    }

    /// Reads until there is nothing more, as an edge-triggered socket must be.
    fn read(&mut self, id: usize, receive: &mut [u8], woke_at: Nanos, load: &mut impl Load) -> Result<(), Ending> {
        // The reader is taken out for as long as it lends payloads, so that the load may send meanwhile.
        let mut reader = mem::take(&mut self.connections[id].reader);
        let result = loop {
            let connection = &mut self.connections[id];
            if connection.phase == Phase::Dropped {
                break Ok(());
            }
            let bytes = match connection.socket.read(receive) {
                Ok(0) => break Err(reader.handle_end()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => break Err(error.into()),
            };
            let at = clock::now();
            self.lag.record(at - woke_at);
            let mut close = None;
            let read = reader.handle_input(&receive[..bytes], |event| close = self.tell(id, event, at, load).or(close.take()));
            if let Some(ending) = close.map_or_else(|| read.err(), Some) {
                break Err(ending);
            }
            if bytes < receive.len() {
                break Ok(());
            }
        };
        self.connections[id].reader = reader;
        result
    }

    /// Passes an event on; an ending if it was the server's close.
    fn tell(&mut self, id: usize, event: Event<'_>, at: Nanos, load: &mut impl Load) -> Option<Ending> {
        let connection = &mut self.connections[id];
        match event {
            _ if connection.phase == Phase::Dropped => {}
            Event::Opened => {
                connection.phase = Phase::Open;
                connection.times.opened = at;
                let times = connection.times;
                self.unopened -= 1;
                load.opened(self, id, times);
            }
            Event::Message(payload) => load.message(self, id, payload, at),
            Event::Ping(payload) => {
                self.pings += 1;
                self.send(id, OpCode::Pong, payload);
            }
            Event::Close(code, reason) => return Some(Ending::Closed { code, reason: reason.to_owned() }),
        }
        None
    }

    fn end(&mut self, id: usize, ending: Ending, load: &mut impl Load) {
        self.drop_connection(id);
        load.closed(self, id, ending, clock::now());
    }

    /// Writes what is queued and removes what was dropped.
    fn settle(&mut self, load: &mut impl Load) {
        while let Some(id) = self.dirty.pop() {
            let connection = &mut self.connections[id];
            connection.is_dirty = false;
            let written = write_out(connection);
            if connection.phase == Phase::Dropped {
                let mut connection = self.connections.remove(id);
                // The descriptor is closed right after, which removes it from epoll in any case.
                let _ = self.registry.deregister(&mut connection.socket);
                let _ = connection.socket.shutdown(Shutdown::Write);
            } else if let Err(error) = written {
                self.end(id, error.into(), load);
            }
        }
    }

    /// Ends the openings that took too long. Nothing to do while all are open, so it costs nothing where messages flow.
    fn expire(&mut self, now: Nanos, load: &mut impl Load) {
        if self.unopened == 0 || now < self.expired_at + WAIT_MAX {
            return;
        }
        self.expired_at = now;
        let is_late = |connection: &Connection| {
            matches!(connection.phase, Phase::Connecting | Phase::Upgrading) && connection.times.started + self.timeout < now
        };
        let late: Vec<usize> = self.connections.iter().filter(|(_, connection)| is_late(connection)).map(|(id, _)| id).collect();
        for id in late {
            self.end(id, Ending::TimedOut, load);
        }
        self.settle(load);
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
