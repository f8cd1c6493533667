//! Presence: who is there, who comes, who goes and why, as another subscriber sees it, over real sockets on several workers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{BINARY, CLOSE, Forged, Socket, TEXT, close_payload, frame, handshake};
use support::stream::EventStream;
use support::wire::Connection;
use support::{PATIENCE, eventually, scaled};

/// What servers here are told where a test says nothing else: a short grace, so that losses are told soon.
const FLAGS: [(&str, &str); 3] =
    [("--topic-class", "rooms/*;presence=list"), ("--presence-grace", "300ms"), ("--presence-interval", "50ms")];

fn start(flags: &[&str]) -> Server {
    let others = FLAGS.iter().filter(|(flag, _)| *flag == "--topic-class" || !flags.contains(flag));
    let others: Vec<&str> = others.flat_map(|(flag, value)| [*flag, *value]).collect();
    Server::start(&[&others, flags].concat())
}

/// The key of client `name`, as a page would draw one.
fn key(name: &str) -> String {
    format!("0123456789abcdef-{name}")
}

/// A watcher by event stream: it needs no pongs, and says nothing.
struct Watcher(EventStream);

impl Watcher {
    /// Opens it, and reads until it stands in the list of those who are there.
    fn open(server: &Server, topic: &str) -> Self {
        Self::open_at(server.address, topic)
    }

    fn open_at(address: SocketAddr, topic: &str) -> Self {
        let mut stream = EventStream::open(address, &format!("/topics/{topic}?presence"), "");
        stream.start();
        let own = stream.response.header("Fantail-Member").expect("who watches is a member").to_owned();
        let mut watcher = Self(stream);
        let first = watcher.object();
        assert_eq!(first["event"], "list", "a state comes first: {first}");
        if !first["members"].as_array().expect("a list").iter().any(|member| member["member"] == *own) {
            assert_eq!(watcher.object(), json!({"type": "presence", "topic": topic, "event": "join", "member": own}));
        }
        watcher
    }

    /// The next presence object.
    #[track_caller]
    fn object(&mut self) -> Value {
        let start = Instant::now();
        loop {
            let event = self.0.event();
            assert!(start.elapsed() < PATIENCE, "nothing is told");
            if event.event.as_deref() == Some("presence") {
                assert_eq!(event.id, None, "it is no place in the topic");
                return event.json();
            }
        }
    }

    /// Somebody comes, with this key.
    #[track_caller]
    fn joined(&mut self) -> String {
        let object = self.object();
        assert_eq!(object["event"], "join", "{object}");
        object["member"].as_str().expect("a member").to_owned()
    }

    /// Somebody goes, because of this.
    #[track_caller]
    fn expect_leave(&mut self, member: &str, cause: &str, orderly: bool) {
        let object = self.object();
        assert_eq!((&object["event"], &object["member"]), (&json!("leave"), &json!(member)), "{object}");
        assert_eq!((&object["cause"], &object["orderly"]), (&json!(cause), &json!(orderly)), "{object}");
    }

    /// Nothing about members is told for a while.
    #[track_caller]
    fn expect_nothing(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if !self.0.wire.is_silent(left) {
                let event = self.0.event();
                assert_ne!(event.event.as_deref(), Some("presence"), "{event:?}");
            }
        }
    }
}

/// A member that does not watch.
fn member(server: &Server, target: &str, name: &str) -> Socket {
    let joint = if target.contains('?') { '&' } else { '?' };
    server.socket(&format!("{target}{joint}client-key={}", key(name)))
}

/// What some client does, and the cause and order that others are told for it.
type Case<'c> = (&'c str, bool, Box<dyn FnOnce(Socket) -> Option<Socket> + 'c>);

fn case<'c>(cause: &'c str, orderly: bool, act: impl FnOnce(Socket) -> Option<Socket> + 'c) -> Case<'c> {
    (cause, orderly, Box::new(act))
}

/// Runs each case against a watcher of its own room.
fn check<'c>(server: &Server, target: &str, cases: impl IntoIterator<Item = Case<'c>>) {
    for (number, (cause, orderly, act)) in cases.into_iter().enumerate() {
        println!("{cause}");
        let room = format!("rooms/{cause}-{number}");
        let mut watcher = Watcher::open(server, &room);
        let socket = member(server, &target.replace("ROOM", &room), cause);
        let told = socket.response.header("Fantail-Member").expect("it is told who it is").to_owned();
        assert_eq!(socket.response.header("Fantail-Client-Key"), Some(key(cause).as_str()));
        assert_eq!(watcher.joined(), told);
        let held = act(socket);
        watcher.expect_leave(&told, cause, orderly);
        drop(held);
    }
}

