//! The load of a verification: publishes, cuts subscribers, brings them back, and hands the account what came.

use fantail::frame::OpCode;

use crate::client::Purpose;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Next};
use crate::failure::Failure;
use crate::net::{Net, Times};
use crate::payload::{Payload, Stamp};
use crate::progress::{self, Progress};
use crate::schedule::Schedule;
use crate::target::Topics;

use super::super::common::GAP_CODE;
use super::super::crowd::LINGER;
use super::Pace;
use super::account::Account;
use super::events::Events;
use super::objects::{self, Polled, Told};
use super::posters::Posters;
use super::server::Server;
use super::subscriber::{self, Cut, EARLIEST, Kind, State, Subscriber};
use super::tally::Tally;

/// The targets: as they were added to the loop.
const WEBSOCKET: usize = 0;
const EVENT_STREAM: usize = 1;
const HTTP: usize = 2;

/// A topic's two publishers, as the account knows them.
const BY_POST: usize = 0;
const BY_WEBSOCKET: usize = 1;

/// One in so many of those who come back comes anew, and asks for all there is.
const ANEW_ONE_IN: u32 = 8;

/// How long a poll waits, in seconds: so long a server may take to notice that a poll's client has shut its side.
const POLL_WAIT_S: u32 = 1;

/// How long one waits whose connection failed or was ended.
pub const RETRY: Nanos = 100 * MILLISECOND;

/// How often to look at what is due.
const STEP: Nanos = 5 * MILLISECOND;

/// How often to look at the end whether all has come.
const LOOK: Nanos = 100 * MILLISECOND;

/// The drill.
#[derive(Debug)]
pub struct Drill {
    pace: Pace,
    from: Nanos,
    until: Nanos,
    account: Account,
    payload: Payload,
    random: fastrand::Rng,
    schedule: Schedule,
    subscribers: Vec<Subscriber>,
    /// One for each topic.
    posters: Posters,
    /// Whose each connection is, by its number.
    owners: Vec<Owner>,
    server: Option<Server>,
    is_ending: bool,
    moved_at: Nanos,
    looked_at: Nanos,
    /// Since when nothing is owed any more, at the end.
    settled_at: Option<Nanos>,
    events: Events,
    failure: Option<Failure>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    Poster(usize),
    Subscriber(usize),
}

impl Drill {
    /// With a poster's open connection for each topic, so many subscribers on each, and messages of so many bytes.
    pub fn new(
        pace: Pace,
        until: Nanos,
        size: usize,
        seed: u64,
        posters: &[usize],
        subscribers: usize,
        server: Option<Server>,
    ) -> Self {
        let now = clock::now();
        let mut account = Account::new(posters.len());
        let all = subscriber::all(&mut account, posters.len(), subscribers, now);
        let mut drill = Self {
            pace,
            from: now,
            until,
            account,
            payload: Payload::new(size, fastrand::u64(..)),
            random: fastrand::Rng::with_seed(seed),
            schedule: Schedule::new(now, pace.rate),
            subscribers: all,
            posters: Posters::new(posters),
            owners: Vec::new(),
            server,
            is_ending: false,
            moved_at: now,
            looked_at: now,
            settled_at: None,
            events: Events::default(),
            failure: None,
            progress: Progress::new("verify", until.saturating_sub(now)),
        };
        posters.iter().enumerate().for_each(|(topic, &id)| drill.own(id, Owner::Poster(topic)));
        drill
    }

    /// What it comes to.
    pub fn tally(&self) -> Tally {
        self.account.tally()
    }

    /// Why it proves nothing; empty if it does.
    pub fn doubts(&self, tally: &Tally) -> Vec<String> {
        let mut doubts = Vec::new();
        if tally.accepted == 0 {
            let why = self.events.first_refusal.as_deref().unwrap_or("no publication was answered");
            doubts.push(format!("nothing was accepted: {why}"));
        }
        if self.events.resumed == 0 {
            doubts.push("nobody was cut and came back: raise --duration, or lower --cut-every".to_owned());
        }
        let away = self.subscribers.iter().filter(|one| !matches!(one.state, State::Reading(_))).count();
        if away > 0 {
            doubts.push(format!("{away} subscribers were not back at the end"));
        }
        doubts
    }

    /// What was done and what happened, on lines.
    pub fn events(&self) -> String {
        self.events.lines(self.server.as_ref().map(Server::kills))
    }

    fn own(&mut self, id: usize, owner: Owner) {
        if self.owners.len() <= id {
            self.owners.resize(id + 1, Owner::Nobody);
        }
        self.owners[id] = owner;
    }

