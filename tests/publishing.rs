//! Publishing by HTTP beyond the plain POST: keys under which nothing is published twice, batches, times to live, deletion.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use support::http::{Response, ask, get, post};
use support::server::Server;
use support::socket::TEXT;
use support::stream::EventStream;
use support::wire::Connection;
use support::{PATIENCE, eventually};

const TWO_WORKERS: [&str; 2] = ["--workers", "2"];

fn with_key(topic: &str, key: &str, body: &str) -> Vec<u8> {
    post(&format!("/topics/{topic}"), &format!("Idempotency-Key: {key}\r\n"), body)
}

fn with_ttl(topic: &str, ttl: &str, body: &str) -> Vec<u8> {
    post(&format!("/topics/{topic}"), &format!("TTL: {ttl}\r\n"), body)
}

fn batch(body: &Value) -> Vec<u8> {
    post("/topics", "Content-Type: application/json\r\n", body.to_string())
}

fn delete(server: &Server, target: &str, lines: &str) -> Response {
    ask(server.address, format!("DELETE {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n"))
}

fn problem_type(response: &Response, status: u16) -> String {
    let problem = response.problem(status);
    problem["type"].as_str().expect("a text").trim_start_matches("urn:fantail:problem:").to_owned()
}

/// What is kept of a topic.
fn kept(server: &Server, topic: &str) -> Vec<Value> {
    let answer = get(server.address, &format!("/topics/{topic}?since=earliest&wait=1")).json();
    answer["messages"].as_array().expect("messages").iter().map(|message| message["text"].clone()).collect()
}

#[test]
fn the_same_key_publishes_once_whichever_worker_it_comes_in_by() {
    let server = Server::start(&TWO_WORKERS);
    let mut subscriber = server.socket("/topics/orders");
    let first = ask(server.address, with_key("orders", "\"order-7\"", "paid"));
    assert_eq!((first.status, first.header("Idempotency-Replayed")), (200, None));
    // Connections are spread over the workers.
    for _ in 0..8 {
        let again = ask(server.address, with_key("orders", "order-7", "paid"));
        assert_eq!((again.status, again.header("Idempotency-Replayed")), (200, Some("true")));
        assert_eq!(again.json(), first.json());
    }
    let with_ttl = post("/topics/orders", "Idempotency-Key: order-7\r\nTTL: 1\r\n", "paid");
    let again = ask(server.address, with_ttl);
    assert_eq!((again.header("Idempotency-Replayed"), again.header("TTL")), (Some("true"), None), "it is kept as the first was");
    let other = ask(server.address, with_key("orders", "\"order-7\"", "cancelled"));
    assert_eq!(problem_type(&other, 422), "idempotency-key-reused");
    // A key is of one topic, and another key another publication.
    assert_eq!(ask(server.address, with_key("returns", "order-7", "paid")).header("Idempotency-Replayed"), None);
    assert_eq!(ask(server.address, with_key("orders", "order-8", "paid")).json()["offset"], 2);
    for _ in 0..2 {
        subscriber.expect(TEXT, "paid");
    }
    assert!(subscriber.wire.is_silent(Duration::from_millis(50)));
    let published = server.metrics().sum("fantail_messages_published_total", &[]);
    assert!((published - 3.0).abs() < 0.5, "{published}");
    drop(subscriber);
    server.assert_well();
}

#[test]
fn two_at_the_same_time_are_one() {
    const PAIRS: usize = 100;
    let server = Server::start(&TWO_WORKERS);
    let mut subscriber = server.socket("/topics/race");
    let publish = |wire: &mut Connection, number: usize| {
        wire.send(with_key("race", &format!("key-{number}"), &number.to_string()));
        let answer = wire.response();
        assert_eq!(answer.status, 200);
        (answer.json()["cursor"].clone(), answer.header("Idempotency-Replayed").is_some())
    };
    // Two on each worker, as far as the kernel spreads them.
    let answers: Vec<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut wire = server.connect();
                    (0..PAIRS).map(|number| publish(&mut wire, number)).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it publishes")).collect()
    });
    for number in 0..PAIRS {
        let of_one: BTreeSet<_> = answers.iter().map(|answers| answers[number].0.to_string()).collect();
        let first = answers.iter().filter(|answers| !answers[number].1).count();
        assert_eq!((of_one.len(), first), (1, 1), "one position, and one that was first");
    }
    let seen: BTreeSet<_> = (0..PAIRS).map(|_| subscriber.frame().payload).collect();
    assert_eq!(seen.len(), PAIRS);
    assert!(subscriber.wire.is_silent(Duration::from_millis(50)));
    drop(subscriber);
    server.assert_well();
}

