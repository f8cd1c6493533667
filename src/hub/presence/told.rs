//! What watchers are told: objects, made once by the home worker, and framed once by each worker in each form its watchers take.

use serde::Serialize;

use super::{Member, MemberName};
use crate::frame::{Form, FrameHeader, OpCode, StreamEvent, Topic, chunk};
use crate::metrics::Cause;

/// Changes that go out together, in their order: one object each.
#[derive(Debug)]
pub struct Told {
    /// Whose members they are of.
    pub topic: Topic,
    /// The objects.
    pub objects: Vec<Box<[u8]>>,
}

/// Who is there, as watchers were told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// How many, whether they are listed or not.
    pub count: u64,
    /// The members that are listed; absent where members are only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Listed>>,
}

/// A member, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name, or its id if it has chosen none.
    #[serde(flatten)]
    shown: Shown,
}

/// How a member is shown: by its id, or by its name and its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
enum Shown {
    Named { member: MemberName, client: Member },
    Plain { member: Member },
}

impl Listed {
    pub(super) fn new(member: Member, name: Option<&MemberName>) -> Self {
        let shown = match name {
            Some(name) => Shown::Named { member: name.clone(), client: member },
            None => Shown::Plain { member },
        };
        Self { shown }
    }
}

#[derive(Serialize)]
struct Object<'a, T: Serialize> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    event: &'static str,
    #[serde(flatten)]
    of: T,
}

#[derive(Serialize)]
struct Left {
    #[serde(flatten)]
    who: Listed,
    cause: &'static str,
    orderly: bool,
}

impl State {
    /// The state as an event: `list`, or `count`.
    #[must_use]
    pub fn object(&self, topic: &Topic) -> Box<[u8]> {
        object(topic, if self.members.is_some() { "list" } else { "count" }, self)
    }
}

/// Somebody has come.
pub(super) fn joined(topic: &Topic, who: Listed) -> Box<[u8]> {
    object(topic, "join", who)
}

/// Somebody has gone.
pub(super) fn left(topic: &Topic, who: Listed, cause: Cause) -> Box<[u8]> {
    object(topic, "leave", Left { who, cause: cause.name(), orderly: cause.is_orderly() })
}

/// There are so many now.
pub(super) fn counted(topic: &Topic, count: u64) -> Box<[u8]> {
    object(topic, "count", State { count, members: None })
}

fn object(topic: &Topic, event: &'static str, of: impl Serialize) -> Box<[u8]> {
    let object = Object { kind: "presence", topic: topic.as_str(), event, of };
    serde_json::to_vec(&object).expect("texts and numbers always make JSON").into_boxed_slice()
}

/// Appends an object as a watcher of this form reads it; nothing in [`Form::WsRaw`], where payloads stand alone.
pub fn write_object(object: &[u8], form: Form, out: &mut Vec<u8>) {
    match form {
        Form::WsRaw => {}
        Form::WsEnvelope => {
            out.extend_from_slice(FrameHeader::new(OpCode::Text, object.len()).as_bytes());
            out.extend_from_slice(object);
        }
        // Without an id: it is no place in the topic.
        Form::Events | Form::EventsEnvelope | Form::EventsOfSeveral => {
            let event = StreamEvent { event: Some("presence"), data: Some(object), ..StreamEvent::default() };
            out.extend_from_slice(&event.chunk());
        }
        Form::Lines => out.extend_from_slice(&chunk(&[object, b"\n"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_exactly_these_members_in_this_order() {
        let (topic, member) = (Topic::new("chat").unwrap(), Member::numbered(1));
        let name = MemberName::new("ann").unwrap();
        let (plain, named) = (Listed::new(member, None), Listed::new(member, Some(&name)));
        let state = State { count: 3, members: Some(vec![named.clone(), plain.clone()]) };
        for (object, expected) in [
            (joined(&topic, named.clone()), r#""join","member":"ann","client":"@AAAAAAAAAAEAAAAA"}"#),
            (joined(&topic, plain.clone()), r#""join","member":"@AAAAAAAAAAEAAAAA"}"#),
            (left(&topic, plain, Cause::NoPong), r#""leave","member":"@AAAAAAAAAAEAAAAA","cause":"no_pong","orderly":false}"#),
            (
                left(&topic, named, Cause::LeftPage),
                r#""leave","member":"ann","client":"@AAAAAAAAAAEAAAAA","cause":"left_page","orderly":true}"#,
            ),
            (counted(&topic, 17), r#""count","count":17}"#),
            (
                state.object(&topic),
                r#""list","count":3,"members":[{"member":"ann","client":"@AAAAAAAAAAEAAAAA"},{"member":"@AAAAAAAAAAEAAAAA"}]}"#,
            ),
            (State { count: 2, members: None }.object(&topic), r#""count","count":2}"#),
        ] {
            let whole = format!(r#"{{"type":"presence","topic":"chat","event":{expected}"#);
            assert_eq!(String::from_utf8(object.into_vec()).unwrap(), whole);
        }
    }

    #[test]
    fn an_object_is_written_in_every_form_but_the_one_of_payloads_alone() {
        for (form, expected) in [
            (Form::WsRaw, ""),
            (Form::WsEnvelope, "\u{81}\u{2}{}"),
            (Form::Events, "1a\r\nevent: presence\ndata: {}\n\n\r\n"),
            (Form::EventsEnvelope, "1a\r\nevent: presence\ndata: {}\n\n\r\n"),
            (Form::EventsOfSeveral, "1a\r\nevent: presence\ndata: {}\n\n\r\n"),
            (Form::Lines, "3\r\n{}\n\r\n"),
        ] {
            let mut out = Vec::new();
            write_object(b"{}", form, &mut out);
            assert_eq!(out.iter().map(|byte| *byte as char).collect::<String>(), expected, "{form:?}");
        }
    }
}
