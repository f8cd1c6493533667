//! What a client asks for: one JSON object a message, read without copying it.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::frame::{Kind, Payload, Since};
use crate::http1::{Problem, quoted};

/// The longest text that may be an id, in bytes.
const ID_BYTES_MAX: usize = 64;

/// Names a request; its answer carries the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number from 0, below 2^53.
    Number(u64),
    /// A text of at most 64 bytes.
    Text(Box<str>),
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'m> {
    /// Its name, if it has one.
    pub id: Option<Id>,
    /// What it asks for.
    pub what: What<'m>,
}

/// What a request asks for. Topics are as the client wrote them.
#[derive(Debug, PartialEq, Eq)]
pub enum What<'m> {
    /// To get a topic's publications.
    Subscribe {
        /// The topic.
        topic: Cow<'m, str>,
        /// From where on; [`Since::Latest`] if it does not say so.
        since: Since,
    },
    /// To get them no longer.
    Unsubscribe {
        /// The topic.
        topic: Cow<'m, str>,
    },
    /// To publish.
    Publish {
        /// The topic.
        topic: Cow<'m, str>,
        /// What is published.
        payload: Payload,
    },
    /// A sign of life.
    Ping,
    /// To be somebody else.
    Auth,
    /// To know who is there.
    Presence {
        /// The topic.
        topic: Cow<'m, str>,
        /// Whether to be told what changes from now on; `None` if nothing is said of that.
        watch: Option<bool>,
    },
}

/// The rule that a request breaks, and the id of its answer.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestError {
    /// The request's id, if that could be read.
    pub id: Option<Id>,
    /// The rule.
    pub broken: Broken,
}

/// A rule of requests.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// A binary message.
    Binary,
    /// Not JSON, or not an object, or a member stands in it twice; the parser's words say where.
    NotAnObject(String),
    /// `type` is missing or none of those there are.
    UnknownType(Option<String>),
    /// A member that is needed is missing.
    Missing(&'static str),
    /// A member has a value it can't have; what it may be.
    BadMember(&'static str, &'static str),
    /// A publication with no payload, or with two.
    NotOnePayload,
    /// The allocator refused.
    NoMemory,
}

impl<'m> Request<'m> {
    /// Reads a text message. Members that are not known are passed over.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(message: &'m [u8]) -> Result<Self, RequestError> {
        let object = Object::parse(message).map_err(|words| RequestError { id: None, broken: Broken::NotAnObject(words) })?;
        let id = object.id().map_err(|broken| RequestError { id: None, broken })?;
        match object.what() {
            Ok(what) => Ok(Self { id, what }),
            Err(broken) => Err(RequestError { id, broken }),
        }
    }
}

impl RequestError {
    /// A binary message came.
    #[must_use]
    pub const fn binary() -> Self {
        Self { id: None, broken: Broken::Binary }
    }

    /// What the client is told.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (kind, status, title) = self.broken.kind();
        Problem { kind, status, title, detail: self.broken.detail(), fix: self.broken.fix(), numbers: Vec::new() }
    }
}

impl Broken {
    const fn kind(&self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Binary | Self::NotAnObject(_) => ("not-a-request", 400, "The message is not a request"),
            Self::UnknownType(_) => ("unknown-type", 400, "The type of the request is not known"),
            Self::Missing(_) | Self::BadMember(..) | Self::NotOnePayload => {
                ("bad-member", 400, "A member of the request is missing or wrong")
            }
            Self::NoMemory => ("no-memory", 503, "The server is out of memory"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Binary => "The message is binary.".into(),
            Self::NotAnObject(words) => format!("The message is not a JSON object: {words}."),
            Self::UnknownType(None) => "There is no \"type\" that is a text.".into(),
            Self::UnknownType(Some(given)) => format!("There is no type {}.", quoted(given)),
            Self::Missing(member) => format!("There is no \"{member}\"."),
            Self::BadMember(member, _) => format!("\"{member}\" has a value it can't have."),
            Self::NotOnePayload => "A publication has one of \"data\", \"text\" and \"base64\".".into(),
            Self::NoMemory => "There is no memory for the publication.".into(),
        }
    }

