//! Against a server that drops, duplicates, reorders, delays, stalls and cuts on purpose: every fault is found, and nothing else.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{count, measure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha1::{Digest as _, Sha1};

/// What happens to the publication with an index on its way to the subscriber with a number.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Drop,
    Twice,
    /// Comes after the next one.
    Behind,
    /// Comes a fifth of a second later, and so does all that is behind it.
    Late,
}

#[derive(Clone, Copy)]
struct Plan {
    fault: fn(subscriber: usize, index: u64) -> Fault,
    /// Nothing is read from the publisher for this long, once a second after the first publication.
    stall: Duration,
    /// Bytes go out one at a time.
    cut: bool,
}

const GOOD: Plan = Plan { fault: |_, _| Fault::None, stall: Duration::ZERO, cut: false };

struct Subscriber {
    socket: TcpStream,
    behind: Vec<u8>,
}

/// Starts the server and returns its URL. Each connection subscribes; what comes on any is published to all.
fn serve(plan: Plan) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/topic", listener.local_addr().unwrap());
    let subscribers = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let subscribers = Arc::clone(&subscribers);
            upgrade(&socket, plan.cut);
            subscribers.lock().unwrap().push(Subscriber { socket: socket.try_clone().unwrap(), behind: Vec::new() });
            thread::spawn(move || publish_all(&socket, plan, &subscribers));
        }
    });
    url
}

/// Reads a request and answers it with a 101, with every byte alone if `cut`.
pub fn upgrade(mut socket: &TcpStream, cut: bool) {
    socket.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
    let accept = BASE64_STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    let answer =
        format!("HTTP/1.1 101 Fine\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n");
    send(socket, answer.as_bytes(), cut);
}

/// Writes all of it, byte by byte if it is to be cut.
pub fn send(mut socket: &TcpStream, bytes: &[u8], cut: bool) {
    for piece in bytes.chunks(if cut { 1 } else { bytes.len() }) {
        // The tool leaves when it has seen enough.
        let _ = socket.write_all(piece);
    }
}

/// Reads masked frames of less than 126 bytes and hands each on by the plan.
fn publish_all(mut socket: &TcpStream, plan: Plan, subscribers: &Mutex<Vec<Subscriber>>) {
    let start = Instant::now();
    let mut stall = Some(plan.stall).filter(|stall| !stall.is_zero());
    let mut head = [0; 6];
    for index in 0.. {
        if socket.read_exact(&mut head).is_err() || head[0] & 0xF == 8 {
            return;
        }
        if start.elapsed() > Duration::from_millis(700)
            && let Some(stall) = stall.take()
        {
            thread::sleep(stall);
        }
        let mut frame = vec![0x81, head[1] & 0x7F];
        frame.resize(2 + usize::from(head[1] & 0x7F), 0);
        socket.read_exact(&mut frame[2..]).unwrap();
        frame[2..].iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        for (number, subscriber) in subscribers.lock().unwrap().iter_mut().enumerate() {
            deliver(subscriber, &frame, (plan.fault)(number, index), plan.cut);
        }
    }
}

fn deliver(subscriber: &mut Subscriber, frame: &[u8], fault: Fault, cut: bool) {
    let mut bytes = match fault {
        Fault::None => frame.to_vec(),
        Fault::Late => {
            thread::sleep(Duration::from_millis(200));
            frame.to_vec()
        }
        Fault::Twice => frame.repeat(2),
        Fault::Drop => Vec::new(),
        Fault::Behind => {
            subscriber.behind = frame.to_vec();
            return;
        }
    };
    bytes.append(&mut subscriber.behind);
    if !bytes.is_empty() {
        send(&subscriber.socket, &bytes, cut);
    }
}

