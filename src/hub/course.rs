//! The way of a topic's publication through the lists it goes to: the topic's own, then that of each pattern that matches.
//!
//! ```text
//!            publish                 the list is through          through               through
//!   waiting ────────> own list ───────────────────────> ** ───────────────> news/* ───────────────> done: the next one begins
//!                                                       │ ^
//!                             another topic walks it    │ │  it is through
//!                                                       v │
//!                                                     in its line
//! ```
//!
//! 1. A topic's publications go one after the other, each through all of its lists before the next one begins: so the order holds for
//!    everybody, whichever list serves him.
//! 2. A pattern's list has two cuts, as any list, so one topic walks it at a time; others stand in line. A topic is in one list at a time and
//!    waits for nothing but that list, so no two can wait for each other.
//! 3. Who joins a pattern is passed by until what is under way has ended ([`super::grace`]): it may have reached him by another list.
//! 4. Who is marked as standing in several lists is noted when a publication reaches him, and passed over in the lists behind. Nobody else
//!    costs more than a look at that mark, and a topic that no pattern matches not even that.
//!
//! The next list is looked up when one is through, by its place in the order of all that may match: patterns come and go meanwhile.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use foldhash::fast::RandomState;

use super::Hub;
use super::fanout::{Carried, Slice};
use super::interest::is_at_least;
use super::reading::Origin;
use super::topics::{Subscriber, TopicId};
use super::trie::Rank;
use crate::frame::Topic;
use crate::limits::GiveBack;

/// Where a topic's publication under way is, and whom it has reached.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// The pattern whose list it is in, or waits for, and that one's place; none while it is in the topic's own.
    pub at: Option<(Rank, TopicId)>,
    /// Those it has reached of those who may stand in other lists, too.
    reached: HashSet<u32, RandomState>,
    /// What was published has gone to subscribers of patterns.
    pub is_handed_on: bool,
    /// The topic is among those that nothing holds but, perhaps, a queue of what was handed out.
    pub is_retired: bool,
}

/// What the topics share that a pattern matches.
#[derive(Debug)]
pub(super) struct Shared {
    /// The topic whose publication is in the list.
    walker: Option<TopicId>,
    /// Topics whose publications wait for it.
    line: VecDeque<TopicId>,
    /// The latest version that each home worker has acknowledged.
    acknowledged: Box<[Option<u32>]>,
}

impl Shared {
    pub fn new(homes: usize) -> Self {
        Self { walker: None, line: VecDeque::new(), acknowledged: vec![None; homes].into_boxed_slice() }
    }

    pub fn is_walked(&self) -> bool {
        self.walker.is_some()
    }

    /// Nothing waits for what was told before: acknowledgements of that count no more, lest they be taken for later ones when versions wrap.
    pub fn forget_acknowledged(&mut self) {
        self.acknowledged.fill(None);
    }

    /// Notes what a home worker has acknowledged; returns what all of them have by now.
    pub fn acknowledge(&mut self, home: usize, version: u32) -> Option<u32> {
        self.acknowledged[home] = Some(version);
        let earlier = |one: u32, other: Option<u32>| other.map(|other| if is_at_least(one, other) { other } else { one });
        self.acknowledged.iter().copied().try_fold(version, earlier)
    }

    /// Whether the topic has the list to itself or stands in line for it.
    #[cfg(any(test, debug_assertions))]
    pub fn has(&self, topic: TopicId) -> bool {
        self.walker == Some(topic) || self.waits(topic)
    }

    /// Whether the topic stands in line.
    #[cfg(any(test, debug_assertions))]
    pub fn waits(&self, topic: TopicId) -> bool {
        self.line.contains(&topic)
    }
}

impl<P> Hub<P> {
    /// Opens a fan-out to the subscribers of `topic`, of which nothing is kept, and of the patterns that match. It covers those who are there
    /// when its turn among the topic's fan-outs comes: at once, if none is open.
    ///
    /// # Errors
    /// Gives the publication back if nobody here wants the topic any more.
    pub fn publish(&mut self, topic: &Topic, publication: P) -> Result<(), P> {
        let origin = Origin { home: 0, is_kept: false };
        self.publish_or_join(topic, origin, publication, |_, publication| Some(publication))
    }

