//! `fantail.v1` sockets: what is asked for by message, on several workers, in any order of turns.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::each;
use super::cluster::{Cluster, WINDOW, frame, post, take_frames, take_head, upgrade_to_session};
use crate::Config;
use crate::config::{ByteSize, TimeSpan};
use crate::metrics::{Cause, Transport};
use crate::worker::{Phase, SlowConsumer};

/// Everything a socket got: objects and close codes; control frames are left out.
pub(super) fn objects(cluster: &mut Cluster, id: u64) -> Vec<Value> {
    let mut bytes = Vec::new();
    for _ in 0..30 {
        cluster.settle();
        bytes.extend(cluster.read(id));
    }
    let objects = take_frames(&mut bytes).into_iter().filter_map(|(opcode, payload)| match opcode {
        1 => Some(serde_json::from_slice(&payload).unwrap()),
        8 => Some(json!({"close": u16::from_be_bytes([payload[0], payload[1]])})),
        _ => None,
    });
    let objects = objects.collect();
    assert!(bytes.is_empty(), "half a frame: {bytes:?}");
    objects
}

/// Connects a session and reads its 101 and `open`.
pub(super) fn open(cluster: &mut Cluster, worker: usize, id: u64, target: &str) -> Vec<Value> {
    cluster.connect(worker, id, WINDOW);
    cluster.write(id, &upgrade_to_session(target));
    let mut bytes = Vec::new();
    for _ in 0..20 {
        cluster.settle();
        bytes.extend(cluster.read(id));
    }
    assert!(String::from_utf8_lossy(&bytes).contains("\r\nSec-WebSocket-Protocol: fantail.v1\r\n"));
    assert_eq!(take_head(&mut bytes), Some(101));
    let mut objects: Vec<Value> =
        take_frames(&mut bytes).into_iter().map(|(_, payload)| serde_json::from_slice(&payload).unwrap()).collect();
    assert_eq!(objects.remove(0)["type"], "open");
    objects
}

pub(super) fn ask(cluster: &mut Cluster, id: u64, request: &Value) {
    cluster.write(id, &frame(0x81, request.to_string().as_bytes()));
}

/// Asks, and expects to be told this much of one object.
pub(super) fn ask_for(cluster: &mut Cluster, id: u64, request: &Value, expected: &Value) -> Value {
    ask(cluster, id, request);
    let mut got = objects(cluster, id);
    assert_eq!(got.len(), 1, "{request}: {got:?}");
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&got[0][name], value, "{request}: {}", got[0]);
    }
    got.remove(0)
}

pub(super) fn problem(object: &Value) -> &str {
    object["problem"]["type"].as_str().and_then(|kind| kind.strip_prefix("urn:fantail:problem:")).unwrap_or_default()
}

pub(super) fn publish(cluster: &mut Cluster, id: u64, topic: &str, text: &str) {
    cluster.write(id, &post(&format!("/topics/{topic}"), text));
    cluster.settle();
    cluster.read(id);
}

pub(super) fn subscribe(id: u64, topic: &str) -> Value {
    json!({"id": id, "type": "subscribe", "topic": topic})
}

#[test]
fn what_the_url_names_is_confirmed_and_what_is_asked_for_too() {
    each(&Config::default(), 3, |cluster| {
        cluster.connect(0, 0, WINDOW);
        publish(cluster, 0, "a", "early");
        let confirmed = open(cluster, 1, 1, "/topics?topic=a&topic=b&since=latest");
        assert_eq!(confirmed.len(), 2, "{confirmed:?}");
        for object in &confirmed {
            assert_eq!((&object["type"], object.get("id"), object.get("recovered")), (&json!("ok"), None, None), "{object}");
            let stands_at = if object["topic"] == "a" { ".1" } else { ".0" };
            assert!(object["cursor"].as_str().unwrap().ends_with(stands_at), "{object}");
        }
        let ok = ask_for(cluster, 1, &subscribe(7, "c"), &json!({"id": 7, "type": "ok", "topic": "c"}));
        assert!(ok["cursor"].as_str().unwrap().ends_with(".0"));
        for topic in ["a", "b", "c", "d"] {
            publish(cluster, 0, topic, topic);
        }
        let got = objects(cluster, 1);
        let told: Vec<_> = got.iter().map(|object| object["text"].as_str().unwrap()).collect();
        assert_eq!(told.len(), 3, "{got:?}");
        assert!(["a", "b", "c"].iter().all(|topic| told.contains(topic)), "{told:?}");
        let left = json!({"id": 8, "type": "unsubscribe", "topic": "b"});
        ask_for(cluster, 1, &left, &json!({"id": 8, "type": "ok", "topic": "b"}));
        for topic in ["b", "c"] {
            publish(cluster, 0, topic, "again");
        }
        let got = objects(cluster, 1);
        assert_eq!((got.len(), &got[0]["topic"]), (1, &json!("c")));
    });
}

