//! Open fan-outs: for each topic the publications that wait for their turn, and whose topic's turn it is.

use std::collections::VecDeque;

use slab::Slab;

use super::grace::Half;
use super::reading::{Origin, Stamp};
use super::topics::{Hold, TopicId};
use crate::limits::GiveBack;

/// What some subscribers are to be handed.
#[derive(Debug)]
pub struct Slice<'h, P> {
    /// Where it was published.
    pub topic: TopicId,
    /// Subscribers it has gone through: those who are to be handed it, and those whom it has reached before.
    pub looked_at: usize,
    /// What they get.
    pub publication: Carried<'h, P>,
}

/// A publication on its way through a topic's list.
#[derive(Debug)]
pub enum Carried<'h, P> {
    /// More slices of it will come.
    Open(&'h mut P),
    /// This slice is its last, and the hub lets go of it.
    Finished(P),
}

impl<P> Carried<'_, P> {
    /// The publication, for the length of this slice.
    pub fn get_mut(&mut self) -> &mut P {
        match self {
            Self::Open(publication) => publication,
            Self::Finished(publication) => publication,
        }
    }

    /// The publication by value, if this was its last slice.
    #[must_use]
    pub fn finished(self) -> Option<P> {
        match self {
            Self::Open(_) => None,
            Self::Finished(publication) => Some(publication),
        }
    }
}

/// The publications of one topic, first in first out: the ends of a chain through [`Fanouts`].
///
/// A chain costs an idle topic 8 bytes, where a queue of its own would keep an allocation for every topic ever published to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
}

/// The end of a chain.
const NONE: u32 = u32::MAX;

const RELEASED_AT_ONCE: &str = "what stands at the head of a queue is released before its turn";

impl Default for Queue {
    fn default() -> Self {
        Self { head: NONE, tail: NONE }
    }
}

impl Queue {
    pub fn is_empty(self) -> bool {
        self.head == NONE
    }

    /// Whether its last publication is the one under way.
    pub fn is_single(self) -> bool {
        self.head == self.tail
    }
}

/// Every open fan-out of the worker, and the order in which topics take turns.
#[derive(Debug)]
pub(super) struct Fanouts<P> {
    links: Slab<Link<P>>,
    /// Publications in all links.
    waiting: usize,
    /// Each topic with an open fan-out, once.
    turns: VecDeque<TopicId>,
}

#[derive(Debug)]
struct Link<P> {
    what: Waiting<P>,
    next: u32,
    /// In which half it arrived.
    half: Half,
    /// After how many moves of readers it arrived, and from where.
    arrival: (Stamp, Origin),
}

#[derive(Debug)]
enum Waiting<P> {
    /// A publication, and how many it has become by joining.
    Publication(P, u32),
    /// This slot's hold ends here: it has read what goes before, and gets what comes behind.
    Release(u32, Hold),
}

impl<P> Default for Fanouts<P> {
    fn default() -> Self {
        Self { links: Slab::new(), waiting: 0, turns: VecDeque::new() }
    }
}

impl<P> Fanouts<P> {
    /// Room for this many links is kept when the last fan-out ends; more is given back.
    const SPARE_LINKS_MAX: usize = 1024;

    /// Publications in all queues, joined or not.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Whether one link holds all of them.
    pub fn has_one(&self) -> bool {
        self.links.len() == 1
    }

    pub fn push(&mut self, queue: &mut Queue, publication: P, half: Half, arrival: (Stamp, Origin)) {
        self.waiting += 1;
        self.append(queue, Waiting::Publication(publication, 1), half, arrival);
    }

    /// Has a hold end behind everything that waits in a queue that is not empty.
    pub fn push_release(&mut self, queue: &mut Queue, slot: u32, hold: Hold) {
        let Link { half, arrival, .. } = self.links[queue.tail as usize];
        self.append(queue, Waiting::Release(slot, hold), half, arrival);
    }

    fn append(&mut self, queue: &mut Queue, what: Waiting<P>, half: Half, arrival: (Stamp, Origin)) {
        let link = self.links.insert(Link { what, next: NONE, half, arrival }) as u32;
        match queue.tail {
            NONE => queue.head = link,
            tail => self.links[tail as usize].next = link,
        }
        queue.tail = link;
    }

