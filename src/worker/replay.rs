//! Subscribers that read what they missed before they get what is published.
//!
//! ```text
//! subscribed, held ─> in force ─> look: what can't be recovered? ─> 101 ─> page, page, ... the last page ─> released
//! ```
//!
//! The subscription is in force before the first page is asked for, so the home worker hands everything published since to this
//! worker; the hub lets it pass by. A page comes through the same ring as publications: those it holds came before it, those behind
//! its last one come after it. So whoever is released with the last page ([`crate::hub::Hub::release`]) goes on without gap and without
//! duplicate, and nothing has to be kept back for him meanwhile.
//!
//! A `fantail.v1` socket asks for topics one by one, also while others are read: each is looked at as soon as it is in force, before any
//! page, and its `ok` stands where the 101 stands above ([`super::joining`]).
//!
//! What is behind a pattern is read by the same rules, topic by topic ([`super::scanning`]).
//!
//! Pages are pulled: the next one is asked for when the socket has taken half of what may wait for it, so reading back never counts as
//! slow, and costs a page of memory at a time. Readers take turns ([`super::readers`]).

use std::sync::Arc;

use crate::engine::{AppendError, Page};
use crate::frame::{Cursor, Cursors, Form, Gap, Position, Publication, Since, Topic, TopicHash};
use crate::http1::Response;
use crate::hub::{Hold, TopicId};
use crate::io::{Driver, Store};
use crate::limits::GiveBack;
use crate::metrics::{Cause, Recovery};
use crate::routes::{Attach, OnGap, Subscribe, refusals};
use crate::v1::Id;

use super::Core;
use super::outbox::Frames;
use super::pattern::patterns_in_order;
use super::poll::Found;
use super::positions::Positions;
use super::readers::Reader;
use super::scanning::Scanning;
use super::stream::Start;

/// What one connection is reading.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) reader: Reader,
    pub(super) form: Form,
    pub(super) on_gap: OnGap,
    /// What is not read to its end, in the order in which it was asked for.
    pub(super) topics: Vec<Reading>,
    /// The same of patterns.
    pub(super) patterns: Vec<Scanning>,
    /// Which of either the page is of that was asked for.
    pub(super) at: usize,
    /// The head of the answer is out, or there is none before the end: pages are sent on.
    pub(super) has_begun: bool,
    /// Who reads.
    pub(super) purpose: Purpose,
    /// It stands in the row for a page, or one was asked for and has not come.
    pub(super) is_waiting: bool,
    /// Whether everything behind the cursors that were given can be recovered, as far as is known; `None` if none was given.
    recovered: Option<bool>,
    /// Where each topic stands before its first page, in the order in which that is known.
    starts: Vec<(TopicHash, Position)>,
    /// Where a stream of several topics stands, until its head is made.
    pub(super) positions: Option<Box<Positions>>,
    /// What a poll has found so far.
    pub(super) found: Found,
}

/// What is served next, by its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Topic(usize),
    Pattern(usize),
}

/// What the pages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be replayed behind the head of an answer, when all topics have been looked at.
    Head,
    /// To be the answer to a long-poll.
    Poll,
    /// To be replayed on a `fantail.v1` socket, each topic behind its own `ok`.
    Session,
}

/// One topic, and how far it has been read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) topic: Topic,
    pub(super) id: TopicId,
    /// None for who gets what is published anyway, by a pattern, and asks only where the topic stands.
    pub(super) hold: Option<Hold>,
    pub(super) since: Since,
    pub(super) stage: Stage,
    /// The look has found a gap, of which the head of the answer tells.
    has_gap: bool,
    /// The newest position when the head of the answer was made, until the first page has come: what came behind it must be in a page.
    promised: Option<Position>,
    /// How it was asked for.
    pub(super) asked: Asked,
}

/// How a topic was asked for.
#[derive(Debug)]
pub(super) enum Asked {
    /// By the URL, or answered already.
    ByUrl,
    /// By a message, with an id or without.
    ByMessage(Option<Id>),
}

impl Asked {
    /// The id of the answer.
    pub(super) fn id(&self) -> Option<&Id> {
        match self {
            Self::ByUrl => None,
            Self::ByMessage(id) => id.as_ref(),
        }
    }
}

/// What a topic waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// That its home worker knows of the interest.
    Force,
    /// A look at what can be recovered.
    Look,
    /// A page.
    Page,
    /// That a publication passes its poll by.
    News,
}

impl Reading {
    pub(super) fn new(topic: Topic, (id, hold): (TopicId, Option<Hold>), since: Since, stage: Stage, asked: Asked) -> Self {
        Self { topic, id, hold, since, stage, has_gap: false, promised: None, asked }
    }
}

