//! What must happen, one scenario after the other, on both kinds of driver.

use std::time::Duration;

use super::cluster::{Cluster, WINDOW, each, frame, frames, post, subscribe, take_frames, take_head, upgrade};
use crate::Config;
use crate::config::TimeSpan;
use crate::io::Close;
use crate::io::scripted::Mode;
use crate::metrics::{Cause, DropReason, Transport};
use crate::worker::{Phase, SlowConsumer};

fn closed(cluster: &mut Cluster, id: u64) -> Option<Close> {
    cluster.driver(id).peer(id).closed
}

#[test]
fn a_message_reaches_every_subscriber_on_every_worker() {
    each(&Config::default(), 3, |cluster| {
        for id in 0..6 {
            subscribe(cluster, id as usize % 3, id, "/topics/chat");
        }
        cluster.write(0, &frame(0x81, b"hello"));
        for id in 0..6 {
            assert_eq!(frames(cluster, id), [(1, b"hello".to_vec())]);
        }
    });
}

#[test]
fn a_frame_behind_the_head_waits_for_the_101() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 1, WINDOW);
        let mut bytes = upgrade("/topics/chat");
        bytes.extend(frame(0x89, b"early"));
        bytes.extend(frame(0x81, b"first"));
        cluster.write(1, &bytes);
        cluster.settle();
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.extend(cluster.read(1));
            cluster.settle();
        }
        assert_eq!(take_head(&mut bytes), Some(101));
        assert_eq!(take_frames(&mut bytes), [(0xA, b"early".to_vec()), (1, b"first".to_vec())]);
    });
}

#[test]
fn a_peer_that_leaves_after_its_last_message_has_published_it() {
    each(&Config::default(), 2, |cluster| {
        subscribe(cluster, 0, 1, "/topics/chat");
        subscribe(cluster, 1, 2, "/topics/chat");
        let mut bytes: Vec<u8> = (0..40).flat_map(|number: u8| frame(0x81, &[b'a' + number % 26])).collect();
        bytes.extend(frame(0x88, &1001u16.to_be_bytes()));
        cluster.write(2, &bytes);
        cluster.driver(2).shut(2);
        assert_eq!(frames(cluster, 1).len(), 40);
        assert_eq!(closed(cluster, 2), Some(Close::InOrder));
        assert_eq!(cluster.count(|metrics| metrics.connections_closed.of(Cause::LeftPage).get()), 1);
    });
}

#[test]
fn requests_of_one_connection_are_answered_one_after_the_other() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 1, WINDOW);
        let bytes: Vec<u8> = (0..30).flat_map(|number| post(&format!("/topics/t{}", number % 5), "x")).collect();
        cluster.write(1, &bytes);
        cluster.driver(1).shut(1);
        let mut answers = Vec::new();
        for _ in 0..60 {
            cluster.settle();
            answers.extend(cluster.read(1));
        }
        let text = String::from_utf8(answers).unwrap();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 30);
        let topics: Vec<&str> = text.match_indices("\"topic\":\"t").map(|(at, _)| &text[at + 9..at + 11]).collect();
        assert_eq!(topics, (0..30).map(|number| ["t0", "t1", "t2", "t3", "t4"][number % 5]).collect::<Vec<_>>());
        assert_eq!(closed(cluster, 1), Some(Close::InOrder));
    });
}

#[test]
fn silence_is_asked_about_and_then_ended() {
    let config = Config { ping_interval: TimeSpan::seconds(2), pong_timeout: TimeSpan::seconds(1), ..Config::default() };
    each(&config, 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/chat");
        subscribe(cluster, 0, 2, "/topics/chat");
        cluster.pass(Duration::from_millis(2200));
        for id in [1, 2] {
            assert_eq!(frames(cluster, id), [(9, vec![])]);
        }
        cluster.write(2, &frame(0x8A, b""));
        cluster.pass(Duration::from_millis(1200));
        assert_eq!((closed(cluster, 1), closed(cluster, 2)), (Some(Close::Reset), None));
        assert_eq!(cluster.count(|metrics| metrics.connections_closed.of(Cause::NoPong).get()), 1);
    });
}

