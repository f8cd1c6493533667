//! How connections end: the close handshake (RFC 6455 section 7), half-closed, silent and torn connections.

use std::time::{Duration, Instant};

use support::figure;
use support::server::Server;
use support::socket::{CLOSE, CONTINUATION, FIN, Forged, PING, PONG, TEXT, close_payload, frame};
use support::wire::End;

#[test]
fn a_million_pings_without_a_reader_stay_bounded() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/echo");
    let start = Instant::now();
    // Each block ends with a ping of its own, so that the last answer can be told.
    let block = frame(PING, "").repeat(9_999);
    let taken = (0..100).all(|_| socket.wire.try_send(&block) && socket.wire.try_send(frame(PING, "last")));
    println!("figure: a million pings sent in {:.1?}, all taken: {taken}", start.elapsed());
    if taken {
        // Pongs may be coalesced, the newest ping's must come (RFC 6455 section 5.5.3).
        while socket.frame().payload != b"last" {}
        socket.text("after");
        while socket.frame().payload != b"after" {}
    } else {
        assert_eq!(socket.close_after_pongs(), Some(1008));
    }
    drop(socket);
    server.assert_well();
}

#[test]
fn a_million_unasked_pongs_change_nothing() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/echo");
    let block = frame(PONG, "x").repeat(10_000);
    for _ in 0..100 {
        socket.send(&block);
    }
    socket.echo("after a million pongs");
    drop(socket);
    server.assert_well();
}

#[test]
fn a_close_is_echoed_at_once_and_the_stream_ends() {
    let server = Server::start(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        let mut socket = server.socket("/echo");
        let start = Instant::now();
        socket.send(frame(CLOSE, close_payload(code, "for a reason")));
        assert_eq!(socket.close().code, Some(code));
        // The client stays silent and leaves its side open: the server does not wait for it.
        socket.wire.expect_end();
        figure("close echoed and TCP closed", start.elapsed(), Duration::from_millis(100));
    }
    let mut socket = server.socket("/echo");
    socket.send(frame(CLOSE, ""));
    assert!(matches!(socket.close().code, None | Some(1000)));
    socket.wire.expect_end();
    server.assert_well();
}

#[test]
fn a_malformed_close_is_a_protocol_error() {
    let server = Server::start(&[]);
    let closes_with = |code: u16, payload: &[u8]| {
        let mut socket = server.socket("/echo");
        socket.send(frame(CLOSE, payload));
        socket.expect_close(code);
    };
    closes_with(1002, &[3]);
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        closes_with(1002, &close_payload(code, ""));
    }
    closes_with(1007, &close_payload(1000, b"\xFF\xFE"));
    closes_with(1007, &close_payload(1000, b"cut \xE2\x82"));
    closes_with(1002, &close_payload(1000, [b'x'; 124]));
    server.assert_well();
}

#[test]
fn what_follows_a_close_is_ignored() {
    let server = Server::start(&[]);
    for after in [frame(TEXT, "too late"), frame(PING, "too late"), frame(FIN | 3, "nonsense"), vec![0xFF; 3000]] {
        let mut socket = server.socket("/echo");
        socket.send([frame(TEXT, "first"), frame(CLOSE, close_payload(1000, "")), after].concat());
        socket.expect(TEXT, "first");
        assert_eq!(socket.close().code, Some(1000));
        let (rest, _) = socket.wire.rest(support::PATIENCE);
        assert!(rest.is_empty(), "{rest:?}");
    }
    server.assert_well();
}

#[test]
fn a_request_whose_client_has_finished_sending_is_answered() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.finish();
    assert_eq!(connection.response().status, 200);
    connection.expect_end();
    // The same with a body, and the end in one segment with it.
    let mut connection = server.connect();
    connection.send(support::http::post("/topics/half", "", "closed"));
    connection.finish();
    assert_eq!(connection.response().status, 200);
    connection.expect_end();
    server.assert_well();
}

#[test]
fn streams_that_end_in_the_middle_are_freed() {
    let server = Server::start(&[]);
    let begun: [&[u8]; 5] = [
        b"",
        &Forged::new(TEXT, "half").declared(100).bytes(),
        &[TEXT],
        &frame(TEXT & !FIN, "fragment"),
        &[frame(TEXT & !FIN, "fragment"), vec![CONTINUATION]].concat(),
    ];
    let before = server.metrics().sum("fantail_connections_closed_total", &[("cause", "end_of_stream")]);
    for bytes in begun {
        let mut socket = server.socket("/echo");
        socket.send(bytes);
        socket.wire.finish();
        let start = Instant::now();
        let (_, end) = socket.wire.rest(support::PATIENCE);
        figure("freed after the client's end of stream", start.elapsed(), Duration::from_secs(1));
        assert_eq!(end, End::Closed);
    }
    server.expect_metric("fantail_connections_closed_total", &[("cause", "end_of_stream")], before + begun.len() as f64);
    server.assert_well();
}

#[test]
fn five_thousand_torn_connections_leave_nothing() {
    let server = Server::start(&[]);
    let start = Instant::now();
    let half = Forged::new(TEXT, "half").declared(100).bytes();
    for _ in 0..5_000 {
        let mut socket = server.socket("/echo");
        socket.send(&half);
        socket.wire.reset();
    }
    println!("figure: 5,000 upgraded, cut by RST in the middle of a frame: {:.1?}", start.elapsed());
    server.assert_well();
    server.expect_metric("fantail_connections", &[("transport", "echo")], 0.0);
}
