//! Topics on one URL: publish, subscribe, information, envelopes, names, kinds, permissions.

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{BINARY, Forged, Socket, TEXT, frame, handshake};

#[test]
fn what_is_published_reaches_the_subscribers_as_it_is() {
    let server = Server::start(&[]);
    let mut subscribers: Vec<_> = (0..4).map(|_| server.socket("/topics/chat")).collect();
    let mut other = server.socket("/topics/other");
    let answer = ask(server.address, post("/topics/chat", "Content-Type: text/plain\r\n", "héllo"));
    assert_eq!(answer.status, 200);
    let answer = answer.json();
    assert_eq!(answer["topic"], "chat");
    assert_eq!(answer["subscribers"], 4);
    let (epoch, offset) = (answer["epoch"].as_str().expect("a text"), answer["offset"].as_u64().expect("a number"));
    assert!((1..=12).contains(&epoch.len()) && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{epoch}");
    assert!(offset >= 1);
    assert_eq!(answer["cursor"], format!("{epoch}.{offset}"));
    for subscriber in &mut subscribers {
        subscriber.expect(TEXT, "héllo");
    }
    assert!(other.wire.is_silent(std::time::Duration::from_millis(50)));
    let next = ask(server.address, post("/topics/chat", "", "again")).json();
    assert_eq!(next["epoch"], epoch, "a topic with subscribers lives on");
    assert!(next["offset"].as_u64() > Some(offset), "{next}");
    drop((subscribers, other));
    server.assert_well();
}

#[test]
fn the_kind_follows_the_content_type() {
    let server = Server::start(&[]);
    let mut raw = server.socket("/topics/kinds");
    let mut envelope = server.socket("/topics/kinds?envelope");
    let mut publish = |content_type: &str, body: &[u8], opcode: u8, member: Value| {
        let line = if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        assert_eq!(ask(server.address, post("/topics/kinds", &line, body)).status, 200, "{content_type}");
        raw.expect(opcode, body);
        let message = envelope.json();
        for (name, value) in member.as_object().expect("an object") {
            assert_eq!(&message[name], value, "{message}");
        }
    };
    publish("application/json", br#"{"x": [1, 2.50]}"#, TEXT, json!({"data": {"x": [1, 2.5]}}));
    publish("application/json; charset=utf-8", b"null", TEXT, json!({"data": null}));
    publish("application/geo+json", b"[]", TEXT, json!({"data": []}));
    publish("text/plain", b"{not json", TEXT, json!({"text": "{not json"}));
    publish("TEXT/HTML", b"<b>", TEXT, json!({"text": "<b>"}));
    publish("application/x-www-form-urlencoded", b"a=b", TEXT, json!({"text": "a=b"}));
    publish("application/xml", b"<a/>", TEXT, json!({"text": "<a/>"}));
    publish("", b"plain", TEXT, json!({"text": "plain"}));
    publish("application/octet-stream", b"\xFF\x00", BINARY, json!({"base64": "/wA="}));
    publish("image/png", b"\x89PNG", BINARY, json!({"base64": "iVBORw=="}));
}

#[test]
fn an_envelope_says_where_and_when() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/topics/room/7?envelope");
    let answer = ask(server.address, post("/topics/room/7", "", "hi")).json();
    let message = socket.json();
    assert_eq!(message["type"], "message");
    assert_eq!(message["topic"], "room/7");
    assert_eq!(message["cursor"], answer["cursor"]);
    assert_eq!(message["text"], "hi");
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let age_ms = now_ms.abs_diff(u128::from(message["at_ms"].as_u64().expect("a number")));
    assert!(age_ms < 10_000, "{message}");
}

#[test]
fn a_socket_publishes_what_it_sends_and_keeps_the_opcode() {
    let server = Server::start(&[]);
    let mut speaker = server.socket("/topics/talk");
    let mut listener = server.socket("/topics/talk");
    let mut envelope = server.socket("/topics/talk?envelope");
    speaker.text("{\"looks\":\"like json\"}");
    speaker.send(frame(BINARY, [0, 255]));
    for socket in [&mut speaker, &mut listener] {
        socket.expect(TEXT, "{\"looks\":\"like json\"}");
        socket.expect(BINARY, [0, 255]);
    }
    assert_eq!(envelope.json()["text"], "{\"looks\":\"like json\"}", "text is never sniffed");
    assert_eq!(envelope.json()["base64"], "AP8=");
    let mut typed = server.socket("/topics/talk?kind=json");
    typed.text("{\"x\":1}");
    typed.expect(TEXT, "{\"x\":1}");
    assert_eq!(envelope.json()["data"], json!({"x": 1}));
    drop((speaker, listener, envelope, typed));
    server.assert_well();
}

#[test]
fn a_socket_publishes_faster_than_it_is_confirmed_and_nothing_is_lost() {
    const MESSAGES: usize = 5_000;
    let server = Server::start(&[]);
    let mut listener = server.socket("/topics/fast");
    let mut speaker = server.socket("/topics/fast?envelope");
    let bytes: Vec<u8> = (0..MESSAGES).flat_map(|number| frame(TEXT, number.to_string())).collect();
    let mut writer = speaker.wire.writer();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    for number in 0..MESSAGES {
        listener.expect(TEXT, number.to_string());
        assert_eq!(speaker.json()["text"], number.to_string());
    }
    sender.join().expect("the writer ends").expect("the server reads on");
    drop((listener, speaker));
    server.assert_well();
}

#[test]
fn a_message_over_the_limit_ends_its_sender_alone() {
    let server = Server::start(&["--max-message-size", "1KiB"]);
    let (mut loud, mut calm) = (server.socket("/topics/talk"), server.socket("/topics/talk"));
    loud.send(Forged::new(TEXT, "").declared(1025).bytes());
    loud.expect_close(1009);
    calm.text("still here");
    calm.expect(TEXT, "still here");
    drop((loud, calm));
    server.assert_well();
}

#[test]
fn information_says_how_to_try_the_topic() {
    let server = Server::start(&[]);
    let _subscriber = server.socket("/topics/news");
    let first = ask(server.address, post("/topics/news", "", "one")).json();
    let last = ask(server.address, post("/topics/news", "", "two")).json();
    let info = get(server.address, "/topics/news");
    assert_eq!(info.header("Content-Type"), Some("application/json"));
    let info = info.json();
    assert_eq!((&info["topic"], &info["epoch"], &info["last"]), (&json!("news"), &first["epoch"], &last["offset"]));
    assert_eq!(info["subscribers"], 1);
    assert!(info.get("first").is_some(), "{info}");
    let ways = info["try"].to_string();
    assert!(ways.contains("curl") && ways.contains("/topics/news") && ways.contains("WebSocket"), "{ways}");
    assert_eq!(get(server.address, "/topics/nobody-was-here").status, 200);
}

#[test]
fn one_socket_may_hold_several_topics() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/topics?topic=a/1&topic=b&topic=b&envelope");
    for (topic, body) in [("a/1", "one"), ("b", "two"), ("c", "unheard"), ("a/1", "three")] {
        assert_eq!(ask(server.address, post(&format!("/topics/{topic}"), "", body)).status, 200);
    }
    // Order holds within a topic; a topic named twice is delivered once.
    let mut seen: Vec<_> =
        (0..3).map(|_| socket.json()).map(|message| (message["topic"].clone(), message["text"].clone())).collect();
    seen.sort_by_key(|(topic, _)| topic.to_string());
    assert_eq!(json!(seen), json!([["a/1", "one"], ["a/1", "three"], ["b", "two"]]));
    assert!(socket.wire.is_silent(std::time::Duration::from_millis(50)));
    // Without an envelope nobody could tell the topics apart.
    let refusal = ask(server.address, handshake("/topics?topic=a&topic=b", ""));
    assert!(refusal.problem(400).to_string().contains("envelope"), "{refusal:?}");
    ask(server.address, handshake("/topics?envelope", "")).problem(400);
    drop(socket);
    server.assert_well();
}

