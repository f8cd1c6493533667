//! UTF-8 that is checked as it arrives (RFC 6455 section 8.1), so that a bad byte ends the connection before its message does.

/// A byte that no UTF-8 text can have at its place (RFC 3629 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// Checks a text that comes in pieces. Between pieces it keeps the at most three bytes of a split code point.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validator {
    split: [u8; 3],
    split_bytes: u8,
}

impl Validator {
    /// Checks the next piece.
    ///
    /// # Errors
    /// [`InvalidUtf8`] as soon as no continuation can make the text valid, also within a code point: `ED A0` fails at `A0`.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.finish_split(piece)?;
        // A split that is still open has eaten the whole piece, so this never overwrites one.
        let Err(error) = simdutf8::compat::from_utf8(rest) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        let tail = &rest[error.valid_up_to()..];
        self.split[..tail.len()].copy_from_slice(tail);
        self.split_bytes = tail.len() as u8;
        Ok(())
    }

    /// Ends the text.
    ///
    /// # Errors
    /// [`InvalidUtf8`] if it ends within a code point.
    pub const fn finish(self) -> Result<(), InvalidUtf8> {
        if self.split_bytes == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Feeds the split code point byte by byte until it is whole; returns what of `piece` comes after it.
    fn finish_split<'p>(&mut self, piece: &'p [u8]) -> Result<&'p [u8], InvalidUtf8> {
        let mut rest = piece;
        while self.split_bytes > 0
            && let Some((byte, after)) = rest.split_first()
        {
            let held = self.split_bytes as usize;
            let mut code_point = [0; 4];
            code_point[..held].copy_from_slice(&self.split[..held]);
            code_point[held] = *byte;
            match std::str::from_utf8(&code_point[..=held]) {
                Ok(_) => self.split_bytes = 0,
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                // Four bytes are a code point or an error, so a split holds at most three.
                Err(_) => {
                    self.split[held] = *byte;
                    self.split_bytes += 1;
                }
            }
            rest = after;
        }
        Ok(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The table of RFC 3629 section 4, a byte at a time: how many continuation bytes are due, and the range of the next one.
    #[derive(Clone, Copy)]
    struct Plain {
        due: u8,
        low: u8,
        high: u8,
    }

    impl Plain {
        const START: Self = Self { due: 0, low: 0x80, high: 0xBF };

        fn next(self, byte: u8) -> Option<Self> {
            let due = |due, low, high| Some(Self { due, low, high });
            if self.due > 0 {
                return if (self.low..=self.high).contains(&byte) { due(self.due - 1, 0x80, 0xBF) } else { None };
            }
            match byte {
                0x00..=0x7F => due(0, 0x80, 0xBF),
                0xC2..=0xDF => due(1, 0x80, 0xBF),
                0xE0 => due(2, 0xA0, 0xBF),
                0xED => due(2, 0x80, 0x9F),
                0xE1..=0xEF => due(2, 0x80, 0xBF),
                0xF0 => due(3, 0x90, 0xBF),
                0xF1..=0xF3 => due(3, 0x80, 0xBF),
                0xF4 => due(3, 0x80, 0x8F),
                _ => None,
            }
        }
    }

    /// The index of the byte that breaks the text; its length if only the end does; `None` if it is valid.
    fn plain_failure(bytes: &[u8]) -> Option<usize> {
        let mut state = Plain::START;
        for (i, byte) in bytes.iter().enumerate() {
            let Some(next) = state.next(*byte) else { return Some(i) };
            state = next;
        }
        (state.due > 0).then_some(bytes.len())
    }

    fn bytewise_failure(bytes: &[u8]) -> Option<usize> {
        let mut validator = Validator::default();
        for (i, byte) in bytes.iter().enumerate() {
            if validator.push(std::slice::from_ref(byte)).is_err() {
                return Some(i);
            }
        }
        validator.finish().is_err().then_some(bytes.len())
    }

    /// Bytes of every class that the table tells apart, so that random texts come near its borders.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            8 => any::<char>().prop_map(|character| character.to_string().into_bytes()),
            8 => "[ -~]{1,70}".prop_map(String::into_bytes),
            1 => prop::sample::select(vec![0x80, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF])
                .prop_map(|byte: u8| vec![byte]),
        ];
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn byte_by_byte_it_fails_where_the_plain_twin_fails(bytes in text()) {
            prop_assert_eq!(bytewise_failure(&bytes), plain_failure(&bytes));
        }

        #[test]
        fn cut_anywhere_it_says_what_the_plain_twin_says(bytes in text(), cut in 0_usize..200) {
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            let mut validator = Validator::default();
            let verdict = validator.push(first).and_then(|()| validator.push(second)).and_then(|()| validator.finish());
            prop_assert_eq!(verdict.is_err(), plain_failure(&bytes).is_some());
        }
    }

    #[test]
    fn a_surrogate_fails_at_its_second_byte() {
        assert_eq!(bytewise_failure(b"\xED\xA0\x80"), Some(1));
        assert_eq!(bytewise_failure(b"\xF4\x90\x80\x80"), Some(1));
        assert_eq!(bytewise_failure(b"\xC0\xAF"), Some(0));
        assert_eq!(bytewise_failure("\u{10FFFF}κ".as_bytes()), None);
    }
}