    /// Lets the last publication of a queue that is not empty take this one in, as `join` does, if both arrived between the same moves of
    /// readers; else gives it back.
    pub fn join_last(
        &mut self,
        queue: Queue,
        publication: P,
        arrived: Stamp,
        join: impl FnOnce(&mut P, P) -> Option<P>,
    ) -> Option<P> {
        let Link { what: Waiting::Publication(last, joined), arrival: (stamp, _), .. } = &mut self.links[queue.tail as usize]
        else {
            return Some(publication);
        };
        if *stamp != arrived {
            return Some(publication);
        }
        let refused = join(last, publication);
        if refused.is_none() {
            *joined += 1;
            self.waiting += 1;
        }
        refused
    }

    /// The first publication of a queue whose turn it is.
    pub fn first(&mut self, queue: Queue) -> &mut P {
        match &mut self.links[queue.head as usize].what {
            Waiting::Publication(publication, _) => publication,
            Waiting::Release(..) => unreachable!("{RELEASED_AT_ONCE}"),
        }
    }

    /// After how many moves of readers the first publication arrived, and from where.
    pub fn arrival_of_first(&self, queue: Queue) -> (Stamp, Origin) {
        self.links[queue.head as usize].arrival
    }

    /// In which half the first publication arrived.
    pub fn half_of_first(&self, queue: Queue) -> Half {
        self.links[queue.head as usize].half
    }

    /// Takes the first publication out of a queue whose turn it is.
    pub fn pop(&mut self, queue: &mut Queue) -> P {
        match self.unlink(queue) {
            Waiting::Publication(publication, joined) => {
                self.waiting -= joined as usize;
                publication
            }
            Waiting::Release(..) => unreachable!("{RELEASED_AT_ONCE}"),
        }
    }

    /// Takes a release out that stands at the head of a queue.
    pub fn pop_release(&mut self, queue: &mut Queue) -> Option<(u32, Hold)> {
        let head = self.links.get(queue.head as usize)?;
        let Waiting::Release(slot, hold) = head.what else { return None };
        self.unlink(queue);
        Some((slot, hold))
    }

    fn unlink(&mut self, queue: &mut Queue) -> Waiting<P> {
        let link = self.links.remove(queue.head as usize);
        queue.head = link.next;
        if queue.is_empty() {
            queue.tail = NONE;
        }
        if self.links.is_empty() && self.links.capacity() > Self::SPARE_LINKS_MAX {
            self.links = Slab::with_capacity(Self::SPARE_LINKS_MAX);
        }
        link.what
    }

    /// Puts a topic at the end of the row.
    pub fn queue_turn(&mut self, id: TopicId) {
        self.turns.push_back(id);
    }

    /// The topic whose turn it is.
    pub fn next_turn(&mut self) -> Option<TopicId> {
        let id = self.turns.pop_front();
        if id.is_none() {
            self.turns.give_back();
        }
        id
    }

    #[cfg(any(test, debug_assertions))]
    pub fn turns(&self) -> impl Iterator<Item = TopicId> {
        self.turns.iter().copied()
    }

    #[cfg(any(test, debug_assertions))]
    pub fn chain_length(&self, queue: Queue) -> usize {
        let links = std::iter::successors(self.links.get(queue.head as usize), |link| self.links.get(link.next as usize));
        links.map(|link| if let Waiting::Publication(_, joined) = link.what { joined as usize } else { 0 }).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_through_one_slab_keep_their_own_order() {
        let mut fanouts = Fanouts::default();
        let mut queues = [Queue::default(); 2];
        for number in 0..10 {
            fanouts.push(&mut queues[number % 2], number, Half::default(), (0, Origin { home: 0, is_kept: true }));
        }
        assert_eq!((fanouts.len(), fanouts.chain_length(queues[1])), (10, 5));
        for number in 0..10 {
            assert_eq!(*fanouts.first(queues[number % 2]), number);
            assert_eq!(fanouts.pop(&mut queues[number % 2]), number);
        }
        assert!(queues.iter().all(|queue| queue.is_empty()));
    }
}
