//! Publish and subscribe of NATS (its client protocol: CONNECT, PUB, SUB, MSG, PING, PONG).

use crate::ending::Ending;
use crate::target::Target;
use crate::wire::PAYLOAD_BYTES_MAX;

use super::{Event, Purpose, line, number, words};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader {
    is_open: bool,
    /// A PONG behind the first confirms a subscription, not a publication.
    joins: bool,
}

impl Reader {
    /// Says what the connection is for. The PONG behind it tells that the subscriptions are in force.
    pub fn greet(target: &Target, purpose: Purpose, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"fantail-loadtest\",\"version\":\"0\"}\r\n",
        );
        if let Purpose::Subscribe(topics) = purpose {
            for (id, name) in target.names(topics).enumerate() {
                out.extend_from_slice(format!("SUB {name} {id}\r\n").as_bytes());
            }
        }
        out.extend_from_slice(b"PING\r\n");
        Self { is_open: false, joins: purpose == Purpose::Join }
    }

    /// Takes whole messages and returns how many bytes they had.
    pub fn consume(&mut self, bytes: &[u8], replies: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut used = 0;
        while let Some(message_bytes) = self.read_message(&bytes[used..], replies, sink)? {
            used += message_bytes;
        }
        Ok(used)
    }

    fn read_message(
        &mut self,
        bytes: &[u8],
        replies: &mut Vec<u8>,
        sink: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<usize>, Ending> {
        let Some((head, used)) = line(bytes) else { return Ok(None) };
        if head.starts_with(b"MSG ") {
            let length: usize =
                head.rsplit(|&byte| byte == b' ').next().and_then(number).ok_or(Ending::Protocol("a MSG without its length"))?;
            if length > PAYLOAD_BYTES_MAX {
                return Err(Ending::Protocol("a MSG of more than 64 MiB"));
            }
            let Some(payload) = bytes.get(used..used + length) else { return Ok(None) };
            if bytes.len() < used + length + 2 {
                return Ok(None);
            }
            sink(Event::Message(payload));
            return Ok(Some(used + length + 2));
        }
        match head {
            b"PONG" if self.is_open => sink(if self.joins { Event::Confirmed } else { Event::Answered(Ok(())) }),
            b"PONG" => {
                self.is_open = true;
                sink(Event::Opened);
            }
            b"PING" => {
                replies.extend_from_slice(b"PONG\r\n");
                sink(Event::Pinged);
            }
            _ if head.starts_with(b"INFO ") || head == b"+OK" => {}
            _ => match head.strip_prefix(b"-ERR") {
                Some(why) => return Err(Ending::Denied(words(why))),
                None => return Err(Ending::Protocol("a line that NATS' protocol does not have")),
            },
        }
        Ok(Some(used))
    }
}

/// Appends a SUB whose confirmation is the PONG of a PING behind it.
pub fn subscribe(target: &Target, topic: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("SUB {} {topic}\r\nPING\r\n", target.name(topic)).as_bytes());
}

/// Appends its UNSUB, confirmed likewise.
pub fn unsubscribe(topic: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("UNSUB {topic}\r\nPING\r\n").as_bytes());
}

/// Appends a PUB; its confirmation is the PONG of a PING behind it, as a publication has no answer of its own.
pub fn publish(target: &Target, topic: u32, payload: &[u8], confirm: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("PUB {} {}\r\n", target.name(topic), payload.len()).as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(if confirm { b"\r\nPING\r\n" } else { b"\r\n" });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, read};
    use super::*;
    use crate::target::Topics;

    fn target() -> Target {
        Target::resolve("nats://127.0.0.1:4222/{topic}", None, 3).unwrap()
    }

    #[test]
    fn a_subscriber_is_open_with_the_first_pong_and_answers_pings() {
        let purpose = Purpose::Subscribe(Topics { first: 1, count: 2 });
        let mut out = Vec::new();
        Reader::greet(&target(), purpose, &mut out);
        assert!(out.ends_with(b"}\r\nSUB load-1 0\r\nSUB load-2 1\r\nPING\r\n"), "{}", String::from_utf8_lossy(&out));
        let stream = b"INFO {\"a\":1}\r\nPONG\r\nMSG load-1 0 5\r\nhe\r\no\r\nPING\r\nMSG load-2 1 0\r\n\r\n";
        check_cuts(&target(), purpose, stream, &["Opened", "message he\r\no", "Pinged", "message "]);
        assert_eq!(read(&target(), purpose, &[stream]).unwrap().1, b"PONG\r\n");
    }

    #[test]
    fn who_joins_is_open_first_and_has_each_change_confirmed() {
        let mut out = Vec::new();
        subscribe(&target(), 2, &mut out);
        unsubscribe(2, &mut out);
        assert_eq!(out, b"SUB load-2 2\r\nPING\r\nUNSUB 2\r\nPING\r\n");
        let stream = b"PONG\r\nPONG\r\nMSG load-2 2 2\r\nhi\r\nPONG\r\n";
        check_cuts(&target(), Purpose::Join, stream, &["Opened", "Confirmed", "message hi", "Confirmed"]);
    }

    #[test]
    fn a_publication_is_confirmed_by_the_pong_behind_it() {
        let mut out = Vec::new();
        publish(&target(), 0, b"hi", true, &mut out);
        assert_eq!(out, b"PUB load-0 2\r\nhi\r\nPING\r\n");
        check_cuts(&target(), Purpose::Publish, b"PONG\r\nPONG\r\n", &["Opened", "Answered(Ok(()))"]);
        let refused = read(&target(), Purpose::Publish, &[b"-ERR 'Slow Consumer'\r\n"]).unwrap_err();
        assert_eq!(refused, "the server refused: 'Slow Consumer'");
    }
}
