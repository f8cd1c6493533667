//! An event stream's client (WHATWG HTML section 9.2): the body in chunks or until the end, events cut in any way.
//!
//! Events of the type `message` are messages, those of the type `gap` tell that some are missing; those of other types (pings) are the
//! server's own affair. An id says where the stream stands, for who comes back.

use crate::ending::Ending;
use crate::target::{Target, Topics};
use crate::wire::PAYLOAD_BYTES_MAX;

use super::{Event, Purpose, Refusal, header, read_head};

/// The reading half of a connection.
#[derive(Debug)]
pub struct Reader {
    state: State,
    /// The part of an event that came so far, line ends included.
    event: Vec<u8>,
    /// The data of that event, its lines joined.
    data: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Refused(Refusal),
    /// Behind this many bytes the chunk ends, with its line end.
    Chunk(usize),
    /// The size of the next chunk is to come.
    Size,
    /// A body that ends with the connection.
    Plain,
}

impl Reader {
    /// Asks for the stream, behind the cursor if there is one.
    pub fn greet(target: &Target, purpose: Purpose, cursor: &str, out: &mut Vec<u8>) -> Self {
        let topics = match purpose {
            Purpose::Subscribe(topics) => topics,
            Purpose::Visit | Purpose::Join | Purpose::Publish => Topics { first: 0, count: 1 },
        };
        let (path, authority) = (target.path_behind(topics, cursor), target.authority());
        for part in
            ["GET ", &path, " HTTP/1.1\r\nHost: ", authority, "\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n\r\n"]
        {
            out.extend_from_slice(part.as_bytes());
        }
        Self { state: State::Head, event: Vec::new(), data: Vec::new() }
    }

    /// What the end of the stream means behind `tail`, the bytes that were not taken.
    pub fn handle_end(&self, tail: &[u8]) -> Ending {
        match self.state {
            State::Refused(refusal) => refusal.ending(tail),
            _ => Ending::EndOfStream,
        }
    }

    /// Takes what it can and returns how many bytes that was.
    pub fn consume(&mut self, bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
        let mut used = 0;
        loop {
            let rest = &bytes[used..];
            match self.state {
                State::Head => match self.read_head(rest)? {
                    0 if self.state == State::Head => return Ok(used),
                    0 => {}
                    head_bytes => {
                        used += head_bytes;
                        sink(Event::Opened);
                    }
                },
                State::Refused(refusal) => return refusal.check(rest).map(|()| used),
                State::Plain => {
                    self.take(rest, sink)?;
                    return Ok(bytes.len());
                }
                State::Size => match httparse::parse_chunk_size(rest) {
                    Ok(httparse::Status::Partial) => return Ok(used),
                    Ok(httparse::Status::Complete((_, 0))) => return Err(Ending::EndOfStream),
                    Ok(httparse::Status::Complete((size_bytes, length))) => {
                        used += size_bytes;
                        self.state = State::Chunk(length as usize);
                    }
                    Err(_) => return Err(Ending::Protocol("a chunk without its size")),
                },
                State::Chunk(0) => {
                    if rest.len() < 2 {
                        return Ok(used);
                    }
                    if !rest.starts_with(b"\r\n") {
                        return Err(Ending::Protocol("a chunk that does not end where it said"));
                    }
                    used += 2;
                    self.state = State::Size;
                }
                State::Chunk(_) if rest.is_empty() => return Ok(used),
                State::Chunk(left) => {
                    let part = &rest[..left.min(rest.len())];
                    self.take(part, sink)?;
                    used += part.len();
                    self.state = State::Chunk(left - part.len());
                }
            }
        }
    }

    /// Reads the head of the answer; 0 while it isn't whole, or if it is a refusal.
    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, Ending> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut answer = httparse::Response::new(&mut headers);
        let Some(head_bytes) = read_head(&mut answer, bytes)? else { return Ok(0) };
        let header = |name| header(&answer, name);
        if answer.code != Some(200) {
            self.state = State::Refused(Refusal::of(&answer, head_bytes));
            return Ok(0);
        }
        if !header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/event-stream")) {
            return Err(Ending::Answer("it is no event stream"));
        }
        let is_chunked = header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        self.state = if is_chunked { State::Size } else { State::Plain };
        Ok(head_bytes)
    }

    /// Takes a part of the body: whole events go to the sink.
    fn take(&mut self, part: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<(), Ending> {
        let mut rest = part;
        if self.event.is_empty() {
            // Events that are whole are read where they are.
            while let Some(end) = event_end(rest) {
                read_event(&rest[..end], &mut self.data, sink);
                rest = &rest[end..];
            }
            self.event.extend_from_slice(rest);
            return Ok(());
        }
        self.event.extend_from_slice(rest);
        let event = std::mem::take(&mut self.event);
        let mut at = 0;
        while let Some(end) = event_end(&event[at..]) {
            read_event(&event[at..at + end], &mut self.data, sink);
            at += end;
        }
        self.event = event;
        self.event.drain(..at);
        if self.event.len() > PAYLOAD_BYTES_MAX {
            return Err(Ending::Protocol("an event of more than 64 MiB"));
        }
        Ok(())
    }
}

