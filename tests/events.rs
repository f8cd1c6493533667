//! Event streams: what is published, where the client stands, and how a stream ends.

use std::time::{Duration, Instant};

use serde_json::json;
use support::http::{ask, post, refused};
use support::server::Server;
use support::stream::{Event, EventStream, request};
use support::wire::Connection;
use support::{figure, scaled};

/// Room for all that is published, and an outbox for little of it.
const LARGE: [&str; 6] = ["--outbox-size", "1MiB", "--history-size", "1000", "--history-bytes", "64MiB"];

/// 16 MiB with their texts: more than all buffers between server and client.
const MESSAGES: usize = 512;

fn publish(server: &Server, topic: &str, content_type: &str, body: impl AsRef<[u8]>) -> String {
    let line = format!("Content-Type: {content_type}\r\n");
    let answer = ask(server.address, post(&format!("/topics/{topic}"), &line, body)).json();
    answer["cursor"].as_str().expect("a cursor").to_owned()
}

fn publish_numbers(server: &Server, topic: &str, range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| publish(server, topic, "text/plain", number.to_string())).collect()
}

fn stream(server: &Server, target: &str) -> EventStream {
    EventStream::open(server.address, target, "")
}

fn expect_numbers(stream: &mut EventStream, range: std::ops::Range<u32>) {
    for number in range {
        assert_eq!(stream.event().data, Some(number.to_string()));
    }
}

#[test]
fn a_stream_carries_what_is_published() {
    let server = Server::start(&["--workers", "2"]);
    let mut streams: Vec<_> = (0..4).map(|_| stream(&server, "/topics/chat")).collect();
    let mut envelope = stream(&server, "/topics/chat?envelope&as=sse");
    let start = envelope.start();
    for stream in &mut streams {
        assert_eq!(stream.start(), start);
        assert!(stream.response.header("Fantail-Connection").is_some());
        assert_eq!(stream.response.header("Fantail-Recovered"), None);
        assert_eq!(stream.response.header("Cache-Control"), Some("no-store"));
        assert_eq!(stream.response.header("X-Accel-Buffering"), Some("no"), "nginx passes each event on as it comes");
    }
    for (content_type, body, event, data, object) in [
        ("text/plain", &b"one"[..], None, "one", json!({"text": "one"})),
        ("text/plain", b"two\nlines\r\nor three\n", None, "two\nlines\nor three\n", json!({"text": "two\nlines\r\nor three\n"})),
        ("application/json", b"{\"x\":\n1}", None, "{\"x\":\n1}", json!({"data": {"x": 1}})),
        ("image/png", b"\xFF\x00", Some("binary"), "/wA=", json!({"base64": "/wA="})),
        ("text/plain", b"", None, "", json!({"text": ""})),
    ] {
        let cursor = publish(&server, "chat", content_type, body);
        let expected =
            Event { retry_ms: None, id: Some(cursor.clone()), event: event.map(str::to_owned), data: Some(data.into()) };
        for stream in &mut streams {
            assert_eq!(stream.event(), expected);
        }
        let event = envelope.event();
        let message = event.json();
        assert_eq!((event.id.as_ref(), &message["cursor"]), (Some(&cursor), &json!(cursor)));
        for (name, value) in object.as_object().expect("an object") {
            assert_eq!(&message[name], value, "{message}");
        }
    }
    server.expect_metric("fantail_connections", &[("transport", "sse")], 5.0);
    server.expect_metric("fantail_messages_sent_total", &[("transport", "sse")], 25.0);
    drop((streams, envelope));
    server.assert_well();
}

#[test]
fn who_comes_back_says_where_he_stands() {
    let server = Server::start(&[]);
    let cursors = publish_numbers(&server, "chat", 0..5);
    let mut late = stream(&server, "/topics/chat");
    assert_eq!(late.start(), cursors[4], "where it stands, so that it can come back before it has got anything");
    for (since, id, start, first, told) in [
        (Some("earliest"), None, None, 0, None),
        (Some(&*cursors[2]), None, Some(&cursors[2]), 3, Some("true")),
        (None, Some(&cursors[1]), Some(&cursors[1]), 2, Some("true")),
        (Some("earliest"), Some(&cursors[3]), Some(&cursors[3]), 4, Some("true")),
    ] {
        let since = since.map_or_else(String::new, |since| format!("?since={since}"));
        let id = id.map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let mut stream = EventStream::open(server.address, &format!("/topics/chat{since}"), &id);
        assert_eq!(stream.response.header("Fantail-Recovered"), told, "{since} {id}");
        let begins = stream.start();
        assert!(start.is_none_or(|start| *start == begins), "{since} {id}: {begins}");
        expect_numbers(&mut stream, first..5);
    }
    publish_numbers(&server, "chat", 5..6);
    expect_numbers(&mut late, 5..6);
}