    fn owner(&self, id: usize) -> Owner {
        self.owners.get(id).copied().unwrap_or_default()
    }

    /// Publishes what is due, on the topics in turn, of each topic's publications every other one by POST.
    fn publish_due(&mut self, net: &mut Net, now: Nanos) {
        while let Some(due) = self.schedule.take(now, self.until) {
            let taken = self.schedule.taken() as usize - 1;
            let topic = taken % self.posters.topics();
            let is_posted = taken / self.posters.topics() % 2 == BY_POST;
            let connection = if is_posted { self.posters.connection(topic) } else { self.websocket_of(topic) };
            let Some(id) = connection.filter(|_| !net.is_overrun(now, self.until)) else {
                self.events.not_sent += 1;
                continue;
            };
            let number = self.account.publish(topic, if is_posted { BY_POST } else { BY_WEBSOCKET }, is_posted);
            if is_posted {
                self.posters.ask(topic, number);
            }
            net.publish(id, topic as u32, self.payload.stamped(Stamp { topic: topic as u32, number, due }), true);
        }
    }

    /// The open WebSocket that publishes on a topic.
    fn websocket_of(&self, topic: usize) -> Option<usize> {
        let one = &self.subscribers[topic * (self.subscribers.len() / self.posters.topics())];
        one.connection.filter(|_| matches!(one.state, State::Reading(_)))
    }

    /// Does what is due to one subscriber.
    fn step(&mut self, net: &mut Net, at: usize, now: Nanos) {
        match (self.subscribers[at].state, self.subscribers[at].connection) {
            (State::Away(until), _) if now >= until => self.open(net, at, now),
            (State::Reading(cut_at), Some(id)) if now >= cut_at && !self.is_ending => self.cut(net, at, id, now),
            (State::Stalled(until), Some(id)) if now >= until => {
                net.resume(id);
                self.subscribers[at].state = State::Reading(self.next_cut(at, now));
            }
            _ => {}
        }
    }

    fn open(&mut self, net: &mut Net, at: usize, now: Nanos) {
        let Subscriber { kind, topic, cursor, .. } = &self.subscribers[at];
        let target = match kind {
            Kind::WebSocket => WEBSOCKET,
            Kind::EventStream => EVENT_STREAM,
            Kind::LongPoll => HTTP,
        };
        let topics = Topics { first: *topic as u32, count: 1 };
        match net.open_behind(now, target, Purpose::Subscribe(topics), cursor) {
            Ok(id) => {
                self.own(id, Owner::Subscriber(at));
                self.subscribers[at].connection = Some(id);
                self.subscribers[at].state = State::Opening;
            }
            Err(ending) => self.end(at, &ending, now),
        }
    }

    fn next_cut(&mut self, at: usize, now: Nanos) -> Nanos {
        if self.subscribers[at].publishes {
            return Nanos::MAX;
        }
        let share = 0.5 + self.random.f64();
        now.saturating_add((self.pace.cut_every as f64 * share) as Nanos)
    }

    fn some_time(&mut self, now: Nanos) -> Nanos {
        now.saturating_add(self.random.u64(..=self.pace.away))
    }

    fn cut(&mut self, net: &mut Net, at: usize, id: usize, now: Nanos) {
        let place = self.random.usize(..Cut::ALL.len());
        self.events.cuts[place] += 1;
        let until = self.some_time(now);
        match (Cut::ALL[place], self.subscribers[at].kind) {
            (Cut::Reset, _) => {
                net.reset(id);
                self.depart(at, until);
            }
            (Cut::HalfClose, _) => {
                net.half_close(id, now);
                self.subscribers[at].state = State::Ending;
            }
            (Cut::Stall, _) => {
                net.pause(id);
                self.subscribers[at].state = State::Stalled(until);
            }
            (Cut::Close, Kind::WebSocket) => {
                net.send(id, OpCode::Close, &1000_u16.to_be_bytes());
                net.await_end(id, now);
                self.subscribers[at].state = State::Ending;
            }
            (Cut::Close, Kind::EventStream | Kind::LongPoll) => {
                net.drop_connection(id);
                self.depart(at, until);
            }
        }
    }

    /// A subscriber is gone until that time. One without a cursor, and some of the others, come anew then.
    fn depart(&mut self, at: usize, until: Nanos) {
        let comes_anew = !self.subscribers[at].publishes && self.random.u32(..ANEW_ONE_IN) == 0;
        let one = &mut self.subscribers[at];
        if let Some(id) = one.connection.take() {
            self.owners[id] = Owner::Nobody;
        }
        one.state = State::Away(until);
        if comes_anew {
            one.stand(EARLIEST);
        }
        if !one.is_placed() {
            self.account.leave(one.reader);
            one.reader = self.account.join(one.topic, subscriber::name(one.kind, one.topic, at));
        }
    }

