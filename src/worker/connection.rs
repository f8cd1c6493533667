//! One client socket and its protocol state. What is hot is small and inline; what is rare is boxed and returned.

use std::time::Duration;

use bitfield_struct::bitfield;

use crate::auth::Grant;
use crate::engine::Submission;
use crate::frame::Kind;
use crate::http1;
use crate::io::Token;
use crate::limits::{BufferPool, Tick};
use crate::metrics::{Cause, Transport};
use crate::routes::{Action, AdminAction, Client, Cors};
use crate::ws;

use super::outbox::Outbox;
use super::posting::Batch;
use super::stream::Stream;

/// A connection of this worker, at the index that is its token's slot.
#[derive(Debug)]
pub struct Connection {
    /// The driver's name of the socket.
    pub token: Token,
    /// What is spoken.
    pub protocol: Protocol,
    /// What waits to be written.
    pub outbox: Outbox,
    /// The rest of an input that could not be taken in yet; reading is paused while there is one.
    #[allow(clippy::box_collection, reason = "one word instead of three in every connection; few ever have one")]
    pub residual: Option<Box<Vec<u8>>>,
    /// The name in the log and in `Fantail-Connection`.
    pub id: u32,
    /// The peer's entry in the table of addresses.
    pub address: u32,
    /// Bytes the kernel took since the write window began, up to [`super::flush::STALLED_BYTES`].
    pub window_taken: u16,
    /// Bytes it must take in that window; 0 outside of one.
    pub window_needed: u16,
    /// Publications by this socket that wait for their answer.
    pub unconfirmed: u8,
    /// Why it ends, once that is known.
    pub cause: Option<Cause>,
    /// Conditions that hold.
    pub flags: Flags,
}

/// Conditions of a connection, a bit each.
#[bitfield(u32)]
pub struct Flags {
    /// Stands in the list of connections to flush.
    pub dirty: bool,
    /// The last send was short, or one is in flight: [`crate::io::Event::Sendable`] brings it back.
    pub blocked: bool,
    /// Queued bytes wait for the head of the answer: the subscription is not in force yet.
    pub corked: bool,
    /// Nothing is read from the driver.
    pub paused: bool,
    /// The peer has shut its side.
    pub read_closed: bool,
    /// An upgrade waits until earlier answers are written: its 101 goes ahead of everything that is queued behind it.
    pub parked: bool,
    /// Waits for a credit or an answer before it takes more input.
    pub waiting: bool,
    /// A message of it waits for a credit.
    pub unsent: bool,
    /// Too many of its replies wait to be written for more of its input to be taken in.
    pub choked: bool,
    /// Our close frame is queued or sent; there is only one.
    pub close_queued: bool,
    /// Once the outbox is empty, the socket is closed in order.
    pub close_when_flushed: bool,
    /// Once the outbox is empty, the write side is shut and the rest of the input read and dropped.
    pub linger_when_flushed: bool,
    /// It reads history: its subscriptions are held, or some of them.
    pub reading: bool,
    /// A long-poll in force: a publication that passes it by is to be read.
    pub polling: bool,
    /// A stream of several topics: it is told where it stands behind what it is sent, so it is sent nothing past its queue.
    pub keeps_positions: bool,
    /// Refused when it was accepted: it only hears why, and counts as no connection.
    pub refused: bool,
    /// Came in by the admin listener, which goes on until the last client has gone.
    pub admin: bool,
    /// Handed to the driver for closing; the slot is free when it says so.
    pub gone: bool,
    /// Its client is known, and a member or watcher of topics.
    pub present: bool,
    /// It could not be told who came and went.
    pub behind: bool,
    #[bits(12)]
    _unused: u16,
}

impl Flags {
    /// There, with nothing queued and nothing under way, and nothing to be said behind what comes.
    #[must_use]
    pub fn is_at_rest(self) -> bool {
        !(self.dirty() || self.blocked() || self.corked() || self.gone() || self.keeps_positions())
    }
}

/// What a connection speaks.
#[derive(Debug)]
pub enum Protocol {
    /// The slot is free.
    Vacant,
    /// HTTP/1.1, before or between requests.
    Http(Box<Http>),
    /// A WebSocket that holds subscriptions.
    Topics(WebSocket),
    /// A WebSocket that speaks `fantail.v1`.
    Session(Session),
    /// A WebSocket whose messages come back.
    Echo(WebSocket),
    /// A stream of events or lines.
    Stream(Stream),
    /// The last word is queued or sent: input is dropped, up to this many more bytes.
    Lingering(u32),
}

/// The state of a WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    /// The protocol.
    pub socket: ws::Connection,
    /// What its text messages are published as.
    pub text_kind: Kind,
    /// Whether its messages are published.
    pub may_publish: bool,
}

