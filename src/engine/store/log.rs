//! The log: groups are appended, and space is given back from its beginning.
//!
//! ```text
//!   oldest segment ... segment ... newest segment
//!   |                                           |
//!   cleaned: what lives of it is copied ------> appended: a group, one write, one wait for the disk
//!   forward with the next groups, then it       beyond its size the next segment begins: the group, and the directory
//!   is removed
//! ```
//!
//! A group counts once the disk has it. If it fails, nobody knows what of it the disk has, nor whether the kernel would ever say: so the
//! segment is cut off behind the last group that counts, and the next group begins a new one. What is known in memory is changed by
//! groups that count alone.

use std::collections::{HashMap, VecDeque};
use std::io;

use foldhash::fast::RandomState;

use super::clean::{Cleaner, PACE, PIECES};
use super::error::{Cut, OpenError};
use super::files::Files;
use super::read::{self, Segment};
use super::record::{self, Entry};
use super::segment::{self, HEADER_BYTES, Stamp};
use super::topics::Topics;
use super::{Change, Stored};
use crate::frame::{Epoch, Topic};

/// Bytes after which the next segment begins. A group is never parted, so a segment may be longer by one.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of the buffer of a group that are kept for the next one.
const BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A log that is open for writing.
pub struct Log<F: Files> {
    files: F,
    /// The newest segment; none after a failure.
    file: Option<F::File>,
    segment_bytes: u64,
    seed: u32,
    /// From the oldest to the newest.
    segments: VecDeque<Segment>,
    /// The number of the next segment.
    next: u64,
    /// The newest group.
    group: u64,
    topics: Topics<()>,
    cleaner: Cleaner<F::File>,
    /// What failed groups would have taken away.
    wanted: HashMap<Topic, Wanted, RandomState>,
    buffer: Vec<u8>,
}

/// What is to be taken of a topic as soon as that is possible again.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    epoch: Epoch,
    first: u64,
    lost: u64,
    has_ended: bool,
}

/// A log and what it held when it was opened.
pub struct Opened<F: Files> {
    /// The log.
    pub log: Log<F>,
    /// What it holds, in no order of the topics.
    pub stored: Vec<Stored>,
    /// What was cut off its end.
    pub cut: Option<Cut>,
}

impl<F: Files> Log<F> {
    /// Opens a log, or begins one where there is none.
    ///
    /// # Errors
    /// What stands there is no log, or not as it was written, or what the kernel says.
    pub fn open(files: F, segment_bytes: u64) -> Result<Opened<F>, OpenError> {
        let path = files.path().to_owned();
        let refused = |error| OpenError::io(&path, error);
        // What a process that was killed had written may not be on the disk yet, and what it could not write may look as if it were.
        files.sync_directory().map_err(refused)?;
        if let Some(newest) = read::numbers(&files)?.0.last() {
            let settle = |file| files.sync(&file).and_then(|()| files.forget_cache(&file));
            files.open(&segment::name(*newest), true).and_then(settle).map_err(refused)?;
        }
        let contents = read::read(&files)?;
        let (stored, topics) = contents.topics.part();
        let segments: VecDeque<_> = contents.segments.into();
        let next = segments.back().map(|newest| newest.number + 1).or(contents.torn).unwrap_or(1);
        let seed = contents.seed.unwrap_or_else(|| fastrand::u32(..));
        let mut log = Self {
            files,
            file: None,
            segment_bytes,
            seed,
            segments,
            next,
            group: contents.group,
            topics,
            cleaner: Cleaner::default(),
            wanted: HashMap::default(),
            buffer: Vec::new(),
        };
        log.mend(contents.torn, contents.cut.is_some()).map_err(refused)?;
        Ok(Opened { log, stored, cut: contents.cut })
    }

