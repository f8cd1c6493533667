//! Who of one worker's connections wants to know who is there.
//!
//! ```text
//!   watch, ask ──> waiting ── question ──> home worker ── State ──> live: gets what is told from here on
//!                     ^                                     └────> asked once: answered, and forgotten
//!                     └──── fell behind, or told too much ──────────┘
//! ```
//!
//! A topic has one question under way at most, whoever waits for its answer. The answer comes by the same way as what is told, so what is
//! told behind it is what has changed since: who becomes live with it has missed nothing. A watcher that was left out waits again, and
//! its next state makes good for all it has missed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::frame::{Form, Topic};
use crate::limits::GiveBack;

/// What a home worker is asked about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The topic.
    pub topic: Topic,
    /// Whether the worker wants what is told of it from now on.
    pub watches: bool,
    /// Whether it wants the state as it stands now.
    pub asks: bool,
}

/// The watchers of one worker; `A` is what is waiting for one answer alone.
#[derive(Debug)]
pub struct Watching<A> {
    topics: HashMap<Topic, Watched<A>, RandomState>,
    /// For each home worker, the topics of which something is to be told.
    untold: Vec<BTreeSet<Topic>>,
    watchers: usize,
}

#[derive(Debug)]
struct Watched<A> {
    home: usize,
    live: BTreeMap<u32, Form>,
    /// Watchers that wait for a state.
    waiting: BTreeMap<u32, Form>,
    asking: Vec<A>,
    /// What the home worker was told last.
    is_told: bool,
    /// A question is under way, or its answer not handed out to everybody yet.
    is_asked: bool,
    /// What is told behind that answer comes here without exception, so whoever waits may begin with it.
    is_start: bool,
}

impl<A> Watched<A> {
    fn is_watched(&self) -> bool {
        !self.live.is_empty() || !self.waiting.is_empty()
    }

    fn asks(&self) -> bool {
        !self.is_asked && (!self.waiting.is_empty() || !self.asking.is_empty())
    }
}

impl<A> Watching<A> {
    /// In a process of so many workers.
    #[must_use]
    pub fn new(homes: usize) -> Self {
        Self { topics: HashMap::default(), untold: (0..homes).map(|_| BTreeSet::new()).collect(), watchers: 0 }
    }

    /// Watchers, live or waiting.
    #[must_use]
    pub const fn watchers(&self) -> usize {
        self.watchers
    }

    /// The connection in `slot` wants to know the state of a topic, and then what changes. If it watches already, it gets the state anew.
    pub fn watch(&mut self, home: usize, topic: &Topic, slot: u32, form: Form) {
        let watched = self.find_or_add(home, topic);
        let is_new = watched.live.remove(&slot).is_none() & watched.waiting.insert(slot, form).is_none();
        self.watchers += usize::from(is_new);
        self.changed(topic);
    }

    /// The connection in `slot` wants to know no more.
    pub fn unwatch(&mut self, topic: &Topic, slot: u32) {
        let Some(watched) = self.topics.get_mut(topic.as_str()) else { return };
        let was_there = watched.live.remove(&slot).is_some() | watched.waiting.remove(&slot).is_some();
        self.watchers -= usize::from(was_there);
        self.changed(topic);
    }

    /// Somebody wants to know the state of a topic, once.
    pub fn ask(&mut self, home: usize, topic: &Topic, asking: A) {
        self.find_or_add(home, topic).asking.push(asking);
        self.changed(topic);
    }

    fn find_or_add(&mut self, home: usize, topic: &Topic) -> &mut Watched<A> {
        self.topics.entry(topic.clone()).or_insert_with(|| Watched {
            home,
            live: BTreeMap::new(),
            waiting: BTreeMap::new(),
            asking: Vec::new(),
            is_told: false,
            is_asked: false,
            is_start: false,
        })
    }

    /// Marks the topic if there is something to tell, or forgets it if there is nothing left of it.
    fn changed(&mut self, topic: &Topic) {
        let Some(watched) = self.topics.get(topic.as_str()) else { return };
        let untold = &mut self.untold[watched.home];
        if watched.asks() || watched.is_told != watched.is_watched() {
            untold.insert(topic.clone());
            return;
        }
        untold.remove(topic);
        if !watched.is_watched() && watched.asking.is_empty() && !watched.is_asked {
            self.topics.remove(topic.as_str());
            self.topics.give_back();
        }
    }

    /// Whether a home worker has something to be asked.
    #[must_use]
    pub fn has_untold(&self, home: usize) -> bool {
        !self.untold[home].is_empty()
    }

    /// What a home worker is to be asked, about so many topics at most. Taken, it counts as asked.
    pub fn take_untold(&mut self, home: usize, topics_max: usize) -> Vec<Question> {
        let mut questions = Vec::new();
        while questions.len() < topics_max
            && let Some(topic) = self.untold[home].pop_first()
        {
            let Some(watched) = self.topics.get_mut(topic.as_str()) else { continue };
            let (watches, asks) = (watched.is_watched(), watched.asks());
            if asks {
                (watched.is_asked, watched.is_start) = (true, watches);
            } else {
                watched.is_start &= watched.is_told && watches;
            }
            watched.is_told = watches;
            self.changed(&topic);
            questions.push(Question { topic, watches, asks });
        }
        questions
    }

    /// The next `max` live watchers behind `slot`; the whole of it is gone through by going on behind the last one.
    pub fn live(&self, topic: &Topic, behind: Option<u32>, max: usize) -> Vec<(u32, Form)> {
        let Some(watched) = self.topics.get(topic.as_str()) else { return Vec::new() };
        let start = behind.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        watched.live.range((start, std::ops::Bound::Unbounded)).take(max).map(|(slot, form)| (*slot, *form)).collect()
    }

