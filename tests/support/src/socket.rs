//! A WebSocket client (RFC 6455) that can break every rule, and forgives the server none.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Response;
use crate::wire::Connection;
use crate::{PATIENCE, figure};

/// FIN and the opcode of a text message: the first byte of the commonest frame.
pub const TEXT: u8 = 0x81;
/// FIN and the opcode of a binary message.
pub const BINARY: u8 = 0x82;
/// FIN and the opcode of a continuation.
pub const CONTINUATION: u8 = 0x80;
/// FIN and the opcode of a close.
pub const CLOSE: u8 = 0x88;
/// FIN and the opcode of a ping.
pub const PING: u8 = 0x89;
/// FIN and the opcode of a pong.
pub const PONG: u8 = 0x8A;
/// The FIN bit.
pub const FIN: u8 = 0x80;

/// How the length of a frame is written (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// In the second byte: up to 125.
    Short,
    /// In two further bytes.
    Two,
    /// In eight further bytes.
    Eight,
}

/// A client's frame in which every field can be forged.
#[derive(Clone, Debug)]
pub struct Forged {
    first: u8,
    mask: Option<[u8; 4]>,
    declared: u64,
    width: Option<Width>,
    payload: Vec<u8>,
}

impl Forged {
    /// An honest frame: `first` is the first byte as it goes out.
    #[must_use]
    pub fn new(first: u8, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { first, mask: Some([0x37, 0xFA, 0x21, 0x3D]), declared: payload.len() as u64, width: None, payload }
    }

    /// Without a mask.
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// With a length that is not the payload's.
    #[must_use]
    pub fn declared(mut self, length: u64) -> Self {
        self.declared = length;
        self
    }

    /// With the length in a form that is not the shortest.
    #[must_use]
    pub fn width(mut self, width: Width) -> Self {
        self.width = Some(width);
        self
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mask_bit = if self.mask.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match self.width.unwrap_or(shortest(self.declared)) {
            Width::Short => bytes.push(mask_bit | self.declared as u8),
            Width::Two => {
                bytes.push(mask_bit | 126);
                bytes.extend((self.declared as u16).to_be_bytes());
            }
            Width::Eight => {
                bytes.push(mask_bit | 127);
                bytes.extend(self.declared.to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        bytes.extend(self.mask.iter().flatten());
        bytes.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }
}

/// An honest frame's bytes.
#[must_use]
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    Forged::new(first, payload).bytes()
}

/// The payload of a close frame.
#[must_use]
pub fn close_payload(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_ref()].concat()
}

/// A frame that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first byte: FIN and opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A close that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code; `None` if the frame was empty.
    pub code: Option<u16>,
    /// The reason.
    pub reason: String,
}

impl Close {
    /// The reason as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.reason).unwrap_or(Value::Null)
    }
}

