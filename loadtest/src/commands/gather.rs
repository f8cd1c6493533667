//! Opens the connections that a command then works with: many at a time, all or none.

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::kernel;
use crate::net::{Net, Times};
use crate::progress::{self, Progress};

/// How many openings are under way at a time: below the queue of a listener with the kernel's smallest default.
const OPENING_MAX: usize = 64;

/// Opens a connection for each purpose and returns their numbers in the same order; None if somebody pressed Ctrl-C first.
pub fn gather(engine: &mut Engine, target: usize, purposes: &[Purpose]) -> Result<Option<Vec<usize>>, Failure> {
    let progress = Progress::new("connecting", purposes.len() as u64);
    let ids = Vec::with_capacity(purposes.len());
    let mut gathering = Gathering { target, purposes, ids, since: clock::now(), opened: 0, failed: None, progress };
    Ok(if engine.run(&mut gathering)? { None } else { Some(gathering.ids) })
}

struct Gathering<'a> {
    target: usize,
    purposes: &'a [Purpose],
    ids: Vec<usize>,
    since: Nanos,
    opened: usize,
    failed: Option<Ending>,
    progress: Progress,
}

impl Load for Gathering<'_> {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        let wanted = self.purposes.len();
        while self.failed.is_none() && self.ids.len() < wanted && self.ids.len() - self.opened < OPENING_MAX {
            match net.open(clock::now(), self.target, self.purposes[self.ids.len()]) {
                Ok(id) => self.ids.push(id),
                Err(ending) => self.failed = Some(ending),
            }
        }
        if let Some(ending) = self.failed.take() {
            if let Ending::Socket(error) = &ending
                && let Some(failure) = kernel::out_of_descriptors(error, (wanted - self.ids.len()) as u64)
            {
                return Err(failure);
            }
            let address = net.target(self.target).address;
            return Err(Failure::Connect { address, number: self.opened + 1, wanted, ending });
        }
        let (opened, elapsed) = (self.opened as u64, now.saturating_sub(self.since));
        self.progress.show(now, opened, || standing(opened, wanted as u64, elapsed));
        Ok(if self.opened == wanted { Next::Done } else { Next::At(Nanos::MAX) })
    }

    fn opened(&mut self, _net: &mut Net, _id: usize, _times: Times) {
        self.opened += 1;
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.failed.get_or_insert(ending);
    }
}

/// What is shown: how many are open, how fast that goes, and how long the rest takes at this pace.
fn standing(opened: u64, wanted: u64, elapsed: Nanos) -> String {
    let to_go = (wanted - opened) as f64 * elapsed as f64 / opened.max(1) as f64;
    format!("{opened} of {wanted}, {}", progress::pace(opened, elapsed, to_go as Nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SECOND;

    #[test]
    fn what_is_shown_has_count_pace_and_time_left() {
        assert_eq!(standing(2_000, 5_000, 2 * SECOND), "2000 of 5000, 1000/s, 3s left");
        assert_eq!(standing(0, 5_000, 0), "0 of 5000, 0/s, 0s left");
    }
}
