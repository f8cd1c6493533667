//! The row in which all readers of a worker wait for pages of history.
//!
//! Few pages are under way at a time, so a crowd that comes back takes its turns, and what it reads back is neither made nor copied before
//! there is room for it. While what waits in all outboxes is near its limit, who has taken all that he was given gets one publication at
//! a time: those who take nothing keep nobody waiting.

use crate::engine::{AppendError, Page};
use crate::io::{Driver, Store, Token};
use crate::limits::GiveBack;
use crate::metrics::Source;

use super::Core;
use super::letters::{Asker, Request};
use super::replay::{Next, Reading, Replay, Stage};
use super::shared::Phase;

/// Bytes of payloads in a page: enough that asking costs little beside sending, small beside any outbox.
/// Tests have small ones, so that there are many.
const PAGE_BYTES_MAX: usize = if cfg!(test) { 512 } else { 32 * 1024 };

/// Places in the row of readers who have gone, beyond as many as there are readers.
const STALE_READERS_MAX: usize = 64;

/// Readers in the row that are looked at in a turn: those who can't be served yet go to its end.
const READERS_LOOKED_AT_MAX: usize = 256;

/// Pages of one worker under way: to make and to copy them takes a few milliseconds at most.
const PAGES_ASKED_MAX: usize = 16;

/// Who reads: a connection, and which of its readings it is. A poll's row and pages must not reach the next poll of its connection, nor
/// those of a topic that was left another topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    token: Token,
    number: u16,
}

impl Reader {
    /// Who asked for a page.
    pub(super) fn of(asker: Asker) -> Self {
        Self { token: asker.token, number: asker.number }
    }
}

impl<D: Driver> Core<D> {
    /// A name for what the connection reads from now on: what was asked for under the name before reaches nobody.
    pub(super) fn new_reader(&mut self, slot: u32) -> Reader {
        self.last_reader = self.last_reader.wrapping_add(1);
        Reader { token: self.connections[slot as usize].token, number: self.last_reader }
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
        let Some(replay) = self.reading(*reader) else { return true };
        let home = match replay.next() {
            None => return true,
            Some(Next::Topic(at)) => self.home_of(replay.topics[at].topic.as_str()),
            Some(Next::Pattern(at)) => replay.patterns[at].home,
        };
        self.is_ready(*reader) && self.has_room_for_page() && self.has_credit(home)
    }

    /// Whether what a reader reads next may come: one of a pattern waits until what arrived before its last move has been handed out, which
    /// goes on by itself.
    fn is_ready(&self, reader: Reader) -> bool {
        let slot = reader.token.slot;
        let Some(Next::Pattern(at)) = self.reading(reader).and_then(Replay::next) else { return true };
        self.hub.may_advance_reading(slot, self.replays[&slot].patterns[at].id)
    }

    /// What a reader reads, if it is there.
    fn reading(&self, reader: Reader) -> Option<&Replay> {
        self.replays.get(&reader.token.slot).filter(|replay| replay.reader == reader)
    }

    /// Whether one more page may be under way.
    fn has_room_for_page(&self) -> bool {
        self.pages_asked < PAGES_ASKED_MAX
    }

    /// Whether half of what may wait on this worker does. Then an empty outbox takes one frame, as of what is published.
    fn is_crowded(&self) -> bool {
        let waiting = self.entries.queued_bytes() + (self.pages_asked * PAGE_BYTES_MAX) as u64;
        waiting >= self.options.worker_outbox_bytes_max / 2
    }

    /// Asks for the pages that may be asked for. A stopping server asks for none: what is not replayed by its end is replayed by the
    /// next one, or told as gone.
    pub(super) fn ask_pages(&mut self) {
        if self.shared.phase() >= Phase::Draining {
            return self.readers.clear();
        }
        while self.readers.front().is_some_and(|reader| self.reading(*reader).is_none()) {
            self.readers.pop_front();
        }
        // Those who have gone may stand in the row, but not fill it.
        if self.readers.len() > 2 * self.replays.len() + STALE_READERS_MAX {
            let Self { readers, replays, .. } = self;
            readers.retain(|reader| replays.get(&reader.token.slot).is_some_and(|replay| replay.reader == *reader));
        }
        for _ in 0..self.readers.len().min(READERS_LOOKED_AT_MAX) {
            if !self.has_room_for_page() {
                break;
            }
            let Some(reader) = self.readers.pop_front() else { break };
            self.ask_page(reader);
        }
        self.readers.give_back();
    }

    /// Asks for a look, or for a page if there is room for it in the outbox; if not, room brings the reader back.
    fn ask_page(&mut self, reader: Reader) {
        let Reader { token, number } = reader;
        if self.reading(reader).is_none() {
            return;
        }
        if !self.is_ready(reader) {
            return self.readers.push_back(reader);
        }
        let is_crowded = self.is_crowded();
        let outbox = &self.connections[token.slot as usize].outbox;
        let has_room = if is_crowded { outbox.is_empty() } else { outbox.bytes() <= self.options.outbox_bytes_max / 2 };
        let Some(replay) = self.replays.get_mut(&token.slot) else { return };
        let Some(next) = replay.next().filter(|next| has_room || replay.stage(*next) == Stage::Look) else {
            replay.is_waiting = false;
            return;
        };
        let page_bytes_max = if is_crowded { 1 } else { PAGE_BYTES_MAX.min(self.options.outbox_bytes_max / 2) };
        // A poll has one answer for all its topics, of which there may be something already.
        let page_bytes_max = replay.found.bytes_left(page_bytes_max);
        let asker = Asker { worker: self.index, token, number, place: 0, source: Source::WebSocket };
        let (home, request) = match next {
            Next::Topic(at) => {
                let Reading { topic, since, stage, .. } = &replay.topics[at];
                let bytes_max = if *stage == Stage::Look { 0 } else { page_bytes_max };
                (self.shared.home_of(topic.as_str()), Request::Read { asker, topic: topic.clone(), since: *since, bytes_max })
            }
            Next::Pattern(at) => {
                let scanning = &replay.patterns[at];
                (scanning.home, Request::Scan(Box::new(scanning.scan(asker, page_bytes_max))))
            }
        };
        let (Next::Topic(at) | Next::Pattern(at)) = next;
        replay.at = at;
        if self.has_credit(home) && self.request(home, request).is_ok() {
            self.pages_asked += 1;
        } else {
            self.readers.push_back(reader);
        }
    }

    /// A page has come, or the word that there is none: it goes to who asked for it, if that one still reads.
    pub(super) fn paged(&mut self, store: &mut Store, asker: Asker, result: Result<Box<Page>, AppendError>) {
        self.pages_asked -= 1;
        let reader = Reader::of(asker);
        let Some(replay) = self.replays.get_mut(&reader.token.slot).filter(|replay| replay.reader == reader) else { return };
        replay.is_waiting = false;
        self.take_page(store, reader.token.slot, result);
    }
}
