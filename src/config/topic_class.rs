//! The value of `--topic-class`: a pattern, and what differs for its topics.
//!
//! `prices/*;history-size=1;slow-consumer=latest`: the keys are the names of the flags that set the same for all topics, so there is
//! nothing else to learn, and a key that is absent takes that flag's value. A text says everything about its rule or is refused: one
//! without a key, or with the same key twice, is more likely a slip than a wish. A pattern that holds `;` or `,` can't be written
//! here, since these two separate keys and rules; a wildcard can stand for it.

use std::fmt;
use std::str::FromStr;

use super::{ByteSize, TimeSpan, choice};
use crate::class::{Class, Presence, SlowConsumer};
use crate::frame::{Pattern, PatternError};

/// One rule: for the topics of a pattern, some values that differ from those of all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicClass {
    /// The topics it is about.
    pub pattern: Pattern,
    /// In place of `--history-size`.
    pub history_size: Option<u32>,
    /// In place of `--history-ttl`.
    pub history_ttl: Option<TimeSpan>,
    /// In place of `--history-bytes`.
    pub history_bytes: Option<ByteSize>,
    /// In place of `--slow-consumer`.
    pub slow_consumer: Option<SlowConsumer>,
    /// In place of `off`.
    pub presence: Option<Presence>,
    /// In place of `off`.
    pub presence_names: Option<bool>,
    /// Whether its publications are kept on the disk of `--data-dir`.
    pub durable: Option<bool>,
}

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicClassError {
    /// Nothing at all, or nothing before the first `;`.
    #[error("there is no pattern; {FORM}")]
    NoPattern,
    /// What stands before the first `;` is no pattern.
    #[error("{0}")]
    Pattern(PatternError),
    /// A pattern alone.
    #[error("nothing is set for {0}; {FORM}")]
    NothingSet(Pattern),
    /// A part without `=`.
    #[error("{0:?} sets nothing; {FORM}")]
    NoValue(String),
    /// A key that no class has.
    #[error("{0:?} is no key; give history-size, history-ttl, history-bytes, slow-consumer, presence, presence-names or durable")]
    UnknownKey(String),
    /// A key that stands there twice.
    #[error("{0} is set twice; set each key once")]
    Repeated(&'static str),
    /// A value that the key's flag would refuse, with what it accepts.
    #[error("{key}: {accepted}")]
    Value {
        /// The key.
        key: &'static str,
        /// A sentence that says what is accepted.
        accepted: String,
    },
}

/// What a rule looks like, for errors.
const FORM: &str = "give PATTERN;KEY=VALUE;..., such as 'prices/*;history-size=1'";

impl TopicClass {
    /// The whole class: what this rule does not set is that of all topics.
    #[must_use]
    pub fn over(&self, default: Class) -> Class {
        let mut class = default;
        class.history.size = self.history_size.unwrap_or(class.history.size);
        class.history.ttl = self.history_ttl.map_or(class.history.ttl, TimeSpan::duration);
        class.history.bytes = self.history_bytes.map_or(class.history.bytes, |size| size.bytes() as u64);
        class.slow_consumer = self.slow_consumer.unwrap_or(class.slow_consumer);
        class.presence = self.presence.unwrap_or(class.presence);
        class.presence_names = self.presence_names.unwrap_or(class.presence_names);
        class.durable = self.durable.unwrap_or(class.durable);
        class
    }

    fn set(&mut self, part: &str) -> Result<(), TopicClassError> {
        let (key, value) = match part.split_once('=') {
            Some(set) => set,
            None if part == "durable" => (part, "on"),
            None => return Err(TopicClassError::NoValue(part.to_owned())),
        };
        match key {
            "history-size" => once(&mut self.history_size, "history-size", choice::whole_number(value)),
            "history-ttl" => once(&mut self.history_ttl, "history-ttl", value.parse()),
            "history-bytes" => once(&mut self.history_bytes, "history-bytes", value.parse()),
            "slow-consumer" => once(&mut self.slow_consumer, "slow-consumer", value.parse()),
            "presence" => once(&mut self.presence, "presence", value.parse()),
            "presence-names" => once(&mut self.presence_names, "presence-names", choice::on_or_off(value)),
            "durable" => once(&mut self.durable, "durable", choice::on_or_off(value)),
            _ => Err(TopicClassError::UnknownKey(key.to_owned())),
        }
    }
}

/// Takes a value for a key that has none yet.
fn once<T, E: fmt::Display>(place: &mut Option<T>, key: &'static str, value: Result<T, E>) -> Result<(), TopicClassError> {
    let value = value.map_err(|error| TopicClassError::Value { key, accepted: error.to_string() })?;
    if place.replace(value).is_some() { Err(TopicClassError::Repeated(key)) } else { Ok(()) }
}

impl FromStr for TopicClass {
    type Err = TopicClassError;

    fn from_str(text: &str) -> Result<Self, TopicClassError> {
        let (pattern, settings) = text.split_once(';').map_or((text, None), |(pattern, settings)| (pattern, Some(settings)));
        if pattern.is_empty() {
            return Err(TopicClassError::NoPattern);
        }
        let pattern = pattern.parse().map_err(TopicClassError::Pattern)?;
        let Some(settings) = settings else {
            return Err(TopicClassError::NothingSet(pattern));
        };
        let mut class = Self {
            pattern,
            history_size: None,
            history_ttl: None,
            history_bytes: None,
            slow_consumer: None,
            presence: None,
            presence_names: None,
            durable: None,
        };
        settings.split(';').try_for_each(|part| class.set(part))?;
        Ok(class)
    }
}

impl fmt::Display for TopicClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.pattern)?;
        print(formatter, "history-size", self.history_size)?;
        print(formatter, "history-ttl", self.history_ttl)?;
        print(formatter, "history-bytes", self.history_bytes)?;
        print(formatter, "slow-consumer", self.slow_consumer)?;
        print(formatter, "presence", self.presence)?;
        print(formatter, "presence-names", self.presence_names.map(choice::on_off))?;
        print(formatter, "durable", self.durable.map(choice::on_off))
    }
}

