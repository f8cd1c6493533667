//! Each command a second against the real server and both floors. Meanings are checked, never speed.

use crate::support::{Process, count, measure};

const SHORT: [&str; 4] = ["--duration", "1s", "--warmup", "200ms"];

/// Runs a command against each server and checks what holds for every report.
fn against_each(command: &str, path: &str, flags: &[&str], check: impl Fn(&serde_json::Value)) {
    for server in [Process::fantail()].into_iter().chain(Process::floors()) {
        let (url, pid) = (format!("ws://{}{path}", server.address), server.pid());
        let json = measure(&[&[command, &url, "--pid", &pid], flags, &SHORT].concat());
        assert!(json["seconds"].as_f64().unwrap() >= 0.5, "{json:#}");
        assert!(json["own"]["cpu_share"].as_f64().unwrap() > 0.0, "{json:#}");
        check(&json);
    }
}

/// Percentiles rise, and there are as many latencies as there were operations to time.
fn check_latency(json: &serde_json::Value, name: &str, at_least: u64) {
    let latency = &json["latencies"][name];
    assert!(latency["count"].as_u64().unwrap() >= at_least, "{json:#}");
    let quantiles: Vec<u64> =
        ["p50", "p90", "p99", "p99.9", "p99.99", "max"].map(|name| latency["quantiles"][name].as_u64().unwrap()).into();
    assert!(quantiles[0] > 0 && quantiles.is_sorted(), "{quantiles:?}");
}

#[test]
fn connect_opens_and_closes_either_way() {
    for close in ["rst", "client"] {
        against_each("connect", "/echo", &["--concurrency", "4", "--close", close], |json| {
            for failure in ["refused", "reset", "timed_out", "rejected", "other_failures"] {
                assert_eq!(count(json, failure), 0, "{json:#}");
            }
            let operations = json["operations"].as_u64().unwrap();
            assert!(operations > 10, "{json:#}");
            check_latency(json, "tcp_and_upgrade", operations - 20);
            assert!(json["server_cpu_seconds"]["system"].as_f64().unwrap() > 0.0, "{json:#}");
        });
    }
}

#[test]
fn echo_returns_all_in_both_loops() {
    for loop_flags in [["--inflight", "3"], ["--rate", "200"]] {
        against_each("echo", "/echo", &[&["--connections", "7", "--size", "300"], &loop_flags[..]].concat(), |json| {
            assert_eq!(count(json, "sent"), count(json, "returned"), "{json:#}");
            assert_eq!((count(json, "lost"), count(json, "foreign")), (0, 0), "{json:#}");
            check_latency(json, "round_trip", 150);
            if loop_flags[0] == "--rate" {
                assert_eq!(count(json, "sent"), 240, "1.2 seconds at 200 a second, however late");
            }
        });
    }
}

#[test]
fn fanout_reaches_every_subscriber_once() {
    for pace in [["--rate", "40"], ["--window", "2"]] {
        against_each("fanout", "/topics/load", &[&["--connections", "30", "--size", "1KiB"], &pace[..]].concat(), |json| {
            assert_eq!(count(json, "delivered"), count(json, "published") * 30, "{json:#}");
            for fault in ["lost", "duplicated", "reordered", "foreign", "connections_lost"] {
                assert_eq!(count(json, fault), 0, "{json:#}");
            }
            check_latency(json, "delivery", 40 * 30);
            check_latency(json, "last_subscriber", 40);
            if pace[0] == "--rate" {
                assert_eq!(count(json, "published"), 48, "1.2 seconds at 40 a second, however late");
            }
        });
    }
}

#[test]
fn hold_tells_a_slope_and_keeps_its_connections() {
    against_each("hold", "/topics/idle", &["--from", "50", "--connections", "450"], |json| {
        assert_eq!((count(json, "held"), count(json, "connections_lost")), (450, 0));
        let slope = json["figures"]["rss_per_connection"]["value"].as_f64().unwrap();
        assert!((0.0..100_000.0).contains(&slope), "{json:#}");
    });
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let server = Process::fantail();
    let output = crate::support::run(&["echo", &format!("ws://{}/nowhere", server.address), "--connections", "3"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("refused the upgrade with 404") && error.contains("urn:fantail:problem"), "{error}");
    assert!(output.stdout.is_empty());
}
