//! Events of an event stream (WHATWG HTML section 9.2), as they stand on the wire: each in a chunk of its own (RFC 9112 section 7.1).
//!
//! The chunk is part of what subscribers share. Chunks, and not the end of the connection, end the stream: so a client can tell a
//! server that has ended it from a network that has lost it.

/// The end of a stream that was ended in order.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

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
    fn any_line_end_parts_data() {
        let event = StreamEvent { data: Some(b"a\nb\r\nc\rd\n"), ..StreamEvent::default() };
        let lines = String::from_utf8(event.chunk()).unwrap();
        assert!(lines.contains("\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"), "{lines}");
    }
}
