//! What tells a reader that something is missing.

use serde::Serialize;

use super::{Cursor, Form, FrameHeader, OpCode, Position, StreamEvent, Topic, chunk};
use crate::words::words;

/// Publications that a reader has missed for good, or may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last position that the reader knew.
    pub from: Position,
    /// The position behind which nothing is missing.
    pub to: Position,
    /// Why.
    pub reason: GapReason,
}

words! {
    /// Why something is missing (docs/wire.md, "Resuming" and "Slow consumers").
    GapReason, "trimmed, slow, epoch, future or pattern", {
        /// It was kept once, and had to go.
        Trimmed = "trimmed",
        /// The reader took too slowly, and it was dropped.
        Slow = "slow",
        /// The reader knew another life of the topic: nobody knows what it missed.
        Epoch = "epoch",
        /// The reader knew more of this life than there is.
        Future = "future",
        /// Nobody knows what of a pattern's topics the reader has had: a pattern has no cursor. Or a name was left amid what was read behind it,
        /// and a pattern goes on with its topics.
        Pattern = "pattern",
    }
}

impl Gap {
    /// One publication that was dropped.
    #[must_use]
    pub fn dropped(position: Position) -> Self {
        let from = Position { offset: position.offset.saturating_sub(1), ..position };
        Self { from, to: position, reason: GapReason::Slow }
    }

    /// The `gap` object: `{"type":"gap","topic","from","to","reason"}`.
    #[must_use]
    pub fn object(&self, topic: &Topic) -> Vec<u8> {
        object(topic.as_str(), Some((Cursor(self.from).to_string(), Cursor(self.to).to_string())), self.reason)
    }

    /// Appends what tells a subscriber of it; nothing in [`Form::WsRaw`], where payloads stand alone. As an event of one topic it moves the
    /// reader to its end: who is lost behind it is not told of it again.
    pub fn write(&self, topic: &Topic, form: Form, out: &mut Vec<u8>) {
        if form != Form::WsRaw {
            write_object(&self.object(topic), Some(&Cursor(self.to).to_string()), form, out);
        }
    }

    /// The same where nobody knows from where to where something is missing, or of which topic of a pattern: `from` and `to` are null, and
    /// as an event it has no id, so the reader's last one still says that he has been here.
    pub fn write_unknown(name: &str, reason: GapReason, form: Form, out: &mut Vec<u8>) {
        write_object(&object(name, None, reason), None, form, out);
    }
}

fn object(topic: &str, ends: Option<(String, String)>, reason: GapReason) -> Vec<u8> {
    let (from, to) = ends.unzip();
    let object = GapObject { kind: "gap", topic, from, to, reason: reason.name() };
    serde_json::to_vec(&object).expect("texts always make JSON")
}

fn write_object(object: &[u8], id: Option<&str>, form: Form, out: &mut Vec<u8>) {
    match form {
        Form::WsRaw => {}
        Form::WsEnvelope => {
            out.extend_from_slice(FrameHeader::new(OpCode::Text, object.len()).as_bytes());
            out.extend_from_slice(object);
        }
        Form::Events | Form::EventsEnvelope => {
            let event = StreamEvent { retry_ms: None, id, event: Some("gap"), data: Some(object) };
            out.extend_from_slice(&event.chunk());
        }
        // Where its reader stands, an event of its own says.
        Form::EventsOfSeveral => {
            out.extend_from_slice(&StreamEvent { event: Some("gap"), data: Some(object), ..StreamEvent::default() }.chunk());
        }
        Form::Lines => out.extend_from_slice(&chunk(&[object, b"\n"])),
    }
}

#[derive(Serialize)]
struct GapObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    from: Option<String>,
    to: Option<String>,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Epoch;

    #[test]
    fn a_gap_is_told_in_every_form_but_the_one_of_payloads_alone() {
        let position = Position { epoch: "k3Vq".parse::<Epoch>().unwrap(), offset: 7 };
        let gap = Gap::dropped(position);
        let object = r#"{"type":"gap","topic":"chat","from":"k3Vq.6","to":"k3Vq.7","reason":"slow"}"#;
        let unnamed = format!("event: gap\ndata: {object}\n\n");
        let event = format!("id: k3Vq.7\n{unnamed}");
        for (form, expected) in [
            (Form::WsRaw, String::new()),
            (Form::WsEnvelope, format!("\u{81}{}{object}", object.len() as u8 as char)),
            (Form::Events, format!("{:x}\r\n{event}\r\n", event.len())),
            (Form::EventsEnvelope, format!("{:x}\r\n{event}\r\n", event.len())),
            (Form::EventsOfSeveral, format!("{:x}\r\n{unnamed}\r\n", unnamed.len())),
            (Form::Lines, format!("{:x}\r\n{object}\n\r\n", object.len() + 1)),
        ] {
            let mut out = Vec::new();
            gap.write(&Topic::new("chat").unwrap(), form, &mut out);
            assert_eq!(out.iter().map(|byte| *byte as char).collect::<String>(), expected, "{form:?}");
        }
    }

    #[test]
    fn a_gap_without_ends_has_nulls_and_no_id() {
        let object = r#"{"type":"gap","topic":"news/*","from":null,"to":null,"reason":"pattern"}"#;
        for (form, text) in [
            (Form::WsEnvelope, format!("\u{81}{}{object}", object.len() as u8 as char)),
            (Form::EventsEnvelope, format!("event: gap\ndata: {object}\n\n")),
            (Form::Lines, format!("{object}\n")),
        ] {
            let mut out = Vec::new();
            Gap::write_unknown("news/*", GapReason::Pattern, form, &mut out);
            let expected = if form == Form::WsEnvelope { text } else { format!("{:x}\r\n{text}\r\n", text.len()) };
            assert_eq!(out.iter().map(|byte| *byte as char).collect::<String>(), expected, "{form:?}");
        }
    }
}
