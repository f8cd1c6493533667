//! Why a run could not be made. A run that could, however badly it went, is a report instead.

use std::io;

use crate::ending::Ending;

/// One line for the person at the terminal, with the way out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The URL is none of ours.
    #[error("{0:?} is no URL for a load test: give ws://HOST[:PORT]/PATH (TLS is not supported)")]
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
    /// Flags that contradict each other or the server.
    #[error("{0}")]
    Usage(String),
    /// The kernel said no to the tool itself.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

fn last_words(output: &str) -> String {
    if output.is_empty() { "; it printed nothing".to_owned() } else { format!("; the last it printed:\n{output}") }
}
