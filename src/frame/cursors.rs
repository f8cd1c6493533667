//! Where several topics stand, in one text that a client keeps and hands back: `~` and, in base64url, a check and a record for each topic.
//!
//! ```text
//! ~ base64url( check 4 | name 6, epoch 9, offset 7 | name 6, epoch 9, offset 7 | ... )
//! ```
//!
//! A topic is in it by a hash of its name: 64 names of 255 bytes would not fit into the 2 KiB that a header line of a browser should not
//! pass, and the client says the names anyway when it comes back. A hash, and not a place in the list of the URL, because the list may
//! change: then what is still in it goes on where it stood, and what is new is known to be new. Records have one size, so whatever number of
//! topics is allowed at all fits with every epoch and offset, which is known before anything begins. The check tells a text that was changed
//! on its way from one of other topics, whose readers would begin elsewhere without a word.
//!
//! Should two names have one hash, which no 64 names do by chance, one of their readers is told of a gap: the epoch is of the other topic.

use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{CursorError, Epoch, Position, Since};

/// Where several topics stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursors(Vec<(TopicHash, Position)>);

/// What a topic is known by in [`Cursors`]: FNV-1a of its name, 48 bits of it. The same in every version and on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicHash([u8; 6]);

const CHECK_BYTES: usize = 4;
const EPOCH_BYTES: usize = 9;
const OFFSET_BYTES: usize = 7;
const RECORD_BYTES: usize = 6 + EPOCH_BYTES + OFFSET_BYTES;

const _: () = {
    let packed = CHECK_BYTES + Cursors::TOPICS_MAX * RECORD_BYTES;
    assert!(packed.div_ceil(3) * 4 < Cursors::TEXT_BYTES_MAX, "every set of topics that is allowed has its cursor");
    assert!(Epoch::BYTES_MAX * 6 == EPOCH_BYTES * 8, "six bits for each character of an epoch");
};

impl Cursors {
    /// The most topics that one cursor is of.
    pub const TOPICS_MAX: usize = 64;

    /// The longest text, in bytes.
    pub const TEXT_BYTES_MAX: usize = 2048;

    /// The text of these, at least one and at most [`Self::TOPICS_MAX`].
    #[must_use]
    pub fn text(places: impl Iterator<Item = (TopicHash, Position)>) -> String {
        let mut packed = vec![0; CHECK_BYTES];
        for (TopicHash(name), Position { epoch, offset }) in places {
            packed.extend_from_slice(&name);
            packed.extend_from_slice(&pack_epoch(epoch));
            packed.extend_from_slice(&offset.to_le_bytes()[..OFFSET_BYTES]);
        }
        debug_assert!((1..=Self::TOPICS_MAX).contains(&(packed.len() / RECORD_BYTES)), "refused before anything began");
        let check = check(&packed[CHECK_BYTES..]);
        packed[..CHECK_BYTES].copy_from_slice(&check);
        let mut text = "~".to_owned();
        BASE64_URL_SAFE_NO_PAD.encode_string(packed, &mut text);
        text
    }

    /// From where on a reader goes on with the topic of this name: behind its position, or, if the cursor does not have it, with what is
    /// published from now on.
    #[must_use]
    pub fn since(&self, topic: &str) -> Since {
        let wanted = TopicHash::of(topic);
        self.0.iter().find(|(name, _)| *name == wanted).map_or(Since::Latest, |(_, position)| Since::After(*position))
    }
}

impl FromStr for Cursors {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let packed = text.strip_prefix('~').filter(|_| text.len() <= Self::TEXT_BYTES_MAX).ok_or(CursorError)?;
        let packed = BASE64_URL_SAFE_NO_PAD.decode(packed).map_err(|_| CursorError)?;
        let (told, records) = packed.split_first_chunk().ok_or(CursorError)?;
        let count = records.len() / RECORD_BYTES;
        let is_whole = records.len() % RECORD_BYTES == 0 && (1..=Self::TOPICS_MAX).contains(&count);
        if !is_whole || *told != check(records) {
            return Err(CursorError);
        }
        records.chunks_exact(RECORD_BYTES).map(read_record).collect::<Option<_>>().map(Self).ok_or(CursorError)
    }
}

impl TopicHash {
    /// That of the topic of this name.
    #[must_use]
    pub fn of(topic: &str) -> Self {
        let hash =
            topic.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let [bytes @ .., _, _] = (hash ^ hash >> 48).to_le_bytes();
        Self(bytes)
    }
}

fn read_record(record: &[u8]) -> Option<(TopicHash, Position)> {
    let (name, rest) = record.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let mut offset = [0; 8];
    offset[..OFFSET_BYTES].copy_from_slice(rest.get(..OFFSET_BYTES)?);
    let offset = u64::from_le_bytes(offset);
    Some((TopicHash(*name), Position { epoch: unpack_epoch(*epoch)?, offset: (offset < 1 << 53).then_some(offset)? }))
}

