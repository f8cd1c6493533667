//! Where a publication stands in its topic: epoch and offset, and the cursor a client keeps of them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Cursors;
use crate::quantity::TimeSpan;

/// One life of a topic: 1 to 12 characters of `[A-Za-z0-9]`, opaque to clients, drawn anew whenever the numbering starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    bytes: [u8; Self::BYTES_MAX],
    length: u8,
}

impl Epoch {
    /// The longest epoch, in bytes.
    pub const BYTES_MAX: usize = 12;

    /// An epoch that no life of a topic has: those have 8 characters.
    pub const UNKNOWN: Self = Self { bytes: *b"unknown\0\0\0\0\0", length: 7 };

    /// An epoch of 8 characters from 64 random bits: two lives of one topic meet with a chance below 2^-47.
    #[must_use]
    pub fn from_random(random: u64) -> Self {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut bytes = [0; Self::BYTES_MAX];
        let mut rest = random;
        for byte in &mut bytes[..8] {
            *byte = ALPHABET[(rest % 62) as usize];
            rest /= 62;
        }
        Self { bytes, length: 8 }
    }

    /// The epoch's characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length as usize]).expect("an epoch is ASCII")
    }
}

impl FromStr for Epoch {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let known = (1..=Self::BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !known {
            return Err(CursorError);
        }
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length: text.len() as u8 })
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Epoch({self})")
    }
}

/// A publication's place: offsets grow within an epoch, with holes allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The life of the topic.
    pub epoch: Epoch,
    /// From 1, below 2^53, so that it is exact as a JSON number. 0 stands before the first publication.
    pub offset: u64,
}

/// What a client keeps to resume one topic: `EPOCH.OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(pub Position);

/// From where on a reader wants a topic's publications: `latest`, `earliest`, a time such as `10m`, or a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// What is published from now on.
    Latest,
    /// All that is kept.
    Earliest,
    /// What was published within this time.
    Within(Duration),
    /// What was numbered from this moment on, in nanoseconds of the driver's clock: what `Within` means once it is known when.
    From(u64),
    /// What comes behind this position.
    After(Position),
}

impl Since {
    /// The same, with a time counted back from `now_ns`.
    #[must_use]
    pub fn fixed(self, now_ns: u64) -> Self {
        match self {
            Self::Within(span) => Self::From(now_ns.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))),
            other => other,
        }
    }

    /// What a reader of `topic` says that may have the cursor of several topics, too.
    ///
    /// # Errors
    /// [`CursorError`] if it is neither.
    pub fn of_topic(text: &str, topic: &str) -> Result<Self, CursorError> {
        if text.starts_with('~') { text.parse().map(|cursors: Cursors| cursors.since(topic)) } else { text.parse() }
    }
}

impl FromStr for Since {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        match text {
            "latest" => Ok(Self::Latest),
            "earliest" => Ok(Self::Earliest),
            _ => match text.parse::<TimeSpan>() {
                Ok(span) => Ok(Self::Within(span.into())),
                Err(_) => text.parse().map(|Cursor(position)| Self::After(position)),
            },
        }
    }
}

/// The text is neither `EPOCH.OFFSET` nor the cursor of several topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is EPOCH.OFFSET, or of several topics begins with ~, as the server gave it")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0.epoch, self.0.offset)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, offset) = text.split_once('.').ok_or(CursorError)?;
        let digits = !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_digit());
        let offset: u64 = if digits { offset.parse().map_err(|_| CursorError)? } else { return Err(CursorError) };
        if offset >= 1 << 53 {
            return Err(CursorError);
        }
        Ok(Self(Position { epoch: epoch.parse()?, offset }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back() {
        let position = Position { epoch: Epoch::from_random(0x1234_5678_9abc_def0), offset: 1043 };
        assert_eq!(Cursor(position).to_string().parse(), Ok(Cursor(position)));
    }

    #[test]
    fn a_reader_says_from_where_on() {
        let position = Position { epoch: "10m".parse().unwrap(), offset: 7 };
        for (text, since) in [
            ("latest", Since::Latest),
            ("earliest", Since::Earliest),
            ("10m", Since::Within(Duration::from_secs(600))),
            ("10m.7", Since::After(position)),
        ] {
            assert_eq!(text.parse(), Ok(since));
        }
        for text in ["", "now", "10", "10d", "9999999h", "-1s"] {
            assert_eq!(text.parse::<Since>(), Err(CursorError), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", ".", "k3Vq", "k3Vq.", ".1", "k3Vq.-1", "k3Vq.+1", "k3 q.1", "k3Vq.9007199254740992", "abcdefghijklm.1"] {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }
}
