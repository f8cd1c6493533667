//! `POST /topics`: several publications in one request, as a JSON array, answered by an array of their results in the same order.
//!
//! Each stands for itself, as if it had been a request of its own: one that is refused does not stop those behind it. Refused as a whole
//! is only what is no array, or one too long; then nothing is published. Nothing is allocated for elements beyond the limit.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::refusals;
use super::terms::seconds;
use crate::engine::{Submission, Terms};
use crate::frame::{Kind, Payload, Topic};
use crate::http1::{Body, Response};

/// Reads the body of a batch: for each of its elements the publication, or why it can't be one.
///
/// # Errors
/// The refusal of the whole: 400 if it is no JSON array, 413 if it has more elements than `publications_max`.
pub fn read_batch(body: &[u8], publications_max: usize) -> Result<Vec<Result<Submission, Response>>, Response> {
    let mut is_too_long = false;
    let elements = Elements { elements_max: publications_max, is_too_long: &mut is_too_long };
    let mut json = serde_json::Deserializer::from_slice(body);
    match elements.deserialize(&mut json).and_then(|elements| json.end().map(|()| elements)) {
        Ok(elements) => Ok(elements.into_iter().map(read_element).collect()),
        Err(_) if is_too_long => Err(refusals::batch_too_long(publications_max)),
        Err(error) => Err(refusals::bad_batch(&error)),
    }
}

/// 200 with the results of a batch, in the order of its elements: what a POST of each by itself would be answered, and for a refusal
/// `{"error":PROBLEM}`.
#[must_use]
pub fn batch_published(results: &[Response]) -> Response {
    let mut body = vec![b'['];
    for (place, result) in results.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        match result.status {
            200 => body.extend_from_slice(result.body.as_bytes()),
            _ => [br#"{"error":"#, result.body.as_bytes(), b"}"].into_iter().for_each(|part| body.extend_from_slice(part)),
        }
    }
    body.push(b']');
    Response::new(200).header("Content-Type", "application/json").body(Body::Owned(body))
}

/// One element, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Element<'a> {
    topic: String,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    text: Option<String>,
    base64: Option<String>,
    ttl: Option<u64>,
}

/// A member that is there, also where it is `null`.
fn present<'de, D: serde::Deserializer<'de>>(json: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(json).map(Some)
}

fn read_element(json: &RawValue) -> Result<Submission, Response> {
    let element: Element<'_> = serde_json::from_str(json.get()).map_err(|error| refusals::bad_publication(&error.to_string()))?;
    let topic = Topic::new(&element.topic).map_err(|error| refusals::topic_error(&element.topic, error))?;
    let payload = match (element.data, element.text, element.base64) {
        (Some(data), None, None) => Payload::new(Kind::Json, data.get().as_bytes()),
        (None, Some(text), None) => Payload::new_unchecked(Kind::Text, text.as_bytes()),
        (None, None, Some(base64)) => match base64::Engine::decode(&base64::prelude::BASE64_STANDARD, base64) {
            Ok(bytes) => Payload::new_unchecked(Kind::Binary, &bytes),
            Err(error) => return Err(refusals::bad_publication(&format!("\"base64\" is not base64: {error}"))),
        },
        _ => return Err(refusals::bad_publication("it needs one of \"data\", \"text\" and \"base64\"")),
    };
    let payload = payload.map_err(|error| refusals::payload_error(&error))?;
    let terms = element.ttl.map(|ttl| Box::new(Terms { ttl: Some(seconds(ttl)), key: None }));
    Ok(Submission { topic, payload, terms })
}

