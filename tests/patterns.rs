//! Subscriptions to patterns over two workers: once, at once, in every form, and within limits.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{Socket, handshake};
use support::stream::{EventStream, request};
use support::wire::Connection;
use support::{PATIENCE, eventually, figure};

fn publish(server: &Server, topic: &str, text: impl AsRef<[u8]>) -> Value {
    let answer = ask(server.address, post(&format!("/topics/{topic}"), "", text));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A socket on each of two workers.
fn on_both_workers(server: &Server, target: &str) -> [Socket; 2] {
    let mut found: [Option<Socket>; 2] = [None, None];
    eventually("both workers have a socket", PATIENCE, || {
        let socket = server.socket(target);
        let worker = socket.worker();
        found[worker] = Some(socket);
        found.iter().all(Option::is_some)
    });
    found.map(|socket| socket.expect("just found"))
}

#[track_caller]
fn expect(socket: &mut Socket, topic: &str, text: &str) {
    let message = socket.json();
    assert_eq!((&message["topic"], &message["text"]), (&json!(topic), &json!(text)), "{message}");
}

#[test]
fn a_pattern_gets_what_is_published_on_topics_that_match_from_its_101_on() {
    let server = Server::start(&["--workers", "2"]);
    for round in 0..20 {
        // Both workers publish; each new topic has some home.
        let mut subscriber = server.socket(&format!("/topics/round/{round}/*?envelope"));
        for number in 0..4 {
            let topic = format!("round/{round}/{number}");
            publish(&server, &topic, "one");
            expect(&mut subscriber, &topic, "one");
        }
        publish(&server, &format!("round/{round}/0/below"), "unheard");
        publish(&server, &format!("round/{round}"), "unheard");
        publish(&server, &format!("round/{round}/0"), "two");
        expect(&mut subscriber, &format!("round/{round}/0"), "two");
    }
    server.assert_well();
}

#[test]
fn one_connection_gets_each_publication_once_whatever_matches() {
    let server = Server::start(&["--workers", "2"]);
    let mut many = on_both_workers(&server, "/topics?topic=a/b&topic=a/*&topic=a/**&topic=**&envelope");
    let mut plain = on_both_workers(&server, "/topics/a/b?envelope");
    let mut deep = on_both_workers(&server, "/topics/**?envelope");
    for number in 0..100 {
        publish(&server, "a/b", number.to_string());
        publish(&server, "a/c", "beside");
    }
    for socket in many.iter_mut().chain(&mut deep) {
        // Two topics have no order among each other.
        let (mut next, mut beside) = (0, 0);
        for _ in 0..200 {
            let message = socket.json();
            if message["topic"] == "a/b" {
                assert_eq!(message["text"], next.to_string());
                next += 1;
            } else {
                assert_eq!((&message["topic"], &message["text"]), (&json!("a/c"), &json!("beside")));
                beside += 1;
            }
        }
        assert_eq!((next, beside), (100, 100));
        assert!(socket.wire.is_silent(Duration::from_millis(20)), "something came twice");
    }
    for socket in &mut plain {
        (0..100).for_each(|number| expect(socket, "a/b", &number.to_string()));
        assert!(socket.wire.is_silent(Duration::from_millis(20)));
    }
    server.expect_metric("fantail_subscriptions", &[], 12.0);
    // Each worker has three of them.
    server.expect_metric("fantail_patterns", &[], 6.0);
    drop((many, deep));
    server.expect_metric("fantail_patterns", &[], 0.0);
    publish(&server, "a/b", "after");
    plain.iter_mut().for_each(|socket| expect(socket, "a/b", "after"));
    drop(plain);
    server.assert_well();
}

#[test]
fn streams_of_events_and_lines_carry_envelopes() {
    let server = Server::start(&["--workers", "2"]);
    let mut events = EventStream::open(server.address, "/topics/news/**?envelope", "");
    let first = events.event();
    assert!(first.retry_ms.is_some() && first.id.is_none(), "a pattern has no cursor: {first:?}");
    let mut lines = Connection::open(server.address);
    lines.send("GET /topics/news/*?as=ndjson HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    assert_eq!(lines.response_head().header("Content-Type"), Some("application/x-ndjson"));
    let cursor = publish(&server, "news/today", "rain")["cursor"].clone();
    let event = events.event();
    let message = event.json();
    assert_eq!((&message["topic"], &message["text"], &message["cursor"]), (&json!("news/today"), &json!("rain"), &cursor));
    assert_eq!((event.id.as_deref(), event.event), (cursor.as_str(), None));
    let mut line = || String::from_utf8(lines.take_until(b"\n\r\n")).expect("a stream of lines is UTF-8");
    assert!(line().ends_with("{\"type\":\"open\",\"topic\":\"news/*\",\"cursor\":null}\n\r\n"));
    assert!(line().contains("\"topic\":\"news/today\""));
    drop((events, lines));
    server.assert_well();
}

#[test]
fn who_comes_back_to_a_pattern_is_told_that_something_may_be_missing() {
    let server = Server::start(&[]);
    let mut events = EventStream::open(server.address, "/topics/news/*?envelope", "Last-Event-ID: k3Vq.7\r\n");
    assert_eq!(events.response.header("Fantail-Recovered"), Some("false"));
    assert!(events.event().retry_ms.is_some());
    let gap = events.event();
    assert_eq!((gap.event.as_deref(), gap.id.as_deref()), (Some("gap"), None), "the next time it is told again");
    let expected = json!({"type": "gap", "topic": "news/*", "from": null, "to": null, "reason": "pattern"});
    assert_eq!(gap.json(), expected);
    publish(&server, "news/a", "x");
    assert_eq!(events.event().json()["text"], "x");
    server.expect_metric("fantail_recoveries_total", &[("result", "gap")], 1.0);
    drop(events);
    server.assert_well();
}

#[test]
fn what_a_pattern_cannot_have_is_refused_clearly() {
    let server = Server::start(&[]);
    for (target, status, kind) in [
        ("/topics/news/*", 400, "envelope-needed"),
        ("/topics/news/*?envelope&since=k3Vq.7", 400, "cursor-of-one-topic"),
        ("/topics/*/news?envelope", 400, "bad-pattern"),
        ("/topics/news*?envelope", 400, "bad-pattern"),
    ] {
        let refusal = ask(server.address, handshake(target, ""));
        assert_eq!(refusal.problem(status)["type"], format!("urn:fantail:problem:{kind}"), "{target}");
    }
    for (target, kind) in [
        ("/topics/news/*", "pattern-not-here"),
        ("/topics/news/*?since=latest&wait=1", "pattern-not-here"),
        ("/topics/news/*?as=sse", "envelope-needed"),
    ] {
        assert_eq!(get(server.address, target).problem(400)["type"], format!("urn:fantail:problem:{kind}"), "{target}");
    }
    let proxied = ask(server.address, handshake("/topics/news/*?envelope", "X-Forwarded-For: 192.0.2.1\r\n"));
    assert_eq!(proxied.problem(403)["type"], "urn:fantail:problem:forbidden");
    let proxied = ask(server.address, request("/topics/news/*?envelope", "X-Forwarded-For: 192.0.2.1\r\n"));
    assert_eq!(proxied.problem(403)["type"], "urn:fantail:problem:forbidden");
    server.assert_well();
}

#[test]
fn patterns_are_limited_in_number_and_count_as_subscriptions() {
    let server = Server::start(&["--workers", "1", "--max-patterns", "3", "--max-subscriptions", "3"]);
    let refusal = ask(server.address, handshake("/topics?topic=a&topic=b/*&topic=c/*&topic=d/*&envelope", ""));
    assert_eq!(refusal.problem(400)["limit_subscriptions"], 3);
    let three = server.socket("/topics?topic=a/*&topic=b/*&topic=c/**&envelope");
    let same = server.socket("/topics/a/*?envelope");
    let refusal = ask(server.address, handshake("/topics/d/*?envelope", ""));
    assert_eq!(refusal.problem(503)["limit_patterns"], 3);
    assert!(refusal.header("Retry-After").is_some());
    let mut ended = EventStream::open(server.address, "/topics/d/*?envelope", "");
    assert!(ended.event().retry_ms.is_some() && ended.next_event().is_none(), "a browser would give up otherwise");
    drop((three, same, ended));
    server.expect_metric("fantail_patterns", &[], 0.0);
    drop(server.socket("/topics/d/*?envelope"));
    server.assert_well();
}

/// So many topics below `t`, each with so many publications.
fn fill(server: &Server, topics: usize, publications: usize) {
    let mut connection = server.connect();
    for number in 0..publications {
        for topic in 0..topics {
            assert_eq!(connection.post(&format!("/topics/t/{topic}"), number.to_string()).status, 200);
        }
    }
}

#[test]
fn what_is_behind_a_pattern_comes_first_while_others_publish() {
    const TOPICS: usize = 200;
    let server = Server::start(&["--workers", "2", "--outbox-size", "128KiB"]);
    fill(&server, TOPICS, 5);
    let targets = ["/topics/t/*?envelope&since=earliest", "/topics?topic=**&topic=t/*&topic=t/7&envelope&since=10m"];
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut connection = server.connect();
            for number in 5..15 {
                for topic in 0..TOPICS {
                    assert_eq!(connection.post(&format!("/topics/t/{topic}"), number.to_string()).status, 200);
                }
            }
        });
        for mut socket in targets.into_iter().flat_map(|target| on_both_workers(&server, target)) {
            scope.spawn(move || {
                let mut next = HashMap::new();
                for _ in 0..TOPICS * 15 {
                    let message = socket.json();
                    let next: &mut u32 = next.entry(message["topic"].as_str().expect("a topic").to_owned()).or_default();
                    assert_eq!(message["text"], next.to_string(), "once, and in order: {message}");
                    *next += 1;
                }
                assert!(next.values().all(|next| *next == 15) && next.len() == TOPICS);
                assert!(socket.wire.is_silent(Duration::from_millis(20)), "something came twice");
            });
        }
        publisher.join().expect("it publishes");
    });
    server.assert_well();
}

