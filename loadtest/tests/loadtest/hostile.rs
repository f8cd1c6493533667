//! Against servers that end, refuse, or say nothing: the run ends, and tells what there was.

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::{send, upgrade};
use crate::support::{Process, TOOL, count, measure, read_to_end, serve_each};
use crate::witness::frame;

#[test]
fn a_slow_one_that_ends_in_the_warm_up_is_no_slow_one() {
    let url = serve_each(|number, socket| {
        upgrade(&socket, false);
        match number {
            5 => thread::sleep(Duration::from_millis(400)),
            _ => read_to_end(&socket),
        }
    });
    let flags =
        ["--connections", "6", "--slow", "2", "--warmup", "1s", "--duration", "300ms", "--rate", "1", "--timeout", "500ms"];
    let json = measure(&[&["slow", &url], &flags[..]].concat());
    assert_eq!((count(&json, "slow_ended_early"), count(&json, "slow_ended_by_server")), (1, 0), "{json:#}");
    assert!(json["notes"].to_string().contains("the first slow one ended"), "{json:#}");
}

#[test]
fn a_slow_one_is_read_for_as_long_as_something_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let [healthy, slow] = [(); 2].map(|()| listener.accept().unwrap().0);
        [&healthy, &slow].into_iter().for_each(|socket| upgrade(socket, false));
        let (sender, receiver) = channel::<Vec<u8>>();
        thread::spawn(move || {
            for frame in receiver {
                thread::sleep(Duration::from_millis(300));
                send(&slow, &frame, false);
            }
            read_to_end(&slow);
        });
        while let Ok((_, payload)) = frame(&healthy) {
            let frame = [&[0x81, payload.len() as u8], &payload[..]].concat();
            send(&healthy, &frame, false);
            sender.send(frame).unwrap();
        }
    });
    let flags = ["--connections", "2", "--slow", "1", "--rate", "16", "--size", "64", "--duration", "1s", "--warmup", "0s"];
    let json = measure(&[&["slow", &url], &flags[..]].concat());
    let counts = ["published", "delivered", "slow_delivered", "slow_lost_in_silence"].map(|name| count(&json, name));
    assert_eq!(counts, [16, 16, 16, 0], "the last of them comes some four seconds after the others have all: {json:#}");
}

#[test]
fn connections_that_are_never_answered_are_counted_in_both_loops_and_make_no_valid_run() {
    let url = serve_each(|_, socket| read_to_end(&socket));
    for (flags, hung) in [(["--concurrency", "4"], 4), (["--rate", "20"], 10)] {
        let common = ["--duration", "500ms", "--warmup", "0s", "--timeout", "1s"];
        let json = measure(&[&["connect", &url], &flags[..], &common].concat());
        assert_eq!((count(&json, "begun"), count(&json, "timed_out")), (hung, hung), "{json:#}");
        assert!(json["doubts"].to_string().contains("no connection was completed in the measured part"), "{json:#}");
    }
}

#[test]
fn subscriptions_that_are_never_confirmed_time_out_and_the_run_ends() {
    // A Redis that confirms what a connection subscribes to first, and answers nothing after that.
    let url = serve_each(|_, socket| {
        let mut first = [0; 256];
        let bytes = std::io::Read::read(&mut &socket, &mut first).unwrap_or(0);
        let subscribes = first[..bytes].windows(9).any(|word| word == b"SUBSCRIBE");
        send(&socket, if subscribes { b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n" } else { b"+PONG\r\n" }, false);
        read_to_end(&socket);
    });
    let flags = ["--connections", "2", "--joins", "10", "--duration", "1s", "--warmup", "0s", "--timeout", "500ms"];
    let json = measure(&[&["churn", &url.replace("ws:", "redis:"), "--how", "subscribe"], &flags[..]].concat());
    assert_eq!(["joined", "timed_out", "none_free"].map(|name| count(&json, name)), [0, 10, 0], "{json:#}");
}

#[test]
fn what_a_full_listener_drops_is_in_the_kernels_counts() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    listener.listen(1).unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap().as_socket().unwrap());
    // Nobody accepts: two are queued, and whoever comes then is dropped and tries again after a second.
    let flags = ["--concurrency", "8", "--duration", "1s", "--warmup", "0s", "--timeout", "2s"];
    let json = measure(&[&["connect", &url], &flags[..]].concat());
    let counted = |name: &str| json["tcp"][name].as_u64().unwrap();
    assert!(counted("listen_overflows") >= 6 && counted("syn_retransmits") >= 6, "{json:#}");
    assert!(count(&json, "timed_out") >= 8 && counted("active_opens") >= count(&json, "begun"), "{json:#}");
}

#[test]
fn an_open_loop_that_is_not_read_queues_so_much_and_counts_the_rest() {
    let url = serve_each(|_, socket| {
        upgrade(&socket, false);
        thread::sleep(Duration::from_secs(60));
    });
    let flags = ["--connections", "2", "--rate", "200000", "--size", "1KiB", "--duration", "1s", "--warmup", "0s"];
    for command in ["echo", "fanout"] {
        let json = measure(&[&[command, &url, "--timeout", "500ms"], &flags[..]].concat());
        let sent = count(&json, if command == "echo" { "sent" } else { "published" });
        assert_eq!(sent + count(&json, "not_sent"), 200_000, "{json:#}");
        assert!(json["busy_tool"].to_string().contains("not sent"), "{json:#}");
        assert!((50_000..100_000).contains(&sent), "64 MiB, and what the kernel's buffers took: {json:#}");
    }
}