#[test]
fn what_is_refused_is_not_remembered_and_what_is_no_key_is_refused() {
    let server = Server::start(&["--workers", "1", "--max-topics", "1"]);
    assert_eq!(ask(server.address, with_key("a", "k", "x")).status, 200);
    assert_eq!(problem_type(&ask(server.address, with_key("b", "k", "x")), 503), "too-many-topics");
    let json = |body: &str| post("/topics/a", "Idempotency-Key: j\r\nContent-Type: application/json\r\n", body);
    assert_eq!(problem_type(&ask(server.address, json("{oops")), 400), "not-json");
    assert_eq!(ask(server.address, json("{}")).header("Idempotency-Replayed"), None);
    for key in ["", "\"\"", "a b", "a, b", "\"a", "\"a\";p=1", &"k".repeat(256)] {
        let refusal = ask(server.address, with_key("a", key, "x"));
        assert_eq!(problem_type(&refusal, 400), "bad-idempotency-key", "{key}");
        assert_eq!(refusal.json()["limit_bytes"], 255);
    }
    let twice = post("/topics/a", "Idempotency-Key: a\r\nIdempotency-Key: a\r\n", "x");
    assert_eq!(problem_type(&ask(server.address, twice), 400), "bad-idempotency-key");
    assert_eq!(ask(server.address, with_key("a", &"k".repeat(255), "x")).status, 200);
    server.assert_well();
}

#[test]
fn keys_are_remembered_up_to_a_number_and_an_age() {
    let server = Server::start(&["--workers", "1", "--idempotency-keys", "2", "--idempotency-ttl", "1s"]);
    let replayed = |key: &str| ask(server.address, with_key("a", key, "x")).header("Idempotency-Replayed").is_some();
    assert_eq!(["k1", "k2", "k1", "k3", "k1"].map(replayed), [false, false, true, false, false], "the oldest makes room");
    assert!(replayed("k1"));
    std::thread::sleep(Duration::from_millis(1200));
    assert!(!replayed("k1"), "its time is over");
    server.assert_well();
}

#[test]
fn a_batch_is_answered_one_by_one_and_in_order() {
    let server = Server::start(&TWO_WORKERS);
    let topics = ["a/1", "b", "c", "d"];
    let mut sockets = topics.map(|topic| server.socket(&format!("/topics/{topic}?envelope")));
    let elements: Vec<Value> = (0..100)
        .map(|number| match number {
            7 => json!({"topic": "a//1", "text": "x"}),
            8 => json!({"topic": "meta/x", "text": "x"}),
            9 => json!({"topic": "b"}),
            10 => json!("text"),
            11 => json!({"topic": "b", "base64": "?"}),
            number => match number % 3 {
                0 => json!({"topic": topics[number % 4], "text": number.to_string()}),
                1 => json!({"topic": topics[number % 4], "data": {"n": number}}),
                _ => json!({"topic": topics[number % 4], "base64": "/wA=", "ttl": 30}),
            },
        })
        .collect();
    let answer = ask(server.address, batch(&json!(elements)));
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    let results = answer.json();
    let results = results.as_array().expect("an array");
    assert_eq!(results.len(), 100);
    let mut offsets = [0; 4];
    for (number, result) in results.iter().enumerate() {
        let refused = result["error"]["type"].as_str().map(|kind| kind.trim_start_matches("urn:fantail:problem:"));
        let expected = match number {
            7 => Some("bad-topic"),
            8 => Some("reserved-topic"),
            9..=11 => Some("bad-publication"),
            _ => None,
        };
        assert_eq!(refused, expected, "{number}: {result}");
        if refused.is_none() {
            let topic = number % 4;
            offsets[topic] += 1;
            assert_eq!((&result["topic"], &result["offset"]), (&json!(topics[topic]), &json!(offsets[topic])), "{number}");
            assert_eq!(result["subscribers"], 1);
            let message = sockets[topic].json();
            assert_eq!(message["cursor"], result["cursor"]);
            let member = ["text", "data", "base64"][number % 3];
            let sent = &elements[number][member];
            assert_eq!(&message[member], sent, "{message}");
        } else {
            assert!(result["error"]["fix"].as_str().is_some_and(|fix| fix.len() > 5), "{result}");
        }
    }
    drop(sockets);
    server.assert_well();
}

