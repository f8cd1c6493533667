//! What durable topics are kept in beyond a restart: what the engines hand over, and what they hear of it.
//!
//! ```text
//! engine of a home worker                      the store's thread, one for all
//!   number ──> submit(changes of a turn) ──> all that waits, of all workers, is a group
//!                                                  one transaction, one wait for the disk
//!   keep, hand out, answer <── Stored ───────── what was handed over is on the disk
//!   refuse, take numbers back <── Failed ────── nothing of it counts
//! ```
//!
//! Groups form by themselves: while the disk works on one, the next gathers. A slow disk makes groups larger, not more of them.
//!
//! After a failure nobody knows what of a group the disk has. So all that was handed over behind it fails with it, and the store cuts off
//! what may be there before it takes anything new; a publisher who was refused sends again.
//!
//! What is kept is read once, when the server starts. From then on readers are served from memory, which holds the same.

mod port;

use std::sync::Arc;

pub use port::{Batch, Inbox, Outcome, Port, ports};

use super::IdempotencyKey;
use crate::frame::{Epoch, Payload, Publication, Topic};

/// What is to be done to what is stored. Of one topic they are done in the order in which they were handed over.
#[derive(Clone, Debug)]
pub enum Change {
    /// A topic begins this life: whatever is stored of another one goes.
    Begin {
        /// Which topic.
        topic: Topic,
        /// Its life.
        epoch: Epoch,
    },
    /// A publication is kept, as the newest of its topic; it begins its life, if need be.
    Put(Record),
    /// What a topic keeps begins later than before.
    Trim {
        /// Which topic.
        topic: Topic,
        /// Its life; a trim that comes behind the next one's beginning means nothing.
        epoch: Epoch,
        /// The oldest offset that is kept, or the one behind the newest.
        first: u64,
        /// The newest offset that is lost by the bounds of its class; 0 if none is.
        lost: u64,
    },
    /// A topic's life has ended: nothing of it stays.
    End {
        /// Which topic.
        topic: Topic,
        /// Its life.
        epoch: Epoch,
    },
}

/// A publication, and what its publisher asked for.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its topic, number, time and payload.
    pub publication: Arc<Publication>,
    /// Until when it may be kept, in milliseconds since the Unix epoch, if not as long as its class says; 0 is not at all.
    pub until_ms: Option<u64>,
    /// Its publisher's name for it.
    pub key: Option<IdempotencyKey>,
}

/// What the store held of a topic when it was opened.
#[derive(Debug)]
pub struct Stored {
    /// Which topic.
    pub topic: Topic,
    /// Its life.
    pub epoch: Epoch,
    /// The offset of its newest publication, kept or not.
    pub last: u64,
    /// The newest offset that is lost by the bounds of its class; 0 if none is.
    pub lost: u64,
    /// What is kept, in the order of the offsets.
    pub kept: Vec<Kept>,
}

/// A publication as it was read back.
#[derive(Debug)]
pub struct Kept {
    /// Its number.
    pub offset: u64,
    /// When it was numbered, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was published.
    pub payload: Payload,
    /// As in [`Record`].
    pub until_ms: Option<u64>,
    /// As in [`Record`].
    pub key: Option<IdempotencyKey>,
}

impl Change {
    /// What it takes in memory while it waits, and about what it takes on the disk.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(record) => size_of::<Self>() + record.publication.payload().as_bytes().len(),
            Self::Begin { .. } | Self::Trim { .. } | Self::End { .. } => size_of::<Self>(),
        }
    }
}