    /// Cuts off what is torn, and opens the newest segment.
    fn mend(&mut self, torn: Option<u64>, is_cut: bool) -> io::Result<()> {
        if let Some(torn) = torn {
            self.files.remove(&segment::name(torn))?;
            self.files.sync_directory()?;
        }
        let Some(newest) = self.segments.back() else { return self.begin_segment() };
        let file = self.files.open(&segment::name(newest.number), true)?;
        if is_cut && torn.is_none() {
            self.files.truncate(&file, newest.bytes)?;
            self.files.sync(&file)?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Whether groups are taken; after a failure not, until [`Log::recover`] has done its work.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.file.is_some()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of what would be left were the log written anew.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        self.topics.live_bytes()
    }

    /// Appends a group, with what is wanted of the failed ones and a piece of the oldest segment if that is being cleaned; how many bytes
    /// it has, none if there is nothing to write. They are on the disk.
    ///
    /// # Errors
    /// It failed as a whole, and the log is down.
    pub fn append<'c, C: Iterator<Item = &'c Change> + Clone>(&mut self, changes: C) -> io::Result<u64> {
        let mut frames = std::mem::take(&mut self.buffer);
        frames.resize(HEADER_BYTES, 0);
        let bytes: usize = changes.clone().map(Change::bytes).sum();
        let budget = (PACE * bytes).max((self.segment_bytes / PIECES) as usize);
        let cleaned = match self.segments.front() {
            Some(oldest) if self.is_cleaning_due() => {
                let copied = self.cleaner.copy(&self.files, self.seed, *oldest, &self.topics, &mut frames, budget);
                copied.unwrap_or_else(|error| self.cleaner.give_up(&error))
            }
            _ => 0,
        };
        for (topic, wanted) in &self.wanted {
            let (topic, Wanted { epoch, first, lost, has_ended }) = (topic.as_str(), *wanted);
            match has_ended {
                true => Entry::End { topic, epoch }.encode(&mut frames),
                false => Entry::Trim { topic, epoch, first, lost }.encode(&mut frames),
            }
        }
        changes.for_each(|change| Entry::from(change).encode(&mut frames));
        let written = self.commit(&mut frames);
        frames.clear();
        frames.shrink_to(BUFFER_BYTES_MAX);
        self.buffer = frames;
        let written = written.inspect_err(|_| self.file = None)?;
        self.cleaner.advance(cleaned);
        self.wanted.clear();
        Ok(written)
    }

    /// Writes a group of frames, which stand behind room for a header, and waits until the disk has them.
    fn commit(&mut self, frames: &mut [u8]) -> io::Result<u64> {
        let body_bytes = (frames.len() - HEADER_BYTES) as u64;
        let (Some(newest), Some(file)) = (self.segments.back_mut(), &self.file) else {
            return Err(io::Error::other("the log is down"));
        };
        if body_bytes == 0 {
            return Ok(0);
        }
        let group = self.group + 1;
        let place = if newest.bytes > HEADER_BYTES as u64 && newest.bytes + body_bytes > self.segment_bytes {
            let number = self.next;
            frames[..HEADER_BYTES].copy_from_slice(&segment::header(self.seed, number));
            record::seal(&mut frames[HEADER_BYTES..], Stamp::new(self.seed, number), HEADER_BYTES as u64, group);
            let file = self.files.create(&segment::name(number))?;
            self.files.write_all_at(&file, frames, 0)?;
            self.files.sync(&file)?;
            self.files.sync_directory()?;
            self.file = Some(file);
            self.segments.push_back(Segment { number, bytes: frames.len() as u64 });
            self.next += 1;
            HEADER_BYTES as u64
        } else {
            let (stamp, place) = (Stamp::new(self.seed, newest.number), newest.bytes);
            record::seal(&mut frames[HEADER_BYTES..], stamp, place, group);
            self.files.write_all_at(file, &frames[HEADER_BYTES..], place)?;
            self.files.sync(file)?;
            newest.bytes += body_bytes;
            place
        };
        self.group = group;
        self.apply(&frames[HEADER_BYTES..], place);
        Ok(body_bytes)
    }

    /// Does what the frames say that now stand at this place of the newest segment.
    fn apply(&mut self, mut frames: &[u8], mut place: u64) {
        let Some(newest) = self.segments.back() else { return };
        let stamp = Stamp::new(self.seed, newest.number);
        while let Ok(frame) = record::decode(frames, stamp, place) {
            // Topics of changes have been checked, so nothing is refused here.
            let _ = self.topics.apply(&frame.entry, newest.number, frame.bytes, ());
            (frames, place) = (&frames[frame.bytes..], place + frame.bytes as u64);
        }
    }

    /// Notes what a failed group would have taken away: that goes with the first group that does not fail.
    pub fn remember<'c>(&mut self, changes: impl Iterator<Item = &'c Change>) {
        for change in changes {
            let (topic, wanted) = match change {
                Change::Trim { topic, epoch, first, lost } => {
                    (topic, Wanted { epoch: *epoch, first: *first, lost: *lost, has_ended: false })
                }
                Change::End { topic, epoch } => (topic, Wanted { epoch: *epoch, first: 0, lost: 0, has_ended: true }),
                Change::Begin { .. } | Change::Put(_) => continue,
            };
            if self.topics.life(topic.as_str(), wanted.epoch).is_some() {
                let known = self.wanted.entry(topic.clone()).or_insert(wanted);
                known.first = known.first.max(wanted.first);
                known.lost = known.lost.max(wanted.lost);
                known.has_ended |= wanted.has_ended;
            }
        }
    }

