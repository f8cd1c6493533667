//! The `local` rule: whether a request surely comes from a program or page on this machine.
//!
//! The peer's address alone does not tell: a reverse proxy on the same machine connects from loopback with the whole internet
//! behind it, and a web page can have the browser connect to 127.0.0.1 under a name of its own (DNS rebinding). So the
//! address, the listener, `Host`, `Origin` and the traces that proxies leave must all agree.

use super::Origin;

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The peer's address is in 127.0.0.0/8 or is `::1`.
    pub peer_is_loopback: bool,
    /// The address it connected to is one, too.
    pub listener_is_loopback: bool,
    /// The `Host` header.
    pub host: Option<&'a str>,
    /// The `Origin` header; several lines joined by a comma, which makes them no origin at all.
    pub origin: Option<&'a str>,
    /// A header that [`names_proxy`] is there.
    pub proxied: bool,
}

/// Whether peer address, listener and Host are loopback, Origin is absent or loopback, and no proxy was on the way.
#[must_use]
pub fn is_local(asker: &Asker<'_>) -> bool {
    asker.peer_is_loopback
        && asker.listener_is_loopback
        && asker.host.is_some_and(is_loopback_authority)
        && asker.origin.is_none_or(is_loopback_origin)
        && !asker.proxied
}

/// Whether a header of this name tells of a proxy: `Forwarded` (RFC 7239), `Via` (RFC 9110 section 7.6.3), `X-Real-IP` and
/// everything that begins with `X-Forwarded-`.
#[must_use]
pub fn names_proxy(name: &str) -> bool {
    const PREFIX: &str = "X-Forwarded-";
    ["Forwarded", "Via", "X-Real-IP"].iter().any(|known| name.eq_ignore_ascii_case(known))
        || name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The hosts that are this machine. Names that merely resolve to loopback do not count: that is the rebinding.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

fn is_loopback_origin(origin: &str) -> bool {
    Origin::parse(origin).is_some_and(|origin| origin.is_web() && LOOPBACK_HOSTS.contains(&origin.host()))
}

/// One of the hosts that are this machine, in any case, on any port.
fn is_loopback_authority(authority: &str) -> bool {
    LOOPBACK_HOSTS.iter().any(|host| {
        let split = authority.get(..host.len()).zip(authority.get(host.len()..));
        split.is_some_and(|(name, rest)| name.eq_ignore_ascii_case(host) && is_port(rest))
    })
}

fn is_port(rest: &str) -> bool {
    rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Asker<'static> =
        Asker { peer_is_loopback: true, listener_is_loopback: true, host: Some("127.0.0.1:8080"), origin: None, proxied: false };

    #[test]
    fn each_disqualifier_counts_alone() {
        assert!(is_local(&LOCAL));
        assert!(!is_local(&Asker { peer_is_loopback: false, ..LOCAL }));
        assert!(!is_local(&Asker { listener_is_loopback: false, ..LOCAL }));
        assert!(!is_local(&Asker { host: None, ..LOCAL }));
        assert!(!is_local(&Asker { host: Some("rebound.example:8080"), ..LOCAL }));
        assert!(!is_local(&Asker { origin: Some("https://app.example.com"), ..LOCAL }));
        assert!(!is_local(&Asker { proxied: true, ..LOCAL }));
    }

    #[test]
    fn three_hosts_are_local_on_any_port() {
        for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:8080", "localhost:"] {
            assert!(is_local(&Asker { host: Some(host), ..LOCAL }), "{host}");
        }
        for origin in ["http://localhost", "https://localhost", "http://127.0.0.1:65535", "http://[::1]", "http://[::1]:8080"] {
            assert!(is_local(&Asker { origin: Some(origin), ..LOCAL }), "{origin}");
        }
    }

    #[test]
    fn what_only_looks_local_is_not() {
        for host in [
            "",
            "localhost.",
            "localhost.evil.example",
            "localhost:80:80",
            "localhost:8x",
            "localhost@evil.example",
            "127.0.0.1.nip.io",
            "127.0.0.2",
            "127.1",
            "::1",
            "[::1",
            "[::1]x",
            "evil.example:127",
            "localhosté",
            "127.0.0.é",
        ] {
            assert!(!is_local(&Asker { host: Some(host), ..LOCAL }), "{host}");
            let origin = format!("http://{host}");
            assert!(!is_local(&Asker { origin: Some(&origin), ..LOCAL }), "{origin}");
        }
        for origin in [
            "null",
            "",
            "localhost",
            "file://localhost",
            "http://localhost/",
            "http://LocalHost",
            "http://localhost:",
            "http://localhost:80",
            "http://localhost, http://localhost",
        ] {
            assert!(!is_local(&Asker { origin: Some(origin), ..LOCAL }), "{origin}");
        }
    }

    #[test]
    fn proxies_are_known_by_their_headers() {
        for name in ["Forwarded", "via", "X-REAL-IP", "X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Anything"] {
            assert!(names_proxy(name), "{name}");
        }
        for name in ["Viable", "X-Forwarded", "Host", "X-Forwardeé-For"] {
            assert!(!names_proxy(name), "{name}");
        }
    }
}
