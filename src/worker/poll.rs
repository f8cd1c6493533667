//! Long-polls: a request that is answered as soon as there is something behind its cursor, or when its time is up.
//!
//! ```text
//!              in force      nothing is there           a publication passes by
//!   subscribed ────────> page ──────────────────> news ────────────────────────> page ───> answered
//!                         │ something is there: the other topics' pages, as far as they fit
//!                         └──────────────────────────────────────────────────────────────> answered
//! ```
//!
//! A poller is a subscriber that stays held: it never gets a publication from a fan-out, but one that passes it by has its topic read, as
//! whoever resumes reads it. So a poll needs no wire form of its own, and what it answers is exact: everything behind the cursor, of each
//! topic in order. What passes by once something was found is left to the next poll, so the answer waits for no end of news.

use std::sync::Arc;

use crate::engine::Page;
use crate::frame::{Cursor, Cursors, Gap, Position, Publication, Since, Topic, TopicHash};
use crate::http1::Response;
use crate::hub::TopicId;
use crate::io::{Driver, Store};
use crate::metrics::Recovery;
use crate::routes::{self, refusals};

use super::Core;
use super::connection::{Do, Pending};
use super::replay::{Reading, Replay, Stage};
use super::shared::Phase;

/// What a poll is to be answered with.
#[derive(Debug, Default)]
pub(super) struct Found {
    messages: Vec<Arc<Publication>>,
    gaps: Vec<(Topic, Gap)>,
    bytes: usize,
    /// No more is read: of topics whose place is not known yet, that is looked at.
    is_full: bool,
    /// Its time is up: what there is when its topics have been read is the answer.
    is_due: bool,
}

/// What a message takes in the answer beside its payload, in bytes; about as much as the engine counts for it.
const ENVELOPE_BYTES: usize = 128;

impl Found {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.gaps.is_empty()
    }

    /// What the next page may have of `bytes_max` bytes for the whole answer; 0 for a look, which says whether there is more.
    pub(super) fn bytes_left(&self, bytes_max: usize) -> usize {
        if self.is_full { 0 } else { bytes_max.saturating_sub(self.bytes) }
    }

    fn add(&mut self, topic: &Topic, page: Page) {
        self.is_full |= !page.is_last;
        self.gaps.extend(page.gap.map(|gap| (topic.clone(), gap)));
        self.bytes += page.publications.iter().map(|message| message.payload().as_bytes().len() + ENVELOPE_BYTES).sum::<usize>();
        self.messages.extend(page.publications);
    }
}

impl<D: Driver> Core<D> {
    /// The subscription is in force: from now on nothing is missed, and the first pages may be all there is to say.
    pub(super) fn begin_poll(&mut self, slot: u32, mut pending: Pending, wait: u32) {
        let due = self.tick.after(wait);
        pending.action = Do::Poll;
        let flags = &mut self.connections[slot as usize].flags;
        flags.set_corked(false);
        flags.set_polling(true);
        self.wait_for_answer(slot, pending, due);
        self.begin_polling(slot);
    }

    /// A page for a poll: the answer, if no other topic is to be read, and there is something to say. What is full leaves topics to the next
    /// poll whose place its cursor can say.
    pub(super) fn poll_read(&mut self, store: &mut Store, slot: u32, page: Page) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let reading = &mut replay.topics[replay.at];
        reading.stage = Stage::News;
        replay.found.add(&reading.topic, page);
        if replay.found.is_full {
            replay.topics.iter_mut().filter(|reading| place(reading).is_some()).for_each(|reading| reading.stage = Stage::News);
        }
        if replay.next().is_some() {
            return self.wait_for_page(slot);
        }
        if !replay.found.is_empty() || replay.found.is_due {
            self.answer_poll(store, slot);
        }
    }

    /// A publication of a topic passes a held subscriber by.
    #[cold]
    pub(super) fn wake_poller(&mut self, slot: u32, topic: TopicId) {
        if !self.connections[slot as usize].flags.polling() {
            return;
        }
        let Some(replay) = self.replays.get_mut(&slot).filter(|replay| replay.found.is_empty()) else { return };
        let waits = |reading: &&mut Reading| reading.id == topic && reading.stage == Stage::News;
        if let Some(reading) = replay.topics.iter_mut().find(waits) {
            reading.stage = Stage::Page;
            self.wait_for_page(slot);
        }
    }

    /// Its time is up, or the server's: the poll is answered with what there is. A page that is on its way to it is waited for.
    pub(super) fn end_poll(&mut self, store: &mut Store, slot: u32) {
        let is_stopping = self.shared.phase() >= Phase::Draining;
        let waits = |replay: &&mut Replay| !is_stopping && !replay.found.is_due && replay.next().is_some();
        let Some(replay) = self.replays.get_mut(&slot).filter(waits) else { return self.answer_poll(store, slot) };
        replay.found.is_due = true;
        let due = self.tick.after(self.options.publish_timeout);
        if let Some(http) = self.connections[slot as usize].http() {
            http.due = due;
        }
        self.arm(slot);
    }

    fn answer_poll(&mut self, store: &mut Store, slot: u32) {
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let places: Option<Vec<_>> = replay.topics.iter().map(place).collect();
        let Found { messages, gaps, .. } = std::mem::take(&mut replay.found);
        let cursor = match places.as_deref() {
            Some([(_, position)]) => Cursor(*position).to_string(),
            Some(places) => Cursors::text(places.iter().copied()),
            // Not even the first page of each has come.
            None => return self.finish_poll(store, slot, refusals::busy()),
        };
        if self.recovered(slot).is_some() {
            self.metrics().recoveries.of(if gaps.is_empty() { Recovery::Whole } else { Recovery::Gap }).add(1);
        }
        self.finish_poll(store, slot, routes::polled(&messages, &gaps, &cursor));
    }

    fn finish_poll(&mut self, store: &mut Store, slot: u32, response: Response) {
        self.unsubscribe_all(slot);
        let connection = &mut self.connections[slot as usize];
        connection.flags.set_polling(false);
        let token = connection.token;
        let Some(pending) = connection.http().and_then(|http| http.take_pending()) else { return };
        self.answer(store, slot, response, &pending);
        self.resume_later(token);
    }
}

/// Where a topic of a poll stands, once that is known.
fn place(reading: &Reading) -> Option<(TopicHash, Position)> {
    match reading.since {
        Since::After(position) => Some((TopicHash::of(reading.topic.as_str()), position)),
        Since::Latest | Since::Earliest | Since::Within(_) | Since::From(_) => None,
    }
}