/// The elements of an array, unread, up to a number of them.
struct Elements<'l> {
    elements_max: usize,
    is_too_long: &'l mut bool,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            if elements.len() == self.elements_max {
                *self.is_too_long = true;
                return Err(A::Error::custom("too long"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::Position;
    use crate::routes::testing::{problem, problem_type};

    fn batch(body: &str) -> Result<Vec<Result<Submission, Response>>, String> {
        read_batch(body.as_bytes(), 3).map_err(|refusal| problem_type(&refusal))
    }

    /// The one element of an array.
    fn element(json: &str) -> Result<Submission, Response> {
        batch(&format!("[{json}]")).unwrap().remove(0)
    }

    #[test]
    fn each_member_is_of_its_kind() {
        for (json, kind, bytes) in [
            (r#"{"topic":"a/b","data":{"x": [1, 2.50]}}"#, Kind::Json, br#"{"x": [1, 2.50]}"#.as_slice()),
            (r#"{"topic":"a/b","data":null}"#, Kind::Json, b"null"),
            (r#"{"data":"x","topic":"a/b"}"#, Kind::Json, b"\"x\""),
            (r#"{"topic":"a\u002fb","text":"h\u00e9\n"}"#, Kind::Text, "hé\n".as_bytes()),
            (r#"{"topic":"a/b","text":""}"#, Kind::Text, b""),
            (r#"{"topic":"a/b","base64":"/wA="}"#, Kind::Binary, b"\xFF\x00"),
        ] {
            let submission = element(json).unwrap();
            assert_eq!((submission.topic.as_str(), submission.payload.kind()), ("a/b", kind), "{json}");
            assert_eq!((submission.payload.as_bytes(), submission.terms), (bytes, None), "{json}");
        }
    }

    #[test]
    fn a_time_to_live_is_a_number_of_seconds() {
        for (ttl, expected) in
            [("0", Some(0)), ("30", Some(30)), ("18446744073709551615", Some(u64::from(u32::MAX))), ("null", None)]
        {
            let submission = element(&format!(r#"{{"topic":"a","text":"x","ttl":{ttl}}}"#)).unwrap();
            assert_eq!(submission.terms.and_then(|terms| terms.ttl), expected.map(Duration::from_secs), "{ttl}");
        }
    }

    #[test]
    fn a_broken_element_breaks_no_other() {
        for (json, expected) in [
            (r#"{"topic":"a"}"#, "bad-publication"),
            (r#"{"text":"x"}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","data":1}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","data":null}"#, "bad-publication"),
            (r#"{"topic":"a","text":1}"#, "bad-publication"),
            (r#"{"topic":"a","text":null}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","text":"y"}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","tll":1}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","ttl":-1}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","ttl":1.5}"#, "bad-publication"),
            (r#"{"topic":"a","text":"x","ttl":"1"}"#, "bad-publication"),
            (r#"{"topic":"a","text":"\ud800"}"#, "bad-publication"),
            (r#"{"topic":"a","base64":"?"}"#, "bad-publication"),
            (r#"{"topic":"a","base64":"/w"}"#, "bad-publication"),
            (r#"{"topic":"a//b","text":"x"}"#, "bad-topic"),
            (r#"{"topic":"a/*","text":"x"}"#, "bad-topic"),
            (r#"{"topic":"meta/x","text":"x"}"#, "reserved-topic"),
            ("7", "bad-publication"),
            ("null", "bad-publication"),
            ("[]", "bad-publication"),
        ] {
            let results = batch(&format!(r#"[{json}, {{"topic":"b","text":"x"}}]"#)).unwrap();
            assert_eq!(results[0].as_ref().map_err(problem_type).unwrap_err(), expected, "{json}");
            assert!(results[1].is_ok(), "{json}");
        }
        let told = problem(&element(r#"{"topic":"a","text":"x","tll":1}"#).unwrap_err());
        assert!(told["detail"].as_str().unwrap().contains("tll"), "{told}");
    }

    #[test]
    fn what_is_no_array_is_refused_as_a_whole() {
        let one = r#"{"topic":"a","text":"x"}"#;
        for body in ["", "{}", one, "[", "[1,]", "[1 2]", "[]x", "\u{feff}[]", "[\"\u{1}\"]"] {
            assert_eq!(batch(body).unwrap_err(), "bad-batch", "{body:?}");
        }
        assert_eq!(read_batch(b"[\"\xFF\"]", 3).unwrap_err().status, 400);
        assert_eq!(batch(" [ ] ").unwrap().len(), 0);
        assert_eq!(batch(&format!("[{one},{one},{one}]")).unwrap().len(), 3);
        assert_eq!(batch(&format!("[{one},{one},{one},{one}")).unwrap_err(), "batch-too-long", "the rest is not even read");
        let deep = "[".repeat(100_000);
        assert_eq!(batch(&deep).unwrap_err(), "bad-batch");
        assert!(batch(&format!(r#"[{{"topic":"a","data":{}1{}}}]"#, "[".repeat(100_000), "]".repeat(100_000))).is_ok());
    }

    #[test]
    fn results_stand_in_their_order() {
        let topic = Topic::new("a").unwrap();
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        let published = crate::routes::published(&topic, crate::engine::Appended { position, is_repeated: false }, 2);
        let answer = batch_published(&[published, refusals::publish_timeout()]);
        let body: serde_json::Value = serde_json::from_slice(answer.body.as_bytes()).unwrap();
        let accepted = serde_json::json!({"topic": "a", "cursor": "k3Vq.7", "epoch": "k3Vq", "offset": 7, "subscribers": 2});
        assert_eq!((answer.status, &body[0]), (200, &accepted));
        assert_eq!(body[1]["error"], problem(&refusals::publish_timeout()));
        assert_eq!(batch_published(&[]).body.as_bytes(), b"[]");
    }
}
