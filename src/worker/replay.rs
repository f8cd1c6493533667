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
//! slow, and costs a page of memory at a time. All readers of a worker stand in one row for pages: few are under way at a time, and
//! none while what waits in all outboxes is near its limit, so a crowd that comes back takes its turns.

use std::sync::Arc;

use crate::engine::{AppendError, Page};
use crate::frame::{Form, Gap, Position, Publication, Since, Topic};
use crate::hub::{Hold, TopicId};
use crate::io::{Driver, Store, Token};
use crate::limits::GiveBack;
use crate::metrics::{Cause, Recovery, Source};
use crate::routes::{Attach, OnGap, Subscribe, refusals};

use super::Core;
use super::letters::{Asker, Request};
use super::outbox::Frames;
use super::shared::Phase;

/// Bytes of payloads in a page: enough that asking costs little beside sending, small beside any outbox.
/// Tests have small ones, so that there are many.
const PAGE_BYTES_MAX: usize = if cfg!(test) { 512 } else { 32 * 1024 };

/// Places in the row of readers who have gone, beyond as many as there are readers.
const STALE_READERS_MAX: usize = 64;

/// Pages of one worker under way: to make and to copy them takes a few milliseconds at most.
const PAGES_ASKED_MAX: usize = 16;

/// Who reads: a connection, and which of its readings it is. A poll's row and pages must not reach the next poll of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    token: Token,
    number: u16,
}

/// What one connection is reading.
#[derive(Debug)]
pub(super) struct Replay {
    reader: Reader,
    form: Form,
    on_gap: OnGap,
    topics: Vec<Reading>,
    /// Which of them is looked at or read.
    at: usize,
    /// The head of the answer is out, or there is none before the end: pages are sent on.
    has_begun: bool,
    /// The reader is a long-poll, which is answered by a page.
    pub(super) is_poll: bool,
    /// It stands in the row for a page, or one was asked for and has not come.
    is_waiting: bool,
    /// Whether everything behind the cursors that were given can be recovered, as far as is known; `None` if none was given.
    recovered: Option<bool>,
    /// Where the reader stands before the first page of the first topic.
    start: Option<Position>,
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
    /// The newest offset when the head of the answer was made, until the first page has come: what came behind it must be in a page.
    promised: Option<u64>,
    /// It is read to its end, and gets what is published.
    is_read: bool,
}

impl Replay {
    /// From where on the topic is read next that is being read.
    pub(super) fn since(&self) -> Since {
        self.topics[self.at].since
    }
}

impl<D: Driver> Core<D> {
    /// Subscribes a connection to the topics of its request: held, if it wants to read what was published before.
    pub(super) fn begin_subscriptions(&mut self, slot: u32, subscribe: &Subscribe) {
        let Subscribe { topics, form, since, on_gap, attach } = subscribe;
        let is_poll = matches!(attach, Attach::Poll { .. });
        let Some(since) = since else {
            for topic in topics {
                self.hub.subscribe(slot, topic, *form);
            }
            return;
        };
        let mut readings = Vec::with_capacity(topics.len());
        for (topic, since) in topics.iter().zip(since) {
            if let Some((id, hold)) = self.hub.subscribe_held(slot, topic, *form) {
                let since = since.fixed(self.now);
                let (has_gap, promised, is_read) = (false, None, false);
                readings.push(Reading { topic: topic.clone(), id, hold, since, has_gap, promised, is_read });
            }
        }
        let connection = &mut self.connections[slot as usize];
        connection.flags.set_reading(true);
        self.last_reader = self.last_reader.wrapping_add(1);
        let replay = Replay {
            reader: Reader { token: connection.token, number: self.last_reader },
            form: *form,
            on_gap: *on_gap,
            topics: readings,
            at: 0,
            has_begun: false,
            is_poll,
            is_waiting: false,
            recovered: since.iter().any(|since| matches!(since, Since::After(_))).then_some(true),
            start: None,
        };
        self.replays.insert(slot, replay);
    }

