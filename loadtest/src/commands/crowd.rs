//! Opens the connections that a command then works with: many at a time, all or none.

use crate::clock::Nanos;
use crate::ending::Ending;
use crate::engine::{Engine, Load, Net, Next, Times};
use crate::failure::Failure;
use crate::progress::Progress;

/// How many openings are under way at a time: below the queue of a listener with the kernel's smallest default.
const OPENING_MAX: usize = 64;

/// Opens connections until there are `wanted`; false if somebody pressed Ctrl-C first. In a loop without other connections, they
/// have the numbers from 0 up.
pub fn gather(engine: &mut Engine, wanted: usize) -> Result<bool, Failure> {
    let progress = Progress::new("connecting", wanted as u64);
    let mut crowd = Crowd { wanted, started: engine.net.len(), opened: engine.net.len(), failed: None, progress };
    Ok(!engine.run(&mut crowd)?)
}

struct Crowd {
    wanted: usize,
    started: usize,
    opened: usize,
    failed: Option<Ending>,
    progress: Progress,
}

impl Load for Crowd {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        while self.failed.is_none() && self.started < self.wanted && self.started - self.opened < OPENING_MAX {
            match net.open(now) {
                Ok(_) => self.started += 1,
                Err(ending) => self.failed = Some(ending),
            }
        }
        if let Some(ending) = self.failed.take() {
            let address = net.target().address;
            return Err(Failure::Connect { address, number: self.opened + 1, wanted: self.wanted, ending });
        }
        self.progress.show(now, self.opened as u64, || format!("{}", self.opened));
        Ok(if self.opened == self.wanted { Next::Done } else { Next::At(Nanos::MAX) })
    }

    fn opened(&mut self, _net: &mut Net, _id: usize, _times: Times) {
        self.opened += 1;
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.failed.get_or_insert(ending);
    }
}
