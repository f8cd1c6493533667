//! Connections that failed, by cause.

use crate::ending::Ending;
use crate::report::Report;

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
            Ending::Rejected { .. } | Ending::Denied(_) => &mut self.rejected,
            _ => &mut self.other,
        } += 1;
    }

    /// The first of them, as an example.
    pub fn first(&self) -> Option<&str> {
        self.first.as_deref()
    }

    /// Tells all of them.
    pub fn tell(&self, report: &mut Report) {
        report.fault("refused", self.refused);
        report.fault("reset", self.reset);
        report.fault("timed_out", self.timed_out);
        report.fault("rejected", self.rejected);
        report.fault("other_failures", self.other);
        report.notes.extend(self.first().map(|first| format!("the first failure to connect: {first}")));
    }

    /// Whether there are so many, and each time nothing listened or the server said no.
    pub const fn are_all_refused(&self, number: u64) -> bool {
        self.refused + self.rejected >= number && self.reset + self.timed_out + self.other == 0
    }

    /// How many waited for longer than `--timeout`.
    pub const fn timed_out(&self) -> u64 {
        self.timed_out
    }

    /// How many were refused by the kernel: nothing listened.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}
