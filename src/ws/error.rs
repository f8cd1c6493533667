//! What ends a connection from within the protocol.

use super::{CloseCode, InvalidUtf8};
use crate::metrics::Cause;

/// Why the protocol gave up, sorted by blame: bad framing, bad sequence, bad payload, a limit of ours, our own need.
///
/// When several apply, the byte that came first on the wire decides; within one byte, the order of the variants here. So the
/// verdict is the same however the stream was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set and no extension gave it a meaning.
    #[error("a reserved bit is set in a frame header, and no extension was agreed on")]
    ReservedBits,
    /// Opcodes 3-7 and 11-15 mean nothing yet.
    #[error("a frame has a reserved opcode")]
    ReservedOpcode,
    /// A close, ping or pong without FIN.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A continuation frame, and no message to go on with.
    #[error("a continuation frame came outside of a fragmented message")]
    OrphanContinuation,
    /// A text or binary frame before the last fragment of the message under way.
    #[error("a new message began inside a fragmented one")]
    InterruptedMessage,
    /// A client must mask every frame.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// A close, ping or pong that declares more than 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A length in more bytes than it needs.
    #[error("a frame's length is not in its shortest form")]
    LengthNotMinimal,
    /// A 64-bit length whose top bit is set.
    #[error("a frame's length has its top bit set")]
    LengthTopBit,
    /// A close body of a single byte, which cannot hold a code.
    #[error("a close frame's body has one byte")]
    CloseBodyTooShort,
    /// A close code that no peer may send.
    #[error("a close frame has a code that must not be sent")]
    CloseCodeInvalid,
    /// A text message or close reason that is not UTF-8.
    #[error("a text is not UTF-8")]
    InvalidUtf8,
    /// A message that declares more than `message_bytes_max`, or fragments that add up to more.
    #[error("a message is larger than allowed")]
    TooBig,
    /// The allocator refused.
    #[error("there is no memory for a message")]
    NoMemory,
}

impl ProtocolError {
    /// The rule that was broken.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::ReservedBits | Self::ReservedOpcode | Self::LengthNotMinimal | Self::LengthTopBit => "RFC 6455 section 5.2",
            Self::FragmentedControl | Self::ControlTooLong => "RFC 6455 section 5.5",
            Self::OrphanContinuation | Self::InterruptedMessage => "RFC 6455 section 5.4",
            Self::Unmasked => "RFC 6455 section 5.1",
            Self::CloseBodyTooShort => "RFC 6455 section 5.5.1",
            Self::CloseCodeInvalid => "RFC 6455 section 7.4",
            Self::InvalidUtf8 => "RFC 6455 section 8.1",
            Self::TooBig => "RFC 6455 section 10.4",
            Self::NoMemory => "RFC 6455 section 7.4.1",
        }
    }

    /// What the peer is told (RFC 6455 section 7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::TooBig => CloseCode::TOO_BIG,
            Self::NoMemory => CloseCode::INTERNAL,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// What the operator is told.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::InvalidUtf8 => Cause::BadUtf8,
            Self::TooBig => Cause::TooBig,
            Self::NoMemory => Cause::Internal,
            _ => Cause::ProtocolError,
        }
    }
}

impl From<InvalidUtf8> for ProtocolError {
    fn from(_: InvalidUtf8) -> Self {
        Self::InvalidUtf8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_on_the_wire_is_the_one_its_cause_names() {
        for error in [ProtocolError::Unmasked, ProtocolError::InvalidUtf8, ProtocolError::TooBig, ProtocolError::NoMemory] {
            assert_eq!(error.close_code().get(), error.cause().close_code());
        }
    }
}