/// Ten subscribers, 100 publications in two seconds, none of them lost by the machine being slow.
fn fanout(plan: Plan, more: &[&str]) -> serde_json::Value {
    let url = serve(plan);
    let flags = ["--connections", "10", "--rate", "50", "--duration", "2s", "--warmup", "0s", "--timeout", "2s", "--size", "64"];
    let json = measure(&[&["fanout", &url], &flags[..], more].concat());
    assert_eq!(count(&json, "published"), 100);
    assert_eq!((count(&json, "foreign"), count(&json, "connections_lost")), (0, 0), "{json:#}");
    json
}

fn faults(json: &serde_json::Value) -> [u64; 4] {
    ["delivered", "lost", "duplicated", "reordered"].map(|name| count(json, name))
}

#[test]
fn a_good_server_has_no_fault_even_if_every_byte_comes_alone() {
    assert_eq!(faults(&fanout(GOOD, &[])), [1000, 0, 0, 0]);
    assert_eq!(faults(&fanout(Plan { cut: true, ..GOOD }, &[])), [1000, 0, 0, 0]);
}

#[test]
fn every_loss_is_found_also_of_the_last_message() {
    let plan =
        Plan { fault: |subscriber, index| if subscriber == 3 && index % 10 == 9 { Fault::Drop } else { Fault::None }, ..GOOD };
    assert_eq!(faults(&fanout(plan, &[])), [990, 10, 0, 0]);
}

#[test]
fn every_duplicate_is_found_also_of_the_last_message() {
    let plan =
        Plan { fault: |subscriber, index| if subscriber < 2 && index % 33 == 0 { Fault::Twice } else { Fault::None }, ..GOOD };
    assert_eq!(faults(&fanout(plan, &[])), [1000, 0, 8, 0]);
}

#[test]
fn every_message_behind_its_turn_is_found() {
    let plan =
        Plan { fault: |subscriber, index| if subscriber == 9 && index % 20 == 5 { Fault::Behind } else { Fault::None }, ..GOOD };
    assert_eq!(faults(&fanout(plan, &[])), [1000, 0, 0, 5]);
}

#[test]
fn a_delay_is_late_and_nothing_else() {
    let plan = Plan { fault: |subscriber, index| if subscriber == 9 && index == 99 { Fault::Late } else { Fault::None }, ..GOOD };
    let json = fanout(plan, &[]);
    assert_eq!(faults(&json), [1000, 0, 0, 0]);
    for latency in ["delivery", "last_subscriber"] {
        let slowest = json["latencies"][latency]["quantiles"]["max"].as_u64().unwrap();
        assert!(slowest >= 200_000_000, "{latency}: {slowest}");
    }
}

#[test]
fn all_faults_together_are_told_apart() {
    let fault = |subscriber, index| match (subscriber, index % 10) {
        (0, 1) => Fault::Drop,
        (1, 2) | (2, 2) => Fault::Twice,
        (4, 3) => Fault::Behind,
        _ => Fault::None,
    };
    assert_eq!(faults(&fanout(Plan { fault, ..GOOD }, &[])), [990, 10, 20, 10]);
}

#[test]
fn a_stall_of_a_second_shows_in_the_open_loop() {
    let json = fanout(Plan { stall: Duration::from_secs(1), ..GOOD }, &[]);
    assert_eq!(faults(&json), [1000, 0, 0, 0]);
    // What was due in the stall's first half waited for at least its second half: 25 of the 100 publications.
    let quantiles = &json["latencies"]["delivery"]["quantiles"];
    assert!(quantiles["max"].as_u64().unwrap() >= 950_000_000, "{quantiles}");
    assert!(quantiles["p90"].as_u64().unwrap() >= 500_000_000, "{quantiles}");
}

/// 100 messages in two seconds on one connection, to which alone the server sends what comes on it.
fn echo(plan: Plan) -> serde_json::Value {
    let url = serve(plan);
    let flags = ["--connections", "1", "--rate", "50", "--duration", "2s", "--warmup", "0s", "--timeout", "2s", "--size", "64"];
    let json = measure(&[&["echo", &url], &flags[..]].concat());
    assert_eq!((count(&json, "sent"), count(&json, "connections_lost")), (100, 0), "{json:#}");
    json
}

