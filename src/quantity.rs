//! Amounts with a unit: `64KiB`, `10s`. A number without its unit is refused where people mix units up, and printed text reads back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes: `64KiB`, `1MB`, `10B` or `65536`. KiB, MiB and GiB count in 1024, KB, MB and GB in 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub usize);

/// A length of time: `500us`, `250ms`, `10s`, `5m` or `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeSpan(pub Duration);

/// Why a text is no amount. Each variant says what is accepted instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No whole number with a unit of bytes.
    #[error("give bytes as a whole number with B, KB, MB, GB, KiB, MiB, GiB or no unit, such as 64KiB")]
    NotBytes,
    /// No whole number with a unit of time.
    #[error("give a time as a whole number with us, ms, s, m or h, such as 10s or 500ms")]
    NotTime,
    /// More than this machine can count.
    #[error("the number is too large")]
    TooLarge,
}

impl ByteSize {
    /// 1024 bytes times `count`.
    #[must_use]
    pub const fn kib(count: usize) -> Self {
        Self(count * 1024)
    }

    /// 1024 KiB times `count`.
    #[must_use]
    pub const fn mib(count: usize) -> Self {
        Self::kib(count * 1024)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl TimeSpan {
    /// The longest time a flag may name: beyond it a deadline means "never", and every clock here can add it.
    pub const MAX: Self = Self(Duration::from_secs(365 * 24 * 3600));

    /// A number of whole seconds.
    #[must_use]
    pub const fn seconds(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// The standard library's form.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bytes = parse(text, &BYTE_UNITS, QuantityError::NotBytes)?;
        usize::try_from(bytes).map(Self).map_err(|_| QuantityError::TooLarge)
    }
}

impl From<TimeSpan> for Duration {
    fn from(span: TimeSpan) -> Self {
        span.0
    }
}

impl FromStr for TimeSpan {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let span = Self(Duration::from_micros(parse(text, &TIME_UNITS, QuantityError::NotTime)?));
        if span > Self::MAX { Err(QuantityError::TooLarge) } else { Ok(span) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(formatter, self.0 as u64, &BYTE_UNITS, "B")
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(formatter, u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX), &TIME_UNITS, "s")
    }
}

/// Units of bytes, smallest first. None at all means bytes, and is read but never printed: its twin behind it goes before.
const BYTE_UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
];

/// Units of time in microseconds, smallest first.
const TIME_UNITS: [(&str, u64); 5] = [("us", 1), ("ms", 1000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];

/// Reads a whole number and its unit; `malformed` is the error that says what is accepted.
fn parse(text: &str, units: &[(&str, u64)], malformed: QuantityError) -> Result<u64, QuantityError> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(malformed)?;
    if number.is_empty() {
        return Err(malformed);
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::TooLarge)?;
    number.checked_mul(*factor).ok_or(QuantityError::TooLarge)
}

/// Prints `amount` in the largest of `units` that divides it; 0 with `unit_of_zero`.
fn print(formatter: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], unit_of_zero: &str) -> fmt::Result {
    match units.iter().rfind(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(formatter, "{}{name}", amount / factor),
        None => write!(formatter, "0{unit_of_zero}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        for (text, bytes, printed) in [
            ("0", 0, "0B"),
            ("10B", 10, "10B"),
            ("65536", 65536, "64KiB"),
            ("64KiB", 65536, "64KiB"),
            ("64kib", 65536, "64KiB"),
            ("64kb", 64_000, "64KB"),
            ("1MiB", 1 << 20, "1MiB"),
            ("1536KiB", 1536 << 10, "1536KiB"),
            ("1MB", 1_000_000, "1MB"),
            ("2GiB", 2 << 30, "2GiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1000", 1000, "1KB"),
            ("1001", 1001, "1001B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, printed), "{text}");
            assert_eq!(printed.parse(), Ok(size));
        }
    }

    #[test]
    fn times_are_read_and_printed() {
        for (text, micros, printed) in [
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("50us", 50, "50us"),
            ("500ms", 500_000, "500ms"),
            ("1000ms", 1_000_000, "1s"),
            ("10s", 10_000_000, "10s"),
            ("90s", 90_000_000, "90s"),
            ("5m", 300_000_000, "5m"),
            ("60m", 3_600_000_000, "1h"),
            ("8760h", 31_536_000_000_000, "8760h"),
        ] {
            let span: TimeSpan = text.parse().unwrap();
            assert_eq!((span.duration().as_micros(), span.to_string().as_str()), (micros, printed), "{text}");
            assert_eq!(printed.parse(), Ok(span));
        }
    }

    #[test]
    fn an_error_says_what_is_accepted() {
        for text in ["", "KiB", "64Kib/s", "1.5MiB", "-1", " 1", "64 KiB", "64K", "１"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::NotBytes), "{text:?}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "1d", "1h30m"] {
            assert_eq!(text.parse::<TimeSpan>(), Err(QuantityError::NotTime), "{text:?}");
        }
        for text in ["99999999999999999999", "99999999999GiB"] {
            assert_eq!(text.parse::<ByteSize>(), Err(QuantityError::TooLarge), "{text:?}");
        }
        assert_eq!("8761h".parse::<TimeSpan>(), Err(QuantityError::TooLarge));
        assert!(QuantityError::NotBytes.to_string().contains("64KiB"));
        assert!(QuantityError::NotTime.to_string().contains("500ms"));
    }
}
