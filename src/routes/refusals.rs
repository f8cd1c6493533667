//! Every way in which routes and worker refuse a request: one function a type, each with the rule and the way out.
//!
//! Whatever the client sent is quoted with Rust's escapes and clipped, so neither a log nor a terminal can be misled by it.

mod presence;
mod subscribing;

pub use presence::presence_off;
pub(super) use presence::{bad_client_key, bad_member_name, member_name_refused, presence_needs_envelope, presence_not_here};
pub use subscribing::{cancelled, covered, too_many_patterns, too_many_subscriptions};
pub(super) use subscribing::{
    cursor_of_one_topic, cursor_of_pattern, envelope_needed, one_topic_only, pattern_error, pattern_not_here, stream_over_http10,
    too_many_for_a_cursor, topic_missing, topic_twice,
};

use crate::engine::{AppendError, IdempotencyKey, KeyError};
use crate::frame::{PayloadError, TopicError};
use crate::http1::{Problem, Response, quoted};

/// What a client waits before it tries again after a passing refusal, in seconds.
const RETRY_AFTER_SECONDS: &str = "1";
/// While the process drains, another one has to come up first.
const RETRY_AFTER_DRAIN_SECONDS: &str = "5";
/// A topic without subscribers is forgotten after a minute, so that is when there may be room again.
const RETRY_AFTER_TOPICS_SECONDS: &str = "60";

/// 503: the home worker had no room for the publication within `--publish-timeout`. It may be sent again.
#[must_use]
pub fn publish_timeout() -> Response {
    let detail = "The publication found no room within --publish-timeout; it was not accepted.";
    refuse("publish-timeout", 503, "The server is too busy", detail, "Send it again after the delay that Retry-After tells.")
        .header("Retry-After", RETRY_AFTER_SECONDS)
}

/// 503: the process is on its way out. The connection ends with this answer.
#[must_use]
pub fn draining() -> Response {
    let detail = "This server is draining its connections and takes nothing new.";
    refuse("draining", 503, "The server is shutting down", detail, "Connect again after the delay that Retry-After tells.")
        .header("Retry-After", RETRY_AFTER_DRAIN_SECONDS)
        .close()
}

/// 503: the home worker has its share of `--max-topics`, and the topic is not among those that live.
fn too_many_topics(topics_max: u64) -> Response {
    let detail = format!("The worker of this topic has {topics_max} topics, which is its share of --max-topics.");
    let fix = "Use a topic that exists, wait until one is forgotten, or raise --max-topics.";
    let limits = vec![("limit_topics", topics_max)];
    refuse_with("too-many-topics", 503, "There are too many topics", &detail, fix, limits)
        .header("Retry-After", RETRY_AFTER_TOPICS_SECONDS)
}

/// 503: `--max-connections` is reached. The connection ends with this answer.
#[must_use]
pub fn too_many_connections(connections_max: u64) -> Response {
    let detail = format!("There are {connections_max} connections, which is the limit.");
    let fix = "Connect again after the delay that Retry-After tells, or raise --max-connections.";
    let limits = vec![("limit_connections", connections_max)];
    refuse_with("too-many-connections", 503, "There are too many connections", &detail, fix, limits)
        .header("Retry-After", RETRY_AFTER_SECONDS)
        .close()
}

/// 503: `--max-connections-per-ip` is reached for the peer. The connection ends with this answer.
#[must_use]
pub fn too_many_of_one_address(connections_max: u64) -> Response {
    let detail = format!("There are {connections_max} connections from this address, which is the limit.");
    let fix = "Close one of them, or raise --max-connections-per-ip.";
    let limits = vec![("limit_connections", connections_max)];
    refuse_with("too-many-of-one-address", 503, "There are too many connections from this address", &detail, fix, limits)
        .header("Retry-After", RETRY_AFTER_SECONDS)
        .close()
}

/// 503: connections come faster than `--accept-rate`. The connection ends with this answer.
#[must_use]
pub fn too_fast(connections_per_second: f64) -> Response {
    let detail = format!("Connections come faster than {connections_per_second} a second, which is the limit.");
    refuse("too-fast", 503, "Connections come too fast", &detail, "Connect again after the delay that Retry-After tells.")
        .header("Retry-After", RETRY_AFTER_SECONDS)
        .close()
}

