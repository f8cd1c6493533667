//! Why a server did not start, or stopped out of order.

use std::io;
use std::net::SocketAddr;

use crate::config::ConfigError;
use crate::engine::store::OpenError;

/// Why the server could not start, or stopped out of order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("{flag} {address}: {}", said(error))]
    Bind {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// The kernel's error.
        error: io::Error,
    },
    /// io_uring was asked for and can't be had.
    #[error("--io uring can't be had: {0}")]
    Uring(String),
    /// The store of durable topics can't be opened.
    #[error("--data-dir: {0}")]
    Store(#[from] OpenError),
    /// The kernel gives a worker no driver.
    #[error("a worker's driver cannot be made: {0}")]
    Driver(io::Error),
    /// The kernel gives no thread.
    #[error("a worker's thread cannot be started: {0}")]
    Thread(io::Error),
    /// The kernel lets no signal be handled.
    #[error("signals cannot be handled: {0}")]
    Signals(io::Error),
    /// A worker ended by a panic.
    #[error("a worker failed, and its state cannot be trusted; the log has its last line")]
    WorkerPanicked,
    /// A second signal came during the drain.
    #[error("ended at once by a second signal; connections were reset")]
    Interrupted,
}

impl ServeError {
    pub(super) fn bind(flag: &'static str, address: SocketAddr, error: io::Error) -> Self {
        Self::Bind { flag, address, error }
    }

    /// Whether a setting must change before starting again can help.
    #[must_use]
    pub fn is_setting(&self) -> bool {
        match self {
            // A disk may come back by itself.
            Self::Store(error) => !matches!(error, OpenError::Io { .. }),
            other => matches!(other, Self::Config(_) | Self::Bind { .. } | Self::Uring(_)),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Config(error) => Some(error.fix.clone()),
            Self::Bind { flag, error, .. } => Some(match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("Stop what listens there, or give {flag} another port; port 0 takes a free one.")
                }
                io::ErrorKind::PermissionDenied => {
                    format!("Give {flag} a port above 1023, or the capability CAP_NET_BIND_SERVICE.")
                }
                _ => format!("Give {flag} an address of this machine."),
            }),
            Self::Store(error) => Some(error.fix().into()),
            Self::Uring(_) => Some("Remove the reason, or give --io auto or epoll.".into()),
            Self::Driver(_) => Some("Raise the descriptor limit (ulimit -n), or set fewer --workers.".into()),
            Self::Thread(_) => Some("Raise the limit of tasks, or set fewer --workers.".into()),
            Self::Signals(_) | Self::WorkerPanicked | Self::Interrupted => None,
        }
    }
}

/// The kernel's error in the words people search for.
fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".into(),
        _ => error.to_string(),
    }
}
