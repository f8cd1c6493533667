//! What was done in a verification, and what happened beside it.

use std::fmt::Write as _;
use std::time::Duration;

use super::subscriber::Cut;

/// Counts, and the first of what has words.
#[derive(Debug, Default)]
pub struct Events {
    /// By kind, in the order of [`Cut::ALL`].
    pub cuts: [u64; Cut::ALL.len()],
    /// Connections that went on behind a cursor.
    pub resumed: u64,
    /// Connections that asked for all there is.
    pub anew: u64,
    /// Connections that ended though nobody had cut them, by the server's own doing or with it.
    pub ended: u64,
    /// How the first of them did.
    pub first_ending: Option<String>,
    /// Halves that the server left open for longer than `--timeout`.
    pub left_open: u64,
    /// Publications that were due and had no connection.
    pub not_sent: u64,
    /// The first refusal of a publication or a poll.
    pub first_refusal: Option<String>,
}

impl Events {
    /// All of it on lines; of a server that was started, how often it was killed and how long it took at most until its port was
    /// bound.
    pub fn lines(&self, kills: Option<(u64, Duration)>) -> String {
        let Self { cuts: [reset, half_closed, stalled, closed], resumed, anew, ended, left_open, not_sent, .. } = self;
        let mut text = format!("reset {reset}, half-closed {half_closed}, stalled {stalled}, closed {closed}");
        // Writing into memory can't fail.
        let _ = writeln!(
            text,
            ", came back {resumed}, anew {anew}, ended otherwise {ended}, left open {left_open}, not sent {not_sent}"
        );
        if let Some((kills, slowest)) = kills {
            let _ = writeln!(text, "killed {kills}, port bound again within {} ms", slowest.as_millis());
        }
        for (what, words) in [("ending", &self.first_ending), ("refusal", &self.first_refusal)] {
            words.iter().for_each(|words| text.extend(["first ", what, ": ", words, "\n"]));
        }
        text
    }
}
