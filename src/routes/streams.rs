//! Streams of events (WHATWG HTML section 9.2) and of lines: what a GET asks for, and how the answer begins.

use super::query::Query;
use super::question::Question;
use super::subjects::Subjects;
use super::subscribe::{Attach, OnGap, StreamKind, Subscribe, may_subscribe, reads_first};
use super::{Action, refusals};
use crate::frame::{Form, StreamEnd};
use crate::http1::{Body, Head, Method, Response};
use crate::metrics::Cause;

/// Whether a GET asks for an event stream.
pub(super) fn wants_events(head: &Head<'_>) -> bool {
    Query(head.query).value("as") == Some("sse") || lists(head, "Accept", "text/event-stream")
}

pub(super) fn by_stream(question: &Question<'_>, name: Option<&str>, kind: StreamKind) -> Result<Action, Response> {
    may_subscribe(question)?;
    let head = question.head;
    if !head.http11 {
        return Err(refusals::stream_over_http10());
    }
    let (query, subjects) = (Query(head.query), Subjects::of(question, name)?);
    let form = form(kind, query.form()?, &subjects)?;
    subjects.fit_cursor()?;
    if head.method == Method::Head {
        return Ok(Action::Respond(stream_of(kind, Vec::new())));
    }
    // A browser that comes back says where it stands, beside the URL that says where it began.
    let last_event_id = head.values("Last-Event-ID").next();
    let since = match last_event_id {
        None => subjects.since(query)?,
        Some(id) => subjects.since_last_event(id),
    };
    let Subjects { topics, patterns, .. } = subjects;
    // Of a pattern nobody knows what was missed.
    let has_missed = last_event_id.is_some() && !patterns.is_empty();
    // Of a topic there is always something to tell: where it stands.
    let since = if topics.is_empty() { reads_first(since) } else { Some(since) };
    let (on_gap, attach) = (OnGap::Continue, Attach::Stream(kind));
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed, on_gap, attach })))
}

/// What its subscriber gets.
fn form(kind: StreamKind, asked: Form, subjects: &Subjects) -> Result<Form, Response> {
    match (kind, asked) {
        (StreamKind::Lines, _) => Ok(Form::Lines),
        (StreamKind::Events, Form::WsRaw) if subjects.need_envelope() => Err(refusals::envelope_needed()),
        (StreamKind::Events, Form::WsRaw) => Ok(Form::Events),
        // The id of one topic's publication would not say where the others stand. Patterns stand nowhere; there it only says that its
        // reader has been here before.
        (StreamKind::Events, _) if subjects.count() > 1 && !subjects.topics.is_empty() => Ok(Form::EventsOfSeveral),
        (StreamKind::Events, _) => Ok(Form::EventsEnvelope),
    }
}

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
    use crate::frame::{Pattern, Topic};
    use crate::routes::testing::Ask;

    fn stream(target: &'static str) -> Subscribe {
        match Ask::new("GET", target).action() {
            Action::Subscribe(subscribe) => *subscribe,
            other => panic!("{target}: {other:?}"),
        }
    }

    #[test]
    fn what_a_stream_is_of_says_what_its_subscriber_gets() {
        for (target, form, keeps_positions) in [
            ("/topics/a?as=sse", Form::Events, false),
            ("/topics?topic=a&topic=a&as=sse", Form::Events, false),
            ("/topics/a?as=sse&envelope", Form::EventsEnvelope, false),
            ("/topics/a?as=ndjson", Form::Lines, false),
            ("/topics?topic=a&topic=b&as=sse&envelope", Form::EventsOfSeveral, true),
            ("/topics?topic=a&topic=b&as=ndjson", Form::Lines, true),
            ("/topics?topic=a&topic=b%2F*&as=sse&envelope", Form::EventsOfSeveral, true),
            ("/topics/a/**?as=sse&envelope", Form::EventsEnvelope, false),
            ("/topics/a/**?as=ndjson", Form::Lines, false),
            ("/topics?topic=a%2F*&topic=b%2F*&as=sse&envelope", Form::EventsEnvelope, false),
        ] {
            let stream = stream(target);
            assert_eq!((stream.form, stream.keeps_positions(), stream.has_missed), (form, keeps_positions, false), "{target}");
            assert_eq!(stream.since.is_some(), !stream.topics.is_empty(), "{target}");
        }
        for target in ["/topics?topic=a&topic=b&as=sse", "/topics/a/*?as=sse", "/topics?topic=a&topic=b%2F*&as=sse"] {
            assert_eq!(Ask::new("GET", target).problem_type(), (400, "envelope-needed".into()), "{target}");
        }
        let mixed = stream("/topics?topic=b&topic=c%2F*&topic=a&as=ndjson");
        let names = (mixed.topics.iter().map(Topic::as_str), mixed.patterns.iter().map(Pattern::as_str));
        assert_eq!((names.0.collect::<Vec<_>>(), names.1.collect::<Vec<_>>()), (vec!["b", "a"], vec!["c/*"]));
    }

    #[test]
    fn a_stream_is_of_no_more_topics_than_its_cursor() {
        let ask = |count: usize, way: &str| {
            let query: String = (0..count).map(|number| format!("topic=t{number}&")).collect();
            Ask::new("GET", format!("/topics?{query}{way}"))
        };
        for way in ["as=sse&envelope", "as=ndjson", "wait=1"] {
            assert!(matches!(ask(64, way).action(), Action::Subscribe(_)), "{way}");
            assert_eq!(ask(65, way).problem_type(), (400, "too-many-for-a-cursor".into()), "{way}");
        }
        assert!(matches!(ask(65, "envelope").upgrade().action(), Action::Subscribe(_)), "a socket has no cursor of them all");
    }

    #[test]
    fn who_comes_back_to_a_pattern_has_missed_something() {
        // What it asked for when it came does not hold again.
        for (target, since) in
            [("/topics/a/*?as=sse&envelope&since=earliest", None), ("/topics?topic=b&topic=a%2F*&as=sse&envelope", Some(2))]
        {
            let ask = Ask::new("GET", target).header("Last-Event-ID", "k3Vq.7");
            let Action::Subscribe(subscribe) = ask.action() else { panic!("no stream") };
            assert!(subscribe.has_missed, "{target}");
            assert_eq!(subscribe.since.map(|since| since.len()), since, "{target}");
        }
    }

    #[test]
    fn a_foreign_page_opens_no_stream() {
        let ask = Ask::new("GET", "/topics/chat?as=sse").header("Origin", "https://evil.example");
        assert_eq!(ask.problem_type(), (403, "origin-refused".into()));
    }
}
