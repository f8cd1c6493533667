//! The admin listener: probes and metrics.

use std::io::Write;
use std::process::{Command, Stdio};

use support::http::{ask, get, post};
use support::server::{Server, has_tool};
use support::socket::{CLOSE, FIN, Forged, TEXT, close_payload, frame};
use support::{PATIENCE, eventually};

#[test]
fn probes_say_yes_while_all_is_well() {
    let server = Server::start(&[]);
    for probe in ["/livez", "/readyz"] {
        assert_eq!(get(server.admin, probe).status, 200);
    }
    get(server.admin, "/nowhere").problem(404);
    ask(server.admin, post("/metrics", "", "")).problem(405);
    get(server.address, "/livez").problem(404);
}

#[test]
fn prometheus_accepts_the_metrics() {
    if !has_tool("promtool") {
        return;
    }
    let server = Server::start(&[]);
    let _subscriber = server.socket("/topics/chat");
    assert_eq!(ask(server.address, post("/topics/chat", "", "hi")).status, 200);
    let page = get(server.admin, "/metrics");
    assert!(page.header("Content-Type").is_some_and(|kind| kind.starts_with("text/plain; version=0.0.4")), "{page:?}");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("promtool starts");
    child.stdin.take().expect("stdin is piped").write_all(&page.body).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", page.text());
    assert_eq!(said.trim(), "", "promtool's advice on names is taken");
}

#[test]
fn every_documented_metric_is_there() {
    let server = Server::start(&[]);
    let metrics = server.metrics();
    for name in [
        "build_info",
        "connections",
        "connections_accepted_total",
        "connections_rejected_total",
        "connections_closed_total",
        "subscriptions",
        "topics",
        "messages_published_total",
        "messages_sent_total",
        "messages_dropped_total",
        "received_bytes_total",
        "sent_bytes_total",
        "fanout_duration_seconds_count",
        "outbox_bytes",
        "worker_busy_ratio",
        "worker_turn_seconds_count",
        "mailbox_full_total",
        "memory_bytes",
        "draining",
        "drain_remaining_connections",
        "listen_overflows_total",
        "log_lines_dropped_total",
        "http_requests_total",
    ] {
        assert!(metrics.has(&format!("fantail_{name}")), "fantail_{name} is missing");
    }
    for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_cpu_seconds_total"] {
        assert!(metrics.has(name), "{name} is missing");
    }
    // A test run can set the driver for all servers.
    if let Ok(io) = std::env::var("FANTAIL_IO") {
        assert_eq!(metrics.sum("fantail_build_info", &[("io", &io)]), 1.0);
    }
}

#[test]
fn connections_and_messages_are_counted() {
    let server = Server::start(&[]);
    let mut scraper = server.scraper();
    let before = scraper.metrics();
    let sockets: Vec<_> = (0..3).map(|_| server.socket("/topics/a")).collect();
    let several = server.socket("/topics?topic=a&topic=b&envelope");
    scraper.expect_metric("fantail_connections", &[("transport", "websocket")], 4.0);
    scraper.expect_metric("fantail_subscriptions", &[], 5.0);
    scraper.expect_metric("fantail_topics", &[], 2.0);
    let mut publisher = server.connect();
    assert_eq!(publisher.post("/topics/a", "hi").status, 200);
    let mut rises = |name: &str, labels: &[(&str, &str)], by: f64| {
        scraper.expect_metric(name, labels, before.sum(name, labels) + by);
    };
    rises("fantail_messages_published_total", &[("source", "post")], 1.0);
    rises("fantail_messages_sent_total", &[("transport", "websocket")], 4.0);
    sockets.into_iter().for_each(support::socket::Socket::leave);
    several.leave();
    rises("fantail_connections_closed_total", &[("cause", "client_close")], 4.0);
    let fanouts = "fantail_fanout_duration_seconds_count";
    eventually("the fan-out is timed", PATIENCE, || scraper.metrics().sum(fanouts, &[]) > before.sum(fanouts, &[]));
    scraper.expect_metric("fantail_connections", &[("transport", "websocket")], 0.0);
    scraper.expect_metric("fantail_subscriptions", &[], 0.0);
}

#[test]
fn why_a_connection_ended_is_counted_by_cause() {
    let server = Server::start(&["--max-message-size", "1KiB"]);
    let mut scraper = server.scraper();
    let mut ends = |cause: &str, bytes: &[u8]| {
        let labels = [("cause", cause)];
        let before = scraper.metrics().sum("fantail_connections_closed_total", &labels);
        let mut socket = server.socket("/echo");
        socket.send(bytes);
        socket.wire.rest(PATIENCE);
        scraper.expect_metric("fantail_connections_closed_total", &labels, before + 1.0);
    };
    ends("client_close", &frame(CLOSE, close_payload(1000, "")));
    ends("left_page", &frame(CLOSE, close_payload(1001, "")));
    ends("protocol_error", &frame(FIN | 3, ""));
    ends("bad_utf8", &frame(TEXT, b"\xFF"));
    ends("too_big", &Forged::new(TEXT, "").declared(1025).bytes());

    let before = server.metrics().sum("fantail_connections_closed_total", &[("cause", "reset")]);
    server.socket("/echo").wire.reset();
    server.expect_metric("fantail_connections_closed_total", &[("cause", "reset")], before + 1.0);
    drop(scraper);
    server.assert_well();
}

#[test]
fn requests_are_counted_by_handler_and_code_and_no_client_invents_a_label() {
    let server = Server::start(&[]);
    let labels = [("code", "404")];
    let before = server.metrics().sum("fantail_http_requests_total", &labels);
    for number in 0..20 {
        get(server.address, &format!("/invented/{number}")).problem(404);
    }
    let method = ask(server.address, "INVENTED / HTTP/1.1\r\nHost: invented\r\nUser-Agent: invented\r\n\r\n");
    assert!(method.status >= 400, "{method:?}");
    assert_eq!(get(server.address, "/topics/invented").status, 200);
    server.expect_metric("fantail_http_requests_total", &labels, before + 20.0);
    assert!(!get(server.admin, "/metrics").text().to_lowercase().contains("invented"));
}