#[test]
fn a_batch_is_one_request_of_its_connection() {
    let server = Server::start(&["--workers", "2", "--mailbox-size", "16", "--max-batch", "1000"]);
    let mut subscribers: Vec<_> = (0..4).map(|_| server.socket("/topics/log")).collect();
    let text =
        |from: usize| -> Vec<Value> { (from..from + 500).map(|n| json!({"topic": "log", "text": n.to_string()})).collect() };
    let mut wire = server.connect();
    // Pipelined: each is answered before the next is begun, so all of them are in order.
    wire.send([batch(&json!(text(0))), post("/topics/log", "", "500"), batch(&json!([])), batch(&json!(text(501)))].concat());
    let batches = [wire.response(), wire.response(), wire.response(), wire.response()].map(|answer| {
        assert_eq!(answer.status, 200);
        answer.json()
    });
    assert_eq!((batches[0].as_array().map(Vec::len), &batches[1]["offset"]), (Some(500), &json!(501)));
    assert_eq!((&batches[2], &batches[3][499]["offset"]), (&json!([]), &json!(1001)));
    for subscriber in &mut subscribers {
        for number in 0..1001 {
            subscriber.expect(TEXT, number.to_string());
        }
    }
    drop((subscribers, wire));
    server.assert_well();
}

#[test]
fn what_is_no_batch_is_refused_as_a_whole() {
    let server = Server::start(&["--workers", "2", "--max-batch", "2", "--max-message-size", "1KiB"]);
    let one = json!({"topic": "a", "text": "x"});
    let told = ask(server.address, batch(&json!([one, one, one])));
    assert_eq!((problem_type(&told, 413), &told.json()["limit_publications"]), ("batch-too-long".into(), &json!(2)));
    for body in ["", "{}", "[", "[1,]", "null", "\"[]\""] {
        let refusal = ask(server.address, post("/topics", "Content-Type: application/json\r\n", body));
        assert_eq!(problem_type(&refusal, 400), "bad-batch", "{body}");
    }
    let large = batch(&json!([{"topic": "a", "text": "x".repeat(1100)}]));
    assert_eq!(problem_type(&ask(server.address, large), 413), "message-too-large");
    assert_eq!(problem_type(&ask(server.address, post("/topics", "", "[]")), 415), "content-type");
    for line in ["TTL: 1\r\n", "Idempotency-Key: k\r\n"] {
        let request = post("/topics", &format!("Content-Type: application/json\r\n{line}"), "[]");
        assert_eq!(problem_type(&ask(server.address, request), 400), "not-for-batches", "{line}");
    }
    let proxied = post("/topics", "Content-Type: application/json\r\nVia: 1.1 proxy\r\n", "[]");
    assert_eq!(problem_type(&ask(server.address, proxied), 403), "forbidden");
    let foreign = post("/topics", "Content-Type: application/json\r\nOrigin: https://evil.example\r\n", "[]");
    assert_eq!(problem_type(&ask(server.address, foreign), 403), "origin-refused");
    assert_eq!(get(server.address, "/topics/a").json()["last"], 0, "nothing was published");
    assert_eq!(get(server.address, "/.well-known/fantail").json()["max_batch_publications"], 2);
    server.assert_well();
}

#[test]
fn who_goes_amid_a_batch_harms_nobody() {
    let server = Server::start(&["--workers", "2", "--mailbox-size", "16", "--max-batch", "1000"]);
    let elements: Vec<Value> = (0..1000).map(|n| json!({"topic": format!("t{}", n % 7), "text": n.to_string()})).collect();
    for _ in 0..50 {
        let mut wire = server.connect();
        wire.send(batch(&json!(elements)));
        wire.reset();
    }
    assert_eq!(ask(server.address, batch(&json!(elements))).json().as_array().map(Vec::len), Some(1000));
    server.assert_well();
}