#[test]
fn who_breaks_the_protocol_is_told_and_can_read_it() {
    each(&Config::default(), 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/chat");
        cluster.write(1, b"\x81\x01unmasked, and much more behind it");
        let frames = frames(cluster, 1);
        assert_eq!((frames.len(), frames[0].0, &frames[0].1[..2]), (1, 8, &1002u16.to_be_bytes()[..]));
        assert!(cluster.driver(1).peer(1).server_shut && closed(cluster, 1).is_none());
        cluster.pass(Duration::from_millis(1200));
        assert!(closed(cluster, 1).is_some());
    });
}

#[test]
fn a_panic_in_a_protocol_step_ends_that_connection_alone() {
    let faults = std::cell::Cell::new(0);
    each(&Config::default(), 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/chat");
        subscribe(cluster, 0, 2, "/topics/chat");
        cluster.connect(0, 3, WINDOW);
        cluster.write(3, b"GET /fail-on-request HTTP/1.1\r\nHost: localhost\r\n\r\n");
        cluster.settle();
        cluster.write(1, &frame(0x81, b"fail-on-request"));
        let got = frames(cluster, 1);
        // Where the input was cut inside the words that ask for the fault, there is none.
        if let Some((8, reason)) = got.last() {
            faults.set(faults.get() + 1);
            assert_eq!(reason[..2], 1011u16.to_be_bytes());
            assert_eq!(cluster.count(|metrics| metrics.connections_closed.of(Cause::Internal).get()), 0, "it lingers first");
            cluster.pass(Duration::from_millis(1200));
            assert!(cluster.count(|metrics| metrics.connections_closed.of(Cause::Internal).get()) >= 1);
        }
        cluster.write(2, &frame(0x81, b"still here"));
        assert_eq!(frames(cluster, 2).last(), Some(&(1, b"still here".to_vec())));
    });
    assert!(faults.get() > 0, "some seed brings the words in one piece");
}

#[test]
fn a_stalled_peer_is_reset_and_one_that_reads_on_is_not() {
    let config = Config { write_timeout: TimeSpan::seconds(1), slow_consumer: SlowConsumer::DropOldest, ..Config::default() };
    each(&config, 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/big");
        subscribe(cluster, 0, 2, "/topics/big");
        for id in [1, 2] {
            cluster.driver(id).set_window(id, 6000);
        }
        cluster.connect(0, 3, WINDOW);
        for _ in 0..8 {
            cluster.write(3, &post("/topics/big", &"x".repeat(5000)));
        }
        cluster.settle();
        let mut read = Vec::new();
        for _ in 0..8 {
            cluster.pass(Duration::from_millis(400));
            read.extend(cluster.read(1));
        }
        assert_eq!((closed(cluster, 1), closed(cluster, 2)), (None, Some(Close::Reset)));
        assert_eq!(cluster.count(|metrics| metrics.connections_closed.of(Cause::StalledWrite).get()), 1);
    });
}

#[test]
fn each_policy_does_what_it_says() {
    for policy in SlowConsumer::ALL.iter().copied() {
        let config = Config {
            slow_consumer: policy,
            outbox_size: crate::config::ByteSize(2000),
            max_message_size: crate::config::ByteSize(1000),
            ..Config::default()
        };
        each(&config, 2, |cluster| {
            subscribe(cluster, 0, 1, "/topics/t");
            subscribe(cluster, 1, 2, "/topics/t");
            cluster.driver(1).set_window(1, 0);
            cluster.connect(0, 3, WINDOW);
            for number in 0..40 {
                cluster.write(3, &post("/topics/t", &format!("{number:0>100}")));
                cluster.settle();
            }
            assert_eq!(frames(cluster, 2).len(), 40, "a slow client costs only itself");
            cluster.driver(1).set_window(1, WINDOW);
            let got = frames(cluster, 1);
            let dropped = |reason| cluster.count(|metrics| metrics.messages_dropped.of(reason).get());
            let last: &[u8] = &got.last().expect("something came").1;
            match policy {
                SlowConsumer::Disconnect => {
                    assert_eq!((got.last().unwrap().0, &last[..2]), (8, &1013u16.to_be_bytes()[..]));
                    assert_eq!(got.len() as u64 - 1 + dropped(DropReason::ConnectionClosed), 20);
                }
                SlowConsumer::DropOldest => {
                    assert_eq!(last, format!("{:0>100}", 39).as_bytes());
                    assert_eq!(got.len() as u64 + dropped(DropReason::DropOldest), 40);
                    assert!(got.len() >= 19);
                }
                SlowConsumer::Latest => {
                    assert_eq!(last, format!("{:0>100}", 39).as_bytes());
                    assert_eq!(got.len() as u64 + dropped(DropReason::Latest), 40);
                    assert!(got.len() <= 2, "the newest, and at most one that was on its way");
                }
            }
        });
    }
}

