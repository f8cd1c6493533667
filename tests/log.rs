//! The log when nobody takes it: service goes on, and what was lost is counted.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::time::{Duration, Instant};

use support::server::{Launch, Server};
use support::socket::Socket;
use support::wire::Connection;
use support::{PATIENCE, eventually, figure, percentile, scaled};

const DROPPED: &str = "fantail_log_lines_dropped_total";

/// Has the server write a line for each of so many connections; meanwhile a client is answered as ever.
fn provoke_lines(server: &Server, connections: usize) -> Vec<Duration> {
    let mut echo = server.socket("/echo");
    let mut waits = Vec::new();
    for number in 0..connections {
        Connection::open(server.address).reset();
        if number % 20 == 0 {
            let start = Instant::now();
            echo.echo("still here");
            waits.push(start.elapsed());
        }
    }
    waits
}

fn dropped(server: &Server) -> f64 {
    server.metrics().sum(DROPPED, &[])
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_no_time() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let mut server = Launch::new(&["--log-level", "debug"]).log_to(writer).start();
    assert_eq!(dropped(&server), 0.0);
    // A pipe holds some 700 lines, and the server's queue 4,096.
    let mut waits = provoke_lines(&server, scaled(8_000, 100_000));
    figure("p99 of an echo while the log's reader stalls", percentile(&mut waits, 0.99), Duration::from_millis(20));
    eventually("lost lines are counted", PATIENCE, || dropped(&server) > 0.0);
    println!("figure: {} lines were lost", dropped(&server));
    server.assert_well();

    // Once it reads again it is told how many.
    let began = Instant::now();
    server.terminate();
    let mut log = Vec::new();
    let reading = std::thread::spawn(move || reader.read_to_end(&mut log).map(|_| String::from_utf8(log).expect("UTF-8")));
    assert!(server.wait().success());
    figure("ended with a log that was not read", began.elapsed(), Duration::from_secs(2));
    let log = reading.join().expect("it ends").expect("the pipe is read");
    assert!(
        log.contains("log lines were dropped because stderr was not taken lines="),
        "{}",
        &log[log.len().saturating_sub(500)..]
    );
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let full = || -> File { OpenOptions::new().write(true).open("/dev/full").expect("Linux has a device that is always full") };
    let mut server = Launch::new(&["--log-level", "debug"]).log_to(full()).start();
    let mut waits = provoke_lines(&server, scaled(500, 20_000));
    figure("p99 of an echo while the log's disk is full", percentile(&mut waits, 0.99), Duration::from_millis(20));
    eventually("lost lines are counted", PATIENCE, || dropped(&server) >= 500.0);
    println!("figure: {} lines were lost", dropped(&server));
    let mut socket = Socket::open(server.address, "/topics/chat");
    assert_eq!(server.connect().post("/topics/chat", "hello").status, 200);
    assert_eq!(socket.message(), "hello");
    drop(socket);
    server.assert_well();
    server.terminate();
    assert!(server.wait().success());
}
