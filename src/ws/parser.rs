//! Frame headers (RFC 6455 section 5.2) as a function of bytes. It keeps nothing, so a header that came in part is parsed anew.
//!
//! ```text
//!            byte 0               byte 1            0, 2 or 8 bytes          4 bytes
//!   ---> FIN RSV opcode ----> MASK length ----> longer length ----> mask ----> Header
//!             |                    |                   |
//!        ReservedBits          Unmasked         LengthNotMinimal
//!        ReservedOpcode        ControlTooLong   LengthTopBit
//!        FragmentedControl                      TooBig
//!        OrphanContinuation
//!        InterruptedMessage
//! ```
//!
//! Every check is made at the byte that decides it: nothing is allocated for, and nothing waited for, behind a bad one.

use super::ProtocolError;
use crate::frame::OpCode;

/// The longest header of a masked frame, in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// The most bytes of a control frame's payload (RFC 6455 section 5.5).
pub(super) const CONTROL_BYTES_MAX: usize = 125;

/// The header of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the frame ends its message.
    pub fin: bool,
    /// What it is.
    pub opcode: OpCode,
    /// What its payload is masked with.
    pub mask: [u8; 4],
    /// The length of its payload. For data it is within the room that the sequence left.
    pub payload_bytes: u64,
}

/// What went before, as far as a header is judged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    /// Whether a fragmented message waits for its next fragment.
    pub in_message: bool,
    /// How many bytes the message may still grow by.
    pub room_bytes: u64,
}

/// Reads the header at the start of `bytes`, and how many bytes it takes; `None` if more must come.
///
/// # Errors
/// The rule that the first bad byte breaks.
#[inline]
pub(super) fn parse(bytes: &[u8], sequence: Sequence) -> Result<Option<(Header, usize)>, ProtocolError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let (fin, opcode) = parse_first(*first, sequence.in_message)?;
    let Some(second) = bytes.get(1) else { return Ok(None) };
    let short = parse_second(*second, opcode)?;
    let Some((payload_bytes, length_end)) = parse_length(short, bytes)? else { return Ok(None) };
    if !opcode.is_control() && payload_bytes > sequence.room_bytes {
        return Err(ProtocolError::TooBig);
    }
    let Some(mask) = bytes[length_end..].first_chunk::<4>() else { return Ok(None) };
    Ok(Some((Header { fin, opcode, mask: *mask, payload_bytes }, length_end + 4)))
}

fn parse_first(byte: u8, in_message: bool) -> Result<(bool, OpCode), ProtocolError> {
    let fin = byte & 0x80 != 0;
    if byte & 0x70 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let opcode = OpCode::from_bits(byte & 0x0F).ok_or(ProtocolError::ReservedOpcode)?;
    match opcode {
        _ if opcode.is_control() && !fin => Err(ProtocolError::FragmentedControl),
        OpCode::Continuation if !in_message => Err(ProtocolError::OrphanContinuation),
        OpCode::Text | OpCode::Binary if in_message => Err(ProtocolError::InterruptedMessage),
        _ => Ok((fin, opcode)),
    }
}

/// Checks the mask bit and returns the seven bits of length.
fn parse_second(byte: u8, opcode: OpCode) -> Result<u8, ProtocolError> {
    let short = byte & 0x7F;
    if byte & 0x80 == 0 {
        return Err(ProtocolError::Unmasked);
    }
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(ProtocolError::ControlTooLong);
    }
    Ok(short)
}

/// The payload's length, and where the mask begins.
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
    let (length, minimum, end) = match short {
        126 => match bytes[2..].first_chunk::<2>() {
            Some(long) => (u64::from(u16::from_be_bytes(*long)), 126, 4),
            None => return Ok(None),
        },
        127 => match bytes[2..].first_chunk::<8>() {
            Some(long) => (u64::from_be_bytes(*long), 0x1_0000, 10),
            None => return Ok(None),
        },
        _ => (u64::from(short), 0, 2),
    };
    if length < minimum {
        return Err(ProtocolError::LengthNotMinimal);
    }
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthTopBit);
    }
    Ok(Some((length, end)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY: Sequence = Sequence { in_message: false, room_bytes: u64::MAX };

    #[test]
    fn a_header_says_what_was_written() {
        let mask = [1, 2, 3, 4];
        for (bytes, payload_bytes) in [
            (&[0x82, 0x80, 1, 2, 3, 4][..], 0),
            (&[0x82, 0xFD, 1, 2, 3, 4], 125),
            (&[0x82, 0xFE, 0, 126, 1, 2, 3, 4], 126),
            (&[0x82, 0xFE, 0xFF, 0xFF, 1, 2, 3, 4], 0xFFFF),
            (&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 0x1_0000),
        ] {
            let header = Header { fin: true, opcode: OpCode::Binary, mask, payload_bytes };
            assert_eq!(parse(bytes, ANY), Ok(Some((header, bytes.len()))));
        }
    }

    #[test]
    fn the_first_bad_byte_decides() {
        // A reserved opcode with an impossible length, unmasked: each later fault is hidden by the earlier one.
        let bytes = [0x83, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        assert_eq!(parse(&bytes, ANY), Err(ProtocolError::ReservedOpcode));
        assert_eq!(parse(&[&[0x82], &bytes[1..]].concat(), ANY), Err(ProtocolError::Unmasked));
        assert_eq!(parse(&[&[0x82, 0xFF], &bytes[2..]].concat(), ANY), Err(ProtocolError::LengthTopBit));
    }

    #[test]
    fn a_message_too_big_is_refused_before_its_mask() {
        let sequence = Sequence { in_message: true, room_bytes: 9 };
        assert_eq!(parse(&[0x80, 0x8A], sequence), Err(ProtocolError::TooBig));
        assert_eq!(parse(&[0x89, 0x8A], sequence), Ok(None), "a ping is not part of the message");
    }

    proptest! {
        #[test]
        fn a_prefix_says_the_same_or_asks_for_more(
            bytes in prop::collection::vec(any::<u8>(), 0..20), in_message: bool, room_bytes in prop_oneof![0_u64..200, any::<u64>()],
        ) {
            let sequence = Sequence { in_message, room_bytes };
            let verdict = parse(&bytes, sequence);
            for cut in 0..bytes.len() {
                let early = parse(&bytes[..cut], sequence);
                prop_assert!(early == verdict || early == Ok(None), "{:?} at {}, {:?} whole", early, cut, verdict);
            }
            if let Ok(Some((_, header_bytes))) = verdict {
                prop_assert!(header_bytes <= HEADER_BYTES_MAX);
            } else if bytes.len() >= HEADER_BYTES_MAX {
                prop_assert!(verdict.is_err());
            }
        }
    }
}
