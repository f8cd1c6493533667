//! Where the server is: `ws://HOST[:PORT]/PATH`, resolved once, so that no name is looked up while anything is measured.
//!
//! `{topic}` in the URL stands for a topic's name. Where it stands in a query, its parameter is repeated for each topic of a
//! connection that has several: `/topics?topic={topic}&envelope`. `{cursor}` stands for where a subscriber goes on that comes back.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use clap::ValueEnum;

use crate::failure::Failure;

/// What stands for a topic's name in a URL.
const PLACEHOLDER: &str = "{topic}";

/// What stands for the cursor of a subscriber that comes back.
const CURSOR_PLACEHOLDER: &str = "{cursor}";

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// WebSocket messages as they are
    Raw,
    /// RESP: SUBSCRIBE and PUBLISH
    Redis,
    /// The protocol of NATS: SUB and PUB
    Nats,
    /// Socket.IO over a WebSocket
    Socketio,
    /// An event stream (server-sent events); published by POST
    Sse,
    /// HTTP, for publishing alone
    #[value(skip)]
    Post,
}

impl Dialect {
    /// As `--sub` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Socketio => "socketio",
            Self::Sse => "sse",
            Self::Post => "post",
        }
    }
}

/// The topics of one connection: `count` from `first` on, beginning anew behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topics {
    /// The index of the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// One URL, ready to be connected to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// How to speak.
    pub dialect: Dialect,
    /// What stands in `Host`.
    authority: String,
    /// Path and query, with or without a place for the topic.
    path: String,
    /// How many topics there are in all.
    topics: u32,
    /// Where to connect from; the kernel's choice where none is given.
    pub source: Option<IpAddr>,
}

