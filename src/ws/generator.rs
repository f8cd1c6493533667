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

/// Appends a ping or a pong. `payload` is what a peer's ping held, or ours: at most 125 bytes.
pub fn write_control(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(opcode.is_control() && payload.len() <= ClosePayload::BYTES_MAX);
    write(opcode, payload, out);
}

/// Appends a close.
pub fn write_close(payload: &ClosePayload, out: &mut Vec<u8>) {
    write_control(OpCode::Close, payload.as_bytes(), out);
}

fn write(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(FrameHeader::new(opcode, payload.len()).as_bytes());
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
        write_control(OpCode::Pong, b"p", &mut out);
        write_close(&ClosePayload::bare(CloseCode::NORMAL), &mut out);
        write_close(&ClosePayload::empty(), &mut out);
        assert_eq!(out, b"\x81\x02hi\x8A\x01p\x88\x02\x03\xE8\x88\x00");
    }
}
