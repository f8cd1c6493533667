//! Presence in requests: who a subscriber is, whether it wants to know who else is there, and the answers to those who ask or say goodbye.
//!
//! A client is known by its key. What the query says of it is looked at only where some class has presence; elsewhere a client may send
//! its key all the same, so that it need not know what its server is set to.

use serde::Serialize;

use super::query::{Query, decode};
use super::question::Question;
use super::subscribe::{Attach, Subscribe};
use super::{Action, json, refusals};
use crate::class::{Class, Presence};
use crate::frame::{Form, Topic};
use crate::http1::Response;
use crate::hub::presence::{ClientKey, MemberName, State};

/// Who a subscriber is, and what it wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The key it has brought; without one the server draws one.
    pub key: Option<ClientKey>,
    /// The name it has chosen.
    pub name: Option<MemberName>,
    /// It wants to know who is there in the topics that its URL names.
    pub watches: bool,
}

/// Who asks to subscribe; `None` if that can never matter, because nothing it may subscribe to has presence.
pub(super) fn client(question: &Question<'_>, subscribe: &Subscribe) -> Result<Option<Box<Client>>, Response> {
    let query = Query(question.head.query);
    let (key, name, watches) = (key(query)?, name(query)?, watches(query)?);
    if watches {
        may_watch(question, subscribe)?;
    }
    let is_session = matches!(subscribe.attach, Attach::Session { .. });
    let classes = &question.options.classes;
    if name.is_some() {
        let refused = subscribe.topics.iter().find(|topic| !classes.of(topic.as_str()).presence_names);
        let is_open = is_session && subscribe.topics.is_empty() && classes.any(|class| class.presence_names);
        if refused.is_some() || (subscribe.topics.is_empty() && !is_open) {
            return Err(refusals::member_name_refused(refused.map_or("*", Topic::as_str)));
        }
    }
    let has_presence = |class: &Class| class.presence != Presence::Off;
    let may_matter = classes.any(has_presence)
        && match subscribe.attach {
            Attach::Session { .. } => true,
            // One poll is like another's but for its key.
            Attach::Poll { .. } if key.is_none() => false,
            _ => subscribe.topics.iter().any(|topic| has_presence(classes.of(topic.as_str()))),
        };
    Ok(may_matter.then(|| Box::new(Client { key, name, watches })))
}

fn may_watch(question: &Question<'_>, subscribe: &Subscribe) -> Result<(), Response> {
    if matches!(subscribe.attach, Attach::Poll { .. }) {
        return Err(refusals::presence_not_here("A long-poll"));
    }
    if !subscribe.patterns.is_empty() {
        return Err(refusals::presence_not_here("A pattern"));
    }
    if subscribe.form == Form::WsRaw {
        return Err(refusals::presence_needs_envelope());
    }
    subscribe.topics.iter().try_for_each(|topic| has_presence(question, topic))
}

fn has_presence(question: &Question<'_>, topic: &Topic) -> Result<(), Response> {
    match question.options.classes.of(topic.as_str()).presence {
        Presence::Off => Err(refusals::presence_off(topic.as_str())),
        Presence::Count | Presence::List => Ok(()),
    }
}

/// GET with `presence` and no way to subscribe: who is there. `None` if it does not ask that.
pub(super) fn asked(question: &Question<'_>, topic: &Topic) -> Result<Option<Action>, Response> {
    if !watches(Query(question.head.query))? {
        return Ok(None);
    }
    has_presence(question, topic)?;
    Ok(Some(Action::Presence { topic: topic.clone() }))
}

/// `POST /bye`: the key stands in the query, or else is the body.
pub(super) fn bye(question: &Question<'_>) -> Result<Action, Response> {
    Ok(Action::Bye { key: key(Query(question.head.query))? })
}

/// The key that is the body of `POST /bye`.
///
/// # Errors
/// The refusal, if it is none.
pub fn read_bye(body: &[u8]) -> Result<ClientKey, Response> {
    let text = std::str::from_utf8(body).map_err(|_| refusals::bad_client_key())?;
    ClientKey::new(text.trim_ascii()).ok_or_else(refusals::bad_client_key)
}

/// 204: the goodbye has been heard.
#[must_use]
pub fn heard() -> Response {
    Response::new(204)
}

#[derive(Serialize)]
struct Answer<'a> {
    topic: &'a str,
    #[serde(flatten)]
    state: &'a State,
}

/// 200 with who is there: `{"topic","count","members"}`.
#[must_use]
pub fn present(topic: &Topic, state: &State) -> Response {
    json(&Answer { topic: topic.as_str(), state }).header("Cache-Control", "no-store")
}

fn watches(query: Query<'_>) -> Result<bool, Response> {
    match query.value("presence") {
        None | Some("0" | "false") => Ok(false),
        Some("" | "1" | "true") => Ok(true),
        Some(other) => Err(refusals::bad_parameter("presence", other, "Use \"presence\" alone.")),
    }
}

fn key(query: Query<'_>) -> Result<Option<ClientKey>, Response> {
    query.value("client-key").map(|key| ClientKey::new(key).ok_or_else(refusals::bad_client_key)).transpose()
}

