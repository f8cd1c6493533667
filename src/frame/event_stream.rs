//! Events of an event stream (WHATWG HTML section 9.2), as they stand on the wire: each in a chunk of its own (RFC 9112 section 7.1).
//!
//! The chunk is part of what subscribers share. Chunks, and not the end of the connection, end the stream: so a client can tell a
//! server that has ended it from a network that has lost it.

use serde::Serialize;

/// The end of a stream that was ended in order.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Why a stream ends, as its last event or line says it: not every reader tells a last chunk from a connection that was lost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct StreamEnd<'e> {
    /// In the one vocabulary for it.
    pub cause: &'e str,
    /// When to come back, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
}

/// A [`StreamEnd`] as an object that tells its type.
#[derive(Serialize)]
struct EndLine<'e> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    end: StreamEnd<'e>,
}

impl StreamEnd<'_> {
    /// The last event, `end`, and the last chunk.
    #[must_use]
    pub fn event(self) -> Vec<u8> {
        let data = serde_json::to_vec(&self).expect("texts and numbers always make JSON");
        let event = StreamEvent { retry_ms: self.retry_after_ms, id: None, event: Some("end"), data: Some(&data) };
        [&event.chunk(), LAST_CHUNK].concat()
    }

    /// The last line, and the last chunk.
    #[must_use]
    pub fn line(self) -> Vec<u8> {
        let line = serde_json::to_vec(&EndLine { kind: "end", end: self }).expect("texts and numbers always make JSON");
        [&chunk(&[&line, b"\n"]), LAST_CHUNK].concat()
    }
}

/// One event. What is absent is not written.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamEvent<'e> {
    /// How long the client is to wait before it comes back, in milliseconds.
    pub retry_ms: Option<u32>,
    /// Where the client stands behind it.
    pub id: Option<&'e str>,
    /// Its type; a client takes it for `message` if there is none.
    pub event: Option<&'e str>,
    /// What it carries. Lines may end by LF, CR LF or CR; a client reads LF.
    pub data: Option<&'e [u8]>,
}

impl StreamEvent<'_> {
    /// The event in a chunk.
    #[must_use]
    pub fn chunk(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + self.data.map_or(0, <[u8]>::len));
        if let Some(retry_ms) = self.retry_ms {
            line(b"retry", retry_ms.to_string().as_bytes(), &mut body);
        }
        if let Some(id) = self.id {
            line(b"id", id.as_bytes(), &mut body);
        }
        if let Some(event) = self.event {
            line(b"event", event.as_bytes(), &mut body);
        }
        for part in self.data.into_iter().flat_map(Lines::of) {
            line(b"data", part, &mut body);
        }
        body.push(b'\n');
        chunk(&[&body])
    }
}

/// A chunk of these parts; there must be a byte in it, because an empty one is the last.
#[must_use]
pub fn chunk(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut chunk = format!("{length:x}\r\n").into_bytes();
    parts.iter().for_each(|part| chunk.extend_from_slice(part));
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn line(field: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(field);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The lines of a text, without their ends; one empty line for an empty text.
struct Lines<'t>(Option<&'t [u8]>);

impl<'t> Lines<'t> {
    fn of(text: &'t [u8]) -> Self {
        Self(Some(text))
    }
}

impl<'t> Iterator for Lines<'t> {
    type Item = &'t [u8];

    fn next(&mut self) -> Option<&'t [u8]> {
        let text = self.0?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            self.0 = None;
            return Some(text);
        };
        let length = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
        self.0 = Some(&text[end + length..]);
        Some(&text[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lines_in_a_chunk() {
        let event = StreamEvent { id: Some("k.7"), data: Some(b"hello"), ..StreamEvent::default() };
        assert_eq!(event.chunk(), b"15\r\nid: k.7\ndata: hello\n\n\r\n");
        let all = StreamEvent { retry_ms: Some(500), id: Some("k.0"), event: Some("ping"), data: Some(b"") };
        assert_eq!(all.chunk(), b"27\r\nretry: 500\nid: k.0\nevent: ping\ndata: \n\n\r\n");
    }

    #[test]
    fn an_end_says_why_and_when_to_come_back() {
        let end = StreamEnd { cause: "drain", retry_after_ms: Some(8400) };
        let event = "46\r\nretry: 8400\nevent: end\ndata: {\"cause\":\"drain\",\"retry_after_ms\":8400}\n\n\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(end.event()).unwrap(), event);
        let line = "27\r\n{\"type\":\"end\",\"cause\":\"slow_consumer\"}\n\r\n0\r\n\r\n";
        let end = StreamEnd { cause: "slow_consumer", retry_after_ms: None };
        assert_eq!(String::from_utf8(end.line()).unwrap(), line);
    }

    #[test]
    fn any_line_end_parts_data() {
        let event = StreamEvent { data: Some(b"a\nb\r\nc\rd\n"), ..StreamEvent::default() };
        let lines = String::from_utf8(event.chunk()).unwrap();
        assert!(lines.contains("\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"), "{lines}");
    }
}
