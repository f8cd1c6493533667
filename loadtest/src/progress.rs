//! A bar with rate and time left on a terminal; nothing in a pipe.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::{MILLISECOND, Nanos};

/// How often the bar moves: often enough for the eye, too seldom to be seen in a figure.
const STEP: Nanos = 200 * MILLISECOND;

/// Draws on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    drawn_at: Nanos,
}

impl Progress {
    /// A bar that is full at `end`, with what it counts.
    pub fn new(what: &'static str, end: u64) -> Self {
        if !stderr().is_terminal() {
            return Self::hidden();
        }
        let bar = ProgressBar::new(end);
        // The template is fixed; were it wrong, the bar would have the crate's own look.
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {wide_bar} {percent:>3} %  {msg}  {eta} left") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self { bar, drawn_at: 0 }
    }

    /// A bar that is never drawn.
    pub fn hidden() -> Self {
        Self { bar: ProgressBar::hidden(), drawn_at: 0 }
    }

    /// Moves the bar to `position` and shows `done` beside it.
    pub fn show(&mut self, now: Nanos, position: u64, done: impl FnOnce() -> String) {
        if self.bar.is_hidden() || now < self.drawn_at + STEP {
            return;
        }
        self.drawn_at = now;
        self.bar.set_message(done());
        self.bar.set_position(position);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
