//! What publishes and delivers, against the real server and both floors: every message is accounted for.

use serde_json::Value;

use crate::support::{Process, SHORT, against_each, check_latency, count, measure, reports};

const FAULTS: [&str; 6] = ["lost", "duplicated", "reordered", "foreign", "connections_lost", "refused_publications"];

/// Nothing went wrong, and every publication reached `each` subscribers.
fn check_whole(json: &Value, each: u64) {
    for fault in FAULTS {
        assert_eq!(count(json, fault), 0, "{fault}: {json:#}");
    }
    assert!(count(json, "published") > 0, "{json:#}");
    assert_eq!(count(json, "delivered"), count(json, "published") * each, "{json:#}");
}

/// A run against Fantail alone, for what the floor has not.
fn against_fantail(command: &str, url: impl Fn(&str) -> Vec<String>, flags: &[&str]) -> Value {
    let server = Process::fantail();
    let (words, pid) = (url(&server.address), server.pid());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    measure(&[&[command][..], &words, &["--pid", &pid], flags, &SHORT].concat())
}

#[test]
fn fanout_reaches_every_subscriber_once() {
    for pace in [["--rate", "40"], ["--window", "2"]] {
        against_each("fanout", "/topics/load", &[&["--connections", "30", "--size", "1KiB"], &pace[..]].concat(), |json| {
            check_whole(json, 30);
            check_latency(json, "delivery", 40 * 30);
            check_latency(json, "last_subscriber", 40);
            if pace[0] == "--rate" {
                assert_eq!(count(json, "published"), 48, "1.2 seconds at 40 a second, however late");
            }
        });
    }
}

#[test]
fn fanout_over_several_processes_counts_what_all_of_them_got() {
    against_each("fanout", "/topics/load", &["--connections", "31", "--rate", "40", "--processes", "3"], |json| {
        check_whole(json, 31);
        assert_eq!((count(json, "published"), &json["latencies"]["delivery"]["count"]), (48, &(40 * 31).into()));
        assert_eq!(json["latencies"]["last_subscriber"]["count"], 40, "{json:#}");
    });
}

#[test]
fn fanout_of_several_sizes_by_post_has_a_report_for_each() {
    let flags = ["--connections", "10", "--rate", "40", "--publish", "post", "--sizes", "64,1KiB,16KiB"];
    let json = against_fantail("fanout", |address| vec![format!("ws://{address}/topics/load")], &flags);
    let reports = reports(&json);
    let sizes: Vec<u64> = reports.iter().filter_map(|report| report["parameters"]["size"].as_u64()).collect();
    assert_eq!(sizes, [64, 1024, 16 * 1024]);
    reports.iter().for_each(|report| check_whole(report, 10));
}

#[test]
fn publish_is_answered_with_none_one_and_many_subscribers() {
    let flags = ["--subscribers", "0,1,5", "--publish", "post", "--publishers", "2", "--inflight", "2"];
    let json = against_fantail("publish", |address| vec![format!("ws://{address}/topics/{{topic}}")], &flags);
    for (report, each) in reports(&json).iter().zip([0, 1, 5]) {
        check_whole(report, each);
        assert_eq!((count(report, "answered"), count(report, "unanswered")), (count(report, "published"), 0), "{report:#}");
        check_latency(report, "answer", 10);
    }
}

#[test]
fn publish_by_websocket_counts_what_came_back() {
    let flags = ["--subscribers", "1,3", "--publishers", "2"];
    against_each_list("publish", "/topics/{topic}", &flags, |reports| {
        for (report, each) in reports.iter().zip([1, 3]) {
            check_whole(report, each);
            assert_eq!(count(report, "answered"), count(report, "published"), "{report:#}");
        }
    });
}

fn against_each_list(command: &str, path: &str, flags: &[&str], check: impl Fn(&[Value])) {
    for server in [Process::fantail()].into_iter().chain(Process::floors()) {
        let url = format!("ws://{}{path}", server.address);
        check(&reports(&measure(&[&[command, &url], flags, &SHORT].concat())));
    }
}

#[test]
fn a_refused_publication_is_told_in_the_servers_words_and_is_not_lost() {
    let url =
        |address: &str| vec![format!("ws://{address}/topics/a"), "--post".to_owned(), format!("http://{address}/topics/meta/a")];
    for processes in ["1", "3"] {
        let flags = ["--connections", "9", "--publish", "post", "--processes", processes];
        let json = against_fantail("fanout", url, &flags);
        assert_eq!(count(&json, "refused_publications"), count(&json, "published"), "{json:#}");
        assert_eq!((count(&json, "lost"), count(&json, "delivered")), (0, 0), "{json:#}");
        assert!(json["notes"].to_string().contains("refused: 403: "), "{json:#}");
    }
}

#[test]
fn notify_reaches_the_one_subscriber_of_each_topic() {
    against_each("notify", "/topics/{topic}", &["--topics", "100", "--rate", "300"], |json| check_whole(json, 1));
    let url = |address: &str| {
        vec![
            format!("ws://{address}/topics?topic={{topic}}&envelope"),
            "--post".to_owned(),
            format!("http://{address}/topics/{{topic}}"),
        ]
    };
    for processes in ["1", "3"] {
        let json = against_fantail("notify", url, &["--topics", "995", "--rate", "1000", "--processes", processes]);
        check_whole(&json, 1);
        assert_eq!(json["parameters"]["connections"], 100, "ten topics each, the last with five");
        assert_eq!(json["latencies"]["last_subscriber"]["count"], 1000, "{json:#}");
    }
}

