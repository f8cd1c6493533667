//! The subprotocol `fantail.v1` on a real server: requests, answers, and what they promise, on several workers.

use std::time::Duration;

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{BINARY, PING, PONG, Socket, TEXT, frame, handshake};
use support::wire::Connection;

const OFFER: &str = "Sec-WebSocket-Protocol: fantail.v1\r\n";

/// A session behind its `open`.
struct Session(Socket);

impl Session {
    fn open(server: &Server, target: &str) -> Self {
        Self::on(server.connect(), target)
    }

    fn on(connection: Connection, target: &str) -> Self {
        let mut socket = Socket::upgrade(connection, &handshake(target, OFFER));
        assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), Some("fantail.v1"));
        let open = socket.json();
        assert_eq!((&open["type"], open["client"].as_str()), (&json!("open"), socket.response.header("Fantail-Connection")));
        Self(socket)
    }

    fn send(&mut self, request: &Value) {
        self.0.text(&request.to_string());
    }

    /// The next object that is no ping.
    fn next(&mut self) -> Value {
        std::iter::repeat_with(|| self.0.json()).find(|object| object["type"] != "ping").expect("it repeats")
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.next()
    }

    /// Subscribes and returns the cursor where the subscription begins.
    fn subscribe(&mut self, topic: &str, since: Option<&str>) -> String {
        let ok = self.ask(&json!({"id": topic, "type": "subscribe", "topic": topic, "since": since}));
        assert_eq!((&ok["type"], &ok["id"], &ok["topic"]), (&json!("ok"), &json!(topic), &json!(topic)), "{ok}");
        ok["cursor"].as_str().expect("where it begins").to_owned()
    }

    fn expect_texts(&mut self, texts: std::ops::Range<u32>) {
        for number in texts {
            assert_eq!(self.next()["text"], number.to_string());
        }
    }

    /// Asks, and expects a problem of this type.
    fn expect_problem(&mut self, request: &Value, kind: &str) -> Value {
        let error = self.ask(request);
        assert_eq!((&error["type"], error.get("id")), (&json!("error"), request.get("id")), "{request}: {error}");
        assert_eq!(error["problem"]["type"], format!("urn:fantail:problem:{kind}"), "{request}");
        assert!(error["problem"]["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{error}");
        error
    }
}

fn publish(server: &Server, topic: &str, texts: std::ops::Range<u32>) -> Vec<String> {
    let publish = |number: u32| ask(server.address, post(&format!("/topics/{topic}"), "", number.to_string())).json();
    texts.map(|number| publish(number)["cursor"].as_str().expect("a cursor").to_owned()).collect()
}

