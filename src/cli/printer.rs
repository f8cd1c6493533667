//! What a subscriber prints: a message a line.

use std::borrow::Cow;
use std::io::{self, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

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

/// Prints messages until as many are printed as were asked for.
#[derive(Debug)]
pub(super) struct Printer<W> {
    output: W,
    form: Form,
    left: Option<u64>,
}

/// A `message` object (docs/wire.md, "Subscribing"); an object of another type has only the type.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

impl<W: Write> Printer<W> {
    /// Prints to `output`, at most `count` messages if that is given.
    pub(super) const fn new(output: W, form: Form, count: Option<u64>) -> Self {
        Self { output, form, left: count }
    }

    /// Whether as many messages are printed as were asked for.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Prints what one WebSocket message brought, and hands it on at once.
    pub(super) fn print(&mut self, payload: &[u8]) -> Result<(), PrintError> {
        match self.form {
            Form::Payload => self.output.write_all(payload)?,
            Form::Json => return self.print_object(payload),
            Form::TopicAndPayload => {
                let envelope = parse(payload)?;
                // An object of another type tells about the subscription, and has no payload.
                let Some(topic) = envelope.topic.as_deref().filter(|_| envelope.kind == "message") else { return Ok(()) };
                self.output.write_all(topic.as_bytes())?;
                self.output.write_all(b"\t")?;
                self.output.write_all(&envelope.payload()?)?;
            }
        }
        self.end_line(true)
    }

    /// Objects of every type are printed; messages alone are counted.
    fn print_object(&mut self, object: &[u8]) -> Result<(), PrintError> {
        let is_message = parse(object)?.kind == "message";
        // Between the members a line may end; inside a text JSON has it escaped.
        let line: Vec<u8> = object.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        self.output.write_all(&line)?;
        self.end_line(is_message)
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

    fn print(form: Form, payloads: &[&[u8]]) -> Vec<u8> {
        let mut printer = Printer::new(Vec::new(), form, None);
        for payload in payloads {
            printer.print(payload).unwrap();
        }
        printer.output
    }

    #[test]
    fn payloads_are_printed_as_they_are() {
        assert_eq!(print(Form::Payload, &[b"one", b"\xff\x00", b""]), b"one\n\xff\x00\n\n");
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
    fn messages_alone_are_counted() {
        let mut printer = Printer::new(Vec::new(), Form::Json, Some(1));
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
            (Form::TopicAndPayload, br#"{"type":"message","topic":"a","base64":"?"}"#),
        ] {
            let error = Printer::new(Vec::new(), form, None).print(payload).unwrap_err();
            assert!(matches!(error, PrintError::NotMessage), "{error}");
        }
    }
}
