//! Socket.IO 5 over Engine.IO 4 over a WebSocket, as far as a broadcast needs it (the two protocols' specifications).
//!
//! The server opens with `0{...}`; the client connects to the default namespace with `40` and is open when `40{...}` comes back;
//! `44{...}` refuses that and says why; `2` is a ping, `3` its pong; an event is `42["message","payload"]`, as text.

use fantail::frame::OpCode;

use crate::ending::Ending;
use crate::target::Target;
use crate::wire;

use super::{Event, Purpose, websocket, words};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader(websocket::Reader);

impl Reader {
    /// Asks for the upgrade.
    pub fn greet(target: &Target, purpose: Purpose, out: &mut Vec<u8>) -> Self {
        Self(websocket::Reader::greet(target, purpose, "", out))
    }

    /// Takes whole frames and returns how many bytes they had.
    pub fn consume(&mut self, bytes: &[u8], replies: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut packets = Vec::new();
        let mut refusal = None;
        let used = self.0.consume(bytes, replies, &mut |event| match event {
            // The WebSocket is open, which to Socket.IO is only the beginning.
            Event::Opened => {}
            Event::Message(packet) => match packet {
                [b'0', ..] => wire::write_masked(OpCode::Text, b"40", &mut packets),
                [b'4', b'0', ..] => sink(Event::Opened),
                [b'4', b'4', why @ ..] => refusal = Some(words(why)),
                b"2" => {
                    wire::write_masked(OpCode::Text, b"3", &mut packets);
                    sink(Event::Pinged);
                }
                packet => sink(Event::Message(packet)),
            },
            event => sink(event),
        })?;
        replies.append(&mut packets);
        refusal.map_or(Ok(used), |why| Err(Ending::Denied(why)))
    }
}

/// Appends an event that the server hands on to everybody.
pub fn publish(payload: &[u8], out: &mut Vec<u8>) {
    wire::write_masked(OpCode::Text, &[b"42[\"message\",\"", payload, b"\"]"].concat(), out);
}

#[cfg(test)]
mod tests {
    use super::super::testing::read;
    use super::*;
    use crate::wire::Header;

    /// What a server sends, in unmasked frames behind its 101.
    fn stream(key: &[u8], packets: &[&[u8]]) -> Vec<u8> {
        let mut stream = b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ".to_vec();
        stream.extend_from_slice(&wire::accept_of(key));
        stream.extend_from_slice(b"\r\n\r\n");
        for packet in packets {
            stream.extend_from_slice(fantail::frame::FrameHeader::new(OpCode::Text, packet.len()).as_bytes());
            stream.extend_from_slice(packet);
        }
        stream
    }

    /// Texts of masked frames.
    fn texts(mut bytes: &[u8]) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(header) = Header::parse(bytes).unwrap() {
            let mut payload = bytes[header.bytes..header.frame_bytes()].to_vec();
            fantail::ws::unmask(&mut payload, header.mask.unwrap());
            texts.push(String::from_utf8(payload).unwrap());
            bytes = &bytes[header.frame_bytes()..];
        }
        texts
    }

    #[test]
    fn it_is_open_when_the_namespace_is_and_answers_pings_wherever_the_stream_is_cut() {
        let target = Target::resolve("ws://127.0.0.1/socket.io/", Some(crate::target::Dialect::Socketio), 1).unwrap();
        let packets: [&[u8]; 4] = [b"0{\"sid\":\"a\"}", b"40{\"sid\":\"b\"}", b"2", b"42[\"message\",\"hi\"]"];
        for cut in 0..400 {
            let mut out = Vec::new();
            let mut client = super::super::Client::greet(&target, Purpose::Visit, "", &mut out);
            let request = String::from_utf8(out).unwrap();
            let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
            let stream = stream(key.as_bytes(), &packets);
            let (left, right) = stream.split_at(cut.min(stream.len()));
            let (mut seen, mut replies) = (Vec::new(), Vec::new());
            for piece in [left, right] {
                let sink = |event: Event<'_>| seen.push(format!("{event:?}"));
                client.handle_input(piece, &mut replies, sink).unwrap();
            }
            let message = format!("{:?}", Event::Message(packets[3]));
            assert_eq!(seen, ["Opened", "Pinged", &message], "cut at {cut}");
            assert_eq!(texts(&replies), ["40", "3"], "cut at {cut}");
        }
        assert!(read(&target, Purpose::Visit, &[b"HTTP/1.1 400 No\r\nContent-Length: 1\r\n\r\nx"]).unwrap_err().contains("400"));
    }

    #[test]
    fn a_refused_namespace_ends_the_opening_with_the_servers_words() {
        let target = Target::resolve("ws://127.0.0.1/socket.io/", Some(crate::target::Dialect::Socketio), 1).unwrap();
        let mut out = Vec::new();
        let mut client = super::super::Client::greet(&target, Purpose::Visit, "", &mut out);
        let request = String::from_utf8(out).unwrap();
        let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
        let stream = stream(key.as_bytes(), &[b"0{\"sid\":\"a\"}", b"44{\"message\":\"not you\"}"]);
        let mut seen = Vec::new();
        let ending = client.handle_input(&stream, &mut Vec::new(), |event| seen.push(format!("{event:?}"))).unwrap_err();
        assert_eq!((ending.to_string(), seen.len()), ("the server refused: {\"message\":\"not you\"}".to_owned(), 0));
    }

    #[test]
    fn a_publication_is_an_event() {
        let mut out = Vec::new();
        publish(b"hi", &mut out);
        assert_eq!(texts(&out), ["42[\"message\",\"hi\"]"]);
    }
}
