//! Refusals that a program can read and a person can act on (RFC 9457).

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
        let mut object = serde_json::Map::new();
        object.insert("type".into(), format!("urn:fantail:problem:{}", self.kind).into());
        object.insert("title".into(), self.title.into());
        object.insert("status".into(), self.status.into());
        object.insert("detail".into(), self.detail.into());
        for (name, number) in self.numbers {
            object.insert(name.into(), number.into());
        }
        object.insert("fix".into(), self.fix.into());
        let body = serde_json::Value::Object(object).to_string().into_bytes();
        Response::new(self.status).header("Content-Type", "application/problem+json").body(Body::Owned(body))
    }
}
