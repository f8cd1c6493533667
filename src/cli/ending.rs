//! Why a connection ended, in words, and whether to come back.

use std::time::Duration;

use serde::Deserialize;
use tungstenite::protocol::CloseFrame;

use super::{Failure, problem::printable};

/// How a subscription's connection ended, or never began.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All that was asked for is printed, or nobody reads it any more.
    Done,
    /// Ctrl-C.
    Interrupted,
    /// The same would happen again: do not come back.
    Final(Failure),
    /// No connection could be made.
    Unreachable(String),
    /// Come back, after the delay the server named or one of the client's own.
    Lost { why: String, retry_after: Option<Duration> },
}

impl Ending {
    /// An ending by the network: come back.
    pub(super) fn lost(why: impl Into<String>) -> Self {
        Self::Lost { why: why.into(), retry_after: None }
    }
}

/// The close reason, where the server has more to say than the code.
#[derive(Default, Deserialize)]
struct Reason {
    cause: Option<String>,
    retry_after_ms: Option<u64>,
}

/// What the server's close frame means.
pub(super) fn of_close(frame: Option<&CloseFrame>) -> Ending {
    let Some(frame) = frame else { return Ending::lost("the server closed the connection without saying why") };
    let code = u16::from(frame.code);
    let reason: Reason = serde_json::from_str(&frame.reason).unwrap_or_default();
    let known = |row: &&Row| reason.cause.as_deref().map_or(row.code == code, |cause| row.cause == cause);
    let (words, cause) = match (CAUSES.iter().find(known), reason.cause.as_deref()) {
        (Some(row), _) => (row.words.to_owned(), row.cause.to_owned()),
        (None, Some(cause)) => ("a reason this version does not know".to_owned(), printable(cause)),
        (None, None) => (printable(&frame.reason), "no cause".to_owned()),
    };
    let why = format!("the server closed the connection: {words} ({code}, {cause})");
    if DO_NOT_RETURN.contains(&code) {
        return Ending::Final(Failure::runtime(why));
    }
    Ending::Lost { why, retry_after: reason.retry_after_ms.map(Duration::from_millis) }
}

/// One cause, and the code it is the likeliest meaning of when the close says no more; 0 where another cause is likelier.
struct Row {
    cause: &'static str,
    code: u16,
    words: &'static str,
}

const fn row(code: u16, cause: &'static str, words: &'static str) -> Row {
    Row { cause, code, words }
}

/// The causes a server tells (docs/wire.md, "Why a connection ended").
const CAUSES: &[Row] = &[
    row(1000, "client_close", "it is done"),
    row(1001, "drain", "it is stopping"),
    row(0, "stalled_write", "this client took nothing of what waited for it"),
    row(0, "slow_consumer", "this client was too slow, messages are missing"),
    row(0, "handshake_timeout", "this client took too long to ask"),
    row(0, "message_timeout", "a message of this client took too long"),
    row(1008, "policy", "this client did what is not allowed here"),
    row(0, "limit", "a limit is reached"),
    row(1002, "protocol_error", "this client broke the protocol"),
    row(1007, "bad_utf8", "this client sent text that is not UTF-8"),
    row(1009, "too_big", "this client sent too large a message"),
    row(4001, "unauthenticated", "it wants to know who this is"),
    row(4003, "forbidden", "this is not allowed"),
    row(4009, "kicked", "an operator ended it"),
    row(1013, "overloaded", "it is at a limit of its own"),
    row(4104, "gap", "messages are missing, read the state anew"),
    row(4201, "expired", "the permission ended"),
    row(1011, "internal", "it has a fault"),
];

/// Codes after which coming back would end the same way.
const DO_NOT_RETURN: [u16; 3] = [4001, 4003, 4009];

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str) -> Ending {
        of_close(Some(&CloseFrame { code: code.into(), reason: reason.into() }))
    }

    fn lost(why: &str, retry_after_ms: Option<u64>) -> Ending {
        Ending::Lost {
            why: format!("the server closed the connection: {why}"),
            retry_after: retry_after_ms.map(Duration::from_millis),
        }
    }

    #[test]
    fn a_close_is_told_in_words() {
        assert_eq!(close(1001, r#"{"cause":"drain","retry_after_ms":8400}"#), lost("it is stopping (1001, drain)", Some(8400)));
        assert_eq!(
            close(1013, r#"{"cause":"slow_consumer"}"#),
            lost("this client was too slow, messages are missing (1013, slow_consumer)", None)
        );
        assert_eq!(close(1013, ""), lost("it is at a limit of its own (1013, overloaded)", None));
        assert_eq!(close(1008, r#"{"cause":"new"}"#), lost("a reason this version does not know (1008, new)", None));
        assert_eq!(close(3000, "see\x1b you"), lost("see\\u{1b} you (3000, no cause)", None));
        assert_eq!(of_close(None), Ending::lost("the server closed the connection without saying why"));
    }

    #[test]
    fn some_codes_forbid_to_return() {
        for code in DO_NOT_RETURN {
            assert!(matches!(close(code, r#"{"retry_after_ms":1}"#), Ending::Final(_)), "{code}");
        }
    }
}
