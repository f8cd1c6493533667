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
//!
//! It is kept in a log of our own (`log.rs`), segments of frames with a checksum each. Six stores of the crates' world were measured and broken
//! on purpose first:
//!
//! | crate | why not |
//! |---|---|
//! | redb 4.6.0 | after damage all or nothing, without the place; every I/O error needs close, open and a full check (seconds at 500 MB); space only by a `compact()` that stops everything; 1.5 to 3.4 times the bytes of a log |
//! | fjall 3.1.13 | one changed byte at a batch's border opens in silence without the acknowledged half behind it (15 of 57 places) |
//! | SQLite 3.54 (rusqlite 0.43.0) | a changed bit in its WAL loses all that was acknowledged behind it in silence (10 of 25); no checksums elsewhere |
//! | LMDB (heed 0.23.1) | no checksums (23 of 25 read back changed), two flushes a group, never gives space back |
//! | raft-engine 0.4.2 | a failed fdatasync panics by design; no release since April 2024 |
//! | canopydb 0.2.5 | a changed bit in its WAL loses the tail in silence (15 of 15) |
//!
//! Memory holds all that lives already, so no index on the disk is of use, and what is left of a store is a log: one write and one fdatasync a
//! group, as fast as the raw file; a torn end told from a damaged middle, with file and offset; an error answered by a new segment; space
//! given back piece by piece.

mod clean;
mod error;
#[cfg(test)]
mod faults;
mod files;
mod keeper;
mod log;
mod port;
mod read;
mod record;
mod segment;
#[cfg(test)]
mod tests;
pub mod tools;
mod topics;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

pub use error::{Cut, Damage, OpenError};
pub use files::{Directory, Files};
pub use log::{Log, Opened, SEGMENT_BYTES};
pub use port::{Batch, Inbox, Outcome, Port, ports};

use super::IdempotencyKey;
use crate::frame::{Epoch, Payload, Publication, Topic};
use crate::metrics::StoreMetrics;

/// Opens the store in a directory, which is made if it is not there, and gives what it holds, in no order of the topics. What was being
/// written when all ended is cut off, with a warning in the log.
///
/// # Errors
/// Another process has it, it holds something else or is damaged, or what the kernel says; [`OpenError::fix`] says what to do.
pub fn open(directory: &Path) -> Result<(Store, Vec<Stored>), OpenError> {
    let Opened { log, stored, cut } = Log::open(Directory::create(directory)?, SEGMENT_BYTES)?;
    if let Some(cut) = cut {
        tracing::warn!("{cut}, and that is cut off; nobody was told that it is stored");
    }
    Ok((Store { log }, stored))
}

/// A store that is open.
#[derive(Debug)]
pub struct Store {
    log: Log<Directory>,
}

impl Store {
    /// Starts its thread, which ends when all ports have gone. Should it end by a fault of its own, whoever waits is refused, and whoever comes.
    /// The last that it does is `ended`.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn spawn(
        self,
        inbox: Inbox,
        metrics: Arc<StoreMetrics>,
        ended: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let keeper = keeper::Keeper::new(self.log, inbox, Arc::clone(&metrics));
        let run = move || {
            if catch_unwind(AssertUnwindSafe(|| keeper.run())).is_err() {
                tracing::error!("the store has failed; durable topics take no publications until the server is started again");
            }
            metrics.up.set(0);
            ended();
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(run)
    }
}

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