/// Where the first event ends: behind its empty line. Line ends are LF or CR LF here; nobody is known to send CR alone.
fn event_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match &bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Hands on where the stream stands with an event, then the event if it is a message or a gap.
fn read_event(event: &[u8], data: &mut Vec<u8>, sink: &mut impl FnMut(Event<'_>)) {
    data.clear();
    let (mut has_data, mut kind, mut id) = (false, &b"message"[..], None);
    for line in event.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let value = |field: &[u8]| line.strip_prefix(field).map(|value| value.strip_prefix(b" ").unwrap_or(value));
        if let Some(value) = value(b"data:") {
            if std::mem::replace(&mut has_data, true) {
                data.push(b'\n');
            }
            data.extend_from_slice(value);
        } else if let Some(value) = value(b"event:") {
            kind = value;
        } else if let Some(value) = value(b"id:") {
            id = str::from_utf8(value).ok();
        }
    }
    if let Some(id) = id {
        sink(Event::Position(id));
    }
    match kind {
        b"message" if has_data => sink(Event::Message(data)),
        b"gap" => sink(Event::Gap(data)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, read};
    use super::super::{Client, Purpose};
    use super::*;
    use crate::target::Dialect;

    const ALL: Purpose = Purpose::Subscribe(Topics { first: 0, count: 1 });

    fn target() -> Target {
        Target::resolve("http://127.0.0.1:80/topics/{topic}", Some(Dialect::Sse), 3).unwrap()
    }

    #[test]
    fn a_stream_is_asked_for() {
        let mut out = Vec::new();
        Client::greet(&target(), ALL, "", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("GET /topics/load-0 HTTP/1.1\r\nHost: 127.0.0.1:80\r\nAccept: text/event-stream\r\n"), "{text}");
        let mut resuming = Vec::new();
        Client::greet(&target(), ALL, "k.7", &mut resuming);
        assert!(String::from_utf8(resuming).unwrap().contains("GET /topics/load-0?since=k.7 HTTP/1.1\r\n"));
    }

    #[test]
    fn events_are_messages_however_they_are_cut() {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
        let body = "retry: 500\nid: k.0\n\nid: k.1\ndata: one\n\nevent: ping\ndata: {}\n\n: comment\ndata:two\r\ndata: lines\r\n\r\n\
            id: k.9\nevent: gap\ndata: {1}\n\nevent: message\ndata: \n\n";
        let expected = [
            "Opened",
            "Position(\"k.0\")",
            "Position(\"k.1\")",
            "message one",
            "message two\nlines",
            "Position(\"k.9\")",
            "gap {1}",
            "message ",
        ];
        check_cuts(&target(), ALL, format!("{head}\r\n{body}").as_bytes(), &expected);
        for length in [1, 7, body.len()] {
            let chunks: String = body.as_bytes().chunks(length).fold(String::new(), |chunks, part| {
                format!("{chunks}{:x}\r\n{}\r\n", part.len(), std::str::from_utf8(part).unwrap())
            });
            check_cuts(&target(), ALL, format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes(), &expected);
        }
    }

    #[test]
    fn what_is_no_stream_is_told() {
        let mut client = Client::greet(&target(), ALL, "", &mut Vec::new());
        let refused = b"HTTP/1.1 403 Forbidden\r\n\r\nnot here";
        client.handle_input(refused, &mut Vec::new(), |_| {}).unwrap();
        let ending = client.handle_end().to_string();
        assert!(ending.contains("403") && ending.contains("not here"), "{ending}");
        let whole = b"HTTP/1.1 404 Nothing\r\nContent-Length: 8\r\n\r\nnot here";
        for cut in 0..whole.len() {
            let ending = read(&target(), ALL, &[&whole[..cut], &whole[cut..]]).unwrap_err();
            assert_eq!(ending, "the server refused with 404: not here", "without the end of the stream; cut at {cut}");
        }
        let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n";
        assert!(read(&target(), ALL, &[page]).unwrap_err().contains("no event stream"));
        let over = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert!(read(&target(), ALL, &[over]).is_err());
    }
}
