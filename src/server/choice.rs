//! Which driver the workers run on.

use core_affinity::CoreId;

use super::ServeError;
use super::crew::Crew;
use crate::config::IoDriver;
use crate::io::{self, Epoll, Uring, why_no_uring};

/// Workers with their drivers, and which these are: never [`IoDriver::Auto`], which takes io_uring where every worker can have it.
///
/// # Errors
/// [`ServeError::Uring`] when io_uring was asked for and can't be had; otherwise those of [`Crew::hire`].
pub(super) fn hire(asked: IoDriver, cores: &[Option<CoreId>], options: &io::Options) -> Result<(IoDriver, Crew), ServeError> {
    if asked != IoDriver::Epoll {
        match (Crew::hire::<Uring>(cores, options), asked) {
            (Err(ServeError::Driver(error)), IoDriver::Auto) => {
                tracing::info!("io_uring can't be had: {}; the workers run on epoll", why_no_uring(&error));
            }
            (Err(ServeError::Driver(error)), _) => return Err(ServeError::Uring(why_no_uring(&error))),
            (hired, _) => return Ok((IoDriver::Uring, hired?)),
        }
    }
    Ok((IoDriver::Epoll, Crew::hire::<Epoll>(cores, options)?))
}
