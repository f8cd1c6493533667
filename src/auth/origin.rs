//! Which web pages may speak to the server: `Origin` against `Host` and `--allow-origin` (RFC 6454 sections 4 and 6.1).
//!
//! A browser writes an origin in one form alone: scheme and host in lower case, no port where it is the scheme's default
//! (RFC 6454 section 6.2). So nothing is normalised in a request: another case, a stated default port or a trailing dot was not
//! written by a browser on behalf of the page it names, and matches nothing. What the operator writes is brought into that form.

use std::net::Ipv6Addr;
use std::str::FromStr;

use super::{Asker, is_local};

/// Whether the page that a request comes from may speak to us. Without `Origin` no browser sent it, and the check has no object.
///
/// Without patterns a page of our own `Host` may. Patterns replace that rule, because a page that had its own name resolve to
/// us (DNS rebinding) has our Host, too. Pages of this machine may speak to a server on this machine in any case.
#[must_use]
pub fn origin_allowed(asker: &Asker<'_>, patterns: &[OriginPattern]) -> bool {
    let Some(text) = asker.origin else { return true };
    if is_local(asker) {
        return true;
    }
    if text == NULL {
        return patterns.contains(&OriginPattern::Null);
    }
    match Origin::parse(text) {
        None => false,
        Some(origin) if patterns.is_empty() => asker.host.is_some_and(|host| origin.is_page_of(host)),
        Some(origin) => patterns.iter().any(|pattern| pattern.matches(&origin)),
    }
}

/// What a browser sends for a page without an origin: a sandboxed frame, a local file. Anybody can make one.
const NULL: &str = "null";

/// An origin: `scheme://host` or `scheme://host:port`, nothing behind.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// The port where it is not the scheme's default.
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    /// Reads the value of an `Origin` header; `None` if it is not in the form of browsers, or anything else, `null` and a list
    /// included.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (origin, stated_port) = Self::read(text)?;
        let as_browsers_write = stated_port == origin.port && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        as_browsers_write.then_some(origin)
    }

    /// Reads what a person wrote: the origin in whatever case, and the port as stated.
    fn read(text: &'a str) -> Option<(Self, Option<u16>)> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !scheme_fits {
            return None;
        }
        let (host, port) = split_authority(authority)?;
        let origin = Self { scheme, host, port: port.filter(|port| Some(*port) != default_port(scheme)) };
        Some((origin, port))
    }

    /// The name of the host; an IPv6 address is in brackets.
    #[must_use]
    pub const fn host(&self) -> &'a str {
        self.host
    }

    /// Whether web pages come from an origin with this scheme.
    #[must_use]
    pub fn is_web(&self) -> bool {
        matches!(self.scheme, "http" | "https")
    }

    /// Whether a page of this origin is served under this `Host`. Both `http` and `https` fit, since TLS may end before us; the
    /// port that a Host leaves out is the default of the origin's scheme. A Host is written by people, too: it has no case.
    fn is_page_of(&self, host: &str) -> bool {
        let Some((name, port)) = split_authority(host) else { return false };
        let port = port.filter(|port| Some(*port) != default_port(self.scheme));
        self.is_web() && self.host.eq_ignore_ascii_case(name) && self.port == port
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("https") { Some(443) } else { scheme.eq_ignore_ascii_case("http").then_some(80) }
}

/// Splits `host` or `host:port`; `None` if either is malformed, or something else (a user, a path, a list) is there.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let port_start = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(port_start);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0') => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    is_host(host).then_some((host, port))
}

/// A name, an IPv4 address or an IPv6 address in brackets. Browsers send names in their ASCII form.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    }
}

/// One value of `--allow-origin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`: every well-formed origin. `null` is none.
    Any,
    /// `null`, which nothing else stands for.
    Null,
    /// `https://app.example.com`.
    Exact(KnownOrigin),
    /// `https://*.example.com`: one or more whole labels before `example.com`, never `example.com` itself.
    Below(KnownOrigin),
}

/// An origin that the operator wrote: the owned twin of [`Origin`], in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownOrigin {
    scheme: Box<str>,
    host: Box<str>,
    port: Option<u16>,
}

impl OriginPattern {
    fn matches(&self, origin: &Origin<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Null => false,
            Self::Exact(known) => known.shares_scheme_and_port(origin) && *known.host == *origin.host,
            Self::Below(known) => known.shares_scheme_and_port(origin) && known.is_above(origin.host),
        }
    }
}

impl KnownOrigin {
    fn shares_scheme_and_port(&self, origin: &Origin<'_>) -> bool {
        *self.scheme == *origin.scheme && self.port == origin.port
    }

    /// Whether `host` is this host with one or more labels and a dot before it. Both are ASCII.
    fn is_above(&self, host: &str) -> bool {
        let Some(labels_end) = host.len().checked_sub(self.host.len()) else { return false };
        let (labels, parent) = host.split_at(labels_end);
        let Some(labels) = labels.strip_suffix('.') else { return false };
        *self.host == *parent && labels.split('.').all(|label| !label.is_empty())
    }
}

impl From<Origin<'_>> for KnownOrigin {
    fn from(origin: Origin<'_>) -> Self {
        let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
        Self { scheme: lower(origin.scheme), host: lower(origin.host), port: origin.port }
    }
}

/// The text is no value of `--allow-origin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an origin such as https://app.example.com (no path), https://*.example.com, null, or * for any")]
pub struct OriginPatternError;