#[test]
fn each_way_in_which_a_client_goes_is_told_by_its_cause() {
    let server = start(&["--message-timeout", "500ms", "--max-message-size", "64KiB", "--outbox-size", "128KiB"]);
    let address = server.address;
    let keep = |act: fn(&mut Socket)| {
        move |mut socket: Socket| {
            act(&mut socket);
            Some(socket)
        }
    };
    check(
        &server,
        "/topics/ROOM",
        [
            case("client_close", true, |socket| {
                socket.leave();
                None
            }),
            case("left_page", true, keep(|socket| socket.send(frame(CLOSE, close_payload(1001, ""))))),
            case("left_page", true, move |socket| {
                let bye = post("/bye", "Content-Type: text/plain;charset=UTF-8\r\n", key("left_page"));
                assert_eq!(ask(address, bye).status, 204);
                Some(socket)
            }),
            case("left_page", true, move |socket| {
                let target = format!("/bye?client-key={}", key("left_page"));
                assert_eq!(ask(address, post(&target, "", "")).status, 204);
                Some(socket)
            }),
            case("end_of_stream", false, keep(|socket| socket.wire.finish())),
            case("reset", false, |socket| {
                socket.wire.reset();
                None
            }),
            case("message_timeout", false, keep(|socket| socket.send(&frame(TEXT, "half a message")[..8]))),
            case("protocol_error", false, keep(|socket| socket.send(Forged::new(TEXT, "no mask").unmasked().bytes()))),
            case("bad_utf8", false, keep(|socket| socket.send(frame(TEXT, b"\xFF")))),
            case("too_big", false, keep(|socket| socket.send(Forged::new(BINARY, "").declared(65_537).bytes()))),
        ],
    );
    check(&server, "/topics/ROOM?kind=json", [case("policy", false, keep(|socket| socket.text("{no JSON")))]);
    server.assert_well();
}

#[test]
fn silence_is_told_as_such() {
    let server = start(&["--ping-interval", "300ms", "--pong-timeout", "300ms"]);
    check(&server, "/topics/ROOM", [case("no_pong", false, Some)]);
    server.assert_well();
}

#[test]
fn who_vanished_is_told_as_a_network_error() {
    let server = start(&["--ping-interval", "300ms", "--pong-timeout", "300ms"]);
    let mut watcher = Watcher::open(&server, "rooms/vanished");
    // Nothing can be asked of a stream, so it is the kernel that misses its acknowledgements.
    let mut stream = EventStream::open(server.address, &format!("/topics/rooms/vanished?client-key={}", key("gone")), "");
    stream.start();
    let told = watcher.joined();
    let start = Instant::now();
    stream.wire.vanish();
    watcher.expect_leave(&told, "network_error", false);
    println!("figure: a vanished peer of a stream was told after {} ms", start.elapsed().as_millis());
    drop((watcher, stream));
    server.assert_well();
}

#[test]
fn who_does_not_read_is_told_as_such() {
    let flood = |server: &Server, slow: &str, cause: &str| {
        let mut watcher = Watcher::open(server, &format!("rooms/{slow}"));
        let target = format!("/topics/rooms/{slow}?client-key={}", key(slow));
        let socket = Socket::open_narrow(server.address, &target);
        let told = watcher.joined();
        assert_eq!(socket.response.header("Fantail-Member"), Some(told.as_str()));
        let mut publisher = server.connect();
        for _ in 0..256 {
            assert_eq!(publisher.post(&format!("/topics/rooms/{slow}"), "x".repeat(32 * 1024)).status, 200);
            // The watcher reads as it goes, so that it is not slow itself.
            while !watcher.0.wire.is_silent(Duration::from_millis(1)) {
                let event = watcher.0.event();
                if event.event.as_deref() == Some("presence") {
                    assert_eq!((&event.json()["cause"], &event.json()["member"]), (&json!(cause), &json!(told)));
                    return;
                }
            }
        }
        watcher.expect_leave(&told, cause, false);
    };
    flood(&start(&["--slow-consumer", "disconnect", "--write-timeout", "30s"]), "slow", "slow_consumer");
    flood(&start(&["--slow-consumer", "drop-oldest", "--write-timeout", "500ms"]), "stalled", "stalled_write");
}

