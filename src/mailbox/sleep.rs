//! One wake-up per sleep.

use super::sync::{AtomicBool, Ordering, fence};
use crossbeam_utils::CachePadded;

/// Whether a worker sleeps; shared with every worker that may have to wake it.
///
/// A bell (an eventfd, say) costs a system call on each side, so it's rung only for a worker that sleeps, and by one caller only.
/// The sleeper announces itself and then looks at its rings; a sender fills a ring and then looks at the announcement. With a
/// full fence between the two steps on both sides, at least one of them sees the other, so no message is slept through.
#[derive(Debug)]
pub struct Sleep {
    asleep: CachePadded<AtomicBool>,
}

impl Sleep {
    /// A worker that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self { asleep: CachePadded::new(AtomicBool::new(false)) }
    }

    /// The worker is about to block: afterwards it must look at its rings once more, and block only if they are empty.
    pub fn prepare(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The worker is awake again, or did not block after all. A bell may already be on its way: the worker then wakes once more
    /// for nothing.
    pub fn woke(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// True if the worker sleeps and this caller must ring its bell; at most one caller per sleep is told so. To be asked after
    /// the message is in the ring.
    #[must_use]
    pub fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }
}

impl Default for Sleep {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_wake_up_per_sleep() {
        let sleep = Sleep::new();
        assert!(!sleep.must_wake());
        for _ in 0..2 {
            sleep.prepare();
            assert!(sleep.must_wake());
            assert!(!sleep.must_wake());
            sleep.woke();
        }
        sleep.prepare();
        sleep.woke();
        assert!(!sleep.must_wake());
    }
}
