//! Which publications came with an `Idempotency-Key`, so that one that comes again is not published again
//! (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! ```text
//!   key of a topic ─> not known ─> publish ─> remember key, payload's fingerprint, position
//!                  ─> known, same payload ──> the same position again
//!                  ─> known, another one ───> refused
//! ```
//!
//! The engine remembers them, because it is the one place through which all publications of a topic pass in a row, whichever worker
//! they came in by: of two with the same key one is the first. Only what was numbered is remembered, so what was refused may be sent
//! again under its key. An engine that outlives a restart has to keep the keys with what it keeps.
//!
//! Keys are bounded by number and age. Which went because of the number cannot be told from one that never was, so the number should
//! be what comes in while publishers still try again. Payloads are compared by 64 bits of a hash: a publisher that uses a key twice by
//! mistake is told, and nothing else hangs on it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::str::FromStr;
use std::sync::Arc;

use foldhash::quality::RandomState;

use crate::frame::{Payload, Position, Topic};
use crate::limits::{GiveBack, Tick};

/// A publisher's name for one publication.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a key is 1 to {} characters of ASCII, in quotes or without space, quotes, commas, semicolons and backslashes",
    IdempotencyKey::BYTES_MAX
)]
pub struct KeyError;

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// The characters inside the quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// As the header has it: in quotes.
impl fmt::Display for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\"{}\"", self.0.replace('\\', r"\\").replace('"', "\\\""))
    }
}

/// Reads the header's value: a string in quotes, as the draft has it (RFC 9651 section 3.3.3), or the same characters without, which is
/// what most clients send.
impl FromStr for IdempotencyKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // With every character escaped it is twice as long.
        if text.len() > 2 * Self::BYTES_MAX + 2 {
            return Err(KeyError);
        }
        let key = match text.strip_prefix('"') {
            Some(quoted) => unquoted(quoted.strip_suffix('"').ok_or(KeyError)?)?,
            None if text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)) => text.to_owned(),
            None => return Err(KeyError),
        };
        match key.len() {
            1..=Self::BYTES_MAX => Ok(Self(key.into_boxed_str())),
            _ => Err(KeyError),
        }
    }
}

/// The characters that stand between quotes.
fn unquoted(text: &str) -> Result<String, KeyError> {
    let mut key = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        key.push(match letter {
            '\\' => letters.next().filter(|escaped| matches!(escaped, '"' | '\\')).ok_or(KeyError)?,
            '"' => return Err(KeyError),
            ' '..='~' => letter,
            _ => return Err(KeyError),
        });
    }
    Ok(key)
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It came with this same payload, which stands here.
    Same(Position),
    /// It came with another payload.
    Other,
}

/// The keys that are remembered.
#[derive(Debug)]
pub(super) struct Keys {
    known: HashMap<Arc<Name>, Entry, RandomState>,
    /// In the order in which they came, each with the moment at which it is forgotten.
    order: VecDeque<(Tick, Arc<Name>)>,
    /// Bytes of all names there.
    name_bytes: usize,
    keys_max: usize,
    ticks: u32,
}

/// A key is of one topic.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Name {
    topic: Topic,
    key: IdempotencyKey,
}

impl Name {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.0.len()
    }
}

#[derive(Debug)]
struct Entry {
    fingerprint: u64,
    position: Position,
    until: Tick,
}

impl Keys {
    /// Remembers at most `keys_max` keys, each for so many ticks.
    pub fn new(keys_max: usize, ticks: u32) -> Self {
        Self { known: HashMap::default(), order: VecDeque::new(), name_bytes: 0, keys_max, ticks }
    }

    /// What they take in memory, in bytes, but for the topics' names.
    pub fn bytes(&self) -> usize {
        let known = self.known.capacity() * size_of::<(Arc<Name>, Entry)>();
        known + self.order.capacity() * size_of::<(Tick, Arc<Name>)>() + self.name_bytes
    }

    /// What is known of a topic's key, for a publication of this payload.
    pub fn find(&self, topic: &Topic, key: &IdempotencyKey, payload: &Payload, now: Tick) -> Option<Known> {
        let entry = self.known.get(&Name { topic: topic.clone(), key: key.clone() }).filter(|entry| entry.until > now)?;
        let is_same = entry.fingerprint == self.fingerprint(payload);
        Some(if is_same { Known::Same(entry.position) } else { Known::Other })
    }

