//! Frames: what a segment has behind its header.
//!
//! ```text
//! body's length 4 | group 8 | kind 1 | checksum of these 4 | checksum of all 4 | body
//! ```
//!
//! Numbers are little-endian, checksums CRC-32C. They begin with the segment's stamp and with the frame's place, so bytes that stand
//! elsewhere than where they were written are no frame. The head has a checksum of its own, so that behind a damaged place the next
//! frame is found without trying every length.
//!
//! The last frame of a group is marked: a group is there as a whole or not at all. What is decoded may be hostile all the same; decoding
//! never panics, and never takes more memory than the bytes it is given.

use super::Change;
use super::segment::Stamp;
use crate::engine::IdempotencyKey;
use crate::frame::{Epoch, Kind, Payload};

/// Bytes of a frame but for its body.
pub(super) const FRAME_BYTES: usize = 21;

/// Marks the last frame of a group, beside its kind.
const LAST: u8 = 0x80;
/// Offsets are exact as JSON numbers.
const OFFSET_END: u64 = 1 << 53;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Entry<'a> {
    /// All that is known of a topic but for its publications: it begins this life, or goes on with it.
    State(State<'a>),
    /// A publication.
    Put(Put<'a>),
    /// As [`Change::Trim`].
    Trim { topic: &'a str, epoch: Epoch, first: u64, lost: u64 },
    /// As [`Change::End`].
    End { topic: &'a str, epoch: Epoch },
    /// The store was ended in order.
    Close,
}

/// As [`super::Stored`], but for what is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State<'a> {
    pub topic: &'a str,
    pub epoch: Epoch,
    pub last: u64,
    pub first: u64,
    pub lost: u64,
}

/// As [`super::Record`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Put<'a> {
    pub topic: &'a str,
    pub epoch: Epoch,
    pub offset: u64,
    pub at_ms: u64,
    pub until_ms: Option<u64>,
    pub key: Option<Key<'a>>,
    pub kind: Kind,
    pub payload: &'a [u8],
}

/// A publisher's name for a publication, as it comes and as it stands there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Key<'a> {
    Parsed(&'a IdempotencyKey),
    Text(&'a str),
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_text() == other.to_text()
    }
}

impl Key<'_> {
    fn to_text(self) -> String {
        match self {
            Self::Parsed(key) => key.to_string(),
            Self::Text(text) => text.to_owned(),
        }
    }
}

impl Put<'_> {
    /// The payload, framed; `None` if there is no memory for it.
    pub fn payload(&self) -> Option<Payload> {
        // It was checked when it was accepted, and its checksum says that it is still the same.
        Payload::new_unchecked(self.kind, self.payload).ok()
    }

    /// The key; `None` also if it is none, as an older version might have had it.
    pub fn key(&self) -> Option<IdempotencyKey> {
        self.key.and_then(|key| key.to_text().parse().ok())
    }
}

impl<'a> From<&'a Change> for Entry<'a> {
    fn from(change: &'a Change) -> Self {
        match change {
            Change::Begin { topic, epoch } => {
                Self::State(State { topic: topic.as_str(), epoch: *epoch, last: 0, first: 1, lost: 0 })
            }
            Change::Put(record) => {
                let publication = &record.publication;
                Self::Put(Put {
                    topic: publication.topic.as_str(),
                    epoch: publication.position.epoch,
                    offset: publication.position.offset,
                    at_ms: publication.at_ms,
                    until_ms: record.until_ms,
                    key: record.key.as_ref().map(Key::Parsed),
                    kind: publication.payload().kind(),
                    payload: publication.payload().as_bytes(),
                })
            }
            Change::Trim { topic, epoch, first, lost } => {
                Self::Trim { topic: topic.as_str(), epoch: *epoch, first: *first, lost: *lost }
            }
            Change::End { topic, epoch } => Self::End { topic: topic.as_str(), epoch: *epoch },
        }
    }
}

const STATE: u8 = 1;
const PUT: u8 = 2;
const TRIM: u8 = 3;
const END: u8 = 4;
const CLOSE: u8 = 5;

