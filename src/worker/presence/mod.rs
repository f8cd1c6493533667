//! Presence in the shell: which connection is whose, who is told, and the letters between workers ([`crate::hub::presence`] has the idea).
//!
//! ```text
//! in force ─> arrive, enter ─> seats ─┐                                     ┌─> tellings ─> watchers, a slice each turn
//! ended ────> depart ───────> seats ──┼─ a letter to each home worker ─> table
//! POST /bye ─────────────> goodbyes ──┤    (one under way at most)          └─> told once in --presence-interval
//! watch, ask ───────────> questions ──┘
//! ```
//!
//! Presence gives way to everything else. A letter takes a credit only where publications have some left, and one to each home worker is
//! under way at a time: what happens meanwhile is joined in the next. What is told takes room in a ring only above what is left to
//! publications, else it is told later, and then as what is so by then. A watcher whose outbox is more than half full is told nothing, and
//! gets the whole state once there is room. A stopping server tells nothing: everybody is about to leave it.

mod letters;
mod telling;

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::class::{Class, Presence as Kind};
use crate::frame::{Form, Topic};
use crate::http1::Response;
use crate::hub::presence::{ClientKey, Member, MemberName, Options, Seat, Seats, Table, Watching};
use crate::io::{Driver, Store, Token};
use crate::limits::GiveBack;
use crate::metrics::{Cause, Label, PresenceEvent, Source};
use crate::routes::{self, refusals};
use crate::v1::{Id, Okay};

use super::Core;
use super::connection::{Do, Pending, Protocol};
use super::letters::Asker;
use super::shared::Phase;

pub use letters::{Goodbye, Letter};
use telling::Telling;

/// The header that tells a client its key.
pub(super) const CLIENT_KEY: &str = "Fantail-Client-Key";
/// The header that tells it by what id others know it.
pub(super) const MEMBER: &str = "Fantail-Member";

/// Goodbyes that wait for a letter to one home worker.
const GOODBYES_MAX: usize = 1024;

/// What a worker has of presence.
#[derive(Debug)]
pub(super) struct Presence {
    /// Some class has it.
    is_on: bool,
    /// Connections that are members or watchers, by slot.
    clients: HashMap<u32, Client, RandomState>,
    seats: Seats,
    watching: Watching<Asking>,
    /// Of the topics that this worker is the home of.
    table: Table,
    /// For each home worker, who has said goodbye.
    goodbyes: Vec<Vec<Goodbye>>,
    /// For each home worker, whether a letter is under way.
    is_under_way: Vec<bool>,
    tellings: VecDeque<Telling>,
}

/// A connection whose client is known.
#[derive(Debug)]
struct Client {
    member: Member,
    name: Option<MemberName>,
    /// The key, until the client has been told.
    key: Option<ClientKey>,
    /// How it wants to be told of others.
    form: Form,
    /// It watches the topics of its URL.
    watches: bool,
    seats: Vec<Seat>,
    /// The topics that it watches.
    watched: Vec<Topic>,
    /// Those among them of which it could not be told something.
    behind: Vec<Topic>,
}

/// Who wants to know the state of a topic, once.
#[derive(Debug)]
pub(super) enum Asking {
    /// A GET.
    Request(Asker),
    /// A `presence` request.
    Session(Token, Option<Id>),
}

impl Presence {
    pub(super) fn new(workers: usize, is_on: bool, options: Options) -> Self {
        Self {
            is_on,
            clients: HashMap::default(),
            seats: Seats::new(workers),
            watching: Watching::new(workers),
            table: Table::new(options),
            goodbyes: vec![Vec::new(); workers],
            is_under_way: vec![false; workers],
            tellings: VecDeque::new(),
        }
    }

    /// What it takes, in bytes, without names.
    pub(super) fn bytes(&self) -> usize {
        self.clients.capacity() * size_of::<(u32, Client)>() + self.seats.bytes() + self.table.bytes()
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.table.check();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.seats.is_empty() && self.watching.is_empty() && self.table.is_empty()
    }
}

/// Whether topics of a class have members.
pub(super) fn has_presence(class: &Class) -> bool {
    class.presence != Kind::Off
}

/// A key that nobody can guess. The worker's own random numbers would not do: who sees some of them can tell the next.
fn draw_key() -> ClientKey {
    let mut bits = [0; 16];
    let drawn = getrandom(&mut bits, GetRandomFlags::empty());
    assert_eq!(drawn, Ok(bits.len()), "Linux has random numbers for whoever asks");
    ClientKey::from_random(bits)
}

impl<D: Driver> Core<D> {
    /// The client of a connection is known from now on.
    pub(super) fn arrive(&mut self, slot: u32, client: Option<&routes::Client>, form: Form) {
        let Some(routes::Client { key, name, watches }) = client else { return };
        let key = key.clone().unwrap_or_else(draw_key);
        let (seats, watched, behind) = (Vec::new(), Vec::new(), Vec::new());
        let (member, name) = (key.member(), name.clone());
        let client = Client { member, name, key: Some(key), form, watches: *watches, seats, watched, behind };
        self.presence.clients.insert(slot, client);
        self.connections[slot as usize].flags.set_present(true);
    }

    /// What the client has to know to come back as the same member; once.
    pub(super) fn take_identity(&mut self, slot: u32) -> Option<(ClientKey, Member)> {
        let client = self.presence.clients.get_mut(&slot)?;
        Some((client.key.take()?, client.member))
    }