#[test]
fn a_drain_hands_out_what_it_accepted_and_closes_everybody() {
    let config = Config { drain_window: TimeSpan::seconds(2), ..Config::default() };
    each(&config, 3, |cluster| {
        for id in 0..9 {
            subscribe(cluster, id as usize % 3, id, "/topics/chat");
        }
        cluster.connect(1, 100, WINDOW);
        cluster.settle();
        for _ in 0..20 {
            cluster.write(100, &post("/topics/chat", "x"));
        }
        cluster.step(15);
        cluster.shared.advance(Phase::Draining);
        cluster.pass(Duration::from_secs(3));
        let mut answers = String::from_utf8(cluster.read(100)).unwrap();
        answers.push_str(&String::from_utf8(cluster.read(100)).unwrap());
        let accepted = answers.matches("HTTP/1.1 200 OK").count();
        for id in 0..9 {
            let mut got = frames(cluster, id);
            let (opcode, reason) = got.pop().expect("a close");
            assert_eq!((opcode, &reason[..2]), (8, &1001u16.to_be_bytes()[..]));
            let reason: serde_json::Value = serde_json::from_slice(&reason[2..]).unwrap();
            assert_eq!(reason["cause"], "drain");
            assert!((500..=2500).contains(&reason["retry_after_ms"].as_u64().unwrap()));
            assert_eq!(got.len(), accepted, "what was acknowledged is delivered");
            cluster.write(id, &frame(0x88, &1001u16.to_be_bytes()));
        }
        cluster.pass(Duration::from_secs(6));
        assert!(cluster.is_done());
    });
}

#[test]
fn what_ended_holds_nothing() {
    each(&Config::default(), 2, |cluster| {
        for id in 0..20 {
            subscribe(cluster, id as usize % 2, id, &format!("/topics/t{}", id % 3));
        }
        for id in 0..20 {
            cluster.write(id, &frame(0x81, b"bye"));
            match id % 3 {
                0 => cluster.driver(id).reset(id),
                1 => cluster.driver(id).shut(id),
                _ => cluster.write(id, &frame(0x88, b"")),
            }
        }
        cluster.settle();
        cluster.pass(Duration::from_secs(2));
        for worker in &cluster.workers {
            assert_eq!((worker.driver.sockets(), worker.driver.blocks()), (0, 0));
            assert_eq!(worker.core.entries.queued_bytes(), 0);
            assert_eq!(worker.core.hub.subscriptions(), 0);
        }
        for transport in [Transport::Http, Transport::WebSocket, Transport::Echo] {
            assert_eq!(cluster.count(|metrics| metrics.connections.of(transport).get()), 0);
        }
        assert_eq!(cluster.shared.connections(), 0);
    });
}

#[test]
fn a_silent_connection_ends_at_its_deadline() {
    let config = Config { head_timeout: TimeSpan::seconds(1), idle_timeout: TimeSpan::seconds(3), ..Config::default() };
    each(&config, 1, |cluster| {
        for id in 1..=3 {
            cluster.connect(0, id, WINDOW);
        }
        cluster.settle();
        cluster.write(2, b"GET / HT");
        cluster.write(3, &post("/topics/a", "x"));
        cluster.pass(Duration::from_millis(900));
        assert_eq!([1, 2, 3].map(|id| closed(cluster, id)), [None, None, None]);
        cluster.pass(Duration::from_millis(1300));
        assert!(String::from_utf8(cluster.read(2)).unwrap().starts_with("HTTP/1.1 408 "));
        assert!(closed(cluster, 1).is_some() && closed(cluster, 3).is_none());
        cluster.pass(Duration::from_millis(1300));
        assert!([2, 3].iter().all(|id| closed(cluster, *id).is_some()));
    });
}