#[test]
fn a_time_to_live_bounds_what_is_replayed() {
    let server =
        Server::start(&["--workers", "2", "--topic-class", "short;history-ttl=2s", "--topic-class", "none;history-size=0"]);
    let mut subscriber = server.socket("/topics/chat");
    let first = ask(server.address, post("/topics/chat", "", "lasting"));
    assert_eq!(first.header("TTL"), None);
    for (ttl, text, told) in [("1", "brief", "1"), ("0", "live", "0"), ("60", "longer", "60"), ("99999999999", "ever", "300")] {
        let answer = ask(server.address, with_ttl("chat", ttl, text));
        assert_eq!((answer.status, answer.header("TTL")), (200, Some(told)), "{ttl}");
    }
    for (topic, ttl, told) in [("short", "60", "2"), ("none", "60", "0")] {
        assert_eq!(ask(server.address, with_ttl(topic, ttl, "x")).header("TTL"), Some(told), "{topic}");
    }
    for text in ["lasting", "brief", "live", "longer", "ever"] {
        subscriber.expect(TEXT, text);
    }
    assert_eq!(kept(&server, "chat"), ["lasting", "brief", "longer", "ever"]);
    eventually("the brief one is gone", PATIENCE, || kept(&server, "chat") == ["lasting", "longer", "ever"]);
    // Whoever was away was not meant to get it: nothing is missing.
    let cursor = first.json()["cursor"].as_str().expect("a cursor").to_owned();
    let mut socket = server.socket(&format!("/topics/chat?since={cursor}"));
    assert_eq!(socket.response.header("Fantail-Recovered"), Some("true"));
    for text in ["longer", "ever"] {
        socket.expect(TEXT, text);
    }
    let polled = get(server.address, &format!("/topics/chat?since={cursor}&wait=1")).json();
    assert_eq!((&polled["recovered"], polled["messages"].as_array().map(Vec::len)), (&json!(true), Some(2)));
    for ttl in ["", "-1", "1s", "1.5", "1, 2"] {
        assert_eq!(problem_type(&ask(server.address, with_ttl("chat", ttl, "x")), 400), "bad-ttl", "{ttl}");
    }
    drop((subscriber, socket));
    server.assert_well();
}

#[test]
fn a_batch_has_times_to_live() {
    let server = Server::start(&TWO_WORKERS);
    let elements = json!([{"topic": "t", "text": "one", "ttl": 0}, {"topic": "t", "text": "two"}, {"topic": "t", "text": "three", "ttl": 1}]);
    let results = ask(server.address, batch(&elements)).json();
    assert_eq!(results[2]["offset"], 3);
    assert_eq!(kept(&server, "t"), ["two", "three"]);
    eventually("the third is gone", PATIENCE, || kept(&server, "t") == ["two"]);
    let target = format!("/topics/t?since={}.0", results[0]["epoch"].as_str().expect("a text"));
    let stream = EventStream::open(server.address, &target, "");
    assert_eq!(stream.response.header("Fantail-Recovered"), Some("true"));
}