/// Six bits a character, the first one lowest; 0 is none.
fn pack_epoch(epoch: Epoch) -> [u8; EPOCH_BYTES] {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0' + 1,
        b'A'..=b'Z' => byte - b'A' + 11,
        _ => byte - b'a' + 37,
    };
    let packed = epoch.as_str().bytes().rev().fold(0, |packed: u128, byte| packed << 6 | u128::from(digit(byte)));
    let mut bytes = [0; EPOCH_BYTES];
    bytes.copy_from_slice(&packed.to_le_bytes()[..EPOCH_BYTES]);
    bytes
}

fn unpack_epoch(bytes: [u8; EPOCH_BYTES]) -> Option<Epoch> {
    let mut packed = [0; 16];
    packed[..EPOCH_BYTES].copy_from_slice(&bytes);
    let mut packed = u128::from_le_bytes(packed);
    let mut text = String::with_capacity(Epoch::BYTES_MAX);
    while packed > 0 {
        text.push(char::from(match (packed & 0x3F) as u8 {
            digit @ 1..=10 => b'0' + digit - 1,
            digit @ 11..=36 => b'A' + digit - 11,
            digit @ 37..=62 => b'a' + digit - 37,
            _ => return None,
        }));
        packed >>= 6;
    }
    text.parse().ok()
}

/// FNV-1a of 32 bits.
fn check(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.parse().unwrap(), offset }
    }

    fn name(number: usize) -> String {
        format!("prices/{number}")
    }

    fn text(places: &[Position]) -> String {
        Cursors::text(places.iter().enumerate().map(|(number, at)| (TopicHash::of(&name(number)), *at)))
    }

    fn positions(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Position>> {
        prop::collection::vec((0_u64..1 << 53, "[A-Za-z0-9]{1,12}").prop_map(|(offset, epoch)| position(&epoch, offset)), count)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(places in positions(1..=Cursors::TOPICS_MAX)) {
            let text = text(&places);
            prop_assert!(text.starts_with('~') && text.len() <= Cursors::TEXT_BYTES_MAX);
            let cursors: Cursors = text.parse().unwrap();
            for (number, at) in places.iter().enumerate() {
                prop_assert_eq!(cursors.since(&name(number)), Since::After(*at));
            }
            prop_assert_eq!(cursors.since(&name(places.len())), Since::Latest);
        }

        #[test]
        fn what_was_changed_is_refused(places in positions(1..4), at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let text = text(&places);
            let at = 1 + at.index(text.len() - 1);
            let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
            prop_assert_eq!(changed.parse::<Cursors>().is_ok(), changed == text);
            prop_assert_eq!(text[..at].parse::<Cursors>(), Err(CursorError));
        }

        #[test]
        fn no_text_is_more_than_refused(text in "~?[ -~]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = text.parse::<Cursors>();
            let _ = format!("~{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes)).parse::<Cursors>();
            let checked = [&check(&bytes)[..], &bytes].concat();
            let _ = format!("~{}", BASE64_URL_SAFE_NO_PAD.encode(checked)).parse::<Cursors>();
        }
    }

    /// Clients keep cursors over versions of the server.
    #[test]
    fn the_form_stays_as_it_is() {
        let known = "~UW1EhSjGWwuRjS8B1gAAAAAAAAQAAAAAAAA";
        let text = Cursors::text([(TopicHash::of("chat"), position("k3Vq", 4))].into_iter());
        assert_eq!(text, known);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let packed = |records: &[u8]| format!("~{}", BASE64_URL_SAFE_NO_PAD.encode([&check(records)[..], records].concat()));
        let record = |epoch: [u8; 9], offset: u64| [&[0; 6][..], &epoch, &offset.to_le_bytes()[..7]].concat();
        let epoch = pack_epoch("abcdefghijkl".parse().unwrap());
        assert!(packed(&record(epoch, 1)).parse::<Cursors>().is_ok());
        assert!(packed(&record(epoch, 1).repeat(64)).parse::<Cursors>().is_ok());
        for (text, why) in [
            (String::new(), "nothing"),
            ("~".into(), "no check"),
            (packed(&[]), "no topic"),
            (packed(&record(epoch, 1)[1..]), "a part of a record"),
            (packed(&record(epoch, 1).repeat(65)), "more topics than may be"),
            (packed(&record(epoch, 1).repeat(500)), "a text of any length"),
            (packed(&record([0; 9], 1)), "no epoch"),
            (packed(&record([0xFF; 9], 1)), "characters that no epoch has"),
            (packed(&record([0, 1, 0, 0, 0, 0, 0, 0, 0], 1)), "nothing where an epoch begins"),
            (packed(&record(epoch, 1 << 53)), "an offset that is no exact number"),
            (packed(&record(epoch, 1)).replacen('~', "", 1), "no sign"),
            (format!("{}=", packed(&record(epoch, 1))), "padding"),
            ("k3Vq.7".into(), "a cursor of one topic"),
        ] {
            assert_eq!(text.parse::<Cursors>(), Err(CursorError), "{why}");
        }
    }
}
