//! What both loops share: from the bytes of a connection to the bytes of its answer and the frames of its topic.
//!
//! RFC 6455 as far as a measurement goes: the upgrade is answered (section 4.2.2), text and binary frames become one unmasked
//! frame each, a close is answered by its copy. Pings are not answered, fragments not joined, nothing is checked.

use std::collections::HashMap;
use std::mem;

use fantail::frame::{FrameHeader, OpCode};

use crate::wire::{Header, accept_of};

/// One connection's side of the protocol.
pub struct Conversation {
    role: Role,
    /// What came of a frame or head that isn't whole.
    tail: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Handshake,
    Echo,
    Subscriber { topic: usize },
}

/// Why a conversation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The client's close was answered: once the answer has left, the connection is done.
    Closed,
    /// This is no WebSocket.
    Garbage,
}

/// All topics, by number.
#[derive(Default)]
pub struct Topics {
    topics: Vec<Topic>,
    paths: HashMap<Vec<u8>, usize>,
    /// Topics that got something in this turn.
    busy: Vec<usize>,
}

/// Who gets what in this turn.
#[derive(Default)]
pub struct Topic {
    /// The loop's numbers of its connections.
    pub subscribers: Vec<usize>,
    /// The frames of this turn.
    pub frames: Vec<u8>,
}

impl Conversation {
    /// One that begins with the upgrade.
    pub const fn new() -> Self {
        Self { role: Role::Handshake, tail: Vec::new() }
    }

    /// Takes what came for connection `id`. What is for itself is appended to `answer`, what is for others to its topic.
    pub fn take(&mut self, id: usize, bytes: &mut [u8], topics: &mut Topics, answer: &mut Vec<u8>) -> Result<(), Over> {
        if self.tail.is_empty() {
            let used = self.consume(id, bytes, topics, answer)?;
            self.tail.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.tail.extend_from_slice(bytes);
        let mut tail = mem::take(&mut self.tail);
        let used = self.consume(id, &mut tail, topics, answer)?;
        tail.drain(..used);
        self.tail = tail;
        Ok(())
    }

    /// Takes connection `id` out of its topic.
    pub fn leave(&self, id: usize, topics: &mut Topics) {
        if let Role::Subscriber { topic } = self.role {
            topics.topics[topic].subscribers.retain(|&other| other != id);
        }
    }

    /// Takes what is whole, and returns how many bytes that was.
    fn consume(&mut self, id: usize, bytes: &mut [u8], topics: &mut Topics, answer: &mut Vec<u8>) -> Result<usize, Over> {
        let mut used = 0;
        if self.role == Role::Handshake {
            let Some((role, head_bytes)) = upgrade(bytes, topics, answer)? else { return Ok(0) };
            if let Role::Subscriber { topic } = role {
                topics.topics[topic].subscribers.push(id);
            }
            self.role = role;
            used = head_bytes;
        }
        while let Some(header) = Header::parse(&bytes[used..]).map_err(|_| Over::Garbage)? {
            let Some(payload) = bytes.get_mut(used + header.bytes..used + header.frame_bytes()) else { break };
            fantail::ws::unmask(payload, header.mask.unwrap_or_default());
            match (header.opcode, self.role) {
                (OpCode::Text | OpCode::Binary, Role::Subscriber { topic }) => {
                    write_frame(header.opcode, payload, topics.frames_of(topic));
                }
                (OpCode::Text | OpCode::Binary, _) => write_frame(header.opcode, payload, answer),
                (OpCode::Close, _) => {
                    write_frame(OpCode::Close, payload, answer);
                    return Err(Over::Closed);
                }
                _ => {}
            }
            used += header.frame_bytes();
        }
        Ok(used)
    }
}

impl Topics {
    /// Hands out each topic that got something in this turn, with its frames, which are empty afterwards.
    pub fn drain_busy(&mut self, mut hand_out: impl FnMut(&mut Topic)) {
        for number in self.busy.drain(..) {
            let topic = &mut self.topics[number];
            hand_out(topic);
            topic.frames.clear();
        }
    }