#[test]
fn what_is_done_already_is_said_to_be() {
    each(&Config::default(), 2, |cluster| {
        open(cluster, 0, 1, "/topics/a");
        let already = json!({"id": 1, "type": "ok", "topic": "a", "already": true});
        assert_eq!(ask_for(cluster, 1, &subscribe(1, "a"), &already), already);
        let leave = json!({"id": 1, "type": "unsubscribe", "topic": "a"});
        assert_eq!(ask_for(cluster, 1, &leave, &json!({})).get("already"), None);
        assert_eq!(ask_for(cluster, 1, &leave, &already), already);
    });
}

#[test]
fn only_who_gives_an_id_is_answered_but_what_is_wrong_is_always_told() {
    each(&Config::default(), 2, |cluster| {
        open(cluster, 0, 1, "/topics");
        ask(cluster, 1, &json!({"type": "publish", "topic": "a", "text": "x"}));
        ask(cluster, 1, &json!({"type": "unsubscribe", "topic": "a"}));
        let got = objects(cluster, 1);
        assert_eq!(got, [json!({"type": "ok", "topic": "a", "already": true})]);
        assert_eq!(ask_for(cluster, 1, &json!({"type": "ping"}), &json!({})), json!({"type": "ok"}));
        let ok = ask_for(cluster, 1, &json!({"type": "subscribe", "topic": "a"}), &json!({"type": "ok", "topic": "a"}));
        assert!(ok["cursor"].as_str().unwrap().ends_with(".1"), "where the publication stands: {ok}");
        let error = ask_for(cluster, 1, &json!({"type": "publish", "topic": "a"}), &json!({"type": "error"}));
        assert_eq!((problem(&error), error.get("id")), ("bad-member", None));
        let error = ask_for(cluster, 1, &json!({"id": "x", "type": "auth", "token": "t"}), &json!({"id": "x"}));
        assert_eq!(problem(&error), "not-in-this-version");
    });
}

#[test]
fn publications_keep_their_order_and_each_has_its_answer() {
    each(&Config::default(), 3, |cluster| {
        open(cluster, 0, 1, "/topics?topic=t0&topic=t1&topic=t2");
        let mut bytes = Vec::new();
        for number in 0..60 {
            let request = json!({"id": number, "type": "publish", "topic": format!("t{}", number % 3), "data": {"n": number}});
            bytes.extend(frame(0x81, request.to_string().as_bytes()));
        }
        cluster.write(1, &bytes);
        let (mut oks, mut messages) = (BTreeMap::new(), BTreeMap::<String, Vec<u64>>::new());
        for object in objects(cluster, 1) {
            let cursor = object["cursor"].as_str().unwrap().to_owned();
            match object["type"].as_str().unwrap() {
                "ok" => assert_eq!(oks.insert(object["id"].as_u64().unwrap(), cursor), None),
                "message" => {
                    let topic = object["topic"].as_str().unwrap();
                    messages.entry(topic.to_owned()).or_default().push(object["data"]["n"].as_u64().unwrap());
                }
                other => panic!("{other}"),
            }
        }
        assert_eq!(oks.len(), 60);
        for (topic, numbers) in &messages {
            assert_eq!(numbers.len(), 20, "{topic}");
            assert!(numbers.is_sorted(), "{topic}: {numbers:?}");
            for (number, place) in numbers.iter().zip(1..) {
                assert!(oks[number].ends_with(&format!(".{place}")), "{topic} {number}: {}", oks[number]);
            }
        }
        assert!(cluster.workers.iter().all(|worker| worker.core.publish_ids.is_empty()));
    });
}

#[test]
fn a_socket_is_read_no_further_while_sixteen_of_its_requests_wait() {
    each(&Config::default(), 2, |cluster| {
        let names: Vec<String> = (0..200).map(|number| format!("t{number}")).collect();
        let far: Vec<&String> = names.iter().filter(|name| cluster.shared.home_of(name) == 1).take(40).collect();
        open(cluster, 0, 1, "/topics");
        cluster.frozen = Some(1);
        for (id, topic) in far.iter().enumerate() {
            ask(cluster, 1, &subscribe(id as u64, topic));
        }
        assert!(objects(cluster, 1).is_empty());
        let slot = cluster.workers[0].core.replays.keys().next().copied().expect("something is asked for");
        assert_eq!(cluster.workers[0].core.connections[slot as usize].unconfirmed, 16);
        assert_eq!(cluster.workers[0].core.hub.subscriptions(), 16);
        cluster.frozen = None;
        let got = objects(cluster, 1);
        assert_eq!(got.len(), 40);
        assert!(got.iter().all(|object| object["type"] == "ok"), "{got:?}");
    });
}

