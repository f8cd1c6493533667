//! What holds the workers: it waits for signals and for workers that end, and moves the stop on from phase to phase.
//!
//! ```text
//! running ──signal──> leaving ──drain delay──> draining ──last worker ended──> Ok
//!    │                   └───────second signal───────┴──> stopped: Interrupted
//!    └──a worker panics, in any phase──> stopped: WorkerPanicked
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
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
    StoreEnded,
}

/// The workers' threads and their stop. Dropped, it ends them at once.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub shared: Arc<Shared<EventBell>>,
    pub threads: Vec<JoinHandle<()>>,
    /// The store's, which ends behind the last of the workers.
    pub store: Option<JoinHandle<()>>,
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
            self.store = None;
        }
        stopped
    }

    fn watch(&self) -> Result<(), ServeError> {
        let mut left = self.threads.len() + usize::from(self.store.is_some());
        let mut drain_at = None;
        while left > 0 {
            match self.next(drain_at) {
                None => {
                    drain_at = None;
                    tracing::info!(connections = self.shared.connections(), "closing in order; a second signal ends at once");
                    self.shared.advance(Phase::Draining);
                }
                Some(Happened::WorkerEnded { panicked: true }) => return Err(ServeError::WorkerPanicked),
                Some(Happened::WorkerEnded { panicked: false } | Happened::StoreEnded) => left -= 1,
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
        for thread in self.threads.drain(..).chain(self.store.take()) {
            // A panic has been told by its own message.
            let _ = thread.join();
        }
    }
}

/// Runs a worker and tells how it ended. A panic has made its state untrustworthy, and with it what it shares.
pub(super) fn tell_the_end(tell: &Sender<Happened>, work: impl FnOnce()) {
    let panicked = catch_unwind(AssertUnwindSafe(work)).is_err();
    // Nobody listens any more when the server has ended first.
    let _ = tell.send(Happened::WorkerEnded { panicked });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_worker_that_panics_ends_the_server() {
        let shared = Arc::new(Shared::new(2, 1, false));
        let (tell, happened) = mpsc::channel();
        let sound = Arc::clone(&shared);
        let wait_for_the_stop = move || {
            while sound.phase() != Phase::Stopped {
                std::thread::yield_now();
            }
        };
        let work: [Box<dyn FnOnce() + Send>; 2] = [Box::new(|| panic!("a fault of ours")), Box::new(wait_for_the_stop)];
        let start = |work: Box<dyn FnOnce() + Send>| {
            let tell = tell.clone();
            std::thread::spawn(move || tell_the_end(&tell, work))
        };
        let threads = work.into_iter().map(start).collect();
        let supervisor = Supervisor { shared: Arc::clone(&shared), threads, store: None, happened, drain_delay: Duration::ZERO };
        assert!(matches!(supervisor.run(), Err(ServeError::WorkerPanicked)));
        assert_eq!(shared.phase(), Phase::Stopped);
    }

    #[test]
    fn a_disk_that_hangs_is_waited_for_until_a_second_signal() {
        let shared = Arc::new(Shared::new(1, 1, false));
        let (tell, happened) = mpsc::channel();
        let (disk, returns) = mpsc::channel::<()>();
        let store = std::thread::spawn(move || {
            let _ = returns.recv();
        });
        let (threads, drain_delay) = (vec![std::thread::spawn(|| ())], Duration::ZERO);
        let supervisor = Supervisor { shared: Arc::clone(&shared), threads, store: Some(store), happened, drain_delay };
        for happened in [Happened::Signal, Happened::WorkerEnded { panicked: false }, Happened::Signal] {
            tell.send(happened).unwrap();
        }
        assert!(matches!(supervisor.run(), Err(ServeError::Interrupted)), "and it does not wait for the store then");
        drop(disk);
    }
}
