//! `/topics/NAME` and `/topics?topic=A&topic=B`: subscribe, publish, ask.

use std::collections::HashSet;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::kind::body_kind;
use super::query::{Query, decode};
use super::question::Question;
use super::{Action, json, refusals};
use crate::frame::{Cursor, Epoch, Form, Kind, Position, Since, Topic, TopicError};
use crate::http1::{Head, Response};
use crate::words::words;
use crate::ws::{self, Intent};

/// What a socket is to be once its handshake is answered.
#[derive(Debug)]
pub struct Subscribe {
    /// The topics, each once, in the order of the URL; at least one.
    pub topics: Vec<Topic>,
    /// Payloads alone, or `message` objects.
    pub form: Form,
    /// What the socket's text messages are published as: [`Kind::Text`], or [`Kind::Json`] with `?kind=json`.
    pub text_kind: Kind,
    /// Whether its messages are published at all.
    pub may_publish: bool,
    /// From where on it wants each topic, in their order; `None` for what is published from now on.
    pub since: Option<Vec<Since>>,
    /// What becomes of it when something it wants is not kept any more.
    pub on_gap: OnGap,
    /// The answered handshake.
    pub accepted: ws::Accepted,
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

/// What GET on a topic means, in the order of precedence: upgrade, event stream, long-poll, information.
///
/// `name` is what stands behind `/topics/`; `None` for `/topics`.
pub(super) fn get(question: &Question<'_>, name: Option<&str>) -> Result<Action, Response> {
    if question.intent != Intent::None {
        return subscribe(question, name);
    }
    refuse_other_transports(question.head)?;
    if !question.grant.subscribe {
        return Err(refusals::forbidden("ask about topics"));
    }
    let mut topics = topics(question, name)?;
    match (topics.pop(), topics.is_empty()) {
        (Some(topic), true) => Ok(Action::Information { topic, base_url: base_url(question) }),
        _ => Err(refusals::one_topic_only()),
    }
}

/// What POST on a topic means: its body is to be published.
pub(super) fn post(question: &Question<'_>, name: &str) -> Result<Action, Response> {
    question.refuse_if_draining()?;
    if !question.grant.publish {
        return Err(refusals::forbidden("publish"));
    }
    let topic = Topic::from_path(name).map_err(|error| refusals::topic_error(name, error))?;
    Ok(Action::Publish { topic, kind: body_kind(question.head)? })
}

fn subscribe(question: &Question<'_>, name: Option<&str>) -> Result<Action, Response> {
    question.refuse_if_draining()?;
    if !question.grant.subscribe {
        return Err(refusals::forbidden("subscribe"));
    }
    let query = Query(question.head.query);
    let (topics, form, text_kind) = (topics(question, name)?, query.form()?, query.text_kind()?);
    if topics.len() > 1 && form == Form::WsRaw {
        return Err(refusals::envelope_needed());
    }
    let (since, on_gap) = (since(query, topics.len())?, query.on_gap()?);
    let accepted = question.handshake()?;
    let may_publish = question.grant.publish;
    Ok(Action::Subscribe(Box::new(Subscribe { topics, form, text_kind, may_publish, since, on_gap, accepted })))
}

/// `since`, for each of so many topics. A cursor is a place in one of them.
fn since(query: Query<'_>, topics: usize) -> Result<Option<Vec<Since>>, Response> {
    match query.since()? {
        None => Ok(None),
        Some(Since::After(_)) if topics > 1 => Err(refusals::cursor_of_one_topic()),
        Some(since) => Ok(Some(vec![since; topics])),
    }
}

/// The topics of the URL, each once.
fn topics(question: &Question<'_>, name: Option<&str>) -> Result<Vec<Topic>, Response> {
    let mut named = Query(question.head.query).topics().peekable();
    if let Some(name) = name {
        return match named.peek() {
            None => Ok(vec![checked(name, Topic::from_path(name))?]),
            Some(_) => Err(refusals::topic_twice()),
        };
    }
    let (mut topics, mut seen) = (Vec::new(), HashSet::new());
    for value in named {
        let topic = checked(value, decode(value).and_then(|text| Topic::new(&text)))?;
        if seen.insert(topic.clone()) {
            topics.push(topic);
        }
        if topics.len() > question.options.subscriptions_max {
            return Err(refusals::too_many_subscriptions(question.options.subscriptions_max));
        }
    }
    if topics.is_empty() { Err(refusals::topic_missing()) } else { Ok(topics) }
}

fn checked(name: &str, topic: Result<Topic, TopicError>) -> Result<Topic, Response> {
    topic.map_err(|error| match error {
        TopicError::Wildcard => refusals::pattern_not_yet(name),
        error => refusals::topic_error(name, error),
    })
}

/// Information in place of the stream that was asked for would look like a stream that broke.
fn refuse_other_transports(head: &Head<'_>) -> Result<(), Response> {
    let query = Query(head.query);
    let form = query.value("as");
    if form == Some("sse") || lists(head, "Accept", "text/event-stream") {
        return Err(refusals::transport_not_yet("server-sent events"));
    }
    match form {
        None => {}
        Some("ndjson") => return Err(refusals::transport_not_yet("stream of JSON lines")),
        Some(other) => return Err(refusals::bad_parameter("as", other, "Leave \"as\" out and open a WebSocket.")),
    }
    let polls = query.value("wait").or(query.value("since")).is_some() || lists(head, "Prefer", "wait");
    if polls { Err(refusals::transport_not_yet("long-polling")) } else { Ok(()) }
}

/// Whether a comma-separated list has `token`, with or without parameters (`;q=0.9`) or a value (`=30`, RFC 7240).
fn lists(head: &Head<'_>, name: &str, token: &str) -> bool {
    head.values(name).flat_map(|line| line.split(|byte| *byte == b',')).any(|item| {
        let word = item.split(|byte| matches!(byte, b';' | b'=')).next().unwrap_or_default();
        word.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

/// Where the client found us, without a slash at the end: what it can use again, pasted into a shell.
///
/// Behind a proxy that ends TLS the scheme is the proxy's; a lie there misleads only whoever tells it.
fn base_url(question: &Question<'_>) -> String {
    let scheme = if question.head.value("X-Forwarded-Proto").is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        "https"
    } else {
        "http"
    };
    let plain = |host: &&str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    let host = question.head.host.filter(plain).unwrap_or("localhost");
    format!("{scheme}://{host}{}", question.options.prefix())
}

#[derive(Serialize)]
struct Published<'a> {
    topic: &'a str,
    cursor: String,
    epoch: &'a str,
    offset: u64,
    subscribers: u64,
}

/// 200 for a publication that was numbered and handed out; `subscribers` as its home worker last knew.
#[must_use]
pub fn published(topic: &Topic, position: Position, subscribers: u64) -> Response {
    let Position { epoch, offset } = position;
    let (topic, cursor, epoch) = (topic.as_str(), Cursor(position).to_string(), epoch.as_str());
    json(&Published { topic, cursor, epoch, offset, subscribers })
}

#[derive(Serialize)]
struct Information<'a> {
    topic: &'a str,
    epoch: Option<&'a str>,
    first: u64,
    last: u64,
    subscribers: u64,
    r#try: Try,
}

#[derive(Serialize)]
struct Try {
    curl: String,
    javascript: String,
}

/// 200 with what is known of a topic, and one line each to publish and to subscribe. `epoch` is null for a topic that does not
/// live, with `first` and `last` 0; `base_url` is the one of [`Action::Information`].
#[must_use]
pub fn information(topic: &Topic, epoch: Option<Epoch>, first: u64, last: u64, subscribers: u64, base_url: &str) -> Response {
    let url = format!("{base_url}/topics/{}", utf8_percent_encode(topic.as_str(), ENCODED));
    let socket_url = url.replacen("http", "ws", 1);
    let information = Information {
        topic: topic.as_str(),
        epoch: epoch.as_ref().map(Epoch::as_str),
        first,
        last,
        subscribers,
        r#try: Try {
            curl: format!("curl -d hello '{url}'"),
            javascript: format!("new WebSocket('{socket_url}').onmessage = (event) => console.log(event.data)"),
        },
    };
    json(&information).header("Cache-Control", "no-store")
}

