//! A time in which the load test does nothing but answer pings: for connections that are to stay.

use crate::clock::Nanos;
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::net::Net;
use crate::stage::Stage;

/// Such a time, and who ended in it.
#[derive(Debug)]
pub struct Rest {
    /// How long it is, and what it cost.
    pub stage: Stage,
    /// Connections that ended.
    pub lost: u64,
    /// Why the first of them did.
    pub first_ending: Option<String>,
}

impl Rest {
    /// Nobody has ended yet.
    pub const fn new(stage: Stage) -> Self {
        Self { stage, lost: 0, first_ending: None }
    }

    /// Rests until all has settled, before anything is measured: false after Ctrl-C, and a failure if a connection ended.
    pub fn undisturbed(engine: &mut Engine, stage: Stage) -> Result<bool, Failure> {
        let mut rest = Self::new(stage);
        let was_interrupted = engine.run(&mut rest)?;
        match rest.first_ending {
            Some(ending) if !was_interrupted => Err(Failure::Usage(format!("{} connections did not stay: {ending}", rest.lost))),
            _ => Ok(!was_interrupted),
        }
    }
}

impl Load for Rest {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, 0)?;
        Ok(if self.stage.is_over() { Next::Done } else { Next::At(self.stage.until) })
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.lost += 1;
        self.first_ending.get_or_insert_with(|| ending.to_string());
    }
}
