//! The kind of a publication: what its publisher said it is, never what its bytes look like.

use super::OpCode;

/// What a payload is. It decides the opcode on a WebSocket and the member (`data`, `text`, `base64`) of a `message` object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A JSON text (RFC 8259), checked when it is accepted.
    Json,
    /// UTF-8 text, checked when it is accepted.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// The opcode this kind travels under on a raw WebSocket.
    #[must_use]
    pub const fn opcode(self) -> OpCode {
        match self {
            Self::Json | Self::Text => OpCode::Text,
            Self::Binary => OpCode::Binary,
        }
    }

    /// The name used in URLs (`?kind=json`) and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}