    /// A connection ended, or could not be opened.
    fn end(&mut self, at: usize, ending: &Ending, now: Nanos) {
        let one = &mut self.subscribers[at];
        let is_expected = one.state == State::Ending;
        if one.publishes {
            self.account.abandon(one.topic, BY_WEBSOCKET);
        }
        match ending {
            Ending::Rejected { status: 400..500, .. } => {
                let what = format!("a subscriber by {}: {ending}", one.kind.name());
                self.failure.get_or_insert(Failure::Usage(what));
            }
            Ending::Closed { code: GAP_CODE, .. } => {
                self.account.gap_without_end(one.reader);
                one.stand(EARLIEST);
            }
            _ => {}
        }
        if is_expected {
            self.events.left_open += u64::from(matches!(ending, Ending::TimedOut));
        } else {
            self.events.ended += 1;
            self.events.first_ending.get_or_insert_with(|| ending.to_string());
        }
        let until = if is_expected && !self.is_ending { self.some_time(now) } else { now + RETRY };
        self.depart(at, until);
    }

    /// Posters whose connection ended come back.
    fn reopen_posters(&mut self, net: &mut Net, now: Nanos) {
        while let Some(topic) = self.posters.take_due(now) {
            if let Ok(id) = net.open(now, HTTP, Purpose::Publish) {
                self.posters.open(topic, id);
                self.own(id, Owner::Poster(topic));
            }
        }
    }

    /// Nothing more is published or cut: all come back now, and read.
    fn begin_end(&mut self, now: Nanos) {
        self.is_ending = true;
        self.moved_at = now;
        for one in &mut self.subscribers {
            if let State::Away(until) | State::Stalled(until) = &mut one.state {
                *until = now.min(*until);
            }
        }
    }

    /// Whether nothing more is to be expected: all has come and it is quiet, or nothing has for `--timeout`.
    fn is_over(&mut self, now: Nanos) -> bool {
        if now >= self.looked_at + LOOK {
            self.looked_at = now;
            let is_back = |one: &Subscriber| matches!(one.state, State::Reading(_));
            let is_settled = self.posters.are_answered() && self.subscribers.iter().all(is_back) && !self.account.is_owing();
            self.settled_at = if is_settled { self.settled_at.or(Some(now)) } else { None };
        }
        self.settled_at.is_some_and(|at| now >= at + LINGER) || now >= self.moved_at + self.pace.timeout
    }

    /// The number of a message of this run; None of anything else.
    fn number_of(&self, topic: usize, message: &[u8], at: Nanos) -> Option<u64> {
        let next = self.account.next_of(topic);
        let stamp = self.payload.stamp_of(message, at).filter(|stamp| stamp.topic as usize == topic)?;
        Some(stamp.near(next).number).filter(|&number| number < next)
    }

    fn deliver(&mut self, at: usize, cursor: &str, message: &[u8], now: Nanos) {
        let (topic, reader) = (self.subscribers[at].topic, self.subscribers[at].reader);
        match self.number_of(topic, message, now) {
            Some(number) => self.account.deliver(reader, number, cursor),
            None => self.account.pass(reader, cursor),
        }
        self.subscribers[at].stand(cursor);
        self.moved_at = now;
    }

    fn miss(&mut self, at: usize, from: &str, to: &str) {
        self.account.gap(self.subscribers[at].reader, from, to);
        self.subscribers[at].stand(to);
    }

    fn poll(&self, net: &mut Net, at: usize) {
        let Subscriber { topic, cursor, connection, .. } = &self.subscribers[at];
        connection.iter().for_each(|&id| net.poll(id, *topic as u32, cursor, POLL_WAIT_S));
    }

    fn take_polled(&mut self, at: usize, body: &[u8], now: Nanos) {
        let Some(polled) = Polled::read(body) else {
            return self.account.pass(self.subscribers[at].reader, "");
        };
        let first = polled.messages().next().map(|(cursor, _)| cursor.to_owned());
        if !polled.recovered && self.subscribers[at].is_placed() {
            let from = self.subscribers[at].cursor.clone();
            let to = first.as_deref().and_then(super::position::before).unwrap_or_else(|| polled.cursor.clone());
            self.miss(at, &from, &to);
        }
        let reader = self.subscribers[at].reader;
        match &first {
            Some(first) => self.account.stand_before(reader, first),
            None => self.account.stand(reader, &polled.cursor),
        }
        polled.messages().for_each(|(cursor, text)| self.deliver(at, cursor, text.as_bytes(), now));
        self.subscribers[at].stand(&polled.cursor);
    }
}