fn print(formatter: &mut fmt::Formatter<'_>, key: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(formatter, ";{key}={value}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::class::History;

    const DEFAULT: Class = Class {
        history: History { size: 100, bytes: 1 << 20, ttl: Duration::from_secs(300) },
        slow_consumer: SlowConsumer::Disconnect,
        presence: Presence::Off,
        presence_names: false,
        durable: false,
    };

    #[test]
    fn what_is_not_set_is_inherited() {
        let rule: TopicClass = "prices/*;history-size=1;presence=count".parse().unwrap();
        let expected = Class { history: History { size: 1, ..DEFAULT.history }, presence: Presence::Count, ..DEFAULT };
        assert_eq!(rule.over(DEFAULT), expected);
        let all = "a;history-size=0;history-ttl=10s;history-bytes=64KiB;slow-consumer=latest;presence=list;presence-names=on;durable=on";
        let rule: TopicClass = all.parse().unwrap();
        assert_eq!(rule.to_string(), all);
        let expected = Class {
            history: History { size: 0, bytes: 65536, ttl: Duration::from_secs(10) },
            slow_consumer: SlowConsumer::Latest,
            presence: Presence::List,
            presence_names: true,
            durable: true,
        };
        assert_eq!(rule.over(DEFAULT), expected);
        assert_eq!("a;durable".parse(), "a;durable=on".parse::<TopicClass>());
    }

    #[test]
    fn each_error_says_what_is_wrong_and_what_is_accepted() {
        for (text, words) in [
            ("", "there is no pattern; give PATTERN;KEY=VALUE"),
            (";history-size=1", "there is no pattern"),
            ("a//b;history-size=1", "empty"),
            ("*/a;history-size=1", "only as the whole last segment"),
            ("prices/*", "nothing is set for prices/*"),
            ("a;", "\"\" sets nothing"),
            ("a;presence", "\"presence\" sets nothing"),
            ("a;presence=off;", "\"\" sets nothing"),
            ("a; presence=off", "\" presence\" is no key; give history-size"),
            ("a;colour=red", "\"colour\" is no key"),
            ("a;presence=off;presence=off", "presence is set twice"),
            ("a;presence=on", "presence: give off, count or list"),
            ("a;presence-names=yes", "presence-names: give on or off"),
            ("a;durable;durable=off", "durable is set twice"),
            ("a;history-size=-1", "history-size: give a whole number"),
            ("a;history-ttl=10", "history-ttl: give a time"),
            ("a;history-bytes=x", "history-bytes: give bytes"),
            ("a;slow-consumer=", "slow-consumer: give disconnect"),
        ] {
            let error = text.parse::<TopicClass>().unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            pattern in "[a-c]/(\\*{1,2}|[a-c=]{1,3})",
            size in prop::option::of(any::<u32>()),
            seconds in prop::option::of(0..3_000_000_u64),
            bytes in prop::option::of(any::<u32>()),
            slow in prop::option::of(prop::sample::select(SlowConsumer::ALL)),
            presence in prop::sample::select(Presence::ALL),
            presence_names in prop::option::of(any::<bool>()),
            durable in prop::option::of(any::<bool>()),
        ) {
            let rule = TopicClass {
                pattern: pattern.parse().unwrap(),
                history_size: size,
                history_ttl: seconds.map(TimeSpan::seconds),
                history_bytes: bytes.map(|bytes| ByteSize(bytes as usize)),
                slow_consumer: slow,
                presence: Some(presence),
                presence_names,
                durable,
            };
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }
}
