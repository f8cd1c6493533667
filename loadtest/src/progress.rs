//! A bar with rate and time left on a terminal; nothing in a pipe.
//!
//! The time left is reckoned by whoever shows it, as the end of a measurement is known; the bar itself would guess it from its own
//! pace, warm-up included.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

use crate::clock::{MILLISECOND, Nanos, SECOND};

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
        if let Ok(style) = ProgressStyle::with_template("{prefix:10} {wide_bar} {percent:>3} %  {msg}") {
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

/// What is shown of something that has done `count` in this time and has so long to go.
pub fn pace(count: u64, over: Nanos, to_go: Nanos) -> String {
    format!("{}/s, {}", rate(count, over), left(to_go))
}

/// A time to go, in whole seconds of which the last has begun.
pub fn left(nanos: Nanos) -> String {
    let seconds = nanos.div_ceil(SECOND);
    match seconds {
        0..60 => format!("{seconds}s left"),
        60..3600 => format!("{}m {:02}s left", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m left", seconds / 3600, seconds % 3600 / 60),
    }
}

/// So many in this time, as a number a second.
pub fn rate(count: u64, over: Nanos) -> u64 {
    (count as f64 * SECOND as f64 / over.max(1) as f64) as u64
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_left_is_short_to_read() {
        assert_eq!(
            [0, 1, 9 * SECOND, 9 * SECOND + 1, 65 * SECOND, 3600 * SECOND, 64_800 * SECOND].map(left),
            ["0s left", "1s left", "9s left", "10s left", "1m 05s left", "1h 00m left", "18h 00m left"]
        );
        assert_eq!(pace(500, SECOND / 2, 3 * SECOND), "1000/s, 3s left");
    }
}