#[test]
fn an_echo_that_drops_duplicates_and_reorders_is_counted_exactly() {
    let fault = |_, index| match index {
        _ if index % 10 == 9 => Fault::Drop,
        _ if index % 33 == 0 => Fault::Twice,
        _ if index % 20 == 5 => Fault::Behind,
        _ => Fault::None,
    };
    let json = echo(Plan { fault, ..GOOD });
    // The last message is among the dropped; 0, 33 and 66 come twice, 99 not at all.
    let counts = ["returned", "lost", "duplicated", "reordered", "foreign"].map(|name| count(&json, name));
    assert_eq!(counts, [90, 10, 3, 5, 0], "{json:#}");
    assert_eq!(json["latencies"]["round_trip"]["count"], 90);
}

#[test]
fn an_echo_that_stalls_for_a_second_shows_it_in_the_open_loop() {
    let json = echo(Plan { stall: Duration::from_secs(1), ..GOOD });
    assert_eq!(["returned", "lost", "foreign"].map(|name| count(&json, name)), [100, 0, 0], "{json:#}");
    // As in the fan-out: a quarter of the messages was due in the stall's first half.
    let quantiles = &json["latencies"]["round_trip"]["quantiles"];
    assert!(quantiles["max"].as_u64().unwrap() >= 950_000_000, "{quantiles}");
    assert!(quantiles["p90"].as_u64().unwrap() >= 500_000_000, "{quantiles}");
}

#[test]
fn a_light_run_on_a_good_server_is_valid() {
    // It takes a fifth of a second for each message, so that a tool that is late by milliseconds, because tests run beside it, is not
    // late beside that.
    let url = serve(Plan { fault: |_, _| Fault::Late, ..GOOD });
    let flags = ["--connections", "1", "--rate", "3", "--duration", "2s", "--warmup", "0s"];
    let is_valid = |_| measure(&[&["echo", &url], &flags[..]].concat())["valid"] == true;
    assert!((0..5).any(is_valid), "none of five runs is valid");
}

#[test]
fn a_full_window_that_lost_a_message_ends_and_says_so() {
    let url =
        serve(Plan { fault: |subscriber, index| if subscriber == 1 && index == 7 { Fault::Drop } else { Fault::None }, ..GOOD });
    let started = Instant::now();
    let json = measure(&[
        "fanout",
        &url,
        "--connections",
        "3",
        "--window",
        "1",
        "--duration",
        "1h",
        "--warmup",
        "0s",
        "--timeout",
        "1s",
        "--size",
        "64",
    ]);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!((count(&json, "published"), count(&json, "lost")), (8, 1));
}

#[test]
fn who_joins_and_gets_nothing_has_lost_it() {
    let url = serve(Plan { fault: |subscriber, _| if subscriber >= 3 { Fault::Drop } else { Fault::None }, ..GOOD });
    let flags = ["--connections", "3", "--joins", "20", "--stay", "200ms", "--rate", "50", "--duration", "1s", "--warmup", "0s"];
    let json = measure(&[&["churn", &url, "--size", "64", "--timeout", "500ms"], &flags[..]].concat());
    assert_eq!((count(&json, "joined"), count(&json, "left"), count(&json, "lost")), (20, 20, 0), "{json:#}");
    assert_eq!(count(&json, "passing_delivered"), 0);
    assert!(count(&json, "passing_lost") > 50, "some ten for each but the last: {json:#}");
}

#[test]
fn what_is_dropped_for_who_does_not_read_is_lost_in_silence() {
    let fault = |subscriber, index| if subscriber == 3 && index > 20 { Fault::Drop } else { Fault::None };
    let url = serve(Plan { fault, ..GOOD });
    let flags = ["--connections", "4", "--slow", "1", "--rate", "50", "--duration", "1s", "--warmup", "100ms", "--size", "64"];
    let json = measure(&[&["slow", &url], &flags[..]].concat());
    assert_eq!((count(&json, "published"), count(&json, "lost"), count(&json, "delivered")), (55, 0, 165), "{json:#}");
    assert_eq!((count(&json, "slow_delivered"), count(&json, "slow_lost_in_silence")), (21, 34), "{json:#}");
}

