//! The driver: a worker's view of the kernel, and the only code that makes socket system calls.
//!
//! # Duties of a driver
//!
//! - **In: lend, never keep.** [`Event::Received`] names bytes in a buffer of the driver's; [`Driver::lend`] lends them, mutable,
//!   until the next [`Driver::poll`]. Nothing is copied on the way in.
//! - **Out: pin until taken.** What is sent lives in the driver's own [`Store`]. A driver that completes later (io_uring) holds a
//!   reference to every block in flight and releases it with the completion, so safe code cannot free bytes the kernel still reads.
//! - At most one send is under way per socket. [`Progress::Sent`] says how much went at once; if that was less than offered, or
//!   [`Progress::Pending`] came back, [`Event::Sendable`] follows when the socket takes more, with the bytes taken meanwhile.
//! - After [`Driver::pause_read`] neither [`Event::Received`] nor [`Event::EndOfStream`] names the socket until
//!   [`Driver::resume_read`], which needs no new edge from the kernel. What had arrived by then the driver keeps, at most the read
//!   budget of a socket, and delivers first.
//! - Of each listener at most a batch is accepted in a turn, and nobody who is not told in it: a crowd at one listener keeps no other
//!   waiting, and takes no descriptor before it is counted.
//! - Of one socket, what was sent is told before what came: a close that the peer sends in answer must not overtake the word that its
//!   cause has been taken.
//! - After [`Driver::close`] no event names the socket but one [`Event::Closed`]; only then is its slot free for another. What is
//!   [`Progress::Pending`] may be cut by a close; who needs it sent waits for [`Event::Sendable`]. [`Driver::shutdown_write`] comes
//!   only when nothing is pending.
//! - A [`Token`] carries a generation, so that a late event never reaches the slot's next owner.
//!
//! # What it never does
//!
//! It knows no protocol, keeps no deadline of a connection, and never blocks but in [`Driver::wait`].

mod bell;
mod clock;
#[cfg(test)]
mod conformance;
mod epoll;
mod listening;
#[cfg(test)]
pub(crate) mod scripted;
mod store;
mod token;
mod uring;

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::metrics::Trouble;

pub use bell::EventBell;
pub use epoll::Epoll;
pub use store::{Block, Released, Segment, Served, Store};
pub use token::Token;
pub use uring::Uring;
pub(crate) use uring::{ENTRIES_MAX as URING_ENTRIES_MAX, why_not as why_no_uring};

/// Segments that one send offers at most: more than a few dozen gain nothing.
pub const SEGMENTS_MAX: usize = 64;

/// Settings of a driver.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections accepted from one listener in one turn; more wait for the next turn.
    pub accept_batch: usize,
    /// Bytes read from one connection in one turn before the others are served.
    pub read_budget_bytes: usize,
    /// Size of the receive buffer in bytes, one for each worker.
    pub recv_buffer_bytes: usize,
    /// io_uring: entries of the submission queue, a power of two.
    pub uring_entries: u32,
    /// io_uring: receive buffers the kernel chooses from, a power of two.
    pub uring_buffers: u16,
    /// io_uring: the size of each in bytes.
    pub uring_buffer_bytes: usize,
}

/// What rings a sleeping worker awake, from any thread.
pub trait Bell: Clone + Debug + Send + Sync + 'static {
    /// Makes the worker's [`Driver::wait`] return.
    fn ring(&self);
}

/// A worker's view of the kernel. Its duties stand in the module's documentation.
pub trait Driver {
    /// A connected socket that no driver has adopted yet; any worker may adopt it.
    type Socket: Debug + Send;
    /// What wakes this driver.
    type Bell: Bell;

    /// Nanoseconds of a clock that never goes back, the same for all workers.
    fn now(&self) -> u64;
    /// What its receive buffers take, and the input it keeps for sockets that are not read, in bytes.
    fn buffer_bytes(&self) -> usize;
    /// How often the kernel refused it something for the moment, since it was made.
    fn troubles(&self, kind: Trouble) -> u64;
    /// Milliseconds since the Unix epoch, for people; may jump.
    fn wall_ms(&self) -> u64;
    /// What wakes this driver from [`Driver::wait`].
    fn bell(&self) -> Self::Bell;

