//! An answer and how it is written (RFC 9112 section 4).

use std::io::Write;

/// The interim answer to `Expect: 100-continue`, sent once the head has been found good (RFC 9110 section 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const CONNECTION: &str = "Connection";

/// What of the request bears on how its answer is written.
#[derive(Clone, Copy, Debug)]
pub struct Answering {
    /// The method was HEAD: the answer to GET without its body (RFC 9110 section 9.3.2).
    pub head_only: bool,
    /// The connection stays, unless the answer closes it.
    pub keep_alive: bool,
    /// The request was HTTP/1.1; a 1.0 client must be told that the connection stays.
    pub http11: bool,
}

/// What an answer carries.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes that live as long as the program: embedded pages.
    Static(&'static [u8]),
    /// Bytes made for this answer.
    Owned(Vec<u8>),
    /// The first chunks of a body that goes on until the connection ends (RFC 9112 section 7.1): for HTTP/1.1 alone.
    Stream(Vec<u8>),
}

impl Body {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) | Self::Stream(bytes) => bytes,
        }
    }
}

/// An answer to one request.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header lines beyond those that [`Response::write`] adds by itself.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Body,
    /// Close the connection afterwards, whatever the request asked for.
    pub close: bool,
}

impl Response {
    /// An answer without headers and body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty, close: false }
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Closes the connection after this answer.
    #[must_use]
    pub fn close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Appends the answer to `out`. `date` is what [`DateCache::at`](super::DateCache::at) says.
    ///
    /// A control byte in a header value is written as a space, so that no text a client once sent can begin a line.
    pub fn write(&self, date: &str, to: Answering, out: &mut Vec<u8>) {
        let body = if to.head_only || !self.may_have_body() { &[] } else { self.body.as_bytes() };
        out.reserve(256 + body.len());
        self.write_head(date, to, out).expect("a Vec takes every write");
        out.extend_from_slice(body);
    }

    fn write_head(&self, date: &str, to: Answering, out: &mut Vec<u8>) -> std::io::Result<()> {
        write!(out, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status))?;
        match &self.body {
            Body::Stream(_) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            body if self.may_have_body() => write!(out, "Content-Length: {}\r\n", body.as_bytes().len())?,
            _ => {}
        }
        let mut stays = self.stays(to);
        for (name, value) in &self.headers {
            write!(out, "{name}: ")?;
            // What the answer itself says of the connection (an upgrade it offers) joins the same list: many a client looks at
            // one line only.
            if *name == CONNECTION
                && let Some(option) = stays.take()
            {
                write!(out, "{option}, ")?;
            }
            out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
            out.extend_from_slice(b"\r\n");
        }
        match stays {
            Some(option) => write!(out, "{CONNECTION}: {option}\r\n\r\n"),
            None => out.write_all(b"\r\n"),
        }
    }

    /// The connection option that tells a client what it can't assume; an upgrade has its own alone.
    fn stays(&self, to: Answering) -> Option<&'static str> {
        match (to.keep_alive && !self.close, to.http11) {
            _ if self.status < 200 => None,
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        }
    }

    /// RFC 9110 section 8.6: no Content-Length on 1xx and 204. One on 304 would have to be that of the page not sent.
    fn may_have_body(&self) -> bool {
        self.status >= 200 && self.status != 204 && self.status != 304
    }
}

/// The reason phrase (RFC 9110 section 15); empty for a status that nothing here sends, which section 4 of RFC 9112 allows.
const fn reason(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const GET: Answering = Answering { head_only: false, keep_alive: true, http11: true };

    fn written(response: &Response, to: Answering) -> String {
        let mut out = Vec::new();
        response.write(DATE, to, &mut out);
        String::from_utf8(out).unwrap().replace(&format!("Date: {DATE}\r\n"), "DATE ")
    }

    #[test]
    fn an_answer_has_date_length_and_body() {
        let response = Response::new(200).header("Content-Type", "text/plain").body(Body::Static(b"ok"));
        let head = "HTTP/1.1 200 OK\r\nDATE Content-Length: 2\r\nContent-Type: text/plain\r\n\r\n";
        assert_eq!(written(&response, GET), format!("{head}ok"));
        assert_eq!(written(&response, Answering { head_only: true, ..GET }), head);
        assert_eq!(written(&Response::new(404), GET), "HTTP/1.1 404 Not Found\r\nDATE Content-Length: 0\r\n\r\n");
    }

    #[test]
    fn answers_without_body_have_no_length() {
        for (status, text) in [(204, "No Content"), (304, "Not Modified")] {
            let response = Response::new(status).body(Body::Owned(vec![b'x']));
            assert_eq!(written(&response, GET), format!("HTTP/1.1 {status} {text}\r\nDATE \r\n"));
        }
        let upgrade = Response::new(101).header("Connection", "Upgrade");
        assert_eq!(
            written(&upgrade, Answering { keep_alive: false, ..GET }),
            "HTTP/1.1 101 Switching Protocols\r\nDATE Connection: Upgrade\r\n\r\n"
        );
    }

    #[test]
    fn the_connection_line_says_what_a_client_cannot_assume() {
        let plain = Response::new(204);
        let old = Answering { http11: false, ..GET };
        assert!(written(&plain, old).contains("Connection: keep-alive\r\n"));
        assert!(written(&plain, Answering { keep_alive: false, ..old }).contains("Connection: close\r\n"));
        assert!(written(&Response::new(204).close(), GET).contains("Connection: close\r\n"));
        let offer = Response::new(426).header("Connection", "Upgrade").close();
        assert_eq!(written(&offer, GET).matches("Connection").count(), 1);
        assert!(written(&offer, GET).contains("Connection: close, Upgrade\r\n"));
    }

    #[test]
    fn a_value_cannot_begin_a_line() {
        let response = Response::new(204).header("Location", "/a\r\nSet-Cookie: b\0");
        assert!(written(&response, GET).ends_with("DATE Location: /a  Set-Cookie: b \r\n\r\n"));
    }
}
