//! Flags that no other test starts a server with: each does what its help says, or at least harms nobody.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use serde_json::Value;
use support::http::get;
use support::server::{Launch, Server};
use support::socket::{CLOSE, Socket, TEXT};
use support::{PATIENCE, eventually};

#[test]
fn accept_rate_refuses_those_who_come_too_fast_and_lets_them_in_later() {
    // Forty a second: more than a test's few connections, far fewer than a loop makes.
    let server = Server::start(&["--accept-rate", "40"]);
    let refusal = (0..5_000).map(|_| get(server.address, "/healthz")).find(|response| response.status != 200);
    let refusal = refusal.expect("five thousand in a row are faster than forty a second");
    assert_eq!(refusal.problem(503)["type"], "urn:fantail:problem:too-fast");
    let seconds = refusal.header("Retry-After").and_then(|value| value.parse().ok()).expect("seconds");
    assert!(server.metrics().sum("fantail_connections_rejected_total", &[("reason", "accept_rate")]) >= 1.0);
    std::thread::sleep(Duration::from_secs(seconds));
    assert_eq!(get(server.address, "/healthz").status, 200, "the delay that it told is long enough");
    server.assert_well();
}

#[test]
fn worker_outbox_size_cuts_who_holds_more_than_a_share() {
    const HEALTHY: usize = 10;
    const MESSAGES: usize = 112;
    const MESSAGE_BYTES: usize = 32 << 10;
    // All publications together are 3.5 MiB, so nobody reaches the connection's own limit; two who never read reach the worker's.
    let flags = ["--workers", "1", "--outbox-size", "4MiB", "--worker-outbox-size", "4MiB", "--write-timeout", "30s"];
    let server = Server::start(&flags);
    let mut healthy: Vec<_> = (0..HEALTHY).map(|_| server.socket("/topics/flow")).collect();
    let mut greedy = [(); 2].map(|()| Socket::open_narrow(server.address, "/topics/flow"));
    let mut modest = Socket::open_narrow(server.address, "/topics/calm");
    let mut publisher = server.connect();
    let message = "x".repeat(MESSAGE_BYTES);
    // Less than a share of the worker's limit waits for this one.
    for _ in 0..8 {
        assert_eq!(publisher.post("/topics/calm", &message).status, 200);
    }
    for _ in 0..MESSAGES {
        assert_eq!(publisher.post("/topics/flow", &message).status, 200);
        for subscriber in &mut healthy {
            subscriber.expect(TEXT, &message);
        }
    }
    let cut = greedy.iter_mut().map(|socket| usize::from(was_cut(socket, MESSAGES))).sum::<usize>();
    assert!(cut > 0, "seven MiB waited where four may");
    drop(greedy);
    server.expect_metric("fantail_connections_closed_total", &[("cause", "slow_consumer")], cut as f64);
    for _ in 0..8 {
        modest.expect(TEXT, &message);
    }
    drop((healthy, modest, publisher));
    server.assert_well();
}

/// Whether the server closed a subscriber for being slow, or it got all `messages`.
fn was_cut(socket: &mut Socket, messages: usize) -> bool {
    let Some(last) = (0..messages).map(|_| socket.frame()).find(|frame| frame.first != TEXT) else {
        return false;
    };
    let text = String::from_utf8_lossy(&last.payload[2..]).into_owned();
    assert!(last.first == CLOSE && text.contains("slow_consumer"), "{last:?}");
    socket.wire.expect_end();
    true
}

#[test]
fn rebalance_gives_each_worker_a_fair_share() {
    const SUBSCRIBERS: usize = 400;
    let server = Server::start(&["--workers", "2", "--rebalance"]);
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| server.socket("/topics/all")).collect();
    let of_worker = |worker| subscribers.iter().filter(|socket| socket.worker() == worker).count();
    let shares = [of_worker(0), of_worker(1)];
    println!("figure: {SUBSCRIBERS} connections on two workers: {shares:?}");
    assert_eq!(shares[0] + shares[1], SUBSCRIBERS);
    // A worker hands over what it has beyond sixteen more than the other; some are under way meanwhile.
    assert!(shares[0].abs_diff(shares[1]) <= 48, "{shares:?}");
    let mut publisher = server.connect();
    for message in ["one", "two"] {
        assert_eq!(publisher.post("/topics/all", message).status, 200);
    }
    for subscriber in &mut subscribers {
        subscriber.expect(TEXT, "one");
        subscriber.expect(TEXT, "two");
    }
    // An adopted connection speaks as well as it listens.
    for worker in 0..2 {
        let speaker = subscribers.iter().position(|socket| socket.worker() == worker).expect("it has a share");
        subscribers[speaker].text("spoken");
        subscribers.iter_mut().for_each(|subscriber| subscriber.expect(TEXT, "spoken"));
    }
    drop((subscribers, publisher));
    server.assert_well();
}

