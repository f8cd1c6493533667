//! The topics and patterns somebody on this worker subscribes to, each with the list of its subscribers.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::ops::{Index, IndexMut, Range};

use foldhash::fast::RandomState;
use slab::Slab;

use super::course::{Course, Shared};
use super::fanout::Queue;
use super::interest::TopicInterest;
use super::trie::{Rank, Trie};
use crate::frame::{Form, Pattern, Topic};
use crate::limits::{GiveBack, reserve_tight};

/// The number of a topic, or of a pattern, on this worker. It is given to another one after it was released, which never happens while
/// somebody subscribes to it, nor while it may stand in a queue of what was handed out ([`super::Hub::release_retired`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(u32);

impl TopicId {
    pub(super) fn from_index(index: usize) -> Self {
        Self(index as u32)
    }

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a list of subscribers is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One topic.
    Topic(Topic),
    /// All topics that a pattern matches.
    Pattern(Pattern),
}

/// A connection in a list: 8 bytes, so that a cache line brings eight of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The connection's index in its worker.
    pub slot: u32,
    /// How the connection wants publications.
    pub form: Form,
    /// It reads history first: what is published meanwhile passes it by.
    pub held: Option<Hold>,
    /// It may stand in several lists that one topic matches, and gets each publication from the first of them alone; or it reads the history
    /// behind a pattern, and may have to wait for that. So each publication is looked at before it is handed to it.
    pub overlaps: bool,
}

/// Names one holding of one subscription, so that a release which comes late reaches no later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold(NonZeroU16);

impl Hold {
    pub(super) const FIRST: Self = Self(NonZeroU16::MIN);

    pub(super) fn next(self) -> Self {
        Self(self.0.checked_add(1).unwrap_or(NonZeroU16::MIN))
    }
}

impl Subscriber {
    /// One that gets what is published from now on.
    #[must_use]
    pub const fn live(slot: u32, form: Form) -> Self {
        Self { slot, form, held: None, overlaps: false }
    }
}

/// The subscribers of one topic or pattern, without a hole at any time; the module's picture shows the two cuts.
#[derive(Debug)]
pub(super) struct List {
    name: Name,
    pub interest: TopicInterest,
    /// A topic's open fan-outs.
    pub queue: Queue,
    subscribers: Vec<Subscriber>,
    /// Those before it have been handed the publication under way.
    served: u32,
    /// Those before it are covered by the publication under way, those from here on came later.
    covered: u32,
}

/// What a list is of, and what it needs for that.
#[derive(Debug)]
enum Name {
    /// A topic; its course, once a publication goes beyond the topic's own list.
    Topic(Topic, Option<Box<Course>>),
    /// A pattern, and what the topics share that it matches.
    Pattern(Pattern, Box<Shared>),
}

impl List {
    fn new(name: Name) -> Self {
        let (interest, queue) = (TopicInterest::default(), Queue::default());
        Self { name, interest, queue, subscribers: Vec::new(), served: 0, covered: 0 }
    }

    /// The topic, unless the list is a pattern's.
    pub fn topic(&self) -> Option<&Topic> {
        match &self.name {
            Name::Topic(topic, _) => Some(topic),
            Name::Pattern(..) => None,
        }
    }

    /// What it is of.
    pub fn subject(&self) -> Subject {
        match &self.name {
            Name::Topic(topic, _) => Subject::Topic(topic.clone()),
            Name::Pattern(pattern, _) => Subject::Pattern(pattern.clone()),
        }
    }

    /// A topic's course, if it has one.
    pub fn course(&self) -> Option<&Course> {
        match &self.name {
            Name::Topic(_, course) => course.as_deref(),
            Name::Pattern(..) => None,
        }
    }

    /// The place of a topic's course; none for a pattern.
    pub fn course_mut(&mut self) -> Option<&mut Option<Box<Course>>> {
        match &mut self.name {
            Name::Topic(_, course) => Some(course),
            Name::Pattern(..) => None,
        }
    }

    /// What the topics share that a pattern matches; none for a topic.
    pub fn shared(&self) -> Option<&Shared> {
        match &self.name {
            Name::Topic(..) => None,
            Name::Pattern(_, shared) => Some(shared),
        }
    }

    /// The same, to be changed.
    pub fn shared_mut(&mut self) -> Option<&mut Shared> {
        match &mut self.name {
            Name::Topic(..) => None,
            Name::Pattern(_, shared) => Some(shared),
        }
    }

    pub fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// Whether nothing holds it here any more: no subscriber, no open fan-out, and nothing left to tell.
    pub fn is_idle(&self) -> bool {
        let is_walked = self.shared().is_some_and(Shared::is_walked);
        self.subscribers.is_empty() && self.queue.is_empty() && !is_walked && !self.interest.is_dirty()
    }