#[test]
fn what_is_gone_is_an_event_and_the_stream_goes_on() {
    let server = Server::start(&["--history-size", "3"]);
    let cursors = publish_numbers(&server, "chat", 0..10);
    let huge = "x".repeat(2000);
    for (id, from, reason) in [
        (cursors[2].as_str(), cursors[2].as_str(), "trimmed"),
        ("Elsewhere.3", "Elsewhere.3", "epoch"),
        ("of another server", "unknown.0", "epoch"),
        (&huge, "unknown.0", "epoch"),
    ] {
        let mut stream = EventStream::open(server.address, "/topics/chat", &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(stream.response.header("Fantail-Recovered"), Some("false"), "{id}");
        assert_eq!(stream.start(), from);
        let gap = stream.event();
        assert_eq!((gap.event.as_deref(), gap.id.as_ref()), (Some("gap"), Some(&cursors[6])));
        let object = json!({"type": "gap", "topic": "chat", "from": from, "to": cursors[6], "reason": reason});
        assert_eq!(gap.json(), object);
        expect_numbers(&mut stream, 7..10);
    }
    server.assert_well();
}

#[test]
fn silence_is_broken_by_pings() {
    let server = Server::start(&["--ping-interval", "100ms"]);
    let mut stream = stream(&server, "/topics/chat");
    stream.start();
    for _ in 0..3 {
        let ping = stream.event();
        assert_eq!((ping.event.as_deref(), ping.data.as_deref(), ping.id), (Some("ping"), Some("{}"), None));
    }
    publish(&server, "chat", "text/plain", "hello");
    let next = std::iter::repeat_with(|| stream.event()).find(|event| event.event.is_none());
    assert_eq!(next.and_then(|event| event.data), Some("hello".into()));
}

#[test]
fn a_stopping_server_ends_its_streams_in_order_and_says_when_to_come_back() {
    let mut server = Server::start(&["--drain-window", "200ms"]);
    let mut stream = stream(&server, "/topics/chat");
    stream.start();
    server.terminate();
    let last = stream.event();
    assert!(last.retry_ms.is_some_and(|delay| (500..=700).contains(&delay)), "{last:?}");
    assert_eq!(stream.next_event(), None);
    stream.wire.expect_end();
    assert!(server.wait().success());
}

#[test]
fn a_passing_refusal_does_not_make_a_browser_give_up() {
    let server = Server::start(&["--max-topics", "1", "--workers", "1"]);
    let mut first = stream(&server, "/topics/one");
    first.start();
    let mut refused = stream(&server, "/topics/two");
    let event = refused.event();
    assert!(event.retry_ms.is_some_and(|delay| (500..=20_000).contains(&delay)), "{event:?}");
    assert_eq!(refused.next_event(), None);
    refused.wire.expect_end();
}

#[test]
fn what_cannot_be_streamed_is_refused() {
    let server = Server::start(&[]);
    let old = request("/topics/chat", "").replace("HTTP/1.1", "HTTP/1.0");
    ask(server.address, old).problem(505);
    ask(server.address, request("/topics?topic=a&topic=b", "")).problem(400);
    ask(server.address, request("/topics/a//b", "")).problem(400);
    ask(server.address, request("/topics/chat?since=soon", "")).problem(400);
    ask(server.address, request("/topics/chat", "Origin: https://evil.example\r\n")).problem(403);
    let mut wire = Connection::open(server.address);
    wire.send(request("/topics/chat", "").replace("GET", "HEAD"));
    let head = wire.response_head();
    assert_eq!((head.status, head.header("Content-Type")), (200, Some("text/event-stream")));
    wire.expect_end();
    server.assert_well();
}

#[test]
fn a_client_that_leaves_or_shuts_its_side_is_let_go() {
    let server = Server::start(&[]);
    let mut shut: Vec<_> = (0..scaled(20, 2_000)).map(|_| stream(&server, "/topics/chat")).collect();
    for stream in &mut shut {
        stream.start();
        stream.wire.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let began = Instant::now();
    shut.iter_mut().for_each(|stream| stream.wire.finish());
    for stream in &mut shut {
        stream.wire.expect_end();
    }
    figure(&format!("{} streams whose clients shut their sides ended", shut.len()), began.elapsed(), Duration::from_secs(1));
    stream(&server, "/topics/chat").wire.reset();
    server.expect_metric("fantail_connections", &[("transport", "sse")], 0.0);
    server.assert_well();
}

#[test]
fn whatever_stands_in_last_event_id_a_gap_is_told_or_it_is_no_request() {
    let server = Server::start(&[]);
    publish_numbers(&server, "chat", 0..3);
    let huge = "x".repeat(15_000);
    let longest = format!("{}.9007199254740991", "Z".repeat(12));
    for id in
        ["", "0", "k3Vq.99999999999999999999", "k3Vq.-1", "k3Vq.7%00", "earliest", "~AAAA", "\u{e9}\u{1f980}", &huge, &longest]
    {
        let mut stream = EventStream::open(server.address, "/topics/chat", &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(stream.response.header("Fantail-Recovered"), Some("false"), "{id:.40}");
        let from = stream.start();
        let gap = stream.event();
        assert_eq!((gap.event.as_deref(), &gap.json()["from"]), (Some("gap"), &json!(from)), "{id:.40}");
        assert_eq!(gap.json()["reason"], "epoch", "{id:.40}");
        expect_numbers(&mut stream, 0..3);
    }
    // RFC 9110 section 5.5: what holds NUL is no header; and a head has its limit.
    for (id, status) in [("k3Vq.\0", 400), ("\0", 400), (&*"x".repeat(100_000), 431)] {
        refused(server.address, request("/topics/chat", &format!("Last-Event-ID: {id}\r\n"))).problem(status);
    }
    server.assert_well();
}

#[test]
fn streams_whose_clients_stop_reading_are_cut_as_stalled() {
    const MESSAGES: usize = 160;
    // All of it finds room, so that nothing but the kernel's silence ends them.
    let room = ["--outbox-size", "16MiB", "--worker-outbox-size", "16GiB", "--write-timeout", "1s"];
    let server = Server::start(&room);
    let mut stopped: Vec<_> =
        (0..scaled(5, 500)).map(|_| EventStream::on(Connection::open_narrow(server.address), "/topics/flow", "")).collect();
    stopped.iter_mut().for_each(|stream| drop(stream.start()));
    let mut healthy = stream(&server, "/topics/flow");
    healthy.start();
    let mut publisher = server.connect();
    let text = "x".repeat(60_000);
    let start = Instant::now();
    for _ in 0..MESSAGES {
        assert_eq!(publisher.post("/topics/flow", &text).status, 200);
        assert_eq!(healthy.event().data.as_ref(), Some(&text), "who reads gets everything");
    }
    server.expect_metric("fantail_connections_closed_total", &[("cause", "stalled_write")], stopped.len() as f64);
    figure(&format!("{} streams that nobody reads were cut", stopped.len()), start.elapsed(), Duration::from_secs(scaled(5, 30)));
    server.expect_metric("fantail_connections", &[("transport", "sse")], 1.0);
    drop((stopped, healthy, publisher));
    server.assert_well();
}

#[test]
fn a_client_that_reads_too_slowly_is_cut_in_order_and_gets_it_all_when_it_comes_back() {
    // No deadline may come before the policy, nor before the end of the stream, which is read late.
    let patience = ["--write-timeout", "30s", "--close-timeout", "30s"];
    let server = Server::start(&[&patience[..], &LARGE].concat());
    let mut slow = EventStream::on(Connection::open_narrow(server.address), "/topics/log", "");
    let mut cursor = slow.start();
    let text = |number: usize| format!("{number} {}", "x".repeat(32 * 1024));
    let mut publisher = Connection::open(server.address);
    for number in 0..MESSAGES {
        assert_eq!(publisher.post("/topics/log", text(number)).status, 200);
    }
    let (mut got, mut end) = (0, None);
    while let Some(event) = slow.next_event() {
        if event.event.as_deref() == Some("end") {
            end = event.data;
            continue;
        }
        assert_eq!((event.data, &end), (Some(text(got)), &None));
        cursor = event.id.expect("an id");
        got += 1;
    }
    assert_eq!(end.as_deref(), Some("{\"cause\":\"slow_consumer\"}"), "the last event says why");
    slow.wire.expect_end();
    server.expect_metric("fantail_connections_closed_total", &[("cause", "slow_consumer")], 1.0);
    assert!(got < MESSAGES, "everything found room");
    let mut again = EventStream::open(server.address, "/topics/log", &format!("Last-Event-ID: {cursor}\r\n"));
    assert_eq!(again.response.header("Fantail-Recovered"), Some("true"));
    assert_eq!(again.start(), cursor);
    for number in got..MESSAGES {
        assert_eq!(again.event().data, Some(text(number)));
    }
}
