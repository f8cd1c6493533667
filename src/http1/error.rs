//! What ends an HTTP connection: the rule that was broken, its section, its status, and what the reader can do.

use crate::metrics::Cause;

use super::{Problem, Response};

/// Why a request is refused. Every one closes the connection, because what follows in the stream has no trustworthy start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The first byte cannot begin a method: a TLS hello, or noise.
    #[error("The first byte cannot begin an HTTP request.")]
    NotHttp,
    /// The request line is not `METHOD TARGET HTTP/1.1`.
    #[error("The request line is not METHOD TARGET HTTP/1.1.")]
    BadRequestLine,
    /// The version is none of HTTP/1.0 and HTTP/1.1; the HTTP/2 preface looks like that too.
    #[error("This listener speaks HTTP/1.1 and HTTP/1.0 only.")]
    UnsupportedVersion,
    /// The target has a fragment or a form that this method or server does not take.
    #[error("The request target is neither a path nor an absolute http URL.")]
    BadTarget,
    /// A CR without LF, an LF without CR.
    #[error("A line ends otherwise than by CR LF.")]
    BareLineEnd,
    /// NUL or another control byte in the head.
    #[error("The head contains a control byte.")]
    ControlByte,
    /// A header line goes on in the next one.
    #[error("A header line begins with whitespace; folded headers are obsolete.")]
    FoldedHeader,
    /// A header name with a byte outside of tokens, whitespace before the colon, no colon, a bad value.
    #[error("A header line is not NAME: VALUE, or has whitespace before its colon.")]
    BadHeader,
    /// The head is longer than the limit.
    #[error("The head is not complete after {limit_bytes} bytes, which is the limit.")]
    HeadTooLarge {
        /// `--max-head-size`.
        limit_bytes: u64,
    },
    /// More header lines than [`HEADERS_MAX`](super::HEADERS_MAX).
    #[error("The head has more than {} header lines.", super::HEADERS_MAX)]
    TooManyHeaders,
    /// HTTP/1.1 without Host.
    #[error("HTTP/1.1 needs a Host header, and there is none.")]
    MissingHost,
    /// Two Host lines.
    #[error("There is more than one Host header.")]
    RepeatedHost,
    /// A host that is not `host` or `host:port`, in the header or in the target.
    #[error("The host is not NAME or NAME:PORT.")]
    BadHost,
    /// A Content-Length that is not one number of 64 bits.
    #[error("Content-Length is not one decimal number.")]
    BadContentLength,
    /// Content-Length and Transfer-Encoding: the two could be read differently by a proxy.
    #[error("The request has both Content-Length and Transfer-Encoding.")]
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0, empty, or `chunked` more than once.
    #[error("Transfer-Encoding is not chunked, once, in an HTTP/1.1 request.")]
    BadTransferEncoding,
    /// A transfer coding other than `chunked`.
    #[error("Transfer-Encoding names a coding other than chunked.")]
    UnsupportedTransferCoding,
    /// The chunked body breaks its grammar or one of its bounds.
    #[error("The chunked body has a bad size, line end or trailer, or too long an extension.")]
    BadChunk,
    /// The body is larger than the limit.
    #[error("The body has {}; the limit is {limit_bytes}.", size(*.body_bytes, *.limit_bytes))]
    MessageTooLarge {
        /// What Content-Length declares; a chunked body does not tell.
        body_bytes: Option<u64>,
        /// `--max-message-size`.
        limit_bytes: u64,
    },
    /// The request was begun and did not arrive in time.
    #[error("The request was begun and did not arrive in time.")]
    Timeout,
    /// The allocator refused.
    #[error("There is no memory for this request.")]
    NoMemory,
}

/// What all errors of one problem type share.
struct ProblemType {
    kind: &'static str,
    status: u16,
    title: &'static str,
    fix: &'static str,
}

