//! Gives space back: copies what lives of the oldest segment forward, a piece with each group.
//!
//! A piece is bounded by the size of its group, so no publisher waits long for it. What lives is told by what the log knows in memory:
//! a publication whose latest place is this segment, and a topic of which this segment says that it lives. Copies stand before the changes of
//! their group, because they say how all was before it.

use std::collections::HashSet;
use std::io;

use super::error::Damage;
use super::files::Files;
use super::read::Segment;
use super::record::{self, Entry, FRAME_BYTES, Flaw, Put, State};
use super::segment::{self, HEADER_BYTES, Stamp};
use super::topics::Topics;

/// How much of a segment is looked at with a group, at least: one in so many of its bytes, of 64 MiB 256 KiB, which is some 0.1 ms.
pub(super) const PIECES: u64 = 256;
/// And how much for each byte of the group, so that cleaning keeps up also where half of the oldest segment lives.
pub(super) const PACE: usize = 4;

/// Cleans one segment after the other.
#[derive(Debug)]
pub(super) struct Cleaner<H> {
    under_way: Option<UnderWay<H>>,
    /// Segments before this one are cleaned in any case.
    before: u64,
    /// The oldest segment can't be read: nothing is cleaned any more, or what can't be read would be gone for good.
    has_failed: bool,
}

/// A segment that is being cleaned.
#[derive(Debug)]
struct UnderWay<H> {
    file: H,
    segment: Segment,
    /// Up to where all that lives is copied.
    place: u64,
}

impl<H> Default for Cleaner<H> {
    fn default() -> Self {
        Self { under_way: None, before: 0, has_failed: false }
    }
}

impl<H> Cleaner<H> {
    /// Whether the oldest segment is to be cleaned.
    pub fn wants(&self, oldest: u64, is_long: impl FnOnce() -> bool) -> bool {
        !self.has_failed && (self.under_way.is_some() || oldest < self.before || is_long())
    }

    /// Has all segments before this one cleaned, whatever that gives back.
    pub fn clean_before(&mut self, number: u64) {
        self.before = number;
    }

    /// Appends the frames that are to be copied of a piece; up to where that is, for [`Cleaner::advance`].
    ///
    /// # Errors
    /// The segment can't be read, or is damaged: [`Cleaner::give_up`] is for that.
    pub fn copy<F: Files<File = H>>(
        &mut self,
        files: &F,
        seed: u32,
        oldest: Segment,
        topics: &Topics<()>,
        frames: &mut Vec<u8>,
        budget: usize,
    ) -> io::Result<u64> {
        let name = segment::name(oldest.number);
        let UnderWay { file, segment, place } = match &mut self.under_way {
            Some(under_way) => under_way,
            none => {
                let file = files.open(&name, false)?;
                none.insert(UnderWay { file, segment: oldest, place: HEADER_BYTES as u64 })
            }
        };
        let (stamp, mut place) = (Stamp::new(seed, segment.number), *place);
        let read = |place: u64, bytes: usize| {
            let mut piece = vec![0; bytes.min((segment.bytes - place) as usize)];
            let length = files.read_full_at(file, &mut piece, place)?;
            piece.truncate(length);
            io::Result::Ok(piece)
        };
        let damage = |flaw: Flaw, place| {
            let (path, expected) = (files.path().join(&name), flaw.expected().to_owned());
            io::Error::other(Damage { path, offset: place, expected })
        };
        let mut bytes = read(place, budget.max(FRAME_BYTES))?;
        let (copied, flaw) = copy_piece(&bytes, (segment.number, stamp), place, topics, frames);
        place += copied;
        // The rest of a frame is for the next piece, unless it is all that this one has.
        if let (0, Some(Flaw::Short(Some(whole)))) = (copied, flaw) {
            bytes = read(place, whole)?;
            let (copied, flaw) = copy_piece(&bytes, (segment.number, stamp), place, topics, frames);
            place += copied;
            return flaw.map_or(Ok(place), |flaw| Err(damage(flaw, place)));
        }
        match flaw {
            None => Ok(place),
            Some(Flaw::Short(_)) if copied > 0 => Ok(place),
            Some(flaw) => Err(damage(flaw, place)),
        }
    }

    /// Nothing is cleaned any more; nothing is copied either.
    pub fn give_up(&mut self, error: &io::Error) -> u64 {
        tracing::error!(%error, "the store gives no more space back");
        (self.has_failed, self.under_way) = (true, None);
        0
    }

    /// Up to here all that lives is copied and on the disk.
    pub fn advance(&mut self, place: u64) {
        if let Some(under_way) = &mut self.under_way {
            under_way.place = under_way.place.max(place);
        }
    }

    /// Whether nothing is needed of the segment any more.
    pub fn is_done_with(&self, oldest: Segment) -> bool {
        let under_way = self.under_way.as_ref();
        under_way.is_some_and(|under_way| under_way.segment.number == oldest.number && under_way.place == under_way.segment.bytes)
    }

    /// The segment is removed.
    pub fn finish(&mut self) {
        self.under_way = None;
    }
}

/// Appends what must not go with these frames; how many bytes they have, and what is wrong with what stands behind them.
fn copy_piece(
    bytes: &[u8],
    (segment, stamp): (u64, Stamp),
    place: u64,
    topics: &Topics<()>,
    frames: &mut Vec<u8>,
) -> (u64, Option<Flaw>) {
    let (mut looked_at, mut states) = (0, HashSet::new());
    while looked_at < bytes.len() {
        let frame = match record::decode(&bytes[looked_at..], stamp, place + looked_at as u64) {
            Ok(frame) => frame,
            Err(flaw) => return (looked_at as u64, Some(flaw)),
        };
        looked_at += frame.bytes;
        let (Entry::State(State { topic, epoch, .. }) | Entry::Put(Put { topic, epoch, .. })) = frame.entry else { continue };
        let Some(life) = topics.life(topic, epoch) else { continue };
        if life.segment == segment && states.insert(topic) {
            let (last, first, lost) = (life.last, life.first, life.lost);
            Entry::State(State { topic, epoch, last, first, lost }).encode(frames);
        }
        if let Entry::Put(put) = frame.entry
            && life.records.get(&put.offset).is_some_and(|held| held.segment == segment)
        {
            frame.entry.encode(frames);
        }
    }
    (looked_at as u64, None)
}
