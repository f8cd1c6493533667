//! Patterns: many topics by one name. docs/wire.md, "Topics", has the rules of a segment.
//!
//! The only wildcard is a whole last segment, `*` for one segment or `**` for one or more, so a pattern is a prefix and a word on
//! what may follow it: matching is one comparison of bytes, without backtracking, whatever a client sends. A pattern without a
//! wildcard matches the one topic of its name. Nothing here looks a topic up or keeps a table of patterns.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::topic::{self, TOPIC_BYTES_MAX, Topic, TopicError};

/// Names topics: `news/today` one of them, `news/*` those one segment below `news`, `news/**` all below it, `**` all there are.
///
/// Cloning counts a reference.
///
/// ```
/// use fantail::frame::Pattern;
///
/// let pattern: Pattern = "prices/*".parse()?;
/// assert!(pattern.matches("prices/eur") && !pattern.matches("prices/eur/usd") && !pattern.matches("prices"));
/// # Ok::<(), fantail::frame::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: Arc<str>,
    wildcard: Wildcard,
}

/// What may follow a pattern's prefix; its number is that of its stars.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Wildcard {
    /// Nothing: the prefix is a topic.
    None = 0,
    /// `*`: one segment.
    One = 1,
    /// `**`: one segment or more.
    Many = 2,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `a*`, `*/a`, `***`.
    #[error("\"*\" and \"**\" are wildcards only as the whole last segment of a pattern")]
    Misplaced,
    /// It breaks a rule that topics have, too.
    #[error(transparent)]
    Name(TopicError),
}

impl From<TopicError> for PatternError {
    fn from(error: TopicError) -> Self {
        // What is left of a pattern without its wildcard holds another star.
        if error == TopicError::Wildcard { Self::Misplaced } else { Self::Name(error) }
    }
}

impl Pattern {
    /// Checks a pattern that needs no decoding: 1 to [`TOPIC_BYTES_MAX`] bytes, its wildcard among them.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > TOPIC_BYTES_MAX {
            return Err(TopicError::TooLong.into());
        }
        let (parent, last) = text.rsplit_once('/').map_or((None, text), |(parent, last)| (Some(parent), last));
        let wildcard = match last {
            "*" => Wildcard::One,
            "**" => Wildcard::Many,
            _ => Wildcard::None,
        };
        match (wildcard, parent) {
            (Wildcard::None, _) => topic::check(text)?,
            (_, Some(parent)) => topic::check(parent).map_err(|error| match error {
                TopicError::Empty => TopicError::BadSegment,
                other => other,
            })?,
            (_, None) => {}
        }
        Ok(Self { text: Arc::from(text), wildcard })
    }

    /// Reads a pattern from the path of a URL: percent-decodes each segment, then checks it.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn from_path(encoded: &str) -> Result<Self, PatternError> {
        Self::parse(&topic::decode_path(encoded)?)
    }

    /// Whether a topic of this name is meant. What is no topic's name may get either answer.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        topic.strip_prefix(self.prefix()).is_some_and(|rest| match self.wildcard {
            Wildcard::None => rest.is_empty(),
            Wildcard::One => !rest.is_empty() && !rest.contains('/'),
            Wildcard::Many => !rest.is_empty(),
        })
    }

    /// Whether every topic that `other` matches is matched by this one, too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        // A star stands for any segment, so it can be taken for one; two stars stand for more.
        (self.wildcard == Wildcard::Many || other.wildcard != Wildcard::Many) && self.matches(&other.text)
    }

    /// Whether some topic is matched by both: then one of them covers the other.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The pattern's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What every topic that is meant begins with: with a wildcard, whole segments, each with its slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..self.text.len() - self.wildcard as usize]
    }

    /// Whether it means more than the one topic of its name.
    #[must_use]
    pub fn has_wildcard(&self) -> bool {
        self.wildcard != Wildcard::None
    }

    /// Whether it ends in `**`, which stands for any number of segments.
    #[must_use]
    pub fn is_deep(&self) -> bool {
        self.wildcard == Wildcard::Many
    }
}

