//! What is behind a pattern: read to its end topic by topic, once and in order, while others publish, and told where something is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::cluster::each;
use super::cluster::{Cluster, WINDOW, events, post, take_events, take_frames, take_head, upgrade};
use crate::Config;
use crate::config::{ByteSize, TimeSpan};
use crate::metrics::Recovery;

/// Outboxes so small that a reading takes many turns.
fn narrow() -> Config {
    Config { outbox_size: ByteSize(1200), max_message_size: ByteSize(600), ..Config::default() }
}

fn publish(cluster: &mut Cluster, topic: &str, text: &str) {
    cluster.write(0, &post(&format!("/topics/{topic}"), text));
    cluster.settle();
    cluster.read(0);
}

/// So many topics below `t`, each with so many publications, on a cluster with a publisher.
fn fill(cluster: &mut Cluster, topics: usize, publications: usize) {
    cluster.connect(0, 0, WINDOW);
    for number in 0..publications {
        for topic in 0..topics {
            publish(cluster, &format!("t/{topic}"), &number.to_string());
        }
    }
}

/// Everything that a WebSocket gets, objects and close codes; its window opens again and again.
fn drain(cluster: &mut Cluster, id: u64, bytes: &mut Vec<u8>) -> Vec<Value> {
    for _ in 0..200 {
        cluster.driver(id).set_window(id, WINDOW);
        cluster.settle();
        bytes.extend(cluster.read(id));
    }
    if bytes.starts_with(b"HTTP") {
        assert_eq!(take_head(bytes), Some(101));
    }
    let objects = take_frames(bytes).into_iter().filter_map(|(opcode, payload)| match opcode {
        1 => Some(serde_json::from_slice(&payload).unwrap()),
        8 => Some(serde_json::json!({"close": u16::from_be_bytes([payload[0], payload[1]])})),
        _ => None,
    });
    objects.collect()
}

/// The texts of each topic, in the order in which they came.
fn by_topic(objects: &[Value]) -> BTreeMap<&str, Vec<&str>> {
    let mut texts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for object in objects {
        assert_eq!(object["type"], "message", "{object}");
        texts.entry(object["topic"].as_str().unwrap()).or_default().push(object["text"].as_str().unwrap());
    }
    texts
}

#[test]
fn all_topics_of_all_homes_come_and_then_what_is_published() {
    each(&Config::default(), 3, |cluster| {
        fill(cluster, 20, 3);
        publish(cluster, "other", "x");
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest"));
        cluster.settle();
        for topic in ["t/3", "t/new"] {
            publish(cluster, topic, "3");
        }
        let objects = drain(cluster, 1, &mut Vec::new());
        let texts = by_topic(&objects);
        assert_eq!(texts.len(), 21);
        for (topic, got) in texts {
            let expected: &[&str] = match topic {
                "t/new" => &["3"],
                "t/3" => &["0", "1", "2", "3"],
                _ => &["0", "1", "2"],
            };
            assert_eq!(got, expected, "{topic}");
        }
        assert_eq!(cluster.count(|metrics| metrics.recoveries.of(Recovery::Whole).get()), 0, "there was no cursor");
        assert!(cluster.workers.iter().all(|worker| worker.core.replays.is_empty() && worker.core.pages_asked == 0));
    });
}

#[test]
fn a_time_reaches_back_so_far() {
    each(&Config::default(), 2, |cluster| {
        fill(cluster, 4, 1);
        cluster.pass(Duration::from_secs(20));
        publish(cluster, "t/1", "late");
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade("/topics/**?envelope&since=10s"));
        let objects = drain(cluster, 1, &mut Vec::new());
        assert_eq!(by_topic(&objects), BTreeMap::from([("t/1", vec!["late"])]));
    });
}

#[test]
fn a_pattern_that_begins_now_brings_what_is_published_while_a_topic_beside_it_is_read() {
    // The wider one matches the topic, too.
    for pattern in ["t%2F*", "**"] {
        each(&narrow(), 3, |cluster| {
            fill(cluster, 12, 2);
            for number in 0..40 {
                publish(cluster, "a", &number.to_string());
            }
            cluster.connect(1, 1, 300);
            cluster.write(1, &upgrade(&format!("/topics?topic=a&since=earliest&topic={pattern}&since=latest&envelope")));
            cluster.settle();
            let is_reading = |cluster: &Cluster| !cluster.workers[1].core.replays.is_empty();
            assert!(is_reading(cluster));
            for (topic, text) in [("t/3", "now"), ("a", "40"), ("t/new", "now")] {
                publish(cluster, topic, text);
            }
            assert!(is_reading(cluster), "it was published meanwhile");
            let objects = drain(cluster, 1, &mut Vec::new());
            let all: Vec<String> = (0..=40).map(|number| number.to_string()).collect();
            let expected = [("a", all.iter().map(String::as_str).collect()), ("t/3", vec!["now"]), ("t/new", vec!["now"])];
            assert_eq!(by_topic(&objects), BTreeMap::from(expected), "{pattern}");
        });
    }
}

