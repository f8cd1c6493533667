//! What holds the workers: it waits for signals and for workers that end, and moves the stop on from phase to phase.
//!
//! ```text
//! running ──signal──> leaving ──drain delay──> draining ──last worker ended──> Ok
//!    │                   └───────second signal───────┴──> stopped: Interrupted
//!    └──a worker panics, in any phase──> stopped: WorkerPanicked
//! ```

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ServeError;
use crate::io::EventBell;
use crate::worker::{Phase, Shared};

/// What the supervisor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happened {
    Signal,
    WorkerEnded { panicked: bool },
}

/// The workers' threads and their stop. Dropped, it ends them at once.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub shared: Arc<Shared<EventBell>>,
    pub threads: Vec<JoinHandle<()>>,
    pub happened: Receiver<Happened>,
    pub drain_delay: Duration,
}

impl Supervisor {
    /// Returns when the server has stopped.
    ///
    /// # Errors
    /// [`ServeError::WorkerPanicked`] and [`ServeError::Interrupted`]: then threads may still be at their last step.
    pub fn run(mut self) -> Result<(), ServeError> {
        let stopped = self.watch();
        if stopped.is_err() {
            self.shared.advance(Phase::Stopped);
            // "At once" waits for no thread.
            self.threads.clear();
        }
        stopped
    }

    fn watch(&self) -> Result<(), ServeError> {
        let mut left = self.threads.len();
        let mut drain_at = None;
        while left > 0 {
            match self.next(drain_at) {
                None => {
                    drain_at = None;
                    self.shared.advance(Phase::Draining);
                }
                Some(Happened::WorkerEnded { panicked: true }) => return Err(ServeError::WorkerPanicked),
                Some(Happened::WorkerEnded { panicked: false }) => left -= 1,
                Some(Happened::Signal) if self.shared.phase() == Phase::Running => {
                    tracing::info!("stopping: no longer ready");
                    self.shared.advance(Phase::Leaving);
                    drain_at = Some(Instant::now() + self.drain_delay);
                }
                Some(Happened::Signal) => return Err(ServeError::Interrupted),
            }
        }
        tracing::info!("stopped");
        Ok(())
    }

    /// The next thing that happened; `None` when it is time to drain.
    fn next(&self, drain_at: Option<Instant>) -> Option<Happened> {
        match drain_at {
            None => self.happened.recv().ok(),
            Some(at) => self.happened.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shared.advance(Phase::Stopped);
        for thread in self.threads.drain(..) {
            // A panic has been told by its own message.
            let _ = thread.join();
        }
    }
}
