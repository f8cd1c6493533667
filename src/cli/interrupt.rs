//! Ctrl-C: the first asks for an end in order, the second ends at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;
use signal_hook::flag;

use super::Status;

/// Whether Ctrl-C was pressed.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for Ctrl-C from now on.
    pub(super) fn watch() -> io::Result<Self> {
        let pressed = Arc::new(AtomicBool::new(false));
        // In this order: the second press finds what the first has set.
        flag::register_conditional_shutdown(SIGINT, Status::Interrupted as i32, Arc::clone(&pressed))?;
        flag::register(SIGINT, Arc::clone(&pressed))?;
        Ok(Self(pressed))
    }

    /// Whether it was pressed.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits for `length` or until it is pressed.
    pub(super) fn sleep(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_set() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(LOOK_INTERVAL));
        }
    }

    #[cfg(test)]
    pub(super) fn press(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How often a waiting command looks: below what a person notices.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
