//! Frames as a server sends them (RFC 6455 sections 5.1 and 5.2): whole, unmasked, no reserved bit.

use super::{ClosePayload, MessageKind, ProtocolError};
use crate::frame::{FrameHeader, OpCode};

/// Appends a message in one frame.
///
/// # Errors
/// [`ProtocolError::NoMemory`] alone: the size is the peer's choice where a message is echoed. `out` is then as it was.
pub fn write_message(kind: MessageKind, payload: &[u8], out: &mut Vec<u8>) -> Result<(), ProtocolError> {
    let opcode = match kind {
        MessageKind::Text => OpCode::Text,
        MessageKind::Binary => OpCode::Binary,
    };
    out.try_reserve(FrameHeader::BYTES_MAX + payload.len()).map_err(|_| ProtocolError::NoMemory)?;
    write(opcode, payload, out);
    Ok(())
}

/// A ping or a pong as it goes on the wire, without an allocation: pongs answer what a peer may send very many of.
#[must_use]
pub fn control_frame(opcode: OpCode, payload: &[u8]) -> ([u8; CONTROL_FRAME_BYTES_MAX], usize) {
    debug_assert!(opcode.is_control() && payload.len() <= ClosePayload::BYTES_MAX);
    let header = FrameHeader::new(opcode, payload.len());
    let (start, end) = (header.as_bytes().len(), header.as_bytes().len() + payload.len());
    let mut frame = [0; CONTROL_FRAME_BYTES_MAX];
    frame[..start].copy_from_slice(header.as_bytes());
    frame[start..end].copy_from_slice(payload);
    (frame, end)
}

/// The longest control frame: a header of 2 bytes and 125 more (RFC 6455 section 5.5).
const CONTROL_FRAME_BYTES_MAX: usize = 2 + ClosePayload::BYTES_MAX;

/// Appends a close.
pub fn write_close(payload: &ClosePayload, out: &mut Vec<u8>) {
    write(OpCode::Close, payload.as_bytes(), out);
}

fn write(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    FrameHeader::new(opcode, payload.len()).append_to(out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::CloseCode;

    #[test]
    fn frames_stand_one_behind_the_other() {
        let mut out = Vec::new();
        write_message(MessageKind::Text, b"hi", &mut out).unwrap();
        let (frame, length) = control_frame(OpCode::Pong, b"p");
        out.extend_from_slice(&frame[..length]);
        write_close(&ClosePayload::bare(CloseCode::NORMAL), &mut out);
        write_close(&ClosePayload::empty(), &mut out);
        assert_eq!(out, b"\x81\x02hi\x8A\x01p\x88\x02\x03\xE8\x88\x00");
    }
}