    /// After a failure: cuts off what may be there of the failed group, and begins a segment.
    ///
    /// # Errors
    /// What the kernel says; the log is still down.
    pub fn recover(&mut self) -> io::Result<()> {
        self.file = None;
        // The failed group may have begun a segment, and an attempt before this one, too.
        self.remove(self.next)?;
        match self.segments.back().copied() {
            Some(newest) if newest.bytes > HEADER_BYTES as u64 => {
                let file = self.files.open(&segment::name(newest.number), true)?;
                self.files.truncate(&file, newest.bytes)?;
                self.files.sync(&file)?;
            }
            Some(newest) => {
                self.remove(newest.number)?;
                self.segments.pop_back();
                self.next = newest.number;
            }
            None => {}
        }
        self.begin_segment()
    }

    /// Begins the next segment without a group.
    fn begin_segment(&mut self) -> io::Result<()> {
        let file = self.files.create(&segment::name(self.next))?;
        self.files.write_all_at(&file, &segment::header(self.seed, self.next), 0)?;
        self.files.sync(&file)?;
        self.files.sync_directory()?;
        self.segments.push_back(Segment { number: self.next, bytes: HEADER_BYTES as u64 });
        self.next += 1;
        self.file = Some(file);
        Ok(())
    }

    /// Removes a segment that may have gone before.
    fn remove(&self, number: u64) -> io::Result<()> {
        match self.files.remove(&segment::name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether groups should be appended, if need be without changes, so that space is given back.
    #[must_use]
    pub fn is_cleaning_due(&self) -> bool {
        let Some(oldest) = self.segments.front() else { return false };
        let is_long = || self.log_bytes() > 2 * self.live_bytes() + self.segment_bytes;
        self.segments.len() > 1 && self.cleaner.wants(oldest.number, is_long)
    }

    /// Removes the oldest segment if all that lives of it is copied and on the disk.
    ///
    /// # Errors
    /// What the kernel says, and the log is down.
    pub fn tidy(&mut self) -> io::Result<()> {
        if let Some(oldest) = self.segments.front().copied()
            && self.cleaner.is_done_with(oldest)
        {
            // One by one, so that never one is missing between others.
            let removed = self.remove(oldest.number).and_then(|()| self.files.sync_directory());
            removed.inspect_err(|_| self.file = None)?;
            self.segments.pop_front();
            self.cleaner.finish();
        }
        Ok(())
    }

    /// Writes the log anew: what is not needed any more is gone when this returns. Whenever it ends before, the log is whole.
    ///
    /// # Errors
    /// What the kernel says, or the damage that was found.
    pub fn compact(&mut self) -> io::Result<()> {
        // A segment without a group is never followed by another one.
        if self.segments.back().is_some_and(|newest| newest.bytes > HEADER_BYTES as u64) {
            self.begin_segment()?;
        }
        let newest = self.next - 1;
        self.cleaner.clean_before(newest);
        while self.segments.front().is_some_and(|oldest| oldest.number < newest) {
            if !self.is_cleaning_due() {
                return Err(io::Error::other("a segment can't be read any more"));
            }
            self.append([].iter())?;
            self.tidy()?;
        }
        Ok(())
    }

    /// Ends the log in order.
    ///
    /// # Errors
    /// What the kernel says. What was appended is on the disk all the same.
    pub fn close(mut self) -> io::Result<()> {
        let mut frames = vec![0; HEADER_BYTES];
        Entry::Close.encode(&mut frames);
        self.commit(&mut frames).map(|_| ())
    }
}

impl<F: Files> std::fmt::Debug for Log<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("segments", &self.segments).field("group", &self.group).finish_non_exhaustive()
    }
}