#[test]
fn a_publication_that_does_not_come_back_is_unanswered_and_the_others_keep_their_times() {
    let url = serve(Plan { fault: |_, index| if index == 5 { Fault::Drop } else { Fault::None }, ..GOOD });
    let flags = ["--inflight", "4", "--duration", "500ms", "--warmup", "0s", "--size", "64", "--timeout", "1s"];
    let json = measure(&[&["publish", &url], &flags[..]].concat());
    assert_eq!((count(&json, "unanswered"), count(&json, "lost"), count(&json, "reordered")), (1, 1, 0), "{json:#}");
    assert_eq!(count(&json, "answered") + 1, count(&json, "published"));
}

#[test]
fn connections_that_fail_are_told_apart_exactly() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut silent = Vec::new();
        for (index, socket) in listener.incoming().map_while(Result::ok).enumerate() {
            match index % 10 {
                3 => send(&socket, b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nno\n", false),
                // What was sent and is not read makes the close a reset.
                5 => drop(socket.peek(&mut [0]).map(|_| socket)),
                7 => silent.push(socket),
                _ => upgrade(&socket, false),
            }
        }
    });
    let flags = ["--rate", "100", "--duration", "1s", "--warmup", "0s", "--timeout", "700ms"];
    let json = measure(&[&["connect", &url], &flags[..]].concat());
    let failures = ["refused", "reset", "timed_out", "rejected", "other_failures"].map(|name| count(&json, name));
    assert_eq!(failures, [0, 10, 10, 10, 0], "{json:#}");
    assert_eq!((&json["operations"], &json["latencies"]["whole"]["count"]), (&json["latencies"]["whole"]["count"], &70.into()));
}

#[test]
fn a_server_with_room_for_few_shows_in_latency_and_not_as_the_tools_own_lateness() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::sleep(Duration::from_millis(20));
            upgrade(&socket, false);
        }
    });
    let flags = ["--rate", "100", "--concurrency", "4", "--duration", "500ms", "--warmup", "0s"];
    let json = measure(&[&["connect", &url], &flags[..]].concat());
    assert_eq!(json["latencies"]["whole"]["count"], 50, "{json:#}");
    assert!(count(&json, "slots_full") > 20, "{json:#}");
    assert!(
        json["latencies"]["whole"]["quantiles"]["max"].as_u64().unwrap() > 300_000_000,
        "the queue of the open loop: {json:#}"
    );
    assert!(json["own"]["lateness"]["quantiles"]["p50"].as_u64().unwrap() < 100_000_000, "{json:#}");
}

#[test]
fn each_further_process_has_an_address_of_its_own_on_loopback_or_the_one_that_is_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let peers = Arc::clone(&seen);
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            peers.lock().unwrap().push(socket.peer_addr().unwrap().ip().to_string());
            upgrade(&socket, false);
            thread::spawn(move || (&socket).read_to_end(&mut Vec::new()));
        }
    });
    let pid = std::process::id().to_string();
    let flags = ["--from", "3", "--connections", "30", "--processes", "3", "--duration", "200ms", "--warmup", "100ms"];
    for (source, expected) in [(&[][..], ["127.0.0.1", "127.0.1.1", "127.0.1.2"]), (&["--source", "127.0.0.9"], ["127.0.0.9"; 3])]
    {
        let json = measure(&[&["hold", &url, "--pid", &pid], &flags[..], source].concat());
        assert_eq!(count(&json, "held"), 30);
        let mut peers = std::mem::take(&mut *seen.lock().unwrap());
        peers.sort();
        assert_eq!(peers, expected.map(|address| vec![address; 10]).concat(), "{source:?}");
    }
}
