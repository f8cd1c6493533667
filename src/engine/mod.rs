//! Numbers publications and keeps them: the seam behind which memory, disk or a network decides.
//!
//! Nothing here answers by returning. [`Engine::append`] takes a publication over, and [`Engine::poll`] tells what became of it, so
//! that an engine that has to wait for a disk looks no different from one that has not. Events of several appends may be under
//! way, and for one append come in either order:
//!
//! ```text
//!                      +--> Appended { request, position | error }   answers the publisher
//! append(request) -----+
//!                      +--> Published { publication }                is handed out to subscribers
//!
//! read(request) -----------> Read { request, page | error }             what is kept behind a position
//! ```
//!
//! The `Published` events of one topic come in the order of their offsets; handing out on anything else would break the order.

mod history;
mod memory;

use std::sync::Arc;

pub use memory::{MemoryEngine, TOPIC_LINGER};

use crate::frame::{Epoch, Forms, Gap, GapReason, Payload, Position, Publication, Since, Topic};
use crate::limits::Tick;

/// Gives publications their numbers, keeps them as its kind does, and knows which topics live.
///
/// `R` is the caller's token for one request; it comes back with the answer and means nothing here.
pub trait Engine<R> {
    /// Takes a publication over. What became of it comes from [`Engine::poll`].
    fn append(&mut self, append: Append<R>);

    /// Reads what is kept of a topic. The page comes from [`Engine::poll`].
    fn read(&mut self, read: Read<R>);

    /// The next event. To be called until it returns `None`.
    fn poll(&mut self) -> Option<EngineEvent<R>>;

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
    /// Where it is published.
    pub topic: Topic,
    /// What is published, checked and framed.
    pub payload: Payload,
    /// The time of day, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The driver's monotonic clock, in nanoseconds.
    pub numbered_ns: u64,
    /// The wire forms that subscribers need.
    pub forms: Forms,
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
    /// The topic had nothing more when this was read.
    pub is_last: bool,
    /// What is missing before the first of them.
    pub gap: Option<Gap>,
}

impl Page {
    /// What is missing of what came behind `newest`, for a reader who had not asked for anything before it.
    #[must_use]
    pub fn gap_behind(&self, newest: u64) -> Option<Gap> {
        let first = self.publications.first().map_or(self.position.offset + 1, |publication| publication.position.offset);
        let at = |offset| Position { offset, ..self.position };
        (first > newest + 1).then(|| Gap { from: at(newest), to: at(first - 1), reason: GapReason::Trimmed })
    }
}

/// What became of an append or a read.
#[derive(Debug)]
pub enum EngineEvent<R> {
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
        /// Its number, or why it has none.
        result: Result<Position, AppendError>,
    },
    /// A publication is numbered and kept as its topic demands: now it may be handed out.
    Published {
        /// It, in the forms asked for.
        publication: Arc<Publication>,
    },
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
}

impl AppendError {
    /// The status of the answer (RFC 9110 section 15.6.4): a topic may end at any time, so it is worth coming back.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TooManyTopics { .. } => 503,
        }
    }
}
