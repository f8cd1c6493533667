//! Signs of life: pings to idle connections alone, any byte counts, silence ends.

use std::time::{Duration, Instant};

use support::server::Server;
use support::socket::{PING, PONG, frame};
use support::{PATIENCE, figure};

#[test]
fn an_idle_connection_is_pinged_and_stays_while_it_answers() {
    let server = Server::start(&["--ping-interval", "500ms", "--pong-timeout", "500ms"]);
    let mut socket = server.socket("/topics/quiet");
    let start = Instant::now();
    for _ in 0..3 {
        let ping = socket.frame();
        assert_eq!(ping.first, PING, "{ping:?}");
        socket.send(frame(PONG, &ping.payload));
    }
    figure("three pings of an idle connection", start.elapsed(), Duration::from_millis(1_500));
    assert!(start.elapsed() >= Duration::from_millis(600), "pings come too often: {:?}", start.elapsed());
    drop(socket);
    server.assert_well();
}

#[test]
fn silence_after_a_ping_ends_the_connection() {
    let server = Server::start(&["--ping-interval", "500ms", "--pong-timeout", "500ms"]);
    let mut socket = server.socket("/topics/quiet");
    let start = Instant::now();
    assert_eq!(socket.frame().first, PING);
    socket.wire.rest(PATIENCE);
    assert!(start.elapsed() >= Duration::from_millis(700), "cut too early: {:?}", start.elapsed());
    figure("a silent connection given up", start.elapsed(), Duration::from_millis(1_100));
    server.expect_metric("fantail_connections_closed_total", &[("cause", "no_pong")], 1.0);
    server.assert_well();
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let server = Server::start(&["--ping-interval", "1s", "--pong-timeout", "1s"]);
    let mut socket = server.socket("/echo");
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        // Had a ping come, it would stand before the echo.
        socket.echo("busy");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(socket);
    server.assert_well();
}
