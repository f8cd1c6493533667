//! What watchers are told: in one row, a slice of them in a turn, so that a crowd of watchers delays nobody else.
//!
//! The row keeps the order in which things came: a state makes those live who wait for it, and what stands behind it in the row is what
//! has changed since. The bytes are made once for each form that a watcher takes, and shared.

use std::sync::Arc;

use crate::frame::{Form, Topic};
use crate::hub::presence::{State, Told, write_object};
use crate::io::{Block, Driver, Store};
use crate::routes;
use crate::v1::Present;

use super::super::Core;
use super::{Asking, Presence};

/// Places in the row. What finds none is not handed out; its watchers get the state anew.
const TELLINGS_MAX: usize = if cfg!(test) { 8 } else { 1024 };

/// Something on its way to the watchers of a topic.
#[derive(Debug)]
pub(super) struct Telling {
    what: What,
    /// The watcher that was told last.
    behind: Option<u32>,
    blocks: [Option<(Block, usize)>; Form::ALL.len()],
}

#[derive(Debug)]
enum What {
    /// To those who are live.
    Told(Arc<Told>),
    /// To those who wait for it.
    State(Topic, Arc<State>),
}

impl Telling {
    const fn new(what: What) -> Self {
        Self { what, behind: None, blocks: [None; Form::ALL.len()] }
    }

    /// The bytes for watchers of this form.
    fn block(&mut self, store: &mut Store, form: Form) -> (Block, usize) {
        *self.blocks[form as usize].get_or_insert_with(|| {
            let mut bytes = Vec::new();
            match &self.what {
                What::Told(told) => told.objects.iter().for_each(|object| write_object(object, form, &mut bytes)),
                What::State(topic, state) => write_object(&state.object(topic), form, &mut bytes),
            }
            let length = bytes.len();
            (store.own(bytes), length)
        })
    }
}

impl<D: Driver> Core<D> {
    /// A state has come, for those who wait for it.
    pub(super) fn take_state(&mut self, topic: Topic, state: Arc<State>) {
        self.presence.tellings.push_back(Telling::new(What::State(topic, state)));
    }

    /// Something has changed in a topic that somebody watches here.
    pub(in crate::worker) fn take_told(&mut self, told: Arc<Told>) {
        let Presence { tellings, watching, .. } = &mut self.presence;
        if tellings.len() < TELLINGS_MAX {
            tellings.push_back(Telling::new(What::Told(told)));
        } else {
            watching.start_over(&told.topic);
        }
    }

    /// Tells the next watchers in the row.
    pub(in crate::worker) fn hand_out_presence(&mut self, store: &mut Store) {
        let mut left = self.options.fanout_slice;
        while left > 0
            && let Some(mut telling) = self.presence.tellings.pop_front()
        {
            let told = self.tell_slice(store, &mut telling, left);
            if told > 0 {
                left = left.saturating_sub(told);
                self.presence.tellings.push_front(telling);
                continue;
            }
            for (block, _) in telling.blocks.into_iter().flatten() {
                store.release(block, &mut self.pool);
            }
            left -= 1;
        }
    }

    /// Tells the next watchers of one telling, and says how many; none are left when it is over.
    fn tell_slice(&mut self, store: &mut Store, telling: &mut Telling, max: usize) -> usize {
        let Presence { watching, .. } = &mut self.presence;
        let (next, topic) = match &telling.what {
            What::Told(told) => (watching.live(&told.topic, telling.behind, max), told.topic.clone()),
            What::State(topic, _) => (watching.take_waiting(topic, max), topic.clone()),
        };
        for (slot, form) in &next {
            let (block, length) = telling.block(store, *form);
            self.tell_watcher(store, *slot, &topic, block, length);
            telling.behind = Some(*slot);
        }
        if let What::State(topic, state) = &telling.what
            && next.is_empty()
        {
            let asking = self.presence.watching.take_asking(topic);
            self.presence.watching.answered(topic);
            asking.into_iter().for_each(|asking| self.answer_asking(store, asking, topic, state));
        }
        next.len()
    }

    /// Tells one watcher, unless so much waits for it, or for all of the worker, that it had better get the state later.
    fn tell_watcher(&mut self, store: &mut Store, slot: u32, topic: &Topic, block: Block, length: usize) {
        let Self { connections, entries, options, presence, .. } = self;
        let connection = &mut connections[slot as usize];
        let waiting = connection.outbox.bytes() + length;
        let is_worker_full = entries.queued_bytes() + length as u64 > options.worker_outbox_bytes_max;
        if !connection.outbox.is_empty() && (waiting > options.outbox_bytes_max / 2 || is_worker_full) {
            presence.watching.fall_behind(topic, slot);
            if let Some(client) = presence.clients.get_mut(&slot) {
                client.behind.push(topic.clone());
                connection.flags.set_behind(true);
            }
            return;
        }
        store.retain(block, 1);
        connection.outbox.push_shared(entries, block, length);
        self.mark_dirty(slot);
    }

    /// There is room again for a watcher that was left out.
    pub(in crate::worker) fn catch_up(&mut self, slot: u32) {
        self.connections[slot as usize].flags.set_behind(false);
        let Presence { clients, watching, .. } = &mut self.presence;
        let Some(client) = clients.get_mut(&slot) else { return };
        for topic in client.behind.drain(..) {
            watching.watch(self.shared.home_of(topic.as_str()), &topic, slot, client.form);
        }
    }

    fn answer_asking(&mut self, store: &mut Store, asking: Asking, topic: &Topic, state: &State) {
        match asking {
            Asking::Request(asker) => {
                if let Some(pending) = self.asked(asker) {
                    self.answer(store, asker.token.slot, routes::present(topic, state), &pending);
                    self.resume_later(asker.token);
                }
            }
            Asking::Session(token, id) => {
                if self.connection(token).is_some() {
                    self.say(store, token.slot, &Present::new(id.as_ref(), topic.as_str(), state));
                    self.confirm_one(token.slot);
                }
            }
        }
    }
}
