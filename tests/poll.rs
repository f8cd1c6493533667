//! Long-polls and streams of lines: what is left where neither WebSocket nor EventSource is at hand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::figure;
use support::http::{ask, get, post};
use support::server::Server;
use support::wire::Connection;

fn publish(server: &Server, topic: &str, content_type: &str, body: &str) -> String {
    let line = format!("Content-Type: {content_type}\r\n");
    ask(server.address, post(&format!("/topics/{topic}"), &line, body)).json()["cursor"].as_str().expect("a cursor").to_owned()
}

fn texts(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().expect("messages").iter().map(|message| message["text"].as_str().expect("a text")).collect()
}

fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n")
}

#[test]
fn a_poll_is_answered_with_what_is_behind_its_cursor() {
    let server = Server::start(&["--workers", "2"]);
    let cursors: Vec<_> = ["0", "1", "2"].iter().map(|text| publish(&server, "chat", "text/plain", text)).collect();
    for (since, expected) in [("earliest", &["0", "1", "2"][..]), (&cursors[0], &["1", "2"]), ("10m", &["0", "1", "2"])] {
        let response = get(server.address, &format!("/topics/chat?since={since}"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        let answer = response.json();
        assert_eq!(texts(&answer), expected);
        assert_eq!((&answer["cursor"], &answer["recovered"]), (&json!(cursors[2]), &json!(true)));
        assert_eq!(answer["messages"][0]["type"], "message");
    }
    server.assert_well();
}

#[test]
fn a_poll_waits_and_misses_nothing_between_two() {
    let server = Server::start(&["--workers", "2"]);
    let mut pollers: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for poller in &mut pollers {
        poller.send(request("/topics/chat", "Prefer: wait=30\r\n"));
    }
    server.expect_metric("fantail_subscriptions", &[], 4.0);
    for round in 0..10 {
        // The second comes while nobody polls, or just as they begin to.
        let published: Vec<String> = (0..2).map(|number| format!("{round} {number}")).collect();
        for text in &published {
            publish(&server, "chat", "text/plain", text);
        }
        for poller in &mut pollers {
            let mut got = Vec::new();
            while got.len() < 2 {
                let answer = poller.response().json();
                got.extend(texts(&answer).into_iter().map(str::to_owned));
                let cursor = answer["cursor"].as_str().expect("a cursor");
                poller.send(request(&format!("/topics/chat?since={cursor}&wait=30"), ""));
            }
            assert_eq!(got, published);
        }
    }
}

#[test]
fn a_poll_without_news_is_answered_in_time_and_goes_on_from_where_it_stands() {
    let server = Server::start(&[]);
    let cursor = publish(&server, "chat", "text/plain", "old");
    let began = Instant::now();
    let answer = get(server.address, "/topics/chat?wait=1").json();
    figure("a poll of a second was answered after", began.elapsed(), Duration::from_secs(2));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer, json!({"messages": [], "cursor": cursor, "recovered": true}));
    let mut poller = server.connect();
    poller.send(request("/topics/chat?wait=0", ""));
    assert_eq!(poller.response().json()["messages"], json!([]));
    server.expect_metric("fantail_subscriptions", &[], 0.0);
    drop(poller);
    server.assert_well();
}

#[test]
fn a_poll_is_told_what_is_gone() {
    let server = Server::start(&["--history-size", "2"]);
    let cursors: Vec<_> = (0..6).map(|number| publish(&server, "chat", "text/plain", &number.to_string())).collect();
    let answer = get(server.address, &format!("/topics/chat?since={}", cursors[0])).json();
    assert_eq!((texts(&answer), &answer["recovered"]), (vec!["4", "5"], &json!(false)));
    let answer = get(server.address, "/topics/chat?since=Elsewhere.9").json();
    assert_eq!((texts(&answer), &answer["recovered"]), (vec!["4", "5"], &json!(false)));
    get(server.address, "/topics/chat?since=soon").problem(400);
    get(server.address, "/topics/chat?wait=long").problem(400);
    get(server.address, "/topics?topic=a&topic=b&since=k3Vq.7").problem(400);
    get(server.address, "/topics?topic=a&topic=b&since=~AAAA").problem(400);
}

#[test]
fn a_stopping_server_answers_its_polls() {
    let mut server = Server::start(&["--drain-window", "200ms"]);
    let mut poller = server.connect();
    poller.send(request("/topics/chat?wait=30", ""));
    server.expect_metric("fantail_subscriptions", &[], 1.0);
    // The poll is in force when its topic has an epoch; its first page follows at once.
    assert!(poller.is_silent(Duration::from_millis(100)));
    server.terminate();
    assert_eq!(poller.response().json()["messages"], json!([]));
    poller.expect_end();
    assert!(server.wait().success());
}

/// Reads a line of a stream, each in a chunk of its own.
fn line(wire: &mut Connection) -> Value {
    let size = wire.take_until(b"\r\n");
    let size = std::str::from_utf8(&size[..size.len() - 2]).expect("a chunk's size is ASCII");
    let chunk = wire.take(usize::from_str_radix(size, 16).expect("a chunk's size in hex") + 2);
    let line = chunk.strip_suffix(b"\n\r\n").expect("a line in a chunk");
    assert!(!line.contains(&b'\n'), "one line");
    serde_json::from_slice(line).expect("a line is JSON")
}

#[test]
fn a_stream_of_lines_has_an_object_in_each() {
    let server = Server::start(&["--history-size", "2", "--ping-interval", "300ms"]);
    let cursors: Vec<_> = (0..5).map(|_| publish(&server, "chat", "application/json", "{\"a\":\n1}")).collect();
    let mut wire = server.connect();
    wire.send(request(&format!("/topics/chat?as=ndjson&since={}", cursors[0]), ""));
    let head = wire.response_head();
    assert_eq!((head.status, head.header("Content-Type")), (200, Some("application/x-ndjson")));
    assert_eq!(head.header("Fantail-Recovered"), Some("false"));
    assert_eq!(line(&mut wire), json!({"type": "open", "topic": "chat", "cursor": cursors[0]}));
    let gap = json!({"type": "gap", "topic": "chat", "from": cursors[0], "to": cursors[2], "reason": "trimmed"});
    assert_eq!(line(&mut wire), gap);
    for cursor in &cursors[3..] {
        let message = line(&mut wire);
        assert_eq!(
            (&message["type"], &message["cursor"], &message["data"]),
            (&json!("message"), &json!(cursor), &json!({"a": 1}))
        );
    }
    assert_eq!(line(&mut wire), json!({"type": "ping"}));
    server.expect_metric("fantail_connections", &[("transport", "ndjson")], 1.0);
    drop(wire);
    server.expect_metric("fantail_connections", &[("transport", "ndjson")], 0.0);
}

#[test]
fn a_connection_that_stays_silent_behind_an_empty_poll_is_let_go() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    let mut poller = server.connect();
    poller.send(request("/topics/chat?wait=0", ""));
    assert_eq!(poller.response().json()["messages"], json!([]));
    let began = Instant::now();
    poller.expect_end();
    figure("a silent connection behind an empty poll ended", began.elapsed(), Duration::from_secs(2));
}

#[test]
fn a_stopping_server_answers_also_who_was_just_woken() {
    let mut server = Server::start(&["--drain-window", "200ms", "--workers", "1"]);
    let mut pollers: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for poller in &mut pollers {
        poller.send(request("/topics/chat?wait=30", ""));
    }
    server.expect_metric("fantail_subscriptions", &[], 20.0);
    let mut publisher = server.connect();
    publisher.send(post("/topics/chat", "", "last"));
    server.terminate();
    for poller in &mut pollers {
        let answer = poller.response().json();
        assert!(answer["messages"].as_array().is_some_and(|messages| messages.len() <= 1), "{answer}");
    }
    assert!(server.wait().success());
}
