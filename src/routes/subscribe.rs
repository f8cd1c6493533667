//! What a connection is to be that subscribes, and how an upgrade on `/topics` asks for it; streams and long-polls have files of their own.

use std::time::Duration;

use super::query::Query;
use super::question::{Question, Subprotocol};
use super::subjects::Subjects;
use super::{Action, refusals};
use crate::auth::Grant;
use crate::frame::{Form, Kind, Pattern, Since, Topic};
use crate::http1::Response;
use crate::words::words;
use crate::ws;

/// How a subscriber is attached.
#[derive(Debug)]
pub enum Attach {
    /// By a WebSocket that carries payloads or `message` objects.
    WebSocket {
        /// The answered handshake.
        accepted: ws::Accepted<Subprotocol>,
        /// What the socket's text messages are published as: [`Kind::Text`], or [`Kind::Json`] with `?kind=json`.
        text_kind: Kind,
        /// Whether its messages are published at all.
        may_publish: bool,
    },
    /// By a WebSocket that speaks `fantail.v1`.
    Session {
        /// The answered handshake.
        accepted: ws::Accepted<Subprotocol>,
        /// What its requests may ask for.
        grant: Grant,
    },
    /// By a stream.
    Stream(StreamKind),
    /// By a long-poll: until something is published, for so long at most.
    Poll {
        /// How long.
        wait: Duration,
    },
}

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Events (WHATWG HTML section 9.2).
    Events,
    /// `message` objects, one a line.
    Lines,
}

impl StreamKind {
    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// What a connection is to be once its request is answered.
#[derive(Debug)]
pub struct Subscribe {
    /// The topics, each once, in the order of the URL.
    pub topics: Vec<Topic>,
    /// The patterns, each once; at least one, if there is no topic, but for [`Attach::Session`], which has none, and may ask for topics later.
    pub patterns: Vec<Pattern>,
    /// Payloads alone, or `message` objects.
    pub form: Form,
    /// From where on it wants each topic, in their order, and then each pattern; `None` for what is published from now on.
    pub since: Option<Vec<Since>>,
    /// It has been here before, and what it missed since cannot be known: a pattern has no cursor.
    pub has_missed: bool,
    /// What becomes of it when something it wants is not kept any more.
    pub on_gap: OnGap,
    /// How.
    pub attach: Attach,
}

impl Subscribe {
    /// The names of its topics, then of its patterns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(Topic::as_str).chain(self.patterns.iter().map(Pattern::as_str))
    }

    /// Whether it is a stream that is told where it stands by itself, because what it gets is of several topics. Patterns have no place.
    #[must_use]
    pub fn keeps_positions(&self) -> bool {
        matches!(self.attach, Attach::Stream(_)) && !self.topics.is_empty() && self.topics.len() + self.patterns.len() > 1
    }
}

words! {
    /// What becomes of a socket for which something is missing that it wanted to resume (docs/wire.md, "Resuming").
    OnGap, "Use on-gap=close or on-gap=continue.", {
        /// Its close tells the gap.
        Close = "close",
        /// It stays open; `Fantail-Recovered: false` or a `gap` object tells it.
        Continue = "continue",
    }
}

/// For every way: nothing begins on a stopping server, nor for whom may not.
pub(super) fn may_subscribe(question: &Question<'_>) -> Result<(), Response> {
    question.refuse_if_draining()?;
    if question.grant.subscribe { Ok(()) } else { Err(refusals::forbidden("subscribe")) }
}

pub(super) fn by_websocket(question: &Question<'_>, name: Option<&str>) -> Result<Action, Response> {
    question.refuse_if_draining()?;
    let accepted = question.negotiate_topics()?;
    if accepted.transforms().any(|agreed| *agreed == Subprotocol::V1) {
        return by_session(question, name, accepted);
    }
    may_subscribe(question)?;
    let query = Query(question.head.query);
    let (subjects, form, text_kind) = (Subjects::of(question, name)?, query.form()?, query.text_kind()?);
    if subjects.need_envelope() && form == Form::WsRaw {
        return Err(refusals::envelope_needed());
    }
    let (since, on_gap) = (reads_first(subjects.since(query)?), query.on_gap()?);
    let Subjects { topics, patterns, .. } = subjects;
    let attach = Attach::WebSocket { accepted, text_kind, may_publish: question.grant.publish };
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed: false, on_gap, attach })))
}