impl HttpError {
    /// Which rule was broken.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::BareLineEnd => "RFC 9112 section 2.2",
            Self::UnsupportedVersion => "RFC 9112 section 2.3",
            Self::NotHttp | Self::BadRequestLine => "RFC 9112 section 3",
            Self::BadTarget | Self::MissingHost | Self::RepeatedHost | Self::BadHost => "RFC 9112 section 3.2",
            Self::BadHeader => "RFC 9112 section 5.1",
            Self::FoldedHeader => "RFC 9112 section 5.2",
            Self::ControlByte => "RFC 9110 section 5.5",
            Self::HeadTooLarge { .. } | Self::TooManyHeaders => "RFC 6585 section 5",
            Self::BadTransferEncoding | Self::UnsupportedTransferCoding => "RFC 9112 section 6.1",
            Self::BadContentLength | Self::LengthAndCoding => "RFC 9112 section 6.3",
            Self::BadChunk => "RFC 9112 section 7.1",
            Self::Timeout => "RFC 9110 section 15.5.9",
            Self::MessageTooLarge { .. } => "RFC 9110 section 15.5.14",
            Self::NoMemory => "RFC 9110 section 15.6.4",
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        self.problem_type().status
    }

    /// What the connection ends with.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::MessageTooLarge { .. } => Cause::TooBig,
            Self::HeadTooLarge { .. } | Self::TooManyHeaders => Cause::Limit,
            Self::Timeout => Cause::HandshakeTimeout,
            Self::NoMemory => Cause::Overloaded,
            _ => Cause::ProtocolError,
        }
    }

    /// The answer: a problem body, after which the connection closes.
    #[must_use]
    pub fn into_response(self) -> Response {
        let ProblemType { kind, status, title, fix } = self.problem_type();
        let numbers = self.limit().into_iter().collect();
        let response = Problem { kind, status, title, detail: self.to_string(), fix, numbers }.into_response().close();
        // Memory comes back when others close; RFC 9110 section 10.2.3 lets a program know when to try again.
        if status == 503 { response.header("Retry-After", "1") } else { response }
    }

    const fn limit(self) -> Option<(&'static str, u64)> {
        match self {
            Self::HeadTooLarge { limit_bytes } | Self::MessageTooLarge { limit_bytes, .. } => Some(("limit_bytes", limit_bytes)),
            Self::TooManyHeaders => Some(("limit_headers", super::HEADERS_MAX as u64)),
            _ => None,
        }
    }

    const fn problem_type(self) -> ProblemType {
        match self {
            Self::NotHttp => NOT_HTTP,
            Self::BadRequestLine => BAD_REQUEST_LINE,
            Self::UnsupportedVersion => HTTP_VERSION,
            Self::BadTarget => BAD_TARGET,
            Self::BareLineEnd => BAD_LINE_END,
            Self::ControlByte | Self::FoldedHeader | Self::BadHeader => BAD_HEADER,
            Self::HeadTooLarge { .. } => HEAD_TOO_LARGE,
            Self::TooManyHeaders => TOO_MANY_HEADERS,
            Self::MissingHost | Self::RepeatedHost | Self::BadHost => BAD_HOST,
            Self::BadContentLength | Self::LengthAndCoding => BAD_CONTENT_LENGTH,
            Self::BadTransferEncoding => BAD_TRANSFER_CODING,
            Self::UnsupportedTransferCoding => UNSUPPORTED_TRANSFER_CODING,
            Self::BadChunk => BAD_CHUNK,
            Self::MessageTooLarge { .. } => MESSAGE_TOO_LARGE,
            Self::Timeout => REQUEST_TIMEOUT,
            Self::NoMemory => NO_MEMORY,
        }
    }
}

