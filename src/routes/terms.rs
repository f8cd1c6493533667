//! What a publisher asks for in the headers of its POST: how long its publication may be kept, and under which key it may come again.

use std::time::Duration;

use super::refusals;
use crate::engine::{IdempotencyKey, Terms};
use crate::http1::{Head, Response};

/// What the head of a POST asks for; `None` if that is nothing.
pub(super) fn terms(head: &Head<'_>) -> Result<Option<Box<Terms>>, Response> {
    let terms = Terms { ttl: ttl(head)?, key: key(head)? };
    Ok((terms != Terms::default()).then(|| Box::new(terms)))
}

/// `TTL`: whole seconds (RFC 8030 section 5.2).
fn ttl(head: &Head<'_>) -> Result<Option<Duration>, Response> {
    let Some(value) = only(head, "TTL").map_err(|value| refusals::bad_ttl(&value))? else { return Ok(None) };
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refusals::bad_ttl(value));
    }
    // More than a number holds is as long as may be.
    Ok(Some(seconds(value.parse().unwrap_or(u64::MAX))))
}

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07 section 2.1).
fn key(head: &Head<'_>) -> Result<Option<IdempotencyKey>, Response> {
    let value = only(head, "Idempotency-Key").map_err(|value| refusals::bad_idempotency_key(&value))?;
    value.map(|value| value.parse().map_err(|_| refusals::bad_idempotency_key(value))).transpose()
}

/// A time to live. All beyond 136 years is one.
pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count.min(u64::from(u32::MAX)))
}

/// The value of a header that may stand there once; what stands there otherwise.
fn only<'h>(head: &Head<'h>, name: &str) -> Result<Option<&'h str>, String> {
    let mut lines = head.values(name);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => std::str::from_utf8(line).map(Some).map_err(|_| String::from_utf8_lossy(line).into_owned()),
        (Some(first), Some(second)) => Err(String::from_utf8_lossy(&[first, b", ", second].concat()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, problem_type};

    fn of(ask: Ask) -> Result<Option<Box<Terms>>, String> {
        ask.with_head(terms).map_err(|refusal| problem_type(&refusal))
    }

    fn post() -> Ask {
        Ask::new("POST", "/topics/chat")
    }

    #[test]
    fn a_time_to_live_is_whole_seconds() {
        assert_eq!(of(post()), Ok(None));
        for (value, expected) in [("0", 0), ("30", 30), ("007", 7), ("99999999999999999999999", u64::from(u32::MAX))] {
            let terms = of(post().header("TTL", value)).unwrap().unwrap();
            assert_eq!(terms.ttl, Some(Duration::from_secs(expected)), "{value}");
        }
        for value in ["", "-1", "+5", "1.5", "30s", "0x10", "1e3", "5, 5", "٣"] {
            assert_eq!(of(post().header("TTL", value)), Err("bad-ttl".into()), "{value:?}");
        }
        assert_eq!(of(post().header("TTL", "5").header("ttl", "5")), Err("bad-ttl".into()));
    }

    #[test]
    fn a_key_stands_there_once() {
        let terms = of(post().header("Idempotency-Key", "\"k 1\"").header("TTL", "5")).unwrap().unwrap();
        assert_eq!((terms.key.unwrap().as_str(), terms.ttl), ("k 1", Some(Duration::from_secs(5))));
        for value in ["", "a b", "\"", &"k".repeat(256), "\u{e9}"] {
            assert_eq!(of(post().header("Idempotency-Key", value)), Err("bad-idempotency-key".into()), "{value:?}");
        }
        let twice = post().header("Idempotency-Key", "a").header("Idempotency-Key", "a");
        assert_eq!(of(twice), Err("bad-idempotency-key".into()));
    }
}