#[test]
fn limits_are_told_and_the_socket_goes_on() {
    let config = Config { max_subscriptions: 2, max_topics: 4, ..Config::default() };
    each(&config, 2, |cluster| {
        let names: Vec<String> = (0..50).map(|number| format!("t{number}")).collect();
        let (near, far): (Vec<_>, Vec<_>) = names.iter().partition(|name| cluster.shared.home_of(name) == 0);
        open(cluster, 0, 1, "/topics");
        for topic in &far[..2] {
            ask_for(cluster, 1, &subscribe(1, topic), &json!({"type": "ok"}));
        }
        let error = ask_for(cluster, 1, &subscribe(2, near[0]), &json!({"id": 2, "type": "error"}));
        assert_eq!((problem(&error), &error["problem"]["limit_subscriptions"]), ("too-many-subscriptions", &json!(2)));
        // A worker's share of the topics is two, and these have it.
        open(cluster, 0, 2, "/topics");
        for id in [3, 4] {
            let error = ask_for(cluster, 2, &subscribe(id, far[2]), &json!({"id": id, "type": "error"}));
            assert_eq!((problem(&error), &error["problem"]["limit_topics"]), ("too-many-topics", &json!(2)));
        }
        let publish = json!({"id": 5, "type": "publish", "topic": far[3], "text": "x"});
        let error = ask_for(cluster, 2, &publish, &json!({"id": 5, "type": "error"}));
        assert_eq!(problem(&error), "too-many-topics");
        for topic in &near[..2] {
            ask_for(cluster, 2, &subscribe(6, topic), &json!({"id": 6, "type": "ok"}));
        }
        assert_eq!(cluster.workers[0].core.hub.subscriptions(), 4, "what was refused is not held");
    });
}

#[test]
fn a_subscription_that_is_left_before_it_is_in_force_is_cancelled() {
    each(&Config::default(), 2, |cluster| {
        let topic = (0..50).map(|number| format!("t{number}")).find(|name| cluster.shared.home_of(name) == 1).unwrap();
        open(cluster, 0, 1, "/topics");
        cluster.frozen = Some(1);
        ask(cluster, 1, &subscribe(1, &topic));
        ask(cluster, 1, &json!({"id": 2, "type": "unsubscribe", "topic": topic}));
        ask(cluster, 1, &subscribe(3, &topic));
        let got = objects(cluster, 1);
        assert_eq!(
            (&got[0]["id"], problem(&got[0]), &got[1]),
            (&json!(1), "cancelled", &json!({"id": 2, "type": "ok", "topic": topic}))
        );
        cluster.frozen = None;
        let got = objects(cluster, 1);
        assert_eq!((got.len(), &got[0]["id"], &got[0]["type"]), (1, &json!(3), &json!("ok")), "{got:?}");
        cluster.connect(1, 2, WINDOW);
        publish(cluster, 2, &topic, "x");
        assert_eq!(objects(cluster, 1).len(), 1, "once");
    });
}

#[test]
fn a_long_replay_keeps_no_other_topic_back() {
    let config = Config { outbox_size: ByteSize(2400), max_message_size: ByteSize(600), ..Config::default() };
    each(&config, 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        for number in 0..90 {
            publish(cluster, 0, "log", &format!("{number} {}", "x".repeat(60)));
        }
        publish(cluster, 0, "b", "one");
        open(cluster, 0, 1, "/topics");
        cluster.driver(1).set_window(1, 300);
        let requests = [("log", 1), ("b", 2)].map(|(topic, id)| {
            let request = json!({"id": id, "type": "subscribe", "topic": topic, "since": "earliest"});
            frame(0x81, request.to_string().as_bytes())
        });
        cluster.write(1, &requests.concat());
        let mut bytes = Vec::new();
        for _ in 0..300 {
            cluster.settle();
            bytes.extend(cluster.read(1));
        }
        let got: Vec<Value> =
            take_frames(&mut bytes).iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect();
        let place = |id: u64| got.iter().position(|object| object["id"] == id).unwrap();
        // An outbox holds some fifteen messages of the log; one or two may go before the second request is read.
        assert!(place(1) < place(2) && place(2) < 40, "the second answer does not wait for the log: {}", place(2));
        let texts = |topic: &str| got.iter().filter(|object| object["topic"] == topic && object["type"] == "message").count();
        assert_eq!((texts("log"), texts("b")), (90, 1));
    });
}