#[test]
fn it_is_spoken_where_it_is_offered_and_topics_are() {
    let server = Server::start(&[]);
    for (target, offered, selected) in [
        ("/topics/a", "fantail.v1", Some("fantail.v1")),
        ("/topics", "fantail.v1", Some("fantail.v1")),
        ("/topics?topic=a&topic=b", "mqtt, fantail.v1, soap", Some("fantail.v1")),
        ("/topics/a", "Fantail.v1, fantail.v2", None),
        ("/echo", "fantail.v1", None),
    ] {
        let head = handshake(target, &format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        let socket = Socket::upgrade(server.connect(), &head);
        assert_eq!(socket.response.header("Sec-WebSocket-Protocol"), selected, "{target} {offered}");
    }
    let refused = |target| ask(server.address, handshake(target, OFFER));
    assert_eq!(refused("/topics?topic=a&topic=b&since=k.1").problem(400)["type"], "urn:fantail:problem:cursor-of-one-topic");
    assert_eq!(refused("/topics/a//b").problem(400)["type"], "urn:fantail:problem:bad-topic");
    server.assert_well();
}

#[test]
fn open_tells_what_the_well_known_page_tells() {
    let server = Server::start(&["--ping-interval", "7s", "--max-message-size", "10000", "--max-subscriptions", "9"]);
    let mut socket = Socket::upgrade(server.connect(), &handshake("/topics", OFFER));
    let (mut open, told) = (socket.json(), get(server.address, "/.well-known/fantail").json());
    let members = open.as_object_mut().expect("an object");
    assert_eq!((members.remove("type"), members.remove("client").is_some()), (Some(json!("open")), true));
    assert_eq!(members.remove("max_unconfirmed"), Some(json!(16)));
    assert_eq!(
        (&members["ping_ms"], &members["max_message_bytes"], &members["max_subscriptions"]),
        (&json!(7000), &json!(10_000), &json!(9))
    );
    for (name, value) in members {
        assert_eq!(told.get(name), Some(&*value), "{name}");
    }
}

#[test]
fn topics_come_and_go_and_publications_have_answers() {
    let server = Server::start(&["--workers", "2"]);
    let mut sessions: Vec<Session> = (0..4).map(|_| Session::open(&server, "/topics/a")).collect();
    for session in &mut sessions {
        let ok = session.next();
        assert_eq!((&ok["type"], &ok["topic"], ok.get("id")), (&json!("ok"), &json!("a"), None));
        session.subscribe("b", None);
    }
    for (topic, member, value) in [
        ("a", "data", json!({"x": [1, null, "é"]})),
        ("b", "data", Value::Null),
        ("a", "text", json!("two\nlines")),
        ("b", "base64", json!("/wA=")),
    ] {
        let mut request = json!({"id": 1, "type": "publish", "topic": topic});
        request[member] = value.clone();
        sessions[0].send(&request);
        let (mut first, mut second) = (sessions[0].next(), sessions[0].next());
        if first["type"] == "message" {
            std::mem::swap(&mut first, &mut second);
        }
        assert_eq!((&first["id"], &first["type"], &first["topic"]), (&json!(1), &json!("ok"), &json!(topic)));
        assert_eq!((&first["cursor"], &second[member]), (&second["cursor"], &value));
        for session in &mut sessions[1..] {
            assert_eq!(session.next(), second);
        }
    }
    for session in &mut sessions {
        assert_eq!(
            session.ask(&json!({"id": 2, "type": "unsubscribe", "topic": "a"})),
            json!({"id": 2, "type": "ok", "topic": "a"})
        );
        assert_eq!(session.ask(&json!({"id": 3, "type": "ping"})), json!({"id": 3, "type": "ok"}));
    }
    publish(&server, "a", 0..5);
    publish(&server, "b", 5..6);
    sessions.iter_mut().for_each(|session| session.expect_texts(5..6));
    server.expect_metric("fantail_connections", &[("transport", "websocket")], 4.0);
    drop(sessions);
    server.assert_well();
}

#[test]
fn who_comes_back_gets_what_it_missed_of_every_topic() {
    let server = Server::start(&["--workers", "2"]);
    let mut session = Session::open(&server, "/topics");
    // Cut off before anything came: the answers say where it stood.
    let stood: Vec<String> = ["a", "b", "c"].iter().map(|topic| session.subscribe(topic, None)).collect();
    drop(session);
    for topic in ["a", "b", "c"] {
        publish(&server, topic, 0..5);
    }
    let mut sessions: Vec<Session> = (0..4).map(|_| Session::open(&server, "/topics")).collect();
    for session in &mut sessions {
        for (topic, cursor) in ["a", "b", "c"].iter().zip(&stood) {
            let ok = session.ask(&json!({"id": 1, "type": "subscribe", "topic": topic, "since": cursor}));
            assert_eq!(ok, json!({"id": 1, "type": "ok", "topic": topic, "cursor": cursor, "recovered": true}));
            session.expect_texts(0..5);
        }
    }
    publish(&server, "b", 5..8);
    for session in &mut sessions {
        session.expect_texts(5..8);
        assert!(session.0.wire.is_silent(Duration::from_millis(10)));
    }
    let mut late = Session::open(&server, "/topics/a?since=earliest");
    assert_eq!(late.next().get("recovered"), None, "nothing is known of what this one had");
    late.expect_texts(0..5);
    drop((sessions, late));
    server.assert_well();
}

#[test]
fn what_is_gone_is_a_gap_and_the_session_goes_on() {
    let server = Server::start(&["--history-size", "3"]);
    let cursors = publish(&server, "chat", 0..10);
    let future = format!("{}0", cursors[9]);
    for (since, reason, to, first) in [
        (cursors[2].as_str(), "trimmed", &cursors[6], 7),
        ("Elsewhere.3", "epoch", &cursors[6], 7),
        (&future, "future", &cursors[9], 10),
    ] {
        let mut session = Session::open(&server, &format!("/topics/chat?since={since}&on-gap=close"));
        assert_eq!(session.next(), json!({"type": "ok", "topic": "chat", "cursor": since, "recovered": false}));
        let gap = json!({"type": "gap", "topic": "chat", "from": since, "to": to, "reason": reason});
        assert_eq!(session.next(), gap);
        session.expect_texts(first..10);
        assert_eq!(session.ask(&json!({"type": "ping"})), json!({"type": "ok"}));
    }
    server.expect_metric("fantail_recoveries_total", &[("result", "gap")], 3.0);
    server.assert_well();
}

#[test]
fn bad_requests_are_told_the_rule_and_harm_nothing() {
    let server = Server::start(&["--workers", "2"]);
    let mut session = Session::open(&server, "/topics/chat");
    session.next();
    let long = "t".repeat(256);
    for (request, kind) in [
        (json!({"id": 1}), "unknown-type"),
        (json!({"id": 1, "type": "Subscribe", "topic": "a"}), "unknown-type"),
        (json!({"id": 1, "type": null}), "unknown-type"),
        (json!({"id": 1, "type": "subscribe"}), "bad-member"),
        (json!({"id": 1, "type": "subscribe", "topic": 7}), "bad-member"),
        (json!({"id": 1, "type": "subscribe", "topic": "a", "since": "soon"}), "bad-member"),
        (json!({"id": 1, "type": "subscribe", "topic": ""}), "bad-topic"),
        (json!({"id": 1, "type": "subscribe", "topic": "a//b"}), "bad-topic"),
        (json!({"id": 1, "type": "subscribe", "topic": "a\u{0}"}), "bad-topic"),
        (json!({"id": 1, "type": "subscribe", "topic": long}), "bad-topic"),
        (json!({"id": 1, "type": "subscribe", "topic": "meta/x"}), "reserved-topic"),
        (json!({"id": 1, "type": "subscribe", "topic": "a/*"}), "not-in-this-version"),
        (json!({"id": "é", "type": "publish", "topic": "a/*", "text": "x"}), "bad-topic"),
        (json!({"id": 1, "type": "publish", "topic": "a"}), "bad-member"),
        (json!({"id": 1, "type": "publish", "topic": "a", "text": "x", "base64": ""}), "bad-member"),
        (json!({"id": 1, "type": "publish", "topic": "a", "text": {}}), "bad-member"),
        (json!({"id": 1, "type": "publish", "topic": "a", "base64": "?"}), "bad-member"),
        (json!({"id": 1, "type": "unsubscribe"}), "bad-member"),
        (json!({"id": 1, "type": "auth", "token": "x"}), "not-in-this-version"),
        (json!({"id": 1, "type": "presence", "topic": "chat"}), "presence-off"),
        (json!({"id": 1, "type": "presence", "topic": "chat/*"}), "presence-not-here"),
        (json!({"id": 1, "type": "presence"}), "bad-member"),
    ] {
        session.expect_problem(&request, kind);
    }
    let deep = "[".repeat(20_000);
    for text in
        ["", "hello", "null", "[]", "\"subscribe\"", "{", "{\"type\":\"ping\"}{}", "{\"type\":\"ping\",\"type\":\"ping\"}", &deep]
    {
        session.0.text(text);
        let error = session.next();
        assert_eq!((&error["type"], error.get("id")), (&json!("error"), None), "{text}");
        assert_eq!(error["problem"]["type"], "urn:fantail:problem:not-a-request", "{text}");
    }
    session.0.send(frame(BINARY, br#"{"id":1,"type":"ping"}"#));
    assert_eq!(session.next()["problem"]["detail"], "The message is binary.");
    for (id, told) in [(json!(-1), None), (json!({}), None), (json!("x".repeat(65)), None), (json!("x".repeat(64)), Some(()))] {
        let answer = session.ask(&json!({"id": id, "type": "ping"}));
        assert_eq!(answer.get("id").map(|_| ()), told, "{id}: {answer}");
    }
    // Nothing of it was done, and the socket is as good as new.
    publish(&server, "chat", 0..1);
    session.expect_texts(0..1);
    session.0.send(frame(PING, b"!"));
    session.0.expect(PONG, b"!");
    drop(session);
    server.assert_well();
}

#[test]
fn what_a_socket_may_do_is_asked_of_each_request() {
    let server = Server::start(&["--allow-anonymous", "subscribe", "--max-subscriptions", "2"]);
    let mut session = Session::open(&server, "/topics/a");
    session.next();
    session.expect_problem(&json!({"id": 1, "type": "publish", "topic": "a", "text": "x"}), "forbidden");
    session.subscribe("b", None);
    let error = session.expect_problem(&json!({"id": 1, "type": "subscribe", "topic": "c"}), "too-many-subscriptions");
    assert_eq!(error["problem"]["limit_subscriptions"], 2);
    drop(session);
    let server = Server::start(&["--allow-anonymous", "publish"]);
    ask(server.address, handshake("/topics/a", OFFER)).problem(403);
    let mut session = Session::open(&server, "/topics");
    session.expect_problem(&json!({"id": 1, "type": "subscribe", "topic": "a"}), "forbidden");
    assert_eq!(session.ask(&json!({"id": 2, "type": "publish", "topic": "a", "text": "x"}))["type"], "ok");
    drop(session);
    let server = Server::start(&["--max-topics", "1", "--workers", "1"]);
    let mut session = Session::open(&server, "/topics?topic=a&topic=b");
    let (first, second) = (session.next(), session.next());
    let (ok, error) = if first["type"] == "ok" { (first, second) } else { (second, first) };
    assert_eq!((&ok["topic"], &error["problem"]["type"]), (&json!("a"), &json!("urn:fantail:problem:too-many-topics")));
    assert_eq!((&error["topic"], &error["problem"]["limit_topics"]), (&json!("b"), &json!(1)));
}

#[test]
fn whoever_subscribes_and_leaves_thousands_of_times_leaves_nothing_behind() {
    const TIMES: usize = 10_000;
    let server = Server::start(&["--max-topics", "20000", "--history-size", "0"]);
    let mut session = Session::open(&server, "/topics");
    let subscribe = |number: usize| json!({"id": number, "type": "subscribe", "topic": format!("t/{number}")});
    let leave = |number: usize| json!({"type": "unsubscribe", "topic": format!("t/{number}")});
    // Answers to a hundred requests are less than half an outbox, so none of both sides waits for the other.
    let mut answers = [0, 0];
    for first in (0..TIMES).step_by(100) {
        (first..first + 100).for_each(|number| session.send(&subscribe(number)));
        for _ in 0..100 {
            let answer = session.next();
            let is_ok = answer["type"] == "ok";
            assert!(is_ok || answer["problem"]["limit_subscriptions"] == 128, "{answer}");
            answers[usize::from(is_ok)] += 1;
        }
    }
    assert_eq!(answers, [TIMES - 128, 128]);
    (0..128).for_each(|number| session.send(&leave(number)));
    for first in (0..TIMES).step_by(50) {
        for number in first..first + 50 {
            session.send(&subscribe(number));
            session.send(&json!({"type": "publish", "topic": format!("t/{number}"), "text": "x"}));
            session.send(&leave(number));
        }
        let mut answered = 0;
        while answered < 50 {
            // What is left before it is in force is cancelled, which is an answer as well.
            answered += usize::from(session.next()["type"] != "message");
        }
    }
    assert_eq!(session.ask(&json!({"type": "ping"}))["type"], "ok");
    server.expect_metric("fantail_subscriptions", &[], 0.0);
    drop(session);
    server.assert_well();
}

#[test]
fn silence_is_broken_for_pages_too() {
    let server = Server::start(&["--ping-interval", "200ms"]);
    let mut session = Session::open(&server, "/topics");
    let mut visible = 0;
    while visible < 3 {
        let got = session.0.frame();
        match got.first {
            TEXT => {
                assert_eq!(got.payload, br#"{"type":"ping"}"#);
                visible += 1;
            }
            first => {
                assert_eq!(first, PING);
                session.0.send(frame(PONG, b""));
            }
        }
    }
    assert_eq!(session.ask(&json!({"id": 1, "type": "ping"})), json!({"id": 1, "type": "ok"}));
}

#[test]
fn a_stopping_server_says_when_to_come_back() {
    let mut server = Server::start(&["--drain-window", "200ms"]);
    let mut session = Session::open(&server, "/topics/a");
    session.next();
    server.terminate();
    let close = session.0.close();
    assert_eq!((close.code, &close.json()["cause"]), (Some(1001), &json!("drain")));
    assert!(close.json()["retry_after_ms"].as_u64().is_some_and(|delay| (500..=700).contains(&delay)));
    session.0.send(frame(0x88, 1001_u16.to_be_bytes()));
    assert!(server.wait().success());
}

/// 16 MiB to a client that reads nothing meanwhile, under each policy.
#[test]
fn who_reads_too_slowly_is_told_what_it_missed() {
    const MESSAGES: u64 = 512;
    for policy in ["drop-oldest", "latest", "disconnect"] {
        let patience = ["--write-timeout", "30s", "--close-timeout", "30s", "--outbox-size", "1MiB"];
        let server = Server::start(&[&patience[..], &["--slow-consumer", policy]].concat());
        let mut session = Session::on(Connection::open_narrow(server.address), "/topics/flow");
        session.next();
        let mut publisher = Connection::open(server.address);
        for _ in 0..MESSAGES {
            assert_eq!(publisher.post("/topics/flow", "x".repeat(32 * 1024)).status, 200);
        }
        let offset = |cursor: &Value| cursor.as_str().and_then(|text| text.rsplit('.').next()?.parse().ok()).unwrap_or(0);
        let (mut at, mut missing): (u64, u64) = (0, 0);
        while at < MESSAGES {
            let got = session.0.frame();
            if got.first != TEXT {
                assert_eq!((policy, &got.payload[..2]), ("disconnect", &1013_u16.to_be_bytes()[..]));
                break;
            }
            let object: Value = serde_json::from_slice(&got.payload).expect("JSON");
            if object["type"] == "gap" {
                assert_eq!((&object["reason"], offset(&object["from"])), (&json!("slow"), at), "{object}");
                missing += offset(&object["to"]) - at;
                at = offset(&object["to"]);
            } else {
                assert_eq!(offset(&object["cursor"]), at + 1);
                at += 1;
            }
        }
        assert_eq!(missing > 0, policy != "disconnect", "{policy}: everything found room");
        assert_eq!(at == MESSAGES, policy != "disconnect", "{policy}");
        if policy != "disconnect" {
            let reason = policy.replace('-', "_");
            server.expect_metric("fantail_messages_dropped_total", &[("reason", &reason)], missing as f64);
            assert_eq!(session.ask(&json!({"type": "ping"})), json!({"type": "ok"}));
        }
    }
}
