//! The store's thread: takes what waits, writes it, tells what became of it.
//!
//! ```text
//!           a group fails                       the log has recovered
//!   up -------------------> down: all fails, <--+
//!    ^                      a try every second  |
//!    +------------------------------------------+
//! ```
//!
//! While it waits for the disk the next group gathers. When nothing comes it cleans, if that gives space back, and waits.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::files::Files;
use super::log::Log;
use super::{Batch, Inbox};
use crate::metrics::StoreMetrics;

/// How long a store that is down waits before it tries again.
pub const RETRY: Duration = Duration::from_secs(1);

/// Between two pieces that are cleaned while nothing comes.
const CLEANING_PAUSE: Duration = Duration::from_millis(1);

/// A log, and those whose changes it keeps.
pub(super) struct Keeper<F: Files> {
    log: Log<F>,
    inbox: Inbox,
    metrics: Arc<StoreMetrics>,
    /// Between two tries to recover.
    retry: Duration,
    next_try: Instant,
}

impl<F: Files> Keeper<F> {
    pub fn new(log: Log<F>, inbox: Inbox, metrics: Arc<StoreMetrics>) -> Self {
        metrics.up.set(1);
        let keeper = Self { log, inbox, metrics, retry: RETRY, next_try: Instant::now() };
        keeper.measure();
        keeper
    }

    /// Tries to recover without waiting.
    #[cfg(test)]
    pub fn without_pauses(mut self) -> Self {
        self.retry = Duration::ZERO;
        self
    }

    /// Whether there is something to do though nothing comes.
    #[cfg(test)]
    pub fn has_work(&self) -> bool {
        !self.log.is_up() || self.log.is_cleaning_due()
    }

    /// Works until nothing more comes, then ends the log in order.
    pub fn run(mut self) {
        while self.step() {}
        if self.log.is_up()
            && let Err(error) = self.log.close()
        {
            tracing::warn!(%error, "the store was not ended in order; what it had acknowledged is there");
        }
    }

    /// Waits for something to do, and does it. Says whether more may come.
    pub fn step(&mut self) -> bool {
        let timeout = match self.log.is_up() {
            true => self.log.is_cleaning_due().then_some(CLEANING_PAUSE),
            false => Some(self.next_try.saturating_duration_since(Instant::now())),
        };
        let Some(group) = self.inbox.wait(timeout) else { return false };
        let missed = self.inbox.missed();
        self.log.remember(missed.iter().flat_map(|batch| &batch.changes));
        if self.log.is_up() {
            self.store(&group);
        } else {
            self.refuse(&group);
            if Instant::now() >= self.next_try {
                self.recover();
            }
        }
        self.measure();
        true
    }

    fn store(&mut self, group: &[Batch]) {
        let began = Instant::now();
        let result = self.write(group);
        let Ok(bytes) = result.as_ref().copied().map_err(|error| self.go_down(error)) else { return self.refuse(group) };
        self.inbox.stored(group);
        if bytes > 0 {
            self.metrics.commit.observe_ns(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            self.metrics.changes.add(group.iter().map(|batch| batch.changes.len() as u64).sum());
        }
        // Nobody waits for this any more.
        if let Err(error) = self.log.tidy() {
            self.go_down(&error);
        }
    }

    fn write(&mut self, group: &[Batch]) -> io::Result<u64> {
        let written = self.log.append(group.iter().flat_map(|batch| &batch.changes))?;
        self.metrics.written_bytes.add(written);
        Ok(written)
    }

    fn go_down(&mut self, error: &io::Error) {
        tracing::error!(%error, "the store is down; durable topics take no publications until it is back");
        self.inbox.set_up(false);
        self.metrics.up.set(0);
        self.metrics.failures.add(1);
        self.next_try = Instant::now() + self.retry;
    }

    fn refuse(&mut self, group: &[Batch]) {
        self.log.remember(group.iter().flat_map(|batch| &batch.changes));
        self.inbox.failed(group);
    }

    fn recover(&mut self) {
        // What is wanted of the groups that failed is the first that is written: a disk that does not take that is not back.
        match self.log.recover().and_then(|()| self.write(&[])) {
            Ok(_) => {
                tracing::info!("the store is back");
                self.metrics.up.set(1);
                self.inbox.set_up(true);
            }
            Err(error) => {
                tracing::debug!(%error, "the store is still down");
                self.next_try = Instant::now() + self.retry;
            }
        }
    }

    fn measure(&self) {
        self.metrics.log_bytes.set(self.log.log_bytes());
        self.metrics.live_bytes.set(self.log.live_bytes());
    }
}
