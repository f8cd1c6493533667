//! Long-polls: a request that is answered as soon as there is something behind its cursor, or when its time is up.
//!
//! A poller is a subscriber that stays held: it never gets a publication from a fan-out, but one that passes it by wakes it, and then
//! it reads its page as whoever resumes does. So a poll needs no wire form of its own, and what it answers is exact: everything behind
//! the cursor, in order.

use std::sync::Arc;

use crate::engine::Page;
use crate::frame::{Position, Publication, Since};
use crate::http1::Response;
use crate::io::{Driver, Store};
use crate::metrics::Recovery;
use crate::routes::{self, refusals};

use super::Core;
use super::connection::{Do, Pending};

impl<D: Driver> Core<D> {
    /// The subscription is in force: from now on nothing is missed, and the first page may be all there is to say.
    pub(super) fn begin_poll(&mut self, slot: u32, mut pending: Pending, wait: u32) {
        let due = self.tick.after(wait);
        pending.action = Do::Poll;
        self.connections[slot as usize].flags.set_corked(false);
        self.wait_for_answer(slot, pending, due);
        self.begin_polling(slot);
    }

    /// A page for a poll: the answer, unless it is empty.
    pub(super) fn poll_read(&mut self, store: &mut Store, slot: u32, page: &Page) {
        if page.publications.is_empty() && page.gap.is_none() {
            self.connections[slot as usize].flags.set_polling(true);
            return;
        }
        self.answer_poll(store, slot, &page.publications, page.position, page.gap.is_none());
    }

    /// A publication passes a held subscriber by.
    pub(super) fn wake_poller(&mut self, slot: u32) {
        let connection = &mut self.connections[slot as usize];
        if connection.flags.polling() {
            connection.flags.set_polling(false);
            self.wait_for_page(slot);
        }
    }

    /// Its time is up, or the server's: the poll is answered with nothing.
    pub(super) fn end_poll(&mut self, store: &mut Store, slot: u32) {
        match self.position_of_poll(slot) {
            Some(position) => self.answer_poll(store, slot, &[], position, true),
            // Not even the first page has come.
            None => self.finish_poll(store, slot, refusals::busy()),
        }
    }

    fn answer_poll(&mut self, store: &mut Store, slot: u32, messages: &[Arc<Publication>], position: Position, whole: bool) {
        if self.recovered(slot).is_some() {
            self.metrics().recoveries.of(if whole { Recovery::Whole } else { Recovery::Gap }).add(1);
        }
        self.finish_poll(store, slot, routes::polled(messages, position, whole));
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

    fn position_of_poll(&self, slot: u32) -> Option<Position> {
        match self.replays.get(&slot)?.since() {
            Since::After(position) => Some(position),
            Since::Latest | Since::Earliest | Since::Within(_) | Since::From(_) => None,
        }
    }
}
