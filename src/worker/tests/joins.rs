//! Patterns on `fantail.v1`: asked for, left, read and live, beside topics and one another, on several workers.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::each;
use super::cluster::{Cluster, WINDOW, post, take_frames};
use super::presence;
use super::session::{ask, ask_for, objects, open, problem, publish, subscribe};
use crate::Config;
use crate::config::{ByteSize, TimeSpan};

pub(super) fn since_earliest(id: u64, topic: &str) -> Value {
    json!({"id": id, "type": "subscribe", "topic": topic, "since": "earliest"})
}

pub(super) fn unsubscribe(id: u64, topic: &str) -> Value {
    json!({"id": id, "type": "unsubscribe", "topic": topic})
}

/// What came: topic and text of each message.
fn messages(objects: &[Value]) -> Vec<(&str, &str)> {
    let text = |object: &'_ Value| object["type"] == "message";
    let messages = objects.iter().filter(|object| text(object));
    messages.map(|object| (object["topic"].as_str().unwrap(), object["text"].as_str().unwrap())).collect()
}

#[test]
fn a_pattern_is_confirmed_and_left_like_a_topic() {
    each(&Config::default(), 3, |cluster| {
        cluster.connect(0, 0, WINDOW);
        let confirmed = open(cluster, 1, 1, "/topics?topic=a&topic=b/*");
        let told: Vec<_> = confirmed.iter().map(|ok| (ok["topic"].as_str().unwrap(), ok.get("cursor").is_some())).collect();
        assert!(told.len() == 2 && told.contains(&("a", true)) && told.contains(&("b/*", false)), "{told:?}");
        let ok = json!({"id": 1, "type": "ok", "topic": "c/**"});
        assert_eq!(ask_for(cluster, 1, &subscribe(1, "c/**"), &json!({})), ok, "a pattern has no cursor");
        let already = json!({"id": 2, "type": "ok", "topic": "c/**", "already": true});
        assert_eq!(ask_for(cluster, 1, &subscribe(2, "c/**"), &json!({})), already);
        for topic in ["a", "b/x", "c/x/y", "d"] {
            publish(cluster, 0, topic, topic);
        }
        let got = objects(cluster, 1);
        let got: BTreeSet<_> = messages(&got).into_iter().collect();
        assert_eq!(got, BTreeSet::from([("a", "a"), ("b/x", "b/x"), ("c/x/y", "c/x/y")]));
        ask_for(cluster, 1, &unsubscribe(3, "b/*"), &json!({"id": 3, "type": "ok", "topic": "b/*"}));
        publish(cluster, 0, "b/x", "unheard");
        publish(cluster, 0, "c/z", "heard");
        assert_eq!(messages(&objects(cluster, 1)), [("c/z", "heard")]);
        let gone = json!({"id": 4, "type": "ok", "topic": "b/*", "already": true});
        assert_eq!(ask_for(cluster, 1, &unsubscribe(4, "b/*"), &json!({})), gone);
    });
}

#[test]
fn several_subscriptions_of_one_socket_bring_a_publication_once() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        open(cluster, 1, 1, "/topics?topic=a/b&topic=**");
        ask_for(cluster, 1, &subscribe(1, "a/*"), &json!({"type": "ok"}));
        ask_for(cluster, 1, &subscribe(2, "a/c"), &json!({"type": "ok", "topic": "a/c"}));
        for number in 0..5 {
            for topic in ["a/b", "a/c"] {
                cluster.write(0, &post(&format!("/topics/{topic}"), &number.to_string()));
            }
        }
        let got = objects(cluster, 1);
        for topic in ["a/b", "a/c"] {
            let texts: Vec<_> = messages(&got).into_iter().filter(|(of, _)| *of == topic).map(|(_, text)| text).collect();
            assert_eq!(texts, ["0", "1", "2", "3", "4"]);
        }
        for (left, heard) in [("**", true), ("a/*", true), ("a/b", false)] {
            ask_for(cluster, 1, &unsubscribe(3, left), &json!({"type": "ok"}));
            publish(cluster, 0, "a/b", "x");
            assert_eq!(messages(&objects(cluster, 1)).len(), usize::from(heard), "{left}");
        }
    });
}

