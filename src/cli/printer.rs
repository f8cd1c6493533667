//! What a subscriber prints: a message a line, to standard output; that something is missing, to the person.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::problem::printable;

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The payload as it is.
    Payload,
    /// The topic, a tab, the payload as it is.
    TopicAndPayload,
    /// The `message` object.
    Json,
}

/// Why a message was not printed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrintError {
    /// Whoever read stdout is gone, or the disk is full.
    #[error("stdout can't be written: {0}")]
    Output(#[from] io::Error),
    /// The server sent something else.
    #[error("the server sent no message object")]
    NotMessage,
}

/// Prints messages until as many are printed as were asked for, and knows where it stands.
#[derive(Debug)]
pub(super) struct Printer<W, N> {
    output: W,
    notes: N,
    form: Form,
    left: Option<u64>,
    cursor: Option<String>,
}

/// A `message` object (docs/wire.md, "Subscribing"); an object of another type has only the type.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
    /// The end of a gap.
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

impl<W: Write, N: Write> Printer<W, N> {
    /// Prints to `output`, at most `count` messages if that is given; what the person should know goes to `notes`.
    pub(super) const fn new(output: W, notes: N, form: Form, count: Option<u64>) -> Self {
        Self { output, notes, form, left: count, cursor: None }
    }

    /// A line for the person; without a terminal there is nobody to miss it.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.notes, "fantail: {text}");
    }

    /// Where the last message stands that was printed, or the end of the last gap that was told.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Whether as many messages are printed as were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Prints what one WebSocket message brought, and hands it on at once. Messages alone are counted.
    pub(super) fn print(&mut self, object: &[u8]) -> Result<(), PrintError> {
        let envelope = parse(object)?;
        let is_message = envelope.kind == "message";
        match self.form {
            Form::Json => {
                // Between the members a line may end; inside a text JSON has it escaped.
                let line: Vec<u8> = object.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
                self.output.write_all(&line)?;
                self.end_line(is_message)?;
            }
            // An object of another type tells about the subscription, and has no payload.
            Form::Payload | Form::TopicAndPayload if !is_message => {}
            Form::Payload => {
                self.output.write_all(&envelope.payload()?)?;
                self.end_line(true)?;
            }
            Form::TopicAndPayload => {
                let topic = envelope.topic.as_deref().ok_or(PrintError::NotMessage)?;
                self.output.write_all(topic.as_bytes())?;
                self.output.write_all(b"\t")?;
                self.output.write_all(&envelope.payload()?)?;
                self.end_line(true)?;
            }
        }
        self.go_on(envelope);
        Ok(())
    }

    /// Notes where the subscriber stands now, and tells the person of a gap.
    fn go_on(&mut self, envelope: Envelope<'_>) {
        if envelope.kind == "gap" {
            let reason = envelope.reason.as_deref().unwrap_or("no reason given");
            let why = match reason {
                "slow" => "they came faster than they were taken",
                _ => "the server does not have them any more",
            };
            self.note(&format!("messages are missing here, {why} ({})", printable(reason)));
        }
        if let Some(cursor) = envelope.cursor.or(envelope.to) {
            self.cursor = Some(cursor.into_owned());
        }
    }

    fn end_line(&mut self, is_message: bool) -> Result<(), PrintError> {
        self.output.write_all(b"\n")?;
        self.output.flush()?;
        if is_message {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }
}

impl Envelope<'_> {
    fn payload(&self) -> Result<Cow<'_, [u8]>, PrintError> {
        match (self.data, self.text.as_deref(), self.base64.as_deref()) {
            (Some(data), ..) => Ok(data.get().as_bytes().into()),
            (_, Some(text), _) => Ok(text.as_bytes().into()),
            (.., Some(base64)) => BASE64_STANDARD.decode(base64).map(Cow::from).map_err(|_| PrintError::NotMessage),
            _ => Err(PrintError::NotMessage),
        }
    }
}

