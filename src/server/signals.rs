//! Signals that stop the server.

use std::{io, thread};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `act` for each SIGTERM and SIGINT, on a thread of its own, until it returns false.
///
/// # Errors
/// The kernel's, when a signal cannot be handled or no thread started.
pub(super) fn each(mut act: impl FnMut() -> bool + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for _ in signals.forever() {
            if !act() {
                return;
            }
        }
    })?;
    Ok(())
}