#[test]
fn streams_begin_with_what_is_behind_their_pattern() {
    let server = Server::start(&["--workers", "2"]);
    fill(&server, 10, 2);
    let mut events = EventStream::open(server.address, "/topics/t/*?envelope&since=earliest", "");
    assert!(events.response.header("Fantail-Recovered").is_none() && events.event().id.is_none());
    let got: HashSet<_> =
        (0..20).map(|_| events.event().json()).map(|message| format!("{} {}", message["topic"], message["text"])).collect();
    assert_eq!(got.len(), 20);
    publish(&server, "t/3", "2");
    assert_eq!(events.event().json()["text"], "2");
    // A browser that comes back asks for no cursor of a pattern, so it is told of a gap, and the URL's since is not done again.
    drop(events);
    let mut events = EventStream::open(server.address, "/topics/t/*?envelope&since=earliest", "Last-Event-ID: k3Vq.7\r\n");
    assert!(events.event().retry_ms.is_some());
    assert_eq!(events.event().json()["reason"], "pattern");
    publish(&server, "t/3", "3");
    assert_eq!(events.event().json()["text"], "3");
    drop(events);
    server.assert_well();
}

/// A client that reads slowly, at first not at all: what it is behind on waits in the history, not for it.
#[test]
fn a_slow_reader_of_many_topics_costs_a_page_at_a_time() {
    const TOPICS: usize = 3_000;
    let server = Server::start(&["--workers", "2", "--outbox-size", "128KiB"]);
    let mut connection = server.connect();
    let text = "x".repeat(1_000);
    for topic in 0..TOPICS {
        assert_eq!(connection.post(&format!("/topics/t/{topic}"), &text).status, 200);
    }
    let mut socket = server.socket("/topics/t/*?envelope&since=earliest");
    std::thread::sleep(Duration::from_millis(300));
    let waiting = server.metrics().sum("fantail_outbox_bytes", &[]);
    assert!(waiting <= 131_072.0, "{waiting} bytes wait");
    let start = Instant::now();
    let topics: HashSet<_> = (0..TOPICS).map(|_| socket.json()["topic"].as_str().expect("a topic").to_owned()).collect();
    assert_eq!(topics.len(), TOPICS);
    figure("3,000 topics of 1 kB read behind a pattern", start.elapsed(), Duration::from_secs(4));
    drop((socket, connection));
    server.assert_well();
}

