//! A token bucket: so many events a second, and a second's worth at once.

/// Tokens that come in at a steady rate and are taken one at a time.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled_ns: u64,
}

impl TokenBucket {
    /// A full bucket of one second's worth, at least one token.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        Self { per_second, tokens: per_second.max(1.0), filled_ns: 0 }
    }

    /// Takes a token, if there is one at `now_ns`.
    pub fn take(&mut self, now_ns: u64) -> bool {
        let seconds = now_ns.saturating_sub(self.filled_ns) as f64 / 1e9;
        self.tokens = (self.tokens + seconds * self.per_second).min(self.per_second.max(1.0));
        self.filled_ns = now_ns;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gives_a_seconds_worth() {
        let mut bucket = TokenBucket::new(2.0);
        assert_eq!([0, 0, 0].map(|now| bucket.take(now)), [true, true, false]);
        assert_eq!([500_000_000, 500_000_000].map(|now| bucket.take(now)), [true, false]);
        assert_eq!([9_000_000_000; 3].map(|now| bucket.take(now)), [true, true, false]);
    }
}
