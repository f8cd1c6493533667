//! The Date header's value (RFC 9110 section 6.6.1), formatted once a second.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999: IMF-fixdate has four digits for a year.
const SECONDS_MAX: u64 = 253_402_300_799;

/// A worker's current date as IMF-fixdate (RFC 9110 section 5.6.7). All answers of one second share its text.
#[derive(Debug)]
pub struct DateCache {
    unix_seconds: u64,
    text: String,
}

impl DateCache {
    /// A cache that holds the epoch.
    #[must_use]
    pub fn new() -> Self {
        let mut cache = Self { unix_seconds: 0, text: String::new() };
        cache.format();
        cache
    }

    /// The date at `unix_seconds`, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn at(&mut self, unix_seconds: u64) -> &str {
        let unix_seconds = unix_seconds.min(SECONDS_MAX);
        if unix_seconds != self.unix_seconds {
            self.unix_seconds = unix_seconds;
            self.format();
        }
        &self.text
    }

    fn format(&mut self) {
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(self.unix_seconds));
        self.text.clear();
        write!(self.text, "{date}").expect("a String takes every write");
    }
}

impl Default for DateCache {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdate() {
        let mut date = DateCache::new();
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(date.at(seconds), text);
            assert_eq!(date.at(seconds), text, "the same second again");
        }
    }
}
