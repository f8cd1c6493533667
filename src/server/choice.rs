//! Which driver the workers run on.

use super::ServeError;
use crate::config::IoDriver;
use crate::io;

/// The driver that `asked` stands for on this machine: never [`IoDriver::Auto`].
///
/// # Errors
/// [`ServeError::Uring`] when io_uring was asked for and can't be had.
pub(super) fn driver(asked: IoDriver, options: &io::Options) -> Result<IoDriver, ServeError> {
    match asked {
        IoDriver::Epoll => Ok(IoDriver::Epoll),
        IoDriver::Uring => io::probe_uring(options).map(|()| IoDriver::Uring).map_err(ServeError::Uring),
        IoDriver::Auto => Ok(io::probe_uring(options).map_or_else(
            |reason| {
                tracing::info!("io_uring can't be had: {reason}; the workers run on epoll");
                IoDriver::Epoll
            },
            |()| IoDriver::Uring,
        )),
    }
}