    const fn fix(&self) -> &'static str {
        match self {
            Self::Binary | Self::NotAnObject(_) => {
                "Send one JSON object in a text message, such as {\"id\":1,\"type\":\"subscribe\",\"topic\":\"chat\"}."
            }
            Self::UnknownType(_) => "Use subscribe, unsubscribe, publish, presence or ping.",
            Self::Missing(_) => "Give it; docs/protocol.md lists the members of each request.",
            Self::BadMember(_, fix) => fix,
            Self::NotOnePayload => "Give exactly one of them.",
            Self::NoMemory => "Send it again after a while.",
        }
    }
}

const ID_FIX: &str = "Use a whole number from 0 below 2^53, or a text of at most 64 bytes.";
const TEXT_FIX: &str = "Use a JSON text.";
const PATTERN_SINCE_FIX: &str = "A pattern has no cursor: use earliest, latest, or a time such as 10m.";
const SINCE_FIX: &str = "Use a cursor as the server gave it, earliest, latest, or a time such as 10m.";
const WATCH_FIX: &str = "Use true or false.";
const BASE64_FIX: &str = "Use base64 (RFC 4648 section 4) with its padding.";

/// A request's members as they stand in the message, so that each can be told by its name.
#[derive(Deserialize)]
struct Object<'m> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present", rename = "type")]
    kind: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    since: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    base64: Member<'m>,
    #[serde(borrow, default, deserialize_with = "present")]
    watch: Member<'m>,
}

type Member<'m> = Option<&'m RawValue>;

/// Keeps a null apart from nothing: it may be published.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Member<'de>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'m> Object<'m> {
    fn parse(message: &'m [u8]) -> Result<Self, String> {
        // A struct could be read from an array, too, which is no request.
        if message.trim_ascii_start().first() != Some(&b'{') {
            return Err("it does not begin with \"{\"".into());
        }
        serde_json::from_slice(message).map_err(|error| error.to_string())
    }

    fn id(&self) -> Result<Option<Id>, Broken> {
        let Some(raw) = optional(self.id) else { return Ok(None) };
        let id = match text(raw) {
            Some(text) => (text.len() <= ID_BYTES_MAX).then(|| Id::Text(text.into())),
            None => raw.get().parse().ok().filter(|number| *number < 1 << 53).map(Id::Number),
        };
        id.map(Some).ok_or(Broken::BadMember("id", ID_FIX))
    }

    fn what(&self) -> Result<What<'m>, Broken> {
        let kind = self.kind.and_then(text).ok_or(Broken::UnknownType(None))?;
        Ok(match &*kind {
            "subscribe" => {
                let topic = self.topic()?;
                let since = self.since(&topic)?;
                What::Subscribe { topic, since }
            }
            "unsubscribe" => What::Unsubscribe { topic: self.topic()? },
            "publish" => What::Publish { topic: self.topic()?, payload: self.payload()? },
            "ping" => What::Ping,
            "auth" => What::Auth,
            "presence" => What::Presence { topic: self.topic()?, watch: self.watch()? },
            _ => return Err(Broken::UnknownType(Some(kind.into_owned()))),
        })
    }

    fn topic(&self) -> Result<Cow<'m, str>, Broken> {
        text(self.topic.ok_or(Broken::Missing("topic"))?).ok_or(Broken::BadMember("topic", TEXT_FIX))
    }

    fn since(&self, topic: &str) -> Result<Since, Broken> {
        let Some(raw) = optional(self.since) else { return Ok(Since::Latest) };
        let text = text(raw).ok_or(Broken::BadMember("since", SINCE_FIX))?;
        // Of several topics a pattern takes no place.
        if text.starts_with('~') && topic.contains('*') {
            return Err(Broken::BadMember("since", PATTERN_SINCE_FIX));
        }
        Since::of_topic(&text, topic).map_err(|_| Broken::BadMember("since", SINCE_FIX))
    }

    fn watch(&self) -> Result<Option<bool>, Broken> {
        let Some(raw) = optional(self.watch) else { return Ok(None) };
        raw.get().parse().map(Some).map_err(|_| Broken::BadMember("watch", WATCH_FIX))
    }

    fn payload(&self) -> Result<Payload, Broken> {
        let payload = match (self.data, self.text, self.base64) {
            (Some(raw), None, None) => Payload::new_unchecked(Kind::Json, raw.get().as_bytes()),
            (None, Some(raw), None) => {
                let text = text(raw).ok_or(Broken::BadMember("text", TEXT_FIX))?;
                Payload::new_unchecked(Kind::Text, text.as_bytes())
            }
            (None, None, Some(raw)) => {
                let bytes = text(raw).and_then(|text| BASE64_STANDARD.decode(text.as_bytes()).ok());
                Payload::new_unchecked(Kind::Binary, &bytes.ok_or(Broken::BadMember("base64", BASE64_FIX))?)
            }
            _ => return Err(Broken::NotOnePayload),
        };
        payload.map_err(|_| Broken::NoMemory)
    }
}

