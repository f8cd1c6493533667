//! SIGKILL under load: the next server has the port at once, and whoever comes back to it is told that something is missing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::http::post;
use support::server::{Launch, Server};
use support::socket::{Socket, handshake};
use support::stream::EventStream;
use support::wire::Connection;
use support::{figure, scaled};

const TOPIC: &str = "/topics/log";
const PUBLISHERS: usize = 4;

/// A subscriber, and where it stands.
enum Reader {
    Envelope(Socket),
    Session(Socket),
    Events(EventStream),
}

/// What a reader has: how many messages, and the cursor to come back with.
struct Stood {
    messages: u64,
    cursor: String,
}

impl Reader {
    fn open(address: SocketAddr, number: usize, since: &str) -> Self {
        let target = format!("{TOPIC}?envelope&on-gap=continue&since={since}");
        match number % 3 {
            0 => Self::Envelope(Socket::open(address, &target)),
            1 => {
                let head = handshake(&target, "Sec-WebSocket-Protocol: fantail.v1\r\n");
                let mut socket = Socket::upgrade(Connection::open(address), &head);
                assert_eq!(socket.json()["type"], "open");
                assert_eq!(socket.json()["type"], "ok");
                Self::Session(socket)
            }
            _ => {
                let mut stream = EventStream::open(address, &target, "");
                stream.start();
                Self::Events(stream)
            }
        }
    }

    /// The next object.
    fn next(&mut self) -> Value {
        match self {
            Self::Envelope(socket) | Self::Session(socket) => socket.json(),
            Self::Events(stream) => stream.event().json(),
        }
    }

    /// Reads until the connection breaks: every message, and none left out.
    fn read_to_the_end(mut self) -> Stood {
        let mut stood = Stood { messages: 0, cursor: String::new() };
        while let Some(object) = self.whole() {
            assert_eq!(object["type"], "message", "{object}");
            stood.cursor = object["cursor"].as_str().expect("a cursor").to_owned();
            assert_eq!(offset(&stood.cursor), stood.messages + 1, "none is left out, and none comes twice");
            stood.messages += 1;
        }
        stood
    }

    /// The next object, if it came whole before the connection broke.
    fn whole(&mut self) -> Option<Value> {
        match self {
            Self::Envelope(socket) | Self::Session(socket) => socket.try_json(),
            Self::Events(stream) => {
                let head = stream.wire.try_take_until(b"\r\n")?;
                let size =
                    usize::from_str_radix(std::str::from_utf8(&head[..head.len() - 2]).expect("ASCII"), 16).expect("a size");
                let chunk = String::from_utf8(stream.wire.try_take(size + 2)?).expect("UTF-8");
                let data = chunk.lines().find_map(|line| line.strip_prefix("data: ")).expect("data");
                Some(serde_json::from_str(data).expect("JSON"))
            }
        }
    }
}

fn offset(cursor: &str) -> u64 {
    cursor.split_once('.').and_then(|(_, offset)| offset.parse().ok()).expect("EPOCH.OFFSET")
}

/// Publishes until the connection breaks; how many were accepted.
fn publish(address: SocketAddr, is_killed: &AtomicBool) -> u64 {
    let (mut connection, mut accepted) = (Connection::open(address), 0);
    while connection.try_send(post(TOPIC, "", "x".repeat(100))) {
        match connection.try_take_until(b"\"subscribers\":") {
            Some(answer) => assert!(answer.windows(12).any(|part| part == b"HTTP/1.1 200"), "{}", answer.escape_ascii()),
            None => break,
        }
        connection.try_take_until(b"}");
        accepted += 1;
    }
    assert!(is_killed.load(Ordering::SeqCst), "the server ended a connection by itself");
    accepted
}

#[test]
fn after_a_kill_under_load_the_port_is_bound_at_once_and_nobody_misses_anything_in_silence() {
    let count = scaled(60, 3_000);
    let mut server = Server::start(&["--history-size", "100000", "--history-bytes", "64MiB"]);
    let address = server.address;
    let readers: Vec<_> = (0..count).map(|number| Reader::open(address, number, "earliest")).collect();
    let is_killed = AtomicBool::new(false);
    let (stood, accepted) = thread::scope(|scope| {
        let mut shares: Vec<Vec<Reader>> = (0..PUBLISHERS).map(|_| Vec::new()).collect();
        readers.into_iter().enumerate().for_each(|(number, reader)| shares[number % PUBLISHERS].push(reader));
        let publishers: Vec<_> = (0..PUBLISHERS).map(|_| scope.spawn(|| publish(address, &is_killed))).collect();
        thread::sleep(Duration::from_millis(500));
        is_killed.store(true, Ordering::SeqCst);
        server.kill();
        let readers: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(Reader::read_to_the_end).collect::<Vec<_>>()))
            .collect();
        let stood: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().expect("what came is in order")).collect();
        let accepted: u64 = publishers.into_iter().map(|publisher| publisher.join().expect("a publisher ends well")).sum();
        (stood, accepted)
    });
    server.wait();
    assert!(accepted > 0 && stood.iter().any(|one| one.messages > 0), "nothing was under way when it was killed");
    let delivered: u64 = stood.iter().map(|one| one.messages).sum();

    let start = Instant::now();
    let again = Launch::new(&[]).only(&[address]).start();
    figure(
        &format!("started again on the port of {count} connections that were cut"),
        start.elapsed(),
        Duration::from_millis(500),
    );
    for number in 0..5 {
        assert_eq!(again.connect().post(TOPIC, number.to_string()).status, 200);
    }
    let mut gaps = 0;
    for (number, one) in stood.into_iter().enumerate() {
        // Who had got nothing asks for all there is, as it did before.
        let since = if one.cursor.is_empty() { "earliest" } else { &one.cursor };
        let mut reader = Reader::open(address, number, since);
        if !one.cursor.is_empty() {
            let gap = reader.next();
            assert_eq!((&gap["type"], &gap["reason"]), (&"gap".into(), &"epoch".into()), "{gap}");
            assert_eq!(gap["from"], *one.cursor, "{gap}");
            gaps += 1;
        }
        for text in 0..5 {
            assert_eq!(reader.next()["text"], text.to_string());
        }
    }
    println!(
        "figure: accepted {accepted}, delivered {delivered} to {count} until the kill, gaps announced {gaps}, lost in silence 0"
    );
    again.assert_well();
}