const HAS_UNTIL: u8 = 1;
const HAS_KEY: u8 = 2;

impl Entry<'_> {
    /// What it says it of.
    pub fn topic(&self) -> Option<(&str, Epoch)> {
        match self {
            Self::State(State { topic, epoch, .. })
            | Self::Put(Put { topic, epoch, .. })
            | Self::Trim { topic, epoch, .. }
            | Self::End { topic, epoch } => Some((topic, *epoch)),
            Self::Close => None,
        }
    }

    /// Appends its frame, which [`seal`] completes.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; FRAME_BYTES]);
        if let Some((topic, epoch)) = self.topic() {
            short(buffer, topic);
            short(buffer, epoch.as_str());
        }
        let kind = match self {
            Self::State(State { last, first, lost, .. }) => {
                numbers(buffer, &[*last, *first, *lost]);
                STATE
            }
            Self::Put(put) => {
                numbers(buffer, &[put.offset, put.at_ms]);
                let flags = if put.until_ms.is_some() { HAS_UNTIL } else { 0 } | if put.key.is_some() { HAS_KEY } else { 0 };
                buffer.extend_from_slice(&[kind_code(put.kind), flags]);
                numbers(buffer, put.until_ms.as_slice());
                if let Some(key) = put.key {
                    let text = key.to_text();
                    buffer.extend_from_slice(&(text.len() as u16).to_le_bytes());
                    buffer.extend_from_slice(text.as_bytes());
                }
                buffer.extend_from_slice(put.payload);
                PUT
            }
            Self::Trim { first, lost, .. } => {
                numbers(buffer, &[*first, *lost]);
                TRIM
            }
            Self::End { .. } => END,
            Self::Close => CLOSE,
        };
        // A message is far below 4 GiB: a WebSocket frame of that size is refused long before.
        let body_bytes = (buffer.len() - start - FRAME_BYTES) as u32;
        buffer[start..start + 4].copy_from_slice(&body_bytes.to_le_bytes());
        buffer[start + 12] = kind;
    }
}

/// Text of at most 255 bytes, which topics and epochs are.
fn short(buffer: &mut Vec<u8>, text: &str) {
    buffer.push(text.len() as u8);
    buffer.extend_from_slice(text.as_bytes());
}

fn numbers(buffer: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| buffer.extend_from_slice(&number.to_le_bytes()));
}

const fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Json => 0,
        Kind::Text => 1,
        Kind::Binary => 2,
    }
}

/// Completes the frames of one group, which will stand from `position` on.
pub(super) fn seal(frames: &mut [u8], stamp: Stamp, mut position: u64, group: u64) {
    let mut rest = frames;
    while rest.len() >= FRAME_BYTES {
        let bytes = FRAME_BYTES + u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let (frame, behind) = rest.split_at_mut(bytes);
        frame[4..12].copy_from_slice(&group.to_le_bytes());
        if behind.is_empty() {
            frame[12] |= LAST;
        }
        let head = stamp.of_head(position, &frame[..13]);
        let whole = crc32c::crc32c_append(head, &frame[FRAME_BYTES..]);
        frame[13..17].copy_from_slice(&head.to_le_bytes());
        frame[17..21].copy_from_slice(&whole.to_le_bytes());
        position += bytes as u64;
        rest = behind;
    }
}

/// A frame that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame<'a> {
    pub group: u64,
    /// It is the last one of its group.
    pub is_last: bool,
    /// All its bytes.
    pub bytes: usize,
    pub entry: Entry<'a>,
}

/// What was expected where there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// More bytes: all of the frame, if its head says how many that are.
    Short(Option<usize>),
    /// A head that fits its checksum.
    Head,
    /// A body that fits its checksum.
    Body,
    /// A body that says something of its kind.
    Content,
}

impl Flaw {
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Short(_) => "the rest of a frame",
            Self::Head => "a frame's head that fits its checksum",
            Self::Body => "a frame's body that fits its checksum",
            Self::Content => "a frame that this version knows",
        }
    }
}