    /// Whether something stands between this connection's subscriptions being in force and its 101. Then a look at what can be
    /// recovered is under way.
    pub(super) fn looks_first(&mut self, slot: u32) -> bool {
        let looks = self.replays.get(&slot).is_some_and(|replay| !replay.is_poll && replay.at < replay.topics.len());
        if looks {
            self.wait_for_page(slot);
        }
        looks
    }

    /// What the head of the answer says of the recovery: `None` if no cursor was given.
    pub(super) fn recovered(&self, slot: u32) -> Option<bool> {
        self.replays.get(&slot)?.recovered
    }

    /// Where a reader of one topic stands before the first page.
    pub(super) fn start_of_replay(&self, slot: u32) -> Option<Position> {
        self.replays.get(&slot)?.start
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
        self.read_next(slot);
    }

    /// Goes on with the next topic that is not read to its end.
    fn read_next(&mut self, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        while replay.topics.get(replay.at).is_some_and(|reading| reading.is_read) {
            replay.at += 1;
        }
        if replay.at == replay.topics.len() {
            self.stop_reading(slot);
        } else if self.has_room_to_read(slot) {
            self.wait_for_page(slot);
        }
    }

    /// Goes on with a reader that has room again, if its subscription is in force.
    pub(super) fn read_on(&mut self, slot: u32) {
        if self.replays.get(&slot).is_some_and(|replay| replay.has_begun) {
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

    /// Puts a reader into the row for pages, unless it stands there or has asked for one.
    pub(super) fn wait_for_page(&mut self, slot: u32) {
        if let Some(replay) = self.replays.get_mut(&slot)
            && !std::mem::replace(&mut replay.is_waiting, true)
        {
            self.readers.push_back(replay.reader);
        }
    }

    /// Whether the first reader in the row could be served now.
    pub(super) fn may_ask_page(&mut self) -> bool {
        let Some(reader) = self.readers.front() else { return false };
        let Some(replay) = self.replays.get(&reader.token.slot).filter(|replay| replay.reader == *reader) else { return true };
        let home = self.shared.home_of(replay.topics[replay.at].topic.as_str());
        self.has_room_for_page() && self.has_credit(home)
    }

    /// Whether one more page may be under way. Where much waits for others, readers wait until those have taken it, or are cut.
    fn has_room_for_page(&self) -> bool {
        let waiting = self.entries.queued_bytes() + (self.pages_asked * PAGE_BYTES_MAX) as u64;
        self.pages_asked < PAGES_ASKED_MAX && waiting < self.options.worker_outbox_bytes_max / 2
    }

    /// Asks for the pages that may be asked for. A stopping server asks for none: what is not replayed by its end is replayed by the
    /// next one, or told as gone.
    pub(super) fn ask_pages(&mut self) {
        if self.shared.phase() >= Phase::Draining {
            return self.readers.clear();
        }
        let Self { readers, replays, .. } = self;
        let is_stale = |reader: &Reader| replays.get(&reader.token.slot).is_none_or(|replay| replay.reader != *reader);
        while readers.front().is_some_and(is_stale) {
            readers.pop_front();
        }
        // Those who have gone may stand in the row, but not fill it.
        if readers.len() > 2 * replays.len() + STALE_READERS_MAX {
            readers.retain(|reader| !is_stale(reader));
        }
        for _ in 0..self.readers.len() {
            if !self.has_room_for_page() {
                break;
            }
            let Some(reader) = self.readers.pop_front() else { break };
            self.ask_page(reader);
        }
        self.readers.give_back();
    }

    fn ask_page(&mut self, reader: Reader) {
        let Reader { token, number } = reader;
        let Some(replay) = self.replays.get(&token.slot).filter(|replay| replay.reader == reader) else { return };
        let reading = &replay.topics[replay.at];
        let (topic, since) = (reading.topic.clone(), reading.since);
        let page_bytes_max = PAGE_BYTES_MAX.min(self.options.outbox_bytes_max / 2);
        let bytes_max = if replay.has_begun { page_bytes_max } else { 0 };
        let asker = Asker { worker: self.index, token, number, source: Source::WebSocket };
        let home = self.home_of(topic.as_str());
        if self.has_credit(home) && self.request(home, Request::Read { asker, topic, since, bytes_max }).is_ok() {
            self.pages_asked += 1;
        } else {
            self.readers.push_back(reader);
        }
    }

    /// A page has come.
    pub(super) fn paged(&mut self, store: &mut Store, asker: Asker, result: Result<Box<Page>, AppendError>) {
        let reader = Reader { token: asker.token, number: asker.number };
        let slot = reader.token.slot;
        self.pages_asked -= 1;
        let Some(replay) = self.replays.get_mut(&slot).filter(|replay| replay.reader == reader) else { return };
        replay.is_waiting = false;
        match (result, replay.has_begun) {
            (Ok(page), false) => self.looked(store, slot, &page),
            (Ok(page), true) => self.read(store, slot, *page),
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
        let reading = &mut replay.topics[replay.at];
        reading.has_gap = page.gap.is_some();
        reading.promised = Some(page.newest);
        reading.is_read = page.is_last && !reading.has_gap;
        let (id, hold, is_read) = (reading.id, reading.hold, reading.is_read);
        // A gap is told behind the start, so the start is before it.
        replay.start.get_or_insert(page.gap.map_or(page.position, |gap| gap.from));
        if reading.has_gap {
            replay.recovered = Some(false);
        }
        replay.at += 1;
        let is_done = replay.at == replay.topics.len();
        if is_read {
            self.hub.release(slot, id, hold);
        }
        if is_done { self.confirmed(store, slot) } else { self.wait_for_page(slot) }
    }

    /// Sends a page on.
    fn read(&mut self, store: &mut Store, slot: u32, mut page: Page) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let (form, on_gap, reading) = (replay.form, replay.on_gap, &mut replay.topics[replay.at]);
        let (id, hold) = (reading.id, reading.hold);
        // Who asked for all that is kept, or kept since a moment, was promised what came behind the head of the answer.
        if let Some(newest) = reading.promised.take() {
            page.gap = page.gap.or_else(|| page.gap_behind(newest));
        }
        reading.since = Since::After(page.position);
        if replay.is_poll {
            return self.poll_read(store, slot, &page);
        }
        let Page { publications, is_last, gap, .. } = page;
        let is_told = std::mem::take(&mut reading.has_gap);
        reading.is_read = is_last;
        if let Some(gap) = gap {
            match (on_gap, form) {
                (OnGap::Continue, Form::WsRaw) if is_told => {}
                // It opened while pages were read, and payloads alone cannot tell of it.
                (OnGap::Continue, Form::WsRaw) | (OnGap::Close, _) => return self.fail(store, slot, Cause::Gap, None),
                (OnGap::Continue, _) => self.queue_gap(store, slot, id, form, &gap),
            }
        }
        self.queue_page(store, slot, form, &publications);
        if is_last {
            self.hub.release(slot, id, hold);
        }
        self.read_next(slot);
    }

    /// Whether so little waits that another page may.
    fn has_room_to_read(&self, slot: u32) -> bool {
        self.connections[slot as usize].outbox.bytes() <= self.options.outbox_bytes_max / 2
    }

    /// Queues what tells of a gap.
    fn queue_gap(&mut self, store: &mut Store, slot: u32, topic: TopicId, form: Form, gap: &Gap) {
        let Self { connections, entries, pool, hub, .. } = self;
        connections[slot as usize].outbox.append_owned(entries, store, pool, |out| gap.write(hub.topic(topic), form, out));
        self.mark_dirty(slot);
    }

    /// Queues a page as one block: it is for this connection alone, and copied as fast as its frames could be queued. No policy drops it:
    /// little of it waits, and it was promised.
    fn queue_page(&mut self, store: &mut Store, slot: u32, form: Form, publications: &[Arc<Publication>]) {
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