/// What the URL names is subscribed as if it were asked for by message; so it may name nothing.
fn by_session(question: &Question<'_>, name: Option<&str>, accepted: ws::Accepted<Subprotocol>) -> Result<Action, Response> {
    let (grant, query) = (question.grant, Query(question.head.query));
    let is_open = name.is_none() && query.topics().next().is_none();
    let subjects = if is_open { Subjects::default() } else { Subjects::of(question, name)? };
    let since = reads_first(subjects.since(query)?);
    let Subjects { topics, patterns, .. } = subjects;
    // A socket that may do nothing is of no use, and one that may only publish has nothing to subscribe to.
    let may_open = grant.subscribe || (grant.publish && is_open);
    if !may_open {
        return Err(refusals::forbidden("subscribe"));
    }
    let (form, on_gap, attach) = (Form::WsEnvelope, OnGap::Continue, Attach::Session { accepted, grant });
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed: false, on_gap, attach })))
}

/// What is published from now on comes without asking, so who wants no more reads nothing first.
pub(super) fn reads_first(since: Vec<Since>) -> Option<Vec<Since>> {
    since.iter().any(|since| *since != Since::Latest).then_some(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Position;
    use crate::routes::testing::{Ask, problem_type};

    fn subscribed(target: impl Into<String>) -> Subscribe {
        match Ask::new("GET", target).upgrade().action() {
            Action::Subscribe(subscribe) => *subscribe,
            other => panic!("{other:?}"),
        }
    }

    fn text_kind(subscribe: &Subscribe) -> Kind {
        match subscribe.attach {
            Attach::WebSocket { text_kind, .. } => text_kind,
            _ => panic!("no socket"),
        }
    }

    fn names(topics: &[Topic]) -> Vec<&str> {
        topics.iter().map(Topic::as_str).collect()
    }

    #[test]
    fn a_socket_subscribes_to_what_its_url_names() {
        let one = subscribed("/topics/caf%C3%A9/menu");
        assert_eq!((names(&one.topics), one.form, text_kind(&one)), (vec!["café/menu"], Form::WsRaw, Kind::Text));
        let several = subscribed("/topics?topic=b&topic=a%2Fc&topic=b&envelope&kind=json");
        assert_eq!((names(&several.topics), several.form), (vec!["b", "a/c"], Form::WsEnvelope));
        assert_eq!(text_kind(&several), Kind::Json);
        assert_eq!(names(&subscribed("/topics?topic=a&topic=a").topics), ["a"]);
    }

    #[test]
    fn a_socket_says_from_where_on() {
        assert_eq!(subscribed("/topics/chat").since, None);
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        let resumed = subscribed("/topics/chat?since=k3Vq.7&on-gap=continue");
        assert_eq!((resumed.since, resumed.on_gap), (Some(vec![Since::After(position)]), OnGap::Continue));
        let several = subscribed("/topics?topic=a&topic=b&envelope&since=earliest");
        assert_eq!((several.since, several.on_gap), (Some(vec![Since::Earliest; 2]), OnGap::Close));
    }

    fn texts(patterns: &[Pattern]) -> Vec<&str> {
        patterns.iter().map(Pattern::as_str).collect()
    }

    #[test]
    fn a_pattern_stands_where_a_topic_may() {
        for target in ["/topics/news/*?envelope", "/topics/news/%2A?envelope&since=latest", "/topics?topic=news%2F%2A&envelope"] {
            let one = subscribed(target);
            assert_eq!((texts(&one.patterns), one.topics.len(), one.since), (vec!["news/*"], 0, None), "{target}");
        }
        let mixed = subscribed("/topics?topic=**&topic=a&topic=b%2F*&topic=**&envelope");
        assert_eq!((texts(&mixed.patterns), names(&mixed.topics)), (vec!["**", "b/*"], vec!["a"]));
        assert_eq!((mixed.names().collect::<Vec<_>>(), mixed.form), (vec!["a", "**", "b/*"], Form::WsEnvelope));
        assert!(!mixed.keeps_positions());
        for (target, form, since) in [
            ("/topics/a/**?as=sse&envelope", Form::EventsEnvelope, None),
            ("/topics/a/**?as=ndjson", Form::Lines, None),
            ("/topics/a/**?as=ndjson&since=10m", Form::Lines, Some(vec![Since::Within(Duration::from_secs(600))])),
        ] {
            let Action::Subscribe(stream) = Ask::new("GET", target).action() else { panic!("{target}") };
            assert_eq!((texts(&stream.patterns), stream.form, stream.has_missed), (vec!["a/**"], form, false));
            assert_eq!(stream.since, since, "{target}");
        }
        let both = subscribed("/topics?topic=**&topic=a&envelope&since=earliest");
        assert_eq!(both.since, Some(vec![Since::Earliest; 2]), "of the topic, and of the pattern");
        for (target, expected) in [
            ("/topics/a/*?as=sse", (400, "envelope-needed")),
            ("/topics/a/*?as=ndjson&since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics/a/*", (400, "pattern-not-here")),
        ] {
            assert_eq!(Ask::new("GET", target).problem_type(), (expected.0, expected.1.into()), "{target}");
        }
    }

    #[test]
    fn from_elsewhere_only_topics_may_be_subscribed_to() {
        for (target, may) in
            [("/topics/a?envelope", true), ("/topics/a/*?envelope", false), ("/topics?topic=a&topic=*&envelope", false)]
        {
            let ask = Ask::new("GET", target).remote().upgrade();
            assert_eq!(matches!(ask.action(), Action::Subscribe(_)), may, "{target}");
            assert!(may || ask.problem_type() == (403, "forbidden".into()), "{target}");
            let open = ask.options(|options| options.allow_anonymous = crate::auth::AllowAnonymous::Subscribe);
            assert!(matches!(open.action(), Action::Subscribe(_)), "{target}");
        }
    }

    #[test]
    fn a_socket_publishes_where_its_sender_may() {
        for (ask, may) in [(Ask::new("GET", "/topics/chat"), true), (Ask::new("GET", "/topics/chat").remote(), false)] {
            assert!(matches!(attached(ask.upgrade()), Attach::WebSocket { may_publish, .. } if may_publish == may));
        }
    }

    fn session(target: &'static str, offered: &str) -> Ask {
        Ask::new("GET", target).upgrade().header("Sec-WebSocket-Protocol", offered)
    }

    #[test]
    fn a_session_may_name_topics_or_none() {
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        for (target, expected, since) in [
            ("/topics", &[][..], None),
            ("/topics/a/b?since=k3Vq.7", &["a/b"], Some(vec![Since::After(position)])),
            ("/topics?topic=a&topic=b&since=earliest", &["a", "b"], Some(vec![Since::Earliest; 2])),
            ("/topics?since=earliest", &[], None),
        ] {
            let Action::Subscribe(subscribe) = session(target, "mqtt, fantail.v1").action() else { panic!("{target}") };
            assert_eq!((names(&subscribe.topics), &subscribe.since), (expected.to_vec(), &since), "{target}");
            assert_eq!((subscribe.form, subscribe.on_gap), (Form::WsEnvelope, OnGap::Continue));
            assert!(matches!(
                subscribe.attach,
                Attach::Session { grant: Grant { subscribe: true, patterns: true, publish: true }, .. }
            ));
        }
        for (target, expected) in [
            ("/topics?topic=", (400, "bad-topic")),
            ("/topics/a?topic=b", (400, "topic-twice")),
            ("/topics/a/*?since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics?topic=a&topic=b&since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics/a?since=now", (400, "bad-parameter")),
        ] {
            assert_eq!(session(target, "fantail.v1").problem_type(), (expected.0, expected.1.into()), "{target}");
        }
        let other = session("/topics/a", "Fantail.v1, fantail.v2").action();
        assert!(matches!(other, Action::Subscribe(subscribe) if matches!(subscribe.attach, Attach::WebSocket { .. })));
    }

    #[test]
    fn a_session_may_be_there_to_publish_alone() {
        let allow = |target, value: &str| {
            let ask = session(target, "fantail.v1").remote().options(|options| options.allow_anonymous = value.parse().unwrap());
            match ask.action() {
                Action::Subscribe(subscribe) => matches!(subscribe.attach, Attach::Session { .. }),
                Action::Respond(response) => response.status != 403,
                other => panic!("{other:?}"),
            }
        };
        for (target, value, may) in [
            ("/topics", "publish", true),
            ("/topics/a", "publish", false),
            ("/topics", "none", false),
            ("/topics", "local", true),
            ("/topics/a", "subscribe", true),
        ] {
            assert_eq!(allow(target, value), may, "{target} {value}");
        }
    }

    #[test]
    fn subscriptions_of_a_connection_are_bounded() {
        let target = |count: usize| {
            let query: String = (0..count).map(|number| format!("topic=t{number}&")).collect();
            format!("/topics?{query}envelope")
        };
        assert_eq!(subscribed(target(128)).topics.len(), 128);
        assert_eq!(Ask::new("GET", target(129)).upgrade().problem_type(), (400, "too-many-subscriptions".into()));
    }

    #[test]
    fn a_socket_that_cannot_be_served_is_refused() {
        for (target, expected) in [
            ("/topics/chat?since=k3Vq", (400, "bad-parameter")),
            ("/topics/chat?since=10", (400, "bad-parameter")),
            ("/topics/chat?on-gap=wait", (400, "bad-parameter")),
            ("/topics?topic=a&topic=b&envelope&since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics?topic=a&topic=b", (400, "envelope-needed")),
            ("/topics", (400, "topic-missing")),
            ("/topics?topic=", (400, "bad-topic")),
            ("/topics/a?topic=b", (400, "topic-twice")),
            ("/topics/a/*", (400, "envelope-needed")),
            ("/topics/*/a?envelope", (400, "bad-pattern")),
            ("/topics?topic=a*&envelope", (400, "bad-pattern")),
            ("/topics/a//*?envelope", (400, "bad-topic")),
            ("/topics/meta/*?envelope", (403, "reserved-topic")),
            ("/topics/a/*?envelope&since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics?topic=a&topic=b%2F*&envelope&since=k3Vq.7", (400, "cursor-of-one-topic")),
            ("/topics?topic=a%2F%2Fb", (400, "bad-topic")),
            ("/topics?topic=meta%2Fx", (403, "reserved-topic")),
            ("/topics/a?kind=binary", (400, "bad-parameter")),
            ("/topics/a?envelope=x", (400, "bad-parameter")),
        ] {
            let answer = Ask::new("GET", target).upgrade().answer();
            assert_eq!((answer.status, problem_type(&answer).as_str()), expected, "{target}");
            assert!(answer.close, "{target}: what follows may be frames");
        }
    }

    fn attached(ask: Ask) -> Attach {
        match ask.action() {
            Action::Subscribe(subscribe) => subscribe.attach,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_get_says_how_it_wants_to_be_served() {
        for (target, name, value, expected) in [
            ("/topics/chat", "Accept", "text/event-stream", Ok(StreamKind::Events)),
            ("/topics/chat", "Accept", "text/html, Text/Event-Stream;q=0.9", Ok(StreamKind::Events)),
            ("/topics/chat?as=sse", "Accept", "*/*", Ok(StreamKind::Events)),
            ("/topics/chat?as=ndjson&wait=3", "Accept", "*/*", Ok(StreamKind::Lines)),
            ("/topics/chat?wait=30", "Accept", "*/*", Err(30)),
            ("/topics/chat?wait=3000", "Accept", "*/*", Err(60)),
            ("/topics/chat?since=k3Vq.7", "Accept", "*/*", Err(25)),
            ("/topics/chat", "Prefer", "respond-async, wait=30", Err(30)),
            ("/topics/chat?since=latest", "Prefer", "wait=soon", Err(25)),
        ] {
            match (attached(Ask::new("GET", target).header(name, value)), expected) {
                (Attach::Stream(kind), Ok(expected)) => assert_eq!(kind, expected, "{target} {value}"),
                (Attach::Poll { wait }, Err(seconds)) => assert_eq!(wait.as_secs(), seconds, "{target} {value}"),
                (other, _) => panic!("{target} {value}: {other:?}"),
            }
        }
        for target in ["/topics/chat?as=xml", "/topics/chat?wait=-1", "/topics/chat?since=now&as=sse", "/topics/chat?since="] {
            assert_eq!(Ask::new("GET", target).problem_type(), (400, "bad-parameter".into()), "{target}");
        }
    }

    #[test]
    fn an_upgrade_goes_before_every_other_transport() {
        let ask = Ask::new("GET", "/topics/chat?as=sse&wait=1").header("Accept", "text/event-stream").upgrade();
        assert!(matches!(attached(ask), Attach::WebSocket { .. }));
    }
}