const NOT_HTTP: ProblemType = ProblemType {
    kind: "not-http",
    status: 400,
    title: "This is not HTTP",
    fix: "Speak plain HTTP/1.1 to this port: a URL with http:// or ws://, not https:// or wss://.",
};
const BAD_REQUEST_LINE: ProblemType = ProblemType {
    kind: "bad-request-line",
    status: 400,
    title: "The request line is malformed",
    fix: "Begin the request with a line such as GET /topics/chat HTTP/1.1.",
};
const HTTP_VERSION: ProblemType = ProblemType {
    kind: "http-version",
    status: 505,
    title: "The HTTP version is not supported",
    fix: "Use HTTP/1.1 (curl --http1.1); let a proxy in front speak HTTP/2.",
};
const BAD_TARGET: ProblemType = ProblemType {
    kind: "bad-target",
    status: 400,
    title: "The request target is malformed",
    fix: "Ask for a path such as /topics/chat: percent-encode other bytes than visible ASCII, leave out any #fragment.",
};
const BAD_LINE_END: ProblemType = ProblemType {
    kind: "bad-line-end",
    status: 400,
    title: "A line end is malformed",
    fix: "End every line of the head by CR LF, and none by either alone.",
};
const BAD_HEADER: ProblemType = ProblemType {
    kind: "bad-header",
    status: 400,
    title: "A header line is malformed",
    fix: "Send each header on one line as NAME: VALUE, without control bytes and without a space before the colon.",
};
const HEAD_TOO_LARGE: ProblemType = ProblemType {
    kind: "head-too-large",
    status: 431,
    title: "The head is too large",
    fix: "Send fewer or shorter headers (often it is cookies), or raise --max-head-size.",
};
const TOO_MANY_HEADERS: ProblemType = ProblemType {
    kind: "too-many-headers",
    status: 431,
    title: "The head has too many lines",
    fix: "Send fewer header lines; this limit is fixed.",
};
const BAD_HOST: ProblemType = ProblemType {
    kind: "bad-host",
    status: 400,
    title: "The host is missing or malformed",
    fix: "Send exactly one Host header with a name or address and, if needed, a port: Host: example.com:8080.",
};
const BAD_CONTENT_LENGTH: ProblemType = ProblemType {
    kind: "bad-content-length",
    status: 400,
    title: "The length of the body is ambiguous",
    fix: "Send one Content-Length with a decimal number, or Transfer-Encoding: chunked, and never both.",
};
const BAD_TRANSFER_CODING: ProblemType = ProblemType {
    kind: "bad-transfer-coding",
    status: 400,
    title: "The transfer coding is malformed",
    fix: "Send Transfer-Encoding: chunked once, in HTTP/1.1 only, or Content-Length.",
};
const UNSUPPORTED_TRANSFER_CODING: ProblemType = ProblemType {
    kind: "unsupported-transfer-coding",
    status: 501,
    title: "The transfer coding is not supported",
    fix: "Send the body as it is, with Content-Length or Transfer-Encoding: chunked.",
};
const BAD_CHUNK: ProblemType = ProblemType {
    kind: "bad-chunk",
    status: 400,
    title: "The chunked body is malformed",
    fix: "Send each chunk as its size in hex, CR LF, that many bytes, CR LF; end by 0 CR LF CR LF.",
};
const MESSAGE_TOO_LARGE: ProblemType = ProblemType {
    kind: "message-too-large",
    status: 413,
    title: "The body is too large",
    fix: "Send less, or raise --max-message-size.",
};
const REQUEST_TIMEOUT: ProblemType = ProblemType {
    kind: "request-timeout",
    status: 408,
    title: "The request took too long",
    fix: "Send the whole request without pausing, or raise --head-timeout or --message-timeout.",
};
const NO_MEMORY: ProblemType = ProblemType {
    kind: "no-memory",
    status: 503,
    title: "The server is out of memory",
    fix: "Try again later, or give the server more memory or fewer clients.",
};

fn size(body_bytes: Option<u64>, limit_bytes: u64) -> String {
    body_bytes.map_or_else(|| format!("more than {limit_bytes} bytes"), |bytes| format!("{bytes} bytes"))
}

#[cfg(test)]
mod tests {

    use super::*;

    const ALL: [HttpError; 21] = [
        HttpError::NotHttp,
        HttpError::BadRequestLine,
        HttpError::UnsupportedVersion,
        HttpError::BadTarget,
        HttpError::BareLineEnd,
        HttpError::ControlByte,
        HttpError::FoldedHeader,
        HttpError::BadHeader,
        HttpError::HeadTooLarge { limit_bytes: 16_384 },
        HttpError::TooManyHeaders,
        HttpError::MissingHost,
        HttpError::RepeatedHost,
        HttpError::BadHost,
        HttpError::BadContentLength,
        HttpError::LengthAndCoding,
        HttpError::BadTransferEncoding,
        HttpError::UnsupportedTransferCoding,
        HttpError::BadChunk,
        HttpError::MessageTooLarge { body_bytes: None, limit_bytes: 65_536 },
        HttpError::Timeout,
        HttpError::NoMemory,
    ];

    #[test]
    fn the_docs_list_every_type_with_its_status_and_fix() {
        let docs = include_str!("../../docs/errors.md");
        for error in ALL {
            let ProblemType { kind, status, title, fix } = error.problem_type();
            let row = format!("| `{kind}` | {status} | {title} | {fix} |");
            assert!(docs.contains(&row), "docs/errors.md lacks this row:\n{row}");
        }
    }

    #[test]
    fn every_error_closes_and_says_why() {
        for error in ALL {
            let response = error.into_response();
            let body: serde_json::Value = serde_json::from_slice(response.body.as_bytes()).unwrap();
            assert!(response.close && body["status"] == error.status() && body["detail"] == error.to_string(), "{body}");
            assert!(error.section().starts_with("RFC "));
        }
        assert_eq!(HttpError::NoMemory.into_response().headers[1], ("Retry-After", "1".to_owned()));
        assert_eq!(
            HttpError::MessageTooLarge { body_bytes: None, limit_bytes: 9 }.to_string(),
            "The body has more than 9 bytes; the limit is 9."
        );
    }
}
