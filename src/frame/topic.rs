//! Topic names: what may stand in a URL after `/topics/`.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest topic name, in bytes after percent-decoding.
pub const TOPIC_BYTES_MAX: usize = 255;

/// A valid topic name: UTF-8, 1 to 255 bytes, segments separated by `/`, none empty, `.` or `..`, no `*`, no control character.
///
/// Cloning counts a reference; the text itself is shared by everything that names the topic.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Topic(Arc<str>);

/// Why a name is no topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing stands after `/topics/`.
    #[error("the topic's name is empty")]
    Empty,
    /// More than [`TOPIC_BYTES_MAX`] bytes.
    #[error("the topic's name is longer than {TOPIC_BYTES_MAX} bytes")]
    TooLong,
    /// Percent-decoding gave bytes that are not UTF-8, or a `%` stands without two hexadecimal digits.
    #[error("the topic's name is not percent-encoded UTF-8")]
    NotUtf8,
    /// `a//b`, a slash at either end, `.` or `..`.
    #[error("a segment of the topic's name is empty, \".\" or \"..\"")]
    BadSegment,
    /// `%2F` inside a segment: some proxies decode it and some do not, so it would name two topics.
    #[error("a segment of the topic's name holds an encoded slash")]
    EncodedSlash,
    /// `*` makes a pattern, and a pattern is not a topic.
    #[error("the topic's name holds \"*\", which only patterns may")]
    Wildcard,
    /// A character below U+0020, or U+007F to U+009F.
    #[error("the topic's name holds a control character")]
    ControlCharacter,
    /// The first segment is `meta` or `service`.
    #[error("topics below \"meta\" and \"service\" are reserved")]
    Reserved,
}

impl Topic {
    /// Reads a name from the path of a URL: percent-decodes each segment, then checks it.
    ///
    /// # Errors
    /// The first rule that the name breaks (docs/wire.md, "Topics").
    pub fn from_path(encoded: &str) -> Result<Self, TopicError> {
        Self::new(&decode_path(encoded)?)
    }

    /// Checks a name that needs no decoding.
    ///
    /// # Errors
    /// The first rule that the name breaks (docs/wire.md, "Topics").
    pub fn new(name: &str) -> Result<Self, TopicError> {
        check(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The decoded name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Topic({:?})", &self.0)
    }
}

/// Percent-decodes a name from the path of a URL, segment by segment.
pub(super) fn decode_path(encoded: &str) -> Result<String, TopicError> {
    // A longer text cannot decode to an allowed name, so nothing sized by input is allocated.
    if encoded.len() > TOPIC_BYTES_MAX * 3 {
        return Err(TopicError::TooLong);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (high, low) = (bytes.next().and_then(hex), bytes.next().and_then(hex));
        match high.zip(low).map(|(high, low)| high << 4 | low) {
            None => return Err(TopicError::NotUtf8),
            Some(b'/') => return Err(TopicError::EncodedSlash),
            Some(byte) => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| TopicError::NotUtf8)
}

/// The rules of a name, which a pattern's segments follow, too.
pub(super) fn check(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        return Err(TopicError::Empty);
    }
    if name.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong);
    }
    if name.chars().any(char::is_control) {
        return Err(TopicError::ControlCharacter);
    }
    if name.contains('*') {
        return Err(TopicError::Wildcard);
    }
    if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(TopicError::BadSegment);
    }
    if matches!(name.split('/').next(), Some("meta" | "service")) {
        return Err(TopicError::Reserved);
    }
    Ok(())
}

fn hex(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_decoded_segment_by_segment() {
        for (encoded, name) in
            [("chat", "chat"), ("a/b/c", "a/b/c"), ("caf%C3%A9", "café"), ("a%20b", "a b"), ("%25", "%"), ("metal", "metal")]
        {
            assert_eq!(Topic::from_path(encoded).unwrap().as_str(), name);
        }
    }

    #[test]
    fn each_rule_is_named() {
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        let encoded = "%41".repeat(TOPIC_BYTES_MAX + 1);
        for (name, error) in [
            ("", TopicError::Empty),
            (long.as_str(), TopicError::TooLong),
            (encoded.as_str(), TopicError::TooLong),
            ("a//b", TopicError::BadSegment),
            ("/a", TopicError::BadSegment),
            ("a/", TopicError::BadSegment),
            ("a/../b", TopicError::BadSegment),
            ("%2e%2E", TopicError::BadSegment),
            ("a%2Fb", TopicError::EncodedSlash),
            ("a%2fb", TopicError::EncodedSlash),
            ("a/*", TopicError::Wildcard),
            ("%00", TopicError::ControlCharacter),
            ("a%C2%85", TopicError::ControlCharacter),
            ("%FF", TopicError::NotUtf8),
            ("%4", TopicError::NotUtf8),
            ("%zz", TopicError::NotUtf8),
            ("meta/connect", TopicError::Reserved),
            ("service", TopicError::Reserved),
        ] {
            assert_eq!(Topic::from_path(name), Err(error), "{name:?}");
        }
    }
}