    /// The same, but where the topic's last open fan-out will reach whom this one would, `join` may let that take the publication in,
    /// so that both go out as one; or it gives it back.
    ///
    /// # Errors
    /// Gives the publication back if nobody here wants the topic any more.
    pub fn publish_or_join(
        &mut self,
        topic: &Topic,
        origin: Origin,
        publication: P,
        join: impl FnOnce(&mut P, P) -> Option<P>,
    ) -> Result<(), P> {
        let subscribed = self.topics.find(topic.as_str()).filter(|id| !self.topics[*id].subscribers().is_empty());
        let id = match subscribed {
            Some(id) => id,
            None if self.topics.is_wanted_by_pattern(topic) => self.topics.find_or_add(topic),
            None => return Err(publication),
        };
        let list = &mut self.topics[id];
        // Whom it has reached may have left the topic's list since, and still be in a pattern's.
        let is_beyond = list.course().is_some_and(|course| course.at.is_some() || !course.reached.is_empty());
        let left = if list.queue.is_empty() {
            list.begin();
            self.fanouts.queue_turn(id);
            Some(publication)
        } else if list.queue.is_single() && (is_beyond || !list.awaits_first_slice()) {
            Some(publication)
        } else {
            self.fanouts.join_last(list.queue, publication, self.readings.stamp(), join)
        };
        if let Some(publication) = left {
            self.fanouts.push(&mut list.queue, publication, self.grace.begin(), (self.readings.begin(), origin));
        }
        Ok(())
    }

