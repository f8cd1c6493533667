//! Ways to subscribe: what an upgrade, a stream or a long-poll on `/topics` is to be.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::query::{Query, decode};
use super::question::{Question, Subprotocol};
use super::{Action, refusals};
use crate::auth::Grant;
use crate::frame::{
    Cursor, Epoch, Form, Kind, Pattern, PatternError, Position, Publication, Since, StreamEnd, Topic, TopicError,
};
use crate::http1::{Body, Head, Method, Response};
use crate::metrics::Cause;
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
    /// Its first topic, or else its first pattern.
    #[must_use]
    pub fn first_name(&self) -> &str {
        self.topics.first().map(Topic::as_str).or(self.patterns.first().map(Pattern::as_str)).unwrap_or_default()
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
fn may_subscribe(question: &Question<'_>) -> Result<(), Response> {
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
    let (Subjects { topics, patterns }, form, text_kind) = (subjects(question, name)?, query.form()?, query.text_kind()?);
    if (topics.len() > 1 || !patterns.is_empty()) && form == Form::WsRaw {
        return Err(refusals::envelope_needed());
    }
    let (since, on_gap) = (since(query, topics.len(), &patterns)?, query.on_gap()?);
    let attach = Attach::WebSocket { accepted, text_kind, may_publish: question.grant.publish };
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed: false, on_gap, attach })))
}

/// What the URL names is subscribed as if it were asked for by message; so it may name nothing.
fn by_session(question: &Question<'_>, name: Option<&str>, accepted: ws::Accepted<Subprotocol>) -> Result<Action, Response> {
    let (grant, query) = (question.grant, Query(question.head.query));
    let is_open = name.is_none() && query.topics().next().is_none();
    let Subjects { topics, patterns } = if is_open { Subjects::default() } else { subjects(question, name)? };
    // A socket that may do nothing is of no use, and one that may only publish has nothing to subscribe to.
    let may_open = grant.subscribe || (grant.publish && is_open);
    if !may_open {
        return Err(refusals::forbidden("subscribe"));
    }
    let since = since(query, topics.len(), &patterns)?;
    let (form, on_gap, attach) = (Form::WsEnvelope, OnGap::Continue, Attach::Session { accepted, grant });
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed: false, on_gap, attach })))
}

/// Whether a GET asks for an event stream (WHATWG HTML section 9.2).
pub(super) fn wants_events(head: &Head<'_>) -> bool {
    Query(head.query).value("as") == Some("sse") || lists(head, "Accept", "text/event-stream")
}

pub(super) fn by_stream(question: &Question<'_>, name: Option<&str>, kind: StreamKind) -> Result<Action, Response> {
    may_subscribe(question)?;
    let head = question.head;
    if !head.http11 {
        return Err(refusals::stream_over_http10());
    }
    let (query, Subjects { topics, patterns }) = (Query(head.query), subjects(question, name)?);
    let form = match (kind, query.form()?) {
        (StreamKind::Lines, _) => Form::Lines,
        (StreamKind::Events, Form::WsRaw) => Form::Events,
        (StreamKind::Events, _) => Form::EventsEnvelope,
    };
    if topics.len() + patterns.len() > 1 {
        return Err(refusals::transport_not_yet("stream of several topics"));
    }
    if form == Form::Events && !patterns.is_empty() {
        return Err(refusals::envelope_needed());
    }
    if head.method == Method::Head {
        return Ok(Action::Respond(stream_of(kind, Vec::new())));
    }
    // A browser that comes back says where it stands, beside the URL that says where it began.
    let last_event_id = head.values("Last-Event-ID").next();
    let has_missed = last_event_id.is_some() && !patterns.is_empty();
    if !patterns.is_empty() {
        let since = if has_missed { None } else { since(query, 0, &patterns)? };
        let (on_gap, attach) = (OnGap::Continue, Attach::Stream(kind));
        return Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed, on_gap, attach })));
    }
    let since = match last_event_id {
        None => query.since()?.unwrap_or(Since::Latest),
        Some(id) => std::str::from_utf8(id).ok().and_then(|id| id.parse().ok()).map_or(UNREADABLE, |Cursor(at)| Since::After(at)),
    };
    let (since, on_gap, attach) = (Some(vec![since]), OnGap::Continue, Attach::Stream(kind));
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed, on_gap, attach })))
}

/// How long a poll waits if it does not say so.
const POLL_WAIT_DEFAULT: Duration = Duration::from_secs(25);

