//! A WebSocket's client (RFC 6455).
//!
//! ```text
//! Handshake --101 checked--> Open --close frame--> (the engine ends it)
//!     |
//!     +--another status--> Refused: the body is gathered, because it says why
//! ```

use fantail::frame::OpCode;

use crate::ending::Ending;
use crate::target::{Target, Topics};
use crate::wire::{self, ACCEPT_BYTES, Header, PAYLOAD_BYTES_MAX};

use super::{Event, Purpose, Refusal, header, read_head};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The fragments so far of a message (RFC 6455 section 5.4).
    message: Vec<u8>,
    fragmented: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Waiting for a 101 with this Sec-WebSocket-Accept.
    Handshake([u8; ACCEPT_BYTES]),
    Refused(Refusal),
    Open,
}

impl Reader {
    /// Asks for the upgrade (RFC 6455 section 4.1), behind the cursor if there is one. There is no Origin: this is no browser.
    pub fn greet(target: &Target, purpose: Purpose, cursor: &str, out: &mut Vec<u8>) -> Self {
        let key = wire::new_key();
        let path = match purpose {
            Purpose::Subscribe(topics) => target.path_behind(topics, cursor),
            Purpose::Visit | Purpose::Join | Purpose::Publish => target.path(Topics { first: 0, count: 1 }),
        };
        for part in
            ["GET ", &path, " HTTP/1.1\r\nHost: ", target.authority(), "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"]
        {
            out.extend_from_slice(part.as_bytes());
        }
        for part in ["Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ", &key, "\r\n\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        Self::new(wire::accept_of(key.as_bytes()))
    }

    const fn new(accept: [u8; ACCEPT_BYTES]) -> Self {
        Self { state: State::Handshake(accept), message: Vec::new(), fragmented: false }
    }

    /// What the end of the stream means behind `tail`, the bytes that were not taken.
    pub fn handle_end(&self, tail: &[u8]) -> Ending {
        match self.state {
            State::Refused(refusal) => refusal.ending(tail),
            _ => Ending::EndOfStream,
        }
    }

    /// Takes whole frames and returns how many bytes they had.
    pub fn consume(&mut self, bytes: &[u8], replies: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut used = 0;
        if let State::Handshake(accept) = self.state {
            used = self.read_answer(bytes, &accept)?;
            if matches!(self.state, State::Open) {
                sink(Event::Opened);
            }
        }
        match self.state {
            State::Handshake(_) => Ok(used),
            State::Refused(refusal) => refusal.check(bytes).map(|()| used),
            State::Open => {
                while let Some(frame_bytes) = self.read_frame(&bytes[used..], replies, sink).map_err(Ending::Protocol)? {
                    used += frame_bytes;
                }
                Ok(used)
            }
        }
    }

    /// Checks the answer to the upgrade (RFC 6455 section 4.1, what the client must validate). Returns what the head took.
    fn read_answer(&mut self, bytes: &[u8], accept: &[u8; ACCEPT_BYTES]) -> Result<usize, Ending> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        let Some(head_bytes) = read_head(&mut answer, bytes)? else { return Ok(0) };
        let header = |name| header(&answer, name);
        let status = answer.code.unwrap_or_default();
        if status != 101 {
            self.state = State::Refused(Refusal::of(&answer, head_bytes));
            return Ok(0);
        }
        if !header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(Ending::Answer("its 101 has no Upgrade: websocket"));
        }
        let has_upgrade =
            |value: &[u8]| value.split(|&byte| byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
        if !header("connection").is_some_and(has_upgrade) {
            return Err(Ending::Answer("its 101 has no Connection: Upgrade"));
        }
        if header("sec-websocket-extensions").is_some() || header("sec-websocket-protocol").is_some() {
            return Err(Ending::Answer("its 101 takes up an extension or a subprotocol that was not offered"));
        }
        if header("sec-websocket-accept") != Some(accept) {
            return Err(Ending::Answer("its Sec-WebSocket-Accept does not answer the key"));
        }
        self.state = State::Open;
        Ok(head_bytes)
    }

    /// Takes one whole frame and returns its length; `None` while it isn't whole.
    fn read_frame(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<usize>, &'static str> {
        let Some(header) = Header::parse(bytes)? else { return Ok(None) };
        if header.mask.is_some() {
            return Err("a server must not mask (RFC 6455 section 5.1)");
        }
        let Some(payload) = bytes.get(header.bytes..header.frame_bytes()) else { return Ok(None) };
        match header.opcode {
            OpCode::Ping => {
                wire::write_masked(OpCode::Pong, payload, replies);
                sink(Event::Pinged);
            }
            OpCode::Pong => {}
            OpCode::Close => sink(close_of(payload)),
            OpCode::Continuation if !self.fragmented => return Err("a continuation of nothing (RFC 6455 section 5.4)"),
            OpCode::Text | OpCode::Binary if self.fragmented => return Err("a message inside a message (RFC 6455 section 5.4)"),
            OpCode::Text | OpCode::Binary if header.fin => sink(Event::Message(payload)),
            OpCode::Text | OpCode::Binary | OpCode::Continuation => self.take_fragment(payload, header.fin, sink)?,
        }
        Ok(Some(header.frame_bytes()))
    }

