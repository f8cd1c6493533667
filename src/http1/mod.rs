//! HTTP/1.1 (RFC 9112) as bytes in, bytes out: heads, bodies, answers. One request at a time, nothing a proxy could smuggle.
//!
//! ```text
//!            first byte            empty line            begin_body             last byte
//!   Idle ---------------> Head ---------------> Routing ------------> Body ---------------> Answering
//!    ^                                             Event::Head             Event::Body          |
//!    +---------------------------------- next_request ------------------------------------------+
//! ```
//!
//! 1. Bring bytes to [`Connection::handle_input`] and drop what it consumed, until it consumes nothing and has no event.
//! 2. [`Event::Head`] lends the bytes of one head: [`Head::parse`] them, decide, and say with [`Connection::begin_body`] what
//!    is to become of the body. An upgraded connection goes elsewhere instead, with every byte behind the head unconsumed.
//! 3. [`Event::Body`] lends the decoded body. Write the [`Response`], then call [`Connection::next_request`].
//! 4. An [`HttpError`] is answered with [`HttpError::into_response`], and the connection closed: nothing more is consumed.
//!
//! Where the RFC lets a server be lenient (bare LF, folded lines, repeated lengths), it is strict here: every leniency is a way
//! for two parsers to see two different requests in the same bytes. Nothing here does I/O or reads a clock.

mod chunked;
mod connection;
mod date;
mod error;
mod framing;
mod head;
mod problem;
mod response;
mod scan;
mod target;

#[cfg(test)]
mod conformance;

pub use connection::{BodyPlan, Connection, Event, Limits, Step};
pub use date::DateCache;
pub use error::HttpError;
pub use framing::Framing;
pub use head::{HEADERS_MAX, Head, HeaderSpace, Method, header_space, lists};
pub use problem::{Problem, quoted};
pub use response::{Answering, Body, CONTINUE, Response};