    /// Waits for something to happen, at most `timeout`; `None` waits for ever.
    fn wait(&mut self, timeout: Option<Duration>);
    /// The next thing that happened; `None` ends the reading part of the turn.
    fn poll(&mut self) -> Option<Event<Self::Socket>>;
    /// Lends what [`Event::Received`] named, and the store beside it.
    fn lend(&mut self, received: Received) -> (&mut [u8], &mut Store);
    /// The bytes on their way out.
    fn store(&mut self) -> &mut Store;

    /// Takes a socket in. Its events carry the token.
    ///
    /// # Errors
    /// The kernel's, when it cannot watch one more socket; the socket is closed then.
    fn adopt(&mut self, socket: Self::Socket) -> io::Result<Token>;
    /// Offers bytes of the store to the socket, of at most [`SEGMENTS_MAX`] segments.
    ///
    /// # Errors
    /// The kernel's: the connection is broken.
    fn send(&mut self, token: Token, segments: &[Segment]) -> io::Result<Progress>;
    /// Lets the kernel work on a pending send now, and tells how many bytes it took; `None` if nothing was pending. For the moment in
    /// which a full outbox is about to cost a client its connection: whoever was not offered its bytes yet is not slow.
    fn push(&mut self, token: Token) -> Option<usize>;
    /// Stops receiving.
    fn pause_read(&mut self, token: Token);
    /// Receives again.
    fn resume_read(&mut self, token: Token);
    /// Has the kernel break the connection when the peer acknowledges nothing for this long (TCP_USER_TIMEOUT).
    fn limit_unacknowledged(&mut self, token: Token, limit: Duration);
    /// Sends FIN and goes on receiving.
    fn shutdown_write(&mut self, token: Token);
    /// Cancels what is under way and closes.
    fn close(&mut self, token: Token, how: Close);

    /// Stops accepting, until [`Driver::resume_accept`].
    fn pause_accept(&mut self);
    /// Accepts again, beginning with what is queued.
    fn resume_accept(&mut self);
    /// Lets no new handshake begin, accepts those that had begun, then closes the listeners, but for the one to `keep`, and reports
    /// [`Event::ListenersClosed`].
    fn close_listeners(&mut self, keep: Option<usize>);
}

/// A driver of this machine's kernel. It is made first and gets its listeners later, so that a server can make the drivers of all
/// workers before it binds anything, and choose another one if it can't have them.
pub trait Kernel: Driver<Socket = OwnedFd, Bell = EventBell> + Sized {
    /// A driver of the calling thread. `started` is the zero of all workers' clocks.
    ///
    /// # Errors
    /// The kernel's, when it has no such driver for this process or no descriptor left.
    fn new(options: Options, started: Instant) -> io::Result<Self>;
    /// Accepts from `listeners`, which must be non-blocking, in the order of their indices. Called at most once, before the first wait.
    ///
    /// # Errors
    /// The kernel's, when it cannot watch one more descriptor.
    fn listen(&mut self, listeners: Vec<socket2::Socket>) -> io::Result<()>;
}

/// What happened.
#[derive(Debug)]
pub enum Event<S> {
    /// A connection was accepted.
    Accepted {
        /// The socket, not yet adopted.
        socket: S,
        /// The peer's address.
        peer: SocketAddr,
        /// The index of the listener, in the order they were given.
        listener: usize,
    },
    /// No connection can be accepted for a reason that lasts: descriptors or memory have run out, or a security module forbids it.
    /// Nobody is accepted until [`Driver::resume_accept`].
    AcceptFailed(io::Error),
    /// Every queued connection was accepted, and the listeners are closed that were to be.
    ListenersClosed,
    /// Bytes arrived.
    Received(Token, Received),
    /// The peer has shut its side. Told once.
    EndOfStream(Token),
    /// The socket takes more; this many bytes of the pending send were taken since it was made.
    Sendable(Token, usize),
    /// The connection is broken.
    Failed(Token, io::Error),
    /// The socket is gone and its slot free.
    Closed(Token),
}

/// How many bytes were received; the driver knows where, until the next [`Driver::poll`].
#[derive(Debug)]
pub struct Received {
    length: usize,
}

impl Received {
    /// For drivers: this many bytes, at least one.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { length }
    }

    /// How many bytes arrived; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Never: an event without bytes is an [`Event::EndOfStream`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// How far a send got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The kernel took this many bytes at once.
    Sent(usize),
    /// The kernel works on it; [`Event::Sendable`] tells.
    Pending,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// FIN behind what was sent.
    InOrder,
    /// RST: what was sent and not yet received is thrown away, on both sides.
    Reset,
}
