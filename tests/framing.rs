//! Frames, fragments and UTF-8 (RFC 6455 sections 5 and 8.1) as a hostile client sends them.

use std::time::{Duration, Instant};

use support::figure;
use support::server::Server;
use support::socket::{BINARY, CLOSE, CONTINUATION, FIN, Forged, Frame, PING, PONG, TEXT, Width, close_payload, frame};

/// `--max-message-size` unless a test says otherwise.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[track_caller]
fn closes_with(server: &Server, code: u16, bytes: impl AsRef<[u8]>) {
    let mut socket = server.socket("/echo");
    socket.send(bytes);
    socket.expect_close(code);
}

#[test]
fn unmasked_frames_reserved_bits_and_opcodes_are_protocol_errors() {
    let server = Server::start(&[]);
    closes_with(&server, 1002, Forged::new(TEXT, "hi").unmasked().bytes());
    for bit in [0x40, 0x20, 0x10] {
        closes_with(&server, 1002, frame(TEXT | bit, "hi"));
        closes_with(&server, 1002, frame(PING | bit, "hi"));
    }
    for opcode in (3..=7).chain(11..=15) {
        closes_with(&server, 1002, frame(FIN | opcode, "hi"));
    }
    server.assert_well();
}

#[test]
fn impossible_lengths_end_the_connection_before_any_payload_and_cost_no_memory() {
    let server = Server::start(&[]);
    for _ in 0..20 {
        for (first, length, code) in [
            (TEXT, 1 << 63, 1002),
            (TEXT, u64::MAX, 1002),
            (BINARY, 1 << 40, 1009),
            (TEXT, MESSAGE_BYTES_MAX as u64 + 1, 1009),
            (FIN | 3, 1 << 40, 1002),
        ] {
            closes_with(&server, code, Forged::new(first, "").declared(length).bytes());
        }
    }
    server.assert_well();
}

#[test]
fn a_length_must_take_its_shortest_form() {
    let server = Server::start(&[]);
    for (length, width) in [(5, Width::Two), (125, Width::Two), (5, Width::Eight), (126, Width::Eight), (0xFFFF, Width::Eight)] {
        closes_with(&server, 1002, Forged::new(BINARY, vec![0; length]).width(width).bytes());
    }
    let mut socket = server.socket("/echo");
    for length in [0, 125, 126, 0xFFFF, MESSAGE_BYTES_MAX] {
        socket.send(frame(BINARY, vec![7; length]));
        socket.expect(BINARY, vec![7; length]);
    }
    drop(socket);
    server.assert_well();
}

#[test]
fn a_large_message_that_stays_away_costs_what_came_and_is_cut_at_the_deadline() {
    const CONNECTIONS: usize = 30;
    let flags = ["--max-message-size", "16MiB", "--outbox-size", "33MiB", "--history-bytes", "16MiB", "--message-timeout", "2s"];
    let server = Server::start(&flags);
    let before = server.vitals().memory_bytes;
    let start = Instant::now();
    let begun = Forged::new(BINARY, [0]).declared(10 << 20).bytes();
    let mut sockets: Vec<_> = (0..CONNECTIONS).map(|_| server.socket("/echo")).collect();
    for socket in &mut sockets {
        socket.send(&begun);
    }
    std::thread::sleep(Duration::from_millis(500));
    let grown = server.vitals().memory_bytes.saturating_sub(before);
    println!("figure: {CONNECTIONS} messages of 10 MiB begun with one byte: {grown} bytes");
    assert!(grown < 10 << 20, "memory is taken for bytes that did not come: {grown} bytes");
    for socket in &mut sockets {
        let close = socket.expect_close(1008);
        assert_eq!(close.json()["cause"], "message_timeout", "{close:?}");
    }
    let cut = start.elapsed();
    assert!(cut >= Duration::from_secs(2), "cut before the deadline: {cut:?}");
    figure("unfinished messages cut", cut, Duration::from_secs(3));
    drop(sockets);
    server.assert_well();
}

#[test]
fn a_stream_cut_anywhere_means_the_same() {
    let server = Server::start(&[]);
    let stream = [
        frame(TEXT, "héllo"),
        frame(TEXT & !FIN, "in "),
        frame(PING, "now"),
        frame(CONTINUATION & !FIN, [0xE2, 0x82]),
        frame(CONTINUATION, [0xAC]),
        frame(BINARY, [0; 130]),
        frame(CLOSE, close_payload(1000, "bye")),
    ]
    .concat();
    let check = |cut: &dyn Fn(&mut support::socket::Socket)| {
        let mut socket = server.socket("/echo");
        cut(&mut socket);
        // A pong may overtake messages (RFC 6455 section 5.5.3), so it is taken out of the order.
        let (pongs, messages): (Vec<_>, Vec<_>) = (0..4).map(|_| socket.frame()).partition(|frame| frame.first == PONG);
        let answer = |first: u8, payload: &[u8]| Frame { first, payload: payload.to_vec() };
        assert_eq!(pongs, [answer(PONG, b"now")]);
        assert_eq!(messages, [answer(TEXT, "héllo".as_bytes()), answer(TEXT, "in €".as_bytes()), answer(BINARY, &[0; 130])]);
        assert_eq!(socket.close().code, Some(1000));
        socket.wire.expect_end();
    };
    for at in 0..stream.len() {
        check(&|socket| {
            socket.send(&stream[..at]);
            // Long enough for the server to see the first part alone.
            std::thread::sleep(Duration::from_millis(1));
            socket.send(&stream[at..]);
        });
    }
    check(&|socket| socket.wire.send_bytewise(&stream));
    server.assert_well();
}

