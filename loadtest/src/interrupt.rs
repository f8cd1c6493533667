//! Ctrl-C, SIGTERM and hang-up: one flag for the whole process.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

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

/// True from the first signal on. The first call says what the second signal does.
pub fn watch(second: Second) -> Result<Arc<AtomicBool>, Failure> {
    static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(interrupted) = INTERRUPTED.get() {
        return Ok(Arc::clone(interrupted));
    }
    let interrupted = Arc::clone(INTERRUPTED.get_or_init(Arc::default));
    let watching = |error| Failure::System("watching for Ctrl-C", error);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // Before the flag is registered, so that the first signal finds it unset.
        if second == Second::Ends {
            flag::register_conditional_shutdown(signal, exit::INTERRUPTED.into(), Arc::clone(&interrupted)).map_err(watching)?;
        }
        flag::register(signal, Arc::clone(&interrupted)).map_err(watching)?;
    }
    Ok(interrupted)
}
