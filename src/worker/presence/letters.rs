//! Letters about presence, and what a home worker does with them.

use std::sync::Arc;

use crate::frame::Topic;
use crate::hub::presence::{Change, Member, Question, State};
use crate::io::Driver;
use crate::limits::Tick;

use super::super::Core;
use super::super::letters::{Delivery, Request};
use super::super::shared::Phase;
use super::Presence;

/// Changes, and questions, in one letter: half a millisecond's work.
const LETTER_MAX: usize = 512;
/// Members whose grace a turn ends at most.
const ENDED_MAX: usize = 2048;
/// Rooms that a turn tells of at most.
const ROOMS_MAX: usize = 256;
/// One in so many places of a ring is left to publications.
const PUBLICATIONS_SHARE: usize = 4;

/// What a worker tells a home worker of presence, and asks it.
#[derive(Debug)]
pub struct Letter {
    /// Who writes.
    pub worker: usize,
    /// Members who came and went there.
    pub changes: Vec<(Topic, Change)>,
    /// Members who said goodbye. All workers are told: any may have a connection of theirs, or have them in grace.
    pub goodbyes: Vec<Goodbye>,
    /// Who is there?
    pub questions: Vec<Question>,
}

/// A member that leaves all topics.
#[derive(Clone, Copy, Debug)]
pub struct Goodbye {
    /// Who.
    pub member: Member,
    /// When, in the order of all joins and goodbyes.
    pub ticket: u64,
}

impl<D: Driver> Core<D> {
    /// Presence's part of the turn: tells workers with watchers what has changed, and home workers what has happened here.
    pub(in crate::worker) fn tell_presence(&mut self) {
        if !self.presence.is_on || self.shared.phase() >= Phase::Draining {
            return;
        }
        self.presence.table.handle_timeout(self.tick, ENDED_MAX);
        self.tell_rooms();
        for home in 0..self.shared.workers() {
            if self.may_write_letter(home) {
                self.write_letter(home);
            }
        }
    }

    /// Whether there is something for a home worker, and nothing under way that it would overtake.
    pub(super) fn may_write_letter(&mut self, home: usize) -> bool {
        let Presence { seats, watching, goodbyes, is_under_way, .. } = &self.presence;
        let has_something = seats.has_untold(home) || watching.has_untold(home) || !goodbyes[home].is_empty();
        has_something && !is_under_way[home] && self.shared.phase() < Phase::Draining && self.has_credit(home)
    }

    fn write_letter(&mut self, home: usize) {
        let Presence { seats, watching, goodbyes, is_under_way, .. } = &mut self.presence;
        let letter = Letter {
            worker: self.index,
            changes: seats.take_untold(home, LETTER_MAX),
            goodbyes: std::mem::take(&mut goodbyes[home]),
            questions: watching.take_untold(home, LETTER_MAX),
        };
        is_under_way[home] = true;
        let sent = self.request(home, Request::Presence(Box::new(letter)));
        assert!(sent.is_ok(), "there was a credit");
    }

    /// Takes a letter in; the states that it asks for.
    pub(in crate::worker) fn read_letter(&mut self, letter: Letter) -> Vec<(Topic, Arc<State>)> {
        let Presence { table, seats, .. } = &mut self.presence;
        let (classes, tick) = (&self.options.classes, self.tick);
        let presence_of = |topic: &Topic| classes.of(topic.as_str()).presence;
        for (topic, change) in letter.changes {
            table.change(&topic, presence_of(&topic), change, tick);
        }
        for Goodbye { member, ticket } in letter.goodbyes {
            seats.goodbye(member, ticket);
            table.goodbye(member, ticket, tick);
        }
        let worker = u8::try_from(letter.worker).expect("there are at most 256 workers");
        let mut states = Vec::new();
        for Question { topic, watches, asks } in letter.questions {
            let presence = presence_of(&topic);
            table.set_watched(&topic, presence, worker, watches);
            if asks {
                let state = table.state(&topic, presence);
                states.push((topic, state));
            }
        }
        states
    }

    /// A letter was answered: the next may be written.
    pub(in crate::worker) fn letter_answered(&mut self, home: usize, states: Vec<(Topic, Arc<State>)>) {
        self.presence.is_under_way[home] = false;
        for (topic, state) in states {
            self.take_state(topic, state);
        }
    }

    /// When presence has something to do next.
    pub(in crate::worker) fn presence_due(&self) -> Option<Tick> {
        if self.shared.phase() >= Phase::Draining { None } else { self.presence.table.poll_timeout() }
    }

    fn tell_rooms(&mut self) {
        for _ in 0..ROOMS_MAX {
            let Some(room) = self.presence.table.next_due(self.tick) else { return };
            let watchers = self.presence.table.watchers(room).to_vec();
            if !watchers.iter().all(|worker| self.has_room_to_tell(usize::from(*worker))) {
                self.presence.table.put_off(room, Tick(self.tick.0 + 1));
                continue;
            }
            let Some(told) = self.presence.table.tell(room, self.tick) else { continue };
            let told = Arc::new(told);
            for worker in watchers.into_iter().map(usize::from) {
                if worker == self.index {
                    self.take_told(Arc::clone(&told));
                    continue;
                }
                let delivered = self.mailbox.lane(worker).try_deliver(Delivery::PresenceTold(Arc::clone(&told)));
                assert!(delivered.is_ok(), "there was more room than that");
                self.to_wake[worker] = true;
            }
        }
    }

    fn has_room_to_tell(&mut self, worker: usize) -> bool {
        let spare = self.options.mailbox_deliveries / PUBLICATIONS_SHARE;
        worker == self.index || self.mailbox.lane(worker).has_room(spare + 1)
    }
}
