//! A home worker's table: who is there in each of its topics, who is in grace, and what watchers have been told of that.
//!
//! A room is a topic with members or watchers. What its watchers have been told stands beside what is so, and [`Table::tell`] makes the
//! one the other: leaves first, then joins, then those who were only counted and find a place in the list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use slab::Slab;

use super::told::{self, Listed, State, Told};
use super::{Change, Member, MemberName};
use crate::class::Presence;
use crate::frame::Topic;
use crate::limits::{GiveBack, Tick};
use crate::metrics::Cause;

/// Changes that are told one by one; where more have come together, the list is told anew.
const CHANGES_MAX: usize = 100;

/// What presence is told by the command line; times in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a member that was lost may take to come back.
    pub grace: u32,
    /// How often watchers of a topic are told at most.
    pub interval: u32,
    /// Members of a topic that are listed; the others are only counted.
    pub listed_max: usize,
    /// Members of a worker's topics in grace at a time; beyond it the grace that is nearest to its end is over at once.
    pub graced_max: usize,
}

/// The number of a room. It is given to another one after the room was empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(u32);

impl RoomId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What has been told so far, whoever watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Members who joined.
    pub joins: u64,
    /// Members who left.
    pub leaves: u64,
    /// Numbers.
    pub counts: u64,
    /// Whole lists in place of very many changes.
    pub lists: u64,
}

/// Who is there, in the topics of one home worker.
#[derive(Debug)]
pub struct Table {
    options: Options,
    rooms: Slab<Room>,
    by_topic: HashMap<Topic, RoomId, RandomState>,
    members: BTreeMap<(Member, RoomId), Entry>,
    /// Whose grace ends when.
    graced: BTreeSet<(Tick, RoomId, Member)>,
    /// Which room is to be told when.
    due: BTreeSet<(Tick, RoomId)>,
    counts: Counts,
}

/// A member that is there, or in grace.
#[derive(Debug)]
struct Entry {
    connections: u32,
    name: Option<MemberName>,
    /// When its grace ends, and why it was lost.
    grace: Option<(Tick, Cause)>,
    /// The ticket of the last connection that joined, and that of its last goodbye.
    joined: u64,
    goodbye: Option<u64>,
}

impl Entry {
    /// Its connections had joined before it said goodbye: that they end is no loss.
    fn has_said_goodbye(&self) -> bool {
        self.goodbye.is_some_and(|goodbye| goodbye > self.joined)
    }
}

#[derive(Debug)]
struct Room {
    topic: Topic,
    presence: Presence,
    /// Members that are there, or in grace.
    present: u64,
    /// How many the watchers know of.
    told: u64,
    /// Members that the watchers know of.
    listed: BTreeMap<Member, Option<MemberName>>,
    /// What the watchers do not know yet: who has left of the listed ones, and why; who has come of the others.
    changed: BTreeMap<Member, Option<Cause>>,
    /// Who is there and only counted, because the list is full.
    unlisted: BTreeSet<Member>,
    /// Workers that have watchers.
    watchers: Vec<u8>,
    /// What the watchers know, once somebody has asked for it.
    state: Option<Arc<State>>,
    due: Option<Tick>,
    told_at: Option<Tick>,
}