impl Target {
    /// Takes a URL apart and resolves its host. The dialect is the scheme's where none is given. More than one topic needs a place
    /// for its name.
    pub fn resolve(url: &str, dialect: Option<Dialect>, topics: u32) -> Result<Self, Failure> {
        let (of_scheme, authority, path) = split(url).ok_or_else(|| Failure::Url(url.to_owned()))?;
        if authority.contains('@') {
            return Err(Failure::Usage(format!("{url}: a user and a password in the URL are not supported")));
        }
        let dialect = dialect.unwrap_or(of_scheme);
        let is_http = |dialect| matches!(dialect, Dialect::Raw | Dialect::Socketio | Dialect::Sse | Dialect::Post);
        if is_http(dialect) != is_http(of_scheme) || (dialect != of_scheme && !is_http(dialect)) {
            return Err(Failure::Usage(format!("{url}: its scheme is not that of --sub")));
        }
        if topics > 1 && !path.contains(PLACEHOLDER) {
            return Err(Failure::Usage(format!(
                "{url}: {topics} topics need a place for their name: put {PLACEHOLDER} into the URL"
            )));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = default_port(dialect);
        let host_and_port = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        let resolved = host_and_port.to_socket_addrs().and_then(|mut addresses| {
            addresses.next().ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address"))
        });
        let address = resolved.map_err(|error| Failure::Resolve { host: authority.to_owned(), error })?;
        Ok(Self { address, dialect, authority: authority.to_owned(), path: path.into_owned(), topics, source: None })
    }

    /// The same address and path, for POST. A URL of many topics is none that could be posted to.
    pub fn for_post(self) -> Result<Self, Failure> {
        match self.path.split_once(PLACEHOLDER) {
            Some((before, _)) if before.contains('?') => Err(Failure::Usage(
                "the URL names its topics in the query: say with --post URL where to publish on one".to_owned(),
            )),
            _ => Ok(Self { dialect: Dialect::Post, ..self }),
        }
    }

    /// What stands in `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Where another process connects from, by its number: on loopback an address of its own, as between two addresses there are
    /// but some 28,000 ports.
    pub fn source_of(&self, process: usize) -> Option<IpAddr> {
        match self.address.ip() {
            IpAddr::V4(address) if address.is_loopback() => Some(Ipv4Addr::new(127, 0, 1, (process + 1) as u8).into()),
            _ => None,
        }
    }

    /// How many topics there are in all.
    pub const fn topics(&self) -> u32 {
        self.topics
    }

    /// Whether its messages can be masked WebSocket frames, as an echo needs.
    pub fn is_websocket(&self) -> bool {
        self.dialect == Dialect::Raw
    }

    /// Whether an open connection can subscribe and unsubscribe: a WebSocket's subscription is the connection itself.
    pub const fn has_subscriptions(&self) -> bool {
        matches!(self.dialect, Dialect::Redis | Dialect::Nats)
    }

    /// Whether a publication is answered; where the protocol leaves the choice, `confirm` says whether it is asked for.
    pub const fn answers(&self, confirm: bool) -> bool {
        match self.dialect {
            Dialect::Redis | Dialect::Post => true,
            Dialect::Nats => confirm,
            Dialect::Raw | Dialect::Socketio | Dialect::Sse => false,
        }
    }

    /// Path and query for these topics, for who begins anew.
    pub fn path(&self, topics: Topics) -> String {
        self.path_behind(topics, "")
    }

    /// Path and query for these topics and who goes on behind this cursor. It stands where the URL has a place for it, else in
    /// Fantail's own parameter, `since`. Without one the parameter that has the place is left out.
    pub fn path_behind(&self, topics: Topics, cursor: &str) -> String {
        let path = self.path_of(topics);
        match path.split_once(CURSOR_PLACEHOLDER) {
            None if cursor.is_empty() => path,
            None => format!("{path}{}since={}", if path.contains('?') { '&' } else { '?' }, encode(cursor)),
            Some((before, behind)) if cursor.is_empty() => without_parameter(before, behind),
            Some((before, behind)) => format!("{before}{}{behind}", encode(cursor)),
        }
    }

    fn path_of(&self, topics: Topics) -> String {
        let Some((before, behind)) = self.path.split_once(PLACEHOLDER) else { return self.path.clone() };
        // A parameter that holds the topic is repeated; elsewhere only the first topic has a place.
        let parameter = before.rfind(['?', '&']).map(|at| &before[at + 1..]);
        let mut path = format!("{before}{}", topic_name(topics.first));
        if let Some(parameter) = parameter {
            for topic in self.indices(topics).skip(1) {
                path.extend(["&", parameter, &topic_name(topic)]);
            }
        }
        path + behind
    }

    /// How many topics one connection can have by this URL.
    pub fn topics_of_one_max(&self) -> u32 {
        let before = self.path.split_once(PLACEHOLDER).map(|(before, _)| before);
        match self.dialect {
            Dialect::Redis | Dialect::Nats => self.topics,
            _ if before.is_some_and(|before| before.contains('?')) => self.topics,
            _ => 1,
        }
    }

    /// A topic's name where the protocol names it beside the URL: the path with the name in its place.
    pub fn name(&self, topic: u32) -> String {
        self.path.trim_start_matches('/').replace(PLACEHOLDER, &topic_name(topic))
    }

    /// The names of a connection's topics.
    pub fn names(&self, topics: Topics) -> impl Iterator<Item = String> {
        self.indices(topics).map(|topic| self.name(topic))
    }

    fn indices(&self, topics: Topics) -> impl Iterator<Item = u32> + use<> {
        let all = self.topics.max(1);
        (0..topics.count).map(move |at| (topics.first + at) % all)
    }
}

/// A URL cut at a value, without the parameter that has this value. What is no parameter has an empty value.
fn without_parameter(before: &str, behind: &str) -> String {
    let Some(at) = before.rfind(['?', '&']) else { return format!("{before}{behind}") };
    match behind.split_once('&') {
        Some((_, others)) => format!("{}{others}", &before[..=at]),
        None => before[..at].to_owned(),
    }
}

/// A value for a query (RFC 3986 section 2.1): all but unreserved characters as percent and two digits.
fn encode(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => text.push(char::from(byte)),
            byte => text.extend(format!("%{byte:02X}").chars()),
        }
        text
    })
}

fn topic_name(topic: u32) -> String {
    format!("load-{topic}")
}

const fn default_port(dialect: Dialect) -> u16 {
    match dialect {
        Dialect::Redis => 6379,
        Dialect::Nats => 4222,
        Dialect::Raw | Dialect::Socketio | Dialect::Sse | Dialect::Post => 80,
    }
}

