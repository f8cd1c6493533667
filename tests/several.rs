//! Several topics in one stream or poll: where all of them stand is one cursor, with which every transport goes on.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::Socket;
use support::stream::{Event, EventStream};
use support::wire::Connection;
use support::{PATIENCE, eventually};

fn publish(server: &Server, topic: &str, text: &str) -> String {
    let answer = ask(server.address, post(&format!("/topics/{topic}"), "Content-Type: text/plain\r\n", text)).json();
    answer["cursor"].as_str().expect("a cursor").to_owned()
}

/// Topic and text.
fn said(message: &Value) -> (String, String) {
    assert_eq!(message["type"], "message", "{message}");
    let member = |name: &str| message[name].as_str().expect("a text").to_owned();
    (member("topic"), member("text"))
}

fn pair(topic: &str, text: &str) -> (String, String) {
    (topic.into(), text.into())
}

fn in_order_of_topics(mut all: Vec<(String, String)>) -> Vec<(String, String)> {
    all.sort();
    all
}

/// Reads events until so many messages have come and the stream has said where it stands behind them.
fn messages(stream: &mut EventStream, count: usize) -> (Vec<(String, String)>, String) {
    let (mut got, mut cursor) = (Vec::new(), None);
    while got.len() < count || cursor.is_none() {
        match stream.event() {
            Event { id: Some(id), event: Some(event), data: Some(data), .. } => {
                assert_eq!((&*event, &*data), ("cursor", "{}"));
                cursor = Some(id);
            }
            Event { id: None, event: Some(event), .. } if event == "presence" => {}
            event => {
                assert_eq!((&event.id, &event.event), (&None, &None), "its frame is everybody's");
                got.push(said(&event.json()));
                cursor = None;
            }
        }
    }
    (got, cursor.expect("a cursor"))
}

const URL: &str = "/topics?topic=a&topic=b/c&as=sse&envelope";

#[test]
fn a_browser_comes_back_to_all_its_topics_with_one_id() {
    let server = Server::start(&["--workers", "2"]);
    publish(&server, "a", "before");
    let mut stream = EventStream::open(server.address, URL, "");
    let start = stream.start();
    assert!(start.starts_with('~'), "{start}");
    assert_eq!(stream.response.header("Fantail-Recovered"), None);
    let mut cursor = start;
    for (topic, text) in [("a", "1"), ("b/c", "1"), ("a", "2")] {
        publish(&server, topic, text);
        let (got, id) = messages(&mut stream, 1);
        assert_eq!(got, [pair(topic, text)]);
        assert_ne!(id, cursor);
        cursor = id;
    }
    stream.wire.reset();
    for (topic, text) in [("b/c", "2"), ("a", "3"), ("b/c", "3")] {
        publish(&server, topic, text);
    }
    let expected = [pair("a", "3"), pair("b/c", "2"), pair("b/c", "3")];
    // The order of the URL may be another, a topic may be gone or new; a topic that the cursor does not have begins now.
    for url in [URL, "/topics?topic=new&topic=b%2Fc&topic=a&as=sse&envelope&since=earliest"] {
        let mut again = EventStream::open(server.address, url, &format!("Last-Event-ID: {cursor}\r\n"));
        assert_eq!(again.response.header("Fantail-Recovered"), Some("true"));
        again.start();
        assert_eq!(in_order_of_topics(messages(&mut again, 3).0), expected);
    }
    let mut one = EventStream::open(server.address, "/topics/a", &format!("Last-Event-ID: {cursor}\r\n"));
    one.start();
    assert_eq!(one.event().data.as_deref(), Some("3"));
    drop(one);
    server.assert_well();
}

#[test]
fn an_id_that_is_none_of_them_all_is_a_gap_in_each() {
    let server = Server::start(&[]);
    let of_a = publish(&server, "a", "1");
    publish(&server, "b/c", "1");
    for id in [of_a.as_str(), "~", "~AAAA", "elsewhere"] {
        let mut stream = EventStream::open(server.address, URL, &format!("Last-Event-ID: {id}\r\n"));
        assert_eq!(stream.response.header("Fantail-Recovered"), Some("false"), "{id}");
        stream.start();
        let mut missing = Vec::new();
        while missing.len() < 2 {
            let event = stream.event();
            if event.event.as_deref() == Some("gap") {
                assert_eq!((event.id.as_ref(), &event.json()["reason"]), (None, &json!("epoch")));
                missing.push(event.json()["topic"].as_str().expect("a topic").to_owned());
            }
        }
        missing.sort();
        assert_eq!(missing, ["a", "b/c"]);
    }
}