#[test]
fn an_adopted_connection_is_as_good_as_any() {
    let config = Config { rebalance: true, ..Config::default() };
    each(&config, 2, |cluster| {
        for id in 0..60 {
            subscribe(cluster, 0, id, "/topics/chat");
        }
        let counts: Vec<usize> = cluster.workers.iter().map(|worker| worker.driver.sockets()).collect();
        assert!(counts[1] > 15, "the other worker has some of them: {counts:?}");
        cluster.write(0, &frame(0x82, b"\xFF"));
        for id in 0..60 {
            assert_eq!(frames(cluster, id), [(2, vec![0xFF])]);
        }
    });
}

#[test]
fn answers_before_an_upgrade_go_before_its_101() {
    each(&Config::default(), 2, |cluster| {
        for (id, target) in [(1, "/topics/chat"), (2, "/echo")] {
            cluster.connect(0, id, 300);
            let mut bytes = b"GET /chat.html HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(8);
            bytes.extend(post("/topics/other", "x"));
            bytes.extend(upgrade(target));
            bytes.extend(frame(0x89, b"early"));
            cluster.write(id, &bytes);
            let mut answers = Vec::new();
            for _ in 0..200 {
                cluster.settle();
                answers.extend(cluster.read(id));
                cluster.driver(id).set_window(id, 700);
            }
            let text = String::from_utf8_lossy(&answers);
            let heads: Vec<&str> = text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
            assert_eq!(heads, ["200", "200", "200", "200", "200", "200", "200", "200", "200", "101"]);
            assert!(answers.ends_with(b"\x8A\x05early"), "the pong is the last thing that comes");
        }
    });
}

#[test]
fn a_subscription_asked_for_behind_a_post_is_confirmed_at_once() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 1, WINDOW);
        let mut bytes = post("/topics/a", "x");
        bytes.extend(upgrade("/topics/chat"));
        cluster.write(1, &bytes);
        // No time passes: whatever is to happen must happen without waiting for a deadline.
        let mut answers = Vec::new();
        for _ in 0..20 {
            cluster.settle();
            answers.extend(cluster.read(1));
        }
        assert!(String::from_utf8(answers).unwrap().contains("HTTP/1.1 101 "));
    });
}

#[test]
fn an_answer_that_comes_too_late_answers_no_other_request() {
    let config = Config { publish_timeout: TimeSpan::seconds(1), ..Config::default() };
    each(&config, 2, |cluster| {
        let homes: Vec<String> =
            (0..20).map(|number| format!("t{number}")).filter(|name| cluster.shared.home_of(name) == 1).collect();
        let own = (0..20).map(|number| format!("t{number}")).find(|name| cluster.shared.home_of(name) == 0).unwrap();
        // More than there are credits: some publications wait in the ring of the frozen worker, some for a credit.
        let ids: Vec<u64> = (0..8).collect();
        for id in &ids {
            cluster.connect(0, *id, WINDOW);
        }
        cluster.settle();
        cluster.frozen = Some(1);
        for id in &ids {
            cluster.write(*id, &post(&format!("/topics/{}", homes[0]), "late"));
        }
        cluster.pass(Duration::from_millis(1300));
        for id in &ids {
            let refusal = String::from_utf8(cluster.read(*id)).unwrap();
            assert!(refusal.starts_with("HTTP/1.1 503 "), "{refusal}");
            cluster.write(*id, &post(&format!("/topics/{own}"), "own"));
        }
        cluster.step(3);
        cluster.frozen = None;
        let mut answers = vec![Vec::new(); ids.len()];
        for _ in 0..20 {
            cluster.settle();
            for id in &ids {
                answers[*id as usize].extend(cluster.read(*id));
            }
        }
        for answer in answers {
            let answer = String::from_utf8(answer).unwrap();
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
            assert!(answer.contains(&format!("\"topic\":\"{own}\"")), "{answer}");
        }
    });
}