/// 503: the home worker has the publication and did not answer within `--publish-timeout`. Sending it again may publish it twice.
#[must_use]
pub fn unanswered() -> Response {
    let detail = "The publication was not confirmed within --publish-timeout; it may have been accepted.";
    let fix = "Send it again under the Idempotency-Key it had; without one, look whether it arrived before sending it again.";
    refuse("unanswered", 503, "The server is too busy", detail, fix).header("Retry-After", RETRY_AFTER_SECONDS)
}

/// 503: the home worker did not answer a question about a topic, or did not note a subscription, within `--publish-timeout`.
#[must_use]
pub fn busy() -> Response {
    let detail = "The worker that has this topic did not answer within --publish-timeout.";
    refuse("busy", 503, "The server is too busy", detail, "Ask again after the delay that Retry-After tells.")
        .header("Retry-After", RETRY_AFTER_SECONDS)
}

/// 400: the body is not of the kind its Content-Type says. 503 if there is no memory for it.
#[must_use]
pub fn payload_error(error: &PayloadError) -> Response {
    let (kind, status, fix) = match error {
        PayloadError::NotUtf8 => ("not-utf8", 400, "Send UTF-8, or application/octet-stream as the Content-Type."),
        PayloadError::NotJson(_) => ("not-json", 400, "Send one JSON text, or text/plain as the Content-Type."),
        PayloadError::NoMemory => ("no-memory", 503, "Send it again after the delay that Retry-After tells."),
    };
    let title = if status == 503 { "The server is out of memory" } else { "The body is not what its Content-Type says" };
    let response = refuse(kind, status, title, &sentence(error), fix);
    if status == 503 { response.header("Retry-After", RETRY_AFTER_SECONDS) } else { response }
}

/// 500: a fault of the server. The connection ends with this answer.
#[must_use]
pub fn internal() -> Response {
    let detail = "The server failed while it worked on this request; the log says where.";
    refuse("internal", 500, "The server failed", detail, "Report it with the lines of the log; sending it again may work.")
        .close()
}

/// 404: nothing is at `path`; `known` lists what is.
#[must_use]
pub fn not_found(path: &str, known: &str) -> Response {
    let detail = format!("Nothing is at {}. There are {known}.", quoted(path));
    refuse("not-found", 404, "There is nothing at this URL", &detail, "Use one of the paths that exist.")
}

/// 404: `what` is there, but not for this listener.
pub(super) fn only_on_loopback(what: &str, fix: &'static str) -> Response {
    let detail = format!("{what} is served on loopback listeners only.");
    refuse("not-found", 404, "There is nothing at this URL", &detail, fix)
}

/// 405: the resource has the methods in `allow`, and not this one.
#[must_use]
pub fn method_not_allowed(allow: &'static str) -> Response {
    let detail = format!("This resource has {allow}.");
    refuse("method-not-allowed", 405, "The method is not allowed here", &detail, "Use one of the methods that Allow lists.")
        .header("Allow", allow)
}

/// 400: a request of the subprotocol that is not there yet.
pub(super) fn request_not_yet(what: &'static str, fix: &'static str) -> Response {
    let detail = format!("This version has no {what}.");
    refuse(NOT_YET, 400, NOT_YET_TITLE, &detail, fix)
}

/// 404: Bayeux.
pub(super) fn bayeux_not_yet() -> Response {
    let detail = "Bayeux is not available in this version.";
    refuse(NOT_YET, 404, NOT_YET_TITLE, detail, "Open a WebSocket on /topics/NAME.")
}

/// 400, or 403 for a reserved one: the name is no topic.
pub(super) fn topic_error(name: &str, error: TopicError) -> Response {
    let detail = format!("{}: {error}.", quoted(name));
    if error == TopicError::Reserved {
        return refuse("reserved-topic", 403, "The topic is reserved", &detail, "Choose another first segment.");
    }
    let fix =
        "Use 1 to 255 bytes of UTF-8, in a URL percent-encoded: segments between single slashes, none of them \".\" or \"..\".";
    refuse("bad-topic", 400, "This is no topic's name", &detail, fix)
}

/// 400: a parameter with a value it does not have.
pub(super) fn bad_parameter(name: &str, value: &str, fix: &'static str) -> Response {
    let detail = format!("The parameter \"{name}\" cannot be {}.", quoted(value));
    refuse("bad-parameter", 400, "A parameter has an unknown value", &detail, fix)
}

