//! Replays one by one: what is counted, what is told when something goes meanwhile, and how a crowd takes its turns.

use super::cluster::{Cluster, WINDOW, post, take_frames, take_head, upgrade, upgrade_to_session};
use crate::Config;
use crate::io::scripted::Mode;
use crate::metrics::Recovery;

#[test]
fn a_resume_is_counted() {
    let mut cluster = Cluster::new(2, Mode::Readiness, 1, &Config::default());
    cluster.connect(0, 0, WINDOW);
    cluster.write(0, &post("/topics/chat", "one"));
    cluster.settle();
    for (peer, since) in [(1, "earliest"), (2, "latest"), (3, "10m"), (4, "Elsewhere.7")] {
        cluster.connect(1, peer, WINDOW);
        cluster.write(peer, &upgrade(&format!("/topics/chat?since={since}")));
        cluster.settle();
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.extend(cluster.read(peer));
            cluster.settle();
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(take_head(&mut bytes), Some(101));
        assert_eq!(text.contains("Fantail-Recovered: false"), peer == 4, "{text}");
        let expected: &[(u8, Vec<u8>)] = match peer {
            1 | 3 => &[(1, b"one".to_vec())],
            2 => &[],
            _ => &[(8, [&4104u16.to_be_bytes()[..], br#"{"cause":"gap"}"#].concat())],
        };
        assert_eq!(take_frames(&mut bytes), expected, "since={since}");
    }
    let recoveries = |result| cluster.count(|metrics| metrics.recoveries.of(result).get());
    assert_eq!((recoveries(Recovery::Whole), recoveries(Recovery::Gap)), (0, 1));
}

/// A cluster of one worker with a topic `b` of which one publication is kept, and something in `a` that is replayed first.
fn amid_a_replay(config: &Config, scene: impl Fn(&mut Cluster)) {
    for mode in [Mode::Readiness, Mode::Completion] {
        let mut cluster = Cluster::new(1, mode, 1, config);
        cluster.connect(0, 0, WINDOW);
        for number in 0..40 {
            cluster.write(0, &post("/topics/a", &format!("a{number}")));
        }
        cluster.settle();
        cluster.read(0);
        scene(&mut cluster);
    }
}

/// Outboxes so small that a replay takes many turns.
fn narrow() -> Config {
    let (outbox_size, max_message_size) = (crate::config::ByteSize(1200), crate::config::ByteSize(600));
    Config { outbox_size, max_message_size, ..Config::default() }
}

fn objects(cluster: &mut Cluster, peer: u64) -> Vec<serde_json::Value> {
    let mut bytes = Vec::new();
    for _ in 0..40 {
        cluster.driver(peer).set_window(peer, WINDOW);
        cluster.settle();
        bytes.extend(cluster.read(peer));
    }
    let head = take_head(&mut bytes);
    assert!(head.is_none_or(|status| status == 101));
    let texts = take_frames(&mut bytes).into_iter().filter(|(opcode, _)| *opcode == 1);
    texts.map(|(_, payload)| serde_json::from_slice(&payload).unwrap()).collect()
}

#[test]
fn what_goes_while_another_topic_is_replayed_is_told() {
    let config = Config { topic_class: vec!["b;history-size=1".parse().unwrap()], ..narrow() };
    amid_a_replay(&config, |cluster| {
        cluster.write(0, &post("/topics/b", "first"));
        cluster.settle();
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics?topic=a&topic=b&envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        for text in ["second", "third", "fourth"] {
            cluster.write(0, &post("/topics/b", text));
        }
        cluster.settle();
        let of_b: Vec<_> = objects(cluster, 1).into_iter().filter(|object| object["topic"] == "b").collect();
        let told: Vec<_> = of_b.iter().map(|object| object["text"].as_str().or(object["reason"].as_str()).unwrap()).collect();
        assert_eq!(told, ["trimmed", "fourth"], "of what came behind the 101 nothing is missing in silence");
    });
}

#[test]
fn latest_means_the_same_as_nothing_also_where_nothing_is_kept() {
    let config = Config { history_size: 0, ..Config::default() };
    for target in ["/topics/t?since=latest", "/topics/t?envelope&since=latest"] {
        let mut cluster = Cluster::new(2, Mode::Completion, 1, &config);
        cluster.connect(0, 0, WINDOW);
        cluster.connect(1, 1, WINDOW);
        cluster.write(1, &upgrade(target));
        for _ in 0..50 {
            cluster.write(0, &post("/topics/t", "x"));
            cluster.step(1);
        }
        let mut bytes = Vec::new();
        for _ in 0..20 {
            cluster.settle();
            bytes.extend(cluster.read(1));
        }
        assert_eq!(take_head(&mut bytes), Some(101));
        assert!(take_frames(&mut bytes).iter().all(|(opcode, _)| *opcode == 1), "{target}: no close");
    }
}

#[test]
fn a_crowd_that_resumes_takes_turns_below_the_workers_limit() {
    let config = Config { worker_outbox_size: crate::config::ByteSize(100_000), ..Config::default() };
    amid_a_replay(&config, |cluster| {
        for peer in 1..=200 {
            cluster.connect(0, peer, 0);
            cluster.write(peer, &upgrade("/topics/a?envelope&since=earliest"));
        }
        cluster.settle();
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!(queued < 150_000, "{queued} bytes wait for who reads nothing");
        let mut got = vec![0; 201];
        for _ in 0..100 {
            for peer in 1..=200 {
                cluster.driver(peer).set_window(peer, WINDOW);
            }
            cluster.settle();
            for peer in 1..=200 {
                let bytes = cluster.read(peer);
                got[peer as usize] += bytes.windows(9).filter(|window| window.starts_with(b"\"text\":\"a")).count();
            }
        }
        assert!(got[1..].iter().all(|count| *count == 40), "{got:?}");
    });
}

#[test]
fn who_does_not_read_keeps_nobody_waiting() {
    let (outbox_size, max_message_size) = (crate::config::ByteSize(20_000), crate::config::ByteSize(600));
    let slow_consumer = crate::class::SlowConsumer::DropOldest;
    let config = Config {
        outbox_size,
        worker_outbox_size: crate::config::ByteSize(30_000),
        max_message_size,
        slow_consumer,
        ..Config::default()
    };
    for mode in [Mode::Readiness, Mode::Completion] {
        let mut cluster = Cluster::new(1, mode, 1, &config);
        cluster.connect(0, 0, WINDOW);
        cluster.connect(0, 1, WINDOW);
        cluster.write(1, &upgrade("/topics/a"));
        cluster.settle();
        cluster.read(1);
        cluster.driver(1).set_window(1, 0);
        cluster.write(0, &post("/topics/b", "kept"));
        for _ in 0..60 {
            cluster.write(0, &post("/topics/a", &"x".repeat(500)));
            cluster.settle();
        }
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!((15_000..30_000).contains(&queued), "{queued} bytes: half of what may wait on the worker");
        let requests = [
            upgrade_to_session("/topics/b?since=earliest"),
            super::cluster::events("/topics/b?since=earliest", None),
            upgrade("/topics/b?since=earliest"),
            b"GET /topics/b?since=earliest&wait=5 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ];
        for (peer, request) in (2..).zip(requests) {
            cluster.connect(0, peer, WINDOW);
            cluster.write(peer, &request);
            let mut bytes = Vec::new();
            for _ in 0..20 {
                cluster.settle();
                bytes.extend(cluster.read(peer));
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert!(text.contains("kept"), "{peer}: {text}");
        }
    }
}

#[test]
fn a_stopping_server_does_not_wait_for_who_is_reading() {
    amid_a_replay(&narrow(), |cluster| {
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics/a?envelope&since=earliest"));
        cluster.settle();
        cluster.shared.advance(crate::worker::Phase::Draining);
        cluster.settle();
        let queued = cluster.workers[0].core.entries.queued_bytes();
        assert!(queued < 1_500, "{queued} bytes: no page was asked for any more");
    });
}

#[test]
fn who_comes_as_the_server_stops_is_answered_before_its_end() {
    let window = crate::config::TimeSpan(std::time::Duration::ZERO);
    let config = Config { drain_window: window, close_timeout: crate::config::TimeSpan::seconds(1), ..Config::default() };
    let mut refused = 0;
    for steps in 0..60 {
        let mut cluster = Cluster::new(2, Mode::Readiness, steps, &config);
        let home = cluster.shared.home_of("a");
        cluster.connect(home, 0, WINDOW);
        cluster.write(0, &post("/topics/a", "kept"));
        cluster.settle();
        cluster.connect(1 - home, 1, WINDOW);
        cluster.write(1, &upgrade("/topics/a?since=earliest"));
        cluster.step(steps as usize);
        cluster.shared.advance(crate::worker::Phase::Draining);
        cluster.shared.ring_all();
        let mut bytes = Vec::new();
        for _ in 0..10 {
            cluster.pass(std::time::Duration::from_millis(90));
            bytes.extend(cluster.read(1));
        }
        let status = take_head(&mut bytes);
        assert!(matches!(status, Some(101 | 503)), "{steps}: {status:?}");
        refused += usize::from(status == Some(503));
    }
    assert!(refused > 0, "some came too late");
}

#[test]
fn a_page_that_comes_late_answers_no_other_poll() {
    for steps in 0..40 {
        let mut cluster = Cluster::new(2, Mode::Readiness, 1, &Config::default());
        let poll =
            |topic: &str| format!("GET /topics/{topic}?since=earliest&wait=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        let homes: Vec<usize> = ["a", "b"].iter().map(|topic| cluster.shared.home_of(topic)).collect();
        cluster.connect(homes[0], 0, WINDOW);
        for topic in ["a", "b"] {
            cluster.write(0, &post(&format!("/topics/{topic}"), topic));
        }
        cluster.settle();
        cluster.connect(1 - homes[0], 1, WINDOW);
        cluster.settle();
        cluster.write(1, &poll("a"));
        cluster.step(steps);
        cluster.frozen = Some(homes[0]);
        cluster.pass(std::time::Duration::from_secs(7));
        cluster.write(1, &poll("b"));
        cluster.step(20);
        cluster.frozen = None;
        let mut bytes = Vec::new();
        for _ in 0..20 {
            cluster.settle();
            bytes.extend(cluster.read(1));
            cluster.pass(std::time::Duration::from_millis(100));
        }
        let text = String::from_utf8(bytes).unwrap();
        let answers = text.matches("HTTP/1.1 ").count();
        let last = text.rsplit("HTTP/1.1 ").next().unwrap();
        assert!(answers >= 1 && !last.contains("\"topic\":\"a\"") || answers == 1, "{steps}: {text}");
        assert!(cluster.workers.iter().all(|worker| worker.core.pages_asked == 0), "{steps}");
    }
}

#[test]
fn what_is_deleted_while_another_topic_is_replayed_is_told() {
    amid_a_replay(&Config { allow_delete: true, ..narrow() }, |cluster| {
        cluster.write(0, &post("/topics/b", "first"));
        cluster.settle();
        cluster.connect(0, 1, 300);
        cluster.write(1, &upgrade("/topics?topic=a&topic=b&envelope&since=earliest&on-gap=continue"));
        cluster.settle();
        cluster.write(0, b"DELETE /topics/b HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cluster.write(0, &post("/topics/b", "anew"));
        cluster.settle();
        let of_b: Vec<_> = objects(cluster, 1).into_iter().filter(|object| object["topic"] == "b").collect();
        let told: Vec<_> = of_b.iter().map(|object| object["text"].as_str().or(object["reason"].as_str()).unwrap()).collect();
        assert_eq!(told, ["epoch", "anew"], "it was promised what was there when its 101 left");
    });
}
