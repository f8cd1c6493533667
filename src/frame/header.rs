//! The header of an unmasked WebSocket frame (RFC 6455 section 5.2), as a server sends it.
//!
//! It stands below the protocol because a publication carries its frame header from the moment it is accepted.

/// What a frame is (RFC 6455 section 5.2, `opcode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum OpCode {
    /// Goes on with a fragmented message (0x0).
    Continuation = 0x0,
    /// A text message, UTF-8 (0x1).
    Text = 0x1,
    /// A binary message (0x2).
    Binary = 0x2,
    /// The close of this direction (0x8).
    Close = 0x8,
    /// A ping (0x9).
    Ping = 0x9,
    /// A pong (0xA).
    Pong = 0xA,
}

impl OpCode {
    /// The opcode of these four bits; `None` for the reserved ones, 3-7 and 11-15.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: at most 125 bytes, never fragmented (RFC 6455 section 5.5).
    #[must_use]
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// An encoded header of 2, 4 or 10 bytes: FIN set, no mask, the length in its shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

impl FrameHeader {
    /// The longest header of an unmasked frame, in bytes.
    pub const BYTES_MAX: usize = 10;

    /// The header of a whole message or control frame of `payload_bytes` bytes.
    #[must_use]
    pub fn new(opcode: OpCode, payload_bytes: usize) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[0] = 0x80 | opcode as u8;
        let length = match payload_bytes {
            0..=125 => {
                bytes[1] = payload_bytes as u8;
                2
            }
            126..=0xFFFF => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
                4
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
                10
            }
        };
        Self { bytes, length }
    }

    /// Appends the header. All bytes are copied and what is too much is cut off, because a length that is known beforehand is copied
    /// without a call.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + usize::from(self.length);
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }

    /// The header's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (0xFFFF, vec![0x81, 126, 0xFF, 0xFF]),
            (0x1_0000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(FrameHeader::new(OpCode::Text, length).as_bytes(), head);
        }
    }

    #[test]
    fn reserved_opcodes_have_no_name() {
        for bits in (3..=7).chain(11..=15) {
            assert_eq!(OpCode::from_bits(bits), None);
        }
        assert!(OpCode::Ping.is_control() && !OpCode::Binary.is_control());
    }
}