#[test]
fn who_may_not_publish_and_tries_is_gone_at_once() {
    let server = start(&["--allow-anonymous", "subscribe", "--presence-grace", "1m"]);
    let act = |mut socket: Socket| {
        socket.text("I may not");
        Some(socket)
    };
    check(&server, "/topics/ROOM", [case("forbidden", false, act)]);
    server.assert_well();
}

#[test]
fn a_gap_that_ends_a_socket_is_told_where_it_does_not_come_back() {
    let server = start(&[]);
    let mut watcher = Watcher::open(&server, "rooms/gap");
    let mut socket = member(&server, "/topics/rooms/gap", "gap");
    let told = watcher.joined();
    // Lost first: within the grace it comes back with a cursor of another life.
    socket.wire.finish();
    let mut again = member(&server, "/topics/rooms/gap?since=abcd.7", "gap");
    again.expect_close(4104);
    watcher.expect_leave(&told, "gap", false);
    drop((watcher, again));
    server.assert_well();
}

#[test]
fn polls_are_one_member_until_they_are_not_renewed() {
    let server = start(&["--presence-grace", "1500ms"]);
    let mut watcher = Watcher::open(&server, "rooms/poll");
    let mut poller = server.connect();
    let target = format!("/topics/rooms/poll?wait=1&client-key={}", key("poll"));
    assert_eq!(poller.get(&target).json()["messages"], json!([]));
    let told = watcher.joined();
    for _ in 0..3 {
        assert_eq!(poller.get(&target).status, 200);
    }
    watcher.expect_leave(&told, "not_renewed", false);
    // Without a key nobody could tell one poll from another: it is nobody.
    assert_eq!(poller.get("/topics/rooms/poll?wait=1").status, 200);
    watcher.expect_nothing(Duration::from_millis(200));
    drop((watcher, poller));
    server.assert_well();
}

#[test]
fn who_comes_back_within_the_grace_never_left() {
    let server = start(&["--presence-grace", "20s"]);
    let mut watcher = Watcher::open(&server, "rooms/back");
    let mut socket = member(&server, "/topics/rooms/back", "back");
    let told = watcher.joined();
    for _ in 0..6 {
        socket.wire.reset();
        // Any worker may take it.
        socket = member(&server, "/topics/rooms/back", "back");
        assert_eq!(socket.response.header("Fantail-Member"), Some(told.as_str()));
    }
    watcher.expect_nothing(Duration::from_millis(300));
    // Others know the id. It is no key, and ends nobody.
    let bye = post("/bye", "", told.trim_start_matches('@'));
    assert_eq!(ask(server.address, bye).status, 204);
    watcher.expect_nothing(Duration::from_millis(300));
    socket.wire.reset();
    assert_eq!(ask(server.address, post("/bye", "", key("back"))).status, 204);
    watcher.expect_leave(&told, "left_page", true);
    drop(watcher);
    server.assert_well();
}

#[test]
fn a_crowd_that_comes_back_makes_no_event() {
    let server = start(&["--topic-class", "crowd;presence=count", "--presence-grace", "20s"]);
    let mut stream = EventStream::open(server.address, "/topics/crowd?presence", "");
    stream.start();
    let mut watcher = Watcher(stream);
    let size = scaled(200, 5_000);
    let connect = || (0..size).map(|number| member(&server, "/topics/crowd", &format!("{number:05}"))).collect::<Vec<_>>();
    let crowd = connect();
    let mut last = watcher.object();
    while last["count"] != size + 1 {
        assert_eq!((&last["event"], last.get("members")), (&json!("count"), None), "{last}");
        last = watcher.object();
    }
    crowd.into_iter().for_each(|socket| socket.wire.reset());
    let crowd = connect();
    watcher.expect_nothing(Duration::from_millis(400));
    assert_eq!(get(server.address, "/topics/crowd?presence").json(), json!({"topic": "crowd", "count": size + 1}));
    assert_eq!(server.metrics().sum("fantail_presence_members", &[]), f64::from(size + 1));
    drop(crowd);
}