#[test]
fn a_name_is_what_it_decodes_to() {
    let server = Server::start(&[]);
    let mut socket = server.socket("/topics/caf%C3%A9/a%20b");
    assert_eq!(ask(server.address, post("/topics/c%61f%c3%a9/a%20b", "", "same")).json()["topic"], "café/a b");
    socket.expect(TEXT, "same");
    for name in
        ["", "/", "a//b", "a/", "a/./b", "a/../b", "a%2Fb", "a/%2E%2E", "*", "a*", "%00", "%0a", "%7f", "%ff", "%4", "%zz"]
    {
        let refusal = ask(server.address, post(&format!("/topics/{name}"), "", "x"));
        assert!(matches!(refusal.status, 400 | 404), "{name:?}: {refusal:?}");
        let refusal = ask(server.address, handshake(&format!("/topics/{name}"), ""));
        assert!(matches!(refusal.status, 400 | 404), "{name:?}: {refusal:?}");
    }
    for name in ["meta", "meta/connect", "service/x", "m%65ta"] {
        ask(server.address, post(&format!("/topics/{name}"), "", "x")).problem(403);
        ask(server.address, handshake(&format!("/topics/{name}"), "")).problem(403);
    }
    drop(socket);
    server.assert_well();
}

#[test]
fn what_is_not_built_yet_says_so() {
    let server = Server::start(&[]);
    assert_eq!(get(server.address, "/cometd").problem(404)["type"], "urn:fantail:problem:not-in-this-version");
}

