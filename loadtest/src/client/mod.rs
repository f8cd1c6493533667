//! One connection's protocol, client role, sans IO: bytes in, events out.
//!
//! ```text
//! greet -> (the server's greeting, 101, confirmations) -> Opened -> Message, Answered ... -> an ending
//! ```
//!
//! Payloads are lent from the input itself where a message came whole. Only an unfinished tail is copied, into a buffer that the
//! connection keeps, so a run in its stride allocates nothing. What the protocol itself obliges a client to say, such as a pong,
//! is appended to `replies`.

mod http;
mod nats;
mod redis;
mod socketio;
mod sse;
mod websocket;

use std::mem;

use fantail::frame::OpCode;

use crate::ending::Ending;
use crate::target::{Dialect, Target, Topics};
use crate::wire;

/// The longest head and the most of a refusal's body that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The most that is kept of a message that isn't whole, in bytes: the longest payload, and what stands around it.
const TAIL_BYTES_MAX: usize = wire::PAYLOAD_BYTES_MAX + ANSWER_BYTES_MAX;

/// How much of a server's own words is shown, in characters.
const WORDS_CHARS_MAX: usize = 300;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The connection can be used, and its subscriptions are in force as far as the protocol tells.
    Opened,
    /// A whole message, with whatever the server wraps around the payload.
    Message(&'b [u8]),
    /// Where an event stream stands with what follows.
    Position(&'b str),
    /// Something is missing in an event stream, with the server's words of what.
    Gap(&'b [u8]),
    /// The body of a good answer by HTTP, which [`Event::Answered`] follows. One that came in chunks has their sizes in it.
    Body(&'b [u8]),
    /// The answer to a publication or a poll; the server's words where it refused.
    Answered(Result<(), String>),
    /// A subscription or its end is in force, of those that [`Client::subscribe`] and [`Client::unsubscribe`] asked for.
    Confirmed,
    /// A ping, which is answered in the replies.
    Pinged,
    /// The server's close: code and reason.
    Close(u16, &'b str),
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be opened, whatever the URL is: no subscription is meant.
    Visit,
    /// To get what is published to these topics.
    Subscribe(Topics),
    /// To subscribe and unsubscribe while it is open.
    Join,
    /// To publish, and nothing else.
    Publish,
}

/// One connection's protocol.
#[derive(Debug)]
pub struct Client {
    protocol: Protocol,
    /// What came of a message or head that isn't whole.
    tail: Vec<u8>,
}

#[derive(Debug)]
enum Protocol {
    WebSocket(websocket::Reader),
    SocketIo(socketio::Reader),
    Redis(redis::Reader),
    Nats(nats::Reader),
    Sse(sse::Reader),
    Http,
}

impl Client {
    /// The client of a connection on which TCP stands now; what it says first is appended to `out`. A WebSocket or an event stream
    /// goes on behind `cursor`, unless that is empty.
    pub fn greet(target: &Target, purpose: Purpose, cursor: &str, out: &mut Vec<u8>) -> Self {
        let protocol = match target.dialect {
            Dialect::Raw => Protocol::WebSocket(websocket::Reader::greet(target, purpose, cursor, out)),
            Dialect::Socketio => Protocol::SocketIo(socketio::Reader::greet(target, purpose, out)),
            Dialect::Redis => Protocol::Redis(redis::Reader::greet(target, purpose, out)),
            Dialect::Nats => Protocol::Nats(nats::Reader::greet(target, purpose, out)),
            Dialect::Sse => Protocol::Sse(sse::Reader::greet(target, purpose, cursor, out)),
            Dialect::Post => Protocol::Http,
        };
        Self { protocol, tail: Vec::new() }
    }

    /// Hands `sink` every event that `input` completes.
    pub fn handle_input(&mut self, input: &[u8], replies: &mut Vec<u8>, mut sink: impl FnMut(Event<'_>)) -> Result<(), Ending> {
        if self.tail.is_empty() {
            let used = self.consume(input, replies, &mut sink)?;
            self.tail.extend_from_slice(&input[used..]);
            return Ok(());
        }
        if self.tail.len() > TAIL_BYTES_MAX {
            return Err(Ending::Protocol("a message of more than 64 MiB"));
        }
        self.tail.extend_from_slice(input);
        let mut tail = mem::take(&mut self.tail);
        let used = self.consume(&tail, replies, &mut sink);
        tail.drain(..*used.as_ref().unwrap_or(&0));
        self.tail = tail;
        used.map(|_| ())
    }

    /// Whether nothing is to be awaited before it can be used: HTTP has no greeting.
    pub const fn is_open_at_once(&self) -> bool {
        matches!(self.protocol, Protocol::Http)
    }

    /// What the end of the stream means where it came.
    pub fn handle_end(&self) -> Ending {
        match &self.protocol {
            Protocol::WebSocket(reader) => reader.handle_end(&self.tail),
            Protocol::Sse(reader) => reader.handle_end(&self.tail),
            _ => Ending::EndOfStream,
        }
    }

    /// Appends what publishes `payload` on a topic. With `confirm` an [`Event::Answered`] follows where the protocol has one; a
    /// WebSocket has none.
    pub fn publish(target: &Target, topic: u32, payload: &[u8], confirm: bool, out: &mut Vec<u8>) {
        match target.dialect {
            Dialect::Raw => wire::write_masked(OpCode::Text, payload, out),
            Dialect::Socketio => socketio::publish(payload, out),
            Dialect::Redis => redis::publish(target, topic, payload, out),
            Dialect::Nats => nats::publish(target, topic, payload, confirm, out),
            Dialect::Post | Dialect::Sse => http::publish(target, topic, payload, out),
        }
    }

    /// Appends a long-poll by HTTP; its answer follows, at the latest after `wait` seconds.
    pub fn poll(target: &Target, topic: u32, cursor: &str, wait: u32, out: &mut Vec<u8>) {
        http::poll(target, topic, cursor, wait, out);
    }

    /// Appends what subscribes an open connection to a topic; [`Event::Confirmed`] follows.
    pub fn subscribe(target: &Target, topic: u32, out: &mut Vec<u8>) {
        match target.dialect {
            Dialect::Redis => redis::subscribe(target, topic, out),
            Dialect::Nats => nats::subscribe(target, topic, out),
            Dialect::Raw | Dialect::Socketio | Dialect::Sse | Dialect::Post => {}
        }
    }

    /// Appends what ends that; [`Event::Confirmed`] follows.
    pub fn unsubscribe(target: &Target, topic: u32, out: &mut Vec<u8>) {
        match target.dialect {
            Dialect::Redis => redis::unsubscribe(target, topic, out),
            Dialect::Nats => nats::unsubscribe(topic, out),
            Dialect::Raw | Dialect::Socketio | Dialect::Sse | Dialect::Post => {}
        }
    }

    fn consume(&mut self, bytes: &[u8], replies: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        match &mut self.protocol {
            Protocol::WebSocket(reader) => reader.consume(bytes, replies, sink),
            Protocol::SocketIo(reader) => reader.consume(bytes, replies, sink),
            Protocol::Redis(reader) => reader.consume(bytes, sink),
            Protocol::Nats(reader) => reader.consume(bytes, replies, sink),
            Protocol::Sse(reader) => reader.consume(bytes, sink),
            Protocol::Http => http::consume(bytes, sink),
        }
    }
}

/// Parses the head of an answer and returns what it took; `None` while it isn't whole.
fn read_head<'b>(answer: &mut httparse::Response<'_, 'b>, bytes: &'b [u8]) -> Result<Option<usize>, Ending> {
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => Ok(Some(head_bytes)),
        Ok(httparse::Status::Partial) if bytes.len() < ANSWER_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(Ending::Answer("its head has more than 16 KiB")),
        Err(_) => Err(Ending::Answer("it is not HTTP/1.1")),
    }
}

/// The value of a header of an answer, without the spaces around it.
fn header<'b>(answer: &httparse::Response<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let header = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value.trim_ascii())
}

/// A refusal by HTTP whose body is gathered, because it says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    body_at: usize,
    /// How long its body is, if that is known.
    body_bytes: Option<usize>,
}

impl Refusal {
    /// Of an answer with a head of so many bytes.
    fn of(answer: &httparse::Response<'_, '_>, head_bytes: usize) -> Self {
        let body_bytes = header(answer, "content-length").and_then(number);
        Self { status: answer.code.unwrap_or_default(), body_at: head_bytes, body_bytes }
    }

    /// The ending it is once `bytes`, head and body, are whole, or as long as is read.
    fn check(&self, bytes: &[u8]) -> Result<(), Ending> {
        let body = bytes.len().saturating_sub(self.body_at);
        let is_whole = body >= self.body_bytes.unwrap_or(usize::MAX) || bytes.len() >= ANSWER_BYTES_MAX;
        if is_whole { Err(self.ending(bytes)) } else { Ok(()) }
    }

    /// The ending it is with what there is of it.
    fn ending(&self, bytes: &[u8]) -> Ending {
        Ending::Rejected { status: self.status, text: words(bytes.get(self.body_at..).unwrap_or_default()) }
    }
}

/// The server's own words, on one line.
fn words(bytes: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(WORDS_CHARS_MAX)
        .collect();
    if text.trim().is_empty() { "(no text)".to_owned() } else { text.trim().to_owned() }
}

/// The next line without its end, and how many bytes it took; `None` while it isn't whole.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]), end + 1))
}