/// The head of a frame: the bytes of its body, its group and its kind.
pub(super) fn head(bytes: &[u8], stamp: Stamp, position: u64) -> Result<(usize, u64, u8), Flaw> {
    let head = bytes.get(..17).ok_or(Flaw::Short(None))?;
    let mut reader = Reader(head);
    let (body_bytes, group, kind) = (reader.u32()?, reader.u64()?, reader.u8()?);
    match reader.u32()? == stamp.of_head(position, &head[..13]) {
        true => Ok((body_bytes as usize, group, kind)),
        false => Err(Flaw::Head),
    }
}

/// Reads the frame that `bytes`, which stand at `position`, begin with.
pub(super) fn decode(bytes: &[u8], stamp: Stamp, position: u64) -> Result<Frame<'_>, Flaw> {
    let (body_bytes, group, kind) = head(bytes, stamp, position)?;
    let frame = bytes.get(..FRAME_BYTES + body_bytes).ok_or(Flaw::Short(Some(FRAME_BYTES + body_bytes)))?;
    let (head, body) = frame.split_at(FRAME_BYTES);
    let whole = crc32c::crc32c_append(u32::from_le_bytes([head[13], head[14], head[15], head[16]]), body);
    if head[17..] != whole.to_le_bytes() {
        return Err(Flaw::Body);
    }
    Ok(Frame { group, is_last: kind & LAST != 0, bytes: frame.len(), entry: entry(kind & !LAST, body)? })
}

fn entry(kind: u8, body: &[u8]) -> Result<Entry<'_>, Flaw> {
    let mut reader = Reader(body);
    if kind == CLOSE {
        return reader.end(Entry::Close);
    }
    let (topic, epoch) = (reader.short()?, reader.short()?.parse().map_err(|_| Flaw::Content)?);
    match kind {
        STATE => {
            let (last, first, lost) = (reader.u64()?, reader.u64()?, reader.u64()?);
            reader.end(Entry::State(State { topic, epoch, last, first, lost }))
        }
        PUT => {
            let (offset, at_ms, kind, flags) = (reader.u64()?, reader.u64()?, reader.u8()?, reader.u8()?);
            let kind = match kind {
                0 => Kind::Json,
                1 => Kind::Text,
                2 => Kind::Binary,
                _ => return Err(Flaw::Content),
            };
            if flags & !(HAS_UNTIL | HAS_KEY) != 0 || !(1..OFFSET_END).contains(&offset) {
                return Err(Flaw::Content);
            }
            let until_ms = (flags & HAS_UNTIL != 0).then(|| reader.u64()).transpose()?;
            let key = (flags & HAS_KEY != 0).then(|| reader.long().map(Key::Text)).transpose()?;
            Ok(Entry::Put(Put { topic, epoch, offset, at_ms, until_ms, key, kind, payload: reader.0 }))
        }
        TRIM => {
            let (first, lost) = (reader.u64()?, reader.u64()?);
            reader.end(Entry::Trim { topic, epoch, first, lost })
        }
        END => reader.end(Entry::End { topic, epoch }),
        _ => Err(Flaw::Content),
    }
}

