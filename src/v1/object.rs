//! What the server says by itself or in answer, beside `message` and `gap` objects.

use serde::Serialize;
use serde::ser::Serializer;
use serde_json::value::RawValue;

use super::Id;
use crate::frame::{Cursor, Position};

/// The text of a `ping`: a sign of life that a page can see, as it can't see the pings of the WebSocket.
pub const PING: &[u8] = br#"{"type":"ping"}"#;

/// The first message: who the client is here, and what it may rely on. Members of `told` stand beside the others.
#[derive(Debug, Serialize)]
pub struct Open<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    client: &'a str,
    #[serde(flatten)]
    told: T,
}

impl<'a, T: Serialize> Open<'a, T> {
    /// For the client of this name.
    pub const fn new(client: &'a str, told: T) -> Self {
        Self { kind: "open", client, told }
    }
}

/// What was asked for is done, or is so already. What is absent is not written.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Okay<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "cursor")]
    cursor: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    already: bool,
}

impl<'a> Okay<'a> {
    /// The answer to the request of this id.
    #[must_use]
    pub const fn new(id: Option<&'a Id>) -> Self {
        Self { id, kind: "ok", topic: None, cursor: None, recovered: None, already: false }
    }

    /// About this topic.
    #[must_use]
    pub const fn topic(self, topic: &'a str) -> Self {
        Self { topic: Some(topic), ..self }
    }

    /// The subscription begins here, or the publication stands here.
    #[must_use]
    pub const fn cursor(self, position: Position) -> Self {
        Self { cursor: Some(position), ..self }
    }

    /// Whether everything behind the cursor that was given can be replayed; `None` if none was.
    #[must_use]
    pub const fn recovered(self, recovered: Option<bool>) -> Self {
        Self { recovered, ..self }
    }

    /// There was nothing to do.
    #[must_use]
    pub const fn already(self) -> Self {
        Self { already: true, ..self }
    }
}

/// Who is there, as was asked for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Present<'a, S: Serialize> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    #[serde(flatten)]
    state: S,
}

impl<'a, S: Serialize> Present<'a, S> {
    /// The answer to the request of this id. Members of `state` stand beside the others.
    pub const fn new(id: Option<&'a Id>, topic: &'a str, state: S) -> Self {
        Self { id, kind: "ok", topic, state }
    }
}

/// What was asked for is not done.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Error<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Id>,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    problem: &'a RawValue,
}

impl<'a> Error<'a> {
    /// The answer to the request of this id, with a problem object (RFC 9457).
    #[must_use]
    pub const fn new(id: Option<&'a Id>, problem: &'a RawValue) -> Self {
        Self { id, kind: "error", topic: None, problem }
    }

    /// About this topic: the URL's have no ids.
    #[must_use]
    pub const fn topic(self, topic: &'a str) -> Self {
        Self { topic: Some(topic), ..self }
    }
}

fn cursor<S: Serializer>(position: &Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    match position {
        Some(position) => serializer.collect_str(&Cursor(*position)),
        None => serializer.serialize_none(),
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(object: &impl Serialize) -> String {
        serde_json::to_string(object).unwrap()
    }

    #[test]
    fn objects_have_exactly_these_members_in_this_order() {
        let id = Id::Number(1);
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 1040 };
        let ok = Okay::new(Some(&id)).topic("say \"hi\"").cursor(position);
        for (object, expected) in [
            (text(&Okay::new(None)), r#"{"type":"ok"}"#),
            (text(&ok), r#"{"id":1,"type":"ok","topic":"say \"hi\"","cursor":"k3Vq.1040"}"#),
            (
                text(&ok.topic("chat").recovered(Some(false))),
                r#"{"id":1,"type":"ok","topic":"chat","cursor":"k3Vq.1040","recovered":false}"#,
            ),
            (text(&Okay::new(None).topic("chat").already()), r#"{"type":"ok","topic":"chat","already":true}"#),
        ] {
            assert_eq!(object, expected);
        }
        let state = serde_json::json!({"count": 2});
        assert_eq!(text(&Present::new(Some(&id), "chat", state)), r#"{"id":1,"type":"ok","topic":"chat","count":2}"#);
        let problem: Box<RawValue> = serde_json::from_str(r#"{"status":400}"#).unwrap();
        let id = Id::Text("a".into());
        let error = Error::new(Some(&id), &problem);
        assert_eq!(text(&error), r#"{"id":"a","type":"error","problem":{"status":400}}"#);
        assert_eq!(text(&error.topic("b")), r#"{"id":"a","type":"error","topic":"b","problem":{"status":400}}"#);
        let told = serde_json::json!({"ping_ms": 25000});
        assert_eq!(text(&Open::new("0-13", told)), r#"{"type":"open","client":"0-13","ping_ms":25000}"#);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(PING).unwrap()["type"], "ping");
    }
}