impl FromStr for OriginPattern {
    type Err = OriginPatternError;

    fn from_str(text: &str) -> Result<Self, OriginPatternError> {
        match text {
            "*" => return Ok(Self::Any),
            NULL => return Ok(Self::Null),
            _ => {}
        }
        if let Some((origin, _)) = Origin::read(text) {
            return Ok(Self::Exact(origin.into()));
        }
        let parent = text.replacen("://*.", "://", 1);
        Origin::read(&parent).map(|(origin, _)| Self::Below(origin.into())).ok_or(OriginPatternError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, host: &str, patterns: &[&str]) -> bool {
        let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        let asker = Asker {
            peer_is_loopback: false,
            listener_is_loopback: false,
            host: Some(host),
            origin: Some(origin),
            proxied: false,
        };
        origin_allowed(&asker, &patterns)
    }

    #[test]
    fn by_default_a_page_of_our_host_may_speak() {
        for (origin, host) in [
            ("https://push.example.com", "push.example.com"),
            ("http://push.example.com", "push.example.com"),
            ("https://push.example.com", "Push.Example.COM"),
            ("https://push.example.com", "push.example.com:443"),
            ("http://push.example.com", "push.example.com:80"),
            ("http://push.example.com:8080", "push.example.com:8080"),
            ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080"),
            ("https://push.example.com.", "push.example.com."),
        ] {
            assert!(allowed(origin, host, &[]), "{origin} at {host}");
        }
    }

    #[test]
    fn by_default_no_other_page_may() {
        for (origin, host) in [
            ("https://good.example.evil.com", "good.example"),
            ("https://evilgood.example", "good.example"),
            ("https://good.example.", "good.example"),
            ("https://GOOD.example", "good.example"),
            ("HTTPS://good.example", "good.example"),
            ("https://good.example:443", "good.example"),
            ("http://good.example:80", "good.example:80"),
            ("https://good.example:8443", "good.example"),
            ("https://good.example:08443", "good.example:8443"),
            ("https://good.example", "good.example:8080"),
            ("https://good.example", "good.example:80"),
            ("ftp://good.example", "good.example"),
            ("null", "null"),
            ("", ""),
            ("good.example", "good.example"),
            ("https://good.example/", "good.example"),
            ("https://good.example:", "good.example"),
            ("https://good.example:+443", "good.example"),
            ("https://good.example:99999", "good.example"),
            ("https://user@good.example", "good.example"),
            ("https://good.example, https://good.example", "good.example"),
            ("https://g\u{f6}\u{f6}d.example", "g\u{f6}\u{f6}d.example"),
            ("://good.example", "good.example"),
            ("http://[::1", "[::1"),
            ("http://[::zz]", "[::zz]"),
            ("http://]", "]"),
        ] {
            assert!(!allowed(origin, host, &[]), "{origin} at {host}");
        }
    }

    #[test]
    fn the_list_allows_exactly_what_it_names() {
        let list = ["https://App.example.com:443", "HTTPS://*.wild.example", "http://dev.example:3000", "capacitor://localhost"];
        for origin in [
            "https://app.example.com",
            "https://a.wild.example",
            "https://a.b.wild.example",
            "http://dev.example:3000",
            "capacitor://localhost",
        ] {
            assert!(allowed(origin, "push.example.com", &list), "{origin}");
        }
        for origin in [
            "http://app.example.com",
            "https://APP.example.com",
            "https://app.example.com:443",
            "https://a.Wild.example",
            "https://app.example.com:444",
            "https://app.example.com.",
            "https://x.app.example.com",
            "https://app.example.com.evil.com",
            "https://wild.example",
            "https://.wild.example",
            "https://a..wild.example",
            "https://awild.example",
            "https://a.wild.example.evil.com",
            "https://a.wild.example:8443",
            "http://a.wild.example",
            "http://dev.example",
            "https://push.example.com",
            "null",
        ] {
            assert!(!allowed(origin, "push.example.com", &list), "{origin}");
        }
    }

    #[test]
    fn null_is_only_allowed_by_its_name() {
        assert!(allowed("https://any.example", "push.example.com", &["*"]));
        assert!(!allowed("null", "push.example.com", &["*"]));
        assert!(allowed("null", "push.example.com", &["*", "null"]));
        assert!(!allowed("https://any.example", "push.example.com", &["null"]));
        assert!(!allowed("no origin", "push.example.com", &["*"]));
    }

    #[test]
    fn no_origin_and_local_pages_need_no_list() {
        let here = Asker {
            peer_is_loopback: true,
            listener_is_loopback: true,
            host: Some("127.0.0.1:8080"),
            origin: Some("http://localhost:3000"),
            proxied: false,
        };
        let list = ["https://app.example.com".parse().unwrap()];
        assert!(origin_allowed(&here, &[]) && origin_allowed(&here, &list));
        assert!(!origin_allowed(&Asker { proxied: true, ..here }, &[]));
        assert!(origin_allowed(&Asker { proxied: true, origin: None, ..here }, &list));
        assert!(!origin_allowed(&Asker { host: None, ..here }, &[]));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://*",
            "https://*.",
            "https://a.*.example",
            "https://*.*.example",
            "https://*example.com",
            "*.example.com",
            "https://a b",
        ] {
            assert_eq!(text.parse::<OriginPattern>(), Err(OriginPatternError), "{text:?}");
        }
    }
}