#[test]
fn who_reads_slowly_is_not_slow_and_misses_nothing_of_what_pours_in() {
    each(&narrow(), 3, |cluster| {
        fill(cluster, 12, 8);
        cluster.connect(1, 1, 300);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest"));
        let mut bytes = Vec::new();
        for number in 8..20 {
            for topic in 0..12 {
                cluster.write(0, &post(&format!("/topics/t/{topic}"), &number.to_string()));
                cluster.step(6);
                let queued = cluster.workers[1].core.entries.queued_bytes();
                assert!(queued <= 1200 + 600, "{queued} bytes wait");
                cluster.read(0);
                bytes.extend(cluster.read(1));
            }
        }
        let objects = drain(cluster, 1, &mut bytes);
        let texts = by_topic(&objects);
        let all: Vec<String> = (0..20).map(|number: u32| number.to_string()).collect();
        assert_eq!(texts.len(), 12);
        texts.iter().for_each(|(topic, got)| assert_eq!(got, &all, "{topic}"));
        assert_eq!(cluster.count(|metrics| metrics.messages_dropped.of(crate::metrics::DropReason::ConnectionClosed).get()), 0);
    });
}

#[test]
fn what_goes_before_the_reader_comes_to_it_is_told() {
    let config = Config { topic_class: vec!["t/z;history-size=1".parse().unwrap()], ..narrow() };
    for (on_gap, closes) in [("", true), ("&on-gap=continue", false)] {
        each(&config, 1, |cluster| {
            fill(cluster, 8, 8);
            publish(cluster, "t/z", "early");
            publish(cluster, "t/z", "before");
            cluster.connect(0, 1, 300);
            cluster.write(1, &upgrade(&format!("/topics/t/*?envelope&since=earliest{on_gap}")));
            cluster.settle();
            for text in ["first", "second", "third"] {
                publish(cluster, "t/z", text);
            }
            let objects = drain(cluster, 1, &mut Vec::new());
            let of_z: Vec<_> = objects.iter().filter(|object| object["topic"] == "t/z").collect();
            if closes {
                assert_eq!((of_z.len(), &objects.last().unwrap()["close"]), (0, &4104.into()));
                return;
            }
            let [gap, message] = of_z[..] else { panic!("{of_z:?}") };
            let epoch = message["cursor"].as_str().unwrap().split_once('.').unwrap().0;
            assert_eq!((&gap["type"], &gap["reason"], &message["text"]), (&"gap".into(), &"trimmed".into(), &"third".into()));
            assert_eq!((&gap["from"], &gap["to"]), (&format!("{epoch}.0").into(), &format!("{epoch}.4").into()));
        });
    }
}

#[test]
fn what_was_trimmed_before_is_no_gap() {
    each(&Config { history_size: 1, ..Config::default() }, 2, |cluster| {
        fill(cluster, 3, 5);
        cluster.pass(Duration::from_millis(20));
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest"));
        let objects = drain(cluster, 1, &mut Vec::new());
        assert_eq!(by_topic(&objects).values().flatten().collect::<Vec<_>>(), [&"4"; 3]);
    });
}

#[test]
fn a_topic_that_ends_before_the_reader_comes_to_it_is_told_of_the_pattern() {
    let config = Config { history_ttl: TimeSpan::seconds(2), write_timeout: TimeSpan::seconds(900), ..narrow() };
    each(&config, 1, |cluster| {
        fill(cluster, 8, 8);
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        publish(cluster, "t/z", "x");
        for _ in 0..90 {
            // Pongs keep the socket.
            cluster.write(1, &super::cluster::frame(0x8A, b""));
            cluster.pass(Duration::from_secs(1));
        }
        let objects = drain(cluster, 1, &mut Vec::new());
        let unknown: Vec<_> = objects.iter().filter(|object| object["type"] == "gap" && object["from"].is_null()).collect();
        let expected = r#"{"from":null,"reason":"trimmed","to":null,"topic":"t/*","type":"gap"}"#;
        assert_eq!(unknown.iter().map(|gap| gap.to_string()).collect::<Vec<_>>(), [expected], "{objects:?}");
    });
}

#[test]
fn a_topic_that_keeps_nothing_comes_at_once() {
    let config = Config { topic_class: vec!["t/z;history-size=0".parse().unwrap()], ..narrow() };
    each(&config, 2, |cluster| {
        fill(cluster, 8, 8);
        cluster.connect(1, 1, 600);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest"));
        cluster.settle();
        publish(cluster, "t/z", "live");
        let objects = drain(cluster, 1, &mut Vec::new());
        assert_eq!(objects.len(), 65);
        let at = objects.iter().position(|object| object["topic"] == "t/z").unwrap();
        assert!(at < 32, "it does not wait for the rest: {at}");
    });
}