impl Table {
    /// An empty one.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            rooms: Slab::new(),
            by_topic: HashMap::default(),
            members: BTreeMap::new(),
            graced: BTreeSet::new(),
            due: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Members that are there, or in grace, in all topics.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// What has been told so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// What it takes, in bytes, without the names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let member = size_of::<((Member, RoomId), Entry)>() + size_of::<(Member, Option<MemberName>)>();
        self.members.len() * member + self.rooms.capacity() * size_of::<Room>()
    }

    /// Takes in what a worker tells of a member of a topic whose class has `presence`.
    pub fn change(&mut self, topic: &Topic, presence: Presence, change: Change, now: Tick) {
        let room = self.find_or_add(topic, presence);
        let Change { member, name, more, joined, cause } = change;
        let is_new = !self.members.contains_key(&(member, room));
        let new = || Entry { connections: 0, name, grace: None, joined: 0, goodbye: None };
        let entry = self.members.entry((member, room)).or_insert_with(new);
        entry.connections = entry.connections.saturating_add_signed(more);
        entry.joined = entry.joined.max(joined.unwrap_or_default());
        let (connections, said_goodbye) = (entry.connections, entry.has_said_goodbye());
        if connections > 0
            && let Some((due, _)) = entry.grace.take()
        {
            self.graced.remove(&(due, room, member));
        }
        if is_new {
            self.appear(room, member, now);
        }
        let cause = if said_goodbye { Cause::LeftPage } else { cause.unwrap_or(Cause::ClientClose) };
        match connections {
            0 if cause.ends_presence() => self.vanish(room, member, cause, now),
            0 => self.lose(room, member, cause, now),
            _ => {}
        }
    }

    /// A member leaves all topics at once. Connections that had joined before its ticket are about to go on all workers.
    pub fn goodbye(&mut self, member: Member, ticket: u64, now: Tick) {
        let range = (member, RoomId(0))..=(member, RoomId(u32::MAX));
        let mut gone = Vec::new();
        for ((_, room), entry) in self.members.range_mut(range) {
            entry.goodbye = entry.goodbye.max(Some(ticket));
            if entry.connections == 0 && entry.has_said_goodbye() {
                gone.push(*room);
            }
        }
        for room in gone {
            self.vanish(room, member, Cause::LeftPage, now);
        }
    }

    /// A worker has watchers of a topic from now on, or none any more.
    pub fn set_watched(&mut self, topic: &Topic, presence: Presence, worker: u8, watches: bool) {
        if watches {
            let room = self.find_or_add(topic, presence);
            let watchers = &mut self.rooms[room.index()].watchers;
            if !watchers.contains(&worker) {
                watchers.push(worker);
            }
        } else if let Some(room) = self.by_topic.get(topic.as_str()).copied() {
            self.rooms[room.index()].watchers.retain(|other| *other != worker);
            self.forget_empty(room);
        }
    }

    /// Who is there, as watchers were told last: what is told behind this is what has changed since.
    pub fn state(&mut self, topic: &Topic, presence: Presence) -> Arc<State> {
        let lists = presence == Presence::List;
        let Some(room) = self.by_topic.get(topic.as_str()).copied() else {
            return Arc::new(State { count: 0, members: lists.then(Vec::new) });
        };
        let room = &mut self.rooms[room.index()];
        let state = room.state.get_or_insert_with(|| {
            let members = room.listed.iter().map(|(member, name)| Listed::new(*member, name.as_ref()));
            Arc::new(State { count: room.told, members: lists.then(|| members.collect()) })
        });
        Arc::clone(state)
    }

    /// Ends what has lasted long enough, of so many members at most; the others come next time.
    pub fn handle_timeout(&mut self, now: Tick, members_max: usize) {
        for _ in 0..members_max {
            let Some((due, ..)) = self.graced.first().filter(|(due, ..)| *due <= now) else { return };
            debug_assert!(*due <= now);
            self.end_first_grace(now);
        }
    }

    fn end_first_grace(&mut self, now: Tick) {
        let Some((_, room, member)) = self.graced.pop_first() else { return };
        let cause = self.members.get_mut(&(member, room)).and_then(|entry| entry.grace.take()).map(|(_, cause)| cause);
        debug_assert!(cause.is_some(), "who is in grace has a cause");
        self.vanish(room, member, cause.unwrap_or(Cause::Internal), now);
    }

    /// When something is to be done next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Tick> {
        let graced = self.graced.first().map(|(due, ..)| *due);
        let due = self.due.first().map(|(due, _)| *due);
        graced.into_iter().chain(due).min()
    }

    /// The next room whose watchers are to be told. It stays the next until [`Table::tell`] or [`Table::put_off`].
    #[must_use]
    pub fn next_due(&self, now: Tick) -> Option<RoomId> {
        self.due.first().filter(|(due, _)| *due <= now).map(|(_, room)| *room)
    }

    /// The workers that have watchers of a room.
    #[must_use]
    pub fn watchers(&self, room: RoomId) -> &[u8] {
        &self.rooms[room.index()].watchers
    }

    /// The room's watchers cannot be told now.
    pub fn put_off(&mut self, room: RoomId, until: Tick) {
        let place = &mut self.rooms[room.index()].due;
        if let Some(before) = place.replace(until) {
            self.due.remove(&(before, room));
        }
        self.due.insert((until, room));
    }

    /// What the room's watchers are to be told; `None` if everything is as they know it, or nobody watches. Now they know it.
    pub fn tell(&mut self, room: RoomId, now: Tick) -> Option<Told> {
        let Self { options, rooms, members, due, counts, .. } = self;
        let place = &mut rooms[room.index()];
        if let Some(before) = place.due.take() {
            due.remove(&(before, room));
        }
        place.told_at = Some(now);
        let name_of = |member: Member| members.get(&(member, room)).and_then(|entry| entry.name.clone());
        let objects = place.update(options.listed_max, name_of, counts);
        let topic = place.topic.clone();
        let is_watched = !place.watchers.is_empty();
        self.forget_empty(room);
        (is_watched && !objects.is_empty()).then_some(Told { topic, objects })
    }

    fn find_or_add(&mut self, topic: &Topic, presence: Presence) -> RoomId {
        if let Some(room) = self.by_topic.get(topic.as_str()) {
            return *room;
        }
        let room = RoomId(self.rooms.insert(Room::new(topic.clone(), presence)) as u32);
        self.by_topic.insert(topic.clone(), room);
        room
    }

    /// A room without members and watchers whose last news nobody needs.
    fn forget_empty(&mut self, room: RoomId) {
        let place = &self.rooms[room.index()];
        if place.present > 0 || !place.watchers.is_empty() {
            return;
        }
        if let Some(due) = place.due {
            self.due.remove(&(due, room));
        }
        let gone = self.rooms.remove(room.index());
        self.by_topic.remove(gone.topic.as_str());
        self.by_topic.give_back();
        if self.rooms.is_empty() {
            self.rooms.shrink_to_fit();
        }
    }

    fn appear(&mut self, room: RoomId, member: Member, now: Tick) {
        self.rooms[room.index()].appear(member);
        self.schedule(room, now);
    }

    /// The last connection of a member was lost: it may come back.
    fn lose(&mut self, room: RoomId, member: Member, cause: Cause, now: Tick) {
        let due = now.after(self.options.grace);
        let Some(entry) = self.members.get_mut(&(member, room)) else { return };
        if let Some((before, _)) = entry.grace.replace((due, cause)) {
            self.graced.remove(&(before, room, member));
        }
        self.graced.insert((due, room, member));
        if self.graced.len() > self.options.graced_max {
            self.end_first_grace(now);
        }
    }

    fn vanish(&mut self, room: RoomId, member: Member, cause: Cause, now: Tick) {
        let Some(entry) = self.members.remove(&(member, room)) else { return };
        if let Some((due, _)) = entry.grace {
            self.graced.remove(&(due, room, member));
        }
        self.rooms[room.index()].vanish(member, cause);
        self.schedule(room, now);
    }

    /// Has the room told as soon as its interval allows.
    fn schedule(&mut self, room: RoomId, now: Tick) {
        let place = &mut self.rooms[room.index()];
        if place.due.is_some() {
            return;
        }
        let due = place.told_at.map_or(now, |told_at| told_at.after(self.options.interval).max(now));
        place.due = Some(due);
        self.due.insert((due, room));
    }
}

