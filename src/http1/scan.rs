//! Finds where a head or a trailer section ends, and refuses early what no section may contain.
//!
//! A section is lines and an empty line (RFC 9112 sections 2.1 and 7.1.2). Each byte is looked at once, whatever the cuts: the
//! scan remembers where it stopped, so a head that comes one byte at a time costs no more than a whole one. What it lets
//! through is not yet right, only safe to split into lines by CR LF: [`Head::parse`](super::Head::parse) checks the rest. Trailers
//! are dropped unparsed, so of them the scan checks the names, too.

use super::{HEADERS_MAX, HttpError};

/// A scan under way. Feed it the bytes of one section, in order, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SectionScan {
    at: At,
    line: Line,
    headers: usize,
    bytes: usize,
}

/// What the line is that the scan is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// The first line of a head, which has a narrower alphabet.
    Request,
    Header,
    Trailer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    /// In the name of a trailer.
    Name,
    Line,
    /// Behind the CR of a line.
    LineEnd,
    /// Behind the CR of the empty line.
    SectionEnd,
}

impl SectionScan {
    /// A scan for the end of a head; its first line is the request line.
    pub fn head() -> Self {
        Self { at: At::LineStart, line: Line::Request, headers: 0, bytes: 0 }
    }

    /// A scan for the end of a trailer section.
    pub fn trailers() -> Self {
        Self { line: Line::Trailer, ..Self::head() }
    }

    /// Looks at the next bytes. `Some` is how many of them belong to the section, up to its end; `None` means all, and more to come.
    ///
    /// # Errors
    /// The first rule broken, as soon as its byte is seen; [`HttpError::HeadTooLarge`] if `bytes_max` bytes hold no end.
    pub fn feed(&mut self, input: &[u8], bytes_max: usize) -> Result<Option<usize>, HttpError> {
        let allowed = &input[..input.len().min(bytes_max.saturating_sub(self.bytes))];
        let mut seen = 0;
        loop {
            if self.at == At::Line {
                seen += self.plain_length(&allowed[seen..]);
            }
            let Some(&byte) = allowed.get(seen) else { break };
            seen += 1;
            if self.step(byte)? {
                self.bytes += seen;
                return Ok(Some(seen));
            }
        }
        self.bytes += seen;
        if self.bytes < bytes_max { Ok(None) } else { Err(HttpError::HeadTooLarge { limit_bytes: bytes_max as u64 }) }
    }

    /// How many bytes at the start are the inside of a line: all up to its CR, if they are plain, else those before the first that is
    /// not.
    fn plain_length(&self, bytes: &[u8]) -> usize {
        let line = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
        if self.are_plain(line) { line.len() } else { line.iter().take_while(|byte| self.is_plain(**byte)).count() }
    }

    fn are_plain(&self, line: &[u8]) -> bool {
        if self.line == Line::Request { all(line, is_request_byte) } else { all(line, is_field_byte) }
    }

    /// Takes a byte that is not the inside of a line; true at the end of the section.
    fn step(&mut self, byte: u8) -> Result<bool, HttpError> {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        self.at = match (self.at, byte) {
            (At::LineStart, b'\r') => At::SectionEnd,
            (At::LineStart, _) => self.begin_line(byte)?,
            (At::Name, b':') => At::Line,
            (At::Name, _) if is_token_byte(byte) => At::Name,
            (At::Name, _) => return Err(HttpError::BadHeader),
            (At::Line, b'\r') => At::LineEnd,
            (At::LineEnd, b'\n') => {
                if self.line == Line::Request {
                    self.line = Line::Header;
                }
                At::LineStart
            }
            (At::SectionEnd, b'\n') => return Ok(true),
            (At::LineEnd | At::SectionEnd, _) | (At::Line, b'\n') => return Err(HttpError::BareLineEnd),
            (At::Line, 0x80..) => return Err(HttpError::BadTarget),
            (At::Line, _) => return Err(HttpError::ControlByte),
        };
        Ok(false)
    }

