//! Who of one worker's own connections is there, and what of it the home workers have not been told.
//!
//! A seat is a member in a topic, with the number of its connections on this worker. What is told is the difference to what was told
//! before, so however fast connections come and go, what waits to be told is no more than the seats there are, and some thousands that
//! were taken and given back meanwhile.
//!
//! Joins and goodbyes have tickets, drawn from one row by all workers: a goodbye that comes late, because it comes from another worker,
//! ends what was there when it was said, and not what came since, as when a page is loaded again.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::RandomState;

use super::{Member, MemberName};
use crate::frame::Topic;
use crate::limits::{GiveBack, reserve_tight};
use crate::metrics::Cause;

/// Seats of which a home worker is to be told, beyond which those are left out that were taken and given back meanwhile.
const UNTOLD_MAX: usize = if cfg!(test) { 20 } else { 4096 };

/// What a home worker is told of a member, since it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub member: Member,
    /// The name that it has chosen, if the topic's class allows one.
    pub name: Option<MemberName>,
    /// How many more connections it has on the worker.
    pub more: i32,
    /// The ticket of the last that has come, however many have gone.
    pub joined: Option<u64>,
    /// Why the last one went; `None` if none went.
    pub cause: Option<Cause>,
}

/// A connection's place in a topic: given back when the connection leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The topic.
    pub topic: Topic,
    ticket: u64,
}

/// The seats of one worker.
#[derive(Debug, Default)]
pub struct Seats {
    members: HashMap<Member, Vec<Taken>, RandomState>,
    /// For each home worker, the seats of which something is to be told.
    untold: Vec<BTreeSet<(Member, Topic)>>,
}

#[derive(Debug)]
struct Taken {
    topic: Topic,
    home: usize,
    name: Option<MemberName>,
    /// The tickets of its connections.
    connections: Vec<u64>,
    /// How many the home worker knows of.
    told: usize,
    /// What it does not know: the last that joined, and why the last one went.
    joined: Option<u64>,
    cause: Option<Cause>,
}

impl Seats {
    /// In a process of so many workers.
    #[must_use]
    pub fn new(homes: usize) -> Self {
        Self { members: HashMap::default(), untold: (0..homes).map(|_| BTreeSet::new()).collect() }
    }

    /// A connection of `member` joins a topic.
    pub fn join(&mut self, home: usize, topic: &Topic, member: Member, name: Option<&MemberName>, ticket: u64) -> Seat {
        let seats = self.members.entry(member).or_default();
        let at = seats.iter().position(|seat| seat.topic == *topic).unwrap_or_else(|| {
            let (topic, name, connections, told) = (topic.clone(), name.cloned(), Vec::new(), 0);
            seats.push(Taken { topic, home, name, connections, told, joined: None, cause: None });
            seats.len() - 1
        });
        let seat = &mut seats[at];
        reserve_tight(&mut seat.connections, 1);
        seat.connections.push(ticket);
        seat.joined = Some(ticket);
        self.untold[home].insert((member, topic.clone()));
        Seat { topic: topic.clone(), ticket }
    }

    /// A connection gives its place back.
    pub fn leave(&mut self, member: Member, seat: &Seat, cause: Cause) {
        let Some(seats) = self.members.get_mut(&member) else { return };
        let Some(taken) = seats.iter_mut().find(|taken| taken.topic == seat.topic) else { return };
        let Some(at) = taken.connections.iter().position(|ticket| *ticket == seat.ticket) else { return };
        taken.connections.swap_remove(at);
        taken.cause = Some(cause);
        self.changed(member, &seat.topic);
    }

    /// A member has said goodbye: those of its connections here that had joined before count no longer, whether they end now or later.
    pub fn goodbye(&mut self, member: Member, ticket: u64) {
        let Some(seats) = self.members.get_mut(&member) else { return };
        let mut topics = Vec::new();
        for seat in seats.iter_mut().filter(|seat| seat.connections.iter().any(|joined| *joined < ticket)) {
            seat.connections.retain(|joined| *joined > ticket);
            seat.cause = Some(Cause::LeftPage);
            topics.push(seat.topic.clone());
        }
        for topic in topics {
            self.changed(member, &topic);
        }
    }

    /// Somebody who came and went before that was told has been there all the same, unless there are very many of those.
    fn changed(&mut self, member: Member, topic: &Topic) {
        let Some(seats) = self.members.get_mut(&member) else { return };
        let Some(at) = seats.iter().position(|seat| seat.topic == *topic) else { return };
        let seat = &seats[at];
        let place = (member, topic.clone());
        let is_crowded = self.untold[seat.home].len() >= UNTOLD_MAX;
        if seat.connections.is_empty() && seat.told == 0 && is_crowded {
            self.untold[seat.home].remove(&place);
            self.remove(member, at);
        } else {
            self.untold[seat.home].insert(place);
        }
    }

