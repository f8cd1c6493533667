//! The process: starting twice, draining, ending at once, coming back, and a wall clock that jumps.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use support::http::{ask, get, post};
use support::server::{Launch, Server, has_tool, run};
use support::socket::{CLOSE, Socket, close_payload, frame};
use support::wire::Connection;
use support::{PATIENCE, eventually, figure, scaled};

#[test]
fn the_banner_says_how_to_try_it() {
    let server = Launch::new(&["--workers", "2"]).listen("[::1]:0").start();
    // Which driver is the machine's choice, unless the test run has made it.
    let driver = std::env::var("FANTAIL_IO").unwrap_or_default();
    for expected in [&format!("2 workers on {driver}"), "curl", "http://127.0.0.1:", "http://[::1]:"] {
        assert!(server.banner.contains(expected), "{expected:?} is missing:\n{}", server.banner);
    }
}

#[test]
fn a_second_server_on_the_address_fails() {
    let server = Server::start(&[]);
    let start = Instant::now();
    let second = run(&["serve", "--listen", &server.address.to_string(), "--admin", "127.0.0.1:0"]);
    figure("a second server ended", start.elapsed(), Duration::from_millis(400));
    assert_eq!(second.status, Some(2), "{second:?}");
    assert!(second.stderr.contains("address in use"), "{second:?}");
    let on_admin = run(&["serve", "--listen", "127.0.0.1:0", "--admin", &server.admin.to_string()]);
    assert_eq!(on_admin.status, Some(2), "{on_admin:?}");
    server.assert_well();
}

#[test]
fn without_connections_a_server_stops_at_once() {
    let mut server = Server::start(&[]);
    let start = Instant::now();
    server.terminate();
    assert!(server.wait().success());
    figure("stopped without connections", start.elapsed(), Duration::from_secs(1));
}

#[test]
fn a_drain_closes_each_connection_with_its_delay_to_return() {
    let connections = scaled(500, 10_000);
    let window = Duration::from_secs(scaled(1, 10));
    let mut server = Server::start(&["--drain-window", &format!("{}s", window.as_secs()), "--close-timeout", "1s"]);
    let mut sockets: Vec<_> = (0..connections).map(|_| server.socket("/topics/chat")).collect();
    let mut keep_alive = server.connect();
    assert_eq!(keep_alive.get("/healthz").status, 200);
    let start = Instant::now();
    server.terminate();
    let mut delays = Vec::new();
    for socket in &mut sockets {
        let close = socket.close();
        assert_eq!(close.code, Some(1001), "{close:?}");
        let reason = close.json();
        assert_eq!(reason["cause"], "drain", "{close:?}");
        delays.push(reason["retry_after_ms"].as_u64().expect("a number"));
        socket.send(frame(CLOSE, close_payload(1001, "")));
    }
    let closed = start.elapsed();
    assert!(closed >= window / 2, "not spread over the window of {window:?}: all closed after {closed:?}");
    figure(&format!("{connections} connections closed in a window of {window:?}"), closed, window + Duration::from_secs(1));
    assert!(delays.iter().any(|delay| *delay != delays[0]), "everybody would come back in the same moment: {} ms", delays[0]);
    for socket in &mut sockets {
        socket.wire.expect_end();
    }
    keep_alive.rest(PATIENCE);
    assert!(server.wait().success());
}

