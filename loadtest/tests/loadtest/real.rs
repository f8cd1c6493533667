//! Each command a second against the real server and both floors. Meanings are checked, never speed.

use crate::support::{Process, SHORT, against_each, check_latency, count, fantail, measure, run};

#[test]
fn connect_opens_and_closes_in_every_way() {
    for close in ["rst", "client", "server"] {
        against_each("connect", "/echo", &["--concurrency", "4", "--close", close], |json| {
            for failure in ["refused", "reset", "timed_out", "rejected", "other_failures"] {
                assert_eq!(count(json, failure), 0, "{json:#}");
            }
            let operations = json["operations"].as_u64().unwrap();
            assert!(operations > 30, "{json:#}");
            for latency in ["tcp", "upgrade", "whole"] {
                check_latency(json, latency, 1);
                // Four are under way at each end of the measurement, and on one side of it in one count but not in the other.
                let timed = json["latencies"][latency]["count"].as_u64().unwrap();
                assert!(timed.abs_diff(operations) <= 8, "{latency}: {json:#}");
            }
            let p50 = |name: &str| json["latencies"][name]["quantiles"]["p50"].as_u64().unwrap();
            assert!(p50("whole") >= p50("tcp").max(p50("upgrade")), "the whole has both as parts: {json:#}");
            // Those of other tests are among them.
            assert!(json["tcp"]["active_opens"].as_u64().unwrap() >= count(json, "begun"), "{json:#}");
            assert_eq!(json["tcp"]["span"], "whole run", "as what the tool counted");
            assert!(count(json, "begun") > operations, "the warm-up has some, too: {json:#}");
            assert!(json["server_cpu_seconds"]["system"].as_f64().unwrap() > 0.0, "{json:#}");
            assert!(json["softirq"]["us_per_operation"].as_f64().unwrap() > 0.0, "{json:#}");
        });
    }
}

#[test]
fn connect_keeps_its_times_and_waits_for_the_first_echo() {
    against_each("connect", "/echo", &["--rate", "100", "--first-echo", "--close", "server"], |json| {
        for failure in ["refused", "reset", "timed_out", "rejected", "other_failures", "wrong_echoes"] {
            assert_eq!(count(json, failure), 0, "{json:#}");
        }
        for latency in ["tcp", "upgrade", "first_echo", "whole"] {
            assert_eq!(json["latencies"][latency]["count"], 100, "what was due in the measured second, however late: {json:#}");
        }
    });
}

#[test]
fn connect_goes_on_beside_others_who_get_messages() {
    let flags = ["--idle", "20", "--idle-rate", "50", "--concurrency", "2"];
    against_each("connect", "/topics/busy", &flags, |json| {
        let operations = json["operations"].as_u64().unwrap();
        assert!(operations > 10 && count(json, "begun") >= operations, "{json:#}");
        assert!(json["latencies"]["whole"]["count"].as_u64().unwrap().abs_diff(operations) <= 4, "{json:#}");
        assert_eq!((count(json, "idle_lost"), count(json, "idle_connections_lost")), (0, 0), "{json:#}");
        assert_eq!(count(json, "idle_delivered"), 20 * 60, "1.2 seconds at 50 a second to 20, however late: {json:#}");
        check_latency(json, "idle_delivery", 20 * 50);
    });
}

#[test]
fn storm_brings_all_back() {
    against_each("storm", "/topics/storm", &["--connections", "300", "--spread", "100ms"], |json| {
        assert_eq!((count(json, "back"), count(json, "missing"), count(json, "lost_again")), (300, 0, 0), "{json:#}");
        check_latency(json, "back", 300);
        let slowest = json["figures"]["until_all_are_back"]["value"].as_f64().unwrap();
        assert!((1.0..10_000.0).contains(&slowest), "{json:#}");
    });
}

#[test]
fn skew_is_that_of_the_workers_the_starved_included() {
    let server = Process::fantail_with(&["--workers", "2"]);
    let url = format!("ws://{}/echo", server.address);
    // One connection: one worker does it all.
    let flags = ["--connections", "1", "--inflight", "64", "--duration", "2s", "--warmup", "0s"];
    let json = measure(&[&["echo", &url, "--pid", &server.pid()], &flags[..]].concat());
    assert_eq!(json["server_workers"]["cpu_seconds"].as_array().unwrap().len(), 2, "{json:#}");
    assert!(json["server_workers"]["skew"].as_f64().unwrap() > 1.5, "{json:#}");
}

