//! An HTTP/1.1 client that takes nothing on trust (RFC 9112): every answer must be complete, well-formed and of the stated length.

use std::net::SocketAddr;

use serde_json::Value;

use crate::wire::Connection;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header that must not come twice.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} comes twice: {self:?}");
        value
    }

    /// The body as text.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The body as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem body (RFC 9457) of a refusal with `status`: its members are there, and its texts say something.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("Content-Type"), Some("application/problem+json"));
        let problem = self.json();
        let text = |name: &str| problem[name].as_str().unwrap_or_default();
        assert!(text("type").starts_with("urn:fantail:problem:"), "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["title", "detail", "fix"] {
            assert!(text(member).len() > 5, "{member} says nothing: {problem}");
        }
        problem
    }
}

impl Connection {
    /// Reads one answer to a request that was not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let mut response = self.response_head();
        assert!(response.header("Transfer-Encoding").is_none(), "all but streams state their length: {response:?}");
        let bodiless = response.status < 200 || matches!(response.status, 204 | 304);
        if bodiless {
            assert!(response.status == 304 || response.header("Content-Length").is_none(), "RFC 9110 section 8.6: {response:?}");
        } else {
            let length = response.header("Content-Length").expect("every answer states its length");
            response.body = self.take(length.parse().expect("a number"));
        }
        response
    }

    /// Reads one answer; `None` if the server ended the stream instead of beginning one.
    #[track_caller]
    pub fn try_response(&mut self) -> Option<Response> {
        self.has_more().then(|| self.response())
    }

    /// Reads the head of an answer alone: all there is after HEAD.
    #[track_caller]
    pub fn response_head(&mut self) -> Response {
        let head = String::from_utf8(self.take_until(b"\r\n\r\n")).expect("a head is ASCII");
        let mut lines = head.strip_suffix("\r\n\r\n").expect("it was read up to there").split("\r\n");
        let status = status(lines.next().unwrap_or_default());
        let headers: Vec<_> = lines.map(header).collect();
        Response { status, headers, body: Vec::new() }
    }

    /// Sends a request without a body and reads its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        self.response()
    }

    /// Publishes `body` as text and reads the answer.
    #[track_caller]
    pub fn post(&mut self, target: &str, body: impl AsRef<[u8]>) -> Response {
        self.send(post(target, "Content-Type: text/plain\r\n", body));
        self.response()
    }
}

/// A POST with these further header lines, each ended by CRLF.
#[must_use]
pub fn post(target: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// GET on a connection of its own.
#[must_use]
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Response {
    Connection::open(address).get(target)
}

/// Sends `request` on a connection of its own and reads one answer.
#[must_use]
#[track_caller]
pub fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut connection = Connection::open(address);
    connection.send(request);
    connection.response()
}

/// Sends `request`, reads one answer, and fails unless the server then ends the connection without another byte.
#[must_use]
#[track_caller]
pub fn refused(address: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut connection = Connection::open(address);
    // The server may refuse before it has read all, so the rest may find the connection closed.
    connection.try_send(request);
    let response = connection.response();
    let mut options = response.header("Connection").unwrap_or_default().split(',').map(str::trim);
    assert!(options.any(|option| option == "close"), "{response:?}");
    connection.expect_end();
    response
}

#[track_caller]
fn status(line: &str) -> u16 {
    let code = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' ')).map(|(code, _)| code);
    match code.filter(|code| code.len() == 3).and_then(|code| code.parse().ok()) {
        Some(code @ 100..600) => code,
        _ => panic!("not a status line (RFC 9112 section 4): {line:?}"),
    }
}

#[track_caller]
fn header(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header line: {line:?}"));
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    assert!(!name.is_empty() && name.bytes().all(is_token), "not a header name: {line:?}");
    assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "a control character or foreign byte: {line:?}");
    (name.into(), value.trim().into())
}
