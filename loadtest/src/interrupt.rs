//! Ctrl-C, SIGTERM and hang-up: one flag for the whole process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit;
use crate::failure::Failure;

/// What the second signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Second {
    /// It ends the process at once.
    Ends,
    /// Nothing: a server is to be stopped before the end.
    Waits,
}

/// A signal that follows another this closely is the same one: a parent hands on what the terminal has sent to its whole group.
const SAME: Duration = Duration::from_millis(500);

/// True from the first signal on. The first call says what the second signal does.
pub fn watch(second: Second) -> Result<Arc<AtomicBool>, Failure> {
    static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(interrupted) = INTERRUPTED.get() {
        return Ok(Arc::clone(interrupted));
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(|error| Failure::System("watching for Ctrl-C", error))?;
    let interrupted = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    let flag = Arc::clone(&interrupted);
    // A thread that sleeps until there is one; it ends with the process.
    thread::spawn(move || {
        let mut first: Option<Instant> = None;
        for _ in signals.forever() {
            flag.store(true, Ordering::Relaxed);
            let is_second = first.get_or_insert_with(Instant::now).elapsed() > SAME;
            if is_second && second == Second::Ends {
                std::process::exit(exit::INTERRUPTED.into());
            }
        }
    });
    Ok(interrupted)
}
