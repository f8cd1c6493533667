//! Subscriptions to patterns: begun, told to all workers, and the numbers of topics that they keep.
//!
//! A topic that a pattern matches may have no subscriber by its name. What is published on it then goes to the pattern's subscribers under
//! the topic's number, so that a policy such as `latest` knows the topic, and the topic is forgotten once neither a fan-out nor a queue has
//! anything of it.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::frame::{Form, Forms, Pattern, Since};
use crate::http1::Response;
use crate::hub::{Subject, TopicId};
use crate::io::Driver;
use crate::routes::refusals;

use super::Core;
use super::letters::Request;

/// So many topics of patterns are remembered before the queues are looked through for those that may go, and twice as many as the queues
/// have places: no more than that many can be in use, so each look frees as many as it has places to look at.
const RETIRED_TOPICS_MAX: usize = 1024;

impl<D: Driver> Core<D> {
    /// Subscribes a connection to all topics that a pattern matches, from now on. It is in force when [`crate::hub::Hub::poll_confirmed`]
    /// says so of all of the connection's subscriptions.
    ///
    /// # Errors
    /// The refusal, if the worker has its share of `--max-patterns` and this one is not among them.
    pub(super) fn subscribe_pattern(&mut self, slot: u32, pattern: &Pattern, form: Form) -> Result<TopicId, Response> {
        self.has_room_for_pattern(pattern)?;
        Ok(self.hub.subscribe_pattern(slot, pattern, form))
    }

    /// The same for who reads what is behind the pattern first, but for what `except` matches. `None` if it is subscribed already.
    pub(super) fn subscribe_reading(
        &mut self,
        slot: u32,
        pattern: &Pattern,
        form: Form,
        except: &Arc<[Pattern]>,
    ) -> Result<Option<TopicId>, Response> {
        self.has_room_for_pattern(pattern)?;
        Ok(self.hub.subscribe_reading(slot, pattern, form, Arc::clone(except)))
    }

    fn has_room_for_pattern(&self, pattern: &Pattern) -> Result<(), Response> {
        let patterns_max = self.options.patterns_max.div_ceil(self.shared.workers());
        if self.hub.patterns() >= patterns_max && !self.hub.knows_pattern(pattern) {
            return Err(refusals::too_many_patterns(patterns_max as u64));
        }
        Ok(())
    }

    /// The names that the connection subscribes to, topics as patterns that match one; `--max-subscriptions` keeps them few.
    pub(super) fn names_of(&self, slot: u32) -> impl Iterator<Item = Pattern> {
        self.hub.topics_of(slot).map(|id| match self.hub.subject(id) {
            Subject::Topic(topic) => Pattern::from(&topic),
            Subject::Pattern(pattern) => pattern,
        })
    }

    /// The others among them that match some topic which this one matches, too.
    pub(super) fn names_that_meet(&self, slot: u32, name: &Pattern) -> Arc<[Pattern]> {
        self.names_of(slot).filter(|other| other != name && other.meets(name)).collect()
    }

    /// Tells all workers, this one included, what changed in its interest in a pattern. False if one has no credit to give: then all are
    /// told again, later.
    pub(super) fn tell_pattern_interest(&mut self, pattern: &Pattern, forms: Forms, subscribers: u64, version: u32) -> bool {
        let mut is_told = true;
        for home in 0..self.shared.workers() {
            if home == self.index {
                // Its own interest needs no credit: it is a step of this same turn.
                self.interests.update_pattern(home, pattern, forms, subscribers, version);
                self.hub.acknowledge_pattern(home, pattern, version);
                continue;
            }
            let request = Request::PatternInterest { worker: self.index, pattern: pattern.clone(), forms, subscribers, version };
            is_told &= self.request(home, request).is_ok();
        }
        is_told
    }

    /// Forgets the topics of patterns that no queue has anything of any more.
    pub(super) fn forget_topics_of_patterns(&mut self) {
        let retired = self.hub.retired();
        if retired == 0 {
            return;
        }
        if self.entries.queued() == 0 {
            self.hub.release_retired(|_| false);
        } else if retired > RETIRED_TOPICS_MAX + 2 * self.entries.places() {
            let in_use: HashSet<TopicId, RandomState> = self.entries.topics().collect();
            self.hub.release_retired(|id| in_use.contains(&id));
        }
    }
}

/// Patterns in an order in which none comes behind one that covers it: so each is read, but for what those before it bring.
pub(super) fn patterns_in_order<'a>(patterns: &'a [Pattern], since: &'a [Since]) -> impl Iterator<Item = (&'a Pattern, Since)> {
    let mut all: Vec<_> = patterns.iter().zip(since.iter().copied()).collect();
    all.sort_by_key(|(pattern, _)| (Reverse(pattern.prefix().len()), pattern.is_deep()));
    all.into_iter()
}