/// How long a GET wants to wait: `?wait=N`, `Prefer: wait=N` (RFC 7240 section 4.3), or by `since` alone. `None` if it does not poll.
pub(super) fn wait(head: &Head<'_>) -> Result<Option<Duration>, Response> {
    let query = Query(head.query);
    if let Some(value) = query.value("wait") {
        let fix = "Give whole seconds, such as wait=25.";
        return value
            .parse()
            .map(|seconds| Some(Duration::from_secs(seconds)))
            .map_err(|_| refusals::bad_parameter("wait", value, fix));
    }
    // A preference that can't be read may be ignored (RFC 7240 section 2).
    let preferred = head.values("Prefer").flat_map(|line| line.split(|byte| matches!(byte, b',' | b';'))).find_map(|item| {
        let (name, value) = std::str::from_utf8(item).ok()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().parse().ok())?
    });
    Ok(preferred.map(Duration::from_secs).or(query.value("since").map(|_| POLL_WAIT_DEFAULT)))
}

pub(super) fn by_poll(question: &Question<'_>, name: Option<&str>, wait: Duration) -> Result<Action, Response> {
    may_subscribe(question)?;
    let topics = topics(question, name, "A long-poll")?;
    if topics.len() > 1 {
        return Err(refusals::transport_not_yet("long-poll of several topics"));
    }
    let since = Some(vec![Query(question.head.query).since()?.unwrap_or(Since::Latest)]);
    let wait = wait.min(Duration::from_millis(question.options.timeouts.idle_timeout_ms));
    // Held until it is answered, it is never handed a frame, so it takes the form that is there anyway.
    let (form, on_gap, attach) = (Form::WsRaw, OnGap::Continue, Attach::Poll { wait });
    let (patterns, has_missed) = (Vec::new(), false);
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed, on_gap, attach })))
}

/// 200 with what a poll has found: `{"messages":[MESSAGE],"cursor":C,"recovered":bool}`.
#[must_use]
pub fn polled(messages: &[Arc<Publication>], position: Position, recovered: bool) -> Response {
    let mut body = b"{\"messages\":[".to_vec();
    for (place, publication) in messages.iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&publication.message_object());
    }
    body.extend_from_slice(format!("],\"cursor\":\"{}\",\"recovered\":{recovered}}}", Cursor(position)).as_bytes());
    Response::new(200).header("Content-Type", "application/json").header("Cache-Control", "no-store").body(Body::Owned(body))
}

/// Where somebody stands whose `Last-Event-ID` is none of ours: in no life of any topic, so that a gap is told. To refuse it would end
/// the stream of a browser for good.
const UNREADABLE: Since = Since::After(Position { epoch: Epoch::UNKNOWN, offset: 0 });

/// 200 with a stream that begins with these chunks.
#[must_use]
pub fn stream_of(kind: StreamKind, chunks: Vec<u8>) -> Response {
    Response::new(200)
        .header("Content-Type", kind.media_type())
        .header("Cache-Control", "no-store")
        .header("X-Accel-Buffering", "no")
        .body(Body::Stream(chunks))
        .close()
}

/// 200 with an event stream that ends at once, because of `cause`: a browser comes back after so many milliseconds, where any other
/// status would make it give up.
#[must_use]
pub fn come_back(cause: Cause, retry_after_ms: u32) -> Response {
    let end = StreamEnd { cause: cause.name(), retry_after_ms: Some(retry_after_ms) };
    stream_of(StreamKind::Events, end.event())
}

/// `since`, for each of so many topics, then for each of the patterns. A cursor is a place in one topic.
fn since(query: Query<'_>, topics: usize, patterns: &[Pattern]) -> Result<Option<Vec<Since>>, Response> {
    match query.since()? {
        // What is published from now on comes without asking.
        None | Some(Since::Latest) => Ok(None),
        Some(Since::After(_)) if topics > 1 || !patterns.is_empty() => Err(refusals::cursor_of_one_topic()),
        Some(since) => Ok(Some(vec![since; topics + patterns.len()])),
    }
}

/// What the URL names, each once.
#[derive(Default)]
struct Subjects {
    topics: Vec<Topic>,
    patterns: Vec<Pattern>,
}

/// The topics of the URL, each once, for `what` cannot have patterns.
pub(super) fn topics(question: &Question<'_>, name: Option<&str>, what: &str) -> Result<Vec<Topic>, Response> {
    let Subjects { topics, patterns } = subjects(question, name)?;
    if patterns.is_empty() { Ok(topics) } else { Err(refusals::pattern_not_here(what)) }
}

