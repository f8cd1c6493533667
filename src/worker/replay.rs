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
//! Pages are pulled: the next one is asked for when the socket has taken half of what may wait for it, so reading back never counts as
//! slow, and costs a page of memory at a time.

use std::sync::Arc;

use crate::engine::{AppendError, Gap, Page};
use crate::frame::{Form, Publication, Since, Topic};
use crate::hub::{Hold, TopicId};
use crate::io::{Driver, Store, Token};
use crate::metrics::{Cause, Recovery, Source};
use crate::routes::{OnGap, Subscribe, refusals};
use crate::ws::{self, MessageKind};

use super::Core;
use super::asking::Waiter;
use super::letters::{Asker, Request};
use super::outbox::Frames;

/// Bytes of payloads in a page: enough that asking costs little beside sending, small beside any outbox.
/// Tests have small ones, so that there are many.
const PAGE_BYTES_MAX: usize = if cfg!(test) { 512 } else { 32 * 1024 };

/// What one connection is reading.
#[derive(Debug)]
pub(super) struct Replay {
    token: Token,
    form: Form,
    on_gap: OnGap,
    topics: Vec<Reading>,
    /// Which of them is looked at or read.
    at: usize,
    /// The 101 is out: pages are sent on.
    has_begun: bool,
    /// A page was asked for and has not come.
    is_asked: bool,
    /// Whether everything behind the cursors that were given can be recovered, as far as is known; `None` if none was given.
    recovered: Option<bool>,
}

/// One topic, and how far it has been read.
#[derive(Debug)]
struct Reading {
    topic: Topic,
    id: TopicId,
    hold: Hold,
    since: Since,
    /// The look has found a gap, of which the head of the answer tells.
    has_gap: bool,
}

impl<D: Driver> Core<D> {
    /// Subscribes a connection to the topics of its request: held, if it wants to read what was published before.
    pub(super) fn begin_subscriptions(&mut self, slot: u32, subscribe: &Subscribe) {
        let Subscribe { topics, form, since, on_gap, .. } = subscribe;
        let Some(since) = since else {
            for topic in topics {
                self.hub.subscribe(slot, topic, *form);
            }
            return;
        };
        let mut readings = Vec::with_capacity(topics.len());
        for (topic, since) in topics.iter().zip(since) {
            if let Some((id, hold)) = self.hub.subscribe_held(slot, topic, *form) {
                readings.push(Reading { topic: topic.clone(), id, hold, since: *since, has_gap: false });
            }
        }
        let connection = &mut self.connections[slot as usize];
        connection.flags.reading = true;
        let token = connection.token;
        let replay = Replay {
            token,
            form: *form,
            on_gap: *on_gap,
            topics: readings,
            at: 0,
            has_begun: false,
            is_asked: false,
            recovered: since.iter().any(|since| matches!(since, Since::After(_))).then_some(true),
        };
        self.replays.insert(slot, replay);
    }

    /// Whether something stands between this connection's subscriptions being in force and its 101. Then a look at what can be
    /// recovered is under way.
    pub(super) fn looks_first(&mut self, store: &mut Store, slot: u32) -> bool {
        let looks = self.replays.get(&slot).is_some_and(|replay| replay.at < replay.topics.len());
        if looks {
            self.ask_page(store, slot);
        }
        looks
    }

    /// What the head of the answer says of the recovery: `None` if no cursor was given.
    pub(super) fn recovered(&self, slot: u32) -> Option<bool> {
        self.replays.get(&slot)?.recovered
    }

    /// The answer is on its way: pages follow it.
    pub(super) fn begin_reading(&mut self, store: &mut Store, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        (replay.at, replay.has_begun) = (0, true);
        let (recovered, on_gap) = (replay.recovered, replay.on_gap);
        if let Some(recovered) = recovered {
            self.metrics().recoveries.of(if recovered { Recovery::Whole } else { Recovery::Gap }).add(1);
        }
        if recovered == Some(false) && on_gap == OnGap::Close {
            return self.fail(store, slot, Cause::Gap, None);
        }
        self.ask_page(store, slot);
    }

    /// Goes on with a connection that has room again.
    pub(super) fn read_on(&mut self, store: &mut Store) {
        let mut slots = std::mem::take(&mut self.reading_on);
        for slot in slots.drain(..) {
            self.ask_page(store, slot);
        }
        slots.append(&mut self.reading_on);
        self.reading_on = slots;
    }

    /// Asks for the next page if none is under way.
    pub(super) fn ask_page(&mut self, store: &mut Store, slot: u32) {
        let index = self.index;
        let Some(replay) = self.replays.get_mut(&slot).filter(|replay| !replay.is_asked) else { return };
        let reading = &replay.topics[replay.at];
        let (topic, since) = (reading.topic.clone(), reading.since);
        let asker = Asker { worker: index, token: replay.token, number: 0, source: Source::WebSocket };
        let bytes_max = if replay.has_begun { PAGE_BYTES_MAX } else { 0 };
        replay.is_asked = true;
        let home = self.home_of(topic.as_str());
        if self.has_credit(home) && self.request(home, Request::Read { asker, topic, since, bytes_max }).is_ok() {
            return;
        }
        if self.is_line_full(home) {
            return self.stop_overloaded(store, slot);
        }
        self.wait_for_credit(Waiter::Page(asker, home));
    }