/// Many topics, each with one publication: none of them is looked for among many patterns, and none is remembered.
#[test]
fn many_patterns_and_many_topics_are_not_multiplied() {
    const TOPICS: usize = 2_000;
    const PATTERNS: usize = 1_000;
    let server = Server::start(&["--workers", "2", "--history-size", "0", "--max-patterns", "4000"]);
    let query = |base: usize| (0..100).map(|number| format!("topic=p/{}/*&", base + number)).collect::<String>();
    let others: Vec<_> =
        (0..PATTERNS / 100).map(|part| server.socket(&format!("/topics?{}envelope", query(part * 100)))).collect();
    let mut all = server.socket("/topics/t/*?envelope");
    let mut publisher = server.socket("/topics/start");
    publisher.text("go");
    publisher.message();
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connect();
            for number in 0..TOPICS {
                assert_eq!(connection.post(&format!("/topics/t/{number}"), "x").status, 200);
            }
        });
        let topics: HashSet<_> = (0..TOPICS).map(|_| all.json()["topic"].as_str().expect("a topic").to_owned()).collect();
        assert_eq!(topics.len(), TOPICS);
    });
    figure("2,000 topics of a pattern, beside 1,000 other patterns", start.elapsed(), Duration::from_secs(4));
    drop((others, all, publisher));
    server.assert_well();
}