/// What the URL names; at least one.
fn subjects(question: &Question<'_>, name: Option<&str>) -> Result<Subjects, Response> {
    let mut named = Query(question.head.query).topics().peekable();
    let mut subjects = Subjects::default();
    if let Some(name) = name {
        if named.peek().is_some() {
            return Err(refusals::topic_twice());
        }
        subjects.add(name, Topic::from_path(name), || Pattern::from_path(name))?;
    }
    let mut seen = HashSet::new();
    for value in named {
        let text = decode(value).map_err(|error| refusals::topic_error(value, error))?;
        let topic = Topic::new(&text);
        if seen.insert(text.clone()) {
            subjects.add(value, topic, || Pattern::parse(&text))?;
        }
        if seen.len() > question.options.subscriptions_max {
            return Err(refusals::too_many_subscriptions(question.options.subscriptions_max));
        }
    }
    if !subjects.patterns.is_empty() && !question.grant.patterns {
        return Err(refusals::forbidden("subscribe to patterns"));
    }
    if subjects.topics.is_empty() && subjects.patterns.is_empty() { Err(refusals::topic_missing()) } else { Ok(subjects) }
}

impl Subjects {
    /// Adds what is named: a name that holds a wildcard is a pattern's.
    fn add(
        &mut self,
        name: &str,
        topic: Result<Topic, TopicError>,
        pattern: impl FnOnce() -> Result<Pattern, PatternError>,
    ) -> Result<(), Response> {
        match topic {
            Ok(topic) => self.topics.push(topic),
            Err(TopicError::Wildcard) => self.patterns.push(pattern().map_err(|error| refusals::pattern_error(name, error))?),
            Err(error) => return Err(refusals::topic_error(name, error)),
        }
        Ok(())
    }
}

/// Whether a comma-separated list has `token`, with or without parameters (`;q=0.9`) or a value (`=30`, RFC 7240).
fn lists(head: &Head<'_>, name: &str, token: &str) -> bool {
    head.values(name).flat_map(|line| line.split(|byte| *byte == b',')).any(|item| {
        let word = item.split(|byte| matches!(byte, b';' | b'=')).next().unwrap_or_default();
        word.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, problem_type};

    fn subscribed(target: &'static str) -> Subscribe {
        match Ask::new("GET", target).upgrade().action() {
            Action::Subscribe(subscribe) => *subscribe,
            _ => panic!("{target} is no subscription"),
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
        assert_eq!((mixed.first_name(), mixed.form), ("a", Form::WsEnvelope));
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
            ("/topics/a/*?wait=1", (400, "pattern-not-here")),
            ("/topics/a/*", (400, "pattern-not-here")),
            ("/topics?topic=a&topic=a%2F*&as=ndjson", (406, "not-in-this-version")),
        ] {
            assert_eq!(Ask::new("GET", target).problem_type(), (expected.0, expected.1.into()), "{target}");
        }
    }

    #[test]
    fn who_comes_back_to_a_pattern_has_missed_something() {
        let ask = Ask::new("GET", "/topics/a/*?as=sse&envelope&since=earliest").header("Last-Event-ID", "k3Vq.7");
        let Action::Subscribe(subscribe) = ask.action() else { panic!("no stream") };
        assert!(subscribe.has_missed && subscribe.since.is_none());
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
            ("/topics?since=earliest", &[], Some(vec![])),
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
            Box::leak(format!("/topics?{query}envelope").into_boxed_str())
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
        for target in ["/topics?topic=a&topic=b&as=ndjson", "/topics?topic=a&topic=b&wait=1"] {
            assert_eq!(Ask::new("GET", target).problem_type(), (406, "not-in-this-version".into()), "{target}");
        }
    }

    #[test]
    fn who_comes_back_to_a_stream_says_where_it_stood() {
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        for (id, since) in [("k3Vq.7", Since::After(position)), ("7", UNREADABLE), ("k3Vq.7.8", UNREADABLE)] {
            let ask = Ask::new("GET", "/topics/chat?as=sse&since=earliest").header("Last-Event-ID", id);
            let Action::Subscribe(subscribe) = ask.action() else { panic!("{id}") };
            assert_eq!(subscribe.since, Some(vec![since]), "{id}");
        }
    }

    #[test]
    fn a_foreign_page_opens_no_stream() {
        let ask = Ask::new("GET", "/topics/chat?as=sse").header("Origin", "https://evil.example");
        assert_eq!(ask.problem_type(), (403, "origin-refused".into()));
    }

    #[test]
    fn an_upgrade_goes_before_every_other_transport() {
        let ask = Ask::new("GET", "/topics/chat?as=sse&wait=1").header("Accept", "text/event-stream").upgrade();
        assert!(matches!(attached(ask), Attach::WebSocket { .. }));
    }
}