impl Replay {
    pub(super) fn new(reader: Reader, form: Form, on_gap: OnGap, purpose: Purpose) -> Self {
        let (topics, patterns, at, is_waiting) = (Vec::new(), Vec::new(), 0, false);
        let has_begun = purpose == Purpose::Session;
        let (recovered, starts, positions, found) = (None, Vec::new(), None, Found::default());
        Self { reader, form, on_gap, topics, patterns, at, has_begun, purpose, is_waiting, recovered, starts, positions, found }
    }

    /// What is served next: looks go before pages, so that a long replay keeps no answer back, and topics before patterns.
    pub(super) fn next(&self) -> Option<Next> {
        self.first(Stage::Look).or_else(|| self.first(Stage::Page).filter(|_| self.has_begun))
    }

    fn first(&self, stage: Stage) -> Option<Next> {
        let topic = self.topics.iter().position(|reading| reading.stage == stage).map(Next::Topic);
        topic.or_else(|| self.patterns.iter().position(|scanning| scanning.stage == stage).map(Next::Pattern))
    }

    /// A pattern that is in force, of which nothing old was asked for, and of whose topics none is to be looked at that is read by name.
    pub(super) fn pattern_of_now(&self) -> Option<usize> {
        let is_of_now = |scanning: &Scanning| scanning.stage == Stage::Page && scanning.since == Since::Latest;
        let waits = |scanning: &Scanning| {
            let mut looks = self.topics.iter().filter(|reading| reading.stage == Stage::Look && reading.hold.is_some());
            looks.any(|reading| scanning.pattern.matches(reading.topic.as_str()))
        };
        self.patterns.iter().position(|scanning| is_of_now(scanning) && !waits(scanning))
    }

    pub(super) fn stage(&self, next: Next) -> Stage {
        match next {
            Next::Topic(at) => self.topics[at].stage,
            Next::Pattern(at) => self.patterns[at].stage,
        }
    }

    fn has_to_look(&self) -> bool {
        self.first(Stage::Look).is_some()
    }
}

impl<D: Driver> Core<D> {
    /// Subscribes a connection to the topics and patterns of its request: to topics held, and to patterns from a reader's place on, of which it
    /// wants to read what was published before.
    ///
    /// # Errors
    /// The refusal, if there is no room for a pattern; then some subscriptions may have begun.
    pub(super) fn begin_subscriptions(&mut self, slot: u32, subscribe: &Subscribe) -> Result<(), Response> {
        let Subscribe { topics, patterns, form, since, on_gap, attach, .. } = subscribe;
        let Some(since) = since else {
            for pattern in patterns {
                self.subscribe_pattern(slot, pattern, *form)?;
            }
            for topic in topics {
                self.hub.subscribe(slot, topic, *form);
            }
            return Ok(());
        };
        let (purpose, stage) = match attach {
            Attach::Poll { .. } => (Purpose::Poll, Stage::Page),
            _ => (Purpose::Head, Stage::Look),
        };
        let mut replay = Replay::new(self.new_reader(slot), *form, *on_gap, purpose);
        let has_cursor = since.iter().any(|since| matches!(since, Since::After(_)));
        replay.recovered = (has_cursor || subscribe.has_missed).then_some(!subscribe.has_missed);
        if subscribe.keeps_positions() {
            replay.positions = Some(Box::new(Positions::with_capacity(topics.len())));
            self.connections[slot as usize].flags.set_keeps_positions(true);
        }
        for (topic, since) in topics.iter().zip(since) {
            if let Some((id, hold)) = self.hub.subscribe_held(slot, topic, *form) {
                replay.topics.push(Reading::new(topic.clone(), (id, Some(hold)), since.fixed(self.now), stage, Asked::ByUrl));
            }
        }
        for (pattern, since) in patterns_in_order(patterns, since.get(topics.len()..).unwrap_or_default()) {
            // Behind it there is nothing to read, however long the others are read.
            if since == Since::Latest {
                self.subscribe_pattern(slot, pattern, *form)?;
                continue;
            }
            let except = self.names_that_meet(slot, pattern);
            if let Some(id) = self.subscribe_reading(slot, pattern, *form, &except)? {
                let since = since.fixed(self.now);
                replay.patterns.push(Scanning::new(pattern.clone(), id, since, except, stage, Asked::ByUrl));
            }
        }
        self.connections[slot as usize].flags.set_reading(true);
        self.replays.insert(slot, replay);
        Ok(())
    }