impl Room {
    fn new(topic: Topic, presence: Presence) -> Self {
        Self {
            topic,
            presence,
            present: 0,
            told: 0,
            listed: BTreeMap::new(),
            changed: BTreeMap::new(),
            unlisted: BTreeSet::new(),
            watchers: Vec::new(),
            state: None,
            due: None,
            told_at: None,
        }
    }

    fn lists(&self) -> bool {
        self.presence == Presence::List
    }

    fn appear(&mut self, member: Member) {
        self.present += 1;
        if self.lists() && self.listed.contains_key(&member) {
            self.changed.remove(&member);
        } else if self.lists() {
            self.changed.insert(member, None);
        }
    }

    fn vanish(&mut self, member: Member, cause: Cause) {
        self.present -= 1;
        if self.listed.contains_key(&member) {
            self.changed.insert(member, Some(cause));
        } else {
            self.changed.remove(&member);
            self.unlisted.remove(&member);
        }
    }

    /// Whether the list has all of so many members.
    fn is_whole(&self, members: u64) -> bool {
        self.lists() && members == self.listed.len() as u64
    }

    /// Makes what is told what is so; the objects that say the difference.
    fn update(
        &mut self,
        listed_max: usize,
        name_of: impl Fn(Member) -> Option<MemberName>,
        counts: &mut Counts,
    ) -> Vec<Box<[u8]>> {
        let was_whole = self.is_whole(self.told);
        let changed = std::mem::take(&mut self.changed);
        let (mut left, mut joined) = (Vec::new(), Vec::new());
        for (member, cause) in &changed {
            if let Some(cause) = cause
                && let Some(name) = self.listed.remove(member)
            {
                left.push((*member, name, *cause));
            }
        }
        self.unlisted.extend(changed.into_iter().filter(|(_, cause)| cause.is_none()).map(|(member, _)| member));
        while self.listed.len() < listed_max
            && let Some(member) = self.unlisted.pop_first()
        {
            let name = name_of(member);
            joined.push((member, name.clone()));
            self.listed.insert(member, name);
        }
        // Where all are listed, before and now, whoever reads the list can count.
        let is_counted = self.told != self.present && !(was_whole && self.is_whole(self.present));
        if self.told == self.present && left.is_empty() && joined.is_empty() {
            return Vec::new();
        }
        self.told = self.present;
        self.state = None;
        self.objects(left, joined, is_counted, counts)
    }