    /// What changed is about to be told.
    pub fn begin_telling(&mut self) {
        let is_awaited = self.interest.is_awaited();
        if let Some(shared) = self.shared_mut().filter(|_| !is_awaited) {
            shared.forget_acknowledged();
        }
    }

    /// The subscriber at `position` may stand in other lists that a topic of this one matches, or not any more.
    pub fn mark_overlapping(&mut self, position: u32, overlaps: bool) {
        self.subscribers[position as usize].overlaps = overlaps;
    }

    /// Appends a subscriber and returns its position. A fan-out under way does not cover it.
    pub fn push(&mut self, subscriber: Subscriber) -> u32 {
        reserve_tight(&mut self.subscribers, 1);
        self.subscribers.push(subscriber);
        self.subscribers.len() as u32 - 1
    }

    /// Ends `hold` if it is the one that the subscriber at `position` is in.
    pub fn release(&mut self, position: u32, hold: Hold) {
        let held = &mut self.subscribers[position as usize].held;
        if *held == Some(hold) {
            *held = None;
        }
    }

    /// Takes the subscriber at `position` out. The hole is filled from the end of its part, that one from the end of the next
    /// part, and so on: at most three subscribers move, each told to `moved` with its new position.
    pub fn remove(&mut self, position: u32, mut moved: impl FnMut(u32, u32)) -> Subscriber {
        let gone = self.subscribers[position as usize];
        let mut hole = position as usize;
        let mut fill = |from: usize, subscribers: &mut Vec<Subscriber>| {
            if from != hole {
                subscribers[hole] = subscribers[from];
                moved(subscribers[from].slot, hole as u32);
                hole = from;
            }
        };
        if position < self.served {
            self.served -= 1;
            fill(self.served as usize, &mut self.subscribers);
        }
        if position < self.covered {
            self.covered -= 1;
            fill(self.covered as usize, &mut self.subscribers);
        }
        fill(self.subscribers.len() - 1, &mut self.subscribers);
        self.subscribers.pop();
        self.subscribers.give_back();
        gone
    }

    /// A publication's turn has come: it covers everyone who is here now.
    pub fn begin(&mut self) {
        self.served = 0;
        self.covered = self.subscribers.len() as u32;
    }

    /// Whether everyone here is still to be handed the publication under way: what joins it now reaches the same subscribers as it
    /// would by itself.
    pub fn awaits_first_slice(&self) -> bool {
        self.served == 0 && self.covered as usize == self.subscribers.len()
    }

    /// Cuts the next `max` covered subscribers off, and says whether they were the last.
    pub fn cut(&mut self, max: usize) -> (Range<usize>, bool) {
        let start = self.served as usize;
        let end = self.covered.min(self.served.saturating_add(max.try_into().unwrap_or(u32::MAX)));
        self.served = end;
        let finished = end == self.covered;
        if finished {
            (self.served, self.covered) = (0, 0);
        }
        (start..end as usize, finished)
    }

    #[cfg(any(test, debug_assertions))]
    pub fn check_cuts(&self) {
        assert!(self.served <= self.covered && self.covered as usize <= self.subscribers.len());
        let is_walked = match self.shared() {
            Some(shared) => shared.is_walked(),
            None => !self.queue.is_empty() && self.course().is_none_or(|course| course.at.is_none()),
        };
        assert!(is_walked || self.covered == 0, "cuts without a fan-out");
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.subscribers.capacity() * size_of::<Subscriber>()
    }
}

impl Topics {
    /// What a topic takes beside its subscribers: its list and its entry in the table of names.
    pub const TOPIC_BYTES: usize = size_of::<List>() + size_of::<(Topic, TopicId)>();
}

/// All topics and patterns of the worker, by number and by name.
///
/// Lists are boxed: a slab cannot move what it holds, so after a million short-lived topics only 16 bytes each may stay until the
/// table's end is free.
#[derive(Debug, Default)]
pub(super) struct Topics {
    lists: Slab<Box<List>>,
    names: HashMap<Topic, TopicId, RandomState>,
    pub patterns: Trie<TopicId>,
    released: usize,
}

impl Topics {
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// What they take, in bytes, without their names and their subscribers.
    pub fn bytes(&self) -> usize {
        self.lists.len() * Self::TOPIC_BYTES + self.patterns.bytes()
    }

    pub fn find(&self, topic: &str) -> Option<TopicId> {
        self.names.get(topic).copied()
    }

    pub fn find_or_add(&mut self, topic: &Topic) -> TopicId {
        if let Some(id) = self.find(topic.as_str()) {
            return id;
        }
        let list = List::new(Name::Topic(topic.clone(), None));
        let id = TopicId::from_index(self.lists.insert(Box::new(list)));
        self.names.insert(topic.clone(), id);
        id
    }

    /// The same for a pattern, of which so many home workers must know.
    pub fn find_or_add_pattern(&mut self, pattern: &Pattern, homes: usize) -> TopicId {
        if let Some(id) = self.patterns.get(pattern) {
            return id;
        }
        let list = List::new(Name::Pattern(pattern.clone(), Box::new(Shared::new(homes))));
        let id = TopicId::from_index(self.lists.insert(Box::new(list)));
        self.patterns.insert(pattern, id);
        id
    }

