//! Policies that drop: whoever can be told is told exactly what is missing, in its place.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cluster::{Cluster, WINDOW, events, field, post, take_events, take_frames, take_head, upgrade, upgrade_to_session};
use super::cluster::{each, frames, subscribe};
use crate::Config;
use crate::config::ByteSize;
use crate::io::scripted::Mode;
use crate::metrics::DropReason;
use crate::worker::SlowConsumer;

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Session,
    Envelope,
    Events,
    /// Events of several topics: their frames have no ids.
    Several,
    Lines,
}

/// How, where, and how many of the topics `a` and `b` that reaches.
const TARGETS: [(How, &str, usize); 11] = [
    (How::Session, "/topics?topic=a&topic=b", 2),
    (How::Envelope, "/topics?topic=a&topic=b&envelope", 2),
    (How::Envelope, "/topics/*?envelope", 2),
    (How::Envelope, "/topics?topic=b&topic=*&topic=**&envelope", 2),
    (How::Events, "/topics/a?envelope", 1),
    (How::Events, "/topics/*?envelope", 2),
    (How::Lines, "/topics/a?as=ndjson", 1),
    (How::Lines, "/topics/**?as=ndjson", 2),
    (How::Several, "/topics?topic=a&topic=b&envelope", 2),
    (How::Several, "/topics?topic=b&topic=*&envelope", 2),
    (How::Lines, "/topics?topic=b&topic=a&as=ndjson", 2),
];

fn objects(how: How, mut bytes: Vec<u8>) -> Vec<Value> {
    let status = take_head(&mut bytes).expect("a head");
    match how {
        How::Session | How::Envelope => {
            assert_eq!(status, 101);
            take_frames(&mut bytes).iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect()
        }
        How::Events | How::Several => {
            let datas = take_events(&mut bytes).into_iter().filter_map(|event| {
                if field(&event, "event").as_deref() == Some("cursor") {
                    assert_eq!(how, How::Several);
                    return None;
                }
                let object = field(&event, "data")?;
                let object: Value = serde_json::from_str(&object).unwrap();
                let stands_at = object.get("cursor").or(object.get("to")).and_then(Value::as_str).filter(|_| how == How::Events);
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
        How::Events | How::Several => events(target, None),
        How::Lines => format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes(),
    };
    cluster.write(1, &request);
    cluster.settle();
}

#[test]
fn what_is_dropped_is_told_where_it_stood() {
    for slow_consumer in [SlowConsumer::DropOldest, SlowConsumer::Latest] {
        let config = Config { slow_consumer, outbox_size: ByteSize(3000), max_message_size: ByteSize(1000), ..Config::default() };
        for (how, target, topics) in TARGETS {
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
                let missing: u64 = (0..topics).map(|topic| check_topic(&got, ["a", "b"][topic], published[topic])).sum();
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

/// A reader of a pattern that takes nothing, and a publisher.
fn stuck(config: &Config) -> Cluster {
    let mut cluster = Cluster::new(1, Mode::Readiness, 1, config);
    subscribe(&mut cluster, 0, 1, "/topics/t/*?envelope");
    cluster.driver(1).set_window(1, 0);
    cluster.connect(0, 2, WINDOW);
    cluster
}

fn publish(cluster: &mut Cluster, topic: &str, text: &str) {
    cluster.write(2, &post(&format!("/topics/{topic}"), text));
    cluster.settle();
    cluster.read(2);
}

fn drop_oldest() -> Config {
    let (slow_consumer, outbox_size) = (SlowConsumer::DropOldest, ByteSize(3000));
    Config { slow_consumer, outbox_size, max_message_size: ByteSize(1000), ..Config::default() }
}

#[test]
fn a_gap_keeps_its_topics_number_while_it_waits() {
    let mut cluster = stuck(&drop_oldest());
    let cluster = &mut cluster;
    // Of t/0 only the gap is left.
    for topic in ["t/0", "t/1"] {
        for _ in 0..40 {
            publish(cluster, topic, &"x".repeat(100));
        }
    }
    let core = &cluster.workers[0].core;
    let waiting: BTreeSet<_> = core.entries.topics().map(|id| core.hub.topic(id).unwrap().to_string()).collect();
    assert_eq!((waiting, core.entries.gaps()), (BTreeSet::from(["t/0".to_owned(), "t/1".to_owned()]), 2));
    // So many topics of patterns come and go that those in no queue are forgotten.
    subscribe(cluster, 0, 3, "/topics/u/*?envelope");
    for number in 0..1500 {
        publish(cluster, &format!("u/{number}"), "x");
        cluster.read(3);
    }
    let core = &cluster.workers[0].core;
    assert!(core.hub.topics() < 1500, "some were forgotten");
    assert!(core.entries.topics().any(|id| core.hub.topic(id).is_some_and(|topic| topic.as_str() == "t/0")));
    publish(cluster, "t/0", &"x".repeat(900));
    let mut got = Vec::new();
    for _ in 0..40 {
        cluster.driver(1).set_window(1, WINDOW);
        cluster.settle();
        got.extend(take_frames(&mut cluster.read(1)));
    }
    let got: Vec<Value> = got.iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect();
    let missing = check_topic(&got, "t/0", 41) + check_topic(&got, "t/1", 40);
    assert_eq!(cluster.count(|metrics| metrics.messages_dropped.of(DropReason::DropOldest).get()), missing);
}

#[test]
fn gaps_of_a_patterns_topics_are_bounded_as_the_outbox_is() {
    let mut cluster = stuck(&drop_oldest());
    let cluster = &mut cluster;
    let mut most = 0;
    for number in 0..200 {
        publish(cluster, &format!("t/{number}"), "x");
        most = most.max(cluster.workers[0].core.entries.queued_bytes());
    }
    assert!((3000..4000).contains(&most), "{most}");
    cluster.driver(1).set_window(1, WINDOW);
    let mut got = frames(cluster, 1);
    let close = got.pop().unwrap();
    assert_eq!((close.0, &close.1[..2]), (8, &1013u16.to_be_bytes()[..]));
    // What it is told up to then is right.
    let got: Vec<Value> = got.iter().map(|(_, payload)| serde_json::from_slice(payload).unwrap()).collect();
    for (number, object) in got.iter().enumerate() {
        assert_eq!(object["type"], "message", "what is dropped with the connection is told by its close: {object}");
        assert_eq!((object["topic"].as_str().unwrap(), offset(&object["cursor"])), (format!("t/{number}").as_str(), 1));
    }
}