#[test]
fn a_peer_that_shut_its_side_still_gets_its_answers() {
    each(&Config::default(), 1, |cluster| {
        subscribe(cluster, 0, 1, "/echo");
        cluster.driver(1).set_window(1, 10);
        cluster.write(1, &frame(0x81, b"one message, more than its window holds"));
        cluster.driver(1).shut(1);
        assert_eq!(frames(cluster, 1), [(1, b"one message, more than its window holds".to_vec())]);
        assert_eq!(closed(cluster, 1), Some(Close::InOrder));
        subscribe(cluster, 0, 2, "/topics/chat");
        cluster.write(2, b"\x81\x01?");
        cluster.driver(2).shut(2);
        assert_eq!(frames(cluster, 2)[0].1[..2], 1002u16.to_be_bytes());
    });
}

#[test]
fn a_slow_reader_that_speaks_is_heard() {
    let config = Config {
        ping_interval: TimeSpan::seconds(1),
        pong_timeout: TimeSpan::seconds(1),
        slow_consumer: SlowConsumer::DropOldest,
        outbox_size: crate::config::ByteSize(2000),
        max_message_size: crate::config::ByteSize(1000),
        ..Config::default()
    };
    each(&config, 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/t");
        cluster.driver(1).set_window(1, 0);
        cluster.connect(0, 2, WINDOW);
        for _ in 0..40 {
            cluster.write(2, &post("/topics/t", &"x".repeat(100)));
        }
        for _ in 0..30 {
            cluster.pass(Duration::from_millis(100));
            cluster.write(1, &frame(0x8A, b""));
        }
        assert_eq!(closed(cluster, 1), None);
    });
}

#[test]
fn topics_that_nobody_has_any_more_end_on_a_quiet_server() {
    let config = Config { history_size: 0, ..Config::default() };
    let mut cluster = Cluster::new(2, Mode::Readiness, 1, &config);
    cluster.connect(0, 1, WINDOW);
    for number in 0..6000 {
        cluster.write(1, &post(&format!("/topics/t{number}"), "x"));
        if number % 100 == 0 {
            cluster.settle();
            cluster.read(1);
        }
    }
    cluster.settle();
    cluster.pass(Duration::from_secs(55));
    assert_eq!(cluster.workers.iter().map(|worker| worker.core.engine.topics()).sum::<usize>(), 6000);
    cluster.pass(Duration::from_secs(6));
    assert_eq!(cluster.workers.iter().map(|worker| worker.core.engine.topics()).sum::<usize>(), 0);
}

#[test]
fn a_class_that_drops_drops_only_its_own() {
    let config = Config {
        outbox_size: crate::config::ByteSize(2000),
        max_message_size: crate::config::ByteSize(1000),
        topic_class: vec!["b;slow-consumer=drop-oldest".parse().unwrap()],
        ..Config::default()
    };
    each(&config, 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics?topic=a&topic=b&envelope");
        cluster.driver(1).set_window(1, 0);
        cluster.connect(0, 2, WINDOW);
        for number in 0..3 {
            cluster.write(2, &post("/topics/a", &format!("a{number}")));
        }
        for number in 0..40 {
            cluster.write(2, &post("/topics/b", &format!("b{number} {}", "x".repeat(100))));
        }
        cluster.settle();
        cluster.driver(1).set_window(1, WINDOW);
        let got = frames(cluster, 1);
        let texts: Vec<_> = got.iter().map(|(_, payload)| String::from_utf8_lossy(payload)).collect();
        let of_a = texts.iter().filter(|text| text.contains("\"text\":\"a")).count();
        assert_eq!(of_a, 3, "another class's publications make no room: {texts:?}");
        assert!(texts.last().is_some_and(|text| text.contains("b39 ")), "{texts:?}");
    });
}