#[test]
fn scaling_starts_a_server_for_each_number_of_workers() {
    let json = measure(
        &[
            &["scaling", "ws://127.0.0.1:{port}/topics/{topic}", "--workers", "1,2", "--topics", "4", "--connections", "40"],
            &SHORT[..],
            &["--", &fantail(), "serve", "--workers", "{workers}", "--listen", "127.0.0.1:{port}", "--admin", "127.0.0.1:0"],
        ]
        .concat(),
    );
    assert_eq!((count(&json, "lost"), count(&json, "reordered"), count(&json, "connections_lost")), (0, 0, 0), "{json:#}");
    let series = json["series"].as_array().unwrap();
    for name in ["deliveries_per_second", "deliveries_per_cpu_second", "efficiency"] {
        let points = &series.iter().find(|series| series["name"] == name).unwrap()["points"];
        assert_eq!((&points[0][0], &points[1][0]), (&1.into(), &2.into()), "{json:#}");
        assert!(points[1][1].as_f64().unwrap() > 0.0, "{json:#}");
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
fn hold_tells_a_slope_and_keeps_its_connections() {
    // So many that what the rest of the machine does to its kernel's memory is little beside them.
    against_each("hold", "/topics/idle", &["--from", "100", "--connections", "4100"], |json| {
        assert_eq!((count(json, "held"), count(json, "connections_lost")), (4100, 0));
        let slope = json["figures"]["rss_per_connection"]["value"].as_f64().unwrap();
        assert!((0.0..100_000.0).contains(&slope), "{json:#}");
        let kernel = json["figures"]["kernel_per_connection"]["value"].as_f64().unwrap();
        assert!((1_000.0..100_000.0).contains(&kernel), "two sockets are some kilobytes: {json:#}");
        let pss = json["figures"]["pss_per_connection"]["value"].as_f64().unwrap();
        // Of the server's own program others run here, too, and the more of them end the more of it is this one's.
        assert!(pss.abs() < 100_000.0, "{json:#}");
        assert!(json["notes"].to_string().contains("PSS: moves"), "{json:#}");
        let idle_cpu = json["figures"]["idle_cpu"]["value"].as_f64().unwrap();
        assert!((0.0..100.0).contains(&idle_cpu), "{json:#}");
    });
}

#[test]
fn hold_spreads_over_processes() {
    against_each("hold", "/topics/idle", &["--from", "50", "--connections", "451", "--processes", "3"], |json| {
        assert_eq!((count(json, "held"), count(json, "connections_lost")), (451, 0));
        assert!(json["figures"]["rss_per_connection"]["value"].as_f64().unwrap() >= 0.0, "{json:#}");
    });
}

#[test]
fn a_refusal_is_told_in_the_servers_words() {
    let server = Process::fantail();
    let url = format!("ws://{}/nowhere", server.address);
    // Nobody waits an hour for what a hundred refusals have told.
    for flags in [&["echo", "--connections", "3"][..], &["connect", "--duration", "1h"], &["fanout", "--sub", "sse"]] {
        let url = if flags[0] == "fanout" { url.replace("ws:", "http:") } else { url.clone() };
        let output = crate::support::run(&[flags, &[&url]].concat());
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("refused with 404") && error.contains("urn:fantail:problem"), "{error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn event_streams_get_every_message_once() {
    let server = Process::fantail();
    let url = format!("http://{}/topics/{{topic}}", server.address);
    for flags in [["--rate", "50"], ["--window", "4"]] {
        let command = ["fanout", &url, "--sub", "sse", "--connections", "20", "--pid", &server.pid()];
        let json = measure(&[&command[..], &flags, &SHORT].concat());
        for fault in ["lost", "duplicated", "reordered", "foreign", "connections_lost"] {
            assert_eq!(count(&json, fault), 0, "{fault}: {json:#}");
        }
        assert!(count(&json, "delivered") >= 20 * 10, "{json:#}");
        check_latency(&json, "delivery", 200);
    }
    let output = run(&["fanout", &url, "--sub", "sse", "--publish", "ws"]);
    let refused = String::from_utf8(output.stderr).unwrap();
    assert!(refused.contains("an event stream can't publish"), "{refused}");
}