#[test]
fn fragments_come_in_their_order_or_not_at_all() {
    let server = Server::start(&[]);
    closes_with(&server, 1002, frame(CONTINUATION, "orphan"));
    closes_with(&server, 1002, frame(CONTINUATION & !FIN, "orphan"));
    closes_with(&server, 1002, [frame(TEXT & !FIN, "one"), frame(TEXT, "two")].concat());
    closes_with(&server, 1002, [frame(BINARY & !FIN, "one"), frame(TEXT & !FIN, "two")].concat());
    // After a whole message nothing is left to continue.
    let mut socket = server.socket("/echo");
    socket.send([frame(TEXT & !FIN, "a"), frame(CONTINUATION, "b"), frame(CONTINUATION, "c")].concat());
    socket.expect(TEXT, "ab");
    socket.expect_close(1002);
    server.assert_well();
}

/// While a message comes in fragments, the server has at most twice the largest message for it, beside the few pages that an
/// allocator takes at a time.
#[track_caller]
fn assert_cheap(server: &Server, before: u64) {
    const PAGES_BYTES: u64 = 512 << 10;
    let grown = server.vitals().memory_bytes.saturating_sub(before);
    assert!(grown <= 2 * MESSAGE_BYTES_MAX as u64 + PAGES_BYTES, "{grown} bytes for a message of at most {MESSAGE_BYTES_MAX}");
}

#[test]
fn many_tiny_fragments_are_one_message() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/echo");
    let before = server.vitals().memory_bytes;
    socket.send(frame(BINARY & !FIN, "x"));
    // Whole buffers per fragment would be gigabytes, and even 16 bytes for each would be a mebibyte.
    let some = frame(CONTINUATION & !FIN, "x").repeat(MESSAGE_BYTES_MAX / 64);
    for _ in 0..63 {
        socket.send(&some);
        assert_cheap(&server, before);
    }
    socket.send(frame(CONTINUATION & !FIN, "x").repeat(MESSAGE_BYTES_MAX / 64 - 2));
    socket.send(frame(CONTINUATION, "x"));
    assert_cheap(&server, before);
    socket.expect(BINARY, vec![b'x'; MESSAGE_BYTES_MAX]);
    drop(socket);
    server.assert_well();
}

#[test]
fn endless_empty_fragments_are_cut() {
    let server = Server::start(&["--message-timeout", "1s"]);
    let mut socket = server.socket("/echo");
    socket.send(frame(TEXT & !FIN, ""));
    let empty = frame(CONTINUATION & !FIN, "").repeat(2000);
    let (start, before) = (Instant::now(), server.vitals().memory_bytes);
    while socket.wire.try_send(&empty) {
        assert_cheap(&server, before);
        assert!(start.elapsed() < Duration::from_secs(20), "nothing ends a message that never ends");
    }
    figure("endless empty fragments cut", start.elapsed(), Duration::from_secs(2));
    assert_eq!(socket.close().code, Some(1008));
    drop(socket);
    server.assert_well();
}

#[test]
fn fragments_together_obey_the_limit() {
    let server = Server::start(&[]);
    let full = frame(BINARY & !FIN, vec![0; MESSAGE_BYTES_MAX]);
    closes_with(&server, 1009, [full.clone(), frame(CONTINUATION & !FIN, "x")].concat());
    // The header of the fragment that would cross is enough.
    closes_with(&server, 1009, [full, Forged::new(CONTINUATION, "").declared(1).bytes()].concat());
    server.assert_well();
}

#[test]
fn bad_utf8_is_refused_before_the_message_ends() {
    let server = Server::start(&[]);
    for bad in [&b"\xFF"[..], b"\xED\xA0\x80", b"\xC0\xAF", b"\xF4\x90\x80\x80", b"ok\x80"] {
        closes_with(&server, 1007, frame(TEXT, bad));
        // No FIN: the verdict may not wait for it.
        closes_with(&server, 1007, frame(TEXT & !FIN, bad));
        closes_with(&server, 1007, [frame(TEXT & !FIN, "fine "), frame(CONTINUATION & !FIN, bad)].concat());
        // Not even for the rest of the frame.
        closes_with(&server, 1007, Forged::new(TEXT, bad).declared(1000).bytes());
    }
    // A code point that FIN cuts.
    closes_with(&server, 1007, frame(TEXT, b"caf\xC3"));
    closes_with(&server, 1007, [frame(TEXT & !FIN, b"\xF0\x9F"), frame(CONTINUATION, b"\x98")].concat());
    server.assert_well();
}

#[test]
fn a_code_point_may_be_split_over_fragments_and_binary_is_not_text() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/echo");
    for at in 1..4 {
        let smile = "😀".as_bytes();
        socket.send([frame(TEXT & !FIN, &smile[..at]), frame(CONTINUATION, &smile[at..])].concat());
        socket.expect(TEXT, "😀");
    }
    socket.send(frame(BINARY, b"\xFF\xED\xA0\x80"));
    socket.expect(BINARY, b"\xFF\xED\xA0\x80");
    drop(socket);
    server.assert_well();
}

#[test]
fn control_frames_are_short_whole_and_welcome_between_fragments() {
    let server = Server::start(&[]);
    closes_with(&server, 1002, frame(PING, [0; 126]));
    closes_with(&server, 1002, frame(PING & !FIN, "cut"));
    closes_with(&server, 1002, frame(PONG & !FIN, "cut"));
    let mut socket = server.socket("/echo");
    socket.send([frame(TEXT & !FIN, "one "), frame(PING, [9; 125])].concat());
    // The pong may not wait for the message.
    socket.expect(PONG, [9; 125]);
    socket.send([frame(CONTINUATION & !FIN, ""), frame(PONG, "unasked"), frame(CONTINUATION, "two")].concat());
    socket.expect(TEXT, "one two");
    drop(socket);
    server.assert_well();
}
