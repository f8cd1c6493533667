//! Addresses to listen on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::words::ChoiceError;

/// What `--listen` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// One address, such as `127.0.0.1:8080`; `[::]:8080` takes IPv4 too.
    Socket(SocketAddr),
    /// `localhost:8080`: this machine alone, by IPv4 and by IPv6.
    Localhost(u16),
}

impl ListenAddress {
    /// The sockets to bind.
    pub fn sockets(self) -> impl Iterator<Item = SocketAddr> {
        let (first, second) = match self {
            Self::Socket(address) => (address, None),
            Self::Localhost(port) => (ipv4_loopback(port), Some(ipv6_loopback(port))),
        };
        std::iter::once(first).chain(second)
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl FromStr for ListenAddress {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        // No other name is looked up: what a name means can change between two starts.
        port.map(Self::Localhost)
            .or_else(|| text.parse().ok().map(Self::Socket))
            .ok_or(ChoiceError { accepted: "give ADDRESS:PORT, such as 127.0.0.1:8080, [::]:8080 or localhost:8080" })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(formatter),
            Self::Localhost(port) => write!(formatter, "localhost:{port}"),
        }
    }
}

/// What `--admin` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// No admin listener.
    Off,
    /// An address of its own, never one that clients use.
    Socket(SocketAddr),
}

impl AdminAddress {
    /// The socket to bind, if any.
    #[must_use]
    pub const fn socket(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Socket(address) => Some(address),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        match text {
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .map(Self::Socket)
                .map_err(|_| ChoiceError { accepted: "give off or ADDRESS:PORT, such as 127.0.0.1:9080" }),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::Socket(address) => address.fmt(formatter),
        }
    }
}

/// `127.0.0.1` at `port`.
pub(super) const fn ipv4_loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// `[::1]` at `port`.
pub(super) const fn ipv6_loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back() {
        for (text, sockets) in [
            ("127.0.0.1:8080", vec!["127.0.0.1:8080"]),
            ("[::]:80", vec!["[::]:80"]),
            ("localhost:0", vec!["127.0.0.1:0", "[::1]:0"]),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.sockets().map(|socket| socket.to_string()).collect::<Vec<_>>(), sockets);
        }
        for text in ["", ":8080", "8080", "localhost", "localhost:x", "localhost:70000", "example.com:80", "127.0.0.1", "off"] {
            assert!(text.parse::<ListenAddress>().unwrap_err().to_string().contains("localhost:8080"), "{text:?}");
        }
    }

    #[test]
    fn the_admin_listener_can_be_off() {
        assert_eq!("off".parse::<AdminAddress>().unwrap().socket(), None);
        assert_eq!("[::1]:9080".parse::<AdminAddress>().unwrap().socket(), Some(ipv6_loopback(9080)));
        assert!("on".parse::<AdminAddress>().is_err());
    }
}