    /// Whether something stands between this connection's subscriptions being in force and its 101. Then a look at what can be
    /// recovered is under way.
    pub(super) fn looks_first(&mut self, slot: u32) -> bool {
        let looks = self.replays.get(&slot).is_some_and(|replay| replay.purpose == Purpose::Head && replay.has_to_look());
        if looks {
            self.wait_for_page(slot);
        }
        looks
    }

    /// What the head of the answer says of the recovery: `None` if no cursor was given.
    pub(super) fn recovered(&self, slot: u32) -> Option<bool> {
        self.replays.get(&slot)?.recovered
    }

    /// Where a stream begins, and what it keeps from now on.
    pub(super) fn start_of_replay(&mut self, slot: u32) -> Start {
        let Some(replay) = self.replays.get_mut(&slot) else { return Start { cursor: None, positions: None } };
        let (starts, positions) = (std::mem::take(&mut replay.starts), replay.positions.take());
        let cursor = match positions {
            Some(_) => Some(Cursors::text(starts.into_iter())),
            None => starts.first().map(|(_, start)| Cursor(*start).to_string()),
        };
        Start { cursor, positions }
    }

    /// The answer is on its way: pages follow it.
    pub(super) fn begin_reading(&mut self, store: &mut Store, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        replay.has_begun = true;
        let (recovered, on_gap) = (replay.recovered, replay.on_gap);
        self.count_recovery(recovered);
        if recovered == Some(false) && on_gap == OnGap::Close {
            return self.fail(store, slot, Cause::Gap, None);
        }
        self.read_next(slot);
    }

    /// Counts a resume with a cursor; one without is none.
    pub(super) fn count_recovery(&self, recovered: Option<bool>) {
        if let Some(recovered) = recovered {
            self.metrics().recoveries.of(if recovered { Recovery::Whole } else { Recovery::Gap }).add(1);
        }
    }

    /// Goes on with what is to be looked at or read next, or ends the reading.
    pub(super) fn read_next(&mut self, slot: u32) {
        let Some(replay) = self.replays.get(&slot) else { return };
        if replay.topics.is_empty() && replay.patterns.is_empty() {
            self.stop_reading(slot);
        } else if replay.next().is_some() {
            self.wait_for_page(slot);
        }
    }

    /// Goes on with a reader that has room again, if its subscription is in force.
    pub(super) fn read_on(&mut self, slot: u32) {
        if self.replays.get(&slot).is_some_and(|replay| replay.has_begun && replay.next().is_some()) {
            self.wait_for_page(slot);
        }
    }

    /// A poll reads from now on.
    pub(super) fn begin_polling(&mut self, slot: u32) {
        if let Some(replay) = self.replays.get_mut(&slot) {
            replay.has_begun = true;
        }
        self.wait_for_page(slot);
    }

    /// A page has come, of the topic that was asked for.
    pub(super) fn take_page(&mut self, store: &mut Store, slot: u32, result: Result<Box<Page>, AppendError>) {
        let Some(replay) = self.replays.get(&slot) else { return };
        match (result, replay.topics[replay.at].stage) {
            (Ok(page), Stage::Look) => self.looked(store, slot, &page),
            (Ok(page), Stage::Force | Stage::Page | Stage::News) => self.read(store, slot, *page),
            // Its own interest keeps the topic alive, so this is the end of a topic that never had room.
            (Err(_), _) => match self.connections[slot as usize].flags.corked() {
                true => self.refuse_upgrade(store, slot, refusals::busy(), Cause::Overloaded),
                false => self.fail(store, slot, Cause::Overloaded, None),
            },
        }
    }