#[test]
fn workers_are_as_many_as_asked_for() {
    let server = Server::start(&["--workers", "3"]);
    assert!(server.banner.contains("3 workers"), "{}", server.banner);
    let mut sockets: [Vec<Socket>; 3] = Default::default();
    eventually("each of three workers has a connection", PATIENCE, || {
        let socket = server.socket("/topics/all");
        sockets[socket.worker()].push(socket);
        sockets.iter().all(|of_worker| !of_worker.is_empty())
    });
    for worker in 0..3 {
        let text = format!("from worker {worker}");
        sockets[worker][0].text(&text);
        sockets.iter_mut().flatten().for_each(|socket| socket.expect(TEXT, &text));
    }
    drop(sockets);
    server.assert_well();
}

#[test]
fn pin_cores_decides_where_workers_run() {
    let mine = allowed("/proc/self/status");
    let first = mine.split(['-', ',']).next().expect("a list is never empty").to_string();
    for (flag, workers) in [("on", "2"), ("off", "2"), (first.as_str(), "1")] {
        let server = Server::start(&["--workers", workers, "--pin-cores", flag]);
        let masks = worker_masks(server.pid());
        assert_eq!(masks.len().to_string(), workers, "{masks:?}");
        match flag {
            "on" => assert!(masks.iter().all(|mask| mask.parse::<usize>().is_ok()), "one CPU each: {masks:?}"),
            "off" => assert!(masks.iter().all(|mask| *mask == mine), "as the process may, {mine}: {masks:?}"),
            core => assert_eq!(masks, [core]),
        }
        server.assert_well();
    }
}

/// The CPUs that each worker's thread may use, as `/proc` lists them.
fn worker_masks(pid: Pid) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let paths = tasks.map(|task| task.expect("the process runs").path());
    let workers = paths.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("worker-")));
    workers.map(|path| allowed(path.join("status").to_str().expect("digits"))).collect()
}

fn allowed(status: &str) -> String {
    let status = fs::read_to_string(status).expect("the thread runs");
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("Linux says it").trim().into()
}

#[test]
fn socket_tuning_harms_nobody() {
    let mut sets =
        vec![vec!["--tcp-user-timeout", "5s"], vec!["--notsent-lowat", "0"], vec!["--accept-batch", "1", "--backlog", "8"]];
    if may_busy_poll() {
        sets.push(vec!["--busy-poll", "50us"]);
    }
    for flags in sets {
        let server = Server::start(&flags);
        let mut subscriber = server.socket("/topics/all");
        assert_eq!(server.connect().post("/topics/all", "hello").status, 200);
        subscriber.expect(TEXT, "hello");
        drop(subscriber);
        server.assert_well();
    }
}

/// Whether this process has CAP_NET_ADMIN, which SO_BUSY_POLL asks for (socket(7)).
fn may_busy_poll() -> bool {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("Linux says it").trim();
    let may = u64::from_str_radix(effective, 16).expect("hexadecimal digits") & CAP_NET_ADMIN != 0;
    if !may {
        println!("left out: --busy-poll needs CAP_NET_ADMIN");
    }
    may
}

#[test]
fn a_json_log_is_an_object_a_line() {
    let flags = ["--log-format", "json", "--log-level", "debug", "--drain-window", "0s"];
    let mut server = Launch::new(&flags).start();
    server.socket("/topics/chat").leave();
    assert_eq!(get(server.address, "/nowhere").status, 404);
    server.terminate();
    assert!(server.wait().success());
    eventually("the last line is read", PATIENCE, || server.log().contains("stopped"));
    let log = server.log();
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        for member in ["timestamp", "level", "message"] {
            assert!(object[member].is_string(), "{member} is missing: {line}");
        }
    }
    assert!(log.lines().count() > 10, "connections are logged at this level: {log}");
}
