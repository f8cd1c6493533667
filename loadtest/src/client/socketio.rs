//! Socket.IO 5 over Engine.IO 4 over a WebSocket, as far as a broadcast needs it (the two protocols' specifications).
//!
//! The server opens with `0{...}`; the client connects to the default namespace with `40` and is open when `40{...}` comes back;
//! `2` is a ping, `3` its pong; an event is `42["message","payload"]`, as text.

use fantail::frame::OpCode;

use crate::ending::Ending;
use crate::target::Target;
use crate::wire;

use super::{Event, Purpose, websocket};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader(websocket::Reader);

impl Reader {
    /// Asks for the upgrade.
    pub fn greet(target: &Target, purpose: Purpose, out: &mut Vec<u8>) -> Self {
        Self(websocket::Reader::greet(target, purpose, out))
    }

    /// Takes whole frames and returns how many bytes they had.
    pub fn consume(&mut self, bytes: &[u8], replies: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut packets = Vec::new();
        let used = self.0.consume(bytes, replies, &mut |event| match event {
            // The WebSocket is open, which to Socket.IO is only the beginning.
            Event::Opened => {}
            Event::Message(packet) => match packet {
                [b'0', ..] => wire::write_masked(OpCode::Text, b"40", &mut packets),
                [b'4', b'0', ..] => sink(Event::Opened),
                b"2" => {
                    wire::write_masked(OpCode::Text, b"3", &mut packets);
                    sink(Event::Pinged);
                }
                packet => sink(Event::Message(packet)),
            },
            event => sink(event),
        })?;
        replies.append(&mut packets);
        Ok(used)
    }
}

/// Appends an event that the server hands on to everybody.
pub fn publish(payload: &[u8], out: &mut Vec<u8>) {
    wire::write_masked(OpCode::Text, &[b"42[\"message\",\"", payload, b"\"]"].concat(), out);
}
