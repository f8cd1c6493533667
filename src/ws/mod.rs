//! The WebSocket protocol (RFC 6455), server role: bytes and events in, bytes and events out. No socket, no clock, no thread.
//!
//! ```text
//! head --> Handshake --> negotiate --> Accepted::write_response        the handshake, section 4
//!
//! bytes --> parser --> connection --> mask, utf8 --> Event             sections 5 and 6
//!                          |
//!                          +--> poll_timeout, handle_timeout           pings and deadlines, sections 5.5.2 and 7.1.1
//!
//! payload --> generator --> bytes                                      whole unmasked frames, section 5.2
//! ```
//!
//! 1. [`Handshake::negotiate`] turns the head of a request into an answer, or into a refusal that names the header and the fix.
//! 2. [`Connection::handle_input`] is called with what arrived until a step neither consumes nor tells anything.
//! 3. Payloads are lent: from the input itself where a frame came whole, else from one flat buffer that goes back to the pool.
//! 4. [`Connection::handle_timeout`] says when to ping and when to give up.
//! 5. A [`ProtocolError`] ends the connection: its close code goes to the peer, its cause to the metrics.

mod close;
#[cfg(test)]
mod conformance;
mod connection;
mod error;
mod event;
mod extension;
mod generator;
mod handshake;
mod mask;
mod parser;
mod partial;
mod refusal;
mod utf8;

pub use close::{CloseCode, CloseFrame, ClosePayload};
pub use connection::{Connection, Options};
pub use error::ProtocolError;
pub use event::{Event, MessageKind, Step, Timeout};
pub use extension::{Agreement, Entry, OfferedIn, Param, Params, Table};
pub use generator::{control_frame, write_close, write_message};
pub use handshake::{Accepted, Handshake, Intent};
pub use mask::unmask;
pub use refusal::HandshakeError;
pub use utf8::{InvalidUtf8, Validator};