    /// A method and a header name are tokens, so every line begins with a byte of one.
    fn begin_line(&mut self, byte: u8) -> Result<At, HttpError> {
        if !is_token_byte(byte) {
            return Err(match byte {
                _ if self.line == Line::Request => HttpError::NotHttp,
                b' ' | b'\t' => HttpError::FoldedHeader,
                b'\n' => HttpError::BareLineEnd,
                0..0x20 | 0x7F => HttpError::ControlByte,
                _ => HttpError::BadHeader,
            });
        }
        self.headers += usize::from(self.line != Line::Request);
        match self.line {
            _ if self.headers > HEADERS_MAX => Err(HttpError::TooManyHeaders),
            Line::Trailer => Ok(At::Name),
            Line::Request | Line::Header => Ok(At::Line),
        }
    }

    /// The inside of a request line is ASCII; that of a header line may hold bytes above (RFC 9110 section 5.5) and tabs.
    fn is_plain(&self, byte: u8) -> bool {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        if self.line == Line::Request { is_request_byte(byte) } else { is_field_byte(byte) }
    }
}

/// Whether all are of a kind: block by block, which the compiler makes a few instructions each; the last block may lie over the one
/// before it.
#[inline]
fn all(bytes: &[u8], is: impl Fn(u8) -> bool) -> bool {
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + bytes.len());
    let (blocks, rest) = bytes.as_chunks::<16>();
    let in_block = |block: &[u8; 16]| {
        let mut all = true;
        for byte in block {
            all &= is(*byte);
        }
        all
    };
    let in_rest = || bytes.last_chunk().map_or_else(|| rest.iter().all(|byte| is(*byte)), in_block);
    blocks.iter().all(in_block) && in_rest()
}

/// Whether the inside of a request line may be `byte`.
const fn is_request_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Whether a token (RFC 9110 section 5.6.2) may contain `byte`.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// Whether a field line (RFC 9110 section 5.5) may contain `byte`: no control byte but the tab.
pub(super) const fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
thread_local! {
    /// How often the scans of this thread looked at a byte: what a test of linear work counts instead of time.
    pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(input: &[u8]) -> Result<Option<usize>, HttpError> {
        SectionScan::head().feed(input, 1000)
    }

    #[test]
    fn a_head_ends_behind_its_empty_line() {
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r\nrest"), Ok(Some(18)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\nA: \xFF\t\r\n\r\n"), Ok(Some(25)));
        assert_eq!(scan(b"GET / HTTP/1.1\r\n\r"), Ok(None));
        assert_eq!(SectionScan::trailers().feed(b"\r\n", 1000), Ok(Some(2)));
        assert_eq!(SectionScan::trailers().feed(b"A: b\r\nC:\r\n\r\nrest", 1000), Ok(Some(12)));
    }

    #[test]
    fn a_trailer_has_a_name() {
        for input in [&b"no colon\r\n\r\n"[..], b"A\r\n\r\n", b"A : b\r\n\r\n", b"A: b\r\n:\r\n\r\n"] {
            assert_eq!(SectionScan::trailers().feed(input, 1000), Err(HttpError::BadHeader));
        }
    }

    #[test]
    fn what_no_head_contains_is_refused_at_its_byte() {
        for (input, error) in [
            (&b"\x16"[..], HttpError::NotHttp),
            (b" ", HttpError::NotHttp),
            (b"G\n", HttpError::BareLineEnd),
            (b"G\0", HttpError::ControlByte),
            (b"G\t", HttpError::ControlByte),
            (b"G\xFF", HttpError::BadTarget),
            (b"G\r\r", HttpError::BareLineEnd),
            (b"G\r\n ", HttpError::FoldedHeader),
            (b"G\r\n\n", HttpError::BareLineEnd),
            (b"G\r\n\0", HttpError::ControlByte),
            (b"G\r\n:", HttpError::BadHeader),
            (b"G\r\nA\x7F", HttpError::ControlByte),
            (b"G\r\n\rx", HttpError::BareLineEnd),
        ] {
            assert_eq!(scan(input), Err(error), "{:?}", input.escape_ascii().to_string());
            assert_eq!(scan(&input[..input.len() - 1]), Ok(None), "the byte before is not to blame");
        }
    }

    #[test]
    fn tokens_are_those_of_the_rfc() {
        let tokens: Vec<u8> = (0..=255).filter(|byte| is_token_byte(*byte)).collect();
        assert_eq!(tokens, b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
    }
}
