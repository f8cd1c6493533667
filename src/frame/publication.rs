//! A publication and its wire forms: made once, shared by reference by every subscriber.

use serde::Serialize;

use super::{Cursor, FrameHeader, Kind, Position, StreamEvent, Topic, chunk};

/// How a publication looks on the wire of one sort of subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// A WebSocket frame with the payload alone.
    WsRaw = 0,
    /// A WebSocket text frame with a `message` object.
    WsEnvelope = 1,
    /// An event with the payload, a binary one in base64 as an event `binary`.
    Events = 2,
    /// An event with a `message` object.
    EventsEnvelope = 3,
    /// A line with a `message` object.
    Lines = 4,
    /// An event with a `message` object and without an id: a stream of several topics tells where it stands by itself.
    EventsOfSeveral = 5,
}

impl Form {
    /// Every form, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::WsRaw, Self::WsEnvelope, Self::Events, Self::EventsEnvelope, Self::Lines, Self::EventsOfSeveral];
}

/// A set of forms: what a worker's subscribers of a topic need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms(u8);

impl Forms {
    /// No form: nobody is interested.
    pub const NONE: Self = Self(0);

    /// This set and `form`.
    #[must_use]
    pub const fn with(self, form: Form) -> Self {
        Self(self.0 | 1 << form as u8)
    }

    /// Whether `form` is in the set.
    #[must_use]
    pub const fn contains(self, form: Form) -> bool {
        self.0 & 1 << form as u8 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A payload that has been checked for its kind, already framed: header and payload in one allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    frame: Box<[u8]>,
    start: u8,
    kind: Kind,
}

/// Why a payload is not of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Said to be text, and is not UTF-8.
    #[error("the body is not UTF-8, which text must be")]
    NotUtf8,
    /// Said to be JSON, and is not; the parser's words say where.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// The allocator refused.
    #[error("there is no memory for the body")]
    NoMemory,
}

impl Payload {
    /// Checks `bytes` for `kind` and frames them: the one copy a publication costs.
    ///
    /// # Errors
    /// [`PayloadError`] says which rule the bytes break.
    pub fn new(kind: Kind, bytes: &[u8]) -> Result<Self, PayloadError> {
        match kind {
            Kind::Binary => {}
            Kind::Text => {
                simdutf8::basic::from_utf8(bytes).map_err(|_| PayloadError::NotUtf8)?;
            }
            Kind::Json => check_json(bytes)?,
        }
        Self::new_unchecked(kind, bytes)
    }

    /// Frames bytes that are known to be of their kind, such as a text message the WebSocket parser has checked.
    ///
    /// # Errors
    /// [`PayloadError::NoMemory`] alone.
    pub fn new_unchecked(kind: Kind, bytes: &[u8]) -> Result<Self, PayloadError> {
        let header = FrameHeader::new(kind.opcode(), bytes.len());
        let start = header.as_bytes().len();
        let mut frame = Vec::new();
        frame.try_reserve_exact(start + bytes.len()).map_err(|_| PayloadError::NoMemory)?;
        frame.extend_from_slice(header.as_bytes());
        frame.extend_from_slice(bytes);
        Ok(Self { frame: frame.into_boxed_slice(), start: start as u8, kind })
    }

    /// What the bytes are.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The payload without its header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.frame[self.start as usize..]
    }
}

/// What holds for a topic, by its place in [`crate::class::Classes`]: goes with what belongs to the topic, so that its class need not
/// be found by name again. The default is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassId(pub u8);

/// A payload that was accepted for a topic and numbered. Workers share it as `Arc<Publication>`.
#[derive(Debug)]
pub struct Publication {
    /// Where it was published.
    pub topic: Topic,
    /// Its number.
    pub position: Position,
    /// When it was numbered, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When it was numbered, in nanoseconds of the driver's monotonic clock: for its age, and the fan-out's duration.
    pub numbered_ns: u64,
    /// The class of its topic.
    pub class: ClassId,
    payload: Payload,
    /// The forms that were made, but for the payload's own frame.
    made: [Option<Box<[u8]>>; Form::ALL.len() - 1],
}

