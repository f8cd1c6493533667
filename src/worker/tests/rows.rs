//! Publications that leave together: runs of what a turn brought, and what `--coalesce` holds back.

use std::time::Duration;

use super::cluster::{WINDOW, frame, post, take_frames, upgrade};
use super::cluster::{each, frames, subscribe};
use crate::Config;
use crate::config::TimeSpan;
use crate::metrics::{DropReason, Transport};
use crate::worker::SlowConsumer;
use crate::worker::fanout::FANOUTS_OPEN_MAX;

#[test]
fn what_a_turn_brings_goes_out_as_one_run() {
    let policies = [(SlowConsumer::Disconnect, 1..=200), (SlowConsumer::DropOldest, 400..=400)];
    for (slow_consumer, expected) in policies {
        let blocks = std::cell::Cell::new(0);
        each(&Config { slow_consumer, ..Config::default() }, 1, |cluster| {
            subscribe(cluster, 0, 1, "/topics/chat");
            cluster.driver(1).set_window(1, 0);
            cluster.connect(0, 2, WINDOW);
            cluster.write(2, &upgrade("/topics/chat"));
            cluster.settle();
            cluster.read(2);
            let burst: Vec<u8> = (0..10).flat_map(|number: u8| frame(0x81, &[b'a' + number])).collect();
            cluster.write(2, &burst);
            assert_eq!(frames(cluster, 2).len(), 10);
            // What waits for the one who does not read. A read may be cut anywhere, so a burst may be several turns' work.
            blocks.set(blocks.get() + cluster.workers[0].driver.blocks());
            cluster.driver(1).set_window(1, WINDOW);
            assert_eq!(frames(cluster, 1), (0..10).map(|number| (1, vec![b'a' + number])).collect::<Vec<_>>());
            assert_eq!(cluster.count(|metrics| metrics.messages_sent.of(Transport::WebSocket).get()), 20);
            assert_eq!(cluster.count(|metrics| metrics.fanout_duration.counts().iter().sum()), 10);
        });
        assert!(expected.contains(&blocks.get()), "{slow_consumer:?}: 40 times 10 frames are {} blocks", blocks.get());
    }
}

#[test]
fn coalesced_publications_wait_for_each_other_and_their_publisher_does_not() {
    let config = Config { coalesce: TimeSpan(Duration::from_millis(200)), ..Config::default() };
    each(&config, 2, |cluster| {
        for id in 0..2 {
            subscribe(cluster, id as usize, id, "/topics/chat");
        }
        cluster.connect(0, 2, WINDOW);
        let mut answers = String::new();
        for (text, wait) in [("one", 96), ("two", 32)] {
            cluster.write(2, &post("/topics/chat", text));
            cluster.pass(Duration::from_millis(wait));
            answers += &String::from_utf8(cluster.read(2)).unwrap();
            assert!((0..2).all(|id| frames(cluster, id).is_empty()), "nothing leaves before its time");
        }
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2);
        cluster.pass(Duration::from_millis(96));
        for id in 0..2 {
            assert_eq!(frames(cluster, id), [(1, b"one".to_vec()), (1, b"two".to_vec())]);
        }
    });
}

#[test]
fn publishers_do_not_wait_for_a_full_row_of_coalesced_publications() {
    let config = Config { coalesce: TimeSpan(Duration::from_millis(200)), ..Config::default() };
    each(&config, 1, |cluster| {
        subscribe(cluster, 0, 1, "/topics/chat");
        let burst: Vec<u8> = (0..FANOUTS_OPEN_MAX + 1).flat_map(|_| frame(0x81, b"x")).collect();
        cluster.write(1, &burst);
        assert!(frames(cluster, 1).len() >= FANOUTS_OPEN_MAX, "as many as may be open go without their time having come");
    });
}

#[test]
fn what_one_fan_out_brings_is_handed_over_and_what_several_bring_leaves_in_one_write() {
    let config = Config { coalesce: TimeSpan(Duration::from_millis(200)), ..Config::default() };
    for topics in [&["chat"][..], &["chat", "news"]] {
        each(&config, 1, |cluster| {
            subscribe(cluster, 0, 1, "/topics?topic=chat&topic=news&envelope");
            cluster.connect(0, 2, WINDOW);
            for topic in topics {
                cluster.write(2, &post(&format!("/topics/{topic}"), "x"));
                cluster.pass(Duration::from_millis(32));
            }
            cluster.driver(1).peer(1).offers.clear();
            cluster.pass(Duration::from_millis(200));
            let first = cluster.driver(1).peer(1).offers[0];
            let mut bytes = cluster.read(1);
            for _ in 0..20 {
                cluster.settle();
                bytes.extend(cluster.read(1));
            }
            assert_eq!(first, bytes.len(), "all is offered in the first write");
            assert_eq!(take_frames(&mut bytes).len(), topics.len());
            let sent = cluster.count(|metrics| metrics.messages_sent.of(Transport::WebSocket).get());
            assert_eq!(sent, topics.len() as u64);
        });
    }
}

#[test]
fn a_subscriber_that_has_gone_when_it_is_handed_a_message_is_counted() {
    each(&Config::default(), 1, |cluster| {
        for id in 1..4 {
            subscribe(cluster, 0, id, "/topics/chat");
        }
        cluster.driver(1).peer(1).lost = true;
        cluster.write(3, &frame(0x81, b"hello"));
        for id in 2..4 {
            assert_eq!(frames(cluster, id), [(1, b"hello".to_vec())]);
        }
        assert_eq!(cluster.count(|metrics| metrics.messages_sent.of(Transport::WebSocket).get()), 2);
        assert_eq!(cluster.count(|metrics| metrics.messages_dropped.of(DropReason::ConnectionClosed).get()), 1);
    });
}