#[test]
fn what_was_acknowledged_before_the_end_is_delivered() {
    let mut server = Server::start(&["--drain-window", "500ms", "--close-timeout", "2s"]);
    let mut subscribers: Vec<_> = (0..scaled(50, 1_000)).map(|_| server.socket("/topics/chat")).collect();
    let address = server.address;
    let publishers: Vec<_> = (0..4)
        .map(|publisher| {
            thread::spawn(move || {
                let mut connection = Connection::open(address);
                let mut acknowledged = Vec::new();
                for number in 0.. {
                    let text = format!("{publisher} {number}");
                    if !connection.try_send(post("/topics/chat", "", &text)) {
                        break;
                    }
                    match connection.try_response() {
                        Some(response) if response.status == 200 => acknowledged.push(text),
                        Some(response) => {
                            response.problem(503);
                            break;
                        }
                        None => break,
                    }
                }
                acknowledged
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    server.terminate();
    let mut received = Vec::new();
    for subscriber in &mut subscribers {
        let mut messages = std::collections::HashSet::new();
        let close = loop {
            let frame = subscriber.frame();
            if frame.first == CLOSE {
                break frame;
            }
            messages.insert(String::from_utf8(frame.payload).expect("text"));
        };
        assert_eq!(close.payload[..2], 1001_u16.to_be_bytes());
        subscriber.send(frame(CLOSE, close_payload(1001, "")));
        received.push(messages);
    }
    let acknowledged: Vec<_> =
        publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher ends well")).collect();
    println!("figure: {} publications acknowledged before the end", acknowledged.len());
    assert!(!acknowledged.is_empty());
    for messages in &received {
        let lost: Vec<_> = acknowledged.iter().filter(|text| !messages.contains(*text)).collect();
        assert!(lost.is_empty(), "acknowledged and not delivered: {lost:?}");
    }
    drop(subscribers);
    assert!(server.wait().success());
}

#[test]
fn clients_that_never_answer_a_close_do_not_hold_the_process() {
    let mut server = Server::start(&["--drain-window", "0s", "--close-timeout", "1s"]);
    let mut silent: Vec<_> = (0..10).map(|_| server.socket("/topics/chat")).collect();
    let mut half_a_head = server.connect();
    half_a_head.send("GET /healthz HT");
    let start = Instant::now();
    server.terminate();
    for socket in &mut silent {
        assert_eq!(socket.close().code, Some(1001));
    }
    assert!(server.wait().success());
    figure("ended with silent clients, close time-out 1 s", start.elapsed(), Duration::from_millis(1_500));
    for socket in &mut silent {
        socket.wire.rest(PATIENCE);
    }
}

#[test]
fn during_the_drain_delay_probes_say_no_and_clients_are_served() {
    let mut server = Server::start(&["--drain-delay", "1500ms", "--drain-window", "0s"]);
    assert_eq!(get(server.admin, "/readyz").status, 200);
    let start = Instant::now();
    server.terminate();
    eventually("readiness is withdrawn", PATIENCE, || get(server.admin, "/readyz").status == 503);
    let health = get(server.address, "/healthz");
    assert_eq!((health.status, health.text().trim()), (503, "draining"));
    assert_eq!(get(server.admin, "/livez").status, 200);
    assert_eq!(server.metrics().sum("fantail_draining", &[]), 1.0);
    // Whoever was sent here before the balancer noticed is served like everybody else.
    let mut late = server.socket("/echo");
    late.echo("served");
    assert_eq!(late.close().code, Some(1001));
    assert!(start.elapsed() >= Duration::from_millis(1_400), "closed before the delay was over");
    drop(late);
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--drain-delay", "60s"]);
    let socket = server.socket("/topics/chat");
    server.terminate();
    eventually("the drain begins", PATIENCE, || get(server.admin, "/readyz").status == 503);
    let start = Instant::now();
    server.terminate();
    let status = server.wait();
    figure("ended by a second SIGTERM", start.elapsed(), Duration::from_millis(100));
    assert_eq!(status.code(), Some(1), "a drain that was cut short is no success");
    drop(socket);
}

#[test]
fn after_a_kill_the_port_is_bound_again_at_once() {
    let mut server = Server::start(&[]);
    let address = server.address;
    let sockets: Vec<_> = (0..50).map(|_| server.socket("/topics/chat")).collect();
    server.kill();
    server.wait();
    let start = Instant::now();
    let again = Launch::new(&[]).only(&[address]).start();
    figure("started again on the same port after SIGKILL", start.elapsed(), Duration::from_millis(500));
    assert_eq!(again.address, address);
    drop(sockets);
    again.echo_ok();
}

/// Where Debian's package `faketime` keeps the library.
fn faketime_library() -> String {
    format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH)
}

/// The day and time of a `Date` header.
fn date(server: &Server) -> String {
    get(server.address, "/healthz").header("Date").expect("every answer has a date").to_string()
}

#[test]
fn a_clock_that_jumps_fires_no_timer_early() {
    if !has_tool(&faketime_library()) {
        return;
    }
    // The library shifts what the process reads from the wall clock by what the file says, and leaves the monotonic clock alone.
    let directory = tempfile::tempdir().expect("a directory");
    let shift = directory.path().join("shift");
    fs::write(&shift, "+0").expect("a file");
    let server = Launch::new(&["--head-timeout", "3s", "--idle-timeout", "20s", "--ping-interval", "20s"])
        .environment("LD_PRELOAD", &faketime_library())
        .environment("FAKETIME_TIMESTAMP_FILE", shift.to_str().expect("UTF-8"))
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    let mut sockets = [server.socket("/echo"), server.socket("/topics/chat")];
    let mut idle = server.connect();
    assert_eq!(idle.get("/healthz").status, 200);
    for jump in ["+3600", "-3600"] {
        let before = date(&server);
        let (mut begun, start) = (server.connect(), Instant::now());
        begun.send("GET /healthz HTTP/1.1\r\n");
        fs::write(&shift, jump).expect("a file");
        // The jump is real: the wall clock the server shows has moved by an hour or two.
        eventually("the Date header jumps", PATIENCE, || date(&server)[..19] != before[..19]);
        assert!(begun.is_silent(Duration::from_secs(1)), "the deadline of a head came early");
        begun.rest(PATIENCE);
        assert!(start.elapsed() >= Duration::from_secs(3), "the deadline of a head came early: {:?}", start.elapsed());
        figure("a head cut at its deadline of 3 s in spite of the jump", start.elapsed(), Duration::from_millis(3_500));
    }
    sockets[0].echo("still here");
    assert_eq!(ask(server.address, post("/topics/chat", "", "still here")).status, 200);
    assert_eq!(sockets[1].message(), "still here", "no ping came early");
    assert_eq!(idle.get("/healthz").status, 200, "the idle connection is still there");
    sockets.into_iter().for_each(Socket::leave);
    drop(idle);
    server.assert_well();
}
