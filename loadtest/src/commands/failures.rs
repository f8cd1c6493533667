//! Connections that failed, by cause.

use crate::ending::Ending;

/// What went wrong, warm-up included.
#[derive(Debug, Default)]
pub struct Failures {
    refused: u64,
    reset: u64,
    timed_out: u64,
    rejected: u64,
    other: u64,
    first: Option<String>,
}

impl Failures {
    /// One more.
    pub fn count(&mut self, ending: &Ending) {
        self.first.get_or_insert_with(|| ending.to_string());
        *match ending {
            Ending::Refused => &mut self.refused,
            Ending::Reset => &mut self.reset,
            Ending::TimedOut => &mut self.timed_out,
            Ending::Rejected { .. } => &mut self.rejected,
            _ => &mut self.other,
        } += 1;
    }

    /// The first of them, as an example.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// For a report.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("refused", self.refused),
            ("reset", self.reset),
            ("timed_out", self.timed_out),
            ("rejected", self.rejected),
            ("other_failures", self.other),
        ]
    }
}
