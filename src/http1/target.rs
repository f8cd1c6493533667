//! The request target (RFC 9112 section 3.2) and the syntax of a host.

use std::net::Ipv6Addr;

use super::{HttpError, Method};

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'h> {
    /// The host of an absolute target; it wins over the Host header (RFC 9112 section 3.2.2).
    pub host: Option<&'h str>,
    /// The path, beginning with `/`; or `*`.
    pub path: &'h str,
    /// What stands behind the first `?`.
    pub query: &'h str,
}

impl<'h> Target<'h> {
    /// Reads the origin form, the absolute form with http or https, and, for OPTIONS, `*`. The authority form asks for a tunnel
    /// through a proxy, which this server is not.
    ///
    /// # Errors
    /// [`HttpError::BadTarget`], or [`HttpError::BadHost`] for the host of an absolute target.
    pub fn parse(target: &'h str, method: Method) -> Result<Self, HttpError> {
        if target == "*" && method == Method::Options {
            return Ok(Self { host: None, path: "*", query: "" });
        }
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(HttpError::BadTarget);
        }
        if target.starts_with('/') {
            return Ok(Self::of_path(None, target));
        }
        let rest = without_scheme(target).ok_or(HttpError::BadTarget)?;
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        check_host(host)?;
        Ok(Self::of_path(Some(host), path))
    }

    /// Splits a path from its query; an absolute target may have an empty path, which means `/` (RFC 9110 section 4.2.3).
    fn of_path(host: Option<&'h str>, path: &'h str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self { host, path: if path.is_empty() { "/" } else { path }, query }
    }
}

/// Checks `host [":" port]` (RFC 9110 section 7.2), for a scheme that needs a host: the name must not be empty, the port may be.
pub(super) fn check_host(text: &str) -> Result<(), HttpError> {
    let (name_is_good, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.split_once(']').ok_or(HttpError::BadHost)?;
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = text.split_at(text.bytes().position(|byte| byte == b':').unwrap_or(text.len()));
            (is_name(name), port)
        }
    };
    if name_is_good && is_port(port) { Ok(()) } else { Err(HttpError::BadHost) }
}

/// A name or an IPv4 address: `reg-name` of RFC 3986 section 3.2.2.
fn is_name(name: &str) -> bool {
    let is_escape = |rest: &str| rest.len() >= 2 && rest.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    !name.is_empty()
        && name.bytes().all(|byte| IS_NAME_BYTE[usize::from(byte)])
        && (!name.contains('%') || name.split('%').skip(1).all(is_escape))
}

/// Unreserved bytes, sub-delims, and the `%` of an escape.
const IS_NAME_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'%' | b'&'..=b',' | b';' | b'=');
        byte += 1;
    }
    table
};

/// Nothing, or a colon and at most five digits that fit 16 bits.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').map_or(text.is_empty(), |digits| {
        digits.is_empty()
            || digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
    })
}

/// What stands behind `http://` or `https://`, compared without case.
fn without_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_targets_are_split() {
        for (text, host, path, query) in [
            ("/", None, "/", ""),
            ("/topics/a?since=k.1&x=?", None, "/topics/a", "since=k.1&x=?"),
            ("//a/../%00", None, "//a/../%00", ""),
            ("http://example.com", Some("example.com"), "/", ""),
            ("HTTPS://example.com:8443/a?b", Some("example.com:8443"), "/a", "b"),
            ("http://[::1]:8080?q=/", Some("[::1]:8080"), "/", "q=/"),
        ] {
            assert_eq!(Target::parse(text, Method::Get), Ok(Target { host, path, query }), "{text:?}");
        }
        assert_eq!(Target::parse("*", Method::Options).unwrap().path, "*");
    }

    #[test]
    fn bad_targets_are_refused() {
        for text in
            ["", "*", "a", "example.com:443", "ftp://a/", "http:/a", "/a#b", "/a b", "/caf\u{e9}", "/\u{7f}", "?a", "ws://a/"]
        {
            assert_eq!(Target::parse(text, Method::Get), Err(HttpError::BadTarget), "{text:?}");
        }
        for text in ["http://", "http:///a", "http://user@a/", "http://a:b/", "http://[::1/", "http://?x"] {
            assert_eq!(Target::parse(text, Method::Get), Err(HttpError::BadHost), "{text:?}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for text in ["a", "localhost:8080", "127.0.0.1", "[::1]", "[2001:db8::1]:65535", "a_b.example.", "a:", "%61"] {
            assert_eq!(check_host(text), Ok(()), "{text:?}");
        }
        for text in [
            "",
            ":80",
            "a b",
            "a:+1",
            "a:65536",
            "a:000080",
            "a:80:80",
            "::1",
            "[]",
            "[::1",
            "[::1]x",
            "[fe80::1%25a]",
            "a/b",
            "a@b",
            "%6",
            "%zz",
            "\u{e9}",
        ] {
            assert_eq!(check_host(text), Err(HttpError::BadHost), "{text:?}");
        }
    }
}