#[test]
fn rooms_have_as_many_clients_each_on_one_socket_or_several() {
    let flags = ["--clients", "40", "--rooms", "20", "--rooms-per-client", "5", "--batch", "4", "--interval", "20ms"];
    against_each("rooms", "/topics/{topic}", &flags, |json| {
        check_whole(json, 10);
        assert_eq!((count(json, "published"), &json["parameters"]["connections"]), (240, &200.into()));
    });
    let url = |address: &str| {
        vec![
            format!("ws://{address}/topics?topic={{topic}}&envelope"),
            "--post".to_owned(),
            format!("http://{address}/topics/{{topic}}"),
        ]
    };
    let json = against_fantail("rooms", url, &flags);
    check_whole(&json, 10);
    assert_eq!(json["parameters"]["connections"], 40);
}

#[test]
fn rooms_are_saturated_step_by_step() {
    // So little, with so much patience, that a machine busy with other tests holds it for some steps.
    let rooms = ["--clients", "10", "--rooms", "5", "--rooms-per-client", "2", "--batch", "1"];
    let flags = [&rooms[..], &["--saturate", "--p99-max", "300ms"]].concat();
    let json = against_fantail("rooms", |address| vec![format!("ws://{address}/topics/{{topic}}")], &flags);
    let reports = reports(&json);
    let figure = |report: &Value, name: &str| report["figures"][name]["value"].as_f64();
    let intervals: Vec<f64> = reports.iter().map(|report| figure(report, "interval").unwrap()).collect();
    assert!(intervals[0] == 10.0 && intervals.windows(2).all(|pair| (pair[0] / pair[1] - 1.5).abs() < 0.01), "{intervals:?}");
    let p99 = |report: &Value| report["latencies"]["delivery"]["quantiles"]["p99"].as_u64().unwrap();
    let (last, before) = reports.split_last().unwrap();
    assert!(intervals.len() >= 3, "225 publications a second are little: {last:#}");
    for report in before {
        assert!(p99(report) <= 300_000_000 && report["doubts"] == serde_json::json!([]), "{report:#}");
        assert_eq!((count(report, "lost"), figure(report, "interval_held")), (0, None), "{report:#}");
    }
    let held = figure(last, "interval_held").unwrap();
    assert!(last["notes"].to_string().contains(&format!("saturate: {held:.3} ms held; it ended as ")), "{last:#}");
    let is_last = last["notes"].to_string().contains("there are but 15 runs");
    assert_eq!(held, intervals[intervals.len() - if is_last { 1 } else { 2 }], "{intervals:?}");
}

#[test]
fn churn_loses_nothing_of_who_stays_nor_of_who_passes() {
    against_each("churn", "/topics/busy", &["--connections", "10", "--joins", "100", "--stay", "200ms"], |json| {
        check_whole(json, 10);
        assert_eq!((count(json, "joined"), count(json, "left"), count(json, "ended_early")), (120, 120, 0), "{json:#}");
        assert_eq!(count(json, "passing_lost"), 0, "{json:#}");
        assert!(count(json, "passing_delivered") > 120, "{json:#}");
        // Twenty of them are there beside the ten who stay.
        assert!(json["operations"].as_u64().unwrap() > count(json, "delivered"), "what passing ones got was done, too: {json:#}");
        check_latency(json, "join", 100);
    });
}

/// What the server had before and at most, in MiB, once what is told of each slow one is that.
fn memory_of_slow(json: &Value, slow: f64) -> (f64, f64) {
    let [before, most, each] =
        ["rss_before", "rss_at_most", "rss_per_slow"].map(|name| json["figures"][name]["value"].as_f64().unwrap());
    assert!(before > 1.0 && ((most - before) * 1024.0 / slow - each).abs() < 1.0, "{json:#}");
    (before, most)
}

#[test]
fn slow_ones_cost_the_others_nothing_and_are_told_or_kept_in_memory() {
    let flags = ["--connections", "8", "--slow", "3", "--rate", "500", "--size", "32KiB"];
    against_each("slow", "/topics/slow", &flags, |json| {
        check_whole(json, 5);
        assert_eq!((count(json, "slow_lost_in_silence"), count(json, "slow_ended_early")), (0, 0), "{json:#}");
        let (before, most) = memory_of_slow(json, 3.0);
        match count(json, "slow_ended_by_server") {
            // Fantail ends who is too slow, and so keeps little.
            3 => assert!(json["notes"].to_string().contains("1013") && most < before + 30.0, "{json:#}"),
            // The floor keeps all: 48 MB in a second, but for what the kernel's buffers have.
            ended => {
                assert_eq!((ended, count(json, "slow_delivered")), (0, 3 * count(json, "published")), "{json:#}");
                assert!((15.0..60.0).contains(&(most - before)), "{json:#}");
            }
        }
    });
}

#[test]
fn csv_gathers_the_figures_of_several_runs() {
    let (server, file) = (Process::floor(), tempfile::NamedTempFile::new().unwrap());
    let (url, csv) = (format!("ws://{}/echo", server.address), file.path().to_str().unwrap());
    for _ in 0..2 {
        measure(&[&["echo", &url, "--connections", "2", "--csv", csv], &SHORT[..]].concat());
    }
    let text = std::fs::read_to_string(file.path()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "ended,command_line,command,parameters,name,value,unit");
    let p99 = lines.iter().filter(|line| line.contains(",echo,connections=2;inflight=1;size=64,round_trip p99,"));
    assert_eq!(p99.count(), 2, "{text}");
    assert!(lines[1..].iter().all(|line| line.contains(&format!(" echo --json - {url} --connections 2 "))), "{text}");
}
