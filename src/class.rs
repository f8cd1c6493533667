//! Topic classes: what a topic keeps, what happens to its slow subscribers, and whether it tells who is there.
//!
//! A topic needs no set-up, so what holds for it is found by its name: [`Classes`] is an ordered list of patterns, and the first that
//! matches holds. A list of at most [`CLASSES_MAX`] is walked where a topic's life begins, not for each publication, so it needs no
//! index; and an order that the operator wrote down needs no rule about which pattern is the more special one. Nothing is kept of
//! the topics themselves, and nothing changes while a server runs: workers share one list without a lock.

use std::time::Duration;

use crate::frame::{ClassId, Pattern};
use crate::words::words;

/// The most classes beside the default one. Each is walked past by every topic that none matches.
pub const CLASSES_MAX: usize = 64;

/// What holds for the topics of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What is kept.
    pub history: History,
    /// What happens to a subscriber that is too slow.
    pub slow_consumer: SlowConsumer,
    /// Who is told of others.
    pub presence: Presence,
    /// Whether members may choose a name.
    pub presence_names: bool,
    /// Whether an answer means that the publication is on the disk, and what is kept outlives a restart.
    pub durable: bool,
}

/// What is kept of a topic's publications for those who come back. The oldest goes as soon as one of the bounds is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Publications; 0 for none.
    pub size: u32,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Their age.
    pub ttl: Duration,
}

words! {
    /// What happens when a subscriber's outbox is full (docs/wire.md, "Slow consumers").
    SlowConsumer, "give disconnect, drop-oldest or latest", {
        /// The connection ends with 1013: its close tells the gap.
        Disconnect = "disconnect",
        /// Whole publications are dropped from the head of the outbox, and counted.
        DropOldest = "drop-oldest",
        /// One publication per topic is kept, the newest; the others are dropped, and counted.
        Latest = "latest",
    }
}

words! {
    /// Whether a topic's subscribers can be told of each other.
    Presence, "give off, count or list", {
        /// Nobody is told anything.
        Off = "off",
        /// How many there are.
        Count = "count",
        /// Who is there, who joins, who leaves and why.
        List = "list",
    }
}

/// The classes of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    rules: Vec<(Pattern, Class)>,
    default: Class,
}

impl Classes {
    /// Rules in the order in which they are tried, and what holds where none matches.
    #[must_use]
    pub const fn new(rules: Vec<(Pattern, Class)>, default: Class) -> Self {
        Self { rules, default }
    }

    /// One class for all topics, which keeps nothing, disconnects who is slow and tells nobody of others.
    #[must_use]
    pub const fn plain() -> Self {
        let history = History { size: 0, bytes: 0, ttl: Duration::ZERO };
        let (slow_consumer, presence, presence_names, durable) = (SlowConsumer::Disconnect, Presence::Off, false, false);
        Self::new(Vec::new(), Class { history, slow_consumer, presence, presence_names, durable })
    }

    /// The class of the topic of this name.
    #[must_use]
    pub fn of(&self, topic: &str) -> &Class {
        self.get(self.id_of(topic))
    }

    /// Which class that is.
    #[must_use]
    pub fn id_of(&self, topic: &str) -> ClassId {
        const { assert!(CLASSES_MAX < u8::MAX as usize) };
        ClassId(self.rule_of(topic).map_or(0, |rule| rule as u8 + 1))
    }

    /// The class of this place; the default one has the first.
    #[must_use]
    pub fn get(&self, id: ClassId) -> &Class {
        let rule = (id.0 as usize).checked_sub(1).and_then(|rule| self.rules.get(rule));
        rule.map_or(&self.default, |(_, class)| class)
    }

    /// Whether something holds for some class: what must be looked for only then costs nothing elsewhere.
    #[must_use]
    pub fn any(&self, holds: impl Fn(&Class) -> bool) -> bool {
        holds(&self.default) || self.rules.iter().any(|(_, class)| holds(class))
    }

    /// The place in [`Classes::rules`] of the rule that holds for a topic; none if that is the default.
    #[must_use]
    pub fn rule_of(&self, topic: &str) -> Option<usize> {
        self.rules.iter().position(|(pattern, _)| pattern.matches(topic))
    }

    /// What holds for topics that no rule matches.
    #[must_use]
    pub const fn default(&self) -> &Class {
        &self.default
    }

    /// The rules, in the order in which they are tried.
    #[must_use]
    pub fn rules(&self) -> &[(Pattern, Class)] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(size: u32) -> Class {
        Class {
            history: History { size, bytes: 1, ttl: Duration::ZERO },
            slow_consumer: SlowConsumer::Disconnect,
            presence: Presence::Off,
            presence_names: false,
            durable: false,
        }
    }

    #[test]
    fn the_first_match_holds_and_the_default_holds_elsewhere() {
        let rules = ["prices/eur", "prices/*", "**"].into_iter().zip(1..);
        let rules: Vec<_> = rules.map(|(pattern, size)| (pattern.parse().unwrap(), class(size))).collect();
        let classes = Classes::new(rules[..2].to_vec(), class(0));
        for (topic, size) in [("prices/eur", 1), ("prices/usd", 2), ("prices/usd/day", 0), ("prices", 0)] {
            assert_eq!(classes.of(topic).history.size, size, "{topic}");
            assert_eq!(classes.rule_of(topic), (size as usize).checked_sub(1), "{topic}");
            assert_eq!(classes.get(classes.id_of(topic)), classes.of(topic));
        }
        assert_eq!(classes.of("chat"), classes.default());
        assert!(classes.any(|class| class.history.size == 2) && !classes.any(|class| class.history.size == 3));
        assert_eq!(Classes::new(rules, class(0)).of("chat"), &class(3));
    }
}