#[test]
fn what_is_behind_a_pattern_follows_its_answer() {
    each(&Config::default(), 3, |cluster| {
        cluster.connect(0, 0, WINDOW);
        for number in 0..3 {
            (0..10).for_each(|topic| publish(cluster, 0, &format!("t/{topic}"), &number.to_string()));
        }
        open(cluster, 1, 1, "/topics");
        ask(cluster, 1, &since_earliest(1, "t/*"));
        let got = objects(cluster, 1);
        assert_eq!(got[0], json!({"id": 1, "type": "ok", "topic": "t/*"}), "no recovered: there was no cursor");
        assert_eq!((got.len(), messages(&got).into_iter().collect::<BTreeSet<_>>().len()), (31, 30));
        publish(cluster, 0, "t/0", "3");
        assert_eq!(messages(&objects(cluster, 1)), [("t/0", "3")]);
        let of_url = open(cluster, 2, 2, "/topics?topic=**&topic=t/*&topic=t/0&since=earliest");
        assert_eq!(messages(&of_url).into_iter().collect::<BTreeSet<_>>().len(), 31);
        assert_eq!(of_url.len(), 34, "each once: {of_url:?}");
    });
}

#[test]
fn what_a_wider_pattern_brings_is_not_read_behind_it() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        ["a/b", "a/c", "e"].iter().for_each(|topic| publish(cluster, 0, topic, "old"));
        open(cluster, 1, 1, "/topics?topic=a/**");
        for topic in ["a/b", "a/*"] {
            let error = ask_for(cluster, 1, &since_earliest(1, topic), &json!({"id": 1, "type": "error", "topic": topic}));
            assert_eq!((problem(&error), &error["problem"]["status"]), ("covered", &json!(409)));
        }
        let ok = ask_for(cluster, 1, &subscribe(2, "a/b"), &json!({"type": "ok", "topic": "a/b"}));
        assert!(ok["cursor"].as_str().unwrap().ends_with(".1"));
        ask(cluster, 1, &since_earliest(3, "**"));
        let got = objects(cluster, 1);
        assert_eq!((messages(&got), got.len()), (vec![("e", "old")], 2), "what it has already stays as it is");
    });
}

#[test]
fn limits_and_rights_hold_for_patterns() {
    let config = Config { max_subscriptions: 3, max_patterns: 4, ..Config::default() };
    each(&config, 2, |cluster| {
        open(cluster, 0, 1, "/topics?topic=a/*&topic=b/*");
        let error = ask_for(cluster, 1, &subscribe(1, "c/*"), &json!({"id": 1, "type": "error", "topic": "c/*"}));
        assert_eq!((problem(&error), &error["problem"]["limit_patterns"]), ("too-many-patterns", &json!(2)));
        ask_for(cluster, 1, &subscribe(2, "c"), &json!({"type": "ok"}));
        let error = ask_for(cluster, 1, &subscribe(3, "a/**"), &json!({"type": "error"}));
        assert_eq!(problem(&error), "too-many-subscriptions");
        for (topic, kind) in [("*/a", "bad-pattern"), ("meta/*", "reserved-topic")] {
            let error = ask_for(cluster, 1, &subscribe(4, topic), &json!({"type": "error"}));
            assert_eq!(problem(&error), kind);
        }
        let cursor = json!({"id": 5, "type": "subscribe", "topic": "a/**", "since": "k3Vq.7"});
        assert_eq!(problem(&ask_for(cluster, 1, &cursor, &json!({"type": "error"}))), "cursor-of-one-topic");
        assert_eq!(cluster.workers[0].core.hub.subscriptions(), 3, "what was refused is not held");
    });
}