    /// It is known whether a topic can be recovered. Who has missed nothing gets what is published from here on.
    fn looked(&mut self, store: &mut Store, slot: u32, page: &Page) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let (at, purpose) = (replay.at, replay.purpose);
        let reading = &mut replay.topics[at];
        reading.has_gap = page.gap.is_some();
        reading.promised = Some(Position { offset: page.newest, ..page.position });
        reading.stage = Stage::Page;
        // A gap is told behind the start, so the start is before it.
        let start = page.gap.map_or(page.position, |gap| gap.from);
        if purpose == Purpose::Head {
            let (id, topic) = (reading.id, &reading.topic);
            replay.starts.push((TopicHash::of(topic.as_str()), start));
            if let Some(positions) = &mut replay.positions {
                positions.begin(id, topic, start);
            }
        }
        if page.gap.is_some() {
            replay.recovered = Some(false);
        }
        if purpose == Purpose::Session {
            self.confirm_joining(store, slot, at, start, page.gap.is_none());
        }
        if page.is_last && page.gap.is_none() {
            self.release(slot, at);
        }
        self.go_on_from_look(store, slot);
    }

    /// Goes on with the next look, or with what waits for the looks.
    pub(super) fn go_on_from_look(&mut self, store: &mut Store, slot: u32) {
        let Some(replay) = self.replays.get(&slot) else { return };
        match replay.purpose {
            Purpose::Head if replay.has_to_look() => self.wait_for_page(slot),
            Purpose::Head => self.confirmed(store, slot),
            Purpose::Session => {
                self.confirm_patterns_of_now(store, slot);
                self.read_next(slot);
            }
            Purpose::Poll => self.read_next(slot),
        }
    }

    /// A topic is read to its end: what is published comes by itself from here on.
    fn release(&mut self, slot: u32, at: usize) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let Reading { id, hold, .. } = replay.topics.remove(at);
        if let Some(hold) = hold {
            self.hub.release(slot, id, hold);
        }
    }

    /// Sends a page on.
    fn read(&mut self, store: &mut Store, slot: u32, mut page: Page) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let (form, on_gap, at) = (replay.form, replay.on_gap, replay.at);
        let reading = &mut replay.topics[at];
        // Who asked for all that is kept, or kept since a moment, was promised what came behind the head of the answer.
        if let Some(newest) = reading.promised.take() {
            page.gap = page.gap.or_else(|| page.gap_behind(newest));
        }
        reading.since = Since::After(page.position);
        if replay.purpose == Purpose::Poll {
            return self.poll_read(store, slot, page);
        }
        let Page { publications, is_last, gap, position, .. } = page;
        let is_told = std::mem::take(&mut reading.has_gap);
        let (topic, id) = (reading.topic.clone(), reading.id);
        if let Some(gap) = gap {
            match (on_gap, form) {
                (OnGap::Continue, Form::WsRaw) if is_told => {}
                // It opened while pages were read, and payloads alone cannot tell of it.
                (OnGap::Continue, Form::WsRaw) | (OnGap::Close, _) => return self.fail(store, slot, Cause::Gap, None),
                (OnGap::Continue, _) => self.queue_gap(store, slot, &topic, form, &gap),
            }
        }
        self.queue_page(store, slot, form, &publications);
        if self.connections[slot as usize].flags.keeps_positions() {
            self.reach(slot, id, position);
        }
        if is_last {
            self.release(slot, at);
        }
        self.read_next(slot);
    }

    /// Queues what tells of a gap.
    pub(super) fn queue_gap(&mut self, store: &mut Store, slot: u32, topic: &Topic, form: Form, gap: &Gap) {
        self.queue_among_kept(store, slot, |out| gap.write(topic, form, out));
    }

    /// Queues what tells of a gap among what is replayed: no policy drops it, and it goes with what goes with its connection.
    pub(super) fn queue_among_kept(&mut self, store: &mut Store, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.pool.take();
        write(&mut bytes);
        let length = bytes.len() as u32;
        let frames = Frames { block: store.own(bytes), length, publications: 0 };
        self.connections[slot as usize].outbox.push_kept(&mut self.entries, frames);
        self.mark_dirty(slot);
    }

    /// Queues a page as one block: it is for this connection alone, and copied as fast as its frames could be queued. No policy drops it:
    /// little of it waits, and it was promised.
    pub(super) fn queue_page(&mut self, store: &mut Store, slot: u32, form: Form, publications: &[Arc<Publication>]) {
        if publications.is_empty() {
            return;
        }
        let mut bytes = self.pool.take();
        // What is not made yet is about as long as its payload in base64, and its envelope.
        let length = |publication: &Arc<Publication>| match publication.form(form) {
            Some(frame) => frame.len(),
            None => publication.payload().as_bytes().len() * 4 / 3 + 128,
        };
        bytes.reserve_exact(publications.iter().map(length).sum());
        for publication in publications {
            match publication.form(form) {
                Some(frame) => bytes.extend_from_slice(frame),
                None => bytes.extend_from_slice(&publication.encode(form)),
            }
        }
        let (length, count) = (bytes.len() as u32, publications.len() as u16);
        let frames = Frames { block: store.own(bytes), length, publications: count };
        self.connections[slot as usize].outbox.push_kept(&mut self.entries, frames);
        self.mark_dirty(slot);
    }

    /// Forgets what a connection reads.
    pub(super) fn stop_reading(&mut self, slot: u32) {
        let flags = &mut self.connections[slot as usize].flags;
        if flags.reading() {
            flags.set_reading(false);
            self.replays.remove(&slot);
            self.replays.give_back();
        }
    }
}
