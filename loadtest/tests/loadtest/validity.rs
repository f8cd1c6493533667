//! What must not be believed says INVALID: a run that could not do what was asked, or measured the tool itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::faults::upgrade;
use crate::support::{Process, SHORT, count, measure, read_to_end, serve_each};

/// Why the tool says that a run must not be believed.
fn reasons(json: &Value) -> String {
    json["invalid_because"].to_string()
}

#[test]
fn a_tool_that_others_keep_from_its_cpu_is_invalid() {
    let server = Process::floor();
    let url = format!("ws://{}/echo", server.address);
    let allowed = sched_getaffinity(None).unwrap();
    let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
    let mut only = CpuSet::new();
    only.set(cpu);
    let is_over = AtomicBool::new(false);
    let json = thread::scope(|scope| {
        scope.spawn(|| {
            sched_setaffinity(None, &only).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let flags = ["--connections", "50", "--cpu", &cpu.to_string()];
        let json = measure(&[&["echo", &url], &flags[..], &SHORT].concat());
        is_over.store(true, Ordering::Relaxed);
        json
    });
    assert!(reasons(&json).contains("the load test waited for its CPU"), "{json:#}");
    assert!(json["own"]["wait_share"].as_f64().unwrap() > 0.1, "{json:#}");
}

/// A run in the middle of which its server is killed, after this long.
fn killed_after(time: Duration, command: &[&str], path: &str) -> Value {
    let server = Process::floor();
    let (url, pid) = (format!("ws://{}{path}", server.address), server.pid());
    thread::scope(|scope| {
        let run = scope.spawn(|| measure(&[&command[..1], &[&url, "--pid", &pid], &command[1..]].concat()));
        thread::sleep(time);
        drop(server);
        run.join().unwrap()
    })
}

#[test]
fn a_server_that_dies_is_what_the_report_says() {
    let died = "the server's process ended before the measurement did";
    for command in [
        &["echo", "--connections", "3", "--duration", "2s", "--warmup", "0s"][..],
        &["slow", "--connections", "4", "--slow", "2", "--timeout", "500ms", "--duration", "2s", "--warmup", "0s"],
    ] {
        let json = killed_after(Duration::from_secs(1), command, if command[0] == "echo" { "/echo" } else { "/topics/a" });
        assert!(reasons(&json).contains(died), "{json:#}");
        assert!(json["operations"].as_u64().unwrap() > 0 && json["server_cpu"].is_null(), "what was measured is told: {json:#}");
    }
}

#[test]
fn a_run_whose_connections_are_all_lost_is_invalid_in_both_loops() {
    for pace in [&[][..], &["--rate", "100"]] {
        let flags = ["echo", "--connections", "3", "--duration", "2s", "--warmup", "0s"];
        let json = killed_after(Duration::from_secs(1), &[&flags[..], pace].concat(), "/echo");
        assert_eq!(count(&json, "connections_lost"), 3, "{json:#}");
        assert!(reasons(&json).contains("all connections were lost"), "{json:#}");
    }
}

#[test]
fn a_run_in_which_nothing_came_back_is_invalid() {
    let url = serve_each(|_, socket| {
        upgrade(&socket, false);
        read_to_end(&socket);
    });
    for pace in [&[][..], &["--rate", "100"]] {
        let flags = ["echo", &url, "--connections", "2", "--timeout", "300ms", "--duration", "500ms", "--warmup", "0s"];
        let json = measure(&[&flags[..], pace].concat());
        assert_eq!((count(&json, "returned"), count(&json, "connections_lost")), (0, 0), "{json:#}");
        assert!(reasons(&json).contains("nothing was measured: no message"), "{json:#}");
    }
}

#[test]
fn a_run_whose_publisher_is_gone_is_invalid() {
    let flags = ["publish", "--timeout", "300ms", "--duration", "2s", "--warmup", "0s"];
    let json = killed_after(Duration::from_secs(1), &flags, "/topics/a");
    assert!(reasons(&json).contains("who published is gone"), "{json:#}");
}
