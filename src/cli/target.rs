//! The server a client command talks to, and the URLs of its topics.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::Uri;

use crate::frame::{Pattern, Topic};

/// Where a server answers: `http://HOST[:PORT][/BASE]`; `ws://` means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host without an IPv6 address's brackets.
    host: String,
    port: u16,
    /// `HOST:PORT` as URLs spell it.
    authority: String,
    /// Empty, or a path without a slash at its end.
    base_path: String,
}

/// Why a text is no address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not of the form that is accepted.
    #[error("give a URL such as http://127.0.0.1:8080")]
    NotUrl,
    /// `https` or `wss`.
    #[error("this version speaks no TLS; give an http:// URL")]
    Tls,
    /// A name, a password, a query: nothing that the server's address has.
    #[error("give scheme, host, port and base path alone, such as http://127.0.0.1:8080/push")]
    TooMuch,
}

impl Target {
    /// The address a publication to `topic` is posted to.
    #[must_use]
    pub fn publish_url(&self, topic: &Topic) -> String {
        format!("http://{}{}/topics/{}", self.authority, self.base_path, encode(topic.as_str()))
    }

    /// The address that subscribes to `topics`, which may be patterns, with `message` objects: to what is published behind `since`, if that is given.
    #[must_use]
    pub fn subscribe_url(&self, topics: &[Pattern], since: Option<&str>) -> String {
        let base = format!("ws://{}{}/topics", self.authority, self.base_path);
        let since = since.map_or_else(String::new, |since| format!("&on-gap=continue&since={since}"));
        match topics {
            [topic] => format!("{base}/{}?envelope{since}", encode(topic.as_str())),
            several => {
                let names: Vec<_> = several.iter().map(|topic| format!("topic={}", encode(topic.as_str()))).collect();
                format!("{base}?{}&envelope{since}", names.join("&"))
            }
        }
    }

    /// Connects to the first of the host's addresses that answers.
    ///
    /// # Errors
    /// The last address's failure.
    pub fn connect(&self, timeout: Duration) -> io::Result<TcpStream> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// `HOST:PORT`, for messages.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let uri: Uri = text.parse().map_err(|_| TargetError::NotUrl)?;
        match uri.scheme_str() {
            Some("http" | "ws") => {}
            Some("https" | "wss") => return Err(TargetError::Tls),
            _ => return Err(TargetError::NotUrl),
        }
        let authority = uri.authority().ok_or(TargetError::NotUrl)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(TargetError::TooMuch);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => 80,
            _ => authority.port_u16().ok_or(TargetError::NotUrl)?,
        };
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            authority: format!("{}:{port}", authority.host()),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Everything but RFC 3986's unreserved characters, and the slash between segments: in a path it separates, in a query it may stand.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

fn encode(name: &str) -> String {
    utf8_percent_encode(name, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> Vec<Pattern> {
        names.iter().map(|name| Pattern::parse(name).unwrap()).collect()
    }

    #[test]
    fn topics_are_encoded_segment_by_segment_and_read_back() {
        let target: Target = "http://127.0.0.1:8080".parse().unwrap();
        for (name, encoded) in [
            ("chat", "chat"),
            ("a/b", "a/b"),
            ("a b?c#d", "a%20b%3Fc%23d"),
            ("café", "caf%C3%A9"),
            ("100%", "100%25"),
            ("a&b=c+d;e", "a%26b%3Dc%2Bd%3Be"),
            ("-._~", "-._~"),
        ] {
            let topic = Topic::new(name).unwrap();
            assert_eq!(target.publish_url(&topic), format!("http://127.0.0.1:8080/topics/{encoded}"));
            assert_eq!(Topic::from_path(encoded), Ok(topic));
        }
    }

    #[test]
    fn several_topics_travel_in_the_query() {
        let target: Target = "ws://[::1]:9000/push/".parse().unwrap();
        let one = topics(&["a/b"]);
        assert_eq!(target.subscribe_url(&one, None), "ws://[::1]:9000/push/topics/a/b?envelope");
        let since = "ws://[::1]:9000/push/topics/a/b?envelope&on-gap=continue&since=k.7";
        assert_eq!(target.subscribe_url(&one, Some("k.7")), since);
        assert_eq!(target.subscribe_url(&topics(&["a/**"]), None), "ws://[::1]:9000/push/topics/a/%2A%2A?envelope");
        let two = topics(&["a/b", "c&d"]);
        assert_eq!(target.subscribe_url(&two, None), "ws://[::1]:9000/push/topics?topic=a/b&topic=c%26d&envelope");
    }

    #[test]
    fn addresses_are_read_or_refused_clearly() {
        let target: Target = "http://localhost/".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.authority()), ("localhost", 80, "localhost:80"));
        assert_eq!("https://example.com".parse::<Target>(), Err(TargetError::Tls));
        assert_eq!("wss://example.com".parse::<Target>(), Err(TargetError::Tls));
        for text in ["", "chat", "/topics", "127.0.0.1:8080", "ftp://a", "http://", "http://a:99999", "http://a:"] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::NotUrl), "{text:?}");
        }
        for text in ["http://me@a", "http://a/?x"] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::TooMuch), "{text:?}");
        }
    }
}
