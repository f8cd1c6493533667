//! Publish and subscribe of Redis, by RESP2 (the protocol's specification, "Pub/Sub" and "Sending commands to a Redis server").
//!
//! Only what these answers are made of: arrays of bulk strings and integers, simple strings, errors.

use crate::ending::Ending;
use crate::target::Target;
use crate::wire::PAYLOAD_BYTES_MAX;

use super::{Event, Purpose, line, number, words};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader {
    /// Confirmations of subscriptions to come before it is open; a publisher waits for one PONG.
    unconfirmed: u32,
}

/// A part of an answer.
enum Item<'b> {
    Simple(&'b [u8]),
    Error(&'b [u8]),
    Integer,
    Bulk(&'b [u8]),
    Array(usize),
}

impl Reader {
    /// Says what the connection is for.
    pub fn greet(target: &Target, purpose: Purpose, out: &mut Vec<u8>) -> Self {
        let Purpose::Subscribe(topics) = purpose else {
            write_command(&[b"PING"], out);
            return Self { unconfirmed: 1 };
        };
        out.extend_from_slice(format!("*{}\r\n$9\r\nSUBSCRIBE\r\n", topics.count + 1).as_bytes());
        target.names(topics).for_each(|name| write_bulk(name.as_bytes(), out));
        Self { unconfirmed: topics.count }
    }

    /// Takes whole answers and returns how many bytes they had.
    pub fn consume(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut used = 0;
        while let Some(answer_bytes) = self.read_answer(&bytes[used..], sink)? {
            used += answer_bytes;
        }
        Ok(used)
    }

    fn read_answer(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<Option<usize>, Ending> {
        let Some((item, mut used)) = read_item(bytes).map_err(Ending::Protocol)? else { return Ok(None) };
        let Item::Array(3) = item else {
            match item {
                Item::Simple(b"PONG") => self.confirm(sink),
                Item::Integer => sink(Event::Answered(Ok(()))),
                Item::Error(text) if self.unconfirmed == 0 => sink(Event::Answered(Err(words(text)))),
                Item::Error(text) => return Err(Ending::Denied(words(text))),
                _ => return Err(Ending::Protocol("an answer of Redis that no command asked for")),
            }
            return Ok(Some(used));
        };
        let mut parts: [&[u8]; 3] = [b""; 3];
        for part in &mut parts {
            let Some((item, part_bytes)) = read_item(&bytes[used..]).map_err(Ending::Protocol)? else { return Ok(None) };
            used += part_bytes;
            if let Item::Bulk(text) = item {
                *part = text;
            }
        }
        match parts[0] {
            b"message" => sink(Event::Message(parts[2])),
            b"subscribe" if self.unconfirmed > 0 => self.confirm(sink),
            b"subscribe" | b"unsubscribe" => sink(Event::Confirmed),
            _ => return Err(Ending::Protocol("a push of Redis that is neither message nor about a subscription")),
        }
        Ok(Some(used))
    }

    fn confirm(&mut self, sink: &mut impl FnMut(Event<'_>)) {
        self.unconfirmed = self.unconfirmed.saturating_sub(1);
        if self.unconfirmed == 0 {
            sink(Event::Opened);
        }
    }
}

/// Appends a SUBSCRIBE to one channel more.
pub fn subscribe(target: &Target, topic: u32, out: &mut Vec<u8>) {
    write_command(&[b"SUBSCRIBE", target.name(topic).as_bytes()], out);
}

/// Appends an UNSUBSCRIBE.
pub fn unsubscribe(target: &Target, topic: u32, out: &mut Vec<u8>) {
    write_command(&[b"UNSUBSCRIBE", target.name(topic).as_bytes()], out);
}

/// Appends a PUBLISH.
pub fn publish(target: &Target, topic: u32, payload: &[u8], out: &mut Vec<u8>) {
    write_command(&[b"PUBLISH", target.name(topic).as_bytes(), payload], out);
}

fn write_command(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    parts.iter().for_each(|part| write_bulk(part, out));
}

fn write_bulk(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// One item and its length; `None` while it isn't whole.
fn read_item(bytes: &[u8]) -> Result<Option<(Item<'_>, usize)>, &'static str> {
    let Some((head, used)) = line(bytes) else { return Ok(None) };
    let Some((kind, rest)) = head.split_first() else { return Err("an empty line where RESP has none") };
    Ok(Some(match kind {
        b'+' => (Item::Simple(rest), used),
        b'-' => (Item::Error(rest), used),
        b':' => (Item::Integer, used),
        b'*' => (Item::Array(number(rest).ok_or("an array of RESP without its length")?), used),
        b'$' => {
            let length: usize = number(rest).ok_or("a bulk string of RESP without its length")?;
            if length > PAYLOAD_BYTES_MAX {
                return Err("a bulk string of more than 64 MiB");
            }
            let Some(text) = bytes.get(used..used + length) else { return Ok(None) };
            if bytes.len() < used + length + 2 {
                return Ok(None);
            }
            (Item::Bulk(text), used + length + 2)
        }
        _ => return Err("bytes that are not RESP2"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, read};
    use super::*;
    use crate::target::Topics;

    fn target() -> Target {
        Target::resolve("redis://127.0.0.1:6379/{topic}", None, 3).unwrap()
    }

    #[test]
    fn a_subscriber_asks_for_its_topics_and_is_open_when_all_are_confirmed() {
        let purpose = Purpose::Subscribe(Topics { first: 2, count: 2 });
        let mut out = Vec::new();
        Reader::greet(&target(), purpose, &mut out);
        assert_eq!(out, b"*3\r\n$9\r\nSUBSCRIBE\r\n$6\r\nload-2\r\n$6\r\nload-0\r\n");
        let stream = b"*3\r\n$9\r\nsubscribe\r\n$6\r\nload-2\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$6\r\nload-0\r\n:2\r\n\
            *3\r\n$7\r\nmessage\r\n$6\r\nload-0\r\n$5\r\nhe\r\no\r\n";
        check_cuts(&target(), purpose, stream, &["Opened", "message he\r\no"]);
    }

    #[test]
    fn who_joins_is_open_first_and_has_each_change_confirmed() {
        let mut out = Vec::new();
        subscribe(&target(), 1, &mut out);
        unsubscribe(&target(), 1, &mut out);
        let asked = "*2\r\n$9\r\nSUBSCRIBE\r\n$6\r\nload-1\r\n*2\r\n$11\r\nUNSUBSCRIBE\r\n$6\r\nload-1\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), asked);
        let stream =
            b"+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$6\r\nload-1\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$6\r\nload-1\r\n$2\r\nhi\r\n\
            *3\r\n$11\r\nunsubscribe\r\n$6\r\nload-1\r\n:0\r\n";
        check_cuts(&target(), Purpose::Join, stream, &["Opened", "Confirmed", "message hi", "Confirmed"]);
    }

    #[test]
    fn a_publisher_is_answered_or_refused() {
        let mut out = Vec::new();
        publish(&target(), 1, b"hi", &mut out);
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nload-1\r\n$2\r\nhi\r\n");
        let stream = b"+PONG\r\n:7\r\n-NOPERM no\r\n";
        check_cuts(&target(), Purpose::Publish, stream, &["Opened", "Answered(Ok(()))", "Answered(Err(\"NOPERM no\"))"]);
        assert_eq!(read(&target(), Purpose::Publish, &[b"-NOAUTH no\r\n"]).unwrap_err(), "the server refused: NOAUTH no");
        assert!(read(&target(), Purpose::Publish, &[b"HTTP/1.1 400\r\n"]).unwrap_err().contains("not RESP2"));
    }
}