    fn remove(&mut self, member: Member, at: usize) {
        let Some(seats) = self.members.get_mut(&member) else { return };
        seats.swap_remove(at);
        if seats.is_empty() {
            self.members.remove(&member);
            self.members.give_back();
        }
    }

    /// Whether a home worker has something to be told.
    #[must_use]
    pub fn has_untold(&self, home: usize) -> bool {
        !self.untold[home].is_empty()
    }

    /// What a home worker is to be told, of so many seats at most. Taken, it counts as told.
    pub fn take_untold(&mut self, home: usize, seats_max: usize) -> Vec<(Topic, Change)> {
        let mut changes = Vec::new();
        while changes.len() < seats_max
            && let Some((member, topic)) = self.untold[home].pop_first()
        {
            let Some(seats) = self.members.get_mut(&member) else { continue };
            let Some(at) = seats.iter().position(|seat| seat.topic == topic) else { continue };
            let seat = &mut seats[at];
            let more = seat.connections.len() as i32 - seat.told as i32;
            seat.told = seat.connections.len();
            let (name, joined, cause) = (seat.name.clone(), seat.joined.take(), seat.cause.take());
            if seat.connections.is_empty() {
                self.remove(member, at);
            }
            changes.push((topic, Change { member, name, more, joined, cause }));
        }
        changes
    }

    /// What they take, in bytes, without the names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let entry = size_of::<(Member, Vec<Taken>)>() + size_of::<Taken>();
        self.members.len() * entry
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.untold.iter().all(BTreeSet::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn told(seats: &mut Seats) -> Vec<(i32, Option<u64>, Option<Cause>)> {
        seats.take_untold(0, 100).into_iter().map(|(_, change)| (change.more, change.joined, change.cause)).collect()
    }

    #[test]
    fn what_is_told_is_the_difference() {
        let (mut seats, member, chat) = (Seats::new(1), Member::numbered(1), topic("chat"));
        let first = seats.join(0, &chat, member, None, 1);
        let second = seats.join(0, &chat, member, None, 2);
        assert_eq!(told(&mut seats), [(2, Some(2), None)]);
        seats.leave(member, &first, Cause::Reset);
        seats.leave(member, &first, Cause::Internal);
        assert_eq!(told(&mut seats), [(-1, None, Some(Cause::Reset))]);
        let third = seats.join(0, &chat, member, None, 3);
        seats.leave(member, &second, Cause::NoPong);
        assert_eq!(told(&mut seats), [(0, Some(3), Some(Cause::NoPong))]);
        seats.leave(member, &third, Cause::ClientClose);
        assert_eq!(told(&mut seats), [(-1, None, Some(Cause::ClientClose))]);
        assert!(seats.is_empty() && told(&mut seats).is_empty());
    }

    #[test]
    fn who_comes_and_goes_untold_has_been_there_but_not_without_bound() {
        let (mut seats, chat) = (Seats::new(1), topic("chat"));
        for number in 0..1000 {
            let member = Member::numbered(number);
            let seat = seats.join(0, &chat, member, None, number);
            seats.leave(member, &seat, Cause::Reset);
        }
        let told = told(&mut seats);
        assert_eq!((told.len(), told[0]), (UNTOLD_MAX - 1, (0, Some(0), Some(Cause::Reset))));
        assert!(seats.is_empty() && !seats.has_untold(0));
    }

    #[test]
    fn after_a_goodbye_what_was_there_counts_no_longer() {
        let (mut seats, member) = (Seats::new(2), Member::numbered(1));
        let before = [seats.join(0, &topic("a"), member, None, 1), seats.join(0, &topic("b"), member, None, 2)];
        assert_eq!(told(&mut seats).len(), 2);
        // The goodbye was said with ticket 3, and comes behind this.
        let again = seats.join(0, &topic("a"), member, None, 4);
        seats.goodbye(member, 3);
        let left = Some(Cause::LeftPage);
        assert_eq!(told(&mut seats), [(0, Some(4), left), (-1, None, left)]);
        for seat in &before {
            seats.leave(member, seat, Cause::Reset);
        }
        assert!(told(&mut seats).is_empty(), "those that said goodbye end without a word");
        seats.goodbye(member, 3);
        seats.goodbye(Member::numbered(2), 5);
        assert!(!seats.has_untold(0) && !seats.has_untold(1));
        seats.leave(member, &again, Cause::Reset);
        assert_eq!(told(&mut seats), [(-1, None, Some(Cause::Reset))]);
        assert!(seats.is_empty());
    }

    #[test]
    fn a_name_is_the_first_that_was_chosen() {
        let (mut seats, member) = (Seats::new(1), Member::numbered(1));
        for (ticket, name) in ["ann", "bob"].into_iter().enumerate() {
            seats.join(0, &topic("chat"), member, MemberName::new(name).as_ref(), ticket as u64);
        }
        assert_eq!(seats.take_untold(0, 1)[0].1.name, MemberName::new("ann"));
    }
}
