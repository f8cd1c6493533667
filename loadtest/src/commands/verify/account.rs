//! Who was owed what, and what of it came: the account of a verification, without sockets and clock.
//!
//! A publication is known by its number, which its payload carries, and by its position, which the server gives it: two
//! publishers of a topic have no order but that. A reader is one who began anew at some point and from there on is owed
//! everything, over any number of connections, until it leaves. What it is owed and has not got is announced if a gap that it was
//! told of covers it; else it was lost in silence.
//!
//! ```text
//! publish -> accept | refuse | abandon       (a WebSocket has no answer: what it sent counts as accepted until it is abandoned)
//! join -> confirm -> deliver, gap, ... -> return_to -> deliver, gap, ... -> leave
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::ledger::Arrival;

use super::position::{Epochs, Position};
use super::tally::Tally;

/// All topics, publications and readers of a run.
#[derive(Debug, Default)]
pub struct Account {
    topics: Vec<Topic>,
    readers: Vec<Reader>,
    counts: Tally,
}

#[derive(Debug, Default)]
struct Topic {
    epochs: Epochs,
    /// By number.
    publications: Vec<Publication>,
    /// In the server's order.
    order: BTreeMap<Position, u64>,
}

#[derive(Debug)]
struct Publication {
    publisher: usize,
    is_accepted: bool,
    /// Whether it was accepted is not known: no answer has come yet, or will.
    is_open: bool,
    position: Option<Position>,
}

#[derive(Debug)]
struct Reader {
    /// What it is called in a fault's words.
    name: String,
    topic: usize,
    /// Everything from this number on is owed to it, wherever it stands.
    due_from: Option<u64>,
    /// Everything behind this position is owed to it.
    began: Option<Position>,
    /// The last that came.
    position: Option<Position>,
    /// Whether it has a message, by number from `has_from` on: from before the first that came to the last, not from the run's
    /// first.
    has: VecDeque<bool>,
    has_from: u64,
    /// What is missing and was announced: behind the first position, up to the second.
    gaps: Vec<(Position, Position)>,
    /// What was published below this number comes by replay.
    replayed_below: u64,
    has_left: bool,
}

impl Account {
    /// Of so many topics.
    pub fn new(topics: usize) -> Self {
        Self { topics: (0..topics).map(|_| Topic::default()).collect(), ..Self::default() }
    }

    /// The number that the topic's next publication gets.
    pub fn next_of(&self, topic: usize) -> u64 {
        self.topics[topic].publications.len() as u64
    }

    /// A publication leaves; returns its number. Where no answer is to come it counts as accepted.
    pub fn publish(&mut self, topic: usize, publisher: usize, is_asked: bool) -> u64 {
        let number = self.next_of(topic);
        self.topics[topic].publications.push(Publication {
            publisher,
            is_accepted: !is_asked,
            is_open: is_asked,
            position: None,
        });
        number
    }

    /// The server has accepted a publication and says where it stands.
    pub fn accept(&mut self, topic: usize, number: u64, cursor: &str) {
        match self.topics[topic].epochs.position(cursor) {
            Some(at) => self.place(topic, number, at),
            None => self.contradict(|| format!("{cursor:?}, in an answer, is no cursor")),
        }
        self.topics[topic].publications[number as usize].is_open = false;
    }

    /// The server has not accepted it.
    pub fn refuse(&mut self, topic: usize, number: u64) {
        self.counts.refused += 1;
        self.topics[topic].publications[number as usize].is_open = false;
    }

    /// The publisher's connection has ended: what it sent and nobody has seen may have been accepted or not.
    pub fn abandon(&mut self, topic: usize, publisher: usize) {
        let publications = self.topics[topic].publications.iter_mut();
        for publication in publications.filter(|one| one.publisher == publisher && one.position.is_none() && one.is_accepted) {
            (publication.is_accepted, publication.is_open) = (false, true);
        }
    }

