//! Close codes, and what stands behind them (RFC 6455 sections 5.5.1 and 7.4).

use serde::Serialize;

use super::ProtocolError;
use crate::metrics::Cause;

/// A code that may stand in a close frame: 1000-1003, 1007-1014 and 3000-4999.
///
/// 1004 has no meaning, 1005, 1006 and 1015 are for an API alone, 1016-2999 belong to versions of the protocol to come
/// (RFC 6455 section 7.4.2; 1012-1014 from IANA's registry).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose was fulfilled (1000).
    pub const NORMAL: Self = Self(1000);
    /// An end goes away: a page is left, a server stops (1001).
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol (1002).
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A payload is not what its opcode says (1007).
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message is too big (1009).
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed (1011).
    pub const INTERNAL: Self = Self(1011);

    /// The code, if it may be sent.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What the peer said in its close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'b> {
    /// Its code.
    pub code: CloseCode,
    /// Its reason, at most 123 bytes; often empty.
    pub reason: &'b str,
}

impl<'b> CloseFrame<'b> {
    /// Reads the body of a close frame; `None` if it is empty, which is allowed.
    ///
    /// # Errors
    /// A body of one byte, a code that must not be sent, a reason that is not UTF-8: in this order, as they come on the wire.
    pub fn parse(body: &'b [u8]) -> Result<Option<Self>, ProtocolError> {
        let Some((code, reason)) = body.split_first_chunk::<2>() else {
            return if body.is_empty() { Ok(None) } else { Err(ProtocolError::CloseBodyTooShort) };
        };
        let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(ProtocolError::CloseCodeInvalid)?;
        let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Some(Self { code, reason }))
    }
}

/// The reason of a close, for programs and people.
#[derive(Serialize)]
struct Reason<'a> {
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// The body of a close frame that we send, at most 125 bytes as any control frame's.
#[derive(Clone, Copy, Debug)]
pub struct ClosePayload {
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

impl ClosePayload {
    /// The most bytes of a control frame's body (RFC 6455 section 5.5).
    pub const BYTES_MAX: usize = 125;

    /// A code without a reason: the echo of the peer's close.
    #[must_use]
    pub fn bare(code: CloseCode) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..2].copy_from_slice(&code.get().to_be_bytes());
        Self { bytes, length: 2 }
    }

    /// The echo of a close without a body: it says no more than the peer did.
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: [0; Self::BYTES_MAX], length: 0 }
    }

    /// The code of `cause` and the reason `{"cause":"drain","retry_after_ms":8400}`, or `{"cause":"too_big"}` without a delay, and with
    /// `"detail"` where there is room for it.
    /// `None` where nothing is sent because the peer is gone.
    #[must_use]
    pub fn because(cause: Cause, retry_after_ms: Option<u32>, detail: Option<&str>) -> Option<Self> {
        let code = CloseCode::new(cause.close_code())?;
        let reason = |detail| Reason { cause: cause.name(), retry_after_ms, detail };
        // A reason cut by the end of the room would be broken JSON, so a detail that does not fit stays out.
        Self::with_reason(code, &reason(detail)).or_else(|| Self::with_reason(code, &reason(None)))
    }

    fn with_reason(code: CloseCode, reason: &Reason<'_>) -> Option<Self> {
        let mut payload = Self::bare(code);
        let mut room = &mut payload.bytes[2..];
        serde_json::to_writer(&mut room, reason).ok()?;
        payload.length = (Self::BYTES_MAX - room.len()) as u8;
        Some(payload)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_that_may_be_sent_exist() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseCode::new(code), None, "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1013, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::new(code).map(CloseCode::get), Some(code));
        }
    }

    #[test]
    fn a_reason_says_the_cause_and_the_delay() {
        let payload = ClosePayload::because(Cause::Drain, Some(8400), None).unwrap();
        assert_eq!(payload.as_bytes(), b"\x03\xE9{\"cause\":\"drain\",\"retry_after_ms\":8400}");
        let payload = ClosePayload::because(Cause::TooBig, None, None).unwrap();
        assert_eq!(payload.as_bytes(), b"\x03\xF1{\"cause\":\"too_big\"}");
        assert!(ClosePayload::because(Cause::Reset, None, None).is_none());
    }

    const LONG: &str =
        "more than fits behind a cause and a delay in one hundred and twenty-three bytes, whatever cause it is, you see";

    #[test]
    fn every_reason_is_whole_json_and_fits() {
        for (cause, detail) in Cause::ALL.into_iter().flat_map(|cause| [(cause, "short \"one\""), (cause, LONG)]) {
            let Some(payload) = ClosePayload::because(cause, Some(u32::MAX), Some(detail)) else { continue };
            let frame = CloseFrame::parse(payload.as_bytes()).unwrap().unwrap();
            let reason: serde_json::Value = serde_json::from_str(frame.reason).unwrap();
            assert_eq!(reason["cause"], cause.name());
            assert_eq!(reason.get("detail").is_some(), detail != LONG);
        }
    }
}
