//! The life of one topic, and what all topics' histories hold together.

use std::collections::BTreeSet;

use crate::class::Classes;
use crate::engine::history::{History, Keep};
use crate::frame::{ClassId, Epoch, Position, Topic};
use crate::limits::Tick;

/// One life of a topic.
#[derive(Debug)]
pub(super) struct Life {
    pub epoch: Epoch,
    pub last: u64,
    pub class: ClassId,
    pub keep: Keep,
    pub history: History,
    /// What of it is on its way to the disk.
    pub on_its_way: Option<Box<OnItsWay>>,
    /// When it ends, unless something is kept; [`Tick::NEVER`] while it has subscribers.
    pub end: Tick,
    /// When `endings` has it looked at next.
    pub looked_at: Tick,
}

/// The newest number of a topic that is not on the disk yet.
#[derive(Debug)]
pub(super) struct OnItsWay {
    pub newest: Position,
    /// How many numbers and deletions wait.
    waiting: u32,
}

impl Life {
    /// A life that begins now; the caller says until when.
    pub fn new(epoch: Epoch, classes: &Classes, topic: &Topic) -> Self {
        let class = classes.id_of(topic.as_str());
        let keep = classes.get(class).history.into();
        Self { epoch, last: 0, class, keep, history: History::default(), on_its_way: None, end: Tick(0), looked_at: Tick::NEVER }
    }

    /// The newest number that was given, be it kept already or on its way to the disk.
    pub fn newest(&self) -> Position {
        let kept = Position { epoch: self.epoch, offset: self.last };
        self.on_its_way.as_ref().map_or(kept, |on_its_way| on_its_way.newest)
    }

    /// The number `newest` is on its way to the disk, too.
    pub fn send_off(&mut self, newest: Position) {
        let on_its_way = self.on_its_way.get_or_insert_with(|| Box::new(OnItsWay { newest, waiting: 0 }));
        (on_its_way.newest, on_its_way.waiting) = (newest, on_its_way.waiting + 1);
    }

    /// One is not on its way any more; `newest` is what remains the newest, if it was taken back.
    pub fn arrive(&mut self, newest: Option<Position>) {
        let Some(on_its_way) = &mut self.on_its_way else { return };
        on_its_way.waiting -= 1;
        on_its_way.newest = newest.unwrap_or(on_its_way.newest);
        if on_its_way.waiting == 0 {
            self.on_its_way = None;
        }
    }

    /// When there is something to do for it: a publication is too old, or its end has come.
    pub fn due(&self) -> Option<Tick> {
        self.history.due(self.keep).or((self.end != Tick::NEVER).then_some(self.end))
    }
}

/// What all histories hold together.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// When each topic's oldest publication was numbered, or one before it, and which topic that is.
    pub oldest: BTreeSet<(u64, Topic)>,
    /// Bytes of all publications.
    pub bytes: u64,
    /// Durable topics that have let go of their oldest publication.
    pub trimmed: Vec<Topic>,
}

impl Kept {
    /// Changes a topic's history and keeps count of it.
    pub fn change<T>(&mut self, topic: &Topic, history: &mut History, change: impl FnOnce(&mut History) -> T) -> T {
        let (place, bytes, first) = (history.place, history.bytes(), history.is_stored.then(|| history.first()).flatten());
        let result = change(history);
        self.bytes = self.bytes + history.bytes() - bytes;
        if first.is_some() && first != history.first() {
            self.trimmed.push(topic.clone());
        }
        match (place, history.oldest_ns()) {
            // It grows, so the place is not behind its right one.
            (Some(_), Some(_)) | (None, None) => history.place = place,
            (_, oldest) => self.move_to(topic, history, place, oldest),
        }
        result
    }

    /// Moves a topic in the index.
    pub fn move_to(&mut self, topic: &Topic, history: &mut History, from: Option<u64>, to: Option<u64>) {
        if let Some(from) = from {
            self.oldest.remove(&(from, topic.clone()));
        }
        self.oldest.extend(to.map(|to| (to, topic.clone())));
        history.place = to;
    }
}