/// A decimal number of a protocol's line.
fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    str::from_utf8(digits).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod testing {
    //! What the protocols' tests share.

    use super::*;

    /// Events as words and all replies, or how it ended, when `stream` comes in pieces.
    pub fn read(target: &Target, purpose: Purpose, pieces: &[&[u8]]) -> Result<(Vec<String>, Vec<u8>), String> {
        let mut client = Client::greet(target, purpose, "", &mut Vec::new());
        let (mut seen, mut replies) = (Vec::new(), Vec::new());
        for piece in pieces {
            client
                .handle_input(piece, &mut replies, |event| {
                    seen.push(match event {
                        Event::Message(payload) => format!("message {}", String::from_utf8_lossy(payload)),
                        Event::Gap(words) => format!("gap {}", String::from_utf8_lossy(words)),
                        Event::Body(body) => format!("body {}", String::from_utf8_lossy(body)),
                        event => format!("{event:?}"),
                    });
                })
                .map_err(|ending| ending.to_string())?;
        }
        Ok((seen, replies))
    }

    /// That `stream` tells the same whole, cut at every byte, and byte by byte.
    pub fn check_cuts(target: &Target, purpose: Purpose, stream: &[u8], events: &[&str]) {
        let whole = read(target, purpose, &[stream]).expect("a good stream");
        assert_eq!(whole.0, events);
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read(target, purpose, &[left, right]).expect("a good stream").0, whole.0, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(target, purpose, &bytes).expect("a good stream").0, whole.0);
    }
}