#[test]
fn a_topic_that_is_left_amid_its_replay_stops_and_the_next_one_is_whole() {
    let config = Config { outbox_size: ByteSize(2400), max_message_size: ByteSize(600), ..Config::default() };
    each(&config, 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        for topic in ["a", "b"] {
            for number in 0..40 {
                publish(cluster, 0, topic, &format!("{number}"));
            }
        }
        open(cluster, 0, 1, "/topics");
        cluster.driver(1).set_window(1, 300);
        for topic in ["a", "b"] {
            ask(cluster, 1, &json!({"id": topic, "type": "subscribe", "topic": topic, "since": "earliest"}));
        }
        cluster.step(20);
        ask(cluster, 1, &json!({"id": "left", "type": "unsubscribe", "topic": "a"}));
        let mut got = Vec::new();
        for _ in 0..60 {
            cluster.driver(1).set_window(1, WINDOW);
            got.extend(objects(cluster, 1));
        }
        let left = got.iter().position(|object| object["id"] == "left").unwrap();
        assert!(got[left..].iter().all(|object| object["topic"] != "a" || object["id"] == "left"), "{:?}", &got[left..]);
        let of_b: Vec<_> =
            got.iter().filter(|object| object["topic"] == "b").filter_map(|object| object["text"].as_str()).collect();
        assert_eq!(of_b, (0..40).map(|number| number.to_string()).collect::<Vec<_>>());
    });
}

