//! Long-polls: what a GET asks for, and its answer.

use std::sync::Arc;
use std::time::Duration;

use super::query::Query;
use super::question::Question;
use super::subjects::{Subjects, topics};
use super::subscribe::{Attach, OnGap, Subscribe, may_subscribe};
use super::{Action, refusals};
use crate::frame::{Form, Gap, Publication, Topic};
use crate::http1::{Body, Head, Response};

/// How long a poll waits if it does not say so.
const WAIT_DEFAULT: Duration = Duration::from_secs(25);

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
    Ok(preferred.map(Duration::from_secs).or(query.value("since").map(|_| WAIT_DEFAULT)))
}

pub(super) fn by_poll(question: &Question<'_>, name: Option<&str>, wait: Duration) -> Result<Action, Response> {
    may_subscribe(question)?;
    let subjects = topics(question, name, "A long-poll")?;
    subjects.fit_cursor()?;
    let since = Some(subjects.since(Query(question.head.query))?);
    let wait = wait.min(Duration::from_millis(question.options.timeouts.idle_timeout_ms));
    // Held until it is answered, it is never handed a frame, so it takes the form that is there anyway.
    let (form, on_gap, attach) = (Form::WsRaw, OnGap::Continue, Attach::Poll { wait });
    let (Subjects { topics, patterns, .. }, has_missed) = (subjects, false);
    Ok(Action::Subscribe(Box::new(Subscribe { topics, patterns, form, since, has_missed, on_gap, attach })))
}

/// 200 with what a poll has found: `{"messages":[MESSAGE],"cursor":C,"recovered":bool}`, and `"gaps":[GAP]` where something is missing.
#[must_use]
pub fn polled(messages: &[Arc<Publication>], gaps: &[(Topic, Gap)], cursor: &str) -> Response {
    let mut body = b"{\"messages\":[".to_vec();
    join(messages.iter().map(|message| message.message_object()), &mut body);
    // It has no character that JSON escapes.
    body.extend_from_slice(format!("],\"cursor\":\"{cursor}\",\"recovered\":{}", gaps.is_empty()).as_bytes());
    if !gaps.is_empty() {
        body.extend_from_slice(b",\"gaps\":[");
        join(gaps.iter().map(|(topic, gap)| gap.object(topic)), &mut body);
        body.push(b']');
    }
    body.push(b'}');
    Response::new(200).header("Content-Type", "application/json").header("Cache-Control", "no-store").body(Body::Owned(body))
}

/// The elements of an array.
fn join(objects: impl Iterator<Item = Vec<u8>>, out: &mut Vec<u8>) {
    for (place, object) in objects.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&object);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Forms, Kind, Payload, Position};
    use crate::routes::testing::Ask;

    #[test]
    fn a_poll_is_of_topics() {
        let Action::Subscribe(poll) = Ask::new("GET", "/topics?topic=a&topic=b&wait=1").action() else { panic!("no poll") };
        assert_eq!((poll.topics.len(), poll.since.map(|since| since.len()), poll.form), (2, Some(2), Form::WsRaw));
        for target in ["/topics/a/*?wait=1", "/topics?topic=a&topic=b%2F*&since=earliest"] {
            assert_eq!(Ask::new("GET", target).problem_type(), (400, "pattern-not-here".into()), "{target}");
        }
    }

    #[test]
    fn the_answer_has_gaps_where_something_is_missing() {
        let topic = Topic::new("chat").unwrap();
        let position = Position { epoch: "k3Vq".parse().unwrap(), offset: 7 };
        let payload = Payload::new(Kind::Text, b"x").unwrap();
        let message = Arc::new(Publication::new(topic.clone(), position, 5, 0, payload, Forms::NONE));
        let gap = Gap::dropped(Position { offset: 6, ..position });
        for (messages, gaps, expected) in [
            (vec![], vec![], r#"{"messages":[],"cursor":"k3Vq.7","recovered":true}"#.to_owned()),
            (
                vec![Arc::clone(&message), message],
                vec![(topic.clone(), gap), (topic, gap)],
                format!(
                    r#"{{"messages":[{0},{0}],"cursor":"k3Vq.7","recovered":false,"gaps":[{1},{1}]}}"#,
                    r#"{"type":"message","topic":"chat","cursor":"k3Vq.7","at_ms":5,"text":"x"}"#,
                    r#"{"type":"gap","topic":"chat","from":"k3Vq.5","to":"k3Vq.6","reason":"slow"}"#
                ),
            ),
        ] {
            assert_eq!(std::str::from_utf8(polled(&messages, &gaps, "k3Vq.7").body.as_bytes()), Ok(&*expected));
        }
    }
}