/// Everything but unreserved characters (RFC 3986 section 2.3) and the slash between segments: also safe between quotes.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, problem, problem_type};

    fn subscribed(target: &'static str) -> Subscribe {
        match Ask::new("GET", target).upgrade().action() {
            Action::Subscribe(subscribe) => *subscribe,
            _ => panic!("{target} is no subscription"),
        }
    }

    fn names(topics: &[Topic]) -> Vec<&str> {
        topics.iter().map(Topic::as_str).collect()
    }

    #[test]
    fn a_socket_subscribes_to_what_its_url_names() {
        let one = subscribed("/topics/caf%C3%A9/menu");
        assert_eq!((names(&one.topics), one.form, one.text_kind), (vec!["café/menu"], Form::WsRaw, Kind::Text));
        let several = subscribed("/topics?topic=b&topic=a%2Fc&topic=b&envelope&kind=json");
        assert_eq!((names(&several.topics), several.form), (vec!["b", "a/c"], Form::WsEnvelope));
        assert_eq!(several.text_kind, Kind::Json);
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

    #[test]
    fn a_socket_publishes_where_its_sender_may() {
        assert!(subscribed("/topics/chat").may_publish);
        let Action::Subscribe(remote) = Ask::new("GET", "/topics/chat").remote().upgrade().action() else { panic!() };
        assert!(!remote.may_publish);
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
            ("/topics/a/*", (400, "not-in-this-version")),
            ("/topics?topic=a%2F**", (400, "not-in-this-version")),
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

    #[test]
    fn other_transports_are_refused_and_told_what_works() {
        for (target, name, value) in [
            ("/topics/chat", "Accept", "text/event-stream"),
            ("/topics/chat", "Accept", "text/html, Text/Event-Stream;q=0.9"),
            ("/topics/chat?as=sse", "Accept", "*/*"),
            ("/topics/chat?as=ndjson", "Accept", "*/*"),
            ("/topics/chat?wait=30", "Accept", "*/*"),
            ("/topics/chat?since=k3Vq.7", "Accept", "*/*"),
            ("/topics/chat", "Prefer", "respond-async, wait=30"),
        ] {
            let answer = Ask::new("GET", target).header(name, value).answer();
            assert_eq!((answer.status, problem_type(&answer).as_str()), (406, "not-in-this-version"), "{target} {value}");
            assert!(problem(&answer)["fix"].as_str().unwrap().contains("WebSocket"));
        }
        assert_eq!(Ask::new("GET", "/topics/chat?as=xml").problem_type(), (400, "bad-parameter".into()));
    }

    #[test]
    fn an_upgrade_goes_before_every_other_transport() {
        let ask = Ask::new("GET", "/topics/chat?as=sse&wait=1").header("Accept", "text/event-stream").upgrade();
        assert!(matches!(ask.action(), Action::Subscribe(_)));
    }

    #[test]
    fn information_knows_where_it_was_asked_for() {
        for (name, value, base) in [
            ("Host", "127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("X-Forwarded-Proto", "https", "https://127.0.0.1:8080"),
            ("Host", "a';reboot;'", "http://localhost"),
        ] {
            let Action::Information { topic, base_url } = Ask::new("GET", "/topics/chat").header(name, value).action() else {
                panic!("{value}")
            };
            assert_eq!((topic.as_str(), base_url.as_str()), ("chat", base));
        }
        assert!(matches!(Ask::new("HEAD", "/topics?topic=chat").action(), Action::Information { .. }));
        assert_eq!(Ask::new("GET", "/topics?topic=a&topic=b").problem_type(), (400, "one-topic-only".into()));
    }

    #[test]
    fn a_post_publishes_under_the_kind_it_says() {
        let ask = Ask::new("POST", "/topics/a/b").header("Content-Type", "application/json");
        let Action::Publish { topic, kind } = ask.action() else { panic!() };
        assert_eq!((topic.as_str(), kind), ("a/b", Kind::Json));
        for (target, expected) in [
            ("/topics/", (400, "bad-topic")),
            ("/topics//a", (400, "bad-topic")),
            ("/topics/%00", (400, "bad-topic")),
            ("/topics/../etc", (400, "bad-topic")),
            ("/topics/a/*", (400, "bad-topic")),
            ("/topics/service/x", (403, "reserved-topic")),
        ] {
            assert_eq!(Ask::new("POST", target).problem_type(), (expected.0, expected.1.into()), "{target}");
        }
    }

    fn text(response: &Response) -> &str {
        std::str::from_utf8(response.body.as_bytes()).unwrap()
    }

    #[test]
    fn the_answer_to_a_publication_has_exactly_these_members() {
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 1043 };
        let answer = published(&Topic::new("say \"hi\"").unwrap(), position, 17);
        let body = r#"{"topic":"say \"hi\"","cursor":"k3Vq.1043","epoch":"k3Vq","offset":1043,"subscribers":17}"#;
        assert_eq!((answer.status, text(&answer)), (200, body));
    }

    #[test]
    fn information_has_lines_to_paste() {
        let topic = Topic::new("it's/here & now").unwrap();
        let answer = information(&topic, Some("k3Vq".parse().unwrap()), 1, 7, 3, "https://push.example/x");
        assert_eq!(
            text(&answer),
            concat!(
                r#"{"topic":"it's/here & now","epoch":"k3Vq","first":1,"last":7,"subscribers":3,"try":{"#,
                r#""curl":"curl -d hello 'https://push.example/x/topics/it%27s/here%20%26%20now'","#,
                r#""javascript":"new WebSocket('wss://push.example/x/topics/it%27s/here%20%26%20now')"#,
                r#".onmessage = (event) => console.log(event.data)"}}"#
            )
        );
        let unknown = information(&Topic::new("chat").unwrap(), None, 0, 0, 0, "http://localhost:8080");
        assert!(text(&unknown).starts_with(r#"{"topic":"chat","epoch":null,"first":0,"last":0,"subscribers":0,"try":{"#));
        assert!(text(&unknown).contains("'ws://localhost:8080/topics/chat'"));
    }
}
