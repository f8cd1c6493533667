//! Refusals that a program can read and a person can act on (RFC 9457).

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{Body, Response};

/// A problem body: which rule was broken, and how to mend it. `docs/errors.md` lists every type.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The last part of `urn:fantail:problem:TYPE`.
    pub kind: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, the same for every problem of this type.
    pub title: &'static str,
    /// What went wrong this time.
    pub detail: String,
    /// What the reader can do about it.
    pub fix: &'static str,
    /// Further members, such as `limit_bytes`.
    pub numbers: Vec<(&'static str, u64)>,
}

impl Problem {
    /// The answer that carries this problem as `application/problem+json`.
    #[must_use]
    pub fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem is a flat object of text and numbers");
        Response::new(self.status).header("Content-Type", "application/problem+json").body(Body::Owned(body))
    }
}

/// Members in the order a person reads them: what, how bad, why, and last the way out.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("type", &format_args!("urn:fantail:problem:{}", self.kind))?;
        object.serialize_entry("title", self.title)?;
        object.serialize_entry("status", &self.status)?;
        object.serialize_entry("detail", &self.detail)?;
        for (name, number) in &self.numbers {
            object.serialize_entry(name, number)?;
        }
        object.serialize_entry("fix", self.fix)?;
        object.end()
    }
}

/// `text` in quotes, everything unprintable escaped, clipped: the client knows the rest.
#[must_use]
pub fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 120;
    match text.char_indices().nth(CHARACTERS_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use crate::http1::HttpError;

    #[test]
    fn a_problem_names_rule_limit_and_fix() {
        let response = HttpError::MessageTooLarge { body_bytes: Some(70_112), limit_bytes: 65_536 }.into_response();
        let body = std::str::from_utf8(response.body.as_bytes()).unwrap();
        assert_eq!(
            body,
            concat!(
                r#"{"type":"urn:fantail:problem:message-too-large","title":"The body is too large","status":413,"#,
                r#""detail":"The body has 70112 bytes; the limit is 65536.","limit_bytes":65536,"#,
                r#""fix":"Send less, or raise --max-message-size."}"#
            )
        );
        assert_eq!((response.status, response.close), (413, true));
        assert_eq!(response.headers, [("Content-Type", "application/problem+json".to_owned())]);
    }
}
