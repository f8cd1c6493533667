//! The WebSocket protocol.

use crate::http1::{Head, Method, Problem, Response};

/// What a request asks of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing.
    None,
    /// An upgrade (RFC 6455 section 4.1).
    WebSocket,
    /// An upgrade whose Upgrade header a proxy removed.
    UpgradeRemoved,
    /// A draft of the protocol.
    Draft,
}

impl Intent {
    /// The intent of `head`.
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        match (head.has_token("Upgrade", "websocket"), head.value("Sec-WebSocket-Key")) {
            (true, _) => Self::WebSocket,
            (false, Some(_)) => Self::UpgradeRemoved,
            (false, None) => Self::None,
        }
    }
}

/// An accepted handshake.
#[derive(Debug)]
pub struct Accepted {}

/// A refused handshake.
#[derive(Debug)]
pub struct HandshakeError {
    status: u16,
}

/// The extensions and subprotocols on offer.
pub struct Table;

/// Checks the handshake.
///
/// # Errors
/// The rule it breaks.
pub fn negotiate(head: &Head<'_>, _offers: &Table) -> Result<Accepted, HandshakeError> {
    match (head.method, Intent::of(head), head.value("Sec-WebSocket-Version")) {
        (Method::Get, Intent::WebSocket, Some("13")) if head.value("Sec-WebSocket-Key").is_some() => Ok(Accepted {}),
        (_, Intent::WebSocket, Some("13")) => Err(HandshakeError { status: 400 }),
        _ => Err(HandshakeError { status: 426 }),
    }
}

impl HandshakeError {
    /// The answer.
    #[must_use]
    pub fn into_response(self) -> Response {
        let (kind, title, detail) = ("handshake", "The handshake is broken", String::new());
        Problem { kind, status: self.status, title, detail, fix: "", numbers: Vec::new() }.into_response()
    }
}
