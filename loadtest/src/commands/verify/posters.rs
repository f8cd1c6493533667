//! The connections that publish by POST, one for each topic, and what they wait for an answer to.

use std::collections::VecDeque;

use crate::clock::Nanos;

use super::drill::RETRY;

/// By topic.
#[derive(Debug)]
pub struct Posters(Vec<Poster>);

#[derive(Debug)]
struct Poster {
    connection: Option<usize>,
    /// The numbers of what was sent, the first to be answered first.
    asked: VecDeque<u64>,
    /// When it comes back, if it is gone.
    again_at: Nanos,
}

impl Posters {
    /// On these connections.
    pub fn new(ids: &[usize]) -> Self {
        Self(ids.iter().map(|&id| Poster { connection: Some(id), asked: VecDeque::new(), again_at: 0 }).collect())
    }

    /// How many topics there are.
    pub const fn topics(&self) -> usize {
        self.0.len()
    }

    /// The connection that posts to a topic.
    pub fn connection(&self, topic: usize) -> Option<usize> {
        self.0[topic].connection
    }

    /// A publication leaves.
    pub fn ask(&mut self, topic: usize, number: u64) {
        self.0[topic].asked.push_back(number);
    }

    /// Which is answered next.
    pub fn first_asked(&self, topic: usize) -> Option<u64> {
        self.0[topic].asked.front().copied()
    }

    /// One was answered; returns which.
    pub fn answer(&mut self, topic: usize) -> Option<u64> {
        self.0[topic].asked.pop_front()
    }

    /// Whether nothing waits for an answer.
    pub fn are_answered(&self) -> bool {
        self.0.iter().all(|poster| poster.asked.is_empty())
    }

    /// Its connection ended: no answer comes any more.
    pub fn close(&mut self, topic: usize, now: Nanos) {
        self.0[topic] = Poster { connection: None, asked: VecDeque::new(), again_at: now + RETRY };
    }

    /// Takes one that is to come back, at the next try if this one fails.
    pub fn take_due(&mut self, now: Nanos) -> Option<usize> {
        let is_due = |poster: &Poster| poster.connection.is_none() && now >= poster.again_at;
        let topic = self.0.iter().position(is_due)?;
        self.0[topic].again_at = now + RETRY;
        Some(topic)
    }

    /// It is back.
    pub fn open(&mut self, topic: usize, id: usize) {
        self.0[topic].connection = Some(id);
    }
}