    fn stop_overloaded(&mut self, store: &mut Store, slot: u32) {
        match self.connections[slot as usize].flags.corked {
            true => self.refuse_upgrade(store, slot, refusals::busy(), Cause::Overloaded),
            false => self.fail(store, slot, Cause::Overloaded, None),
        }
    }

    /// There is a credit for a page that waited for it.
    pub(super) fn ask_page_again(&mut self, store: &mut Store, asker: Asker) {
        let slot = asker.token.slot;
        if let Some(replay) = self.replays.get_mut(&slot).filter(|replay| replay.token == asker.token) {
            replay.is_asked = false;
            self.ask_page(store, slot);
        }
    }

    /// A page has come.
    pub(super) fn paged(&mut self, store: &mut Store, token: Token, result: Result<Box<Page>, AppendError>) {
        let slot = token.slot;
        let Some(replay) = self.replays.get_mut(&slot).filter(|replay| replay.token == token) else { return };
        replay.is_asked = false;
        match (result, replay.has_begun) {
            (Ok(page), false) => self.looked(store, slot, &page),
            (Ok(page), true) => self.read(store, slot, *page),
            // Its own interest keeps the topic alive, so this is the end of a topic that never had room.
            (Err(_), _) => self.stop_overloaded(store, slot),
        }
    }

    /// It is known whether a topic can be recovered.
    fn looked(&mut self, store: &mut Store, slot: u32, page: &Page) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let reading = &mut replay.topics[replay.at];
        reading.has_gap = page.gap.is_some();
        // What is published from now on belongs to it.
        if reading.since == Since::Latest {
            reading.since = Since::After(page.position);
        }
        if reading.has_gap {
            replay.recovered = Some(false);
        }
        replay.at += 1;
        if replay.at < replay.topics.len() { self.ask_page(store, slot) } else { self.confirmed(store, slot) }
    }

    /// Sends a page on.
    fn read(&mut self, store: &mut Store, slot: u32, page: Page) {
        let Page { publications, position, is_last, gap } = page;
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let (form, on_gap, reading) = (replay.form, replay.on_gap, &mut replay.topics[replay.at]);
        let (id, hold) = (reading.id, reading.hold);
        reading.since = Since::After(position);
        let is_told = std::mem::take(&mut reading.has_gap);
        if let Some(gap) = gap {
            match (on_gap, form) {
                (OnGap::Continue, Form::WsEnvelope) => self.queue_gap(store, slot, id, &gap),
                (OnGap::Continue, Form::WsRaw) if is_told => {}
                // It opened while pages were read, and payloads alone cannot tell of it.
                (OnGap::Continue, Form::WsRaw) | (OnGap::Close, _) => return self.fail(store, slot, Cause::Gap, None),
            }
        }
        self.queue_page(store, slot, id, form, &publications);
        if is_last {
            self.hub.release(slot, id, hold);
            let Some(replay) = self.replays.get_mut(&slot) else { return };
            replay.at += 1;
            if replay.at == replay.topics.len() {
                return self.stop_reading(slot);
            }
        }
        if self.has_room_to_read(slot) {
            self.ask_page(store, slot);
        }
    }

    /// Whether so little waits that another page may.
    pub(super) fn has_room_to_read(&self, slot: u32) -> bool {
        self.connections[slot as usize].outbox.bytes() <= self.options.outbox_bytes_max / 2
    }

    /// Queues the `gap` object.
    fn queue_gap(&mut self, store: &mut Store, slot: u32, topic: TopicId, gap: &Gap) {
        let object = gap.object(self.hub.topic(topic));
        let Self { connections, entries, pool, .. } = self;
        connections[slot as usize].outbox.append_owned(entries, store, pool, |out| {
            let written = ws::write_message(MessageKind::Text, &object, out);
            debug_assert!(written.is_ok(), "a gap fits any frame");
        });
    }

    /// Queues a page as one block: it is for this connection alone, and copied as fast as its frames could be queued.
    fn queue_page(&mut self, store: &mut Store, slot: u32, topic: TopicId, form: Form, publications: &[Arc<Publication>]) {
        if publications.is_empty() {
            return;
        }
        let mut bytes = self.pool.take();
        for publication in publications {
            match publication.form(form) {
                Some(frame) => bytes.extend_from_slice(frame),
                None => bytes.extend_from_slice(&publication.encode(form)),
            }
        }
        let (length, count) = (bytes.len() as u32, publications.len() as u16);
        let frames = Frames { block: store.own(bytes), length, publications: count };
        let outbox = &mut self.connections[slot as usize].outbox;
        let queued = outbox.push_publications(&mut self.entries, frames, topic, usize::MAX);
        debug_assert!(queued.is_ok(), "there is no bound");
        self.mark_dirty(slot);
    }

    /// Forgets what a connection reads.
    pub(super) fn stop_reading(&mut self, slot: u32) {
        if std::mem::take(&mut self.connections[slot as usize].flags.reading) {
            self.replays.remove(&slot);
        }
    }
}
