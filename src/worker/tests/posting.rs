//! Batches where credits are few, where the home worker does not answer in time, and where the server stops.

use std::time::Duration;

use serde_json::Value;

use super::cluster::each;
use super::cluster::{Cluster, WINDOW, post, post_with};
use super::simulation::take_any_answer;
use crate::Config;
use crate::worker::Phase;

/// Requests that publish may have under way from one worker to another: `mailbox_requests` of the cluster, less what is left to interest.
const CREDITS: usize = 3;

/// A topic that is at home on worker 1.
fn topic_of_other(cluster: &Cluster) -> String {
    let name = (0..).map(|number| format!("t{number}")).find(|name| cluster.shared.home_of(name) == 1);
    name.expect("one of so many")
}

fn batch(topic: &str, count: usize) -> Vec<u8> {
    let elements: Vec<String> = (0..count).map(|number| format!(r#"{{"topic":"{topic}","text":"{number}"}}"#)).collect();
    post_with("/topics", "Content-Type: application/json\r\n", &format!("[{}]", elements.join(",")))
}

/// The answers that have come to a peer of worker 0, each with its status.
fn answers(cluster: &mut Cluster, peer: u64) -> Vec<(u16, Value)> {
    let mut bytes = Vec::new();
    for _ in 0..20 {
        cluster.settle();
        bytes.extend(cluster.read(peer));
    }
    let answers = std::iter::from_fn(|| take_any_answer(&mut bytes)).collect();
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
    answers
}

/// The offsets of a batch's results, or the ends of their problems' types.
fn told(results: &Value) -> Vec<String> {
    let told = |result: &Value| match result["error"]["type"].as_str() {
        Some(kind) => kind.trim_start_matches("urn:fantail:problem:").to_owned(),
        None => result["offset"].to_string(),
    };
    results.as_array().expect("an array").iter().map(told).collect()
}

#[test]
fn a_batch_stands_in_line_for_one_publication_at_a_time() {
    each(&Config::default(), 2, |cluster| {
        let topic = topic_of_other(cluster);
        for peer in [1, 2] {
            cluster.connect(0, peer, WINDOW);
        }
        cluster.frozen = Some(1);
        cluster.write(1, &batch(&topic, 40));
        cluster.settle();
        cluster.write(2, &post(&format!("/topics/{topic}"), "single"));
        cluster.settle();
        cluster.frozen = None;
        // What has a credit goes first, then who waits: one of the batch, the single one, another of the batch.
        let single = answers(cluster, 2);
        assert_eq!((single[0].0, &single[0].1["offset"]), (200, &(CREDITS + 2).into()));
        let results = told(&answers(cluster, 1)[0].1);
        let expected: Vec<String> = (1..=41).filter(|offset| *offset != CREDITS + 2).map(|offset| offset.to_string()).collect();
        assert_eq!(results, expected);
    });
}

#[test]
fn a_batch_whose_time_is_over_is_answered_with_what_is_known() {
    each(&Config::default(), 2, |cluster| {
        let topic = topic_of_other(cluster);
        cluster.connect(0, 1, WINDOW);
        cluster.write(1, &batch(&topic, 2));
        assert_eq!(told(&answers(cluster, 1)[0].1), ["1", "2"]);
        cluster.frozen = Some(1);
        cluster.write(1, &batch(&topic, 5));
        cluster.pass(Duration::from_secs(6));
        let late = answers(cluster, 1);
        let expected = [&["unanswered"; CREDITS][..], &["publish-timeout"; 2]].concat();
        assert_eq!((late.len(), late[0].0, told(&late[0].1)), (1, 200, expected.into_iter().map(str::to_owned).collect()));
        // Answers that come late are for nobody, and what had no credit was not published.
        cluster.write(1, &batch(&topic, 4));
        cluster.step(20);
        cluster.frozen = None;
        assert_eq!(told(&answers(cluster, 1)[0].1), ["6", "7", "8", "9"]);
    });
}

#[test]
fn a_stopping_server_finishes_the_batch_it_has_begun() {
    each(&Config::default(), 2, |cluster| {
        let topic = topic_of_other(cluster);
        cluster.connect(0, 1, WINDOW);
        cluster.frozen = Some(1);
        cluster.write(1, &batch(&topic, 30));
        cluster.settle();
        cluster.shared.advance(Phase::Draining);
        cluster.settle();
        cluster.frozen = None;
        let results = told(&answers(cluster, 1)[0].1);
        assert_eq!(results, (1..=30).map(|offset| offset.to_string()).collect::<Vec<_>>());
        cluster.pass(Duration::from_secs(20));
        assert!(cluster.is_done());
    });
}

#[test]
fn who_has_left_amid_a_batch_leaves_no_credit_taken() {
    each(&Config::default(), 2, |cluster| {
        let topic = topic_of_other(cluster);
        for peer in [1, 2] {
            cluster.connect(0, peer, WINDOW);
        }
        cluster.frozen = Some(1);
        cluster.write(1, &batch(&topic, 30));
        cluster.settle();
        cluster.driver(1).reset(1);
        cluster.settle();
        cluster.frozen = None;
        cluster.settle();
        cluster.write(2, &batch(&topic, 3));
        // It is not read while it waits, so when it is known to have gone is up to the driver; what was sent is published.
        let results: Vec<usize> = told(&answers(cluster, 2)[0].1).iter().map(|offset| offset.parse().unwrap()).collect();
        assert!(results[0] > CREDITS && results.is_sorted_by(|before, after| before + 1 == *after), "{results:?}");
        assert!(cluster.workers.iter_mut().all(|worker| worker.core.has_nothing_under_way()));
    });
}