    fn take_fragment(&mut self, payload: &[u8], fin: bool, sink: &mut impl FnMut(Event<'_>)) -> Result<(), &'static str> {
        if self.message.len() + payload.len() > PAYLOAD_BYTES_MAX {
            return Err("a message of more than 64 MiB");
        }
        self.message.extend_from_slice(payload);
        self.fragmented = !fin;
        if fin {
            sink(Event::Message(&self.message));
            self.message.clear();
        }
        Ok(())
    }
}

/// Code and reason of a close frame (RFC 6455 section 5.5.1); 1005 stands for none.
fn close_of(payload: &[u8]) -> Event<'_> {
    match payload {
        [high, low, reason @ ..] => {
            Event::Close(u16::from_be_bytes([*high, *low]), str::from_utf8(reason).unwrap_or("(a reason that is not UTF-8)"))
        }
        _ => Event::Close(1005, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::accept_of;

    const KEY: &[u8] = b"dGhlIHNhbXBsZSBub25jZQ==";

    fn answer() -> Vec<u8> {
        let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: ".to_vec();
        answer.extend_from_slice(&accept_of(KEY));
        answer.extend_from_slice(b"\r\n\r\n");
        answer
    }

    fn reader() -> Reader {
        Reader::new(accept_of(KEY))
    }

    /// What the events were, with their payloads, and the replies; or how it ended.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<String>, Vec<u8>), String> {
        let mut reader = reader();
        let (mut seen, mut replies, mut tail) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            tail.extend_from_slice(piece);
            let used = reader
                .consume(&tail, &mut replies, &mut |event| {
                    seen.push(match event {
                        Event::Message(payload) => {
                            format!("message {} {}", payload.len(), payload.iter().map(|&b| u64::from(b)).sum::<u64>())
                        }
                        event => format!("{event:?}"),
                    });
                })
                .map_err(|ending| ending.to_string())?;
            tail.drain(..used);
        }
        Ok((seen, replies))
    }

    #[test]
    fn a_stream_cut_anywhere_tells_the_same() {
        let mut stream = answer();
        stream.extend_from_slice(&[0x82, 3, 1, 2, 3, 0x01, 1, 9, 0x89, 1, 5, 0x80, 2, 9, 9, 0x82, 126, 0, 200]);
        stream.extend_from_slice(&[1; 200]);
        stream.extend_from_slice(&[0x88, 4, 3, 0xE8, b'o', b'k']);
        let (whole, replies) = read(&[&stream]).unwrap();
        assert_eq!(whole, ["Opened", "message 3 6", "Pinged", "message 3 27", "message 200 200", "Close(1000, \"ok\")"]);
        let pong = Header::parse(&replies).unwrap().unwrap();
        assert_eq!((pong.opcode, pong.payload_bytes, replies.len()), (OpCode::Pong, 1, 7));
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read(&[left, right]).unwrap().0, whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&bytes).unwrap().0, whole);
    }

    #[test]
    fn a_refusal_is_told_with_its_text_wherever_it_is_cut() {
        let stream = b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\ntoo many\n";
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read(&[left, right]).unwrap_err(), "the server refused with 503: too many");
        }
        let (mut reader, answer) = (reader(), b"HTTP/1.1 404 Nothing\r\n\r\nnot here");
        assert_eq!(reader.consume(answer, &mut Vec::new(), &mut |_| ()).unwrap(), 0);
        assert_eq!(reader.handle_end(answer).to_string(), "the server refused with 404: not here");
    }

    #[test]
    fn what_breaks_the_rules_ends_the_connection() {
        let opened = answer();
        for wrong in [&[0x82_u8, 0x80, 0, 0, 0, 0][..], &[0x80, 0], &[0x01, 0, 0x81, 0], &[0xF0, 0]] {
            assert!(read(&[&opened, wrong]).unwrap_err().contains("RFC 6455"));
        }
        let mut other_key = answer();
        let last = other_key.len() - 6;
        other_key[last] ^= 1;
        assert!(read(&[&other_key]).unwrap_err().contains("does not answer the key"));
        assert!(read(&[b"SSH-2.0\r\n\r\n"]).unwrap_err().contains("not HTTP"));
    }
}