/// An upgraded connection.
pub struct Socket {
    /// The connection below.
    pub wire: Connection,
    /// The head of the 101.
    pub response: Response,
}

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of a WebSocket handshake with further header lines, each ended by CRLF.
#[must_use]
pub fn handshake(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

impl Socket {
    /// Upgrades; the answer must be a 101.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr, target: &str) -> Self {
        Self::upgrade(Connection::open(address), &handshake(target, ""))
    }

    /// Upgrades with a narrow receive window: a reader that soon takes nothing more.
    #[must_use]
    #[track_caller]
    pub fn open_narrow(address: SocketAddr, target: &str) -> Self {
        Self::upgrade(Connection::open_narrow(address), &handshake(target, ""))
    }

    /// Sends `head` and reads the 101.
    #[must_use]
    #[track_caller]
    pub fn upgrade(mut wire: Connection, head: &str) -> Self {
        wire.send(head);
        Self::upgraded(wire)
    }

    /// Reads the 101 to a handshake that was sent, and checks it (RFC 6455 section 4.1).
    #[must_use]
    #[track_caller]
    pub fn upgraded(mut wire: Connection) -> Self {
        let response = wire.response_head();
        assert_eq!(response.status, 101, "{response:?}");
        assert!(response.header("Upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")), "{response:?}");
        assert!(response.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{response:?}");
        assert_eq!(response.header("Sec-WebSocket-Accept"), Some(ACCEPT));
        assert_eq!(response.header("Sec-WebSocket-Extensions"), None, "none was offered");
        Self { wire, response }
    }

    /// The worker that has this connection: the part before the dash of `Fantail-Connection`.
    #[must_use]
    #[track_caller]
    pub fn worker(&self) -> usize {
        let name = self.response.header("Fantail-Connection").expect("every 101 names its connection");
        let worker = name.split_once('-').and_then(|(worker, _)| worker.parse().ok());
        worker.unwrap_or_else(|| panic!("not WORKER-NUMBER: {name:?}"))
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes);
    }

    /// Sends a text message.
    #[track_caller]
    pub fn text(&mut self, text: &str) {
        self.send(frame(TEXT, text));
    }

    /// Reads a frame: unmasked, no reserved bit or opcode, the shortest length, control frames whole and at most 125 bytes.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let head = self.wire.take(2);
        let (first, short) = (head[0], head[1]);
        assert_eq!(first & 0x70, 0, "a reserved bit is set: {first:#04x}");
        assert!(matches!(first & 0x0F, 0..=2 | 8..=10), "a reserved opcode: {first:#04x}");
        assert_eq!(short & 0x80, 0, "a server must not mask (RFC 6455 section 5.1)");
        let (length, width) = match short {
            126 => (u64::from(u16::from_be_bytes(self.wire.take(2).try_into().expect("two bytes"))), Width::Two),
            127 => (u64::from_be_bytes(self.wire.take(8).try_into().expect("eight bytes")), Width::Eight),
            short => (u64::from(short), Width::Short),
        };
        assert_eq!(width, shortest(length), "the length {length} is not in its shortest form");
        assert!(first & 0x08 == 0 || first & FIN != 0 && length <= 125, "a control frame of {length} bytes: {first:#04x}");
        Frame { first, payload: self.wire.take(length as usize) }
    }

    /// Reads a frame that must be this one.
    #[track_caller]
    pub fn expect(&mut self, first: u8, payload: impl AsRef<[u8]>) {
        let (frame, payload) = (self.frame(), payload.as_ref());
        let text = |bytes: &[u8]| bytes[..bytes.len().min(200)].escape_ascii().to_string();
        assert!(
            frame.first == first && frame.payload == payload,
            "wanted {first:#04x} {:?} ({} bytes), got {:#04x} {:?} ({} bytes)",
            text(payload),
            payload.len(),
            frame.first,
            text(&frame.payload),
            frame.payload.len()
        );
    }

    /// Reads a text message.
    #[track_caller]
    pub fn message(&mut self) -> String {
        let frame = self.frame();
        assert_eq!(frame.first, TEXT, "a whole text message wanted: {frame:?}");
        String::from_utf8(frame.payload).expect("text is UTF-8")
    }

    /// Reads a text message that is JSON.
    #[track_caller]
    pub fn json(&mut self) -> Value {
        let text = self.message();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Reads a text message that is JSON, if it comes whole before the connection breaks.
    #[track_caller]
    pub fn try_json(&mut self) -> Option<Value> {
        let head = self.wire.try_take(2)?;
        assert_eq!(head[0], TEXT);
        let length = match head[1] {
            126 => u16::from_be_bytes(self.wire.try_take(2)?.try_into().expect("two bytes")).into(),
            short => usize::from(short),
        };
        Some(serde_json::from_slice(&self.wire.try_take(length)?).expect("JSON"))
    }

    /// Reads a frame that must be a close.
    #[track_caller]
    pub fn close(&mut self) -> Close {
        let frame = self.frame();
        assert_eq!(frame.first, CLOSE, "a close wanted: {frame:?}");
        close(frame)
    }

    /// Skips messages up to the close.
    #[track_caller]
    pub fn close_after_messages(&mut self) -> Close {
        loop {
            let frame = self.frame();
            if frame.first == CLOSE {
                return close(frame);
            }
        }
    }

    /// Skips pongs up to the close and returns its code.
    #[track_caller]
    pub fn close_after_pongs(&mut self) -> Option<u16> {
        loop {
            let frame = self.frame();
            if frame.first != PONG {
                assert_eq!(frame.first, CLOSE, "pongs or a close wanted: {frame:?}");
                return close(frame).code;
            }
        }
    }

    /// The server must close with `code` and then end the stream within a second.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) -> Close {
        let close = self.close();
        assert_eq!(close.code, Some(code), "{close:?}");
        figure("TCP closed after the close frame", self.wire.expect_end(), Duration::from_secs(1));
        close
    }

    /// Sends a message and waits for its echo.
    #[track_caller]
    pub fn echo(&mut self, text: &str) {
        self.text(text);
        self.expect(TEXT, text);
    }

    /// Closes in order from this side.
    #[track_caller]
    pub fn leave(mut self) {
        self.send(frame(CLOSE, close_payload(1000, "")));
        assert_eq!(self.close_after_messages().code, Some(1000));
        self.wire.expect_end();
    }

    /// Reads messages until one is `last`, which is not returned; for at most [`PATIENCE`].
    #[track_caller]
    pub fn messages_until(&mut self, last: &str) -> Vec<String> {
        let (mut messages, start) = (Vec::new(), Instant::now());
        loop {
            let message = self.message();
            if message == last {
                return messages;
            }
            messages.push(message);
            assert!(start.elapsed() < PATIENCE, "{last:?} does not come; {} others did", messages.len());
        }
    }
}

fn close(frame: Frame) -> Close {
    assert_ne!(frame.payload.len(), 1, "RFC 6455 section 5.5.1: a close has no body or a code");
    let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    let reason = frame.payload.get(2..).unwrap_or_default().to_vec();
    Close { code, reason: String::from_utf8(reason).expect("the reason of a close is UTF-8") }
}

const fn shortest(length: u64) -> Width {
    match length {
        0..=125 => Width::Short,
        126..=0xFFFF => Width::Two,
        _ => Width::Eight,
    }
}