fn line(wire: &mut Connection) -> Value {
    let size = wire.take_until(b"\r\n");
    let size = usize::from_str_radix(std::str::from_utf8(&size[..size.len() - 2]).expect("a size"), 16).expect("in hex");
    let line = wire.take(size);
    assert_eq!(wire.take(2), b"\r\n");
    serde_json::from_slice(&line).expect("an object")
}

fn lines(server: &Server, query: &str) -> Connection {
    let mut wire = server.connect();
    wire.send(format!("GET /topics?{query}&as=ndjson HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
    assert_eq!(wire.response_head().status, 200);
    wire
}

#[test]
fn lines_polls_and_sockets_go_on_from_each_others_cursors() {
    let server = Server::start(&["--workers", "2"]);
    let first = get(server.address, "/topics?topic=a&topic=b&wait=0").json();
    assert_eq!((&first["messages"], &first["recovered"], first.get("gaps")), (&json!([]), &json!(true), None));
    let start = first["cursor"].as_str().expect("a cursor").to_owned();
    let of_a = publish(&server, "a", "1");
    publish(&server, "b", "1");
    publish(&server, "a", "2");
    let all = [pair("a", "1"), pair("a", "2"), pair("b", "1")];
    // `~` as it is, and as URLSearchParams writes it.
    for since in [start.clone(), start.replacen('~', "%7E", 1)] {
        let answer = get(server.address, &format!("/topics?topic=a&topic=b&since={since}&wait=25")).json();
        let got = answer["messages"].as_array().expect("messages").iter().map(said).collect();
        assert_eq!(in_order_of_topics(got), all);
    }
    let mut wire = lines(&server, &format!("topic=b&topic=a&since={start}"));
    let open = line(&mut wire);
    assert_eq!((&open["type"], &open["topics"], open.get("topic")), (&json!("open"), &json!(["b", "a"]), None));
    assert!(open["cursor"].as_str().is_some_and(|cursor| cursor.starts_with('~')), "{open}");
    let (mut got, mut cursor) = (Vec::new(), String::new());
    while got.len() < 3 || cursor.is_empty() {
        let object = line(&mut wire);
        match object["type"].as_str() {
            Some("cursor") => cursor = object["cursor"].as_str().expect("a cursor").to_owned(),
            _ => {
                got.push(said(&object));
                cursor.clear();
            }
        }
    }
    assert_eq!(in_order_of_topics(got), all);
    let mut socket = Socket::open(server.address, &format!("/topics?topic=a&topic=b&envelope&since={start}"));
    assert_eq!(in_order_of_topics((0..3).map(|_| said(&socket.json())).collect()), all);
    publish(&server, "b", "2");
    // Each topic with its own, or with that of them all.
    let each = format!("/topics?topic=a&since={of_a}&topic=b&since={cursor}");
    socket = Socket::open(server.address, &format!("{each}&envelope"));
    let expected = [pair("a", "2"), pair("b", "2")];
    assert_eq!(in_order_of_topics((0..2).map(|_| said(&socket.json())).collect()), expected);
    let answer = get(server.address, &each).json();
    assert_eq!(in_order_of_topics(answer["messages"].as_array().expect("messages").iter().map(said).collect()), expected);
    let mut session =
        Socket::upgrade(server.connect(), &support::socket::handshake("/topics", "Sec-WebSocket-Protocol: fantail.v1\r\n"));
    assert_eq!(session.json()["type"], "open");
    session.text(&json!({"id": 1, "type": "subscribe", "topic": "b", "since": cursor}).to_string());
    assert_eq!(session.json()["recovered"], true);
    assert_eq!(said(&session.json()), pair("b", "2"));
    drop((session, socket, wire));
    server.assert_well();
}

#[test]
fn a_poll_of_several_topics_waits_for_any_and_tells_which_is_missing_something() {
    let server = Server::start(&["--workers", "2", "--history-size", "2"]);
    let first: Vec<String> = (0..4).map(|number| publish(&server, "a", &number.to_string())).collect();
    let answer = get(server.address, &format!("/topics?topic=a&since={}&topic=b&since=latest", first[0])).json();
    let gap = json!({"type": "gap", "topic": "a", "from": first[0], "to": first[1], "reason": "trimmed"});
    assert_eq!((&answer["recovered"], &answer["gaps"]), (&json!(false), &json!([gap])));
    assert_eq!(answer["messages"].as_array().map(Vec::len), Some(2));
    let mut cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    let mut poller = server.connect();
    for round in 0..6 {
        let topic = ["a", "b"][round % 2];
        poller.send(format!("GET /topics?topic=a&topic=b&since={cursor}&wait=30 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        server.expect_metric("fantail_subscriptions", &[], 2.0);
        publish(&server, topic, &round.to_string());
        let answer = poller.response().json();
        let got: Vec<_> = answer["messages"].as_array().expect("messages").iter().map(said).collect();
        assert_eq!(got, [pair(topic, &round.to_string())]);
        cursor = answer["cursor"].as_str().expect("a cursor").to_owned();
    }
    drop(poller);
    server.assert_well();
}

#[test]
fn what_is_more_than_an_answer_holds_comes_with_the_next_ones() {
    // Topics, the length of a message, and how many at most have room in an answer, of which the first beyond the bound is one.
    for (topics, bytes, most) in [(3, 9_000, 4), (6, 20_000, 2)] {
        let server = Server::start(&["--workers", "2"]);
        let text = |number: usize| format!("{number:02} {}", "x".repeat(bytes));
        for number in 0..6 {
            publish(&server, &format!("t{}", number % topics), &text(number));
        }
        let names: String = (0..topics).map(|topic| format!("topic=t{topic}&")).collect();
        let (mut got, mut since) = (Vec::new(), "earliest".to_owned());
        while got.len() < 6 {
            let answer = get(server.address, &format!("/topics?{names}since={since}")).json();
            let messages = answer["messages"].as_array().expect("messages");
            assert!((1..=most).contains(&messages.len()), "{} messages of {bytes} bytes", messages.len());
            got.extend(messages.iter().map(|message| said(message).1));
            since = answer["cursor"].as_str().expect("a cursor").to_owned();
        }
        got.sort();
        assert_eq!(got, (0..6).map(text).collect::<Vec<_>>());
        server.assert_well();
    }
}

/// The ids of those who are there.
fn present(server: &Server, topic: &str) -> BTreeSet<String> {
    let state = get(server.address, &format!("/topics/{topic}?presence")).json();
    let members = state["members"].as_array().expect("a list").iter();
    members.map(|member| member["member"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn who_reads_several_topics_is_a_member_of_each_that_has_presence() {
    let class = ["--topic-class", "rooms/*;presence=list", "--presence-interval", "20ms", "--presence-grace", "50ms"];
    let server = Server::start(&[&class[..], &["--workers", "2"]].concat());
    let rooms = ["rooms/1", "rooms/2"];
    let mut stream = EventStream::open(server.address, "/topics?topic=rooms%2F1&topic=rooms%2F2&as=sse&envelope&presence", "");
    let start = stream.start();
    let watcher = stream.response.header("Fantail-Member").expect("an id").to_owned();
    // Beside a topic without presence: it is a member, and cannot watch.
    let key = "0123456789abcdef";
    let mut wire = lines(&server, &format!("topic=rooms%2F1&topic=chat&client-key={key}"));
    assert_eq!(line(&mut wire)["type"], "open");
    let watches = get(server.address, "/topics?topic=rooms%2F1&topic=chat&presence&as=ndjson").problem(400);
    assert_eq!(watches["type"], "urn:fantail:problem:presence-off");
    let poll = format!("/topics?topic=rooms%2F1&topic=rooms%2F2&wait=30&client-key={key}-poll");
    let mut poller = server.connect();
    poller.send(format!("GET {poll} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
    for (room, members) in [(rooms[0], 3), (rooms[1], 2)] {
        eventually("all are there", PATIENCE, || present(&server, room).len() == members);
        assert!(present(&server, room).contains(&watcher));
    }
    // The watcher is told of each topic, and none of that is a place.
    let (mut told, mut joined) = (BTreeSet::new(), BTreeSet::new());
    while told.len() < 2 || joined.len() < 3 {
        let event = stream.event();
        assert_eq!((event.event.as_deref(), &event.id), (Some("presence"), &None));
        let (object, mut who) = (event.json(), Vec::new());
        match object["event"].as_str() {
            Some("list") => {
                told.insert(object["topic"].clone().to_string());
                who.extend(object["members"].as_array().expect("a list").iter().map(|member| member["member"].clone()));
            }
            _ => who.push(object["member"].clone()),
        }
        joined.extend(who.into_iter().filter(|member| *member != *watcher).map(|member| format!("{member} {}", object["topic"])));
    }
    publish(&server, "rooms/2", "1");
    let (got, cursor) = messages(&mut stream, 1);
    assert_eq!(got, [pair("rooms/2", "1")]);
    assert_ne!(cursor, start);
    assert_eq!(poller.response().json()["messages"].as_array().map(Vec::len), Some(1));
    assert_eq!(ask(server.address, post("/bye", "", key)).status, 204);
    stream.wire.reset();
    for room in rooms {
        eventually("nobody is there", PATIENCE, || present(&server, room).is_empty());
    }
    drop((wire, poller));
    server.assert_well();
}

#[test]
fn a_deletion_moves_one_topic_of_a_stream_to_its_new_life() {
    let server = Server::start(&["--allow-delete"]);
    let mut stream = EventStream::open(server.address, URL, "");
    let start = stream.start();
    publish(&server, "a", "1");
    messages(&mut stream, 1);
    assert_eq!(ask(server.address, "DELETE /topics/a HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").status, 200);
    publish(&server, "a", "2");
    let (got, cursor) = messages(&mut stream, 1);
    assert_eq!(got, [pair("a", "2")]);
    stream.wire.reset();
    publish(&server, "a", "3");
    let mut again = EventStream::open(server.address, URL, &format!("Last-Event-ID: {cursor}\r\n"));
    assert_eq!(again.response.header("Fantail-Recovered"), Some("true"));
    again.start();
    assert_eq!(messages(&mut again, 1).0, [pair("a", "3")]);
    // From before the deletion something is missing of one topic, and nothing of the other.
    publish(&server, "b/c", "1");
    let answer = get(server.address, &format!("/topics?topic=a&topic=b%2Fc&since={start}")).json();
    let gaps = answer["gaps"].as_array().expect("gaps").iter().map(|gap| (&gap["topic"], &gap["reason"]));
    assert_eq!(gaps.collect::<Vec<_>>(), [(&json!("a"), &json!("epoch"))]);
    let got = answer["messages"].as_array().expect("messages").iter().map(said).collect();
    assert_eq!(in_order_of_topics(got), [pair("a", "2"), pair("a", "3"), pair("b/c", "1")]);
}

#[test]
fn topics_and_a_pattern_stand_in_one_stream_and_the_pattern_is_told_that_it_missed_something() {
    let server = Server::start(&["--workers", "2"]);
    let url = "/topics?topic=a&topic=news%2F*&as=sse&envelope";
    let mut stream = EventStream::open(server.address, url, "");
    let start = stream.start();
    publish(&server, "news/today", "1");
    assert_eq!(said(&stream.event().json()), pair("news/today", "1"));
    publish(&server, "a", "1");
    let (got, cursor) = messages(&mut stream, 1);
    assert_eq!(got, [pair("a", "1")]);
    assert_ne!(cursor, start);
    stream.wire.reset();
    publish(&server, "a", "2");
    let mut again = EventStream::open(server.address, url, &format!("Last-Event-ID: {cursor}\r\n"));
    assert_eq!(again.response.header("Fantail-Recovered"), Some("false"));
    again.start();
    let gap = json!({"type": "gap", "topic": "news/*", "from": null, "to": null, "reason": "pattern"});
    assert_eq!(again.event().json(), gap);
    assert_eq!(messages(&mut again, 1).0, [pair("a", "2")]);
    server.expect_metric("fantail_recoveries_total", &[("result", "gap")], 1.0);
    assert_eq!(server.metrics().sum("fantail_recoveries_total", &[]), 1.0, "one return is counted once");
}

#[test]
fn who_reads_too_slowly_is_cut_off_and_gets_it_all_when_it_comes_back() {
    let patience = ["--write-timeout", "30s", "--close-timeout", "30s"];
    let large = ["--outbox-size", "1MiB", "--history-size", "1000", "--history-bytes", "64MiB"];
    let server = Server::start(&[&patience[..], &large].concat());
    let mut slow = EventStream::on(Connection::open_narrow(server.address), URL, "");
    let mut cursor = slow.start();
    let text = |number: usize| format!("{number} {}", "x".repeat(32 * 1024));
    let topics = ["a", "b/c"];
    let mut publisher = Connection::open(server.address);
    for number in 0..512 {
        assert_eq!(publisher.post(&format!("/topics/{}", topics[number % 2]), text(number)).status, 200);
    }
    // What has come, and how much of it when the last cursor came.
    let (mut got, mut covered, mut end) = ([0, 0], [0, 0], None);
    while let Some(event) = slow.next_event() {
        match (event.event.as_deref(), &event.id) {
            (Some("end"), _) => end = event.data,
            (Some("cursor"), Some(id)) => (cursor, covered) = (id.clone(), got),
            _ => {
                let (topic, said) = said(&event.json());
                let topic = topics.iter().position(|name| *name == topic).expect("a topic");
                assert_eq!(said, text(2 * got[topic] + topic));
                got[topic] += 1;
            }
        }
    }
    assert_eq!(end.as_deref(), Some("{\"cause\":\"slow_consumer\"}"));
    assert!(got[0] < 256, "everything found room");
    let mut again = EventStream::open(server.address, URL, &format!("Last-Event-ID: {cursor}\r\n"));
    assert_eq!(again.response.header("Fantail-Recovered"), Some("true"));
    assert_eq!(again.start(), cursor);
    while covered != [256, 256] {
        let event = again.event();
        if event.event.is_none() {
            let (topic, said) = said(&event.json());
            let topic = topics.iter().position(|name| *name == topic).expect("a topic");
            assert_eq!(said, text(2 * covered[topic] + topic), "everything behind the cursor, in order");
            covered[topic] += 1;
        }
    }
}