/// 400: TTL is no number of seconds.
pub(super) fn bad_ttl(value: &str) -> Response {
    let detail = format!("TTL is {}.", quoted(value));
    refuse("bad-ttl", 400, "The time to live cannot be read", &detail, "Send one TTL: whole seconds, such as 30, or 0.")
}

/// 415: a batch that is not said to be JSON.
pub(super) fn batch_not_json() -> Response {
    let detail = "POST on /topics publishes a batch, which is JSON.";
    let fix = "Send a JSON array as application/json, or POST on /topics/NAME.";
    refuse("content-type", 415, "The Content-Type cannot be read", detail, fix)
}

/// 400: a header that says something of one publication.
pub(super) fn not_for_batches() -> Response {
    let detail = "TTL and Idempotency-Key say something of one publication, and this is a batch.";
    let fix = "Give each element its \"ttl\"; POST what has an Idempotency-Key on /topics/NAME.";
    refuse("not-for-batches", 400, "A header is not for batches", detail, fix)
}

/// 400: the body of a batch is no JSON array.
pub(super) fn bad_batch(error: &serde_json::Error) -> Response {
    let detail = format!("The body is no JSON array: {}.", plain(&error.to_string()));
    refuse("bad-batch", 400, "The batch cannot be read", &detail, "Send [{\"topic\":\"chat\",\"text\":\"hello\"}].")
}

/// 413: the batch has too many elements.
pub(super) fn batch_too_long(publications_max: usize) -> Response {
    let detail = format!("A batch may have {publications_max} publications.");
    let fix = "Send several batches, or raise --max-batch.";
    refuse_with(
        "batch-too-long",
        413,
        "The batch is too long",
        &detail,
        fix,
        vec![("limit_publications", publications_max as u64)],
    )
}

/// 400: an element of a batch is no publication.
pub(super) fn bad_publication(why: &str) -> Response {
    let detail = format!("This is no publication: {}.", plain(why));
    let fix = "Send {\"topic\", one of \"data\", \"text\" and \"base64\", and if you like \"ttl\"}.";
    refuse("bad-publication", 400, "An element of the batch cannot be read", &detail, fix)
}

/// 400: Idempotency-Key is no key.
pub(super) fn bad_idempotency_key(value: &str) -> Response {
    let detail = format!("Idempotency-Key is {}; {KeyError}.", quoted(value));
    let limits = vec![("limit_bytes", IdempotencyKey::BYTES_MAX as u64)];
    let fix = "Send one key, such as a UUID, and the same one when you send the same publication again.";
    refuse_with("bad-idempotency-key", 400, "The Idempotency-Key cannot be read", &detail, fix, limits)
}

/// 422: the key was used on the topic for another body. The title is that of the draft.
fn idempotency_key_reused() -> Response {
    let detail = "Another body was published on this topic under the same Idempotency-Key.";
    let fix = "Send each publication under a key of its own, and only the same one again under the same key.";
    refuse("idempotency-key-reused", 422, "Idempotency-Key is already used", detail, fix)
}

/// 503: the store of durable topics cannot write. It may be on the disk all the same, as after any answer that got lost.
fn not_stored() -> Response {
    let detail = "This topic is durable, and the server cannot write to its --data-dir. Nobody has got the publication.";
    let fix = "Send it again after the delay that Retry-After tells, under the same Idempotency-Key if it has one.";
    refuse("not-stored", 503, "The disk takes nothing", detail, fix).header("Retry-After", RETRY_AFTER_SECONDS)
}

/// 503: the disk is slower than the publishers.
fn store_busy() -> Response {
    let detail = "As many bytes wait for the disk as may, by --store-queue, or as many publications, by half of --mailbox-size.";
    refuse("store-busy", 503, "The disk is too slow", detail, "Send it again after the delay that Retry-After tells.")
        .header("Retry-After", RETRY_AFTER_SECONDS)
}

/// The engine's refusal of a publication or a topic.
#[must_use]
pub fn append_error(error: AppendError) -> Response {
    match error {
        AppendError::TooManyTopics { topics_max } => too_many_topics(topics_max as u64),
        AppendError::KeyReused => idempotency_key_reused(),
        AppendError::NotStored => not_stored(),
        AppendError::StoreBusy => store_busy(),
    }
}