fn name(query: Query<'_>) -> Result<Option<MemberName>, Response> {
    let Some(value) = query.value("member") else { return Ok(None) };
    let name = decode(value).ok().and_then(|text| MemberName::new(&text));
    name.map(Some).ok_or_else(|| refusals::bad_member_name(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::class::Classes;
    use crate::routes::testing::Ask;

    const KEY: &str = "0123456789abcdef";

    fn ask(target: &'static str) -> Ask {
        Ask::new("GET", target).options(|options| {
            let default = *options.classes.default();
            let class = |presence, presence_names| Class { presence, presence_names, ..default };
            let rules = [
                ("rooms/**", class(Presence::List, false)),
                ("names/**", class(Presence::List, true)),
                ("many/**", class(Presence::Count, false)),
            ];
            let rules = rules.map(|(pattern, class)| (pattern.parse().unwrap(), class));
            options.classes = Arc::new(Classes::new(rules.to_vec(), default));
        })
    }

    fn socket(target: &'static str) -> Ask {
        ask(target).upgrade()
    }

    fn session(target: &'static str) -> Ask {
        socket(target).header("Sec-WebSocket-Protocol", "fantail.v1")
    }

    fn client_of(ask: &Ask) -> Option<Client> {
        let routed = ask.route();
        assert!(matches!(routed.action, Action::Subscribe(_)), "{:?}", routed.action);
        routed.client.map(|client| *client)
    }

    #[test]
    fn a_subscriber_of_a_topic_with_presence_is_somebody() {
        let nobody = Client { key: None, name: None, watches: false };
        assert_eq!(client_of(&socket("/topics/rooms/1")), Some(nobody.clone()));
        assert_eq!(client_of(&socket("/topics/chat?client-key=0123456789abcdef")), None);
        assert_eq!(client_of(&socket("/topics?topic=chat&topic=many%2F1&envelope")), Some(nobody.clone()));
        assert_eq!(client_of(&session("/topics")), Some(nobody.clone()));
        let known = Client { key: ClientKey::new(KEY), name: MemberName::new("Ann M"), watches: true };
        let target = "/topics/names/1?presence&envelope&client-key=0123456789abcdef&member=Ann+M";
        assert_eq!(client_of(&socket(target)), Some(known));
        assert_eq!(client_of(&ask("/topics/rooms/1?as=sse&presence")), Some(Client { watches: true, ..nobody.clone() }));
        assert_eq!(client_of(&ask("/topics/rooms/1?wait=1")), None, "a poll without a key is nobody");
        assert!(client_of(&ask("/topics/rooms/1?wait=1&client-key=0123456789abcdef")).is_some());
        assert_eq!(client_of(&socket("/topics/rooms/*?envelope")), None, "a pattern is no topic");
        let off = Ask::new("GET", "/topics/rooms/1?client-key=0123456789abcdef").upgrade();
        assert_eq!(client_of(&off), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_rule() {
        for (ask, expected) in [
            (socket("/topics/rooms/1?presence"), (400, "envelope-needed")),
            (socket("/topics/chat?presence&envelope"), (400, "presence-off")),
            (socket("/topics?topic=rooms%2F1&topic=chat&presence&envelope"), (400, "presence-off")),
            (socket("/topics/rooms/*?presence&envelope"), (400, "presence-not-here")),
            (ask("/topics/rooms/1?presence&wait=1"), (400, "presence-not-here")),
            (ask("/topics/chat?presence"), (400, "presence-off")),
            (ask("/topics/rooms/1?presence=list"), (400, "bad-parameter")),
            (socket("/topics/rooms/1?client-key=short"), (400, "bad-client-key")),
            (socket("/topics/names/1?member=%40ann"), (400, "bad-member-name")),
            (socket("/topics/names/1?member=%FF"), (400, "bad-member-name")),
            (socket("/topics/rooms/1?member=ann"), (403, "member-name-refused")),
            (socket("/topics/chat?member=ann"), (403, "member-name-refused")),
            (session("/topics?topic=rooms%2F1&member=ann"), (403, "member-name-refused")),
        ] {
            assert_eq!(ask.problem_type(), (expected.0, expected.1.into()));
        }
        assert!(client_of(&session("/topics?member=ann")).is_some());
        let off = Ask::new("GET", "/topics?member=ann").upgrade().header("Sec-WebSocket-Protocol", "fantail.v1");
        assert_eq!(off.problem_type(), (403, "member-name-refused".into()));
    }

    #[test]
    fn a_get_may_ask_who_is_there() {
        assert!(matches!(ask("/topics/rooms/1?presence").action(), Action::Presence { topic } if topic.as_str() == "rooms/1"));
        assert!(matches!(ask("/topics/rooms/1?presence=0").action(), Action::Information { .. }));
        let state = State { count: 2, members: None };
        let answer = present(&Topic::new("many/1").unwrap(), &state);
        assert_eq!(answer.body.as_bytes(), br#"{"topic":"many/1","count":2}"#);
    }

    #[test]
    fn goodbye_takes_the_key() {
        let bye = |target| Ask::new("POST", target).header("Content-Type", "text/plain");
        assert!(matches!(bye("/bye").action(), Action::Bye { key: None }));
        assert!(matches!(bye("/bye?client-key=0123456789abcdef").action(), Action::Bye { key: Some(_) }));
        assert_eq!(bye("/bye?client-key=x").problem_type(), (400, "bad-client-key".into()));
        let foreign = bye("/bye").header("Origin", "https://evil.example");
        assert_eq!(foreign.problem_type(), (403, "origin-refused".into()));
        assert_eq!(Ask::new("GET", "/bye").problem_type(), (405, "method-not-allowed".into()));
        assert_eq!(read_bye(b" 0123456789abcdef\n").ok(), ClientKey::new(KEY));
        for body in [&b""[..], b"short", b"\xFF"] {
            assert_eq!(read_bye(body).map(|_| ()).unwrap_err().status, 400);
        }
    }
}