/// A member that may be left out, or be null to say the same.
fn optional(member: Member<'_>) -> Member<'_> {
    member.filter(|raw| raw.get() != "null")
}

/// The text that a member is; `None` if it is something else, or holds half of a surrogate pair.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Cursors, Position, TopicHash};

    fn parse(message: &str) -> Result<Request<'_>, RequestError> {
        Request::parse(message.as_bytes())
    }

    fn payload(kind: Kind, bytes: &[u8]) -> Payload {
        Payload::new(kind, bytes).unwrap()
    }

    #[test]
    fn each_request_is_read() {
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        let several = Cursors::text([(TopicHash::of("chat"), position)].into_iter());
        let several = format!(r#"{{"id":1,"type":"subscribe","topic":"chat","since":"{several}"}}"#);
        let id = Some(Id::Number(1));
        let publish = |payload| What::Publish { topic: "a".into(), payload };
        for (message, id, what) in [
            (
                r#"{"id":1,"type":"subscribe","topic":"chat","since":"k3Vq.7"}"#,
                id.clone(),
                What::Subscribe { topic: "chat".into(), since: Since::After(position) },
            ),
            (&several, id.clone(), What::Subscribe { topic: "chat".into(), since: Since::After(position) }),
            (
                r#" {"since":null,"topic":"caf\u00e9","type":"subscribe","id":null,"more":[{}]}"#,
                None,
                What::Subscribe { topic: "café".into(), since: Since::Latest },
            ),
            (
                r#"{"id":"x\n","type":"unsubscribe","topic":"chat"}"#,
                Some(Id::Text("x\n".into())),
                What::Unsubscribe { topic: "chat".into() },
            ),
            (r#"{"type":"publish","topic":"a","data":{"x": 1.50}}"#, None, publish(payload(Kind::Json, br#"{"x": 1.50}"#))),
            (r#"{"type":"publish","topic":"a","data":null}"#, None, publish(payload(Kind::Json, b"null"))),
            (r#"{"type":"publish","topic":"a","text":"say \"hi\""}"#, None, publish(payload(Kind::Text, b"say \"hi\""))),
            (r#"{"type":"publish","topic":"a","base64":"/wA="}"#, None, publish(payload(Kind::Binary, &[0xFF, 0]))),
            (r#"{"type":"ping","id":9007199254740991}"#, Some(Id::Number((1 << 53) - 1)), What::Ping),
            (r#"{"type":"\u0061uth"}"#, None, What::Auth),
            (r#"{"type":"presence","id":0,"topic":"a"}"#, Some(Id::Number(0)), What::Presence { topic: "a".into(), watch: None }),
            (r#"{"type":"presence","topic":"a","watch":true}"#, None, What::Presence { topic: "a".into(), watch: Some(true) }),
        ] {
            assert_eq!(parse(message), Ok(Request { id, what }), "{message}");
        }
    }

    #[test]
    fn each_rule_is_named() {
        let one = Some(Id::Number(1));
        for (message, id, kind, word) in [
            ("", None, "not-a-request", "begin"),
            ("hello", None, "not-a-request", "begin"),
            (r#"[1,"ping"]"#, None, "not-a-request", "begin"),
            ("{", None, "not-a-request", "EOF"),
            (r#"{"id":1,"type":"ping"} x"#, None, "not-a-request", "trailing"),
            (r#"{"type":"ping","type":"ping"}"#, None, "not-a-request", "duplicate"),
            (r#"{"id":1}"#, one.clone(), "unknown-type", "type"),
            (r#"{"id":1,"type":7}"#, one.clone(), "unknown-type", "text"),
            (r#"{"id":1,"type":"Ping\u0000"}"#, one.clone(), "unknown-type", r#""Ping\0""#),
            (r#"{"id":-1,"type":"ping"}"#, None, "bad-member", "\"id\""),
            (r#"{"id":1.0,"type":"ping"}"#, None, "bad-member", "\"id\""),
            (r#"{"id":9007199254740992,"type":"ping"}"#, None, "bad-member", "\"id\""),
            (r#"{"id":{},"type":"ping"}"#, None, "bad-member", "\"id\""),
            (r#"{"id":1,"type":"subscribe"}"#, one.clone(), "bad-member", "no \"topic\""),
            (r#"{"id":1,"type":"subscribe","topic":null}"#, one.clone(), "bad-member", "\"topic\""),
            (r#"{"id":1,"type":"subscribe","topic":["a"]}"#, one.clone(), "bad-member", "\"topic\""),
            (r#"{"id":1,"type":"subscribe","topic":"a","since":7}"#, one.clone(), "bad-member", "\"since\""),
            (r#"{"id":1,"type":"subscribe","topic":"a","since":"k3Vq"}"#, one.clone(), "bad-member", "\"since\""),
            (r#"{"id":1,"type":"presence"}"#, one.clone(), "bad-member", "no \"topic\""),
            (r#"{"id":1,"type":"presence","topic":"a","watch":1}"#, one.clone(), "bad-member", "\"watch\""),
            (r#"{"id":1,"type":"publish","data":1}"#, one.clone(), "bad-member", "\"topic\""),
            (r#"{"id":1,"type":"publish","topic":"a"}"#, one.clone(), "bad-member", "one of"),
            (r#"{"id":1,"type":"publish","topic":"a","data":1,"text":"x"}"#, one.clone(), "bad-member", "one of"),
            (r#"{"id":1,"type":"publish","topic":"a","text":1}"#, one.clone(), "bad-member", "\"text\""),
            (r#"{"id":1,"type":"publish","topic":"a","text":"\ud800"}"#, one.clone(), "bad-member", "\"text\""),
            (r#"{"id":1,"type":"publish","topic":"a","base64":"/wA"}"#, one.clone(), "bad-member", "\"base64\""),
        ] {
            let error = parse(message).unwrap_err();
            let problem = error.problem();
            assert_eq!((error.id, problem.kind, problem.status), (id, kind, 400), "{message}");
            assert!(problem.detail.contains(word), "{message}: {}", problem.detail);
        }
        let long = format!(r#"{{"id":"{}","type":"ping"}}"#, "x".repeat(ID_BYTES_MAX + 1));
        assert_eq!(parse(&long).unwrap_err().broken, Broken::BadMember("id", ID_FIX));
        let place = (TopicHash::of("news/a"), Position { epoch: "k3Vq".parse().unwrap(), offset: 7 });
        let several = Cursors::text([place].into_iter());
        let pattern = format!(r#"{{"type":"subscribe","topic":"news/*","since":"{several}"}}"#);
        assert_eq!(parse(&pattern).unwrap_err().broken, Broken::BadMember("since", PATTERN_SINCE_FIX));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(r#"{{"type":"publish","topic":"a","data":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        let _ = parse(&deep);
        let _ = parse(&format!(r#"{{"x":{}"#, "{\"a\":".repeat(30_000)));
    }

    #[test]
    fn every_type_of_problem_is_in_the_list_of_errors() {
        let list = include_str!("../../docs/errors.md");
        for broken in [
            Broken::Binary,
            Broken::NotAnObject(String::new()),
            Broken::UnknownType(None),
            Broken::Missing("topic"),
            Broken::BadMember("id", ""),
            Broken::NotOnePayload,
            Broken::NoMemory,
        ] {
            let problem = RequestError { id: None, broken }.problem();
            assert!(
                list.lines().any(|line| line.starts_with(&format!("| `{}` | {}", problem.kind, problem.status))),
                "{problem:?}"
            );
        }
    }
}
