//! Listeners, workers, signals, drain.

use crate::config::{Config, ConfigError};

/// Why the server could not start, or stopped out of order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ServeError {
    /// Whether a setting must change before starting again can help.
    #[must_use]
    pub fn is_setting(&self) -> bool {
        matches!(self, Self::Config(_))
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Config(error) => Some(error.fix.clone()),
        }
    }
}

/// Serves until a signal stops it.
///
/// # Errors
/// Why the server could not start, or stopped out of order.
pub fn run(config: Config) -> Result<(), ServeError> {
    config.validate()?;
    Ok(())
}
