//! How subscribers come to miss something: each gets a message and so a cursor, all are cut off at once, and so many messages are
//! published meanwhile.
//!
//! ```text
//! Marking --all have message 0--> Cutting --next turn--> Publishing --all are answered--> (done)
//! ```
//!
//! Here nothing is measured. Whatever goes wrong is a failure, because no one could say what the return was to bring.

use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::envelope;
use crate::failure::Failure;
use crate::net::Net;
use crate::payload::{Payload, Stamp};

/// How many publications wait for their answer at a time.
const UNANSWERED_MAX: u64 = 64;

/// The message that all get before they are cut off; those they miss have the numbers behind it.
pub const MARK: u64 = 0;

/// Subscribers on their way to having missed something.
#[derive(Debug)]
pub struct Absence<'a> {
    /// The subscribers' connections.
    ids: &'a [usize],
    publisher: usize,
    payload: &'a mut Payload,
    /// How many messages are to be missed.
    missed: u64,
    timeout: Nanos,
    state: State,
    /// Where each stands, by its connection's number; empty while that is not known.
    cursors: Vec<String>,
    /// Who has got the first message.
    is_marked: Vec<bool>,
    published: u64,
    answered: u64,
    moved_at: Nanos,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Marking,
    Cutting,
    Publishing,
}

impl<'a> Absence<'a> {
    /// Lets these subscribers miss so many messages, which `publisher` posts; returns the cursor of each, or None after Ctrl-C.
    pub fn run(
        engine: &mut Engine,
        ids: &'a [usize],
        publisher: usize,
        payload: &'a mut Payload,
        missed: u64,
        timeout: Nanos,
    ) -> Result<Option<Vec<String>>, Failure> {
        let places = ids.iter().copied().max().map_or(0, |highest| highest + 1);
        let mut absence = Self {
            ids,
            publisher,
            payload,
            missed,
            timeout,
            state: State::Marking,
            cursors: vec![String::new(); places],
            is_marked: vec![false; places],
            published: 0,
            answered: 0,
            moved_at: clock::now(),
            failure: None,
        };
        if engine.run(&mut absence)? {
            return Ok(None);
        }
        let cursors: Vec<String> = ids.iter().map(|&id| std::mem::take(&mut absence.cursors[id])).collect();
        if cursors.iter().any(String::is_empty) {
            let why = "messages came without a cursor: ask for it in the URL (?envelope), or use --sub sse";
            return Err(Failure::Usage(why.to_owned()));
        }
        Ok(Some(cursors))
    }

    fn publish(&mut self, net: &mut Net, now: Nanos) {
        let message = self.payload.stamped(Stamp { topic: 0, number: self.published, due: now });
        net.publish(self.publisher, 0, message, true);
        self.published += 1;
    }

    fn is_known(&self, id: usize) -> bool {
        id < self.cursors.len()
    }

    fn stand(&mut self, id: usize, cursor: &str) {
        if self.is_known(id) {
            self.cursors[id].clear();
            self.cursors[id].push_str(cursor);
        }
    }

    fn check_patience(&self, now: Nanos) -> Result<(), Failure> {
        if now < self.moved_at + self.timeout {
            return Ok(());
        }
        let what = match self.state {
            State::Marking => "the first message did not come to all within --timeout",
            State::Cutting | State::Publishing => "a publication was not answered within --timeout",
        };
        Err(Failure::Usage(what.to_owned()))
    }
}

impl Load for Absence<'_> {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.check_patience(now)?;
        match self.state {
            State::Marking if self.published == 0 => self.publish(net, now),
            State::Marking if self.answered == 1 && self.ids.iter().all(|&id| self.is_marked[id]) => {
                self.ids.iter().for_each(|&id| net.reset(id));
                self.state = State::Cutting;
                // Their sockets go in the next turn: what is published then finds nobody.
                return Ok(Next::At(now));
            }
            State::Marking => {}
            State::Cutting | State::Publishing => {
                self.state = State::Publishing;
                if self.answered == 1 + self.missed {
                    return Ok(Next::Done);
                }
                while self.published <= self.missed && self.published - self.answered < UNANSWERED_MAX {
                    self.publish(net, now);
                }
            }
        }
        Ok(Next::At(self.moved_at + self.timeout))
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        if let Some(cursor) = envelope::cursor_of(payload) {
            self.stand(id, cursor);
        }
        if self.is_known(id) && self.payload.stamp_of(payload, at).is_some() {
            self.is_marked[id] = true;
            self.moved_at = at;
        }
    }

    fn position(&mut self, _net: &mut Net, id: usize, cursor: &str) {
        self.stand(id, cursor);
    }

    fn answered(&mut self, _net: &mut Net, _id: usize, result: Result<(), String>, at: Nanos) {
        self.answered += 1;
        self.moved_at = at;
        if let Err(words) = result {
            self.failure.get_or_insert(Failure::Usage(format!("a publication was refused: {words}")));
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        let who = if id == self.publisher { "the connection that publishes" } else { "a subscriber" };
        self.failure.get_or_insert(Failure::Usage(format!("{who} did not stay: {ending}")));
    }
}