#[test]
fn a_pattern_that_is_left_before_it_is_in_force_is_cancelled() {
    each(&Config::default(), 2, |cluster| {
        open(cluster, 0, 1, "/topics");
        cluster.frozen = Some(1);
        ask(cluster, 1, &subscribe(1, "a/*"));
        ask(cluster, 1, &unsubscribe(2, "a/*"));
        ask(cluster, 1, &since_earliest(3, "a/*"));
        let got = objects(cluster, 1);
        let ok = json!({"id": 2, "type": "ok", "topic": "a/*"});
        assert_eq!((&got[0]["id"], problem(&got[0]), &got[1]), (&json!(1), "cancelled", &ok));
        cluster.frozen = None;
        assert_eq!(objects(cluster, 1), [json!({"id": 3, "type": "ok", "topic": "a/*"})]);
    });
}

/// Subscribes to what `names` say, the last of it with all that is behind, leaves that amid its replay, and returns what came.
fn leave_amid(cluster: &mut Cluster, others: [&str; 2], left: &str) -> Vec<Value> {
    cluster.connect(0, 0, WINDOW);
    for number in 0..90 {
        publish(cluster, 0, "a/b", &number.to_string());
    }
    open(cluster, 1, 1, &format!("/topics?topic={}", others[0]));
    cluster.driver(1).set_window(1, 300);
    ask(cluster, 1, &since_earliest(1, left));
    ask(cluster, 1, &subscribe(2, others[1]));
    cluster.step(60);
    ask(cluster, 1, &unsubscribe(3, left));
    let mut got = Vec::new();
    for _ in 0..40 {
        cluster.driver(1).set_window(1, WINDOW);
        got.extend(objects(cluster, 1));
    }
    publish(cluster, 0, "a/b", "after");
    got.extend(objects(cluster, 1));
    got
}

#[test]
fn who_leaves_amid_a_replay_is_told_what_its_other_subscriptions_miss() {
    let config = Config { outbox_size: ByteSize(1200), max_message_size: ByteSize(600), ..Config::default() };
    for (others, left, told) in
        [(["x", "a/**"], "a/*", true), (["x", "a/**"], "a/b", true), (["x", "a/b"], "a/*", true), (["x", "y/*"], "a/*", false)]
    {
        let amid = Cell::new(0);
        each(&config, 2, |cluster| {
            let got = leave_amid(cluster, others, left);
            // Now and then the request is read when the replay has come to its end.
            if messages(&got).len() > 90 {
                return;
            }
            amid.set(amid.get() + 1);
            let gap = json!({"type": "gap", "topic": left, "from": null, "to": null, "reason": "pattern"});
            let place = |object: &Value| got.iter().position(|other| other == object);
            let ok = place(&json!({"id": 3, "type": "ok", "topic": left})).unwrap();
            assert_eq!(place(&gap).is_some_and(|at| at < ok), told, "{others:?} {left}: {got:?}");
            assert_eq!(messages(&got[ok..]), if told { vec![("a/b", "after")] } else { vec![] }, "{others:?} {left}");
        });
        assert!(amid.get() > 20, "{others:?} {left}: {}", amid.get());
    }
}

#[test]
fn what_a_replay_ended_with_comes_by_no_pattern_when_its_topic_is_left() {
    let config = Config {
        coalesce: TimeSpan(Duration::from_millis(200)),
        outbox_size: ByteSize(1200),
        max_message_size: ByteSize(600),
        ..Config::default()
    };
    let in_force = Cell::new(0);
    each(&config, 2, |cluster| {
        cluster.connect(1, 0, WINDOW);
        (0..90).for_each(|number| publish(cluster, 0, "a", &number.to_string()));
        open(cluster, 0, 1, "/topics");
        cluster.driver(1).set_window(1, 300);
        ask(cluster, 1, &since_earliest(1, "a"));
        ask(cluster, 1, &subscribe(2, "**"));
        cluster.settle();
        publish(cluster, 0, "a", "90");
        let mut got = Vec::new();
        for _ in 0..40 {
            cluster.driver(1).set_window(1, WINDOW);
            got.extend(objects(cluster, 1));
        }
        assert_eq!(messages(&got).len(), 91, "its fan-out waits, and it is in the last page");
        // Now and then the request for the pattern is read behind it, and is in force when it has gone out.
        if !got.contains(&json!({"id": 2, "type": "ok", "topic": "**"})) {
            return;
        }
        in_force.set(in_force.get() + 1);
        publish(cluster, 0, "a", "91");
        ask_for(cluster, 1, &unsubscribe(3, "a"), &json!({"id": 3, "type": "ok"}));
        publish(cluster, 0, "a", "92");
        cluster.pass(Duration::from_millis(200));
        publish(cluster, 0, "a", "93");
        cluster.pass(Duration::from_millis(200));
        let got = objects(cluster, 1);
        assert_eq!((messages(&got), got.len()), (vec![("a", "91"), ("a", "92"), ("a", "93")], 3));
    });
    assert!(in_force.get() > 20, "{}", in_force.get());
}

