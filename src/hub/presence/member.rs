//! Names of members: the secret that a client has, the id that others see, and the name that it may choose.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// The shortest key: 16 characters of 64 kinds cannot be guessed, if they were drawn at random.
pub const CLIENT_KEY_BYTES_MIN: usize = 16;
/// The longest key.
pub const CLIENT_KEY_BYTES_MAX: usize = 64;
/// The longest name that a member may choose.
pub const MEMBER_NAME_BYTES_MAX: usize = 64;

/// What a client proves itself by: 16 to 64 characters of `[A-Za-z0-9_-]`. Not `Debug` in the clear, so that it reaches no log.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey(Box<str>);

impl ClientKey {
    /// Reads a key; `None` if it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let has_length = (CLIENT_KEY_BYTES_MIN..=CLIENT_KEY_BYTES_MAX).contains(&text.len());
        (has_length && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }

    /// A key of these bits, which must come from a source that nobody can predict.
    #[must_use]
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(bits).into())
    }

    /// The secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// By what others know the client.
    #[must_use]
    pub fn member(&self) -> Member {
        let hash = Sha256::new().chain_update("fantail member\0").chain_update(self.0.as_bytes()).finalize();
        Member(std::array::from_fn(|at| hash[at]))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientKey")
    }
}

/// A member's id: 96 bits of a hash of its key, written as `@` and 16 characters. No key can be found for a given one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member([u8; 12]);

impl Member {
    /// A member for tests, which need many in an order they know.
    #[cfg(test)]
    pub(crate) fn numbered(number: u64) -> Self {
        let mut bits = [0; 12];
        bits[..8].copy_from_slice(&number.to_be_bytes());
        Self(bits)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "@{}", BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Member {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name that a member has chosen: 1 to 64 bytes, without control characters and without space at its ends. It does not begin with `@`,
/// so that it is no id of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberName(Arc<str>);

impl MemberName {
    /// Reads a name; `None` if it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_name = (1..=MEMBER_NAME_BYTES_MAX).contains(&text.len())
            && !text.starts_with('@')
            && text.trim() == text
            && !text.chars().any(char::is_control);
        is_name.then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for MemberName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_nothing_of_the_key_and_is_the_same_everywhere() {
        let key = ClientKey::new("0123456789abcdef").unwrap();
        assert_eq!(key.member().to_string(), "@HAo1lG0aBK5yUoQY");
        assert_ne!(ClientKey::new("0123456789abcdeg").unwrap().member(), key.member());
        assert_eq!(format!("{key:?}"), "ClientKey");
        let drawn = ClientKey::from_random([0xFF; 16]);
        assert_eq!(ClientKey::new(drawn.as_str()), Some(drawn));
    }

    #[test]
    fn keys_and_names_have_their_bounds() {
        for (text, is_key) in [
            ("0123456789abcde", false),
            ("0123456789abcdef", true),
            ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", true),
            ("0123456789abcde.", false),
            ("0123456789abcdé", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(ClientKey::new(text).is_some(), is_key, "{text}");
        }
        for (text, is_name) in [
            ("ann", true),
            ("", false),
            ("Ann Müller", true),
            ("@ann", false),
            (" ann", false),
            ("ann\n", false),
            ("a\u{7}nn", false),
            (&"x".repeat(64), true),
            (&"x".repeat(65), false),
        ] {
            assert_eq!(MemberName::new(text).is_some(), is_name, "{text}");
        }
    }
}
