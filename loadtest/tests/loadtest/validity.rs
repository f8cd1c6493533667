//! What must not be believed says INVALID: a run that could not do what was asked, or measured the tool itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::support::{Process, SHORT, measure};

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
