//! The opening handshake (RFC 6455 section 4) and who may open (Origin).

use std::time::{Duration, Instant};

use support::figure;
use support::http::{Response, ask, post, refused};
use support::server::Server;
use support::socket::{Socket, TEXT, frame, handshake};

const KEY_LINE: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION_LINE: &str = "Sec-WebSocket-Version: 13\r\n";

/// The usual handshake with one piece replaced.
fn forged(from: &str, to: &str) -> String {
    let head = handshake("/echo", "");
    assert!(head.contains(from), "{from:?} is no part of the handshake");
    head.replacen(from, to, 1)
}

#[test]
fn a_bad_key_is_refused_by_name() {
    let server = Server::start(&[]);
    for key in [
        "",
        "Sec-WebSocket-Key: \r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSBsb25n\r\n",
        "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ==\r\n",
        &KEY_LINE.repeat(2),
    ] {
        let problem = refused(server.address, forged(KEY_LINE, key)).problem(400);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("Sec-WebSocket-Key")), "{key:?}: {problem}");
    }
    server.assert_well();
}

#[test]
fn another_version_is_told_which_one_is_spoken() {
    let server = Server::start(&[]);
    for version in ["", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 14\r\n", "Sec-WebSocket-Version: x\r\n"] {
        let response = refused(server.address, forged(VERSION_LINE, version));
        response.problem(426);
        assert_eq!(response.header("Sec-WebSocket-Version"), Some("13"));
    }
    server.assert_well();
}

#[test]
fn a_draft_handshake_is_told_which_version_is_spoken() {
    let server = Server::start(&[]);
    let hixie_76 = "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n";
    let hixie_75 = "WebSocket-Protocol: sample\r\n";
    let hybi_00 = "Sec-WebSocket-Draft: 2\r\n";
    for lines in [hixie_76, hixie_75, hybi_00] {
        let head = forged(KEY_LINE, lines).replace(VERSION_LINE, "");
        let response = refused(server.address, head);
        assert!(matches!(response.status, 400 | 426), "{response:?}");
        assert!(response.text().contains("13"), "{}", response.text());
    }
    server.assert_well();
}

#[test]
fn a_handshake_that_lost_its_upgrade_on_the_way_is_told_how_to_mend_the_proxy() {
    let server = Server::start(&[]);
    let head = forged("Upgrade: websocket\r\nConnection: Upgrade\r\n", "Connection: close\r\n");
    let response = refused(server.address, head);
    response.problem(426);
    assert!(response.text().contains("proxy_set_header Upgrade"), "{}", response.text());
    server.assert_well();
}

#[test]
fn only_a_get_of_http_1_1_upgrades() {
    let server = Server::start(&[]);
    let posted = forged("GET /echo", "POST /echo");
    assert_eq!(refused(server.address, posted).status, 405);
    assert_eq!(refused(server.address, forged("HTTP/1.1", "HTTP/1.0")).status, 400);
    server.assert_well();
}

#[test]
fn an_upgrade_to_something_else_is_ignored() {
    let server = Server::start(&[]);
    let h2c = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
               HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let response = ask(server.address, h2c);
    assert_eq!((response.status, response.text().trim()), (200, "ok"));
    server.assert_well();
}

#[test]
fn a_request_names_its_host_once() {
    let server = Server::start(&[]);
    for host in ["", "Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", "Host: a b\r\n", "Host: a\tb\r\n", "Host: a/b\r\n"] {
        refused(server.address, forged("Host: 127.0.0.1\r\n", host)).problem(400);
        refused(server.address, format!("GET /healthz HTTP/1.1\r\n{host}\r\n")).problem(400);
    }
    server.assert_well();
}

#[test]
fn the_connection_header_is_a_list_without_case() {
    let server = Server::start(&[]);
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
        ("Connection: Upgrade", "cOnNeCtIoN: uPgRaDe"),
        ("Connection: Upgrade", "Connection: ,keep-alive ,\tUpgrade ,"),
        ("Upgrade: websocket", "upgrade: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
    ] {
        Socket::upgrade(server.connect(), &forged(from, to)).echo("upgraded");
    }
    server.assert_well();
}

#[test]
fn a_head_over_the_limit_is_refused_at_once() {
    let server = Server::start(&[]);
    let many = (0..2_000).map(|number| format!("X-{number}: x\r\n")).collect::<String>();
    let protocols = format!("Sec-WebSocket-Protocol: {}\r\n", "chat, ".repeat(11_000));
    let one_long = format!("X-Long: {}\r\n", "x".repeat(17 * 1024));
    for lines in [many, protocols, one_long] {
        let start = Instant::now();
        let response = refused(server.address, handshake("/echo", &lines));
        figure("a head over the limit refused", start.elapsed(), Duration::from_millis(50));
        response.problem(431);
    }
    server.assert_well();
}