    /// A subscription of a connection is in force: its client is there. `by_url` says whether the URL has asked for it.
    pub(super) fn enter(&mut self, slot: u32, topic: &Topic, by_url: bool) {
        if !self.connections[slot as usize].flags.present() {
            return;
        }
        let class = self.options.classes.of(topic.as_str());
        let home = self.home_of(topic.as_str());
        let Presence { clients, seats, watching, .. } = &mut self.presence;
        let Some(client) = clients.get_mut(&slot).filter(|_| has_presence(class)) else { return };
        let name = client.name.as_ref().filter(|_| class.presence_names);
        client.seats.push(seats.join(home, topic, client.member, name, self.shared.draw_ticket()));
        if client.watches && by_url {
            client.watched.push(topic.clone());
            watching.watch(home, topic, slot, client.form);
        }
    }

    /// A connection has unsubscribed from a topic.
    pub(super) fn depart_from(&mut self, slot: u32, topic: &Topic) {
        if !self.connections[slot as usize].flags.present() {
            return;
        }
        let Presence { clients, seats, .. } = &mut self.presence;
        let Some(client) = clients.get_mut(&slot) else { return };
        if let Some(at) = client.seats.iter().position(|seat| seat.topic == *topic) {
            seats.leave(client.member, &client.seats.swap_remove(at), Cause::Unsubscribed);
        }
        self.unwatch(slot, topic);
    }

    fn unwatch(&mut self, slot: u32, topic: &Topic) {
        let Presence { clients, watching, .. } = &mut self.presence;
        let Some(client) = clients.get_mut(&slot) else { return };
        client.watched.retain(|other| other != topic);
        client.behind.retain(|other| other != topic);
        watching.unwatch(topic, slot);
    }

    /// A connection has no subscription any more. Why it ends is known by now, unless it is a long-poll's, which goes on.
    pub(super) fn depart(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        let Presence { clients, seats, watching, .. } = &mut self.presence;
        let Some(client) = clients.remove(&slot) else { return };
        let otherwise = if matches!(connection.protocol, Protocol::Http(_)) { Cause::NotRenewed } else { Cause::ClientClose };
        let cause = connection.cause.unwrap_or(otherwise);
        connection.flags.set_present(false);
        connection.flags.set_behind(false);
        for seat in &client.seats {
            seats.leave(client.member, seat, cause);
        }
        for topic in &client.watched {
            watching.unwatch(topic, slot);
        }
        clients.give_back();
    }

    /// Answers a GET that asks who is there, once the home worker has said so.
    pub(super) fn ask_presence(&mut self, store: &mut Store, slot: u32, mut pending: Pending, topic: &Topic) {
        if self.shared.phase() >= Phase::Draining {
            return self.answer(store, slot, refusals::draining(), &pending);
        }
        let asker = self.asker(slot, pending.number, Source::Post);
        self.presence.watching.ask(self.shared.home_of(topic.as_str()), topic, Asking::Request(asker));
        pending.action = Do::Presence;
        let due = self.tick.after(self.options.publish_timeout);
        self.wait_for_answer(slot, pending, due);
    }

    /// A `presence` request: tells who is there, or begins or ends to tell what changes.
    pub(super) fn request_presence(&mut self, store: &mut Store, slot: u32, topic: &Topic, watch: Option<bool>, id: Option<Id>) {
        if !has_presence(self.options.classes.of(topic.as_str())) {
            return self.say_error(store, slot, id.as_ref(), Some(topic), &refusals::presence_off(topic.as_str()));
        }
        let home = self.home_of(topic.as_str());
        let token = self.connections[slot as usize].token;
        let subscriptions_max = self.options.routes.subscriptions_max;
        let Presence { clients, watching, .. } = &mut self.presence;
        let Some(client) = clients.get_mut(&slot) else { return };
        let is_watched = client.watched.contains(topic);
        match watch {
            None => {
                watching.ask(home, topic, Asking::Session(token, id));
                return self.count_unconfirmed(slot);
            }
            Some(true) if is_watched => {}
            Some(true) if client.watched.len() >= subscriptions_max => {
                let refusal = refusals::too_many_subscriptions(subscriptions_max);
                return self.say_error(store, slot, id.as_ref(), Some(topic), &refusal);
            }
            Some(true) => {
                client.watched.push(topic.clone());
                watching.watch(home, topic, slot, client.form);
            }
            Some(false) => self.unwatch(slot, topic),
        }
        let okay = Okay::new(id.as_ref()).topic(topic.as_str());
        self.say(store, slot, &if watch == Some(is_watched) { okay.already() } else { okay });
    }

    /// The client of a key leaves all its topics; the answer.
    pub(super) fn say_goodbye(&mut self, key: &ClientKey) -> Response {
        if self.presence.is_on {
            if self.presence.goodbyes.iter().any(|waiting| waiting.len() >= GOODBYES_MAX) {
                return refusals::busy();
            }
            let goodbye = Goodbye { member: key.member(), ticket: self.shared.draw_ticket() };
            self.presence.goodbyes.iter_mut().for_each(|waiting| waiting.push(goodbye));
        }
        routes::heard()
    }

    /// Whether presence needs another turn at once.
    pub(super) fn presence_is_busy(&mut self) -> bool {
        if !self.presence.is_on {
            return false;
        }
        !self.presence.tellings.is_empty() || (0..self.shared.workers()).any(|home| self.may_write_letter(home))
    }

    /// Tells how many there are.
    pub(super) fn count_presence(&self) {
        let Presence { is_on, table, watching, .. } = &self.presence;
        if !is_on {
            return;
        }
        let (metrics, counts) = (self.metrics(), table.counts());
        metrics.presence_members.set(table.members() as u64);
        metrics.presence_watchers.set(watching.watchers() as u64);
        for event in PresenceEvent::ALL {
            metrics.presence_events.of(*event).set(match event {
                PresenceEvent::Join => counts.joins,
                PresenceEvent::Leave => counts.leaves,
                PresenceEvent::Count => counts.counts,
                PresenceEvent::List => counts.lists,
            });
        }
    }
}