impl Load for Drill {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.progress.show(now, now.saturating_sub(self.from), || progress::left(self.until.saturating_sub(now)));
        if now < self.until {
            self.server.as_mut().map_or(Ok(()), |server| server.turn(now))?;
        } else if !self.is_ending {
            self.begin_end(now);
        }
        self.publish_due(net, now);
        self.reopen_posters(net, now);
        (0..self.subscribers.len()).for_each(|at| self.step(net, at, now));
        Ok(if self.is_ending && self.is_over(now) { Next::Done } else { Next::At(now + STEP) })
    }

    fn opened(&mut self, net: &mut Net, id: usize, times: Times) {
        let Owner::Subscriber(at) = self.owner(id) else { return };
        self.moved_at = times.opened;
        self.subscribers[at].state = State::Reading(self.next_cut(at, times.opened));
        let one = &self.subscribers[at];
        self.events.resumed += u64::from(one.is_placed());
        self.events.anew += u64::from(one.cursor == EARLIEST);
        if !one.cursor.is_empty() {
            self.account.return_to(one.reader);
        }
        match one.kind {
            // A poll's first answer says where it began.
            Kind::LongPoll => self.poll(net, at),
            Kind::WebSocket | Kind::EventStream if one.is_placed() => {}
            Kind::WebSocket | Kind::EventStream => self.account.confirm(one.reader),
        }
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        let Owner::Subscriber(place) = self.owner(id) else { return };
        if self.subscribers[place].kind == Kind::EventStream {
            // Its position came before it.
            let cursor = self.subscribers[place].cursor.clone();
            return self.deliver(place, &cursor, payload, at);
        }
        match objects::read(payload) {
            Some(Told::Message { cursor, text }) => self.deliver(place, &cursor, text.as_bytes(), at),
            Some(Told::Gap { from, to }) => self.miss(place, &from, &to),
            None => self.account.pass(self.subscribers[place].reader, ""),
        }
    }

    fn position(&mut self, _net: &mut Net, id: usize, cursor: &str) {
        let Owner::Subscriber(at) = self.owner(id) else { return };
        // Who asked for all that is kept is owed what is still kept when it is read: from the first message that comes.
        if self.subscribers[at].cursor != EARLIEST {
            self.account.stand(self.subscribers[at].reader, cursor);
        }
        self.subscribers[at].stand(cursor);
    }

    fn gap(&mut self, _net: &mut Net, id: usize, words: &[u8]) {
        let Owner::Subscriber(at) = self.owner(id) else { return };
        match objects::read(words) {
            Some(Told::Gap { from, to }) => self.miss(at, &from, &to),
            _ => self.account.gap(self.subscribers[at].reader, "", ""),
        }
    }

    fn body(&mut self, _net: &mut Net, id: usize, body: &[u8], at: Nanos) {
        match self.owner(id) {
            Owner::Poster(topic) => {
                if let Some(number) = self.posters.first_asked(topic) {
                    self.account.accept(topic, number, &objects::cursor_of_answer(body).unwrap_or_default());
                }
            }
            Owner::Subscriber(place) => self.take_polled(place, body, at),
            Owner::Nobody => {}
        }
    }

    fn answered(&mut self, net: &mut Net, id: usize, result: Result<(), String>, at: Nanos) {
        match (self.owner(id), result) {
            (Owner::Poster(topic), result) => {
                let number = self.posters.answer(topic);
                if let (Some(number), Err(words)) = (number, result) {
                    self.account.refuse(topic, number);
                    self.events.first_refusal.get_or_insert(words);
                }
            }
            (Owner::Subscriber(place), Ok(())) if self.subscribers[place].state != State::Ending => self.poll(net, place),
            (Owner::Subscriber(place), Err(words)) => {
                net.drop_connection(id);
                self.events.first_refusal.get_or_insert(words);
                self.depart(place, at + RETRY);
            }
            (Owner::Subscriber(_) | Owner::Nobody, _) => {}
        }
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, at: Nanos) {
        match self.owner(id) {
            Owner::Poster(topic) => {
                self.owners[id] = Owner::Nobody;
                self.posters.close(topic, at);
                self.account.abandon(topic, BY_POST);
            }
            Owner::Subscriber(place) => self.end(place, &ending, at),
            Owner::Nobody => {}
        }
    }
}
