//! How many requests a sender may have under way.

/// A counter of requests that wait for their reply, with a fixed maximum. A credit reserves the reply's slot.
#[derive(Debug)]
pub struct Credits {
    outstanding: usize,
    outstanding_max: usize,
}

impl Credits {
    /// Credits for `outstanding_max` requests at once.
    #[must_use]
    pub const fn new(outstanding_max: usize) -> Self {
        Self { outstanding: 0, outstanding_max }
    }

    /// Takes a credit; false if all are taken.
    #[must_use]
    pub const fn take(&mut self) -> bool {
        let granted = self.outstanding < self.outstanding_max;
        self.outstanding += granted as usize;
        granted
    }

    /// Gives a credit back.
    ///
    /// # Panics
    ///
    /// If none is taken: a request was answered twice.
    pub const fn give(&mut self) {
        assert!(self.outstanding > 0, "a credit came back that nobody took");
        self.outstanding -= 1;
    }

    /// Credits taken and not yet given back.
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_bounded() {
        let mut credits = Credits::new(2);
        assert!(credits.take() && credits.take() && !credits.take());
        credits.give();
        assert_eq!(credits.outstanding(), 1);
        assert!(credits.take());
    }

    #[test]
    #[should_panic(expected = "nobody took")]
    fn a_credit_too_many_is_a_bug() {
        Credits::new(1).give();
    }
}