#[test]
fn what_several_names_match_is_read_once() {
    each(&narrow(), 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        let topics = ["a/b", "a/c", "a/c/d", "e"];
        for number in 0..6 {
            topics.iter().for_each(|topic| publish(cluster, topic, &number.to_string()));
        }
        cluster.connect(1, 1, 300);
        cluster.write(1, &upgrade("/topics?topic=**&topic=a/b&topic=a/*&topic=a/**&envelope&since=earliest"));
        cluster.step(20);
        for number in 6..9 {
            topics.iter().for_each(|topic| publish(cluster, topic, &number.to_string()));
        }
        let objects = drain(cluster, 1, &mut Vec::new());
        let texts = by_topic(&objects);
        let all: Vec<String> = (0..9).map(|number: u32| number.to_string()).collect();
        assert_eq!(texts.keys().collect::<Vec<_>>(), topics.iter().collect::<Vec<_>>());
        texts.iter().for_each(|(topic, got)| assert_eq!(got, &all, "{topic}"));
    });
}

#[test]
fn streams_read_behind_patterns_too() {
    each(&Config::default(), 2, |cluster| {
        fill(cluster, 5, 2);
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &events("/topics/t/**?envelope&since=earliest", None));
        cluster.connect(1, 2, WINDOW);
        cluster.write(2, b"GET /topics/t/**?as=ndjson&since=1m HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cluster.settle();
        publish(cluster, "t/0", "2");
        for id in [1, 2] {
            let mut bytes = Vec::new();
            for _ in 0..40 {
                cluster.settle();
                bytes.extend(cluster.read(id));
            }
            assert!(!String::from_utf8_lossy(&bytes).contains("Fantail-Recovered"), "no cursor was given");
            assert_eq!(take_head(&mut bytes), Some(200));
            let got = take_events(&mut bytes);
            assert_eq!((got.len(), got.iter().collect::<BTreeSet<_>>().len()), (12, 12), "{got:?}");
            assert!(got[0].contains("retry: ") || got[0].contains("\"cursor\":null"), "{}", got[0]);
        }
    });
}

#[test]
fn a_reader_that_goes_leaves_nothing() {
    each(&narrow(), 2, |cluster| {
        fill(cluster, 12, 8);
        for id in 1..=4 {
            cluster.connect(1, id, 300);
            cluster.write(id, &upgrade("/topics/t/*?envelope&since=earliest"));
            cluster.step(10 * id as usize);
            cluster.driver(id).reset(id);
        }
        cluster.settle();
        publish(cluster, "t/1", "x");
        cluster.pass(Duration::from_secs(1));
        for worker in &cluster.workers {
            let core = &worker.core;
            assert_eq!((core.hub.patterns(), core.replays.len(), core.pages_asked, core.readers.len()), (0, 0, 0, 0));
        }
    });
}

#[test]
fn a_home_that_takes_nothing_holds_up_its_own_topics_alone() {
    each(&narrow(), 2, |cluster| {
        fill(cluster, 12, 8);
        let topics: BTreeSet<String> = (0..12).map(|topic| format!("t/{topic}")).collect();
        let (first, second): (BTreeSet<_>, BTreeSet<_>) =
            topics.into_iter().partition(|topic| cluster.shared.home_of(topic) == 0);
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest"));
        cluster.settle();
        cluster.frozen = Some(1);
        let mut bytes = Vec::new();
        let objects = drain(cluster, 1, &mut bytes);
        assert_eq!(by_topic(&objects).into_keys().collect::<Vec<_>>(), first.iter().collect::<Vec<_>>());
        for topic in &first {
            publish(cluster, topic, "live");
        }
        let objects = drain(cluster, 1, &mut bytes);
        assert_eq!(objects.len(), first.len(), "they go on while the others wait");
        cluster.frozen = None;
        let objects = drain(cluster, 1, &mut bytes);
        let texts = by_topic(&objects);
        assert_eq!(texts.keys().collect::<Vec<_>>(), second.iter().collect::<Vec<_>>());
        assert!(texts.values().all(|texts| texts.len() == 8));
    });
}

#[test]
fn what_is_deleted_before_the_reader_comes_to_it_is_told() {
    each(&Config { allow_delete: true, ..narrow() }, 1, |cluster| {
        fill(cluster, 8, 8);
        publish(cluster, "t/z", "first");
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics/t/*?envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        cluster.write(0, b"DELETE /topics/t/z HTTP/1.1\r\nHost: localhost\r\n\r\n");
        publish(cluster, "t/z", "anew");
        let objects = drain(cluster, 1, &mut Vec::new());
        let of_z = objects.iter().filter(|object| object["topic"] == "t/z");
        let told: Vec<_> = of_z.map(|object| object["text"].as_str().or(object["reason"].as_str()).unwrap()).collect();
        assert_eq!(told, ["epoch", "anew"], "it was promised what was there when its 101 left");
    });
}