/// The dialect of the scheme, authority and path; a control character or a space would end the request line early.
/// A query may follow the host at once (RFC 3986 section 3.3): its path is the root then.
fn split(url: &str) -> Option<(Dialect, &str, Cow<'_, str>)> {
    let schemes = [("ws://", Dialect::Raw), ("http://", Dialect::Raw), ("redis://", Dialect::Redis), ("nats://", Dialect::Nats)];
    let (dialect, rest) = schemes.iter().find_map(|&(scheme, dialect)| Some((dialect, url.strip_prefix(scheme)?)))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with('/') { Cow::Borrowed(path) } else { Cow::Owned(format!("/{path}")) };
    let printable = url.bytes().all(|byte| byte.is_ascii_graphic());
    (printable && !authority.is_empty()).then_some((dialect, authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(split("ws://h:1/a?b"), Some((Dialect::Raw, "h:1", "/a?b".into())));
        assert_eq!(split("ws://h:1?topic=a/b"), Some((Dialect::Raw, "h:1", "/?topic=a/b".into())));
        assert_eq!(split("http://[::1]:9"), Some((Dialect::Raw, "[::1]:9", "/".into())));
        assert_eq!(split("redis://h/{topic}"), Some((Dialect::Redis, "h", "/{topic}".into())));
        for wrong in ["wss://h/", "ws:///a", "h:1", "ws://h/a b"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
        assert_eq!(Target::resolve("ws://127.0.0.1/a", None, 1).unwrap().address.port(), 80);
        assert_eq!(Target::resolve("nats://127.0.0.1", None, 1).unwrap().address.port(), 4222);
    }

    #[test]
    fn topics_have_their_place() {
        let path = |url, first, count| Target::resolve(url, None, 4).unwrap().path(Topics { first, count });
        assert_eq!(path("ws://127.0.0.1/topics/{topic}", 3, 1), "/topics/load-3");
        assert_eq!(path("ws://127.0.0.1/t?topic={topic}&envelope", 3, 3), "/t?topic=load-3&topic=load-0&topic=load-1&envelope");
        let redis = Target::resolve("redis://127.0.0.1/{topic}", None, 4).unwrap();
        assert_eq!(redis.names(Topics { first: 3, count: 2 }).collect::<Vec<_>>(), ["load-3", "load-0"]);
        assert_eq!(Target::resolve("redis://127.0.0.1/chat", None, 1).unwrap().name(0), "chat");
    }

    #[test]
    fn a_cursor_has_its_place_or_is_fantails_parameter() {
        let both = |url| {
            let target = Target::resolve(url, None, 1).unwrap();
            let topics = Topics { first: 0, count: 1 };
            [target.path(topics), target.path_behind(topics, "k.7 &")]
        };
        for (url, without, with) in [
            ("ws://127.0.0.1/t", "/t", "/t?since=k.7%20%26"),
            ("ws://127.0.0.1/t?envelope", "/t?envelope", "/t?envelope&since=k.7%20%26"),
            ("ws://127.0.0.1/t?from={cursor}", "/t", "/t?from=k.7%20%26"),
            ("ws://127.0.0.1/t?from={cursor}&a&b", "/t?a&b", "/t?from=k.7%20%26&a&b"),
            ("ws://127.0.0.1/t?a&from={cursor}&b", "/t?a&b", "/t?a&from=k.7%20%26&b"),
            ("ws://127.0.0.1/t?a&from={cursor}", "/t?a", "/t?a&from=k.7%20%26"),
            ("ws://127.0.0.1/t/{cursor}", "/t/", "/t/k.7%20%26"),
        ] {
            assert_eq!(both(url), [without, with], "{url}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for (url, dialect, topics) in [
            ("ws://127.0.0.1/chat", None, 2),
            ("ws://127.0.0.1/", Some(Dialect::Redis), 1),
            ("redis://127.0.0.1/", Some(Dialect::Raw), 1),
            ("redis://127.0.0.1/", Some(Dialect::Nats), 1),
        ] {
            assert!(Target::resolve(url, dialect, topics).is_err(), "{url} {dialect:?}");
        }
        let several = |url| Target::resolve(url, None, 9).unwrap().topics_of_one_max();
        assert_eq!(
            [
                several("ws://127.0.0.1/{topic}"),
                several("ws://127.0.0.1/?t={topic}"),
                several("nats://h/{topic}".replace('h', "127.0.0.1").as_str())
            ],
            [1, 9, 9]
        );
    }
}