#[test]
fn the_cost_of_a_head_grows_with_its_length() {
    let server = Server::start(&["--max-head-size", "64KiB"]);
    let cost = |lines: usize| {
        let head = handshake("/echo", &"X-Some-Header: some value or other\r\n".repeat(lines));
        let before = server.cpu_time();
        for _ in 0..4 {
            let mut connection = server.connect();
            connection.send_bytewise(&head);
            assert!(matches!(connection.response_head().status, 101 | 431));
        }
        (head.len(), (server.cpu_time() - before).as_secs_f64())
    };
    let (short_bytes, short) = cost(20);
    let (long_bytes, long) = cost(80);
    println!("figure: heads byte by byte: {short_bytes} bytes cost {short:.3} s, {long_bytes} bytes {long:.3} s of CPU");
    let linear = short.max(0.05) * long_bytes as f64 / short_bytes as f64;
    assert!(long < linear * 2.0, "more than linear: {long:.3} s, {linear:.3} s expected");
    server.assert_well();
}

#[test]
fn head_and_frames_may_come_in_any_segments() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.send_bytewise(handshake("/echo", ""));
    Socket::upgraded(connection).echo("byte by byte");
    let early = frame(TEXT, "early");
    for cut in 0..=early.len() {
        let mut connection = server.connect();
        connection.send([handshake("/echo", "").as_bytes(), &early[..cut]].concat());
        let mut socket = Socket::upgraded(connection);
        socket.send(&early[cut..]);
        socket.expect(TEXT, "early");
    }
    server.assert_well();
}

#[test]
fn a_refused_handshake_closes_and_what_follows_it_is_not_read() {
    let server = Server::start(&[]);
    let smuggled = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    refused(server.address, forged(VERSION_LINE, "") + smuggled).problem(426);
    refused(server.address, forged(KEY_LINE, "") + smuggled).problem(400);
    server.assert_well();
}

#[test]
fn a_handshake_has_no_body() {
    let server = Server::start(&[]);
    for line in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        refused(server.address, handshake("/echo", line) + "5\r\nhello\r\n0\r\n\r\n").problem(400);
    }
    Socket::upgrade(server.connect(), &handshake("/echo", "Content-Length: 0\r\n")).echo("an empty body is none");
    server.assert_well();
}

#[test]
fn the_answer_tells_connection_and_time_out() {
    let server = Server::start(&["--idle-timeout", "60s"]);
    let first = server.socket("/topics/chat");
    let second = server.socket("/topics/chat");
    let id = |socket: &Socket| socket.response.header("Fantail-Connection").expect("every connection has a name").to_string();
    assert_ne!(id(&first), id(&second));
    assert!(first.response.header("Keep-Alive").is_some_and(|value| value.starts_with("timeout=")), "{:?}", first.response);
    // A subprotocol that is not spoken is not selected (RFC 6455 section 4.2.2).
    let head = handshake("/topics/chat", "Sec-WebSocket-Protocol: mqtt, soap\r\n");
    assert_eq!(Socket::upgrade(server.connect(), &head).response.header("Sec-WebSocket-Protocol"), None);
    let head = handshake("/echo", "Sec-WebSocket-Extensions: permessage-nonsense; x=1\r\n");
    Socket::upgrade(server.connect(), &head).echo("unknown extensions are declined");
}

/// Whether a handshake and a publish with this Origin are let in. A refusal must come before the 101 and name the flag.
fn allows(server: &Server, origin: &str) -> bool {
    let line = format!("Origin: {origin}\r\n");
    let published = ask(server.address, post("/topics/chat", &line, "hi"));
    let mut connection = server.connect();
    connection.send(handshake("/topics/chat", &line));
    let upgraded = connection.response_head();
    let refusal = |response: &Response| response.problem(403).to_string().contains("--allow-origin");
    match (upgraded.status, published.status) {
        (101, 200) => true,
        (403, 403) => {
            assert!(refusal(&published), "{published:?}");
            assert!(refusal(&ask(server.address, handshake("/echo", &line))));
            false
        }
        other => panic!("{origin:?}: handshake and publish disagree: {other:?}"),
    }
}

#[test]
fn by_default_the_origin_is_the_servers_own_or_local() {
    let server = Server::start(&[]);
    let port = server.address.port();
    for origin in [format!("http://127.0.0.1:{port}"), "http://localhost:3000".into(), "http://127.0.0.1".into()] {
        assert!(allows(&server, &origin), "{origin}");
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "file://"] {
        assert!(!allows(&server, origin), "{origin}");
    }
    server.assert_well();
}

#[test]
fn an_allowed_origin_is_matched_exactly() {
    let server = Server::start(&[
        "--allow-anonymous",
        "all",
        "--allow-origin",
        "https://good.example",
        "--allow-origin",
        "https://*.example.com",
    ]);
    for origin in ["https://good.example", "https://a.example.com"] {
        assert!(allows(&server, origin), "{origin}");
    }
    for origin in [
        "null",
        "http://good.example",
        "https://good.example.evil.com",
        "https://GOOD.example",
        "HTTPS://good.example",
        "https://good.example:8443",
        "https://good.example:443",
        "https://a.example.com.",
        "https://good.example.",
        "https://good.example/",
        "https://good.example@evil.com",
        "https://notgood.example",
        "https://a.example.com.evil.com",
        "https://evilexample.com",
        "https://example.com",
        "https://.example.com",
        "https://good.example https://evil.com",
        "https://good.example, https://evil.com",
    ] {
        assert!(!allows(&server, origin), "{origin}");
    }
    // Two Origin headers match nothing, whatever they say.
    let twice = "Origin: https://good.example\r\n".repeat(2);
    assert!(matches!(refused(server.address, handshake("/echo", &twice)).status, 400 | 403));
    server.assert_well();
}