    fn number_of(&mut self, path: &[u8]) -> usize {
        *self.paths.entry(path.to_vec()).or_insert_with(|| {
            self.topics.push(Topic::default());
            self.topics.len() - 1
        })
    }

    fn frames_of(&mut self, topic: usize) -> &mut Vec<u8> {
        let frames = &mut self.topics[topic].frames;
        if frames.is_empty() {
            self.busy.push(topic);
        }
        frames
    }
}

/// Answers an upgrade: what its path makes of the connection, and how long its head was. `None` while the head isn't whole.
fn upgrade(bytes: &[u8], topics: &mut Topics, answer: &mut Vec<u8>) -> Result<Option<(Role, usize)>, Over> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(used) = request.parse(bytes).map_err(|_| Over::Garbage)? else { return Ok(None) };
    let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
    let key = key.ok_or(Over::Garbage)?.value;
    answer.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
    answer.extend_from_slice(b"Sec-WebSocket-Accept: ");
    answer.extend_from_slice(&accept_of(key));
    answer.extend_from_slice(b"\r\n\r\n");
    let role = match request.path.unwrap_or("/").as_bytes() {
        b"/echo" => Role::Echo,
        path => Role::Subscriber { topic: topics.number_of(path) },
    };
    Ok(Some((role, used)))
}

/// Appends a frame as servers send them: whole and unmasked (RFC 6455 section 5.1).
fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(FrameHeader::new(opcode, payload.len()).as_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::write_masked;

    const HEAD: &str = " HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    /// A whole conversation of one upgrade, two messages and a close.
    fn input(path: &str) -> Vec<u8> {
        let mut input = format!("GET {path}{HEAD}").into_bytes();
        write_masked(OpCode::Text, b"one", &mut input);
        write_masked(OpCode::Binary, &[7; 300], &mut input);
        write_masked(OpCode::Close, &[3, 232], &mut input);
        input
    }

    fn frames() -> Vec<u8> {
        let mut frames = Vec::new();
        write_frame(OpCode::Text, b"one", &mut frames);
        write_frame(OpCode::Binary, &[7; 300], &mut frames);
        frames
    }

    #[test]
    fn an_echo_answers_the_same_wherever_its_input_is_cut() {
        let whole = input("/echo");
        for cut in 0..whole.len() {
            let (mut topics, mut conversation, mut answer) = (Topics::default(), Conversation::new(), Vec::new());
            let (mut first, mut second) = (whole[..cut].to_vec(), whole[cut..].to_vec());
            assert_eq!(conversation.take(0, &mut first, &mut topics, &mut answer), Ok(()), "cut at {cut}");
            assert_eq!(conversation.take(0, &mut second, &mut topics, &mut answer), Err(Over::Closed), "cut at {cut}");
            let head_bytes = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(answer[..head_bytes].ends_with(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
            assert_eq!(answer[head_bytes..], [&frames()[..], &[0x88, 2, 3, 232]].concat(), "cut at {cut}");
        }
    }

    #[test]
    fn a_topic_gathers_what_a_turn_brings_and_forgets_who_left() {
        let (mut topics, mut answer) = (Topics::default(), Vec::new());
        let mut conversations = [Conversation::new(), Conversation::new()];
        for (id, conversation) in conversations.iter_mut().enumerate() {
            assert_eq!(conversation.take(id, &mut input("/topics/a"), &mut topics, &mut answer), Err(Over::Closed));
        }
        conversations[0].leave(0, &mut topics);
        let mut seen = Vec::new();
        topics.drain_busy(|topic| seen.push((topic.subscribers.clone(), topic.frames.clone())));
        assert_eq!(seen, [(vec![1], frames().repeat(2))]);
        topics.drain_busy(|_| panic!("the turn is over"));
    }

    #[test]
    fn what_is_no_websocket_is_garbage() {
        for mut bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), b"\0\0\0\0".to_vec()] {
            let result = Conversation::new().take(0, &mut bytes, &mut Topics::default(), &mut Vec::new());
            assert_eq!(result, Err(Over::Garbage));
        }
    }
}
