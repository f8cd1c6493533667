//! `resume` against the real server, by WebSocket and event stream: each gets exactly what it missed, or the run says why.

use serde_json::Value;

use crate::support::{Process, check_latency, count, measure, run};
use crate::tamper::{Fault, proxy};

/// What must be zero where all that was missed is kept.
const FAULTS: [&str; 8] =
    ["behind", "lost_again", "lost", "duplicated", "reordered", "foreign", "gaps_announced", "missing_and_announced"];

/// 40 subscribers who miss so many messages; the server keeps a hundred.
fn resume(server: &Process, query: &str, sub: &[&str], missed: &str) -> Value {
    resume_at(&server.address, query, &[&["--pid", &server.pid()], sub].concat(), missed)
}

fn resume_at(address: &str, query: &str, more: &[&str], missed: &str) -> Value {
    let url = format!("http://{address}/topics/back{query}");
    let flags = ["--connections", "40", "--missed", missed, "--duration", "3s", "--warmup", "100ms", "--timeout", "2s"];
    measure(&[&["resume", &url], &flags[..], more].concat())
}

#[test]
fn all_get_what_they_missed_once_and_the_server_s_cost_is_told() {
    let server = Process::fantail();
    for (query, sub) in [
        ("?envelope", &[][..]),
        ("?envelope&since={cursor}", &[]),
        ("?since={cursor}&envelope&on-gap=continue", &[]),
        ("", &["--sub", "sse"]),
    ] {
        let json = resume(&server, query, sub, "100");
        for fault in FAULTS {
            assert_eq!(count(&json, fault), 0, "{query} {fault}: {json:#}");
        }
        assert_eq!((count(&json, "back"), count(&json, "up_to_date")), (40, 40), "{query}: {json:#}");
        assert_eq!((count(&json, "replayed"), &json["operations"]), (40 * 100, &4000.into()), "{query}: {json:#}");
        check_latency(&json, "up_to_date", 40);
        check_latency(&json, "back", 40);
        let p50 = |name: &str| json["latencies"][name]["quantiles"]["p50"].as_u64().unwrap();
        assert!(p50("up_to_date") >= p50("back"), "{json:#}");
        let last = json["figures"]["until_all_are_up_to_date"]["value"].as_f64().unwrap();
        let slowest = json["latencies"]["up_to_date"]["quantiles"]["max"].as_f64().unwrap();
        assert!((last * 1e6 / slowest - 1.0).abs() < 0.01, "{last} ms, {slowest} ns");
        assert!(json["server_cpu"]["us_per_operation"].as_f64().unwrap() > 0.0, "{json:#}");
    }
}

#[test]
fn what_the_server_has_not_kept_is_a_gap_and_no_loss_and_the_run_is_invalid() {
    let server = Process::fantail();
    // 50 of the 150 are gone. A socket that is closed for it gets none of the others.
    for (query, sub, up_to_date, replayed) in
        [("?envelope&on-gap=continue", &[][..], 40, 40 * 100), ("", &["--sub", "sse"], 40, 40 * 100), ("?envelope", &[], 0, 0)]
    {
        let json = resume(&server, query, sub, "150");
        assert_eq!((count(&json, "gaps_announced"), count(&json, "lost")), (40, 0), "{query}: {json:#}");
        assert_eq!((count(&json, "up_to_date"), count(&json, "replayed")), (up_to_date, replayed), "{query}: {json:#}");
        assert_eq!(count(&json, "missing_and_announced"), 40 * 150 - replayed, "{query}: {json:#}");
        assert!(json["invalid_because"].to_string().contains("has not kept all that was missed"), "{query}: {json:#}");
        assert_eq!(json["figures"]["until_all_are_up_to_date"].is_null(), up_to_date == 0, "{query}: {json:#}");
    }
}

#[test]
fn whoever_tampers_with_a_replay_is_found_out_exactly() {
    for (websockets, query, sub) in [(true, "?envelope&on-gap=continue", &[][..]), (false, "", &["--sub", "sse"])] {
        // Of 90 messages every 20th; of 150 the first 50 are not kept, and nobody is told.
        for (fault, missed, expected) in [
            (Fault::Drop, "90", [4, 0, 0]),
            (Fault::Twice, "90", [0, 4, 0]),
            (Fault::Behind, "90", [0, 0, 4]),
            (Fault::SwallowGaps, "150", [50, 0, 0]),
        ] {
            let server = Process::fantail();
            let json = resume_at(&proxy(server.address.clone(), websockets, fault), query, sub, missed);
            let found = ["lost", "duplicated", "reordered"].map(|name| count(&json, name));
            assert_eq!(found, expected.map(|each| 40 * each), "{fault:?}, WebSockets {websockets}: {json:#}");
            assert_eq!((count(&json, "up_to_date"), count(&json, "gaps_announced")), (40, 0), "{json:#}");
        }
    }
}

#[test]
fn who_is_refused_tries_again_and_still_gets_all_once() {
    let server = Process::fantail_with(&["--workers", "1", "--accept-rate", "42"]);
    let json = resume(&server, "?envelope", &["--retry", "100ms"], "20");
    assert_eq!((count(&json, "up_to_date"), count(&json, "replayed")), (40, 40 * 20), "{json:#}");
    let failures: u64 =
        ["refused", "reset", "timed_out", "rejected", "other_failures"].map(|name| count(&json, name)).iter().sum();
    assert!(count(&json, "retried") > 0 && failures == count(&json, "retried"), "{json:#}");
    assert_eq!((count(&json, "lost"), count(&json, "duplicated"), count(&json, "lost_again")), (0, 0, 0), "{json:#}");
}

#[test]
fn without_cursors_or_answers_there_is_nothing_to_measure() {
    let server = Process::fantail();
    let url = |path: &str| format!("ws://{}{path}", server.address);
    let short = ["--connections", "3", "--warmup", "0s", "--timeout", "1s"];
    for (url, more, words) in [
        (url("/topics/raw"), &[][..], "messages came without a cursor: ask for it in the URL (?envelope)"),
        (url("/topics/raw?envelope"), &["--post", &url("/topics/meta/a")], "a publication was refused: 403"),
        (
            url("/topics/raw?envelope"),
            &["--post", &url("/topics/other")],
            "the first message did not come to all within --timeout",
        ),
        ("redis://127.0.0.1/a".to_owned(), &[], "WebSocket and event streams only"),
    ] {
        let output = run(&[&["resume", &url], &short[..], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(words) && errors.lines().count() == 1, "{errors}");
    }
}
