//! The head of a request, parsed and checked (RFC 9112 sections 2 to 5).

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
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}
