//! Reads a log from its oldest segment to its newest, once.
//!
//! Whoever opens a store is told of the first place where something else stands than was written. Only at the very end something may
//! be missing, because all may have ended while a group was being written: bytes behind the last whole group, behind which no frame
//! of a later group is found. Nobody was told that such a group is stored, and it is left out whole.
//!
//! Whoever saves what can be read is told of every such place, and goes on behind it.

use std::io;
use std::path::PathBuf;

use super::Kept;
use super::error::{Cut, Damage, OpenError};
use super::files::{Files, LOCK};
use super::record::{self, Entry, FRAME_BYTES, Flaw, Frame, Put};
use super::segment::{self, BadHeader, HEADER_BYTES, Stamp};
use super::topics::Topics;

/// A file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub number: u64,
    /// Its bytes, up to the last whole group.
    pub bytes: u64,
}

/// What a log holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// From the oldest to the newest.
    pub segments: Vec<Segment>,
    /// A segment, the newest, in which nothing stands but the torn beginning of its first group.
    pub torn: Option<u64>,
    pub seed: Option<u32>,
    /// The newest whole group, 0 before the first.
    pub group: u64,
    pub topics: Topics<Option<Kept>>,
    /// What is left out at the end.
    pub cut: Option<Cut>,
    /// The store was ended in order.
    pub is_closed: bool,
    /// Frames that were read.
    pub frames: u64,
}

/// Reads a log.
///
/// # Errors
/// What stands there is no log, or not as it was written.
pub(super) fn read<F: Files>(files: &F) -> Result<Contents, OpenError> {
    Scan::new(files, None).run()
}

/// Reads what can be read of a log, and tells what cannot.
///
/// # Errors
/// The directory can't be read.
pub(super) fn salvage<F: Files>(files: &F, tell: &mut dyn FnMut(OpenError)) -> Result<Contents, OpenError> {
    Scan::new(files, Some(tell)).run()
}

/// The numbers of the segments, in order.
pub(super) fn numbers<F: Files>(files: &F) -> Result<(Vec<u64>, Vec<OpenError>), OpenError> {
    let (mut numbers, mut errors) = (Vec::new(), Vec::new());
    for name in files.list().map_err(|error| OpenError::io(files.path(), error))? {
        match segment::number_of(&name) {
            Some(number) => numbers.push(number),
            // The root of a file system has a directory of this name.
            None if name == LOCK || name == "lost+found" => {}
            None => errors.push(OpenError::Foreign { path: files.path().join(name) }),
        }
    }
    numbers.sort_unstable();
    for pair in numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]) {
        errors.push(OpenError::Missing { path: files.path().join(segment::name(pair[0] + 1)) });
    }
    Ok((numbers, errors))
}

/// Bytes of a file that are read at a time: as much is left out where the disk can't read.
const PIECE_BYTES: usize = 64 * 1024;

struct Scan<'s, F> {
    files: &'s F,
    /// Who is told what can't be read; without anybody that is the end.
    tell: Option<&'s mut dyn FnMut(OpenError)>,
    contents: Contents,
    /// There has been a group.
    has_begun: bool,
}

impl<'s, F: Files> Scan<'s, F> {
    fn new(files: &'s F, tell: Option<&'s mut dyn FnMut(OpenError)>) -> Self {
        let contents = Contents {
            segments: Vec::new(),
            torn: None,
            seed: None,
            group: 0,
            topics: Topics::new(),
            cut: None,
            is_closed: false,
            frames: 0,
        };
        Self { files, tell, contents, has_begun: false }
    }

    fn run(mut self) -> Result<Contents, OpenError> {
        let (numbers, errors) = numbers(self.files)?;
        errors.into_iter().try_for_each(|error| self.complain(error))?;
        self.contents.seed = numbers.iter().find_map(|number| self.seed(*number));
        for number in &numbers {
            let bytes = self.load(*number)?;
            self.segment(*number, &bytes, Some(number) == numbers.last())?;
        }
        Ok(self.contents)
    }