fn parse(object: &[u8]) -> Result<Envelope<'_>, PrintError> {
    serde_json::from_slice(object).map_err(|_| PrintError::NotMessage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(form: Form, objects: &[&[u8]]) -> Vec<u8> {
        let mut printer = Printer::new(Vec::new(), Vec::new(), form, None);
        for object in objects {
            printer.print(object).unwrap();
        }
        printer.output
    }

    #[test]
    fn payloads_are_printed_as_they_are() {
        let objects: [&[u8]; 4] = [
            br#"{"type":"message","topic":"a","text":"one"}"#,
            br#"{"type":"message","topic":"a","base64":"/wA="}"#,
            br#"{"type":"gap","topic":"a"}"#,
            br#"{"type":"message","topic":"a","text":""}"#,
        ];
        assert_eq!(print(Form::Payload, &objects), b"one\n\xff\x00\n\n");
    }

    #[test]
    fn several_topics_are_told_apart() {
        let objects: [&[u8]; 4] = [
            br#"{"type":"message","topic":"a","cursor":"k.1","at_ms":1,"data":{"x": 1}}"#,
            br#"{"type":"message","topic":"b\u0063","text":"tab\there"}"#,
            br#"{"type":"presence","topic":"a"}"#,
            br#"{"type":"message","topic":"a","base64":"/wA="}"#,
        ];
        assert_eq!(print(Form::TopicAndPayload, &objects), b"a\t{\"x\": 1}\nbc\ttab\there\na\t\xff\x00\n");
    }

    #[test]
    fn objects_are_one_line_each() {
        let objects: [&[u8]; 2] = [b"{\"type\":\"message\",\n\"text\":\"a\\nb\"}", br#"{"type":"gap"}"#];
        assert_eq!(print(Form::Json, &objects), b"{\"type\":\"message\", \"text\":\"a\\nb\"}\n{\"type\":\"gap\"}\n");
    }

    #[test]
    fn it_knows_where_it_stands_and_tells_of_gaps() {
        let mut printer = Printer::new(Vec::new(), Vec::new(), Form::Payload, None);
        assert_eq!(printer.cursor(), None);
        printer.print(br#"{"type":"message","topic":"a","cursor":"k.1","text":"x"}"#).unwrap();
        assert_eq!(printer.cursor(), Some("k.1"));
        printer.print(br#"{"type":"gap","topic":"a","from":"k.1","to":"k.7","reason":"trimmed"}"#).unwrap();
        assert_eq!((printer.cursor(), &*printer.output), (Some("k.7"), &b"x\n"[..]));
        let notes = String::from_utf8(printer.notes).unwrap();
        assert!(notes.contains("missing") && notes.contains("(trimmed)"), "{notes}");
        let mut printer = Printer::new(Vec::new(), Vec::new(), Form::Payload, None);
        printer.print(br#"{"type":"gap","topic":"a","from":"k.1","to":"k.7","reason":"slow"}"#).unwrap();
        let notes = String::from_utf8(printer.notes).unwrap();
        assert!(notes.contains("faster than they were taken (slow)"), "{notes}");
    }

    #[test]
    fn messages_alone_are_counted() {
        let mut printer = Printer::new(Vec::new(), Vec::new(), Form::Json, Some(1));
        printer.print(br#"{"type":"gap"}"#).unwrap();
        assert!(!printer.is_done());
        printer.print(br#"{"type":"message","text":""}"#).unwrap();
        assert!(printer.is_done());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (form, payload) in [
            (Form::Json, &b"hello"[..]),
            (Form::TopicAndPayload, b"\xff"),
            (Form::TopicAndPayload, br#"{"type":"message","topic":"a"}"#),
            (Form::TopicAndPayload, br#"{"type":"message","text":"a"}"#),
            (Form::Payload, b"hello"),
            (Form::TopicAndPayload, br#"{"type":"message","topic":"a","base64":"?"}"#),
        ] {
            let error = Printer::new(Vec::new(), Vec::new(), form, None).print(payload).unwrap_err();
            assert!(matches!(error, PrintError::NotMessage), "{error}");
        }
    }
}
