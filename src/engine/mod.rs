//! Numbers publications and keeps them: the seam behind which memory, disk or a network decides.
//!
//! Nothing here answers by returning. [`Engine::append`] takes a publication over, and [`Engine::poll`] tells what became of it, so
//! that an engine that has to wait for a disk looks no different from one that has not. Events of several appends may be under
//! way, and for one append come in either order:
//!
//! ```text
//!                      +--> Appended { request, position | error }   answers the publisher
//! append(request) -----+
//!                      +--> Published { publication }                is handed out to subscribers, unless it came before
//!
//! read(request) -----------> Read { request, page | error }             what is kept behind a position
//! scan(request) -----------> Scanned { request, sheaf }                 what is kept of all topics that a pattern matches, piece by piece
//! delete(request) ---------> Deleted { request, epoch | error }         nothing is kept any more
//! ```
//!
//! What has to wait for a disk or a network is handed over at the end of a turn ([`Engine::submit`]), and what came back is heard of at the
//! beginning of one ([`Engine::receive`]). It is finished one by one, as there is room for what follows ([`Engine::ready`],
//! [`Engine::finish`]).
//!
//! The `Published` events of one topic come in the order of their offsets; handing out on anything else would break the order.

mod brief;
mod history;
mod idempotency;
mod memory;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

pub use idempotency::{IdempotencyKey, KeyError};
pub use memory::{Limits, MemoryEngine, TOPIC_LINGER};

use crate::frame::{Epoch, Forms, Gap, GapReason, Pattern, Payload, Position, Publication, Since, Topic};
use crate::limits::Tick;

/// Gives publications their numbers, keeps them as its kind does, and knows which topics live.
///
/// `R` is the caller's token for one request, `S` for one scan; it comes back with the answer and means nothing here.
pub trait Engine<R, S = R> {
    /// Takes a publication over. What became of it comes from [`Engine::poll`].
    fn append(&mut self, append: Append<R>);

    /// Reads what is kept of a topic. The page comes from [`Engine::poll`].
    fn read(&mut self, read: Read<R>);

    /// Reads what is kept of all topics that a pattern matches, in the order of their names. The sheaf comes from [`Engine::poll`].
    fn scan(&mut self, scan: Scan<S>);

    /// Begins another life of a topic, which nothing is kept of. What became of it comes from [`Engine::poll`].
    fn delete(&mut self, request: R, topic: Topic);

    /// The next event. To be called until it returns `None`.
    fn poll(&mut self) -> Option<EngineEvent<R, S>>;

    /// Whether there is something to hear.
    fn has_news(&self) -> bool;

    /// Hears what has become of what was handed over. What has failed is told by [`Engine::poll`].
    fn receive(&mut self);

    /// The topic of the next publication or deletion that has come back, and waits to be finished.
    fn ready(&self) -> Option<&Topic>;

    /// Finishes it: [`Engine::poll`] tells what became of it.
    fn finish(&mut self, now: Tick);

    /// Hands over what has to wait.
    fn submit(&mut self);

    /// What is known of a living topic; `None` when it does not live, and then it has no epoch to show.
    fn extent(&self, topic: &str) -> Option<Extent>;

    /// Some worker has subscribers of `topic`, or none has any more. A topic with subscribers lives, and so has an epoch, also
    /// before its first publication.
    ///
    /// # Errors
    /// [`AppendError::TooManyTopics`] when a topic that does not live yet has no room.
    fn set_interest(&mut self, topic: &Topic, is_wanted: bool, now: Tick) -> Result<(), AppendError>;

    /// Forgets topics whose life has ended, a bounded number a call.
    fn expire(&mut self, now: Tick);

    /// When [`Engine::expire`] has something to do next, at the earliest.
    fn poll_timeout(&self) -> Option<Tick>;
}

/// A publication to be numbered.
#[derive(Debug)]
pub struct Append<R> {
    /// The caller's token.
    pub request: R,
    /// What is published, where and how.
    pub submission: Submission,
    /// The time of day, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The driver's monotonic clock, in nanoseconds.
    pub numbered_ns: u64,
    /// The wire forms that subscribers need.
    pub forms: Forms,
}

/// What a publisher hands in.
#[derive(Debug)]
pub struct Submission {
    /// Where it is published.
    pub topic: Topic,
    /// What is published, checked and framed.
    pub payload: Payload,
    /// What its publisher asks for beside; few ask for anything.
    pub terms: Option<Box<Terms>>,
}

/// What a publisher may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long the publication may be kept, if not as long as its topic's class says; zero is not at all: it goes to whoever is
    /// subscribed, and nobody ever reads it back.
    pub ttl: Option<Duration>,
    /// The publisher's name for this publication: the same one again is not published again, but answered as the first was.
    pub key: Option<IdempotencyKey>,
}

/// What is to be read of a topic.
#[derive(Debug)]
pub struct Read<R> {
    /// The caller's token.
    pub request: R,
    /// Which topic.
    pub topic: Topic,
    /// From where on.
    pub since: Since,
    /// Bytes of the page; it holds at least one publication if there is any, unless this is 0.
    pub bytes_max: usize,
    /// The driver's monotonic clock, in nanoseconds.
    pub now_ns: u64,
}

