//! Decodes a chunked body (RFC 9112 section 7.1), from input cut anywhere.
//!
//! What may grow with the sender's will is bounded: a chunk's size has at most 16 digits, extensions (skipped, RFC 9112 section
//! 7.1.1) and trailers (dropped, section 7.1.2) have their budgets below, and every chunk but the last carries a byte. So a body
//! of N bytes takes at most 20 N bytes of framing beside those budgets, and none of the framing is kept in memory.

use super::HttpError;
use super::scan::{SectionScan, is_field_byte};

/// The digits of one chunk's size: as many as 64 bits need. Leading zeros count, or they could go on for ever.
const SIZE_DIGITS_MAX: u8 = 16;
/// The extensions of one chunk, in bytes. Nobody is known to send any; a signature, the one use ever proposed, would fit.
const CHUNK_EXTENSION_BYTES_MAX: u16 = 256;
/// The extensions of all chunks of one body, in bytes.
const BODY_EXTENSION_BYTES_MAX: u16 = 4096;
/// The trailer section of one body, in bytes.
const TRAILER_BYTES_MAX: usize = 4096;

/// Decodes one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkedDecoder {
    at: At,
    size_digits: u8,
    chunk_extension_bytes: u16,
    body_extension_bytes: u16,
    /// What the current chunk still brings, in bytes.
    chunk_bytes: u64,
    /// What all chunks up to and with the current one bring, in bytes.
    body_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size,
    /// Whitespace between a size and the semicolon of its extensions.
    SizeEnd,
    Extension,
    /// Behind the CR of the size line.
    SizeLineEnd,
    Data,
    /// Behind a chunk's data.
    DataEnd,
    /// Behind the CR that follows a chunk's data.
    DataLineEnd,
    Trailers(SectionScan),
}

/// What a run of input holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'i> {
    /// Framing alone: bring more.
    More,
    /// Bytes of the body.
    Data(&'i [u8]),
    /// The end of the body.
    End,
}

impl ChunkedDecoder {
    pub fn new() -> Self {
        Self { at: At::Size, size_digits: 0, chunk_extension_bytes: 0, body_extension_bytes: 0, chunk_bytes: 0, body_bytes: 0 }
    }