    /// The next slice of some open fan-out: at most `max` subscribers, at least one being asked for. They replace what is in
    /// `subscribers`: distinct, possibly none; whom it finds held it passes by. Topics take turns slice by slice, so a topic with a very long
    /// list does not delay another; but those that one pattern matches go through its list one after the other.
    pub fn next_slice(&mut self, max: usize, subscribers: &mut Vec<Subscriber>) -> Option<Slice<'_, P>> {
        let id = self.fanouts.next_turn()?;
        let walked = self.topics[id].course().and_then(|course| course.at).map_or(id, |(_, list)| list);
        let (range, is_through) = self.topics[walked].cut(max.max(1));
        let looked_at = range.len();
        self.reach(id, walked, range, subscribers);
        if !is_through {
            self.fanouts.queue_turn(id);
        }
        if !is_through || self.goes_on(id, walked) {
            let publication = Carried::Open(self.fanouts.first(self.topics[id].queue));
            return Some(Slice { topic: id, looked_at, publication });
        }
        let list = &mut self.topics[id];
        self.grace.end(self.fanouts.half_of_first(list.queue));
        let ended = self.readings.end(self.fanouts.arrival_of_first(list.queue).0);
        let publication = Carried::Finished(self.fanouts.pop(&mut list.queue));
        while let Some((slot, hold)) = self.fanouts.pop_release(&mut list.queue) {
            if let Some(position) = self.slots.position(slot, id) {
                list.release(position, hold);
            }
        }
        if !list.queue.is_empty() {
            list.begin();
            self.fanouts.queue_turn(id);
        } else if list.is_idle() {
            self.idle.push(id);
        }
        self.end_grace();
        self.end_readings(ended);
        Some(Slice { topic: id, looked_at, publication })
    }

    /// Replaces what is in `subscribers` with those of a slice of the list `walked` whom the publication of the topic `id` has not
    /// reached, and who do not wait until they have read what goes before it.
    fn reach(&mut self, id: TopicId, walked: TopicId, slice: Range<usize>, subscribers: &mut Vec<Subscriber>) {
        subscribers.clear();
        // Who has left the last pattern may still have read, behind it, what is under way.
        if self.topics.patterns.is_empty() && self.readings.is_empty() {
            return subscribers.extend_from_slice(&self.topics[walked].subscribers()[slice]);
        }
        // In a pattern's list, who is held has just come.
        let passes_by = |subscriber: &Subscriber| walked != id && subscriber.held.is_some();
        let all = &self.topics[walked].subscribers()[slice.clone()];
        if !all.iter().fold(false, |any, subscriber| any | subscriber.overlaps | passes_by(subscriber)) {
            return subscribers.extend_from_slice(all);
        }
        let mut course = self.topics[id].course_mut().and_then(Option::take);
        let list = &self.topics[id];
        let (stamp, origin) = self.fanouts.arrival_of_first(list.queue);
        let awaits = |slot| {
            !self.readings.is_empty() && list.topic().is_some_and(|topic| self.readings.awaits(slot, topic, origin, stamp))
        };
        let slice = &self.topics[walked].subscribers()[slice];
        let mut is_new = |slot| !awaits(slot) && course.get_or_insert_default().reached.insert(slot);
        let there = slice.iter().filter(|subscriber| !passes_by(subscriber));
        subscribers.extend(there.filter(|subscriber| !subscriber.overlaps || is_new(subscriber.slot)));
        if let Some(place) = self.topics[id].course_mut() {
            *place = course;
        }
    }

    /// The publication of the topic `id` is through the list `walked`: it goes on to the next that has subscribers. False if it has been
    /// through all.
    fn goes_on(&mut self, id: TopicId, walked: TopicId) -> bool {
        if walked != id {
            self.let_go(walked);
        }
        let next = if self.topics.patterns.is_empty() {
            None
        } else {
            let rank = self.topics[id].course().and_then(|course| course.at).map(|(rank, _)| rank);
            self.topics.next_pattern(id, rank)
        };
        let Some(place) = self.topics[id].course_mut() else { return false };
        let Some((_, list)) = next else {
            if let Some(course) = place {
                (course.at, course.reached) = (None, HashSet::default());
            }
            return false;
        };
        let course = place.get_or_insert_default();
        (course.at, course.is_handed_on) = (next, true);
        if let Some(shared) = self.topics[list].shared_mut() {
            if shared.is_walked() {
                shared.line.push_back(id);
            } else {
                self.walk(list, Some(id));
            }
        }
        true
    }

    /// A publication has ended: who joined a pattern while it was under way, and has nothing else to wait for, is passed by no longer.
    fn end_grace(&mut self) {
        for (slot, id, hold) in self.grace.ripe() {
            if let Some(position) = self.slots.position(slot, id) {
                self.topics[id].release(position, hold);
                self.confirmations.reconsider(slot);
            }
        }
    }

    /// A topic has been through a pattern's list: the next in line begins.
    fn let_go(&mut self, list: TopicId) {
        let next = self.topics[list].shared_mut().and_then(|shared| shared.line.pop_front());
        self.walk(list, next);
        if next.is_none() && self.topics[list].is_idle() {
            self.idle.push(list);
        }
    }

    /// Gives a pattern's list to a topic, whose publication covers everyone who is there now; or to nobody.
    fn walk(&mut self, list: TopicId, topic: Option<TopicId>) {
        let list = &mut self.topics[list];
        if let Some(shared) = list.shared_mut() {
            shared.walker = topic;
            shared.line.give_back();
        }
        if let Some(topic) = topic {
            list.begin();
            self.fanouts.queue_turn(topic);
        }
    }

    /// Topics that nobody here subscribes to, and whose publications went to subscribers of patterns. Queues of what was handed out may
    /// hold their numbers.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Forgets those among them whose numbers are not `in_use` any more.
    pub fn release_retired(&mut self, in_use: impl Fn(TopicId) -> bool) {
        let topics = &mut self.topics;
        self.retired.retain(|&id| {
            if topics.is_idle(id) && in_use(id) {
                return true;
            }
            if let Some(Some(course)) = topics[id].course_mut() {
                course.is_retired = false;
            }
            topics.release_idle(id);
            false
        });
        self.retired.give_back();
    }

    /// Forgets the lists that nothing has held since they were noted, but for those whose numbers may be in use.
    pub(super) fn release_idle(&mut self) {
        let Self { idle, topics, retired, .. } = self;
        for id in idle.drain(..) {
            if !topics.is_idle(id) {
                continue;
            }
            match topics[id].course_mut() {
                Some(Some(course)) if course.is_handed_on => {
                    if !std::mem::replace(&mut course.is_retired, true) {
                        retired.push(id);
                    }
                }
                _ => topics.release_idle(id),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Form, Pattern};

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn hub(patterns: &[&str]) -> Hub<char> {
        let mut hub = Hub::new(1);
        for (slot, text) in (0..).zip(patterns) {
            hub.subscribe_pattern(slot, &Pattern::parse(text).unwrap(), Form::WsEnvelope);
        }
        hub
    }

    /// Slice by slice, the publication and whom it is handed to.
    fn hand_out(hub: &mut Hub<char>, max: usize) -> Vec<(char, Vec<u32>)> {
        let (mut slices, mut subscribers) = (Vec::new(), Vec::new());
        while let Some(mut slice) = hub.next_slice(max, &mut subscribers) {
            let publication = *slice.publication.get_mut();
            slices.push((publication, subscribers.iter().map(|subscriber| subscriber.slot).collect()));
        }
        slices
    }

    #[test]
    fn a_publication_goes_through_its_own_list_and_then_the_patterns() {
        let mut hub = hub(&["a/*", "b/*", "**"]);
        hub.subscribe(7, &topic("a/x"), Form::WsRaw);
        hub.publish(&topic("a/x"), 'p').unwrap();
        assert_eq!(hand_out(&mut hub, 9), [('p', vec![7]), ('p', vec![2]), ('p', vec![0])]);
        assert_eq!(hub.publish(&topic("c"), 'q'), Ok(()));
        assert_eq!(hand_out(&mut hub, 9), [('q', vec![]), ('q', vec![2])], "nobody subscribes to it by name");
        hub.unsubscribe_all(2);
        assert_eq!(hub.publish(&topic("c"), 'r'), Err('r'));
    }

    #[test]
    fn one_topic_at_a_time_goes_through_a_patterns_list() {
        let mut hub = hub(&[]);
        for slot in 0..4 {
            hub.subscribe_pattern(slot, &Pattern::parse("*").unwrap(), Form::WsEnvelope);
        }
        for (name, publication) in [("a", 'a'), ("b", 'b'), ("a", 'c')] {
            hub.publish(&topic(name), publication).unwrap();
        }
        let order: String = hand_out(&mut hub, 2).iter().filter(|(_, slots)| !slots.is_empty()).map(|(name, _)| *name).collect();
        assert_eq!(order, "aabbcc");
    }

    #[test]
    fn nothing_joins_a_publication_that_has_reached_somebody_who_left_the_list() {
        let mut hub = hub(&["*"]);
        let id = hub.subscribe(0, &topic("a"), Form::WsEnvelope);
        hub.subscribe(1, &topic("a"), Form::WsEnvelope);
        hub.publish(&topic("a"), 'p').unwrap();
        hub.next_slice(1, &mut Vec::new()).unwrap();
        hub.unsubscribe(0, id);
        hub.publish_or_join(&topic("a"), Origin { home: 0, is_kept: true }, 'q', |_, _| None).unwrap();
        let to_0: Vec<char> =
            hand_out(&mut hub, 9).iter().filter(|(_, slots)| slots.contains(&0)).map(|(name, _)| *name).collect();
        assert_eq!(to_0, ['q'], "it has got p, and gets q by the pattern");
    }

    #[test]
    fn nobody_is_passed_over_because_of_an_earlier_publication() {
        let mut hub = hub(&["*"]);
        let id = hub.subscribe(0, &topic("a"), Form::WsEnvelope);
        hub.subscribe(1, &topic("a"), Form::WsEnvelope);
        hub.publish(&topic("a"), 'p').unwrap();
        let mut subscribers = Vec::new();
        hub.next_slice(1, &mut subscribers).unwrap();
        // The pattern goes and is forgotten before the publication could go there.
        hub.unsubscribe_all(0);
        while hub.poll_interest().is_some() {}
        assert_eq!((hub.patterns(), hand_out(&mut hub, 9)), (0, vec![('p', vec![1])]));
        assert_eq!(hub.subscribe(0, &topic("a"), Form::WsEnvelope), id);
        hub.subscribe_pattern(0, &Pattern::parse("*").unwrap(), Form::WsEnvelope);
        hub.publish(&topic("a"), 'q').unwrap();
        assert_eq!(hand_out(&mut hub, 9), [('q', vec![1, 0]), ('q', vec![])]);
    }
}
