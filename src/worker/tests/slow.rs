//! Policies that drop: whoever can be told is told exactly what is missing, in its place.

use serde_json::Value;

use super::cluster::{Cluster, WINDOW, events, field, post, take_events, take_frames, take_head, upgrade, upgrade_to_session};
use super::scenarios::each;
use crate::Config;
use crate::config::ByteSize;
use crate::metrics::DropReason;
use crate::worker::SlowConsumer;

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Session,
    Envelope,
    Events,
    Lines,
}

const TARGETS: [(How, &str); 4] = [
    (How::Session, "/topics?topic=a&topic=b"),
    (How::Envelope, "/topics?topic=a&topic=b&envelope"),
    (How::Events, "/topics/a?envelope"),
    (How::Lines, "/topics/a?as=ndjson"),
];

fn objects(how: How, mut bytes: Vec<u8>) -> Vec<Value> {
    let status = take_head(&mut bytes).expect("a head");
    match how {
        How::Session | How::Envelope => {
            assert_eq!(status, 101);
            take_frames(&mut bytes).iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect()
        }
        How::Events => {
            let datas = take_events(&mut bytes).into_iter().filter_map(|event| {
                let object = field(&event, "data")?;
                let object: Value = serde_json::from_str(&object).unwrap();
                let stands_at = object.get("cursor").or(object.get("to")).and_then(Value::as_str);
                assert_eq!(field(&event, "id").as_deref(), stands_at, "an event moves its reader to its end");
                Some(object)
            });
            datas.collect()
        }
        How::Lines => take_events(&mut bytes).iter().map(|line| serde_json::from_str(line).unwrap()).collect(),
    }
}

fn offset(cursor: &Value) -> u64 {
    cursor.as_str().unwrap().rsplit('.').next().unwrap().parse().unwrap()
}

/// Walks what a reader got of a topic: every offset is there once, or in a gap, in order. How many messages were in gaps.
fn check_topic(objects: &[Value], topic: &str, last: u64) -> u64 {
    let (mut at, mut missing) = (0, 0);
    for object in objects.iter().filter(|object| object["topic"] == topic) {
        match object["type"].as_str().unwrap() {
            "message" => {
                assert_eq!(offset(&object["cursor"]), at + 1, "{object}");
                at += 1;
            }
            "gap" => {
                assert_eq!((offset(&object["from"]), &object["reason"]), (at, &Value::from("slow")), "{object}");
                missing += offset(&object["to"]) - at;
                at = offset(&object["to"]);
            }
            _ => {}
        }
    }
    assert_eq!(at, last, "{topic}");
    missing
}

fn connect(cluster: &mut Cluster, how: How, target: &str) {
    cluster.connect(0, 1, WINDOW);
    let request = match how {
        How::Session => upgrade_to_session(target),
        How::Envelope => upgrade(target),
        How::Events => events(target, None),
        How::Lines => format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
    };
    cluster.write(1, &request);
    cluster.settle();
}

#[test]
fn what_is_dropped_is_told_where_it_stood() {
    for slow_consumer in [SlowConsumer::DropOldest, SlowConsumer::Latest] {
        let config = Config { slow_consumer, outbox_size: ByteSize(3000), max_message_size: ByteSize(1000), ..Config::default() };
        for (how, target) in TARGETS {
            let seeds = std::cell::Cell::new(0);
            each(&config, 2, |cluster| {
                seeds.set(seeds.get() + 1);
                connect(cluster, how, target);
                cluster.connect(1, 2, WINDOW);
                let mut bytes = Vec::new();
                let mut random = fastrand::Rng::with_seed(seeds.get());
                let mut published = [0, 0];
                for round in 0..6 {
                    for _ in 0..random.usize(1..60) {
                        let topic = random.usize(0..2);
                        published[topic] += 1;
                        let text = "x".repeat(random.usize(1..120));
                        cluster.write(2, &post(["/topics/a", "/topics/b"][topic], &text));
                        cluster.settle();
                    }
                    // Sometimes it reads all, sometimes a little.
                    cluster.driver(1).set_window(1, if round % 2 == 0 { 0 } else { random.usize(1..2000) });
                    cluster.settle();
                    bytes.extend(cluster.read(1));
                }
                for _ in 0..40 {
                    cluster.driver(1).set_window(1, WINDOW);
                    cluster.settle();
                    bytes.extend(cluster.read(1));
                }
                let got = objects(how, bytes);
                let mut missing = check_topic(&got, "a", published[0]);
                if matches!(how, How::Session | How::Envelope) {
                    missing += check_topic(&got, "b", published[1]);
                }
                let reason = if slow_consumer == SlowConsumer::Latest { DropReason::Latest } else { DropReason::DropOldest };
                assert_eq!(
                    cluster.count(|metrics| metrics.messages_dropped.of(reason).get()),
                    missing,
                    "what is told is what is counted"
                );
                let core = &cluster.workers[0].core;
                assert_eq!((core.entries.queued_bytes(), core.entries.gaps()), (0, 0));
            });
        }
    }
}