#[test]
fn what_idle_ones_were_to_get_and_was_not_sent_is_counted_and_makes_no_valid_run() {
    let url = serve_each(|_, socket| {
        upgrade(&socket, false);
        thread::sleep(Duration::from_secs(60));
    });
    let idle = ["--idle", "2", "--idle-rate", "4000000"];
    let flags = ["--rate", "10", "--duration", "500ms", "--warmup", "0s", "--timeout", "500ms"];
    let json = measure(&[&["connect", &url], &idle[..], &flags].concat());
    let not_sent = count(&json, "idle_not_sent");
    assert_eq!(not_sent + count(&json, "idle_lost") / 2, 2_000_000, "what was sent is lost to both: {json:#}");
    assert!(not_sent > 0 && json["busy_tool"].to_string().contains("idle not sent"), "{json:#}");
    assert!(json["notes"].to_string().contains("what the idle ones got is in it"), "{json:#}");
}

#[test]
fn an_open_loop_of_connections_ends_though_most_were_never_opened() {
    let url = serve_each(|_, socket| {
        thread::sleep(Duration::from_millis(100));
        upgrade(&socket, false);
    });
    let started = Instant::now();
    let flags = ["--rate", "100000", "--concurrency", "2", "--duration", "1s", "--warmup", "0s", "--timeout", "500ms"];
    let json = measure(&[&["connect", &url], &flags[..]].concat());
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(count(&json, "begun") + count(&json, "never_opened"), 100_000, "{json:#}");
    assert!((10..40).contains(&count(&json, "begun")), "{json:#}");
}

#[test]
fn a_close_that_is_answered_without_a_code_is_an_answer() {
    let url = serve_each(|_, socket| {
        upgrade(&socket, false);
        let _ = frame(&socket);
        send(&socket, &[0x88, 0], false);
    });
    for close in ["client", "server"] {
        let flags = ["--rate", "20", "--duration", "500ms", "--warmup", "0s", "--close", close];
        let json = measure(&[&["connect", &url], &flags[..]].concat());
        let failures = ["reset", "timed_out", "other_failures"].map(|name| count(&json, name));
        assert_eq!((count(&json, "begun"), failures), (10, [0; 3]), "{json:#}");
    }
}

#[test]
fn more_connections_than_descriptors_spread_over_processes_or_say_what_is_needed() {
    let server = Process::floor();
    let url = format!("ws://{}/topics/idle", server.address);
    let hold = |connections: &str| {
        let tool =
            format!("ulimit -n 128; exec {TOOL} hold {url} --pid {} --from 1343 --connections {connections}", server.pid());
        let flags = "--duration 100ms --warmup 100ms --json -";
        Command::new("sh").args(["-c", &format!("{tool} {flags}")]).output().unwrap()
    };
    let output = hold("1344");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!((&json["counts"]["held"], &json["parameters"]["processes"]), (&1344.into(), &15.into()), "{output:?}");
    let output = hold("9000");
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), line.contains("9032 descriptors are needed and the limit is 128")),
        (Some(1), true),
        "{line}"
    );
}

#[test]
fn no_size_is_measured_with_subscribers_that_the_one_before_has_lost() {
    let url = serve_each(|number, socket| {
        upgrade(&socket, false);
        match number {
            1 => thread::sleep(Duration::from_millis(300)),
            _ => read_to_end(&socket),
        }
    });
    let flags = ["--connections", "3", "--sizes", "64,100", "--rate", "20", "--duration", "500ms", "--warmup", "0s"];
    let json = measure(&[&["fanout", &url, "--timeout", "300ms"], &flags[..]].concat());
    assert_eq!((count(&json, "connections_lost"), &json["parameters"]["size"]), (1, &64.into()), "one report, no list: {json:#}");
    assert!(json["notes"].to_string().contains("no further size was measured"), "{json:#}");
}

/// A storm of 20, whose first openings are answered with a 101; `then` does those that come back, by their number.
fn storm(then: impl Fn(usize, &TcpStream) + Copy + Send + 'static, flags: &[&str]) -> serde_json::Value {
    let url = serve_each(move |number, socket| match number.checked_sub(20) {
        Some(number) => then(number, &socket),
        None => {
            upgrade(&socket, false);
            read_to_end(&socket);
        }
    });
    measure(&[&["storm", &url, "--connections", "20", "--warmup", "100ms"], flags].concat())
}

const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nno\n";

#[test]
fn a_storm_is_over_when_all_are_back_whom_the_server_refused_and_lost_again() {
    let then = |number, socket: &TcpStream| match number {
        0..30 => {
            send(socket, BUSY, false);
            read_to_end(socket);
        }
        // Opened and lost: the first that came in.
        30 => upgrade(socket, false),
        _ => {
            upgrade(socket, false);
            read_to_end(socket);
        }
    };
    let json = storm(then, &["--duration", "20s", "--retry", "300ms"]);
    let counts = ["back", "missing", "rejected", "lost_again", "retried"].map(|name| count(&json, name));
    assert_eq!(counts, [21, 0, 30, 1, 31], "{json:#}");
    assert!(json["figures"]["until_all_are_back"]["value"].as_f64().unwrap() >= 300.0, "two pauses of 150 ms at least: {json:#}");
}

#[test]
fn who_fails_in_a_storm_and_is_not_tried_again_is_no_retry() {
    let then = |_, socket: &TcpStream| {
        send(socket, BUSY, false);
        read_to_end(socket);
    };
    let json = storm(then, &["--duration", "500ms", "--retry", "10s"]);
    let counts = ["back", "missing", "rejected", "lost_again", "retried"].map(|name| count(&json, name));
    assert_eq!(counts, [0, 20, 20, 0, 0], "{json:#}");
    assert!(json["doubts"].to_string().contains("not all are back"), "{json:#}");
}