impl Publication {
    /// Joins a payload with its number and makes the forms in `forms`. Its class is the default one.
    #[must_use]
    pub fn new(topic: Topic, position: Position, at_ms: u64, numbered_ns: u64, payload: Payload, forms: Forms) -> Self {
        let mut publication =
            Self { topic, position, at_ms, numbered_ns, class: ClassId::default(), payload, made: Default::default() };
        for form in Form::ALL.into_iter().skip(1).filter(|form| forms.contains(*form)) {
            publication.made[form as usize - 1] = Some(publication.encode(form));
        }
        publication
    }

    /// What it takes in memory, in bytes, in the forms that were made.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let made: usize = self.made.iter().flatten().map(|form| form.len()).sum();
        (size_of::<Self>() + self.payload.frame.len() + made) as u64
    }

    /// The payload as it was accepted.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The bytes of `form`, if the home worker made it.
    #[must_use]
    pub fn form(&self, form: Form) -> Option<&[u8]> {
        match form {
            Form::WsRaw => Some(&self.payload.frame),
            made => self.made[made as usize - 1].as_deref(),
        }
    }

    /// Makes the bytes of `form` anew: for the home worker, and for a worker whose interest came too late to be served by it.
    #[must_use]
    pub fn encode(&self, form: Form) -> Box<[u8]> {
        match form {
            Form::WsRaw => self.payload.frame.clone(),
            Form::WsEnvelope => {
                let object = self.message_object();
                let header = FrameHeader::new(super::OpCode::Text, object.len());
                [header.as_bytes(), &object].concat().into_boxed_slice()
            }
            Form::Events => match self.payload.kind {
                Kind::Json | Kind::Text => self.event(None, self.payload.as_bytes()),
                Kind::Binary => self.event(Some("binary"), self.base64().as_bytes()),
            },
            Form::EventsEnvelope => self.event(None, &self.message_object()),
            Form::EventsOfSeveral => {
                StreamEvent { data: Some(&self.message_object()), ..StreamEvent::default() }.chunk().into_boxed_slice()
            }
            Form::Lines => {
                let mut object = self.message_object();
                // JSON that was published has line ends between its tokens alone.
                object.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
                chunk(&[&object, b"\n"]).into_boxed_slice()
            }
        }
    }

    fn event(&self, event: Option<&str>, data: &[u8]) -> Box<[u8]> {
        let id = Cursor(self.position).to_string();
        StreamEvent { retry_ms: None, id: Some(&id), event, data: Some(data) }.chunk().into_boxed_slice()
    }

    fn base64(&self) -> String {
        base64::Engine::encode(&base64::prelude::BASE64_STANDARD, self.payload.as_bytes())
    }

    /// The `message` object: `{"type":"message","topic","cursor","at_ms", and one of "data" (json), "text", "base64"}`.
    #[must_use]
    pub fn message_object(&self) -> Vec<u8> {
        let bytes = self.payload.as_bytes();
        let (data, text, base64) = match self.payload.kind {
            Kind::Json => (serde_json::from_slice(bytes).ok(), None, None),
            Kind::Text => (None, std::str::from_utf8(bytes).ok(), None),
            Kind::Binary => (None, None, Some(self.base64())),
        };
        let object = Message {
            kind: "message",
            topic: self.topic.as_str(),
            cursor: Cursor(self.position).to_string(),
            at_ms: self.at_ms,
            data,
            text,
            base64,
        };
        serde_json::to_vec(&object).expect("a message object has no map with keys that are not strings")
    }
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    cursor: String,
    at_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a serde_json::value::RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Walks the text without building it; serde_json refuses more than 128 levels, so depth cannot exhaust the stack.
