//! The subprotocol `fantail.v1`: requests and answers as JSON objects in the text messages of a WebSocket (docs/protocol.md).
//!
//! ```text
//! text message --> Request::parse --> what is asked for, borrowed from the message      or RequestError: the rule that is broken
//! open, ok, error, ping  --> JSON                                                       written into the frame that carries it
//! ```
//!
//! Only the syntax is known here: what may be asked for is decided by [`crate::routes::command`], and what comes of it by the worker. A
//! request that breaks a rule is answered with an `error` object and does not end the connection, because where one message ends and the
//! next begins is never in doubt. `message` and `gap` objects are forms of publications ([`crate::frame::Form::WsEnvelope`]), shared by all
//! who get them. Nothing here keeps state, does I/O or reads a clock.

mod object;
mod request;

pub use object::{Error, Okay, Open, PING, Present};
pub use request::{Id, Request, RequestError, What};

/// The name it is offered and accepted by in `Sec-WebSocket-Protocol`.
pub const SUBPROTOCOL: &str = "fantail.v1";
