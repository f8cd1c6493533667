//! How a connection ended, in words a person can act on.

use std::io;

/// Why a connection is no more, or never was.
#[derive(Debug, thiserror::Error)]
pub enum Ending {
    /// Nobody listens there.
    #[error("connection refused: nothing listens on that address and port")]
    Refused,
    /// The peer answered with RST.
    #[error("connection reset by the server")]
    Reset,
    /// No answer within `--timeout`.
    #[error("timed out: no answer within --timeout")]
    TimedOut,
    /// All ports between this address and the server's are taken.
    #[error(
        "no free source port to that address: there are some 28,000 (net.ipv4.ip_local_port_range), and each closed by this side with FIN keeps its own for a minute"
    )]
    NoSourcePort,
    /// Another error of the socket.
    #[error("{0}")]
    Socket(io::Error),
    /// An HTTP answer other than the one that was wanted, with its text.
    #[error("the server refused with {status}: {text}")]
    Rejected {
        /// The status of the answer.
        status: u16,
        /// The start of its body, or its reason where there is none.
        text: String,
    },
    /// A refusal that is no HTTP, in the server's words.
    #[error("the server refused: {0}")]
    Denied(String),
    /// Bytes that are not HTTP, or a 101 that isn't one.
    #[error("the server's answer is wrong: {0}")]
    Answer(&'static str),
    /// Bytes that break the protocol, such as a frame against RFC 6455.
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    /// A close frame.
    #[error("closed by the server: code {code} {reason}")]
    Closed {
        /// The code; 1005 where the frame had none (RFC 6455 section 7.4.1).
        code: u16,
        /// The reason.
        reason: String,
    },
    /// The end of the stream without a close frame.
    #[error("the server ended the stream without a close frame")]
    EndOfStream,
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::AddrNotAvailable => Self::NoSourcePort,
            _ => Self::Socket(error),
        }
    }
}