/// What an anonymous request may do: publish by POST, subscribe, publish by WebSocket message.
fn rights(server: &Server, lines: &str) -> (bool, bool, bool) {
    let published = ask(server.address, post("/topics/chat", lines, "hi"));
    assert!(matches!(published.status, 200 | 401 | 403), "{published:?}");
    let mut wire = server.connect();
    wire.send(handshake("/topics/chat", lines));
    let head = wire.response_head();
    if head.status != 101 {
        assert!(matches!(head.status, 401 | 403), "{head:?}");
        return (published.status == 200, false, false);
    }
    let mut socket = Socket { wire, response: head };
    socket.text("by socket");
    let frame = socket.frame();
    if frame.first == TEXT {
        return (published.status == 200, true, true);
    }
    assert_eq!(frame.payload[..2], 4003_u16.to_be_bytes(), "not allowed is 4003: {frame:?}");
    (published.status == 200, true, false)
}

#[test]
fn by_default_who_is_local_may_all_and_others_may_subscribe() {
    let server = Server::start(&[]);
    for lines in ["", "Origin: http://localhost:5173\r\n"] {
        assert_eq!(rights(&server, lines), (true, true, true), "{lines:?}");
    }
    for lines in [
        "X-Forwarded-For: 192.0.2.1\r\n",
        "Forwarded: for=192.0.2.1\r\n",
        "X-Real-IP: 192.0.2.1\r\n",
        "Via: 1.1 proxy\r\n",
        "X-Forwarded-Proto: https\r\n",
    ] {
        assert_eq!(rights(&server, lines), (false, true, false), "{lines:?}");
    }
    let refusal = ask(server.address, post("/topics/chat", "Via: 1.1 proxy\r\n", "hi"));
    assert!(refusal.text().contains("--allow-anonymous"), "{refusal:?}");
    let elsewhere =
        String::from_utf8(post("/topics/chat", "", "hi")).expect("ASCII").replace("Host: 127.0.0.1", "Host: push.example");
    assert!(matches!(ask(server.address, elsewhere).status, 401 | 403), "a name that resolves here is not local: DNS rebinding");
    server.assert_well();
}

#[test]
fn another_policy_holds_for_everyone() {
    for (policy, expected) in [
        ("none", (false, false, false)),
        ("subscribe", (false, true, false)),
        ("publish", (true, false, false)),
        ("all", (true, true, true)),
    ] {
        let server = Server::start(&["--allow-anonymous", policy]);
        for lines in ["", "X-Forwarded-For: 192.0.2.1\r\n"] {
            assert_eq!(rights(&server, lines), expected, "{policy} {lines:?}");
        }
        server.assert_well();
    }
}
