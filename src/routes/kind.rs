//! The kind of a POST's body: what its headers say it is (RFC 9110 section 8.3), never what its bytes look like.

use super::refusals;
use crate::frame::Kind;
use crate::http1::{Head, Response};

/// The kind of the body, or why it cannot be taken.
///
/// Without a Content-Type it is text; forms are, too, because that is what `curl -d` sends.
pub(super) fn body_kind(head: &Head<'_>) -> Result<Kind, Response> {
    check_content_encoding(head)?;
    let Some(content_type) = content_type(head)? else { return Ok(Kind::Text) };
    let mut parts = content_type.split(';').map(str::trim);
    let kind = media_kind(parts.next().unwrap_or_default());
    if kind == Kind::Text {
        parts.try_for_each(check_charset)?;
    }
    Ok(kind)
}

/// Subscribers get the bytes as they came, and could not know how to decode them.
fn check_content_encoding(head: &Head<'_>) -> Result<(), Response> {
    let mut codings = head.values("Content-Encoding").flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    match codings.find(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")) {
        None => Ok(()),
        Some(coding) => Err(refusals::content_encoding(&String::from_utf8_lossy(coding))),
    }
}

/// The one Content-Type, if there is one with something in it.
fn content_type<'h>(head: &Head<'h>) -> Result<Option<&'h str>, Response> {
    let mut lines = head.values("Content-Type");
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => {
            let text = std::str::from_utf8(line).map_err(|_| refusals::content_type())?;
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        (Some(_), Some(_)) => Err(refusals::content_type()),
    }
}

fn media_kind(media_type: &str) -> Kind {
    let is = |other: &str| media_type.eq_ignore_ascii_case(other);
    if is("application/json") || ends_with(media_type, "+json") {
        return Kind::Json;
    }
    let form_or_xml = is("application/x-www-form-urlencoded") || is("application/xml") || ends_with(media_type, "+xml");
    let is_text = media_type.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("text/"));
    if form_or_xml || is_text { Kind::Text } else { Kind::Binary }
}

fn ends_with(text: &str, suffix: &str) -> bool {
    let start = text.len().checked_sub(suffix.len());
    start.and_then(|start| text.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

/// A parameter that is no charset is not our concern; US-ASCII is UTF-8 as well.
fn check_charset(parameter: &str) -> Result<(), Response> {
    let Some((name, value)) = parameter.split_once('=') else { return Ok(()) };
    let value = value.trim().trim_matches('"');
    let known = ["utf-8", "utf8", "us-ascii"].iter().any(|charset| value.eq_ignore_ascii_case(charset));
    if name.trim().eq_ignore_ascii_case("charset") && !known { Err(refusals::charset(value)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, header, problem};

    fn kind(content_type: &str) -> Result<Kind, Response> {
        Ask::new("POST", "/topics/chat").header("Content-Type", content_type).with_head(body_kind)
    }

    #[test]
    fn the_media_type_decides() {
        for (content_type, expected) in [
            ("application/json", Kind::Json),
            ("Application/JSON; charset=utf-8", Kind::Json),
            ("application/json;charset=latin1", Kind::Json),
            ("application/vnd.api+json", Kind::Json),
            ("text/plain", Kind::Text),
            ("TEXT/HTML; charset=\"UTF-8\"", Kind::Text),
            ("text/plain; format=flowed ; charset = us-ascii", Kind::Text),
            ("text/plain; charset", Kind::Text),
            ("application/x-www-form-urlencoded", Kind::Text),
            ("application/xml", Kind::Text),
            ("image/svg+xml", Kind::Text),
            ("", Kind::Text),
            ("application/octet-stream", Kind::Binary),
            ("application/octet-stream; charset=latin1", Kind::Binary),
            ("image/png", Kind::Binary),
            ("text", Kind::Binary),
            (";", Kind::Binary),
            ("xml", Kind::Binary),
            ("é+json", Kind::Json),
            ("texté", Kind::Binary),
        ] {
            assert_eq!(kind(content_type).ok(), Some(expected), "{content_type:?}");
        }
        assert_eq!(Ask::new("POST", "/topics/chat").with_head(body_kind).ok(), Some(Kind::Text));
    }

    #[test]
    fn text_in_another_charset_is_refused() {
        for content_type in ["text/plain; charset=iso-8859-1", "text/plain;a=b;CHARSET=\"utf-16\"", "application/xml; charset="] {
            let refused = kind(content_type).unwrap_err();
            assert_eq!((refused.status, &problem(&refused)["type"]), (415, &"urn:fantail:problem:charset".into()));
        }
    }

    #[test]
    fn two_content_types_are_none() {
        let ask = Ask::new("POST", "/topics/chat").header("Content-Type", "text/plain").header("Content-Type", "text/plain");
        assert_eq!(ask.with_head(body_kind).unwrap_err().status, 415);
    }

    #[test]
    fn an_encoded_body_is_refused() {
        for coding in ["gzip", "identity, br", "x-\u{7f}"] {
            let refused = Ask::new("POST", "/topics/chat").header("Content-Encoding", coding).with_head(body_kind).unwrap_err();
            assert_eq!((refused.status, header(&refused, "Accept-Encoding")), (415, Some("identity")), "{coding}");
        }
        for coding in ["identity", "Identity, identity", ""] {
            let ask = Ask::new("POST", "/topics/chat").header("Content-Encoding", coding);
            assert_eq!(ask.with_head(body_kind).ok(), Some(Kind::Text), "{coding}");
        }
    }
}