/// What is left of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Flaw::Content)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        self.take(N).and_then(|bytes| bytes.try_into().map_err(|_| Flaw::Content))
    }

    fn u8(&mut self) -> Result<u8, Flaw> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Flaw> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Flaw> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, bytes: usize) -> Result<&'a str, Flaw> {
        std::str::from_utf8(self.take(bytes)?).map_err(|_| Flaw::Content)
    }

    fn short(&mut self) -> Result<&'a str, Flaw> {
        let bytes = self.u8()?;
        self.text(bytes.into())
    }

    fn long(&mut self) -> Result<&'a str, Flaw> {
        let bytes = self.array().map(u16::from_le_bytes)?;
        self.text(bytes.into())
    }

    fn end(self, entry: Entry<'a>) -> Result<Entry<'a>, Flaw> {
        if self.0.is_empty() { Ok(entry) } else { Err(Flaw::Content) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn stamp() -> Stamp {
        Stamp::new(7, 3)
    }

    fn sealed(entries: &[Entry<'_>], position: u64, group: u64) -> Vec<u8> {
        let mut frames = Vec::new();
        entries.iter().for_each(|entry| entry.encode(&mut frames));
        seal(&mut frames, stamp(), position, group);
        frames
    }

    fn epoch() -> Epoch {
        Epoch::from_random(9)
    }

    #[test]
    fn every_kind_reads_back_and_the_last_of_a_group_is_marked() {
        let topic = "a/b";
        let put = Put {
            topic,
            epoch: epoch(),
            offset: 7,
            at_ms: 8,
            until_ms: Some(0),
            key: Some(Key::Text("\"a\\\"b\"")),
            kind: Kind::Json,
            payload: b"{}",
        };
        let entries = [
            Entry::State(State { topic, epoch: epoch(), last: 9, first: 2, lost: 1 }),
            Entry::Put(put),
            Entry::Put(Put { until_ms: None, key: None, payload: b"", kind: Kind::Binary, ..put }),
            Entry::Trim { topic, epoch: epoch(), first: 3, lost: 2 },
            Entry::End { topic, epoch: epoch() },
            Entry::Close,
        ];
        let frames = sealed(&entries, 100, 5);
        let mut read = 0;
        for (place, entry) in entries.iter().enumerate() {
            let frame = decode(&frames[read..], stamp(), 100 + read as u64).unwrap();
            assert_eq!((frame.group, frame.is_last, frame.entry), (5, place == 5, *entry));
            read += frame.bytes;
        }
        assert_eq!(read, frames.len());
        assert_eq!(put.key().unwrap().as_str(), "a\"b");
    }

    #[test]
    fn any_flipped_bit_and_any_other_place_is_found() {
        let frames = sealed(&[Entry::Trim { topic: "a", epoch: epoch(), first: 3, lost: 2 }], 100, 5);
        for bit in 0..frames.len() * 8 {
            let mut flipped = frames.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&flipped, stamp(), 100), Err(Flaw::Head | Flaw::Body)), "{bit}");
        }
        assert_eq!(decode(&frames, stamp(), 101), Err(Flaw::Head));
        assert_eq!(decode(&frames, Stamp::new(7, 4), 100), Err(Flaw::Head));
        assert_eq!(decode(&frames, Stamp::new(8, 3), 100), Err(Flaw::Head));
        for cut in 0..frames.len() {
            let whole = (cut >= 17).then_some(frames.len());
            assert_eq!(decode(&frames[..cut], stamp(), 100), Err(Flaw::Short(whole)));
        }
    }

    proptest! {
        /// Also bytes that fit their checksums are only read, whatever they say.
        #[test]
        fn hostile_bodies_are_read_or_refused(kind in 0u8..8, body in vec(any::<u8>(), 0..80), garbage in vec(any::<u8>(), 0..80)) {
            let mut frame = vec![0; FRAME_BYTES];
            frame.extend_from_slice(&body);
            frame[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
            frame[12] = kind;
            seal(&mut frame, stamp(), 0, 1);
            match decode(&frame, stamp(), 0) {
                Ok(read) => {
                    let mut again = Vec::new();
                    read.entry.encode(&mut again);
                    prop_assert_eq!(&again[FRAME_BYTES..], &body[..]);
                }
                Err(flaw) => prop_assert_eq!(flaw, Flaw::Content),
            }
            prop_assert!(decode(&garbage, stamp(), 0).is_err());
        }

        #[test]
        fn what_is_put_is_what_is_read(topic in "[a-z/]{1,40}", offset in 1..OFFSET_END, at_ms: u64, until_ms: Option<u64>, payload in vec(any::<u8>(), 0..200)) {
            let put = Put { topic: &topic, epoch: epoch(), offset, at_ms, until_ms, key: None, kind: Kind::Binary, payload: &payload };
            let frames = sealed(&[Entry::Put(put)], 28, 1);
            prop_assert_eq!(decode(&frames, stamp(), 28).unwrap().entry, Entry::Put(put));
        }
    }
}
