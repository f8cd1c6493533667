//! The head of a request, parsed and checked (RFC 9112 sections 2 to 5).
//!
//! httparse splits the lines; the rules that keep two parsers from reading two requests are checked here once, for every request,
//! so that no resource has to: the version, the target, the one Host, the body's framing.

use std::mem::MaybeUninit;

use super::target::{Target, check_host};
use super::{Framing, HttpError};

/// How many header lines a head may have. Browsers send some 20; each proxy adds a few.
pub const HEADERS_MAX: usize = 100;

/// Room for the headers of one head, on the caller's stack. It's 3,200 bytes, so it is not worth clearing.
pub type HeaderSpace<'h> = [MaybeUninit<httparse::Header<'h>>; HEADERS_MAX];

/// Room for [`Head::parse`] to put headers in.
#[must_use]
pub const fn header_space<'h>() -> HeaderSpace<'h> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}

/// The methods that Fantail knows (RFC 9110 section 9.3); others are told 501 or 405.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks for a representation, an upgrade or a subscription.
    Get,
    /// Like GET, without the body of the answer.
    Head,
    /// Publishes.
    Post,
    /// Deletes.
    Delete,
    /// Asks what is allowed; also the CORS preflight.
    Options,
    /// A well-formed method that no resource here has.
    Other,
}

impl Method {
    /// Methods are compared with case (RFC 9110 section 9.1).
    fn of(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

/// The head of one request. All its text lives in the bytes it was parsed from.
#[derive(Debug)]
pub struct Head<'h> {
    /// The method.
    pub method: Method,
    /// The path as it came, percent-encoded, beginning with `/`; `*` for `OPTIONS *`.
    pub path: &'h str,
    /// What stands behind `?`, without it; empty if nothing does.
    pub query: &'h str,
    /// HTTP/1.1 (true) or HTTP/1.0 (false).
    pub http11: bool,
    /// The one Host, checked; `None` for HTTP/1.0 without one.
    pub host: Option<&'h str>,
    /// Whether the connection may serve another request afterwards (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// `Expect: 100-continue` (RFC 9110 section 10.1.1).
    pub expects_continue: bool,
    /// The declared body in bytes; `None` when it is chunked. 0 without a body.
    pub content_length: Option<u64>,
    /// Every header line, in order.
    pub headers: &'h [httparse::Header<'h>],
}

impl<'h> Head<'h> {
    /// Parses the bytes that [`Event::Head`](super::Event::Head) lends: one head, whose line ends have been checked.
    ///
    /// ```
    /// use fantail::http1::{Head, Method, header_space};
    ///
    /// let mut space = header_space();
    /// let head = Head::parse(b"GET /topics/chat?wait=5 HTTP/1.1\r\nHost: localhost\r\n\r\n", &mut space)?;
    /// assert_eq!((head.method, head.path, head.query), (Method::Get, "/topics/chat", "wait=5"));
    /// # Ok::<(), fantail::http1::HttpError>(())
    /// ```
    ///
    /// # Errors
    /// The first rule that the head breaks.
    pub fn parse(bytes: &'h [u8], space: &'h mut HeaderSpace<'h>) -> Result<Self, HttpError> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, space) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(HttpError::BadRequestLine),
            Err(error) => return Err(refusal(error, bytes)),
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
            return Err(HttpError::BadRequestLine);
        };
        let method = Method::of(method);
        let Target { host, path, query } = Target::parse(target, method)?;
        let http11 = version == 1;
        let mut head = Head {
            method,
            path,
            query,
            http11,
            host,
            keep_alive: http11,
            expects_continue: false,
            content_length: Some(0),
            headers: request.headers,
        };
        head.interpret()?;
        Ok(head)
    }

    /// How the body ends.
    #[must_use]
    pub fn framing(&self) -> Framing {
        match self.content_length {
            None => Framing::Chunked,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
        }
    }

    /// Fills in what the headers say about host, body and connection, by one pass over them: most are told apart by the length of
    /// their name alone.
    fn interpret(&mut self) -> Result<(), HttpError> {
        let (mut host, mut hosts, mut has_body, mut keep, mut close) = (None, 0, false, false, false);
        for header in self.headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("Host") => (host, hosts) = (Some(header.value.trim_ascii()), hosts + 1),
                6 if is("Expect") => self.expects_continue |= self.http11 && lists(header.value, b"100-continue"),
                10 if is("Connection") => {
                    keep |= lists(header.value, b"keep-alive");
                    close |= lists(header.value, b"close");
                }
                14 if is("Content-Length") => has_body = true,
                17 if is("Transfer-Encoding") => has_body = true,
                _ => {}
            }
        }
        let named = self.named_host(host, hosts)?;
        self.host = self.host.or(named);
        if has_body {
            let framing = Framing::of(self.http11, self.values("content-length"), self.values("transfer-encoding"))?;
            self.content_length = match framing {
                Framing::None => Some(0),
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
        }
        // RFC 9112 section 9.3: close wins; HTTP/1.0 must ask to be kept. RFC 9110 section 10.1.1: 1.0 cannot expect.
        self.keep_alive = (self.http11 || keep) && !close;
        Ok(())
    }

    /// The Host header, checked: exactly one in HTTP/1.1, even beside an absolute target (RFC 9112 section 3.2).
    fn named_host(&self, value: Option<&'h [u8]>, count: usize) -> Result<Option<&'h str>, HttpError> {
        let Some(value) = value else {
            return if self.http11 { Err(HttpError::MissingHost) } else { Ok(None) };
        };
        if count > 1 {
            return Err(HttpError::RepeatedHost);
        }
        let host = std::str::from_utf8(value).map_err(|_| HttpError::BadHost)?;
        check_host(host)?;
        Ok(Some(host))
    }

    /// The values of the header `name`, line by line, surrounding whitespace removed. Names are compared without case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
    }

    /// The value of a header that must not occur twice; `None` if it is absent, occurs twice or is not visible ASCII.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'h str> {
        let mut values = self.values(name);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }

    /// Whether the comma-separated list in all lines of `name` holds `token`, compared without case (RFC 9110 section 5.6.1).
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| lists(value, token.as_bytes()))
    }
}

