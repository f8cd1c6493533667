//! What a connection makes of whole streams of bytes: good requests, and each way to break one.
//!
//! Every stream runs whole, cut in two at every byte, and byte by byte, with the same outcome: a parser that sees other requests
//! in other segments could be made to answer what a proxy never let through.

use proptest::prelude::*;

use super::HttpError as E;
use super::{BodyPlan, Connection, Event, Head, HttpError, Limits, header_space};
use crate::limits::BufferPool;

const LIMITS: Limits = Limits { head_bytes_max: 2048, body_bytes_max: 64 };

/// Requests as `METHOD HOST PATH QUERY BODY`, and the error that ended them, if one did.
type Outcome = (Vec<String>, Option<HttpError>);

/// A stream, what it should be read as, and its end.
type Case = (&'static str, &'static [&'static str], Option<HttpError>);

const CASES: &[Case] = &[
    // RFC 9112 section 2: lines, and what stands before a request.
    ("GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", &["Get h /a b "], None),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", &["Get h /  "], None),
    ("\r\n\r\n\r\nGET / HTTP/1.1\r\n", &[], Some(E::BadRequestLine)),
    ("GET / HTTP/1.1\nHost: h\n\n", &[], Some(E::BareLineEnd)),
    ("GET / HTTP/1.1\r\nHost: h\n\r\n", &[], Some(E::BareLineEnd)),
    ("GET / HTTP/1.1\r\nHost: h\rA: b\r\n\r\n", &[], Some(E::BareLineEnd)),
    ("\nGET / HTTP/1.1\r\n", &[], Some(E::BareLineEnd)),
    ("\rGET / HTTP/1.1\r\n", &[], Some(E::BareLineEnd)),
    ("GET / HTTP/1.1\r\nHost: h\0\r\n\r\n", &[], Some(E::ControlByte)),
    ("GET / HTTP/1.1\r\nHost: h\r\nA\x01: b\r\n\r\n", &[], Some(E::ControlByte)),
    // Section 2.3: versions, and what is not HTTP/1 at all.
    ("GET / HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", &["Get - /  "], None),
    ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n", &["Get - /  ", "Get - /2  "], None),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[], Some(E::UnsupportedVersion)),
    ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", &[], Some(E::UnsupportedVersion)),
    ("GET / http/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadRequestLine)),
    ("GET /\r\n\r\n", &[], Some(E::BadRequestLine)),
    ("\x16\x03\x01\x02\0\x01", &[], Some(E::NotHttp)),
    ("{\"id\":1}\r\n\r\n", &[], Some(E::NotHttp)),
    ("hello\r\n\r\n", &[], Some(E::BadRequestLine)),
    ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadRequestLine)),
    ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", &[], Some(E::BadRequestLine)),
    // Section 3.2: targets and hosts.
    ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", &["Options h *  "], None),
    ("GET http://t:8/p?q HTTP/1.1\r\nHost: h\r\n\r\n", &["Get t:8 /p q "], None),
    ("PURGE //..//%00 HTTP/1.1\r\nHost: h\r\n\r\n", &["Other h //..//%00  "], None),
    ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadTarget)),
    ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadTarget)),
    ("GET /#a HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadTarget)),
    ("GET /caf\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadTarget)),
    ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", &[], Some(E::BadRequestLine)),
    ("GET / HTTP/1.1\r\n\r\n", &[], Some(E::MissingHost)),
    ("GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", &[], Some(E::RepeatedHost)),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", &[], Some(E::BadHost)),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", &[], Some(E::BadHost)),
    ("GET / HTTP/1.0\r\nHost: a,\u{e9}\r\n\r\n", &[], Some(E::BadHost)),
    // Section 5: header lines.
    ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", &[], Some(E::BadHeader)),
    ("GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", &[], Some(E::BadHeader)),
    ("GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", &[], Some(E::BadHeader)),
    ("GET / HTTP/1.1\r\nHost: h\r\nA(: b\r\n\r\n", &[], Some(E::BadHeader)),
    ("GET / HTTP/1.1\r\nHost: h\r\nA\u{e9}: b\r\n\r\n", &[], Some(E::BadHeader)),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", &[], Some(E::FoldedHeader)),
    ("GET / HTTP/1.1\r\n Host: h\r\n\r\n", &[], Some(E::FoldedHeader)),
    // Section 6: bodies, and requests hidden in them.
    (
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &["Post h /  hello", "Get h /2  "],
        None,
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n",
        &["Post h /  GET / HTTP/1.1\r\n\r\n"],
        None,
    ),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell", &[], None),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 65\r\n\r\n",
        &[],
        Some(E::MessageTooLarge { body_bytes: Some(65), limit_bytes: 64 }),
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        &[],
        Some(E::LengthAndCoding),
    ),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", &[], Some(E::BadContentLength)),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", &[], Some(E::BadContentLength)),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", &[], Some(E::BadContentLength)),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1e3\r\n\r\n", &[], Some(E::BadContentLength)),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551616\r\n\r\n", &[], Some(E::BadContentLength)),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n", &[], Some(E::UnsupportedTransferCoding)),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", &[], Some(E::BadTransferEncoding)),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[], Some(E::BadTransferEncoding)),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n", &[], Some(E::BadHeader)),
    // Section 7.1: chunks.
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n",
        &["Post h /  hello!", "Get h /2  "],
        None,
    ),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        &[],
        Some(E::BadChunk),
    ),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello", &[], Some(E::BadChunk)),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", &[], Some(E::BadChunk)),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello", &[], Some(E::BadChunk)),
    (
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        &[],
        Some(E::MessageTooLarge { body_bytes: None, limit_bytes: 64 }),
    ),
];