#[test]
fn a_deleted_topic_begins_anew_and_keeps_its_subscribers() {
    let server = Server::start(&["--workers", "2", "--allow-delete"]);
    let mut subscriber = server.socket("/topics/chat?envelope");
    let mut last = Value::Null;
    for number in 0..3 {
        last = ask(server.address, post("/topics/chat", "", number.to_string())).json();
        assert_eq!(subscriber.json()["cursor"], last["cursor"]);
    }
    let deleted = delete(&server, "/topics/chat", "");
    assert_eq!((deleted.status, &deleted.json()["topic"]), (200, &json!("chat")));
    let epoch = deleted.json()["epoch"].clone();
    assert_ne!(epoch, last["epoch"]);
    let information = get(server.address, "/topics/chat").json();
    assert_eq!((&information["epoch"], &information["first"], &information["last"]), (&epoch, &json!(1), &json!(0)));
    assert!(kept(&server, "chat").is_empty());
    // The one who was there misses nothing.
    let anew = ask(server.address, post("/topics/chat", "", "anew")).json();
    assert_eq!((&anew["epoch"], &anew["offset"], &anew["subscribers"]), (&epoch, &json!(1), &json!(1)));
    assert_eq!(subscriber.json()["cursor"], anew["cursor"]);
    // Who comes back with a cursor of the old life is told.
    let old = last["cursor"].as_str().expect("a cursor");
    let mut socket = server.socket(&format!("/topics/chat?since={old}"));
    assert_eq!(socket.response.header("Fantail-Recovered"), Some("false"));
    socket.expect_close(4104);
    let mut socket = server.socket(&format!("/topics/chat?since={old}&envelope&on-gap=continue"));
    let gap = socket.json();
    assert_eq!((&gap["from"], &gap["reason"]), (&last["cursor"], &json!("epoch")));
    assert_eq!(socket.json()["text"], "anew");
    let polled = get(server.address, &format!("/topics/chat?since={old}&wait=1")).json();
    assert_eq!((&polled["recovered"], &polled["messages"][0]["text"]), (&json!(false), &json!("anew")));
    // Nobody has to know whether it lives.
    assert_eq!(delete(&server, "/topics/nobody-was-here", "").json(), json!({"topic": "nobody-was-here", "epoch": null}));
    drop((subscriber, socket));
    server.assert_well();
}

#[test]
fn deleting_takes_a_flag_the_right_to_publish_and_an_allowed_origin() {
    let server = Server::start(&TWO_WORKERS);
    assert_eq!(ask(server.address, post("/topics/chat", "", "stays")).status, 200);
    let refusal = delete(&server, "/topics/chat", "");
    assert!(problem_type(&refusal, 403) == "forbidden" && refusal.text().contains("--allow-delete"), "{refusal:?}");
    assert_eq!(kept(&server, "chat"), ["stays"]);
    let server = Server::start(&["--workers", "2", "--allow-delete"]);
    assert_eq!(ask(server.address, post("/topics/chat", "", "stays")).status, 200);
    for (target, lines, status, kind) in [
        ("/topics/chat", "Via: 1.1 proxy\r\n", 403, "forbidden"),
        ("/topics/chat", "Origin: https://evil.example\r\n", 403, "origin-refused"),
        ("/topics/chat//", "", 400, "bad-topic"),
        ("/topics/*", "", 400, "bad-topic"),
        ("/topics", "", 405, "method-not-allowed"),
    ] {
        assert_eq!(problem_type(&delete(&server, target, lines), status), kind, "{target} {lines}");
    }
    assert_eq!(kept(&server, "chat"), ["stays"]);
    assert_eq!(delete(&server, "/topics/chat", "Origin: http://localhost:5173\r\n").status, 200);
    assert!(kept(&server, "chat").is_empty());
    let preflight = "OPTIONS /topics/chat HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://localhost:5173\r\n\
                     Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Headers: idempotency-key, ttl\r\n\r\n";
    let preflight = ask(server.address, preflight);
    let allowed = |name| preflight.header(name).expect("an allowed page is told");
    assert!(allowed("Access-Control-Allow-Methods").contains("DELETE"), "{preflight:?}");
    for header in ["Idempotency-Key", "TTL"] {
        assert!(allowed("Access-Control-Allow-Headers").contains(header), "{preflight:?}");
    }
    server.assert_well();
}

#[test]
fn a_reader_amid_a_deletion_is_told() {
    let server = Server::start(&["--workers", "2", "--allow-delete", "--outbox-size", "128KiB", "--history-bytes", "16MiB"]);
    let text = "x".repeat(60_000);
    let mut publisher = server.connect();
    for _ in 0..100 {
        assert_eq!(publisher.post("/topics/log", &text).status, 200);
    }
    let mut reader = support::socket::Socket::open_narrow(server.address, "/topics/log?since=earliest&envelope&on-gap=continue");
    assert_eq!(reader.json()["text"], text);
    assert_eq!(delete(&server, "/topics/log", "").status, 200);
    assert_eq!(publisher.post("/topics/log", "anew").status, 200);
    let objects = std::iter::from_fn(|| Some(reader.json())).find(|object| object["type"] == "gap");
    assert_eq!(objects.expect("it is endless")["reason"], "epoch");
    assert_eq!(reader.json()["text"], "anew");
    drop((reader, publisher));
    server.assert_well();
}
