//! What a connection tells its caller: what a peer said, and what the clock asks for.

use super::CloseFrame;

/// What one step did.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'b> {
    /// Bytes of the input that the caller must drop. Zero, and no event, means "bring more".
    pub consumed: usize,
    /// What they amount to, if anything yet.
    pub event: Option<Event<'b>>,
}

/// What a peer said (RFC 6455 sections 5.5 and 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A whole message; a text is UTF-8.
    Message {
        /// Its opcode's name.
        kind: MessageKind,
        /// Its bytes, unmasked, all fragments together.
        payload: &'b [u8],
    },
    /// A ping, at most 125 bytes. The answer is a pong with the same bytes.
    Ping(&'b [u8]),
    /// A pong, asked for or not. It needs no answer.
    Pong(&'b [u8]),
    /// The peer's close, checked. Unless we closed first, the answer is a close with the same code. Nothing follows.
    Close(Option<CloseFrame<'b>>),
}

/// What a message is (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

/// What the clock asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing: something was heard meanwhile. Ask [`Connection::poll_timeout`](super::Connection::poll_timeout) again.
    None,
    /// Send a ping; its bytes are the caller's choice.
    SendPing,
    /// The ping was answered by nothing at all: the peer is gone.
    NoPong,
    /// A message was begun and not finished.
    MessageTimeout,
    /// Our close was not answered.
    CloseTimeout,
}