    fn complain(&mut self, error: OpenError) -> Result<(), OpenError> {
        match &mut self.tell {
            Some(tell) => {
                tell(error);
                Ok(())
            }
            None => Err(error),
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.files.path().join(segment::name(number))
    }

    fn damage(&self, number: u64, offset: usize, expected: impl Into<String>) -> OpenError {
        Damage { path: self.path(number), offset: offset as u64, expected: expected.into() }.into()
    }

    /// The seed that the segment's header has, if it can be read.
    fn seed(&self, number: u64) -> Option<u32> {
        let mut header = [0; HEADER_BYTES];
        let file = self.files.open(&segment::name(number), false).ok()?;
        self.files.read_full_at(&file, &mut header, 0).ok()?;
        segment::seed_of(&header, number).ok()
    }

    /// All bytes of the segment, with zeros where the disk can't read.
    fn load(&mut self, number: u64) -> Result<Vec<u8>, OpenError> {
        let path = self.path(number);
        let opened = self.files.open(&segment::name(number), false).and_then(|file| Ok((self.files.length(&file)?, file)));
        let (length, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.complain(OpenError::io(&path, error))?;
                return Ok(Vec::new());
            }
        };
        let mut bytes = Vec::new();
        let length = usize::try_from(length).ok().filter(|length| bytes.try_reserve_exact(*length).is_ok());
        let length = length.ok_or_else(|| OpenError::io(&path, io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(length, 0);
        for (piece, buffer) in bytes.chunks_mut(PIECE_BYTES).enumerate() {
            if let Err(error) = self.files.read_full_at(&file, buffer, (piece * PIECE_BYTES) as u64) {
                self.complain(OpenError::io(&path, error))?;
            }
        }
        Ok(bytes)
    }

    fn segment(&mut self, number: u64, bytes: &[u8], is_newest: bool) -> Result<(), OpenError> {
        let seed = self.contents.seed;
        let error = match segment::seed_of(bytes, number) {
            Ok(own) if seed == Some(own) => return self.frames(number, bytes, Stamp::new(own, number), is_newest),
            Ok(_) => self.damage(number, 20, "the seed of the segments before it"),
            Err(BadHeader::Version(version)) => OpenError::Version { path: self.path(number), version },
            Err(BadHeader::Other) => {
                let has_more = seed.map_or(bytes.len() > HEADER_BYTES, |seed| {
                    next_frame(bytes, Stamp::new(seed, number), HEADER_BYTES, self.contents.group + 1).is_some()
                });
                if is_newest && !has_more && segment::is_torn_header(bytes, seed, number) {
                    self.contents.torn = Some(number);
                    self.contents.cut = Some(Cut { path: self.path(number), offset: 0, bytes: bytes.len() as u64 });
                    return Ok(());
                }
                self.damage(number, 0, format!("the header of segment {number:x}"))
            }
        };
        self.complain(error)?;
        seed.map_or(Ok(()), |seed| self.frames(number, bytes, Stamp::new(seed, number), is_newest))
    }

    fn frames(&mut self, number: u64, bytes: &[u8], stamp: Stamp, is_newest: bool) -> Result<(), OpenError> {
        // Behind the last whole group; then the frames of one that is not whole yet.
        let (mut end, mut place, mut group) = (HEADER_BYTES, HEADER_BYTES, Vec::new());
        while place < bytes.len() {
            match record::decode(&bytes[place..], stamp, place as u64) {
                Ok(frame) => {
                    if self.has_begun && frame.group != self.contents.group + 1 {
                        self.complain(self.damage(number, place, format!("a frame of group {}", self.contents.group + 1)))?;
                        self.apply(number, &mut group)?;
                        self.contents.group = frame.group.saturating_sub(1);
                    }
                    (self.has_begun, self.contents.group) = (true, frame.group.saturating_sub(1));
                    group.push((place, frame));
                    place += frame.bytes;
                    if frame.is_last {
                        self.apply(number, &mut group)?;
                        (self.contents.group, end) = (frame.group, place);
                    }
                }
                Err(flaw) => {
                    let next = next_frame(bytes, stamp, place + 1, self.contents.group + 1);
                    if is_newest && next.is_none() && flaw != Flaw::Content {
                        break;
                    }
                    self.complain(self.damage(number, place, flaw.expected()))?;
                    self.apply(number, &mut group)?;
                    // Whoever saves what there is takes any frame.
                    place = next_frame(bytes, stamp, place + 1, 0).unwrap_or(bytes.len());
                    end = place;
                    self.has_begun = false;
                }
            }
        }
        // A segment is followed by another one only once it has a group.
        if (end < bytes.len() || end == HEADER_BYTES) && !is_newest {
            self.complain(self.damage(number, bytes.len(), format!("the rest of group {}", self.contents.group + 1)))?;
            self.apply(number, &mut group)?;
        } else if end < bytes.len() {
            self.contents.cut = Some(Cut { path: self.path(number), offset: end as u64, bytes: (bytes.len() - end) as u64 });
        }
        self.contents.segments.push(Segment { number, bytes: end as u64 });
        Ok(())
    }

    /// Does what the frames of a group say.
    fn apply(&mut self, number: u64, group: &mut Vec<(usize, Frame<'_>)>) -> Result<(), OpenError> {
        for (place, frame) in group.drain(..) {
            let kept = match &frame.entry {
                Entry::Put(put) => {
                    Some(kept(put).ok_or_else(|| OpenError::io(&self.path(number), io::ErrorKind::OutOfMemory.into()))?)
                }
                _ => None,
            };
            self.contents.is_closed = frame.entry == Entry::Close;
            self.contents.frames += 1;
            if let Err(error) = self.contents.topics.apply(&frame.entry, number, frame.bytes, kept) {
                self.complain(self.damage(number, place, format!("a topic's name, but {error}")))?;
            }
        }
        Ok(())
    }
}

fn kept(put: &Put<'_>) -> Option<Kept> {
    let (offset, at_ms, until_ms) = (put.offset, put.at_ms, put.until_ms);
    Some(Kept { offset, at_ms, payload: put.payload()?, until_ms, key: put.key() })
}

/// Where the next frame stands that is of a group behind this one.
fn next_frame(bytes: &[u8], stamp: Stamp, from: usize, behind: u64) -> Option<usize> {
    let end = (bytes.len() + 1).saturating_sub(FRAME_BYTES);
    (from..end).find(|place| {
        let bytes = &bytes[*place..];
        // What almost no bytes pass comes before what costs something.
        let has_room = |body: [u8; 4]| u32::from_le_bytes(body) as usize <= bytes.len() - FRAME_BYTES;
        bytes.first_chunk().copied().is_some_and(has_room)
            && record::decode(bytes, stamp, *place as u64).is_ok_and(|frame| frame.group > behind)
    })
}