    /// The next part and how many bytes of `input` it took.
    ///
    /// # Errors
    /// [`HttpError::BadChunk`], and [`HttpError::MessageTooLarge`] as soon as a size crosses `body_bytes_max`, before its data.
    pub fn next<'i>(&mut self, input: &'i [u8], body_bytes_max: u64) -> Result<(usize, Part<'i>), HttpError> {
        let mut taken = 0;
        while taken < input.len() {
            let rest = &input[taken..];
            match &mut self.at {
                At::Data => {
                    let data = &rest[..rest.len().min(usize::try_from(self.chunk_bytes).unwrap_or(usize::MAX))];
                    self.take_data(data.len());
                    return Ok((taken + data.len(), Part::Data(data)));
                }
                At::Trailers(scan) => {
                    let end = scan.feed(rest, TRAILER_BYTES_MAX).map_err(|_| HttpError::BadChunk)?;
                    return Ok(end.map_or((input.len(), Part::More), |end| (taken + end, Part::End)));
                }
                _ => self.step(rest[0], body_bytes_max)?,
            }
            taken += 1;
        }
        Ok((taken, Part::More))
    }

    /// Takes one byte of framing.
    fn step(&mut self, byte: u8, body_bytes_max: u64) -> Result<(), HttpError> {
        self.at = match (self.at, byte) {
            (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.add_digit(byte, body_bytes_max)?,
            (At::Size, _) if self.size_digits == 0 => return Err(HttpError::BadChunk),
            (At::Size | At::Extension, b'\r') => At::SizeLineEnd,
            (At::Size | At::SizeEnd, b' ' | b'\t') => self.add_extension(At::SizeEnd)?,
            (At::Size | At::SizeEnd, b';') => self.add_extension(At::Extension)?,
            (At::Extension, _) if is_field_byte(byte) => self.add_extension(At::Extension)?,
            (At::SizeLineEnd, b'\n') => self.begin_chunk(),
            (At::DataEnd, b'\r') => At::DataLineEnd,
            (At::DataLineEnd, b'\n') => At::Size,
            _ => return Err(HttpError::BadChunk),
        };
        Ok(())
    }

    /// The limit is checked at every digit, so ffffffffffffffff is refused before its line ends.
    fn add_digit(&mut self, digit: u8, body_bytes_max: u64) -> Result<At, HttpError> {
        if self.size_digits == SIZE_DIGITS_MAX {
            return Err(HttpError::BadChunk);
        }
        self.size_digits += 1;
        let value = (digit as char).to_digit(16).map_or(0, u64::from);
        self.chunk_bytes = self.chunk_bytes << 4 | value;
        if self.body_bytes.checked_add(self.chunk_bytes).is_none_or(|body_bytes| body_bytes > body_bytes_max) {
            return Err(HttpError::MessageTooLarge { body_bytes: None, limit_bytes: body_bytes_max });
        }
        Ok(At::Size)
    }

    fn add_extension(&mut self, next: At) -> Result<At, HttpError> {
        self.chunk_extension_bytes += 1;
        self.body_extension_bytes += 1;
        let within =
            self.chunk_extension_bytes <= CHUNK_EXTENSION_BYTES_MAX && self.body_extension_bytes <= BODY_EXTENSION_BYTES_MAX;
        if within { Ok(next) } else { Err(HttpError::BadChunk) }
    }

    fn begin_chunk(&mut self) -> At {
        self.size_digits = 0;
        self.chunk_extension_bytes = 0;
        self.body_bytes += self.chunk_bytes;
        if self.chunk_bytes == 0 { At::Trailers(SectionScan::trailers()) } else { At::Data }
    }

    fn take_data(&mut self, bytes: usize) {
        self.chunk_bytes -= bytes as u64;
        if self.chunk_bytes == 0 {
            self.at = At::DataEnd;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` cut into pieces of `piece_bytes`: the body and what stands behind it.
    fn decode_cut(input: &[u8], piece_bytes: usize, body_bytes_max: u64) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
        let (mut decoder, mut body, mut at) = (ChunkedDecoder::new(), Vec::new(), 0);
        while at < input.len() {
            let piece = &input[at..input.len().min(at + piece_bytes)];
            let (taken, part) = decoder.next(piece, body_bytes_max)?;
            assert!((1..=piece.len()).contains(&taken));
            at += taken;
            match part {
                Part::More => {}
                Part::Data(data) => body.extend_from_slice(data),
                Part::End => return Ok(Some((body, input.len() - at))),
            }
        }
        Ok(None)
    }

    fn decode(input: &[u8], body_bytes_max: u64) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
        let whole = decode_cut(input, usize::MAX / 2, body_bytes_max);
        for piece_bytes in 1..8 {
            assert_eq!(decode_cut(input, piece_bytes, body_bytes_max), whole, "in pieces of {piece_bytes}");
        }
        whole
    }

    #[test]
    fn good_bodies_are_decoded_to_their_last_byte() {
        for (input, body, rest) in [
            (&b"0\r\n\r\n"[..], &b""[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET /", b"hello", 5),
            (b"0005;a=b;c=\"d e\"\r\nhello\r\nA \t;x\r\n, world :)\r\n0;z\r\n\r\n", b"hello, world :)", 0),
            (b"1\r\n\n\r\n00\r\nExpires: never\r\nA: b\r\n\r\n", b"\n", 0),
        ] {
            assert_eq!(decode(input, 1000), Ok(Some((body.to_vec(), rest))));
        }
        assert_eq!(decode(b"5\r\nhello\r\n0\r\n", 1000), Ok(None));
    }

    #[test]
    fn bad_framing_is_refused() {
        for input in [
            &b"\r\n"[..],
            b"0x5\r\n",
            b"+5\r\n",
            b"-1\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5 5\r\n",
            b"5\n",
            b"5\rh",
            b"5;a\n",
            b"5;a\0",
            b"2\r\nhello",
            b"2\r\nhe\nx",
            b"2\r\nhe\r\r",
            b"2\r\nhe\r\n\r\n",
            b"00000000000000000\r\n",
            b"0\r\nA: b\n",
            b"0\r\n A: b\r\n",
            b"0\r\n\rx",
        ] {
            assert_eq!(decode(input, 1000), Err(HttpError::BadChunk), "{:?}", input.escape_ascii().to_string());
        }
    }

    #[test]
    fn sizes_are_limited_before_their_data() {
        let too_large = |limit_bytes| Err(HttpError::MessageTooLarge { body_bytes: None, limit_bytes });
        for input in [&b"ffffffffffffffff"[..], b"3e9", b"1\r\nx\r\n3e8"] {
            assert_eq!(decode(input, 1000), too_large(1000));
        }
        assert_eq!(decode(b"3e8\r\n", 1000), Ok(None));
        assert_eq!(decode(b"ffffffffffffffff\r\n", u64::MAX), Ok(None));
        assert_eq!(decode(b"1\r\nx\r\nffffffffffffffff\r\n", u64::MAX), too_large(u64::MAX));
    }

    #[test]
    fn extensions_and_trailers_have_budgets() {
        let extension = |bytes: usize| format!("1;{}\r\nx\r\n", "e".repeat(bytes - 1));
        let most = usize::from(CHUNK_EXTENSION_BYTES_MAX);
        assert_eq!(decode(extension(most).as_bytes(), 1000), Ok(None));
        assert_eq!(decode(extension(most + 1).as_bytes(), 1000), Err(HttpError::BadChunk));
        let chunks = usize::from(BODY_EXTENSION_BYTES_MAX) / most;
        assert_eq!(decode(extension(most).repeat(chunks).as_bytes(), 1000), Ok(None));
        assert_eq!(decode(extension(most).repeat(chunks + 1).as_bytes(), 1000), Err(HttpError::BadChunk));
        let trailers = format!("0\r\nA: {}", "b".repeat(TRAILER_BYTES_MAX));
        assert_eq!(decode(trailers.as_bytes(), 1000), Err(HttpError::BadChunk));
    }

    #[test]
    fn framing_is_bounded_by_the_body() {
        let chunk = format!("{}1\r\nx\r\n", "0".repeat(usize::from(SIZE_DIGITS_MAX) - 1));
        let endless = chunk.repeat(1001);
        let mut decoder = ChunkedDecoder::new();
        let mut bytes = endless.as_bytes().iter();
        let refused = bytes.position(|byte| decoder.next(&[*byte], 1000).is_err()).unwrap();
        assert!(refused <= 1001 * 21, "{refused} bytes were taken for a body of 1000");
    }
}
