//! Refusals of who wants to subscribe: what the URL names, and how it is asked for.

use super::{RETRY_AFTER_SECONDS, refuse, refuse_with, topic_error};
use crate::frame::{Cursors, Pattern, PatternError};
use crate::http1::{Response, quoted};

/// 505: a stream for a client that could not tell its end from a lost connection.
pub(in crate::routes) fn stream_over_http10() -> Response {
    let detail = "A stream needs HTTP/1.1: in HTTP/1.0 its end could not be told from a lost connection.";
    let fix = "Use HTTP/1.1; in nginx set proxy_http_version 1.1.";
    refuse("stream-needs-http11", 505, "A stream needs HTTP/1.1", detail, fix)
}

/// 400: a place in one topic, for several.
pub(in crate::routes) fn cursor_of_one_topic() -> Response {
    let detail = "\"since\" is a place in one topic, and there are several.";
    let fix =
        "Give each topic its own, as in topic=A&since=...&topic=B&since=..., or the cursor of them all, which begins with ~.";
    refuse("cursor-of-one-topic", 400, "A cursor is of one topic", detail, fix)
}

/// The same for a pattern.
pub(in crate::routes) fn cursor_of_pattern() -> Response {
    let detail = "A pattern has no cursor: its topics stand in as many places.";
    let fix = "Give it earliest, latest or a time, as in topic=A&since=...&topic=news/*&since=10m.";
    refuse("cursor-of-one-topic", 400, "A cursor is of one topic", detail, fix)
}

/// 409: the client left a topic before its subscription was in force.
#[must_use]
pub fn cancelled() -> Response {
    let detail = "The topic was unsubscribed before its subscription was in force.";
    refuse("cancelled", 409, "The subscription was cancelled", detail, "Subscribe again if that was not meant.")
}

/// 409: what is asked for from the past comes already, by a wider pattern of the same socket.
#[must_use]
pub fn covered(by: &Pattern) -> Response {
    let detail = format!("{} brings it already, so what is older would come behind what is newer.", quoted(by.as_str()));
    let fix = "Leave \"since\" out, subscribe to it before the wider pattern, or use a socket of its own.";
    refuse("covered", 409, "A pattern of this socket covers it", &detail, fix)
}

/// 400: a pattern where a topic is meant.
pub(in crate::routes) fn pattern_not_here(what: &str) -> Response {
    let detail = format!("{what} is of topics by their names, and cannot have a pattern.");
    let fix = "Name the topic, or subscribe to the pattern with a WebSocket, an event stream or ?as=ndjson.";
    refuse("pattern-not-here", 400, "This cannot have a pattern", &detail, fix)
}

/// 400, or 403 for a reserved one: the name is no pattern.
pub(in crate::routes) fn pattern_error(name: &str, error: PatternError) -> Response {
    match error {
        PatternError::Name(error) => topic_error(name, error),
        PatternError::Misplaced => {
            let detail = format!("{}: {error}.", quoted(name));
            refuse(
                "bad-pattern",
                400,
                "This is no pattern",
                &detail,
                "Use a pattern such as news/* or news/**, or the exact topic.",
            )
        }
    }
}

/// 503: the worker has its share of `--max-patterns`, and the pattern is not among those that have subscribers.
#[must_use]
pub fn too_many_patterns(patterns_max: u64) -> Response {
    let detail = format!("The worker of this connection has {patterns_max} patterns, which is its share of --max-patterns.");
    let fix = "Use a pattern that somebody subscribes to, come back when one has gone, or raise --max-patterns.";
    let limits = vec![("limit_patterns", patterns_max)];
    refuse_with("too-many-patterns", 503, "There are too many patterns", &detail, fix, limits)
        .header("Retry-After", RETRY_AFTER_SECONDS)
}

/// 400: `/topics` without a topic.
pub(in crate::routes) fn topic_missing() -> Response {
    let fix = "Use /topics/NAME, or /topics?topic=A&topic=B.";
    refuse("topic-missing", 400, "The URL names no topic", "There is no \"topic\" parameter.", fix)
}

/// 400: the path names a topic and the query names others.
pub(in crate::routes) fn topic_twice() -> Response {
    let detail = "The path names a topic, and the query has a \"topic\" parameter.";
    refuse("topic-twice", 400, "The URL names topics in two ways", detail, "Use /topics/NAME, or /topics?topic=A&topic=B.")
}

/// 400: information is about one topic.
pub(in crate::routes) fn one_topic_only() -> Response {
    let detail = "Information is about one topic.";
    let fix = "Ask for one topic at a time, or subscribe, with a WebSocket, as=sse, as=ndjson or wait=25.";
    refuse("one-topic-only", 400, "There is more than one topic", detail, fix)
}

/// 400: who gets payloads alone could not tell the topics apart.
pub(in crate::routes) fn envelope_needed() -> Response {
    let detail = "Payloads alone could not tell several topics, or those of a pattern, apart.";
    refuse("envelope-needed", 400, "Several topics need the envelope", detail, "Add \"envelope\" to the query.")
}

/// 400: more topics than one connection may have.
#[must_use]
pub fn too_many_subscriptions(subscriptions_max: usize) -> Response {
    let detail = format!("One connection may subscribe to {subscriptions_max} topics and patterns.");
    let fix = "Open more connections, or raise --max-subscriptions.";
    let limits = vec![("limit_subscriptions", subscriptions_max as u64)];
    refuse_with("too-many-subscriptions", 400, "There are too many subscriptions", &detail, fix, limits)
}

/// 400: more topics than the cursor of a stream or poll can say of where they stand.
pub(in crate::routes) fn too_many_for_a_cursor() -> Response {
    let detail = format!(
        "A stream or poll of several topics tells where it stands in one cursor, which is of {} topics.",
        Cursors::TOPICS_MAX
    );
    let fix = "Open more streams, or a WebSocket with envelope or fantail.v1, where each topic has its own cursor.";
    let limits = vec![("limit_topics", Cursors::TOPICS_MAX as u64)];
    refuse_with("too-many-for-a-cursor", 400, "There are too many topics for one cursor", &detail, fix, limits)
}
