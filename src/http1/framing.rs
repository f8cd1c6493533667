//! How a request's body ends (RFC 9112 section 6): decided once, from the whole head, with nothing left to interpretation.

use super::HttpError;

/// How the body of a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

impl Framing {
    /// Decides by the values of all Content-Length and all Transfer-Encoding lines (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// Whatever a proxy could read differently: both headers, repeated ones, codings in HTTP/1.0, a length not of digits alone.
    pub(super) fn of<'h>(
        http11: bool,
        mut lengths: impl Iterator<Item = &'h [u8]>,
        codings: impl Iterator<Item = &'h [u8]>,
    ) -> Result<Self, HttpError> {
        let length = lengths.next();
        match (length, chunked(codings)?) {
            (Some(_), true) => Err(HttpError::LengthAndCoding),
            (None, true) if http11 => Ok(Self::Chunked),
            (None, true) => Err(HttpError::BadTransferEncoding),
            (Some(_), false) if lengths.next().is_some() => Err(HttpError::BadContentLength),
            (Some(length), false) => Ok(content_length(length)?.map_or(Self::None, Self::Length)),
            (None, false) => Ok(Self::None),
        }
    }
}

/// Whether the one transfer coding is `chunked`; false without any.
fn chunked<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Result<bool, HttpError> {
    let mut count = 0;
    for coding in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let coding = coding.trim_ascii();
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !name.is_empty() && !name.eq_ignore_ascii_case(b"chunked") {
            return Err(HttpError::UnsupportedTransferCoding);
        }
        // An empty element, a parameter (RFC 9112 section 7.1.3 has none for chunked) and a second coding are refused alike.
        if name.len() != coding.len() || name.is_empty() || count > 0 {
            return Err(HttpError::BadTransferEncoding);
        }
        count += 1;
    }
    Ok(count > 0)
}

/// The length that `digits` say; `None` for 0, which is no body.
fn content_length(digits: &[u8]) -> Result<Option<u64>, HttpError> {
    if digits.is_empty() {
        return Err(HttpError::BadContentLength);
    }
    let length = digits.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    });
    length.map(|length| Some(length).filter(|length| *length > 0)).ok_or(HttpError::BadContentLength)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(http11: bool, lengths: &[&str], codings: &[&str]) -> Result<Framing, HttpError> {
        Framing::of(http11, lengths.iter().map(|text| text.as_bytes()), codings.iter().map(|text| text.as_bytes()))
    }

    #[test]
    fn bodies_end_by_length_or_by_chunk() {
        assert_eq!(framing(true, &[], &[]), Ok(Framing::None));
        assert_eq!(framing(true, &["0"], &[]), Ok(Framing::None));
        assert_eq!(framing(false, &["0017"], &[]), Ok(Framing::Length(17)));
        assert_eq!(framing(true, &["18446744073709551615"], &[]), Ok(Framing::Length(u64::MAX)));
        assert_eq!(framing(true, &[], &["CHUNKED"]), Ok(Framing::Chunked));
    }

    #[test]
    fn lengths_are_one_number_of_digits() {
        for length in
            ["", "-1", "+5", "1e3", "0x5", "5 5", "5, 5", "5,5", "5;", "18446744073709551616", "99999999999999999999999"]
        {
            assert_eq!(framing(true, &[length], &[]), Err(HttpError::BadContentLength), "{length:?}");
        }
        assert_eq!(framing(true, &["5", "5"], &[]), Err(HttpError::BadContentLength));
        assert_eq!(framing(true, &["5"], &["chunked"]), Err(HttpError::LengthAndCoding));
    }

    #[test]
    fn codings_are_chunked_once() {
        for coding in ["", ",", "chunked,", ", chunked", "chunked, chunked", "chunked;a=b", "chunked ;a"] {
            assert_eq!(framing(true, &[], &[coding]), Err(HttpError::BadTransferEncoding), "{coding:?}");
        }
        assert_eq!(framing(true, &[], &["chunked", "chunked"]), Err(HttpError::BadTransferEncoding));
        assert_eq!(framing(false, &[], &["chunked"]), Err(HttpError::BadTransferEncoding));
        for coding in ["xchunked", "gzip", "gzip, chunked", "chunked, gzip;q=1", "\u{b}chunked", "chun ked", "\"chunked\""] {
            assert_eq!(framing(true, &[], &[coding]), Err(HttpError::UnsupportedTransferCoding), "{coding:?}");
        }
    }
}