/// 403: the page the request comes from may not speak to this server.
pub(super) fn origin_refused(origin: &str) -> Response {
    let detail = format!("Pages of the origin {} may not speak to this server.", quoted(origin));
    refuse("origin-refused", 403, "The origin is not allowed", &detail, "Start the server with --allow-origin and this origin.")
}

/// 403: nobody without credentials may do this from where the request comes.
pub(super) fn forbidden(what: &str) -> Response {
    let detail = format!("This request may not {what}.");
    let fix = "Send it from the server's own machine to a --listen on loopback, without a proxy, or start the server with another \
               --allow-anonymous.";
    refuse("forbidden", 403, "This is not allowed", &detail, fix)
}

/// 403: nobody may delete, not even on this machine.
pub(super) fn delete_not_allowed() -> Response {
    let detail = "Nobody may delete what is kept of a topic.";
    refuse(
        "forbidden",
        403,
        "This is not allowed",
        detail,
        "Start the server with --allow-delete: whoever may publish may then delete.",
    )
}

/// 415: the body is compressed.
pub(super) fn content_encoding(coding: &str) -> Response {
    let detail = format!("The body has the Content-Encoding {}.", quoted(coding));
    refuse("content-encoding", 415, "The body is encoded", &detail, "Send the body as it is, without Content-Encoding.")
        .header("Accept-Encoding", "identity")
}

/// 415: text in an encoding that is not UTF-8.
pub(super) fn charset(charset: &str) -> Response {
    let detail = format!("The body's charset is {}.", quoted(charset));
    let fix = "Send UTF-8, or application/octet-stream as the Content-Type.";
    refuse("charset", 415, "Text has to be UTF-8", &detail, fix)
}

/// 415: there is no telling what the body is.
pub(super) fn content_type() -> Response {
    let detail = "Content-Type occurs twice or is not a media type.";
    let fix = "Send one Content-Type, such as application/json, or none for text.";
    refuse("content-type", 415, "The Content-Type cannot be read", detail, fix)
}

const NOT_YET: &str = "not-in-this-version";
const NOT_YET_TITLE: &str = "This version cannot do that";

fn refuse(kind: &'static str, status: u16, title: &'static str, detail: &str, fix: &'static str) -> Response {
    refuse_with(kind, status, title, detail, fix, Vec::new())
}

