//! Coming back: `since` on a real server, over real sockets, on several workers.

use std::time::Duration;

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{Socket, TEXT};
use support::wire::Connection;

/// Publishes some texts and returns the cursor of each.
fn publish(server: &Server, topic: &str, texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let publish = |text| ask(server.address, post(&format!("/topics/{topic}"), "", text)).json();
    texts.into_iter().map(|text| publish(text)["cursor"].as_str().expect("a cursor").to_owned()).collect()
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

/// What the 101 says of the recovery.
fn recovered(socket: &Socket) -> Option<&str> {
    socket.response.header("Fantail-Recovered")
}

fn expect_texts(socket: &mut Socket, texts: impl Iterator<Item = String>) {
    for text in texts {
        socket.expect(TEXT, text);
    }
}

#[test]
fn what_was_missed_comes_first_and_what_is_published_comes_after() {
    let server = Server::start(&["--workers", "2"]);
    let cursors = publish(&server, "chat", numbers(0..20));
    for (since, first, told) in [
        ("earliest", 0, None),
        ("1h", 0, None),
        ("latest", 20, None),
        (&cursors[0], 1, Some("true")),
        (&cursors[12], 13, Some("true")),
        (&cursors[19], 20, Some("true")),
    ] {
        // Connections are spread over the workers; the topic is at home on one of them.
        for _ in 0..4 {
            let mut socket = server.socket(&format!("/topics/chat?since={since}"));
            assert_eq!(recovered(&socket), told, "since={since}");
            expect_texts(&mut socket, numbers(first..20));
            assert!(socket.wire.is_silent(Duration::from_millis(10)), "since={since}");
        }
    }
    let mut all: Vec<Socket> = (0..4).map(|_| server.socket("/topics/chat?since=earliest")).collect();
    publish(&server, "chat", numbers(20..25));
    for socket in &mut all {
        expect_texts(socket, numbers(0..25));
    }
    drop(all);
    let information = get(server.address, "/topics/chat").json();
    assert_eq!((&information["first"], &information["last"]), (&json!(1), &json!(25)));
    server.assert_well();
}

#[test]
fn what_is_gone_is_told() {
    let server = Server::start(&["--history-size", "3"]);
    let cursors = publish(&server, "chat", numbers(0..10));
    let target = format!("/topics/chat?since={}", cursors[2]);
    let mut socket = server.socket(&target);
    assert_eq!(recovered(&socket), Some("false"));
    let close = socket.expect_close(4104);
    assert_eq!(close.json(), json!({"cause": "gap"}));
    drop(socket);

    let mut socket = server.socket(&format!("{target}&on-gap=continue"));
    assert_eq!(recovered(&socket), Some("false"));
    expect_texts(&mut socket, numbers(7..10));
    drop(socket);

    let mut socket = server.socket(&format!("{target}&on-gap=continue&envelope"));
    let gap = json!({"type": "gap", "topic": "chat", "from": cursors[2], "to": cursors[6], "reason": "trimmed"});
    assert_eq!(socket.json(), gap);
    assert_eq!(socket.json()["cursor"], cursors[7]);
    drop(socket);

    let elsewhere = ["/topics/chat?since=Elsewhere.3", &format!("/topics/chat?since={}0", cursors[9])];
    for (target, reason) in elsewhere.into_iter().zip(["epoch", "future"]) {
        let mut socket = server.socket(&format!("{target}&on-gap=continue&envelope"));
        assert_eq!(recovered(&socket), Some("false"));
        assert_eq!(socket.json()["reason"], reason);
    }
    server.assert_well();
}

#[test]
fn a_restart_is_told_as_another_life() {
    let server = Server::start(&[]);
    let cursor = publish(&server, "chat", numbers(0..3)).remove(2);
    drop(server);
    let server = Server::start(&[]);
    publish(&server, "chat", numbers(0..5));
    let mut socket = server.socket(&format!("/topics/chat?since={cursor}&envelope&on-gap=continue"));
    let gap = socket.json();
    assert_eq!((&gap["from"], &gap["reason"]), (&json!(cursor), &json!("epoch")));
    let texts: Vec<Value> = (0..5).map(|_| socket.json()["text"].take()).collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
}

#[test]
fn several_topics_are_replayed_one_after_the_other() {
    let server = Server::start(&["--workers", "2"]);
    for topic in ["a", "b", "c"] {
        publish(&server, topic, numbers(0..5));
    }
    let mut socket = server.socket("/topics?topic=a&topic=b&topic=c&envelope&since=earliest");
    assert_eq!(recovered(&socket), None, "nothing is known of what this one had");
    for topic in ["a", "b", "c"] {
        for number in 0..5 {
            let message = socket.json();
            assert_eq!((&message["topic"], &message["text"]), (&json!(topic), &json!(number.to_string())));
        }
    }
    publish(&server, "b", numbers(5..6));
    assert_eq!(socket.json()["text"], "5");
}

#[test]
fn a_class_says_what_is_kept() {
    let classes = ["--topic-class", "prices/*;history-size=1", "--topic-class", "noise/**;history-size=0"];
    let server = Server::start(&classes);
    for topic in ["prices/eur", "noise/a/b", "chat"] {
        publish(&server, topic, numbers(0..5));
    }
    for (topic, first) in [("prices/eur", 4), ("noise/a/b", 5), ("chat", 0)] {
        let mut socket = server.socket(&format!("/topics/{topic}?since=earliest"));
        expect_texts(&mut socket, numbers(first..5));
        assert!(socket.wire.is_silent(Duration::from_millis(10)), "{topic}");
        assert_eq!(get(server.address, &format!("/topics/{topic}")).json()["first"], first + 1);
    }
}

/// 8 MiB of history through an outbox of 128 KiB, to a client that reads slowly while others publish: not one is missing, and the
/// client is not taken for slow.
#[test]
fn a_long_replay_goes_at_the_pace_of_its_reader() {
    let flags = ["--outbox-size", "128KiB", "--history-size", "2000", "--history-bytes", "16MiB", "--workers", "2"];
    let server = Server::start(&flags);
    let text = |number: u32| format!("{number:06}{}", "x".repeat(8000));
    let mut publisher = Connection::open(server.address);
    let mut publish = |range: std::ops::Range<u32>| {
        for number in range {
            assert_eq!(publisher.post("/topics/log", text(number)).status, 200);
        }
    };
    publish(0..1000);
    let mut socket = Socket::open_narrow(server.address, "/topics/log?since=earliest");
    for number in 0..1100 {
        if number < 1000 && number % 10 == 0 {
            publish(1000 + number / 10..1001 + number / 10);
        }
        socket.expect(TEXT, text(number));
    }
    assert!(socket.wire.is_silent(Duration::from_millis(50)));
}