#[test]
fn who_asks_and_asks_and_does_not_read_is_not_read_either() {
    let config = Config { outbox_size: ByteSize(8000), max_message_size: ByteSize(600), ..Config::default() };
    each(&config, 1, |cluster| {
        open(cluster, 0, 1, "/topics");
        cluster.driver(1).set_window(1, 0);
        let bad = frame(0x81, br#"{"id":1,"type":"nonsense"}"#).repeat(400);
        cluster.write(1, &bad);
        for _ in 0..20 {
            cluster.settle();
            cluster.read(1);
        }
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!((4000..5000).contains(&queued), "{queued} bytes of answers wait");
        cluster.driver(1).set_window(1, WINDOW);
        let mut got = 0;
        for _ in 0..40 {
            got += objects(cluster, 1).len();
        }
        assert_eq!(got, 400);
    });
}

#[test]
fn silence_is_broken_by_pings_that_a_page_can_see() {
    let config = Config { ping_interval: TimeSpan::seconds(2), pong_timeout: TimeSpan::seconds(1), ..Config::default() };
    each(&config, 1, |cluster| {
        open(cluster, 0, 1, "/topics/a");
        open(cluster, 0, 2, "/topics/a");
        for _ in 0..3 {
            // One of them speaks all the time, so the WebSocket has no reason to ping it.
            for _ in 0..22 {
                cluster.pass(Duration::from_millis(100));
                cluster.write(2, &frame(0x8A, b""));
            }
            for id in [1, 2] {
                let mut bytes = Vec::new();
                for _ in 0..20 {
                    cluster.settle();
                    bytes.extend(cluster.read(id));
                }
                let frames = take_frames(&mut bytes);
                let pings = frames.iter().filter(|(opcode, _)| *opcode == 9).count();
                assert_eq!(pings, usize::from(id == 1), "{frames:?}");
                let visible = frames.iter().filter(|frame| **frame == (1, br#"{"type":"ping"}"#.to_vec())).count();
                assert_eq!((visible, frames.len()), (1, pings + 1), "{frames:?}");
            }
            cluster.write(1, &frame(0x8A, b""));
        }
        assert_eq!(cluster.workers[0].driver.blocks(), 1, "one frame for everybody");
    });
}

#[test]
fn a_stopping_server_refuses_what_is_new_and_closes() {
    let config = Config { drain_window: TimeSpan::seconds(2), ..Config::default() };
    let refused = std::cell::Cell::new(0);
    each(&config, 2, |cluster| {
        for id in 1..5 {
            open(cluster, id as usize % 2, id, "/topics/a");
        }
        cluster.shared.advance(Phase::Draining);
        cluster.settle();
        for id in 1..5 {
            ask(cluster, id, &json!({"id": 1, "type": "publish", "topic": "a", "text": "x"}));
        }
        cluster.pass(Duration::from_secs(3));
        for id in 1..5 {
            let got = objects(cluster, id);
            refused.set(refused.get() + got.iter().filter(|object| problem(object) == "draining").count());
            assert_eq!(got.last(), Some(&json!({"close": 1001})), "{got:?}");
            cluster.write(id, &frame(0x88, &1001u16.to_be_bytes()));
        }
        cluster.pass(Duration::from_secs(6));
        assert!(cluster.is_done());
    });
    assert!(refused.get() > 0, "some were asked before their close");
}

#[test]
fn a_session_that_ends_amid_its_requests_holds_nothing() {
    for steps in 0..60 {
        let mut cluster = Cluster::new(2, crate::io::scripted::Mode::Completion, steps, &Config::default());
        cluster.connect(0, 0, WINDOW);
        for number in 0..20 {
            publish(&mut cluster, 0, &format!("t{}", number % 3), "x");
        }
        for id in 1..4 {
            open(&mut cluster, id as usize % 2, id, "/topics?topic=t0&topic=u&since=earliest");
            for topic in ["t1", "t2", "t1"] {
                ask(&mut cluster, id, &json!({"id": 1, "type": "subscribe", "topic": topic, "since": "earliest"}));
                ask(&mut cluster, id, &json!({"id": 2, "type": "publish", "topic": topic, "text": "y"}));
                ask(&mut cluster, id, &json!({"id": 3, "type": "unsubscribe", "topic": topic}));
            }
        }
        cluster.step(steps as usize);
        cluster.driver(1).reset(1);
        cluster.driver(2).shut(2);
        cluster.write(3, &frame(0x88, &1000u16.to_be_bytes()));
        cluster.settle();
        cluster.pass(Duration::from_secs(2));
        for worker in &cluster.workers {
            let core = &worker.core;
            assert_eq!((core.hub.subscriptions(), core.replays.len(), core.publish_ids.len()), (0, 0, 0), "{steps}");
            assert_eq!((core.entries.queued_bytes(), core.pages_asked), (0, 0), "{steps}");
        }
        assert_eq!(cluster.count(|metrics| metrics.connections.of(Transport::WebSocket).get()), 0);
    }
}

#[test]
fn who_breaks_the_protocol_below_is_closed_as_any_socket() {
    each(&Config::default(), 1, |cluster| {
        for (id, bytes, code, cause) in [
            (1, &b"\x81\x01unmasked"[..], 1002, Cause::ProtocolError),
            (2, &frame(0x81, b"\xFF")[..], 1007, Cause::BadUtf8),
            (3, &[0x81, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0][..], 1009, Cause::TooBig),
        ] {
            open(cluster, 0, id, "/topics/a");
            cluster.write(id, bytes);
            assert_eq!(objects(cluster, id), [json!({"close": code})]);
            cluster.pass(Duration::from_millis(1200));
            assert_eq!(cluster.count(|metrics| metrics.connections_closed.of(cause).get()), 1);
        }
    });
}

#[test]
fn a_number_of_a_topic_that_was_left_is_given_on_without_harm() {
    let config = Config {
        outbox_size: ByteSize(2000),
        max_message_size: ByteSize(1000),
        slow_consumer: SlowConsumer::DropOldest,
        topic_class: vec!["never/*;slow-consumer=disconnect".parse().unwrap()],
        ..Config::default()
    };
    each(&config, 1, |cluster| {
        open(cluster, 0, 1, "/topics/a");
        cluster.driver(1).set_window(1, 0);
        cluster.connect(0, 2, WINDOW);
        for number in 0..5 {
            publish(cluster, 2, "a", &format!("{number} {}", "x".repeat(100)));
        }
        ask(cluster, 1, &json!({"type": "unsubscribe", "topic": "a"}));
        cluster.settle();
        ask(cluster, 1, &subscribe(1, "b"));
        for number in 0..40 {
            publish(cluster, 2, "b", &format!("{number} {}", "x".repeat(100)));
        }
        cluster.driver(1).set_window(1, WINDOW);
        let got = objects(cluster, 1);
        let of_a = got.iter().filter(|object| object["topic"] == "a" && object["type"] == "message").count();
        assert_eq!(of_a, 5, "{got:?}");
        assert!(got.last().unwrap()["text"].as_str().unwrap().starts_with("39 "), "{got:?}");
        assert!(got.iter().any(|object| object["reason"] == "slow" && object["topic"] == "b"), "{got:?}");
    });
}
