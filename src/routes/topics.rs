//! `/topics/NAME` and `/topics?topic=A&topic=B`: which way to subscribe it is, or to publish, to delete, or to ask.

use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use super::kind::body_kind;
use super::polls::{by_poll, wait};
use super::query::Query;
use super::question::Question;
use super::streams::{by_stream, wants_events};
use super::subjects::topics;
use super::subscribe::{StreamKind, by_websocket};
use super::terms::terms;
use super::{Action, json, presence, refusals};
use crate::engine::Appended;
use crate::frame::{Cursor, Epoch, Kind, Position, Topic};
use crate::http1::Response;
use crate::ws::Intent;

/// What GET on a topic means, in the order of precedence: upgrade, event stream, long-poll, information.
///
/// `name` is what stands behind `/topics/`; `None` for `/topics`.
pub(super) fn get(question: &Question<'_>, name: Option<&str>) -> Result<Action, Response> {
    if question.intent != Intent::None {
        return by_websocket(question, name);
    }
    if wants_events(question.head) {
        return by_stream(question, name, StreamKind::Events);
    }
    let query = Query(question.head.query);
    match query.value("as") {
        Some("ndjson") => return by_stream(question, name, StreamKind::Lines),
        Some(other) => {
            return Err(refusals::bad_parameter(
                "as",
                other,
                "Use as=sse or as=ndjson, or leave \"as\" out and open a WebSocket.",
            ));
        }
        None => {}
    }
    if let Some(wait) = wait(question.head)? {
        return by_poll(question, name, wait);
    }
    if !question.grant.subscribe {
        return Err(refusals::forbidden("ask about topics"));
    }
    let mut topics = topics(question, name, "Information")?.topics;
    match (topics.pop(), topics.is_empty()) {
        (Some(topic), true) => match presence::asked(question, &topic)? {
            Some(asked) => Ok(asked),
            None => Ok(Action::Information { topic, base_url: base_url(question) }),
        },
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
    Ok(Action::Publish { topic, kind: body_kind(question.head)?, terms: terms(question.head)? })
}

/// What POST on `/topics` means: its body is a batch.
pub(super) fn post_batch(question: &Question<'_>) -> Result<Action, Response> {
    question.refuse_if_draining()?;
    if !question.grant.publish {
        return Err(refusals::forbidden("publish"));
    }
    if body_kind(question.head)? != Kind::Json {
        return Err(refusals::batch_not_json());
    }
    match terms(question.head)? {
        None => Ok(Action::PublishBatch),
        Some(_) => Err(refusals::not_for_batches()),
    }
}

/// What DELETE on a topic means. Nothing tells clients apart yet, so it takes the operator's word that whoever may publish may also
/// delete.
pub(super) fn delete(question: &Question<'_>, name: &str) -> Result<Action, Response> {
    question.refuse_if_draining()?;
    if !question.options.allow_delete {
        return Err(refusals::delete_not_allowed());
    }
    if !question.grant.publish {
        return Err(refusals::forbidden("delete"));
    }
    let topic = Topic::from_path(name).map_err(|error| refusals::topic_error(name, error))?;
    Ok(Action::Delete { topic })
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
/// One that comes again under its key is told so.
#[must_use]
pub fn published(topic: &Topic, appended: Appended, subscribers: u64) -> Response {
    let Appended { position, is_repeated } = appended;
    let Position { epoch, offset } = position;
    let (topic, cursor, epoch) = (topic.as_str(), Cursor(position).to_string(), epoch.as_str());
    let response = json(&Published { topic, cursor, epoch, offset, subscribers });
    if is_repeated { response.header("Idempotency-Replayed", "true") } else { response }
}

/// Adds for how long the publication is kept, where its publisher said for how long it may be (RFC 8030 section 5.2).
#[must_use]
pub fn kept_for(response: Response, ttl: Option<Duration>) -> Response {
    match ttl {
        Some(ttl) if response.status == 200 => response.header("TTL", ttl.as_secs().to_string()),
        _ => response,
    }
}

#[derive(Serialize)]
struct Deleted<'a> {
    topic: &'a str,
    epoch: Option<&'a str>,
}

/// 200 for a topic of which nothing is kept any more. `epoch` is its new life's; null for a topic that does not live.
#[must_use]
pub fn deleted(topic: &Topic, epoch: Option<Epoch>) -> Response {
    json(&Deleted { topic: topic.as_str(), epoch: epoch.as_ref().map(Epoch::as_str) })
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
    use crate::routes::testing::{Ask, header};

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
        let Action::Publish { topic, kind, terms: None } = ask.action() else { panic!() };
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

    #[test]
    fn a_batch_is_json_and_has_its_terms_in_it() {
        let ask = || Ask::new("POST", "/topics").header("Content-Type", "application/json");
        assert!(matches!(ask().action(), Action::PublishBatch));
        assert_eq!(ask().remote().problem_type(), (403, "forbidden".into()));
        assert_eq!(ask().header("TTL", "1").problem_type(), (400, "not-for-batches".into()));
        assert_eq!(ask().header("Idempotency-Key", "k").problem_type(), (400, "not-for-batches".into()));
        assert_eq!(Ask::new("POST", "/topics").problem_type(), (415, "content-type".into()));
    }

    fn text(response: &Response) -> &str {
        std::str::from_utf8(response.body.as_bytes()).unwrap()
    }

    #[test]
    fn the_answer_to_a_publication_has_exactly_these_members() {
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 1043 };
        let topic = Topic::new("say \"hi\"").unwrap();
        let answer = published(&topic, Appended { position, is_repeated: false }, 17);
        let body = r#"{"topic":"say \"hi\"","cursor":"k3Vq.1043","epoch":"k3Vq","offset":1043,"subscribers":17}"#;
        assert_eq!((answer.status, text(&answer), header(&answer, "Idempotency-Replayed")), (200, body, None));
        let again = published(&topic, Appended { position, is_repeated: true }, 17);
        assert_eq!((again.status, text(&again), header(&again, "Idempotency-Replayed")), (200, body, Some("true")));
    }

    #[test]
    fn what_is_deleted_is_told_with_its_new_life() {
        let topic = Topic::new("chat").unwrap();
        assert_eq!(text(&deleted(&topic, Some("k3Vq".parse().unwrap()))), r#"{"topic":"chat","epoch":"k3Vq"}"#);
        assert_eq!(text(&deleted(&topic, None)), r#"{"topic":"chat","epoch":null}"#);
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