/// Steps until the socket has the answer that names the topic; all that came until then.
fn step_to_answer(cluster: &mut Cluster, topic: &str) -> Vec<Value> {
    let (mut bytes, mut got) = (Vec::new(), Vec::new());
    while !got.iter().any(|object: &Value| object["type"] == "ok" && object["topic"] == topic) {
        cluster.step(1);
        bytes.extend(cluster.read(1));
        got.extend(take_frames(&mut bytes).into_iter().map(|(_, object)| serde_json::from_slice::<Value>(&object).unwrap()));
    }
    got
}

#[test]
fn a_pattern_brings_all_behind_its_answer_also_of_a_topic_that_is_looked_at() {
    each(&Config::default(), 2, |cluster| {
        cluster.connect(0, 0, WINDOW);
        open(cluster, 1, 1, "/topics");
        let home = cluster.shared.home_of("a");
        ask(cluster, 1, &subscribe(1, "a"));
        ask(cluster, 1, &subscribe(2, "**"));
        step_to_answer(cluster, "**");
        // What the socket asks the home for and a publication are on their way to it together.
        cluster.frozen = Some(home);
        publish(cluster, 0, "a", "1");
        cluster.frozen = None;
        publish(cluster, 0, "a", "2");
        assert_eq!(messages(&objects(cluster, 1)), [("a", "1"), ("a", "2")]);
    });
}

#[test]
fn what_a_pattern_has_promised_is_told_if_it_goes_before_its_topic_is_read() {
    let gone = Cell::new(0);
    each(&Config { history_size: 1, ..Config::default() }, 2, |cluster| {
        // One request at a time of each.
        [0, 2].iter().for_each(|peer| cluster.connect(0, *peer, WINDOW));
        open(cluster, 1, 1, "/topics");
        let home = cluster.shared.home_of("a");
        publish(cluster, 0, "a", "0");
        ask(cluster, 1, &since_earliest(1, "a"));
        ask(cluster, 1, &subscribe(2, "**"));
        let mut got = step_to_answer(cluster, "**");
        cluster.frozen = Some(home);
        [(0, "1"), (2, "2")].iter().for_each(|(peer, text)| publish(cluster, *peer, "a", text));
        cluster.frozen = None;
        got.extend(objects(cluster, 1));
        let is_told = got.iter().any(|object| object["type"] == "gap" && object["topic"] == "a");
        let came = ["1", "2"].iter().filter(|text| messages(&got).contains(&("a", text))).count();
        assert!(came == 2 || (came == 1 && is_told), "{got:?}");
        gone.set(gone.get() + 2 - came);
    });
    assert!(gone.get() > 0, "nothing was tried");
}

#[test]
fn who_is_there_by_a_pattern_alone_is_no_member() {
    each(&presence::config("**;presence=list"), 2, |cluster| {
        let members = |cluster: &mut Cluster| {
            cluster.pass(presence::LONG);
            cluster.count(|metrics| metrics.presence_members.get())
        };
        open(cluster, 0, 1, "/topics?topic=a/*");
        ask_for(cluster, 1, &since_earliest(1, "b/**"), &json!({"type": "ok"}));
        assert_eq!(members(cluster), 0);
        ask_for(cluster, 1, &subscribe(2, "a/x"), &json!({"type": "ok"}));
        ask_for(cluster, 1, &unsubscribe(3, "a/*"), &json!({"type": "ok"}));
        assert_eq!(members(cluster), 1, "by its name");
        ask_for(cluster, 1, &unsubscribe(4, "a/x"), &json!({"type": "ok"}));
        assert_eq!(members(cluster), 0);
    });
}
