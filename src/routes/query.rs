//! The query of a URL, as forms and `URLSearchParams` write it (WHATWG URL section 5.1).
//!
//! Parameters that Fantail does not know are ignored: caches are defeated and callers traced with such.

use percent_encoding::percent_decode;

use super::refusals;
use super::subscribe::OnGap;
use crate::frame::{Form, Kind, TopicError};
use crate::http1::Response;
use crate::words::ChoiceError;

/// The raw query; each look reads it again, since few looks are made and a head is small.
#[derive(Clone, Copy)]
pub(super) struct Query<'q>(pub &'q str);

impl<'q> Query<'q> {
    fn pairs(self) -> impl Iterator<Item = (&'q str, &'q str)> {
        self.0.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The first value of `name`, as it came.
    pub(super) fn value(self, name: &str) -> Option<&'q str> {
        self.pairs().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The values of `topic`, as they came, each with how many `since` stand before it.
    pub(super) fn topics(self) -> impl Iterator<Item = (&'q str, usize)> {
        let mut passed = 0;
        self.pairs().filter_map(move |(key, value)| {
            passed += usize::from(key == "since");
            (key == "topic").then_some((value, passed))
        })
    }

    /// The values of `since`, as they came.
    pub(super) fn since(self) -> impl Iterator<Item = &'q str> {
        self.pairs().filter(|(key, _)| *key == "since").map(|(_, value)| value)
    }

    /// `?envelope`: each publication as a `message` object.
    pub(super) fn form(self) -> Result<Form, Response> {
        match self.value("envelope") {
            None | Some("0" | "false") => Ok(Form::WsRaw),
            Some("" | "1" | "true") => Ok(Form::WsEnvelope),
            Some(other) => Err(refusals::bad_parameter("envelope", other, "Use \"envelope\" alone.")),
        }
    }

    /// `?on-gap=continue`: whether what is missing ends the socket.
    pub(super) fn on_gap(self) -> Result<OnGap, Response> {
        let Some(value) = self.value("on-gap") else { return Ok(OnGap::Close) };
        value.parse().map_err(|error: ChoiceError| refusals::bad_parameter("on-gap", value, error.accepted))
    }

    /// `?kind=json`: what the socket's text messages are.
    pub(super) fn text_kind(self) -> Result<Kind, Response> {
        match self.value("kind") {
            None | Some("text") => Ok(Kind::Text),
            Some("json") => Ok(Kind::Json),
            Some(other) => {
                Err(refusals::bad_parameter("kind", other, "Use kind=json or kind=text; binary messages stay binary."))
            }
        }
    }
}

/// The text that a value stands for: `+` is a space, `%2F` a slash, because `URLSearchParams` has to write it so.
pub(super) fn decode(value: &str) -> Result<String, TopicError> {
    let spaced = value.replace('+', " ");
    let text = percent_decode(spaced.as_bytes()).decode_utf8().map_err(|_| TopicError::NotUtf8)?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_in_any_order() {
        let query = Query("topic=a&x&envelope&topic=b%2Fc&kind=json&=&&kind=text&topic=");
        assert_eq!(query.topics().collect::<Vec<_>>(), [("a", 0), ("b%2Fc", 0), ("", 0)]);
        let several = Query("since=1&topic=a&topic=b&since=2&topic=c");
        assert_eq!(several.topics().collect::<Vec<_>>(), [("a", 1), ("b", 1), ("c", 2)]);
        assert_eq!(several.since().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(query.form().ok(), Some(Form::WsEnvelope));
        assert_eq!(query.text_kind().ok(), Some(Kind::Json));
        assert_eq!((query.value("x"), query.value("since")), (Some(""), None));
    }

    #[test]
    fn absent_parameters_have_their_defaults() {
        assert_eq!((Query("").form().ok(), Query("").text_kind().ok()), (Some(Form::WsRaw), Some(Kind::Text)));
        assert_eq!(Query("envelope=false").form().ok(), Some(Form::WsRaw));
        assert_eq!(Query("envelope=1").form().ok(), Some(Form::WsEnvelope));
    }

    #[test]
    fn unknown_values_are_refused() {
        assert_eq!(Query("envelope=perhaps").form().unwrap_err().status, 400);
        assert_eq!(Query("kind=binary").text_kind().unwrap_err().status, 400);
    }

    #[test]
    fn values_are_decoded_as_forms_write_them() {
        for (value, text) in [("a%2Fb", "a/b"), ("a+b", "a b"), ("a%2Bb", "a+b"), ("caf%C3%A9", "café"), ("%zz", "%zz")] {
            assert_eq!(decode(value).as_deref(), Ok(text));
        }
        assert_eq!(decode("%FF"), Err(TopicError::NotUtf8));
    }
}