    /// Somebody begins to read a topic.
    pub fn join(&mut self, topic: usize, name: String) -> usize {
        self.readers.push(Reader {
            name,
            topic,
            due_from: None,
            began: None,
            position: None,
            has: VecDeque::new(),
            has_from: 0,
            gaps: Vec::new(),
            replayed_below: 0,
            has_left: false,
        });
        self.readers.len() - 1
    }

    /// The subscription is in force: what is published from now on is owed.
    pub fn confirm(&mut self, reader: usize) {
        let next = self.next_of(self.readers[reader].topic);
        self.readers[reader].due_from.get_or_insert(next);
    }

    /// A connection stands that asked for what was published before: what was is replayed.
    pub fn return_to(&mut self, reader: usize) {
        self.readers[reader].replayed_below = self.next_of(self.readers[reader].topic);
    }

    /// The server says where a reader stands: if nothing has come yet, everything behind it is owed.
    pub fn stand(&mut self, reader: usize, cursor: &str) {
        let reader = &mut self.readers[reader];
        match self.topics[reader.topic].epochs.position(cursor) {
            Some(at) => {
                reader.began.get_or_insert(at);
            }
            None => self.contradict(|| format!("{cursor:?} is no cursor")),
        }
    }

    /// The same in front of the first message of a list: behind whatever stands before it.
    pub fn stand_before(&mut self, reader: usize, cursor: &str) {
        if let Some(before) = super::position::before(cursor) {
            self.stand(reader, &before);
        }
    }

    /// A message came.
    pub fn deliver(&mut self, reader: usize, number: u64, cursor: &str) {
        let topic = self.readers[reader].topic;
        let Some(at) = self.topics[topic].epochs.position(cursor) else {
            return self.contradict(|| format!("{cursor:?}, with message {number}, is no cursor"));
        };
        self.place(topic, number, at);
        let reader = &mut self.readers[reader];
        let arrival = reader.enter(number, at);
        if arrival == Arrival::Duplicate {
            self.counts.duplicated += 1;
            return self.counts.note(|| format!("{}: message {number} at {cursor} came again", reader.name));
        }
        self.counts.delivered += 1;
        self.counts.replayed += u64::from(number < reader.replayed_below);
        if arrival == Arrival::Reordered {
            self.counts.reordered += 1;
            self.counts.note(|| format!("{}: message {number} at {cursor} came behind a later one", reader.name));
        }
    }

    /// A message came that is not of this run: it only says where the reader stands.
    pub fn pass(&mut self, reader: usize, cursor: &str) {
        self.counts.foreign += 1;
        let one = &mut self.readers[reader];
        if let Some(at) = self.topics[one.topic].epochs.position(cursor) {
            one.began.get_or_insert(at);
            one.position = one.position.max(Some(at));
        }
    }

    /// The server announces that what lies behind `from`, up to `to`, will not come.
    pub fn gap(&mut self, reader: usize, from: &str, to: &str) {
        self.counts.gaps += 1;
        let one = &mut self.readers[reader];
        let epochs = &mut self.topics[one.topic].epochs;
        // A life of the topic that nobody knows can't be where the reader stood.
        let (Some(from), Some(to)) = (epochs.known(from), epochs.position(to)) else {
            return self.contradict(|| format!("a gap from {from:?} to {to:?}, which are not both cursors of this topic"));
        };
        one.gaps.push((from, to));
        one.began.get_or_insert(from);
        one.position = one.position.max(Some(to));
    }

    /// The server ended a connection with the word that something is missing, without saying what.
    pub fn gap_without_end(&mut self, reader: usize) {
        self.counts.gaps += 1;
        self.leave(reader);
    }

    /// A reader is gone for good: nothing behind its position is owed to it any more.
    pub fn leave(&mut self, reader: usize) {
        self.readers[reader].has_left = true;
    }