fn check_json(bytes: &[u8]) -> Result<(), PayloadError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| PayloadError::NotUtf8)?;
    match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(PayloadError::NotJson(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Epoch;

    fn publication(kind: Kind, bytes: &[u8]) -> Publication {
        let position = Position { epoch: "k3Vq".parse::<Epoch>().unwrap(), offset: 1041 };
        let payload = Payload::new(kind, bytes).unwrap();
        Publication::new(Topic::new("chat").unwrap(), position, 1_763_774_405_123, 0, payload, Forms::NONE.with(Form::WsEnvelope))
    }

    fn envelope(kind: Kind, bytes: &[u8]) -> String {
        let publication = publication(kind, bytes);
        let frame = publication.form(Form::WsEnvelope).unwrap();
        let start = if frame[1] < 126 { 2 } else { 4 };
        String::from_utf8(frame[start..].to_vec()).unwrap()
    }

    #[test]
    fn the_raw_form_is_the_payload_behind_its_header() {
        let publication = publication(Kind::Text, b"hello");
        assert_eq!(publication.form(Form::WsRaw).unwrap(), b"\x81\x05hello");
        assert_eq!(publication.payload().as_bytes(), b"hello");
    }

    #[test]
    fn the_envelope_carries_each_kind_in_its_member() {
        let head = r#"{"type":"message","topic":"chat","cursor":"k3Vq.1041","at_ms":1763774405123,"#;
        assert_eq!(envelope(Kind::Json, br#"{"x": 1.50}"#), format!(r#"{head}"data":{{"x": 1.50}}}}"#));
        assert_eq!(envelope(Kind::Text, b"say \"hi\""), format!(r#"{head}"text":"say \"hi\""}}"#));
        assert_eq!(envelope(Kind::Binary, &[0xFF, 0]), format!(r#"{head}"base64":"/wA="}}"#));
    }

    #[test]
    fn an_event_carries_text_as_it_is_and_bytes_in_base64() {
        let event = |kind, bytes: &[u8], form| String::from_utf8(publication(kind, bytes).encode(form).into_vec()).unwrap();
        let text = event(Kind::Text, b"two\nlines", Form::Events);
        assert_eq!(text, "25\r\nid: k3Vq.1041\ndata: two\ndata: lines\n\n\r\n");
        let binary = event(Kind::Binary, &[0xFF, 0], Form::Events);
        assert!(binary.ends_with("id: k3Vq.1041\nevent: binary\ndata: /wA=\n\n\r\n"), "{binary}");
        let object = event(Kind::Json, b"{}", Form::EventsEnvelope);
        let line = event(Kind::Json, b"{\"a\":\r\n1}", Form::Lines);
        assert!(line.ends_with("\"data\":{\"a\":  1}}\n\r\n") && line.matches('\n').count() == 3, "{line}");
        assert!(object.contains("\ndata: {\"type\":\"message\",") && object.contains("\"data\":{}}\n\n"), "{object}");
        let of_several = event(Kind::Json, b"{}", Form::EventsOfSeveral);
        let (chunk, data) = of_several.split_once("\r\n").unwrap();
        assert_eq!(data.strip_suffix("\r\n"), object.split_once("id: k3Vq.1041\n").unwrap().1.strip_suffix("\r\n"));
        assert_eq!(usize::from_str_radix(chunk, 16), Ok(data.len() - 2));
    }

    #[test]
    fn a_payload_must_be_of_its_kind() {
        assert_eq!(Payload::new(Kind::Text, b"\xFF"), Err(PayloadError::NotUtf8));
        assert_eq!(Payload::new(Kind::Json, b"\"\xFF\""), Err(PayloadError::NotUtf8));
        assert!(matches!(Payload::new(Kind::Json, b"{\"a\":}"), Err(PayloadError::NotJson(_))));
        assert!(matches!(Payload::new(Kind::Json, b""), Err(PayloadError::NotJson(_))));
        assert!(Payload::new(Kind::Json, "[".repeat(100_000).as_bytes()).is_err());
        assert!(Payload::new(Kind::Binary, b"\xFF").is_ok());
    }
}
