//! HTTP requests that are broken, ambiguous, endless or meant for something else: what a proxy could smuggle is refused (RFC 9112 section 11.2).

use std::time::{Duration, Instant};

use support::figure;
use support::http::{ask, post, refused};
use support::server::Server;

/// A request that a body would carry in; its answer must never come.
const SMUGGLED: &str = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";

fn posted(headers: &str, body: &str) -> String {
    format!("POST /topics/chat HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n{body}")
}

#[test]
fn other_protocols_on_the_port_are_refused_and_logged_sparsely() {
    const EACH: usize = 50;
    let server = Server::start(&[]);
    let lines_before = server.log().lines().count();
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and what follows".to_vec();
    let http2_preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00".to_vec();
    let noise = (0..400_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // A preface is a request of a version that is not spoken, which has its own status (RFC 9110 section 15.6.6).
    for (bytes, status) in [(tls_hello, "400"), (http2_preface, "505"), (noise, "400")] {
        for _ in 0..EACH {
            let mut connection = server.connect();
            let start = Instant::now();
            connection.send(&bytes);
            let (answer, _) = connection.rest(support::PATIENCE);
            assert!(answer.starts_with(format!("HTTP/1.1 {status} ").as_bytes()), "{}", answer.escape_ascii());
            if start.elapsed() > Duration::from_millis(100) {
                figure("foreign bytes refused", start.elapsed(), Duration::from_millis(100));
            }
        }
    }
    let lines = server.log().lines().count() - lines_before;
    println!("figure: {} refusals made {lines} lines of log", EACH * 3);
    assert!(lines <= 10, "the log can be flooded: {lines} lines\n{}", server.log());
    server.assert_well();
}

#[test]
fn strange_targets_are_not_found_and_never_logged_raw() {
    let server = Server::start(&["--log-level", "debug"]);
    for target in [
        "*",
        "//",
        "//topics/chat",
        "/topics/%00",
        "/topics/a%0Ab",
        "/topics/../metrics",
        "/../../etc/passwd",
        "/topics/..",
        "/topics/%2e%2e",
        "/topics/a%2Fb",
        "/topics/",
        "/topics/a//b",
        "/nowhere",
        "/nowhere?%1b[31m",
        "chat",
        "ftp://127.0.0.1/topics/chat",
    ] {
        let response = ask(server.address, format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        assert!(matches!(response.status, 400 | 404), "{target}: {response:?}");
        response.problem(response.status);
    }
    // RFC 9112 section 3.2.2: a server must accept the absolute form of what it serves.
    let absolute = ask(server.address, format!("GET http://{}/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", server.address));
    assert_eq!(absolute.status, 200, "{absolute:?}");
    refused(server.address, "GET /\x1b[31mred HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").problem(400);
    ask(server.address, "GET /red HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: \x7f\r\n\r\n").problem(400);
    server.assert_well();
    let log = server.log();
    assert!(log.chars().all(|character| character == '\n' || !character.is_control()), "{log:?}");
}

#[test]
fn an_ambiguous_length_is_refused_and_nothing_is_smuggled() {
    let server = Server::start(&[]);
    for headers in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 1e3\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: chunked, identity\r\n",
    ] {
        let response = refused(server.address, posted(headers, &format!("0\r\n\r\n{SMUGGLED}")));
        assert!(matches!(response.status, 400 | 501), "{headers:?}: {response:?}");
        response.problem(response.status);
    }
    for coding in ["xchunked", "gzip", "gzip, chunked", "identity"] {
        let response = refused(server.address, posted(&format!("Transfer-Encoding: {coding}\r\n"), SMUGGLED));
        assert!(matches!(response.status, 400 | 501), "{coding}: {response:?}");
    }
    refused(server.address, posted("Transfer-Encoding: xchunked\r\n", SMUGGLED)).problem(501);
    let old = posted("Transfer-Encoding: chunked\r\n", "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
    refused(server.address, old).problem(400);
    server.assert_well();
}

#[test]
fn a_length_above_every_limit_is_too_large() {
    let server = Server::start(&[]);
    for length in ["65537", "18446744073709551615"] {
        refused(server.address, posted(&format!("Content-Length: {length}\r\n"), "")).problem(413);
    }
    server.assert_well();
}

#[test]
fn a_head_out_of_grammar_is_refused() {
    let server = Server::start(&[]);
    let good = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: b\r\n\r\n";
    for (from, to) in [
        ("X-A: b", "X-A: b\r\n folded"),
        ("X-A: b", "X-A: b\r\n\tfolded"),
        ("X-A: b", "X-A : b"),
        ("X-A: b", "X-A: b\0"),
        ("X-A: b", "X\0A: b"),
        ("X-A: b", "X-A: b\rc"),
        ("X-A: b", "X\x01A: b"),
        ("X-A: b", "X(A): b"),
        ("X-A: b", ": b"),
        ("X-A: b", "no colon"),
        ("X-A: b", " X-A: b"),
        ("X-A: b\r\n", "X-A: b\n"),
        ("1.1\r\nHost", "1.1\nHost"),
        ("\r\n\r\n", "\n\n"),
        ("GET /", "GET  /"),
        ("GET /", "G(T /"),
        ("GET /", "GET\t/"),
        ("healthz HTTP/1.1", "healthz"),
        ("healthz HTTP/1.1", "healthz HTTP/1.1 "),
        ("HTTP/1.1", "HTTP/1.2x"),
        ("HTTP/1.1", "http/1.1"),
    ] {
        assert!(good.contains(from));
        let response = refused(server.address, good.replacen(from, to, 1) + SMUGGLED);
        assert_eq!(response.status, 400, "{from:?} -> {to:?}: {response:?}");
    }
    server.assert_well();
}

#[test]
fn chunks_out_of_grammar_or_bounds_are_refused() {
    let server = Server::start(&[]);
    for body in [
        "ffffffffffffffff\r\nx",
        "fffffffffffffffff\r\nx",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello!0\r\n\r\n",
        "5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
        "10001\r\n",
    ] {
        let response = refused(server.address, posted("Transfer-Encoding: chunked\r\n", body));
        assert!(matches!(response.status, 400 | 413), "{body:?}: {response:?}");
    }
    let long_extension = format!("5;{}", "x".repeat(1 << 20));
    let million = "1\r\nx\r\n".repeat(1_000_000);
    let long_trailer = format!("1\r\nx\r\n0\r\nX: {}", "x".repeat(1 << 20));
    for body in [long_extension, million, long_trailer] {
        let mut connection = server.connect();
        connection.try_send(posted("Transfer-Encoding: chunked\r\n", &body));
        let response = connection.response();
        assert!(matches!(response.status, 400 | 413 | 431), "{:?}: {response:?}", &body[..20]);
    }
    server.assert_well();
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let server = Server::start(&["--max-message-size", "1KiB"]);
    refused(server.address, posted("Content-Length: 1025\r\n", "")).problem(413);
    refused(server.address, posted("Content-Length: 1025\r\nExpect: 100-continue\r\n", "")).problem(413);
    refused(server.address, post("/topics/chat", "", vec![b'x'; 60_000])).problem(413);
    assert_eq!(ask(server.address, post("/topics/chat", "", vec![b'x'; 1024])).status, 200);
    server.assert_well();
}

#[test]
fn a_body_that_may_come_is_asked_for() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.send(posted("Content-Length: 5\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(connection.response().status, 100);
    connection.send("hello");
    assert_eq!(connection.response().status, 200);
    drop(connection);
    server.assert_well();
}

#[test]
fn what_does_not_arrive_in_time_is_told_so() {
    let server = Server::start(&["--head-timeout", "1s", "--message-timeout", "1s"]);
    for begun in ["GET /healthz HTTP/1.1\r\nHost: ".to_string(), posted("Content-Length: 50\r\n", "x")] {
        let mut connection = server.connect();
        let start = Instant::now();
        connection.send(&begun);
        // A byte now and then does not move the deadline.
        while connection.is_silent(Duration::from_millis(100)) && start.elapsed() < support::PATIENCE {
            connection.try_send("x");
        }
        let cut = start.elapsed();
        connection.response().problem(408);
        connection.rest(support::PATIENCE);
        assert!(cut >= Duration::from_secs(1), "cut before the deadline: {cut:?}");
        figure("a request that drips was cut", cut, Duration::from_secs(2));
    }
    server.assert_well();
}

#[test]
fn an_idle_connection_is_closed_in_silence() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    let mut connection = server.connect();
    assert_eq!(connection.get("/healthz").status, 200);
    let idle = connection.expect_end();
    assert!(idle >= Duration::from_millis(900), "{idle:?}");
    figure("an idle connection closed", idle, Duration::from_secs(2));
    server.assert_well();
}