    /// Takes those who wait for one answer alone.
    pub fn take_asking(&mut self, topic: &Topic) -> Vec<A> {
        self.topics.get_mut(topic.as_str()).map(|watched| std::mem::take(&mut watched.asking)).unwrap_or_default()
    }

    /// The next `max` who wait for a state and may begin with this one; they are live from now on.
    pub fn take_waiting(&mut self, topic: &Topic, max: usize) -> Vec<(u32, Form)> {
        let Some(watched) = self.topics.get_mut(topic.as_str()).filter(|watched| watched.is_start) else { return Vec::new() };
        let next: Vec<(u32, Form)> = watched.waiting.iter().take(max).map(|(slot, form)| (*slot, *form)).collect();
        for (slot, form) in &next {
            watched.waiting.remove(slot);
            watched.live.insert(*slot, *form);
        }
        next
    }

    /// Everybody who waited has the state of a topic.
    pub fn answered(&mut self, topic: &Topic) {
        if let Some(watched) = self.topics.get_mut(topic.as_str()) {
            watched.is_asked = false;
        }
        self.changed(topic);
    }

    /// The connection in `slot` could not be told something. It waits, and gets a state again when [`Watching::watch`] says so.
    pub fn fall_behind(&mut self, topic: &Topic, slot: u32) {
        self.unwatch(topic, slot);
    }

    /// What was told of a topic cannot be handed out: all who watch it get its state again.
    pub fn start_over(&mut self, topic: &Topic) {
        let Some(watched) = self.topics.get_mut(topic.as_str()) else { return };
        watched.waiting.append(&mut watched.live);
        // An answer under way is from before what was left out.
        watched.is_start = false;
        self.changed(topic);
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.untold.iter().all(BTreeSet::is_empty) && self.watchers == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(topic: &Topic, watches: bool, asks: bool) -> Question {
        Question { topic: topic.clone(), watches, asks }
    }

    #[test]
    fn all_who_wait_share_one_question_and_are_live_behind_its_answer() {
        let (mut watching, chat) = (Watching::<u8>::new(1), Topic::new("chat").unwrap());
        watching.watch(0, &chat, 7, Form::Lines);
        watching.ask(0, &chat, 1);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, true)]);
        watching.watch(0, &chat, 3, Form::WsEnvelope);
        assert!(!watching.has_untold(0) && watching.live(&chat, None, 9).is_empty());
        assert_eq!(watching.take_asking(&chat), [1]);
        assert_eq!(watching.take_waiting(&chat, 1), [(3, Form::WsEnvelope)]);
        assert_eq!(watching.take_waiting(&chat, 9), [(7, Form::Lines)]);
        watching.answered(&chat);
        assert_eq!(watching.live(&chat, None, 1), [(3, Form::WsEnvelope)]);
        assert_eq!(watching.live(&chat, Some(3), 9), [(7, Form::Lines)]);
        assert_eq!((watching.has_untold(0), watching.watchers()), (false, 2));
        watching.unwatch(&chat, 7);
        assert!(!watching.has_untold(0));
        watching.unwatch(&chat, 3);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, false, false)]);
        assert!(watching.is_empty());
    }

    #[test]
    fn who_goes_before_the_home_worker_knows_is_not_told() {
        let (mut watching, chat) = (Watching::<u8>::new(1), Topic::new("chat").unwrap());
        watching.watch(0, &chat, 7, Form::Lines);
        watching.unwatch(&chat, 7);
        assert!(watching.is_empty());
        watching.ask(0, &chat, 1);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, false, true)]);
        watching.watch(0, &chat, 7, Form::Lines);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, false)]);
        assert_eq!(
            (watching.take_asking(&chat), watching.take_waiting(&chat, 9)),
            (vec![1], vec![]),
            "changes since passed it by"
        );
        watching.answered(&chat);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, true)]);
        assert_eq!(watching.take_waiting(&chat, 9), [(7, Form::Lines)]);
    }

    #[test]
    fn an_answer_from_before_a_pause_begins_nothing() {
        let (mut watching, chat) = (Watching::<u8>::new(1), Topic::new("chat").unwrap());
        watching.watch(0, &chat, 7, Form::Lines);
        watching.take_untold(0, 9);
        watching.unwatch(&chat, 7);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, false, false)]);
        watching.watch(0, &chat, 8, Form::Lines);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, false)]);
        assert_eq!(watching.take_waiting(&chat, 9), []);
        watching.answered(&chat);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, true)]);
    }

    #[test]
    fn who_is_left_out_gets_a_state_again() {
        let (mut watching, chat) = (Watching::<u8>::new(1), Topic::new("chat").unwrap());
        for slot in 0..2 {
            watching.watch(0, &chat, slot, Form::Lines);
        }
        watching.take_untold(0, 9);
        watching.take_waiting(&chat, 9);
        watching.answered(&chat);
        watching.fall_behind(&chat, 0);
        assert_eq!(watching.live(&chat, None, 9), [(1, Form::Lines)]);
        watching.watch(0, &chat, 0, Form::Lines);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, true)]);
        watching.start_over(&chat);
        assert_eq!((watching.live(&chat, None, 9), watching.take_waiting(&chat, 9)), (vec![], vec![]));
        watching.answered(&chat);
        assert_eq!(watching.take_untold(0, 9), [question(&chat, true, true)]);
        assert_eq!(watching.take_waiting(&chat, 9).len(), 2);
    }
}