    pub fn is_pattern(&self, id: TopicId) -> bool {
        self[id].topic().is_none()
    }

    /// The first pattern behind `rank` that the topic `id` matches and somebody subscribes to.
    pub fn next_pattern(&mut self, id: TopicId, rank: Option<Rank>) -> Option<(Rank, TopicId)> {
        let topic = self.lists[id.index()].topic()?;
        next_of(&self.lists, self.patterns.matching(topic), rank)
    }

    /// Whether some pattern that a topic matches has a subscriber.
    pub fn is_wanted_by_pattern(&mut self, topic: &Topic) -> bool {
        !self.patterns.is_empty() && next_of(&self.lists, self.patterns.matching(topic), None).is_some()
    }

    /// Whether there is a list of this number that nothing holds.
    pub fn is_idle(&self, id: TopicId) -> bool {
        self.lists.get(id.index()).is_some_and(|list| list.is_idle())
    }

    /// Forgets `id` if nothing holds it; its number may be given to another topic then.
    pub fn release_idle(&mut self, id: TopicId) {
        if !self.is_idle(id) {
            return;
        }
        match self.lists.remove(id.index()).name {
            Name::Topic(topic, _) => {
                self.names.remove(topic.as_str());
                self.names.give_back();
            }
            Name::Pattern(pattern, _) => {
                self.patterns.remove(&pattern);
            }
        }
        self.shrink_lists();
    }

    /// Shrinking a slab walks it whole, so it is tried once in as many releases as the slab has room for.
    fn shrink_lists(&mut self) {
        self.released += 1;
        if self.lists.is_empty() || self.released > self.lists.capacity() && self.lists.len() < self.lists.capacity() / 4 {
            self.lists.shrink_to_fit();
            self.released = 0;
        }
    }

    #[cfg(any(test, debug_assertions))]
    pub fn iter(&self) -> impl Iterator<Item = (TopicId, &List)> {
        assert_eq!(self.names.len() + self.patterns.len(), self.lists.len());
        self.lists.iter().map(|(index, list)| (TopicId::from_index(index), &**list))
    }
}

/// The first of the patterns behind `rank` that somebody subscribes to.
fn next_of(lists: &Slab<Box<List>>, patterns: &[(Rank, TopicId)], rank: Option<Rank>) -> Option<(Rank, TopicId)> {
    let is_behind = |other: Rank| rank.is_none_or(|rank| other > rank);
    patterns.iter().copied().find(|(rank, list)| is_behind(*rank) && !lists[list.index()].subscribers().is_empty())
}

impl Index<TopicId> for Topics {
    type Output = List;

    fn index(&self, id: TopicId) -> &List {
        &self.lists[id.index()]
    }
}

impl IndexMut<TopicId> for Topics {
    fn index_mut(&mut self, id: TopicId) -> &mut List {
        &mut self.lists[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(list: &List) -> Vec<u32> {
        list.subscribers.iter().map(|subscriber| subscriber.slot).collect()
    }

    #[test]
    fn a_subscriber_takes_8_bytes() {
        assert_eq!(size_of::<Subscriber>(), 8);
    }

    #[test]
    fn a_hole_is_filled_part_by_part() {
        let mut list = List::new(Name::Topic(Topic::new("chat").unwrap(), None));
        for slot in 0..11 {
            list.push(Subscriber::live(slot, Form::WsRaw));
        }
        (list.served, list.covered) = (4, 9);
        let mut moves = Vec::new();
        list.remove(1, |slot, position| moves.push((slot, position)));
        assert_eq!(slots(&list), [0, 3, 2, 8, 4, 5, 6, 7, 10, 9]);
        assert_eq!((list.served, list.covered), (3, 8));
        assert_eq!(moves, [(3, 1), (8, 3), (10, 8)]);
    }

    #[test]
    fn a_released_number_is_used_again() {
        let mut topics = Topics::default();
        let (a, b) = (Topic::new("a").unwrap(), Topic::new("b").unwrap());
        let id = topics.find_or_add(&a);
        assert_eq!(topics.find_or_add(&a), id);
        topics.release_idle(id);
        topics.release_idle(id);
        assert_eq!((topics.find("a"), topics.find_or_add(&b)), (None, id));
    }

    #[test]
    fn many_topics_made_and_dropped_leave_no_tables() {
        let mut topics = Topics::default();
        let ids: Vec<TopicId> = (0..20_000).map(|n| topics.find_or_add(&Topic::new(&format!("t/{n}")).unwrap())).collect();
        for id in ids {
            topics.release_idle(id);
        }
        assert!(topics.len() == 0 && topics.lists.capacity() == 0 && topics.names.capacity() < 64);
    }
}