/// A piece of what is kept of a topic.
#[derive(Debug)]
pub struct Page {
    /// In the order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// Where the reader stands behind them: the next page begins here.
    pub position: Position,
    /// The offset of the topic's newest publication when this was read, kept or not.
    pub newest: u64,
    /// The newest offset that had to go by the bounds of the topic's class; 0 if there is none.
    pub lost: u64,
    /// The topic had nothing more when this was read.
    pub is_last: bool,
    /// What is missing before the first of them.
    pub gap: Option<Gap>,
}

impl Page {
    /// What is missing of what came behind `newest`, for a reader who had not asked for anything before it.
    #[must_use]
    pub fn gap_behind(&self, newest: Position) -> Option<Gap> {
        let reason = match newest.epoch == self.position.epoch {
            false => GapReason::Epoch,
            true if self.lost > newest.offset => GapReason::Trimmed,
            true => return None,
        };
        Some(Gap { from: newest, to: Position { offset: self.lost, ..self.position }, reason })
    }
}

/// What is to be read of all topics that a pattern matches.
#[derive(Debug)]
pub struct Scan<S> {
    /// The caller's token.
    pub request: S,
    /// Which topics.
    pub pattern: Pattern,
    /// But for those that one of these matches.
    pub except: Arc<[Pattern]>,
    /// From where on each of them is read that has not been begun; no cursor, because that is of one topic.
    pub since: Since,
    /// Where the sheaf before this one ended.
    pub place: Place,
    /// When the reader began: what was numbered then or later, and is not kept any more, is told as a gap.
    pub begun_ns: u64,
    /// Bytes of the sheaf; it holds at least one publication or gap if there is any among the topics it looks at, unless this is 0: then
    /// it looks at none, and tells the time alone.
    pub bytes_max: usize,
    /// The driver's monotonic clock, in nanoseconds.
    pub now_ns: u64,
}

/// How far the topics that a pattern matches have been read, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// All up to this name are read to their ends.
    pub read: Option<Topic>,
    /// The next one, where it has been begun, and how far it is read.
    pub begun: Option<(Topic, Position)>,
}

/// A piece of what is kept of the topics that a pattern matches.
#[derive(Debug, Default)]
pub struct Sheaf {
    /// Topic by topic, those of one in the order of their offsets.
    pub publications: Vec<Arc<Publication>>,
    /// What is missing: before which of the publications, and of which topic.
    pub gaps: Vec<(usize, Topic, Gap)>,
    /// Where the next sheaf begins.
    pub place: Place,
    /// There was nothing more when this was read.
    pub is_last: bool,
    /// With the last one: some topic has been forgotten of which something was lost since the reader began. Nobody knows any more
    /// whether that was one of the reader's.
    pub has_forgotten: bool,
    /// The driver's clock when this was read.
    pub now_ns: u64,
}

/// What became of an append, a read or a scan.
#[derive(Debug)]
pub enum EngineEvent<R, S = R> {
    /// The answer to [`Engine::scan`].
    Scanned {
        /// The token of the scan.
        request: S,
        /// What was found.
        sheaf: Sheaf,
    },
    /// The answer to [`Engine::read`].
    Read {
        /// The token of the read.
        request: R,
        /// What is kept, or why nothing can be said.
        result: Result<Page, AppendError>,
    },
    /// The answer to the publisher.
    Appended {
        /// The token of the append.
        request: R,
        /// Where it stands, or why it does not.
        result: Result<Appended, AppendError>,
    },
    /// The answer to [`Engine::delete`].
    Deleted {
        /// The token of the deletion.
        request: R,
        /// The topic's new life, `None` if it did not live, and does not now; or why it goes on as it was.
        result: Result<Option<Epoch>, AppendError>,
    },
    /// A publication is numbered and kept as its topic demands: now it may be handed out.
    Published {
        /// It, in the forms asked for.
        publication: Arc<Publication>,
    },
}

/// Where a publication stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub position: Position,
    /// It had that already: it came before under the same key, and is not published again.
    pub is_repeated: bool,
}

/// The life of a topic and what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The topic's present life.
    pub epoch: Epoch,
    /// The offset of the oldest publication that is kept; `last + 1` when none is kept.
    pub first: u64,
    /// The offset of the newest publication, kept or not; 0 before the first one.
    pub last: u64,
}

/// Why an append was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The topic does not live yet, and as many others live as may.
    #[error("there are {topics_max} topics already, which is the limit")]
    TooManyTopics {
        /// The limit that was reached, in topics.
        topics_max: usize,
    },
    /// Another payload was published on this topic under the same key.
    #[error("the key was used for another publication on this topic")]
    KeyReused,
    /// The store of durable topics has failed: it is not known to be on the disk, and nobody has got it.
    #[error("the store of durable topics cannot write; nothing was published")]
    NotStored,
    /// Too much waits for the disk already.
    #[error("as much waits for the disk as may")]
    StoreBusy,
}

impl AppendError {
    /// The status of the answer. RFC 9110 section 15.6.4: a topic may end at any time, so it is worth coming back. Section 15.5.21, and
    /// the draft of Idempotency-Key: it is not.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooManyTopics { .. } | Self::NotStored | Self::StoreBusy => 503,
            Self::KeyReused => 422,
        }
    }
}
