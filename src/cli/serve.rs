//! `fantail serve`.

use super::{Failure, Status};
use crate::config::Config;
use crate::log;
use crate::server::{self, ServeError};

/// Serves until a signal stops it; the log is written out before the process ends.
pub(super) fn run(config: Config) -> Result<(), Failure> {
    config.validate()?;
    let _log = log::start(config.log_level, config.log_format)
        .map_err(|error| Failure::runtime(format!("the log can't be started: {error}")))?;
    server::run(config).map_err(Failure::from)
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let status = if error.is_setting() { Status::Usage } else { Status::Runtime };
        Self { status, message: Some(error.to_string()), fix: error.fix() }
    }
}