    /// Whether something is owed to those who have not left that no gap covers: it may still come.
    pub fn is_owing(&self) -> bool {
        let mut tally = Tally::default();
        let those = self.readers.iter().filter(|reader| !reader.has_left);
        those.for_each(|reader| reader.add_missing(&self.topics[reader.topic], &mut tally));
        tally.lost > 0
    }

    /// What there was so far.
    pub fn tally(&self) -> Tally {
        let mut tally = self.counts.clone();
        for topic in &self.topics {
            tally.accepted += topic.publications.iter().filter(|one| one.is_accepted).count() as u64;
            tally.unanswered += topic.publications.iter().filter(|one| one.is_open && one.position.is_none()).count() as u64;
            topic.check_publishers(&mut tally);
        }
        self.readers.iter().for_each(|reader| reader.add_missing(&self.topics[reader.topic], &mut tally));
        tally
    }

    /// A publication stands at this position, and always did.
    fn place(&mut self, topic: usize, number: u64, at: Position) {
        let Topic { publications, order, .. } = &mut self.topics[topic];
        let publication = &mut publications[number as usize];
        publication.is_accepted = true;
        let (known, other) = (*publication.position.get_or_insert(at), *order.entry(at).or_insert(number));
        if known != at || other != number {
            self.contradict(|| format!("topic {topic}: message {number} has two positions, or shares one with message {other}"));
        }
    }

    fn contradict(&mut self, words: impl FnOnce() -> String) {
        self.counts.contradicted += 1;
        self.counts.note(words);
    }
}

impl Topic {
    /// In each life of the topic each publisher's messages stand in the order in which it sent them.
    fn check_publishers(&self, tally: &mut Tally) {
        let mut last = HashMap::new();
        for (at, &number) in &self.order {
            let publisher = self.publications[number as usize].publisher;
            let before = last.insert((at.epoch, publisher), number);
            if before > Some(number) {
                tally.reordered += 1;
                tally.note(|| format!("message {number} stands behind a later one of its publisher"));
            }
        }
    }
}

impl Reader {
    fn enter(&mut self, number: u64, at: Position) -> Arrival {
        if self.has.is_empty() {
            self.has_from = number;
        }
        while number < self.has_from {
            self.has.push_front(false);
            self.has_from -= 1;
        }
        let place = (number - self.has_from) as usize;
        if self.has.len() <= place {
            self.has.resize(place + 1, false);
        }
        if std::mem::replace(&mut self.has[place], true) {
            return Arrival::Duplicate;
        }
        if self.position.is_some_and(|last| at <= last) {
            return Arrival::Reordered;
        }
        self.began.get_or_insert(at);
        self.position = Some(at);
        Arrival::InOrder
    }

    fn add_missing(&self, topic: &Topic, tally: &mut Tally) {
        for (number, publication) in topic.publications.iter().enumerate() {
            if self.has_got(number as u64) || !publication.is_accepted || !self.is_owed(number as u64, publication.position) {
                continue;
            }
            let is_covered = |at| self.gaps.iter().any(|&(from, to)| from < at && at <= to);
            if publication.position.is_some_and(is_covered) {
                tally.announced += 1;
            } else {
                tally.lost += 1;
                tally.note(|| format!("{}: message {number} never came, and no gap was announced", self.name));
            }
        }
    }

    fn has_got(&self, number: u64) -> bool {
        let place = number.checked_sub(self.has_from);
        place.and_then(|place| self.has.get(place as usize)).copied().unwrap_or(false)
    }

    fn is_owed(&self, number: u64, position: Option<Position>) -> bool {
        let is_new = self.due_from.is_some_and(|from| number >= from);
        match position {
            Some(at) => {
                let has_begun = is_new || self.began.is_some_and(|began| at > began);
                has_begun && (!self.has_left || self.position.is_some_and(|last| at <= last))
            }
            None => is_new && !self.has_left,
        }
    }
}