/// The state of a WebSocket that speaks `fantail.v1`. Its requests that wait are kept beside the connections, because most have none.
#[derive(Debug)]
pub struct Session {
    /// The protocol below.
    pub socket: ws::Connection,
    /// What its requests may ask for.
    pub grant: Grant,
    /// When the next `ping` object is due.
    pub ping_due: Tick,
}

/// The state of an HTTP connection.
#[derive(Debug)]
pub struct Http {
    /// The reader of heads and bodies.
    pub parser: http1::Connection,
    /// What the request under way asks for.
    pub pending: Option<Pending>,
    /// The listener is the admin listener.
    pub admin: bool,
    /// The peer's address is a loopback address.
    pub peer_is_loopback: bool,
    /// The listener's address is a loopback address.
    pub listener_is_loopback: bool,
    /// Counts the requests, so that an answer which comes after its request was given up finds no other.
    pub requests: u16,
    /// A request was answered, and the next one has not begun.
    pub between_requests: bool,
    /// When the head or body that is being read must be complete, or the next request begun.
    pub due: Tick,
}

/// A request whose head was understood.
#[derive(Debug)]
pub struct Pending {
    /// What to do when its body is complete.
    pub action: Do,
    /// Which request of the connection it is.
    pub number: u16,
    /// How its answer is written.
    pub answering: http1::Answering,
    /// Header lines that go on its answer.
    pub cors: Cors,
    /// The label of its metric.
    pub handler: crate::metrics::Handler,
    /// It asks for an event stream, which a passing refusal must not end for good.
    pub wants_events: bool,
    /// For how long what it publishes is kept, if it says for how long that may be.
    pub kept_for: Option<Duration>,
    /// Who subscribes, where presence may matter.
    pub client: Option<Box<Client>>,
}

/// What a request asks for.
#[derive(Debug)]
pub enum Do {
    /// On a listener for clients.
    Public(Action),
    /// On the admin listener.
    Admin(AdminAction),
    /// The publication waits for a credit of its home worker.
    Publish(Submission),
    /// Publications of which some wait for a credit or for their answers.
    Batch(Box<Batch>),
    /// The home worker was asked about this topic, on behalf of a client that reached us at this origin.
    Inform(String),
    /// The home worker was asked who is there.
    Presence,
    /// The home worker was asked to delete what is kept of a topic.
    Delete,
    /// The publication was sent; its answer finds the request here.
    Asked,
    /// The topic has nothing new for it yet.
    Poll,
}

impl Connection {
    /// A connection with an empty outbox.
    #[must_use]
    pub fn new(token: Token, protocol: Protocol, id: u32, address: u32) -> Self {
        Self {
            token,
            protocol,
            outbox: Outbox::new(),
            residual: None,
            id,
            address,
            window_taken: 0,
            window_needed: 0,
            unconfirmed: 0,
            cause: None,
            flags: Flags::new(),
        }
    }

    /// A free slot.
    #[must_use]
    pub fn vacant() -> Self {
        let mut vacant = Self::new(Token { slot: 0, generation: 0 }, Protocol::Vacant, 0, 0);
        vacant.flags.set_gone(true);
        vacant
    }

    /// The label its bytes and messages are counted under.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match &self.protocol {
            Protocol::Topics(_) | Protocol::Session(_) => Transport::WebSocket,
            Protocol::Echo(_) => Transport::Echo,
            Protocol::Stream(stream) => stream.transport(),
            _ if self.flags.admin() => Transport::Admin,
            Protocol::Vacant | Protocol::Http(_) | Protocol::Lingering(_) => Transport::Http,
        }
    }

    /// The WebSocket, if it speaks that.
    pub fn websocket(&mut self) -> Option<&mut ws::Connection> {
        match &mut self.protocol {
            Protocol::Topics(websocket) | Protocol::Echo(websocket) => Some(&mut websocket.socket),
            Protocol::Session(session) => Some(&mut session.socket),
            Protocol::Vacant | Protocol::Http(_) | Protocol::Stream(_) | Protocol::Lingering(_) => None,
        }
    }

    /// The HTTP state, if it speaks that.
    pub fn http(&mut self) -> Option<&mut Http> {
        match &mut self.protocol {
            Protocol::Http(http) => Some(http),
            _ => None,
        }
    }

    /// Gives the buffers of its protocol and its residual input back.
    pub fn release(&mut self, pool: &mut BufferPool) {
        if let Some(residual) = self.residual.take() {
            pool.give(*residual);
        }
        match &mut self.protocol {
            Protocol::Http(http) => http.parser.release(pool),
            Protocol::Topics(websocket) | Protocol::Echo(websocket) => websocket.socket.release(pool),
            Protocol::Session(session) => session.socket.release(pool),
            Protocol::Vacant | Protocol::Stream(_) | Protocol::Lingering(_) => {}
        }
    }
}

const _: () = assert!(size_of::<Connection>() <= 96, "a cache line and a half (docs/architecture.md, \"Memory\")");
