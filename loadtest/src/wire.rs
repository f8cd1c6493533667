//! Frames and handshake of RFC 6455 as a load test needs them: a client's frames written, both sides' headers read.
//!
//! The header of an unmasked frame and the masking itself are Fantail's own; the server's parser is not used, because a client
//! that shares its server's parser shares its mistakes.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use fantail::frame::{FrameHeader, OpCode};
use sha1::{Digest, Sha1};

/// What the server appends to the key before hashing (RFC 6455 section 1.3).
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The longest frame that is taken for one, in bytes: beyond it the stream is garbage, not a message.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// The longest Sec-WebSocket-Accept, in bytes: base64 of a SHA-1.
pub const ACCEPT_BYTES: usize = 28;

/// What stands before a frame's payload (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub opcode: OpCode,
    /// The last frame of its message.
    pub fin: bool,
    /// Bytes of the header itself.
    pub bytes: usize,
    /// Bytes of the payload that follows.
    pub payload_bytes: usize,
    /// The key, which only clients send.
    pub mask: Option<[u8; 4]>,
}

impl Header {
    /// Reads a header, or says `None` while it isn't there whole.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err("a reserved bit is set though no extension was agreed (RFC 6455 section 5.2)");
        }
        let opcode = OpCode::from_bits(first & 0xF).ok_or("a reserved opcode (RFC 6455 section 5.2)")?;
        let Some((payload_bytes, at)) = length(second & 0x7F, &bytes[2..]) else { return Ok(None) };
        if payload_bytes > PAYLOAD_BYTES_MAX as u64 {
            return Err("a frame of more than 64 MiB");
        }
        let at = 2 + at;
        let (mask, end) = if second & 0x80 == 0 {
            (None, at)
        } else {
            let Some(key) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            (Some(*key), at + 4)
        };
        Ok(Some(Self { opcode, fin: first & 0x80 != 0, bytes: end, payload_bytes: payload_bytes as usize, mask }))
    }

    /// Bytes of header and payload.
    pub const fn frame_bytes(&self) -> usize {
        self.bytes + self.payload_bytes
    }
}

/// The payload's length and how many extended bytes told it; `None` while those aren't there.
fn length(short: u8, extended: &[u8]) -> Option<(u64, usize)> {
    Some(match short {
        126 => (u64::from(u16::from_be_bytes(*extended.first_chunk()?)), 2),
        127 => (u64::from_be_bytes(*extended.first_chunk()?), 8),
        short => (u64::from(short), 0),
    })
}

/// Appends a whole masked frame (RFC 6455 section 5.3 demands a key nobody can foresee; the server can't tell, but pays for it).
pub fn write_masked(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader::new(opcode, payload.len());
    let mask = fastrand::u32(..).to_ne_bytes();
    let start = out.len();
    out.extend_from_slice(header.as_bytes());
    out[start + 1] |= 0x80;
    out.extend_from_slice(&mask);
    let payload_at = out.len();
    out.extend_from_slice(payload);
    fantail::ws::unmask(&mut out[payload_at..], mask);
}

/// A key of 16 random bytes, which no two connections share (RFC 6455 section 4.1).
pub fn new_key() -> String {
    BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes())
}

/// What the server must answer to `key` (RFC 6455 section 4.2.2).
pub fn accept_of(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize();
    let mut accept = [b'='; ACCEPT_BYTES];
    // A SHA-1 has 20 bytes, which base64 writes in exactly 28: it can't fail.
    let _ = BASE64_STANDARD.encode_slice(&digest[..], &mut accept);
    accept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        assert_eq!(&accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_written_reads_back_at_every_length_form_and_needs_its_whole_header() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![7; length];
            let mut frame = Vec::new();
            write_masked(OpCode::Binary, &payload, &mut frame);
            let header = Header::parse(&frame).unwrap().unwrap();
            assert_eq!((header.opcode, header.fin, header.payload_bytes), (OpCode::Binary, true, length));
            assert_eq!(header.frame_bytes(), frame.len());
            fantail::ws::unmask(&mut frame[header.bytes..], header.mask.unwrap());
            assert_eq!(frame[header.bytes..], payload);
            for cut in 0..header.bytes {
                assert_eq!(Header::parse(&frame[..cut]), Ok(None), "cut at {cut}");
            }
        }
    }

    #[test]
    fn garbage_is_no_header() {
        assert!(Header::parse(&[0xC1, 0]).is_err());
        assert!(Header::parse(&[0x83, 0]).is_err());
        assert!(Header::parse(&[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]).is_err());
    }
}
