//! When fan-outs go on: at once, or with `--coalesce` some time after the first of them came.
//!
//! ```text
//!            a publication comes            its time is over, or too many wait
//!   empty ------------------------> held ------------------------------------> open
//!     ^                                                                         |
//!     +-------------------------------------------------------------------------+
//!                                  everything is handed out
//! ```
//!
//! A send costs the kernel the same for one frame as for a dozen, so what waits a little leaves in fewer of them. It is the subscribers
//! who wait: a publisher has its answer as soon as the publication is numbered.

use std::time::Duration;

/// Whether this worker's fan-outs are held back; times in nanoseconds of the driver's clock.
#[derive(Debug)]
pub(super) struct Gate {
    hold_ns: u64,
    /// When those that wait go on; `None` while nothing waits.
    opens_at: Option<u64>,
}

impl Gate {
    /// A gate that holds fan-outs back for so long, or not at all.
    pub(super) fn new(hold: Duration) -> Self {
        Self { hold_ns: hold.as_nanos() as u64, opens_at: None }
    }

    /// Something waits: whether it may go on now, which is at once where `crowded` says that publishers begin to wait, too.
    pub(super) fn lets_through(&mut self, now: u64, crowded: bool) -> bool {
        let opens_at = if crowded { now } else { now + self.hold_ns };
        let opens_at = self.opens_at.map_or(opens_at, |before| before.min(opens_at));
        self.opens_at = Some(opens_at);
        opens_at <= now
    }

    /// Everything has been handed out.
    pub(super) fn emptied(&mut self) {
        self.opens_at = None;
    }

    /// How long until what waits goes on, if it is held back.
    pub(super) fn time_left(&self, now: u64) -> Option<Duration> {
        self.opens_at.filter(|&at| at > now).map(|at| Duration::from_nanos(at - now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_comes_decides_for_all_and_a_crowd_opens() {
        let mut gate = Gate::new(Duration::from_nanos(10));
        assert!(!gate.lets_through(100, false));
        assert_eq!((gate.time_left(104), gate.time_left(110)), (Some(Duration::from_nanos(6)), None));
        assert!(!gate.lets_through(109, false));
        assert!(gate.lets_through(110, false) && gate.lets_through(200, false), "until everything is handed out");
        gate.emptied();
        assert!(!gate.lets_through(201, false));
        assert!(gate.lets_through(202, true) && gate.lets_through(202, false));
    }

    #[test]
    fn without_a_hold_nothing_waits() {
        let mut gate = Gate::new(Duration::ZERO);
        assert!(gate.lets_through(5, false));
        assert_eq!(gate.time_left(5), None);
    }
}