/// The pattern without a wildcard that matches the topic alone.
impl From<&Topic> for Pattern {
    fn from(topic: &Topic) -> Self {
        Self { text: Arc::from(topic.as_str()), wildcard: Wildcard::None }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pattern({:?})", &self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_is_named() {
        let (long, longest) = (format!("{}/*", "a".repeat(254)), format!("{}/*", "a".repeat(253)));
        for text in ["chat", "a/b", "*", "**", "a/*", "a/b/**", "café/*", "metal/*", longest.as_str()] {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!((pattern.as_str(), pattern.to_string().as_str()), (text, text));
        }
        for (text, error) in [
            ("", PatternError::Name(TopicError::Empty)),
            (long.as_str(), PatternError::Name(TopicError::TooLong)),
            ("/*", PatternError::Name(TopicError::BadSegment)),
            ("a//*", PatternError::Name(TopicError::BadSegment)),
            ("../**", PatternError::Name(TopicError::BadSegment)),
            ("a/", PatternError::Name(TopicError::BadSegment)),
            ("*/", PatternError::Misplaced),
            ("a*", PatternError::Misplaced),
            ("a/*b", PatternError::Misplaced),
            ("*/a", PatternError::Misplaced),
            ("**/*", PatternError::Misplaced),
            ("a/***", PatternError::Misplaced),
            ("a\n/*", PatternError::Name(TopicError::ControlCharacter)),
            ("meta/*", PatternError::Name(TopicError::Reserved)),
            ("service", PatternError::Name(TopicError::Reserved)),
        ] {
            assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_wildcard_needs_a_segment() {
        for (text, matched, others) in [
            ("a/b", &["a/b"][..], &["a", "a/b/c", "a/bb"][..]),
            ("*", &["a", "b"], &["a/b"]),
            ("**", &["a", "a/b/c"], &[]),
            ("a/*", &["a/b", "a/é"], &["a", "ab", "a/b/c", "b/a"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab", "b/a"]),
        ] {
            let pattern = Pattern::parse(text).unwrap();
            for topic in matched {
                assert!(pattern.matches(topic), "{text} {topic}");
            }
            for topic in others {
                assert!(!pattern.matches(topic), "{text} {topic}");
            }
        }
    }

    /// Segment by segment, as the rules are told.
    fn naive(pattern: &str, topic: &str) -> bool {
        let (mut pattern, mut topic) = (pattern.split('/'), topic.split('/'));
        loop {
            match (pattern.next(), topic.next()) {
                (None, None) => return true,
                (Some("**"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
    }

    /// Names whose segments are few, so that they meet.
    fn names(segments: &'static str, last: &'static str) -> impl Strategy<Value = String> {
        (prop::collection::vec(segments, 0..3), last).prop_map(|(mut path, last)| {
            path.push(last);
            path.join("/")
        })
    }

    /// Every topic of up to four segments, one of which stands in no pattern of the test.
    fn topics() -> Vec<String> {
        let mut all: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut begin = 0;
        for _ in 1..4 {
            let end = all.len();
            let longer = all[begin..end].iter().flat_map(|path| ["a", "b", "c"].map(|segment| format!("{path}/{segment}")));
            let longer: Vec<_> = longer.collect();
            all.extend(longer);
            begin = end;
        }
        all
    }

    proptest! {
        #[test]
        fn it_matches_as_its_naive_twin(pattern in names("[ab]{1,2}", "[ab]{1,2}|\\*|\\*\\*"), topic in names("[ab]{1,2}", "[ab]{1,2}")) {
            prop_assert_eq!(Pattern::parse(&pattern).unwrap().matches(&topic), naive(&pattern, &topic));
        }

        #[test]
        fn without_a_wildcard_it_is_a_topic_and_with_one_it_is_none(text in "[a./*\u{e9}\u{7}]{0,6}") {
            let (pattern, topic) = (Pattern::parse(&text), Topic::new(&text));
            match topic {
                Ok(topic) => prop_assert!(pattern.unwrap().matches(topic.as_str())),
                Err(TopicError::Wildcard) => {
                    let parent = text.strip_suffix("/**").or(text.strip_suffix("/*")).unwrap_or("");
                    let placed = text == "*" || text == "**" || Topic::new(parent).is_ok();
                    prop_assert_eq!(pattern.is_ok(), placed);
                }
                Err(error) => prop_assert_eq!(pattern.unwrap_err(), PatternError::Name(error)),
            }
        }

        #[test]
        fn it_covers_what_matches_nothing_else(one in names("[ab]", "[ab]|\\*|\\*\\*"), other in names("[ab]", "[ab]|\\*|\\*\\*")) {
            let (one, other) = (Pattern::parse(&one).unwrap(), Pattern::parse(&other).unwrap());
            let all = topics().iter().filter(|topic| other.matches(topic)).all(|topic| one.matches(topic));
            prop_assert_eq!(one.covers(&other), all);
            let both = topics().iter().any(|topic| one.matches(topic) && other.matches(topic));
            prop_assert_eq!(one.meets(&other), both);
        }
    }
}