/// Whether the comma-separated list holds `token`, compared without case (RFC 9110 section 5.6.1).
#[must_use]
pub fn lists(value: &[u8], token: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// What httparse's error means to the client.
fn refusal(error: httparse::Error, bytes: &[u8]) -> HttpError {
    use httparse::Error;
    match error {
        Error::HeaderName | Error::HeaderValue => HttpError::BadHeader,
        Error::TooManyHeaders => HttpError::TooManyHeaders,
        Error::Version if names_a_version(bytes) => HttpError::UnsupportedVersion,
        Error::Version | Error::Token | Error::NewLine | Error::Status => HttpError::BadRequestLine,
    }
}

/// Whether the third and last word of the first line is like `HTTP/2.0`: a version, only not ours.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    let is_version =
        matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
    is_version && words.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_head<T>(text: &str, look: impl FnOnce(Result<Head<'_>, HttpError>) -> T) -> T {
        let mut space = header_space();
        look(Head::parse(text.as_bytes(), &mut space))
    }

    #[test]
    fn persistence_is_by_version_and_connection() {
        for (version, connection, keep_alive) in [
            ("1.1", "", true),
            ("1.1", "Connection: Upgrade, CLOSE\r\n", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
        ] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
            assert_eq!(with_head(&text, |head| head.unwrap().keep_alive), keep_alive, "{text}");
        }
    }

    #[test]
    fn the_host_of_the_target_wins() {
        let text = "GET http://b:1/x HTTP/1.1\r\nHost: a\r\n\r\n";
        with_head(text, |head| assert_eq!(head.unwrap().host, Some("b:1")));
        with_head("GET / HTTP/1.0\r\n\r\n", |head| assert_eq!(head.unwrap().host, None));
        with_head("GET http://b/ HTTP/1.1\r\n\r\n", |head| assert_eq!(head.unwrap_err(), HttpError::MissingHost));
    }

    #[test]
    fn headers_are_found_without_case_and_by_token() {
        let text =
            "GET / HTTP/1.1\r\nhost: a\r\nConnection: keep-alive\r\nCONNECTION: x,\tUpgrade \r\nExpect: 100-Continue\r\n\r\n";
        with_head(text, |head| {
            let head = head.unwrap();
            assert!(head.has_token("connection", "upgrade") && !head.has_token("connection", "up"));
            assert!(head.expects_continue);
            assert_eq!((head.value("Host"), head.value("connection"), head.value("via")), (Some("a"), None, None));
        });
    }

    #[test]
    fn a_head_is_one_head() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET";
        with_head(text, |head| assert_eq!(head.unwrap_err(), HttpError::BadRequestLine));
        with_head("GET / HTTP/1.1\r\nHost: a\r\n", |head| assert_eq!(head.unwrap_err(), HttpError::BadRequestLine));
    }
}