    /// What a payload is compared by.
    pub fn fingerprint(&self, payload: &Payload) -> u64 {
        self.known.hasher().hash_one((payload.kind() as u8, payload.as_bytes()))
    }

    /// Remembers that a payload was published under a topic's key, which is not known; the oldest goes if there are too many.
    pub fn remember(&mut self, topic: Topic, key: IdempotencyKey, fingerprint: u64, position: Position, now: Tick) {
        while self.order.len() >= self.keys_max
            && let Some((until, name)) = self.order.pop_front()
        {
            self.forget(until, &name);
        }
        let (name, until) = (Arc::new(Name { topic, key }), now.after(self.ticks));
        self.name_bytes += name.bytes();
        self.order.push_back((until, Arc::clone(&name)));
        self.known.insert(name, Entry { fingerprint, position, until });
    }

    /// Forgets that a publication came under a topic's key, because it was not published after all. It stays in the order, where its turn
    /// comes.
    pub fn take_back(&mut self, topic: &Topic, key: &IdempotencyKey, position: Position) {
        let name = Name { topic: topic.clone(), key: key.clone() };
        if self.known.get(&name).is_some_and(|entry| entry.position == position) {
            self.known.remove(&name);
        }
    }

    /// Forgets those whose time is over, at most `left`, which it counts down.
    pub fn expire(&mut self, now: Tick, left: &mut usize) {
        while *left > 0
            && let Some((until, name)) = self.order.pop_front_if(|(until, _)| *until <= now)
        {
            self.forget(until, &name);
            *left -= 1;
        }
        self.order.give_back();
        self.known.give_back();
    }

    /// When the next one is to be forgotten.
    pub fn due(&self) -> Option<Tick> {
        self.order.front().map(|(until, _)| *until)
    }