#[test]
fn a_loss_of_many_is_few_events() {
    let server = start(&["--presence-interval", "400ms"]);
    let mut watcher = Watcher::open(&server, "rooms/many");
    let crowd: Vec<_> = (0..300).map(|number| member(&server, "/topics/rooms/many", &format!("{number:05}"))).collect();
    eventually("all are there", PATIENCE, || get(server.address, "/topics/rooms/many?presence").json()["count"] == 301);
    let told = |server: &Server| {
        let metrics = server.metrics();
        ["join", "leave", "count", "list"].map(|event| metrics.sum("fantail_presence_events_total", &[("event", event)]))
    };
    let before = told(&server);
    crowd.into_iter().for_each(|socket| socket.wire.reset());
    eventually("all are gone", PATIENCE, || get(server.address, "/topics/rooms/many?presence").json()["count"] == 1);
    let after = told(&server);
    println!("events: {before:?} before the loss, {after:?} behind it");
    assert!(after[3] > before[3], "a list, in place of very many leaves");
    let mut last = watcher.object();
    while last["count"] != 1 && last["event"] != "leave" || last["event"] == "join" {
        last = watcher.object();
    }
    drop(watcher);
    server.assert_well();
}

#[test]
fn envelopes_lines_and_sessions_are_told_the_same() {
    let server = start(&["--topic-class", "named;presence=list;presence-names=on", "--presence-grace", "20s"]);
    let mut socket = server.socket(&format!("/topics/named?presence&envelope&member=Ann%20M&client-key={}", key("socket")));
    let ann = socket.response.header("Fantail-Member").expect("an id").to_owned();
    let mut known = BTreeSet::new();
    let mut hear = |object: &Value| match object["event"].as_str() {
        Some("list") => known.extend(object["members"].as_array().expect("a list").iter().map(ToString::to_string)),
        Some("join") => drop(known.insert(json!({"member": object["member"], "client": object["client"]}).to_string())),
        _ => panic!("{object}"),
    };
    let first = socket.json();
    assert_eq!((&first["type"], &first["event"]), (&json!("presence"), &json!("list")));
    hear(&first);
    if first["count"] == 0 {
        hear(&socket.json());
    }
    assert_eq!(known, BTreeSet::from([json!({"member": "Ann M", "client": ann}).to_string()]));

    let head = handshake("/topics?member=Bob", "Sec-WebSocket-Protocol: fantail.v1\r\n");
    let mut session = Socket::upgrade(server.connect(), &head);
    let open = session.json();
    let (bob, bobs_key) = (open["member"].clone(), open["client_key"].as_str().expect("a key").to_owned());
    session.text(r#"{"id":1,"type":"subscribe","topic":"named"}"#);
    assert_eq!(session.json()["type"], "ok");
    let join = json!({"type": "presence", "topic": "named", "event": "join", "member": "Bob", "client": bob});
    assert_eq!(socket.json(), join);
    session.text(r#"{"id":2,"type":"presence","topic":"named"}"#);
    let ok = session.json();
    assert_eq!((&ok["id"], &ok["type"], &ok["topic"], &ok["count"]), (&json!(2), &json!("ok"), &json!("named"), &json!(2)));
    let members = ok["members"].as_array().expect("a list");
    assert!(members.contains(&json!({"member": "Bob", "client": bob})), "{ok}");
    session.text(r#"{"id":3,"type":"presence","topic":"named","watch":true}"#);
    assert_eq!(session.json(), json!({"id": 3, "type": "ok", "topic": "named"}));
    let list = session.json();
    assert_eq!((&list["event"], &list["count"]), (&json!("list"), &json!(2)));

    let mut lines = server.connect();
    lines.send("GET /topics/named?as=ndjson&presence HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(lines.response_head().status, 200);
    let joined = session.json();
    assert_eq!((&joined["event"], joined.get("client")), (&json!("join"), None), "it has no name");
    assert_eq!(socket.json(), joined);
    let mut text = String::new();
    while !text.contains(r#""type":"presence","topic":"named","event":"list""#) {
        text.push_str(std::str::from_utf8(&lines.take_until(b"\n")).expect("lines of JSON"));
    }
    lines.reset();

    // A session says goodbye with the key it was told.
    assert_eq!(ask(server.address, post("/bye", "", bobs_key)).status, 204);
    let left = json!({"type": "presence", "topic": "named", "event": "leave", "member": "Bob", "client": bob,
        "cause": "left_page", "orderly": true});
    assert_eq!(socket.json(), left);
    assert_eq!(session.json(), left, "it may still watch");
    session.text(r#"{"id":4,"type":"presence","topic":"elsewhere"}"#);
    assert_eq!(session.json()["problem"]["type"], "urn:fantail:problem:presence-off");
    drop((session, socket));
}

#[test]
fn a_session_leaves_a_topic_by_message() {
    let server = start(&[]);
    let mut watcher = Watcher::open(&server, "rooms/left");
    let target = format!("/topics/rooms/left?client-key={}", key("session"));
    let head = handshake(&target, "Sec-WebSocket-Protocol: fantail.v1\r\n");
    let mut session = Socket::upgrade(server.connect(), &head);
    let told = watcher.joined();
    assert_eq!(session.json()["member"], told);
    assert_eq!(session.json()["type"], "ok");
    session.text(r#"{"id":1,"type":"unsubscribe","topic":"rooms/left"}"#);
    assert_eq!(session.json()["id"], 1);
    watcher.expect_leave(&told, "unsubscribed", true);
    session.text(r#"{"id":2,"type":"subscribe","topic":"rooms/left"}"#);
    assert_eq!(watcher.joined(), told);
    drop((session, watcher));
    server.assert_well();
}

#[test]
fn what_is_refused_is_refused_with_the_rule() {
    let server = start(&[]);
    let problem = |target: &str, headers: &str, status: u16| {
        let head = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        let problem = ask(server.address, head).problem(status);
        problem["type"].as_str().expect("a type").rsplit(':').next().expect("a name").to_owned()
    };
    let upgrade =
        handshake("", "").split_once("127.0.0.1\r\n").map(|(_, rest)| rest.trim_end().to_owned() + "\r\n").expect("a head");
    for (target, headers, status, kind) in [
        ("/topics/rooms/a?presence", upgrade.as_str(), 400, "envelope-needed"),
        ("/topics/chat?presence&envelope", &upgrade, 400, "presence-off"),
        ("/topics/rooms/*?presence&envelope", &upgrade, 400, "presence-not-here"),
        ("/topics/rooms/a?member=ann", &upgrade, 403, "member-name-refused"),
        ("/topics/rooms/a?client-key=short", &upgrade, 400, "bad-client-key"),
        ("/topics/rooms/a?presence&wait=1", "", 400, "presence-not-here"),
        ("/topics/chat?presence", "", 400, "presence-off"),
        ("/bye", "", 405, "method-not-allowed"),
    ] {
        assert_eq!(problem(target, headers, status), kind, "{target}");
    }
    let bye = |headers: &str, body: &str| ask(server.address, post("/bye", headers, body));
    assert_eq!(bye("", "short").problem(400)["type"], "urn:fantail:problem:bad-client-key");
    assert_eq!(bye("Origin: https://evil.example\r\n", &key("x")).problem(403)["type"], "urn:fantail:problem:origin-refused");
    // The page of another machine that holds a key of its own may say goodbye, as it could come: nothing of this machine is needed.
    let far = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(bye(far, &key("x")).status, 204);
    server.assert_well();
}

#[test]
fn a_drain_tells_of_nobody() {
    let mut server = start(&["--presence-grace", "0s", "--drain-window", "1s"]);
    let mut watcher = Watcher::open(&server, "rooms/drain");
    let mut crowd: Vec<_> = (0..20).map(|number| member(&server, "/topics/rooms/drain", &format!("{number:05}"))).collect();
    for _ in &crowd {
        watcher.joined();
    }
    server.terminate();
    for socket in &mut crowd {
        assert_eq!(socket.close_after_messages().code, Some(1001));
        socket.send(frame(CLOSE, close_payload(1001, "")));
    }
    while let Some(event) = watcher.0.next_event() {
        assert_ne!(event.event.as_deref(), Some("presence"), "{event:?}");
    }
    assert!(server.wait().success());
}

#[test]
fn presence_costs_nobody_else_anything() {
    // A crowd that comes and goes all the time, and publications that go out meanwhile.
    let server = start(&["--presence-grace", "0s", "--presence-interval", "0s"]);
    let mut reader = server.socket("/topics/rooms/busy");
    let _watchers: Vec<_> = (0..20).map(|_| EventStream::open(server.address, "/topics/rooms/busy?presence", "")).collect();
    let mut publisher = Connection::open(server.address);
    for round in 0..50 {
        let guests: Vec<_> = (0..5).map(|guest| member(&server, "/topics/rooms/busy", &format!("guest-{guest}"))).collect();
        assert_eq!(publisher.post("/topics/rooms/busy", format!("{round}")).status, 200);
        reader.expect(TEXT, format!("{round}"));
        guests.into_iter().for_each(|guest| guest.wire.reset());
    }
    // Watchers that never read have cost nothing but their own outbox.
    eventually("all guests are gone", PATIENCE, || get(server.address, "/topics/rooms/busy?presence").json()["count"] == 21);
}