/// A stand-in for the worker: answers one request after the other and notes what it was asked.
struct Server {
    connection: Connection,
    pool: BufferPool,
    /// Received and not yet consumed.
    pending: Vec<u8>,
    /// The head of the request whose body is under way, and whether another may follow.
    current: (String, bool),
    closed: bool,
    requests: Vec<String>,
}

impl Server {
    fn new() -> Self {
        Self {
            connection: Connection::new(),
            pool: BufferPool::new(4096),
            pending: Vec::new(),
            current: (String::new(), true),
            closed: false,
            requests: Vec::new(),
        }
    }

    fn receive(&mut self, piece: &[u8]) -> Result<(), HttpError> {
        self.pending.extend_from_slice(piece);
        while !self.closed && self.step()? {}
        Ok(())
    }

    /// One step; false when there is nothing to do but to wait for more.
    fn step(&mut self) -> Result<bool, HttpError> {
        let step = self.connection.handle_input(&mut self.pending, &LIMITS, &mut self.pool)?;
        let (consumed, found) = (step.consumed, step.event.is_some());
        let mut framing = None;
        let mut answered = false;
        match step.event {
            None => {}
            Some(Event::Head(bytes)) => {
                let mut space = header_space();
                let head = Head::parse(bytes, &mut space)?;
                let host = head.host.unwrap_or("-");
                self.current = (format!("{:?} {host} {} {} ", head.method, head.path, head.query), head.keep_alive);
                framing = Some(head.framing());
            }
            Some(Event::Body(body)) => {
                self.requests.push(self.current.0.clone() + &String::from_utf8_lossy(body));
                answered = true;
            }
        }
        if let Some(framing) = framing {
            self.connection.begin_body(framing, BodyPlan::Collect, &LIMITS)?;
        }
        if answered {
            self.closed = !self.current.1;
            self.connection.next_request(&mut self.pool);
        }
        self.pending.drain(..consumed);
        Ok(consumed > 0 || found)
    }
}

fn serve<'p>(mut pieces: impl Iterator<Item = &'p [u8]>) -> Outcome {
    let mut server = Server::new();
    let error = pieces.find_map(|piece| server.receive(piece).err());
    if error.is_some() {
        let mut next = *b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let step = server.connection.handle_input(&mut next, &LIMITS, &mut server.pool).unwrap();
        assert_eq!((step.consumed, step.event), (0, None), "nothing is read behind a refused request");
    }
    (server.requests, error)
}

#[test]
fn every_case_comes_out_the_same_however_it_is_cut() {
    for (stream, requests, error) in CASES {
        let expected = (requests.iter().map(|&text| text.to_owned()).collect(), *error);
        let bytes = stream.as_bytes();
        assert_eq!(serve([bytes].into_iter()), expected, "{stream:?}");
        assert_eq!(serve(bytes.chunks(1)), expected, "byte by byte: {stream:?}");
        for cut in 1..bytes.len() {
            assert_eq!(serve([&bytes[..cut], &bytes[cut..]].into_iter()), expected, "cut at {cut}: {stream:?}");
        }
    }
}

#[test]
fn heads_are_limited_in_bytes_and_lines() {
    let head = |lines: usize, bytes: usize| {
        let lines = format!("GET / HTTP/1.1\r\nHost: h\r\n{}A: ", "B:\r\n".repeat(lines - 2));
        format!("{lines}{}\r\n\r\n", "c".repeat(bytes - lines.len() - 4))
    };
    for (stream, error) in [
        (head(2, 2048), None),
        (head(2, 2049), Some(E::HeadTooLarge { limit_bytes: 2048 })),
        (head(100, 1000), None),
        (head(101, 1000), Some(E::TooManyHeaders)),
    ] {
        for piece_bytes in [1, 7, 4096] {
            let (requests, refused) = serve(stream.as_bytes().chunks(piece_bytes));
            assert_eq!((requests.len(), refused), (usize::from(error.is_none()), error));
        }
    }
}

proptest! {
    /// Streams of two cases, a byte of them changed, cut anywhere: what is wrong stays wrong, what is right stays right.
    #[test]
    fn any_cut_is_the_whole(
        (first, second) in (0..CASES.len(), 0..CASES.len()),
        (at, byte) in (any::<prop::sample::Index>(), any::<u8>()),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = [CASES[first].0, CASES[second].0].concat().into_bytes();
        let at = at.index(stream.len());
        stream[at] = byte;
        let mut cuts: Vec<usize> = cuts.drain(..).map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        prop_assert_eq!(serve(pieces), serve([&stream[..]].into_iter()));
    }

    /// Nothing that a socket can bring makes the parser of heads panic, even if it did not come through a connection.
    #[test]
    fn no_head_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut space = header_space();
        let _ = Head::parse(&[b"GET / HTTP/1.1\r\n", &bytes[..]].concat(), &mut space);
    }
}