    /// Forgets a key that is out of the order, unless it came anew after its time was over.
    fn forget(&mut self, until: Tick, name: &Name) {
        self.name_bytes -= name.bytes();
        if self.known.get(name).is_some_and(|entry| entry.until == until) {
            self.known.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Epoch, Kind};

    fn key(text: &str) -> Result<String, KeyError> {
        text.parse().map(|key: IdempotencyKey| key.as_str().to_owned())
    }

    #[test]
    fn a_key_is_a_string_with_or_without_quotes() {
        for (text, expected) in [
            ("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("a", "a"),
            ("order/7:retry=1", "order/7:retry=1"),
            (r#""a b, \"c\"; \\d""#, r#"a b, "c"; \d"#),
        ] {
            assert_eq!(key(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["k", r#""a b, \"c\"; \\d""#] {
            let key: IdempotencyKey = text.parse().unwrap();
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        assert_eq!(key(&"k".repeat(255)).map(|key| key.len()), Ok(255));
        assert_eq!(key(&format!("\"{}\"", "\\\"".repeat(255))).map(|key| key.len()), Ok(255));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "\"",
            "\"\"",
            "a b",
            "a,b",
            "a;b",
            "\"a",
            "a\"",
            "\"a\";p=1",
            "\"a\", \"b\"",
            r#""\a""#,
            r#""a\""#,
            "é",
            "\"é\"",
            "\"\t\"",
        ] {
            assert_eq!(key(text), Err(KeyError), "{text:?}");
        }
        for length in [256, 511, 100_000] {
            assert_eq!(key(&"k".repeat(length)), Err(KeyError));
            assert_eq!(key(&format!("\"{}\"", "k".repeat(length))), Err(KeyError));
        }
    }

    fn payload(kind: Kind, text: &str) -> Payload {
        Payload::new(kind, text.as_bytes()).unwrap()
    }

    /// Remembers, or says what is known.
    fn publish(keys: &mut Keys, topic: &str, name: &str, payload: &Payload, offset: u64, now: Tick) -> Option<Known> {
        let (topic, name) = (Topic::new(topic).unwrap(), name.parse().unwrap());
        let known = keys.find(&topic, &name, payload, now);
        if known.is_none() {
            let position = Position { epoch: Epoch::from_random(1), offset };
            keys.remember(topic, name, keys.fingerprint(payload), position, now);
        }
        known
    }

    fn same(offset: u64) -> Option<Known> {
        Some(Known::Same(Position { epoch: Epoch::from_random(1), offset }))
    }

    #[test]
    fn a_key_is_of_one_topic_and_one_payload() {
        let mut keys = Keys::new(9, 100);
        let [text, other, json] =
            [(Kind::Text, "1"), (Kind::Text, "2"), (Kind::Json, "1")].map(|(kind, text)| payload(kind, text));
        assert_eq!(publish(&mut keys, "chat", "k", &text, 7, Tick(0)), None);
        assert_eq!(publish(&mut keys, "chat", "k", &text, 8, Tick(0)), same(7));
        assert_eq!(publish(&mut keys, "chat", "\"k\"", &text, 8, Tick(0)), same(7), "quotes are no part of it");
        for payload in [&other, &json] {
            assert_eq!(publish(&mut keys, "chat", "k", payload, 8, Tick(0)), Some(Known::Other));
        }
        assert_eq!(publish(&mut keys, "news", "k", &other, 1, Tick(0)), None);
        assert_eq!(publish(&mut keys, "chat", "l", &other, 8, Tick(0)), None);
    }

    #[test]
    fn time_and_number_are_bounds() {
        let mut keys = Keys::new(2, 100);
        let text = payload(Kind::Text, "x");
        assert_eq!(publish(&mut keys, "chat", "a", &text, 1, Tick(0)), None);
        assert_eq!(publish(&mut keys, "chat", "a", &text, 2, Tick(100)), same(1));
        assert_eq!(keys.due(), Some(Tick(101)));
        // Over, whether or not it was cleared away; the first one's end does not end the second.
        assert_eq!(publish(&mut keys, "chat", "a", &text, 3, Tick(101)), None);
        keys.expire(Tick(101), &mut 9);
        assert_eq!(publish(&mut keys, "chat", "a", &text, 4, Tick(150)), same(3));
        for (name, offset) in [("b", 4), ("c", 5)] {
            assert_eq!(publish(&mut keys, "chat", name, &text, offset, Tick(150)), None);
        }
        assert_eq!(publish(&mut keys, "chat", "b", &text, 6, Tick(150)), same(4));
        assert_eq!(publish(&mut keys, "chat", "a", &text, 6, Tick(150)), None, "the oldest made room");
        let mut left = 1;
        keys.expire(Tick::NEVER, &mut left);
        assert_eq!((left, keys.known.len()), (0, 1));
        keys.expire(Tick::NEVER, &mut 9);
        assert_eq!((keys.known.len(), keys.order.len(), keys.name_bytes, keys.due()), (0, 0, 0, None));
    }

    proptest! {
        #[test]
        fn keys_agree_with_a_plain_table(steps in prop::collection::vec((0..6u8, 0..3u8, 0..40u32), 1..120)) {
            let mut keys = Keys::new(4, 100);
            // In the order in which they came: name, payload, offset, when.
            let mut table: VecDeque<(u8, u8, u64, u32)> = VecDeque::new();
            let mut now = 0;
            for (offset, (name, text, passed)) in (1..).zip(steps) {
                now += passed;
                if passed % 4 == 0 {
                    keys.expire(Tick(now), &mut 1);
                    table.pop_front_if(|row| row.3 + 100 < now);
                }
                let known = table.iter().rfind(|row| row.0 == name && now <= row.3 + 100);
                let expected = known.map(|row| if row.1 == text { same(row.2).unwrap() } else { Known::Other });
                if expected.is_none() {
                    table.push_back((name, text, offset, now));
                    table.drain(..table.len().saturating_sub(4));
                }
                let payload = payload(Kind::Text, &text.to_string());
                prop_assert_eq!(publish(&mut keys, "t", &format!("k{name}"), &payload, offset, Tick(now)), expected);
                prop_assert_eq!(keys.order.len(), table.len());
                prop_assert!(keys.known.len() <= table.len());
            }
        }
    }
}
