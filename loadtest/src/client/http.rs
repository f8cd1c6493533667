//! Publishing by POST and long-polls over one HTTP/1.1 connection, requests pipelined (RFC 9112 section 9.3.2).

use std::io::Write as _;

use crate::ending::Ending;
use crate::target::{Target, Topics};

use super::{Event, header, number, read_head, words};

/// The longest body, in bytes: a poll brings several messages.
const BODY_BYTES_MAX: usize = 1 << 20;

const BODY_TOO_LONG: &str = "its body has more than 1 MiB";

/// Takes whole answers and returns how many bytes they had.
pub fn consume(bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<usize, Ending> {
    let mut used = 0;
    while let Some(answer_bytes) = read_answer(&bytes[used..], sink)? {
        used += answer_bytes;
    }
    Ok(used)
}

/// Appends a request. The kind is plain text, as a WebSocket's text message would be.
pub fn publish(target: &Target, topic: u32, payload: &[u8], out: &mut Vec<u8>) {
    let (path, authority) = (target.path(Topics { first: topic, count: 1 }), target.authority());
    // Writing into memory can't fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        payload.len()
    );
    out.extend_from_slice(payload);
}

/// Appends a long-poll, behind the cursor if there is one.
pub fn poll(target: &Target, topic: u32, cursor: &str, wait: u32, out: &mut Vec<u8>) {
    let path = target.path_behind(Topics { first: topic, count: 1 }, cursor);
    let separator = if path.contains('?') { '&' } else { '?' };
    // Writing into memory can't fail.
    let _ = write!(out, "GET {path}{separator}wait={wait} HTTP/1.1\r\nHost: {}\r\n\r\n", target.authority());
}

/// One whole answer; `None` while it isn't whole.
fn read_answer(bytes: &[u8], sink: &mut impl FnMut(Event<'_>)) -> Result<Option<usize>, Ending> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut answer = httparse::Response::new(&mut headers);
    let Some(head_bytes) = read_head(&mut answer, bytes)? else { return Ok(None) };
    let header = |name| header(&answer, name);
    let status = answer.code.unwrap_or_default();
    let body = &bytes[head_bytes..];
    let is_chunked = header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let (text, body_bytes) = match header("content-length") {
        _ if is_chunked => match whole_chunks(body)? {
            Some(body_bytes) => (&body[..body_bytes], body_bytes),
            None => return Ok(None),
        },
        None if status == 204 => (&body[..0], 0),
        None => return Err(Ending::Answer("it has neither Content-Length nor chunks")),
        Some(length) => {
            let length: usize = number(length).ok_or(Ending::Answer("its Content-Length is no number"))?;
            if length > BODY_BYTES_MAX {
                return Err(Ending::Answer(BODY_TOO_LONG));
            }
            match body.get(..length) {
                Some(body) => (body, length),
                None => return Ok(None),
            }
        }
    };
    if (200..300).contains(&status) {
        sink(Event::Body(text));
        sink(Event::Answered(Ok(())));
    } else {
        sink(Event::Answered(Err(format!("{status}: {}", words(text)))));
    }
    Ok(Some(head_bytes + body_bytes))
}

/// How many bytes all chunks of a body take with what stands between them; `None` while they aren't whole.
fn whole_chunks(body: &[u8]) -> Result<Option<usize>, Ending> {
    let mut used = 0;
    loop {
        match httparse::parse_chunk_size(&body[used..]) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Ending::Answer("its chunks are wrong")),
            Ok(httparse::Status::Complete((head_bytes, length))) => {
                used = used.saturating_add(head_bytes).saturating_add(length as usize).saturating_add(2);
                if used > body.len() && used > BODY_BYTES_MAX {
                    return Err(Ending::Answer(BODY_TOO_LONG));
                }
                if used > body.len() {
                    return Ok(None);
                }
                if length == 0 {
                    return Ok(Some(used));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, read};
    use super::super::{Client, Purpose};
    use super::*;

    fn target() -> Target {
        Target::resolve("http://127.0.0.1:80/topics/{topic}", Some(crate::target::Dialect::Post), 3).unwrap()
    }

    #[test]
    fn requests_name_their_topic() {
        let mut out = Vec::new();
        Client::publish(&target(), 2, b"hi", true, &mut out);
        let expected =
            "POST /topics/load-2 HTTP/1.1\r\nHost: 127.0.0.1:80\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_poll_says_where_it_begins_and_how_long_it_waits() {
        for (cursor, path) in [("", "/topics/load-2?wait=5"), ("k.7", "/topics/load-2?since=k.7&wait=5")] {
            let mut out = Vec::new();
            Client::poll(&target(), 2, cursor, 5, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"));
        }
    }

    #[test]
    fn answers_of_every_form_are_taken_one_after_the_other() {
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{1}HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nlate\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let ok = "Answered(Ok(()))";
        let chunks = "body 3\r\nabc\r\n0\r\n\r\n";
        let expected = ["body {1}", ok, "Answered(Err(\"503: late\"))", "body ", ok, chunks, ok];
        check_cuts(&target(), Purpose::Publish, stream, &expected);
        assert!(read(&target(), Purpose::Publish, &[b"SSH-2.0\r\n\r\n"]).unwrap_err().contains("not HTTP"));
        assert!(read(&target(), Purpose::Publish, &[b"HTTP/1.1 200 OK\r\n\r\n"]).unwrap_err().contains("neither"));
    }
}
