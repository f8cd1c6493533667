//! Where the server is: `ws://HOST[:PORT]/PATH`, resolved once, so that no name is looked up while anything is measured.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::failure::Failure;

/// One URL, ready to be connected to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// What stands in `Host`.
    authority: String,
    /// Path and query.
    path: String,
}

impl Target {
    /// Takes a URL apart and resolves its host.
    pub fn resolve(url: &str) -> Result<Self, Failure> {
        let (authority, path) = split(url).ok_or_else(|| Failure::Url(url.to_owned()))?;
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let host_and_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let resolved = host_and_port.to_socket_addrs().and_then(|mut addresses| {
            addresses.next().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        });
        let address = resolved.map_err(|error| Failure::Resolve { host: authority.to_owned(), error })?;
        Ok(Self { address, authority: authority.to_owned(), path: path.to_owned() })
    }

    /// Appends the upgrade request (RFC 6455 section 4.1). There is no Origin: this is no browser.
    pub fn write_request(&self, key: &str, out: &mut Vec<u8>) {
        for part in
            ["GET ", &self.path, " HTTP/1.1\r\nHost: ", &self.authority, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"]
        {
            out.extend_from_slice(part.as_bytes());
        }
        for part in ["Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", key, "\r\n\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

/// Authority and path; a control character or a space would end the request line early.
fn split(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("ws://").or_else(|| url.strip_prefix("http://"))?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let printable = url.bytes().all(|byte| byte.is_ascii_graphic());
    (printable && !authority.is_empty()).then_some((authority, if path.is_empty() { "/" } else { path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(split("ws://h:1/a?b"), Some(("h:1", "/a?b")));
        assert_eq!(split("http://[::1]:9"), Some(("[::1]:9", "/")));
        for wrong in ["wss://h/", "ws:///a", "h:1", "ws://h/a b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
        assert_eq!(Target::resolve("ws://127.0.0.1/a").unwrap().address.port(), 80);
    }
}
