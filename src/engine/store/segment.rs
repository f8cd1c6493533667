//! The header of a segment, and its file's name.
//!
//! ```text
//! magic 8 | version 4 | number 8 | seed 4 | checksum 4 | frame | frame | ...
//! ```
//!
//! The seed is drawn when the directory is made, and is the same in all of its segments. Every checksum of a frame begins with it and with
//! the number, so a payload can't hold what passes for a frame: publishers do not know the seed.

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 28;
/// The version of the format that this program writes and reads.
pub(super) const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"fantail\n";
const EXTENSION: &str = ".log";

/// The name of the segment's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:016x}{EXTENSION}")
}

/// The number of the segment that a file is by its name.
pub(super) fn number_of(file: &str) -> Option<u64> {
    let number = u64::from_str_radix(file.strip_suffix(EXTENSION)?, 16).ok()?;
    (name(number) == file).then_some(number)
}

/// What a segment's checksums begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    pub fn new(seed: u32, number: u64) -> Self {
        Self(crc32c::crc32c_append(seed, &number.to_le_bytes()))
    }

    /// Of a frame's head that stands at `position`.
    pub fn of_head(self, position: u64, head: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &position.to_le_bytes()), head)
    }
}

/// The header of the segment with this number.
pub(super) fn header(seed: u32, number: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    header[20..24].copy_from_slice(&seed.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..24]);
    header[24..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Why bytes are not the header of the segment they are read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Of a version that this program does not know.
    Version(u32),
    /// They are something else.
    Other,
}

/// Reads the header of the segment with this number, and gives its seed.
pub(super) fn seed_of(bytes: &[u8], number: u64) -> Result<u32, BadHeader> {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(BadHeader::Other) };
    let number_at = |place: usize| u32::from_le_bytes([bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3]]);
    let (version, seed) = (number_at(8), number_at(20));
    match bytes[..8] == MAGIC && version != VERSION && version != 0 {
        // What stands behind it may be laid out otherwise, so it says nothing.
        true => Err(BadHeader::Version(version)),
        false if *bytes == header(seed, number) => Ok(seed),
        false => Err(BadHeader::Other),
    }
}

/// Whether bytes may be a header that was being written when all ended: its beginning, then nothing or zeros.
pub(super) fn is_torn_header(bytes: &[u8], seed: Option<u32>, number: u64) -> bool {
    let bytes = &bytes[..bytes.len().min(HEADER_BYTES)];
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // Without another segment nobody knows the seed, which is behind the number.
    let (known, whole) = seed.map_or((20, header(0, number)), |seed| (HEADER_BYTES, header(seed, number)));
    let compared = written.min(known);
    bytes[..compared] == whole[..compared] && (bytes.len() < HEADER_BYTES || written < HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_its_number_and_seed() {
        let bytes = header(7, 3);
        assert_eq!((seed_of(&bytes, 3), seed_of(&bytes, 4)), (Ok(7), Err(BadHeader::Other)));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(seed_of(&flipped, 3).is_err(), "{bit}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(seed_of(&newer, 3), Err(BadHeader::Version(2)));
        for seed in [None, Some(7)] {
            for cut in 0..HEADER_BYTES {
                let mut zeros = bytes;
                zeros[cut..].fill(0);
                assert!(is_torn_header(&bytes[..cut], seed, 3) && is_torn_header(&zeros, seed, 3), "{cut}");
            }
            let mut damaged = bytes;
            damaged[9] ^= 1;
            assert!(!is_torn_header(&bytes, seed, 3) && !is_torn_header(&damaged, seed, 3));
        }
    }

    #[test]
    fn a_name_is_a_number() {
        assert_eq!((name(0xab).as_str(), number_of("00000000000000ab.log")), ("00000000000000ab.log", Some(0xab)));
        for other in
            ["ab.log", "00000000000000AB.log", "+0000000000000ab.log", "00000000000000ab", "lock", "00000000000000ab.log.bak"]
        {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
