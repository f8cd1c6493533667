//! Why a run could not be made. A run that could, however badly it went, is a report instead.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::ending::Ending;

/// One line for the person at the terminal, with the way out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The URL is none of ours.
    #[error("{0:?} is no URL for a load test: give ws://HOST[:PORT]/PATH, or http:// (TLS is not supported)")]
    Url(String),
    /// The host's name has no address.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// The server could not be reached, or said no.
    #[error("{address}: connection {number} of {wanted}: {ending}")]
    Connect {
        /// Who was called.
        address: std::net::SocketAddr,
        /// Which one failed, from 1.
        number: usize,
        /// How many there were to be.
        wanted: usize,
        /// Why.
        ending: Ending,
    },
    /// More sockets than a process may have.
    #[error("{needed} descriptors are needed and the limit is {limit}: raise it (ulimit -Hn {needed}), or use fewer connections")]
    Descriptors {
        /// For the connections and the tool itself.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The process to be measured can't be read.
    #[error("--pid {pid}: {error}")]
    Process {
        /// The process.
        pid: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// A server's program could not be started.
    #[error("cannot start {program}: {error}")]
    Program {
        /// The first word of its command line.
        program: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// A server that was started is not there, or no longer.
    #[error("{program}: {what}{}", last_words(.output))]
    Server {
        /// The first word of its command line.
        program: String,
        /// What happened.
        what: String,
        /// The end of what it printed.
        output: String,
    },
    /// A file that cannot be used, with the place and the reason.
    #[error("{path}: {what}")]
    File {
        /// The file.
        path: String,
        /// What is wrong, and where.
        what: String,
    },
    /// A histogram that was written elsewhere can't be read.
    #[error("not an HdrHistogram in V2 and base64")]
    Histogram,
    /// Results can't be written.
    #[error("{}: {error}", path.display())]
    Output {
        /// Where to.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Flags that contradict each other or the server.
    #[error("{0}")]
    Usage(String),
    /// There is no io_uring to be had.
    #[error("no io_uring for --uring: {0} ({hint})", hint = hint_of(.0))]
    Uring(io::Error),
    /// The kernel said no to the tool itself.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

fn last_words(output: &str) -> String {
    if output.is_empty() { "; it printed nothing".to_owned() } else { format!("; the last it printed:\n{output}") }
}

/// What may be behind the kernel's no to an io_uring.
fn hint_of(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSYS) => "this kernel is built without it, or a sandbox hides it",
        Some(Errno::PERM | Errno::ACCESS) => "sysctl kernel.io_uring_disabled or a sandbox forbids it",
        Some(Errno::INVAL) => "it takes Linux 6.6 or later",
        Some(Errno::NOMEM) => "it takes more locked memory: raise ulimit -l",
        _ => "without --uring the floor runs on epoll",
    }
}