fn refuse_with(
    kind: &'static str,
    status: u16,
    title: &'static str,
    detail: &str,
    fix: &'static str,
    numbers: Vec<(&'static str, u64)>,
) -> Response {
    Problem { kind, status, title, detail: detail.to_owned(), fix, numbers }.into_response()
}

/// A parser's words, which may hold what the client sent: other than printable ASCII escaped, clipped.
fn plain(words: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let letters = words.trim_end_matches('.').chars().take(CHARACTERS_MAX);
    letters
        .flat_map(|letter| if matches!(letter, ' '..='~') { vec![letter] } else { letter.escape_unicode().collect() })
        .collect()
}

/// An error's words as a sentence.
fn sentence(error: &PayloadError) -> String {
    let words = error.to_string();
    let mut letters = words.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Pattern;
    use crate::frame::PatternError;
    use crate::routes::testing::{header, problem};

    #[test]
    fn what_passes_says_when_to_come_back() {
        for (response, kind, closes) in [
            (publish_timeout(), "publish-timeout", false),
            (draining(), "draining", true),
            (too_many_topics(10), "too-many-topics", false),
            (too_many_patterns(10), "too-many-patterns", false),
            (too_many_connections(10), "too-many-connections", true),
            (too_many_of_one_address(10), "too-many-of-one-address", true),
            (too_fast(10.0), "too-fast", true),
            (unanswered(), "unanswered", false),
            (busy(), "busy", false),
            (payload_error(&PayloadError::NoMemory), "no-memory", false),
        ] {
            assert_eq!((response.status, response.close), (503, closes), "{kind}");
            assert_eq!(problem(&response)["type"], format!("urn:fantail:problem:{kind}"));
            assert!(header(&response, "Retry-After").unwrap().parse::<u32>().unwrap() > 0, "{kind}");
        }
    }

    #[test]
    fn limits_are_numbers_too() {
        assert_eq!(problem(&too_many_topics(7))["limit_topics"], 7);
        assert_eq!(problem(&too_many_patterns(6))["limit_patterns"], 6);
        assert_eq!(problem(&too_many_connections(8))["limit_connections"], 8);
        assert_eq!(problem(&too_many_subscriptions(9))["limit_subscriptions"], 9);
        assert_eq!(problem(&too_many_for_a_cursor())["limit_topics"], 64);
        assert_eq!(problem(&batch_too_long(10))["limit_publications"], 10);
    }

    #[test]
    fn an_engines_refusal_has_the_engines_status() {
        for error in [AppendError::TooManyTopics { topics_max: 7 }, AppendError::KeyReused] {
            assert_eq!(append_error(error).status, error.status());
        }
    }

    #[test]
    fn a_broken_body_is_told_where_it_breaks() {
        let error = PayloadError::NotJson("expected value at line 1 column 5".into());
        let told = problem(&payload_error(&error));
        assert_eq!((told["status"].as_u64(), &told["type"]), (Some(400), &"urn:fantail:problem:not-json".into()));
        assert_eq!(told["detail"], "The body is not JSON: expected value at line 1 column 5.");
        assert_eq!(payload_error(&PayloadError::NotUtf8).status, 400);
    }

    #[test]
    fn what_the_client_sent_is_escaped_and_clipped() {
        let told = problem(&origin_refused("https://\u{1b}[2J\u{202e}\"\u{7f}"));
        let shown = told["detail"].as_str().unwrap();
        assert!(shown.contains(r#""https://\u{1b}[2J\u{202e}\"\u{7f}""#), "{shown}");
        assert!(told["fix"].as_str().unwrap().contains("--allow-origin"));
        let told = problem(&bad_publication("unknown field `\u{1b}[2J\u{202e}é`."));
        assert_eq!(told["detail"], r"This is no publication: unknown field `\u{1b}[2J\u{202e}\u{e9}`.");
        let long = problem(&not_found(&"é".repeat(16_000), "/"));
        assert!(long["detail"].as_str().unwrap().len() < 400);
    }

    #[test]
    fn every_type_is_in_the_list_of_errors() {
        let list = include_str!("../../docs/errors.md");
        for response in [
            publish_timeout(),
            draining(),
            internal(),
            too_many_topics(1),
            too_many_patterns(1),
            too_many_connections(1),
            too_many_of_one_address(1),
            too_fast(1.0),
            unanswered(),
            busy(),
            payload_error(&PayloadError::NotUtf8),
            payload_error(&PayloadError::NotJson(String::new())),
            payload_error(&PayloadError::NoMemory),
            not_found("/x", "/y"),
            only_on_loopback("The page", ""),
            method_not_allowed("GET"),
            delete_not_allowed(),
            request_not_yet("credentials", ""),
            cancelled(),
            cursor_of_one_topic(),
            cursor_of_pattern(),
            too_many_for_a_cursor(),
            stream_over_http10(),
            bayeux_not_yet(),
            covered(&Pattern::parse("a/**").unwrap()),
            pattern_not_here("A long-poll"),
            pattern_error("*/a", PatternError::Misplaced),
            pattern_error("meta/*", PatternError::Name(TopicError::Reserved)),
            topic_error("", TopicError::Empty),
            topic_error("meta", TopicError::Reserved),
            topic_missing(),
            topic_twice(),
            one_topic_only(),
            envelope_needed(),
            presence_needs_envelope(),
            presence_off("a"),
            presence_not_here("A pattern"),
            bad_client_key(),
            bad_member_name("@"),
            member_name_refused("a"),
            too_many_subscriptions(1),
            bad_parameter("kind", "x", ""),
            bad_ttl("x"),
            batch_not_json(),
            not_for_batches(),
            bad_batch(&serde_json::from_str::<u8>("x").unwrap_err()),
            batch_too_long(1),
            bad_publication("x"),
            bad_idempotency_key("x"),
            append_error(AppendError::KeyReused),
            origin_refused("null"),
            forbidden("subscribe"),
            content_encoding("gzip"),
            charset("latin1"),
            content_type(),
        ] {
            let told = problem(&response);
            let kind = told["type"].as_str().unwrap().strip_prefix("urn:fantail:problem:").unwrap();
            let row = list.lines().find(|line| line.starts_with(&format!("| `{kind}` |")));
            let status = response.status.to_string();
            assert!(row.is_some_and(|row| row.split('|').nth(2).unwrap().contains(&status)), "{kind} {status}");
        }
    }
}
