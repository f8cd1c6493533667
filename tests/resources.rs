//! What happens when something runs out: descriptors, allowed connections, time, readers, names.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};
use support::http::{ask, get, post};
use support::server::Server;
use support::socket::{BINARY, Socket, frame, handshake};
use support::wire::Connection;
use support::{PATIENCE, eventually, figure, percentile, scaled};

#[test]
fn when_descriptors_run_out_the_listener_pauses_and_those_inside_are_served() {
    let mut server = Server::start(&[]);
    let mut inside = server.socket("/echo");
    // The limit falls on the running process: what it computed at its start does not protect it.
    let limit = prlimit(Some(server.pid()), Resource::Nofile, Rlimit { current: Some(256), maximum: Some(256) });
    limit.expect("the limit of a child may be lowered");
    let waiting: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    let (cpu, start) = (server.cpu_time(), Instant::now());
    for number in 0..10 {
        inside.echo(&format!("inside {number}"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = (server.cpu_time() - cpu).as_secs_f64() / start.elapsed().as_secs_f64();
    println!("figure: CPU while descriptors are out: {:.1} % (limit 5 %, test fails beyond 50 %)", used * 100.0);
    assert!(used < 0.5, "the server spins on a listener that it cannot serve: {:.0} %", used * 100.0);
    assert!(server.is_running());
    drop(waiting);
    let start = Instant::now();
    server.socket("/echo").echo("accepted again");
    figure("accepting resumed", start.elapsed(), Duration::from_secs(1));
    drop(inside);
    server.assert_well();
}

#[test]
fn more_connections_than_allowed_are_told_when_to_return() {
    let server = Server::start(&["--max-connections", "5"]);
    let rejected = || server.metrics().sum("fantail_connections_rejected_total", &[]);
    let before = rejected();
    let mut inside: Vec<_> = (0..5).map(|_| server.socket("/echo")).collect();
    for request in ["GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), handshake("/echo", "")] {
        let refusal = ask(server.address, request);
        refusal.problem(503);
        let seconds: u32 = refusal.header("Retry-After").and_then(|value| value.parse().ok()).expect("seconds");
        assert!(seconds >= 1, "{refusal:?}");
    }
    assert_eq!(rejected(), before + 2.0);
    inside.pop();
    eventually("a place that was left is free", PATIENCE, || get(server.address, "/healthz").status == 200);
    for socket in &mut inside {
        socket.echo("undisturbed");
    }
    drop(inside);
    server.assert_well();
}

#[test]
fn one_address_may_not_take_every_place() {
    let server = Server::start(&["--max-connections-per-ip", "3"]);
    let inside: Vec<_> = (0..3).map(|_| server.socket("/echo")).collect();
    let refusal = get(server.address, "/healthz");
    assert_eq!(refusal.problem(503)["type"], "urn:fantail:problem:too-many-of-one-address");
    assert!(refusal.header("Retry-After").is_some(), "{refusal:?}");
    drop(inside);
    eventually("the address may return", PATIENCE, || get(server.address, "/healthz").status == 200);
    server.assert_well();
}

#[test]
fn drip_feeders_are_cut_at_the_deadline_and_disturb_nobody() {
    let each = scaled(300, 5_000);
    let deadline = Duration::from_secs(scaled(2, 10));
    let timeout = format!("{}s", deadline.as_secs());
    let server = Server::start(&["--head-timeout", &timeout, "--idle-timeout", &timeout]);
    let start = Instant::now();
    let silent: Vec<_> = (0..each).map(|_| server.connect()).collect();
    let mut drips: Vec<_> = (0..each).map(|_| server.connect()).collect();
    let opened = start.elapsed();
    let mut handshakes = Vec::new();
    while start.elapsed() < deadline * 3 / 4 {
        for drip in &mut drips {
            drip.send("G");
        }
        let begin = Instant::now();
        Socket::open(server.address, "/echo").echo("a normal client");
        handshakes.push(begin.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    figure("handshake and echo among drip feeders, p99", percentile(&mut handshakes, 0.99), Duration::from_millis(50));
    for mut connection in silent.into_iter().chain(drips) {
        connection.rest(PATIENCE * 2);
        assert!(start.elapsed() >= deadline - Duration::from_secs(1), "cut long before the deadline");
    }
    figure(
        &format!("{} drip feeders and silent ones cut", each * 2),
        start.elapsed() - opened,
        deadline + Duration::from_secs(1),
    );
    server.assert_well();
}

#[test]
fn a_reader_that_takes_a_byte_now_and_then_is_cut() {
    let server = Server::start(&["--outbox-size", "16MiB", "--write-timeout", "1s"]);
    let cause = [("cause", "stalled_write")];
    let before = server.metrics().sum("fantail_connections_closed_total", &cause);
    let mut trickle = Socket::open_narrow(server.address, "/topics/flow");
    let mut publisher = server.connect();
    for _ in 0..160 {
        assert_eq!(publisher.post("/topics/flow", vec![b'x'; 60_000]).status, 200);
    }
    let start = Instant::now();
    while server.metrics().sum("fantail_connections_closed_total", &cause) == before {
        trickle.wire.sip(1);
        assert!(start.elapsed() < Duration::from_secs(30), "a reader of single bytes holds 16 MiB for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    figure("a reader of single bytes cut", start.elapsed(), Duration::from_secs(3));
    drop((trickle, publisher));
    server.assert_well();
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    let count = scaled(6_000, 300_000);
    let server = Server::start(&[]);
    let start = Instant::now();
    for number in 0..count {
        let connection = Connection::open(server.address);
        // A third in order, a third by RST, and a third by RST before anybody can have accepted.
        match number % 3 {
            0 => drop(connection),
            1 => {
                std::thread::yield_now();
                connection.reset();
            }
            _ => connection.reset(),
        }
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("figure: {count} connections opened and ended in {:.1?}, {rate:.0} a second", start.elapsed());
    server.assert_well();
}

#[test]
fn a_connection_has_a_limited_number_of_subscriptions() {
    let server = Server::start(&["--max-subscriptions", "4"]);
    let target = |count: usize| {
        let topics: Vec<_> = (0..count).map(|number| format!("topic=t{number}")).collect();
        format!("/topics?envelope&{}", topics.join("&"))
    };
    drop(server.socket(&target(4)));
    let refusal = ask(server.address, handshake(&target(5), ""));
    assert!(refusal.problem(400).to_string().contains("--max-subscriptions"), "{refusal:?}");
    let huge = ask(server.address, handshake(&target(1_500), ""));
    assert!(matches!(huge.status, 400 | 414 | 431), "{huge:?}");
    server.assert_well();
}

#[test]
fn topics_are_limited_in_number_and_those_that_live_go_on() {
    let server = Server::start(&["--max-topics", "1000"]);
    let mut connection = server.connect();
    let (mut refused, mut accepted) = (0, 0);
    for number in 0..3_000 {
        match connection.post(&format!("/topics/many/{number}"), "x") {
            response if response.status == 200 => accepted += 1,
            response => {
                assert!(response.problem(response.status).to_string().contains("--max-topics"), "{response:?}");
                refused += 1;
            }
        }
    }
    println!("figure: of 3,000 topics {accepted} were made, {refused} refused");
    // The table may be cut into shares of the workers.
    assert!((500..=1_000).contains(&accepted), "{accepted} topics under a limit of 1,000");
    // Known topics go on.
    assert_eq!(connection.post("/topics/many/0", "x").status, 200);
    drop(connection);
    server.assert_well();
}

#[test]
fn long_names_and_patterns_in_the_wrong_place_are_refused() {
    let server = Server::start(&[]);
    assert_eq!(ask(server.address, post(&format!("/topics/{}", "n".repeat(255)), "", "x")).status, 200);
    for name in ["n".repeat(256), "%41".repeat(256), "a/**/**".into(), "a/*/b".into(), "*".into(), "a/**".into()] {
        ask(server.address, post(&format!("/topics/{name}"), "", "x")).problem(400);
        ask(server.address, handshake(&format!("/topics/{name}"), "")).problem(400);
        assert_eq!(
            name == "*" || name == "a/**",
            ask(server.address, handshake(&format!("/topics/{name}?envelope"), "")).status == 101
        );
    }
    let endless = ask(server.address, handshake(&format!("/topics/{}", "n".repeat(15_000)), ""));
    assert!(matches!(endless.status, 400 | 414 | 431), "{endless:?}");
    let beyond = ask(server.address, handshake(&format!("/topics/{}", "n".repeat(64 << 10)), ""));
    assert!(matches!(beyond.status, 414 | 431), "{beyond:?}");
    server.assert_well();
}

#[test]
fn large_messages_give_their_memory_back() {
    let server = Server::start(&["--max-message-size", "8MiB", "--outbox-size", "17MiB", "--history-bytes", "8MiB"]);
    for _ in 0..3 {
        let mut sockets: Vec<_> = (0..8).map(|_| server.socket("/echo")).collect();
        for socket in &mut sockets {
            let message = vec![1; 8 << 20];
            let mut writer = socket.wire.writer();
            let bytes = frame(BINARY, &message);
            let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
            socket.expect(BINARY, message);
            sender.join().expect("the writer ends").expect("the server takes the message");
        }
    }
    server.assert_well();
}