    fn objects(
        &self,
        left: Vec<(Member, Option<MemberName>, Cause)>,
        joined: Vec<(Member, Option<MemberName>)>,
        is_counted: bool,
        counts: &mut Counts,
    ) -> Vec<Box<[u8]>> {
        let topic = &self.topic;
        if left.len() + joined.len() > CHANGES_MAX {
            counts.lists += 1;
            let members = self.listed.iter().map(|(member, name)| Listed::new(*member, name.as_ref())).collect();
            return vec![State { count: self.told, members: Some(members) }.object(topic)];
        }
        counts.leaves += left.len() as u64;
        counts.joins += joined.len() as u64;
        counts.counts += u64::from(is_counted);
        let left = left.iter().map(|(member, name, cause)| told::left(topic, Listed::new(*member, name.as_ref()), *cause));
        let joined = joined.iter().map(|(member, name)| told::joined(topic, Listed::new(*member, name.as_ref())));
        left.chain(joined).chain(is_counted.then(|| told::counted(topic, self.told))).collect()
    }
}

#[cfg(test)]
impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.members.is_empty() && self.graced.is_empty() && self.due.is_empty()
    }

    /// Checks what must hold between two calls.
    pub(crate) fn check(&self) {
        for (id, room) in &self.rooms {
            let id = RoomId(id as u32);
            let there = self.members.keys().filter(|(_, of)| *of == id).count();
            assert_eq!(there as u64, room.present);
            assert_eq!(self.by_topic[&room.topic], id);
            assert_eq!(room.due.map(|due| self.due.contains(&(due, id))), room.due.map(|_| true));
            assert!(room.present > 0 || !room.watchers.is_empty() || room.due.is_some());
            assert!(room.listed.len() <= self.options.listed_max);
        }
        assert_eq!(self.due.len(), self.rooms.iter().filter(|(_, room)| room.due.is_some()).count());
        let graced = self.members.iter().filter_map(|((member, room), entry)| Some((entry.grace?.0, *room, *member)));
        assert_eq!(graced.collect::<BTreeSet<_>>(), self.graced);
        assert!(self.graced.len() <= self.options.graced_max);
        assert!(self.members.values().all(|entry| entry.connections > 0 || entry.grace.is_some()));
    }
}
