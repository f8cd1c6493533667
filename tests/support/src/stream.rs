//! An event stream's client (WHATWG HTML section 9.2) that takes nothing on trust: every event in a chunk of its own, every line known.

use std::net::SocketAddr;

use serde_json::Value;

use crate::http::Response;
use crate::wire::Connection;

/// An open stream.
pub struct EventStream {
    /// The connection below.
    pub wire: Connection,
    /// The head of the answer.
    pub response: Response,
}

/// One event; what was not there is empty or `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The delay before the client comes back, in milliseconds.
    pub retry_ms: Option<u64>,
    /// Where the client stands behind it.
    pub id: Option<String>,
    /// Its type.
    pub event: Option<String>,
    /// Its data, lines joined by LF.
    pub data: Option<String>,
}

impl Event {
    /// The data as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("the event has data")).expect("the data is JSON")
    }
}

/// The head of a request for a stream, with further header lines, each ended by CRLF.
#[must_use]
pub fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{headers}\r\n")
}

impl EventStream {
    /// Opens a stream; it must begin.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str, headers: &str) -> Self {
        Self::on(Connection::open(address), target, headers)
    }

    /// The same on a connection of the caller's.
    #[must_use]
    #[track_caller]
    pub fn on(mut wire: Connection, target: &str, headers: &str) -> Self {
        wire.send(request(target, headers));
        let response = wire.response_head();
        assert_eq!(response.status, 200, "{response:?}");
        for (name, value) in [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-store"),
            ("X-Accel-Buffering", "no"),
            ("Transfer-Encoding", "chunked"),
        ] {
            assert_eq!(response.header(name), Some(value), "{response:?}");
        }
        Self { wire, response }
    }

    /// Reads the first event, which says where the stream stands: that cursor.
    #[track_caller]
    pub fn start(&mut self) -> String {
        let event = self.event();
        assert!(event.retry_ms.is_some() && event.event.is_none() && event.data.is_none(), "the first event: {event:?}");
        event.id.expect("the first event has an id")
    }

    /// Reads an event.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.next_event().expect("the stream goes on")
    }

    /// Reads an event; `None` at the end of a stream that was ended in order.
    #[track_caller]
    pub fn next_event(&mut self) -> Option<Event> {
        let size = self.wire.take_until(b"\r\n");
        let size = std::str::from_utf8(&size[..size.len() - 2]).expect("a chunk's size is ASCII");
        let body = self.wire.take(usize::from_str_radix(size, 16).expect("a chunk's size in hex"));
        assert_eq!(self.wire.take(2), b"\r\n", "a chunk ends its line");
        if body.is_empty() {
            return None;
        }
        let body = String::from_utf8(body).expect("an event stream is UTF-8");
        let lines = body.strip_suffix("\n\n").expect("an event in a chunk, and whole");
        let mut event = Event::default();
        for line in lines.lines() {
            let (field, value) = line.split_once(": ").expect("FIELD: VALUE");
            match field {
                "retry" => event.retry_ms = Some(value.parse().expect("a number")),
                "id" => event.id = Some(value.to_owned()),
                "event" => event.event = Some(value.to_owned()),
                "data" => event.data = Some(event.data.map_or_else(|| value.to_owned(), |data| data + "\n" + value)),
                _ => panic!("an unknown field: {line:?}"),
            }
        }
        Some(event)
    }
}
