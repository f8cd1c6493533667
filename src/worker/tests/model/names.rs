//! The topics, the patterns that match some of them, and what one connection has asked for by these names.

use crate::frame::Since;

pub(super) const TOPICS: [&str; 3] = ["a", "a/b", "a/c"];

/// The topics, then the patterns: none stands behind one that covers it. That is also the order in which the names of one URL are read.
pub(super) const NAMES: [&str; 7] = ["a", "a/b", "a/c", "a/*", "a/**", "*", "**"];

/// The topics of each name.
const TOPICS_OF: [&[usize]; NAMES.len()] = [&[0], &[1], &[2], &[1, 2], &[1, 2], &[0], &[0, 1, 2]];

/// The topics that a name matches.
pub(super) fn topics_of(name: usize) -> &'static [usize] {
    TOPICS_OF[name]
}

pub(super) fn is_pattern(name: usize) -> bool {
    name >= TOPICS.len()
}

/// Whether the first name brings all that the second would.
fn covers(wider: usize, name: usize) -> bool {
    is_pattern(wider) && wider > name && topics_of(name).iter().all(|topic| topics_of(wider).contains(topic))
}

/// A name that a connection has asked for, until it is refused or left.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The id of the request, if it was one of a session.
    pub id: Option<u64>,
    pub name: usize,
    pub since: Since,
    pub asked_ns: u64,
    /// The topics that no other name of the connection matched when it was asked for: it brings what is behind it, and no other does.
    reads: Vec<usize>,
    /// Another name matched some of its topics while it was there.
    pub is_beside: bool,
    /// There is a wider one, behind which nothing is read.
    pub is_refused: bool,
    /// It is confirmed.
    pub in_force: bool,
    /// What is sent from this number on is promised, because its answer has been read.
    pub promised_from: u64,
    /// The id of the request that leaves it.
    pub leaves: Option<u64>,
}

impl Subscription {
    /// What it brings of a topic's past is known.
    pub fn reads(&self, topic: usize) -> bool {
        self.reads.contains(&topic)
    }

    fn matches(&self, topic: usize) -> bool {
        topics_of(self.name).contains(&topic)
    }

    /// It is neither left nor refused.
    fn stays(&self) -> bool {
        self.leaves.is_none() && !self.is_refused
    }
}

/// All of one connection, in the order in which they were asked for.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(pub Vec<Subscription>);

impl Subscriptions {
    pub fn ask(&mut self, id: Option<u64>, name: usize, since: Since, asked_ns: u64) {
        let is_refused = since != Since::Latest && self.has_wider(name);
        let shares = |own: &Subscription, topic: &usize| own.stays() && own.matches(*topic);
        let is_new = |topic: &&usize| !self.0.iter().any(|other| shares(other, topic));
        let reads: Vec<usize> = topics_of(name).iter().filter(is_new).copied().collect();
        let is_beside = reads.len() < topics_of(name).len();
        if !is_refused {
            let others = self.0.iter_mut().filter(|other| topics_of(name).iter().any(|topic| shares(other, topic)));
            others.for_each(|other| other.is_beside = true);
        }
        self.0.push(Subscription {
            id,
            name,
            since,
            asked_ns,
            reads,
            is_beside,
            is_refused,
            in_force: false,
            promised_from: u64::MAX,
            leaves: None,
        });
    }

    /// Whether a name was asked for and not left.
    pub fn has(&self, name: usize) -> bool {
        self.0.iter().any(|own| own.leaves.is_none() && own.name == name)
    }

    /// Whether so was one that covers it.
    pub fn has_wider(&self, name: usize) -> bool {
        self.0.iter().any(|own| own.stays() && covers(own.name, name))
    }

    /// Leaves a name by this request; the topics of which another one promises less, or nothing does.
    pub fn leave(&mut self, name: usize, id: u64) -> Vec<usize> {
        let own = self.0.iter_mut().find(|own| own.leaves.is_none() && own.name == name);
        own.expect("it was asked for").leaves = Some(id);
        let is_read = |topic: usize| self.promising(topic).any(|own| own.reads(topic));
        topics_of(name).iter().copied().filter(|topic| !is_read(*topic)).collect()
    }

    /// Those that promise all of a topic.
    pub fn promising(&self, topic: usize) -> impl Iterator<Item = &Subscription> {
        self.0.iter().filter(move |own| own.in_force && own.stays() && own.matches(topic))
    }

    /// Whether something of a topic may come. Nothing overtakes the answer of what reads it, or was asked for alone.
    pub fn bring(&self, topic: usize) -> bool {
        let is_early = |own: &Subscription| own.is_beside && (own.since == Since::Latest || !own.reads(topic));
        self.0.iter().any(|own| own.matches(topic) && !own.is_refused && (own.in_force || is_early(own)))
    }

    /// Whether all of a topic must come.
    pub fn promise(&self, topic: usize) -> bool {
        self.promising(topic).next().is_some()
    }

    /// Whether it may be read behind some name, which ends nobody knows when.
    pub fn may_read(&self, topic: usize) -> bool {
        self.0.iter().any(|own| !own.is_refused && own.matches(topic) && own.since != Since::Latest)
    }
}
