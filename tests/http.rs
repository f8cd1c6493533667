//! HTTP/1.1 as browsers and programs speak it: keep-alive, pipelining, HEAD, OPTIONS, CORS, caching, problem bodies.

use support::http::{Response, ask, get, post};
use support::server::Server;
use support::wire::Connection;

fn request(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n")
}

fn list_has(response: &Response, header: &str, wanted: &str) -> bool {
    response.header(header).is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(wanted)))
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    for number in 1..=5 {
        assert_eq!(connection.get("/healthz").text().trim(), "ok");
        let published = connection.post("/topics/chat", format!("{number}")).json();
        assert_eq!(published["topic"], "chat");
        assert_eq!(connection.get("/nowhere").problem(404)["status"], 404, "a refusal that read all keeps the connection");
    }
    connection.send(request("GET", "/healthz", "Connection: close\r\n"));
    let last = connection.response();
    assert_eq!(last.header("Connection"), Some("close"));
    connection.expect_end();
    server.assert_well();
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let mut requests = Vec::new();
    for number in 0..20 {
        requests.extend(post("/topics/line", "", format!("message {number}")));
        requests.extend(request("GET", if number % 2 == 0 { "/healthz" } else { "/nowhere" }, "").into_bytes());
    }
    connection.send(&requests);
    let mut last_offset = 0;
    for number in 0..20 {
        let offset = connection.response().json()["offset"].as_u64().expect("a number");
        assert!(offset > last_offset, "{offset} after {last_offset}");
        last_offset = offset;
        assert_eq!(connection.response().status, if number % 2 == 0 { 200 } else { 404 });
    }
    drop(connection);
    server.assert_well();
}

#[test]
fn an_old_client_gets_one_answer_and_the_end() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.send("GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    connection.expect_end();
    server.assert_well();
}

#[test]
fn bodies_come_by_length_or_in_chunks_and_mean_the_same() {
    let server = Server::start(&[]);
    let mut subscriber = server.socket("/topics/chunks");
    let mut connection = server.connect();
    let chunked = request("POST", "/topics/chunks", "Transfer-Encoding: chunked\r\n");
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n004;name=value\r\nello\r\n0\r\nX-Trailer: x\r\n\r\n",
        "A\r\n0123456789\r\n0\r\n\r\n",
    ] {
        connection.send(format!("{chunked}{body}"));
        assert_eq!(connection.response().status, 200, "{body:?}");
    }
    connection.send_bytewise(format!("{chunked}3\r\nend\r\n0\r\n\r\n"));
    assert_eq!(connection.response().status, 200);
    assert_eq!(subscriber.messages_until("end"), ["hello", "hello", "0123456789"]);
    drop((subscriber, connection));
    server.assert_well();
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start(&[]);
    for target in ["/", "/healthz", "/.well-known/fantail", "/nowhere"] {
        let whole = get(server.address, target);
        let mut connection = server.connect();
        connection.send(request("HEAD", target, ""));
        let head = connection.response_head();
        assert_eq!(head.status, whole.status, "{target}");
        assert_eq!(head.header("Content-Length"), whole.header("Content-Length"), "{target}");
        assert_eq!(head.header("Content-Type"), whole.header("Content-Type"), "{target}");
        // Had a body come, it would stand before the next answer.
        assert_eq!(connection.get("/healthz").status, 200);
    }
    server.assert_well();
}

#[test]
fn options_tell_the_methods_and_others_are_refused_with_them() {
    let server = Server::start(&[]);
    for (target, method) in [("/topics/chat", "POST"), ("/topics/chat", "GET"), ("/healthz", "GET"), ("/healthz", "HEAD")] {
        let options = ask(server.address, request("OPTIONS", target, ""));
        assert!(matches!(options.status, 200 | 204), "{options:?}");
        assert!(list_has(&options, "Allow", method), "{target} {method}: {options:?}");
    }
    assert!(matches!(ask(server.address, request("OPTIONS", "*", "")).status, 200 | 204));
    let refused = ask(server.address, post("/healthz", "", ""));
    refused.problem(405);
    assert!(list_has(&refused, "Allow", "GET"), "RFC 9110 section 15.5.6: {refused:?}");
    assert!(matches!(ask(server.address, request("BREW", "/topics/pot", "")).status, 405 | 501));
    server.assert_well();
}

#[test]
fn a_preflight_of_an_allowed_origin_is_granted_and_of_another_is_not() {
    let server = Server::start(&["--allow-origin", "https://good.example"]);
    let preflight = |origin: &str| {
        let lines = format!(
            "Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n"
        );
        ask(server.address, request("OPTIONS", "/topics/chat", &lines))
    };
    let granted = preflight("https://good.example");
    assert!(matches!(granted.status, 200 | 204), "{granted:?}");
    assert_eq!(granted.header("Access-Control-Allow-Origin"), Some("https://good.example"));
    assert!(list_has(&granted, "Access-Control-Allow-Methods", "POST"), "{granted:?}");
    for header in ["Content-Type", "Authorization", "Idempotency-Key", "Last-Event-ID"] {
        assert!(list_has(&granted, "Access-Control-Allow-Headers", header), "{granted:?}");
    }
    let seconds: u64 = granted.header("Access-Control-Max-Age").and_then(|value| value.parse().ok()).unwrap_or(0);
    assert!(seconds > 0, "{granted:?}");
    assert!(list_has(&granted, "Vary", "Origin"), "a cache must not mix origins: {granted:?}");
    assert_eq!(preflight("https://evil.example").header("Access-Control-Allow-Origin"), None);

    let published = ask(server.address, post("/topics/chat", "Origin: https://good.example\r\n", "hi"));
    assert_eq!(published.header("Access-Control-Allow-Origin"), Some("https://good.example"));
    assert!(list_has(&published, "Access-Control-Expose-Headers", "Fantail-Connection"), "{published:?}");
    server.assert_well();
}

#[test]
fn pages_are_cached_by_tag() {
    let server = Server::start(&[]);
    let page = get(server.address, "/");
    assert_eq!(page.status, 200);
    assert!(page.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    let tag = page.header("ETag").expect("a page has a tag").to_string();
    assert!(tag.ends_with('"'), "{tag}");
    for tags in [tag.clone(), format!("\"other\", {tag}"), "*".into()] {
        let same = ask(server.address, request("GET", "/", &format!("If-None-Match: {tags}\r\n")));
        assert_eq!((same.status, same.header("ETag")), (304, Some(tag.as_str())), "{tags}");
    }
    assert_eq!(ask(server.address, request("GET", "/", "If-None-Match: \"other\"\r\n")).status, 200);
    server.assert_well();
}

#[test]
fn every_answer_has_a_date() {
    let server = Server::start(&[]);
    for target in ["/healthz", "/nowhere", "/"] {
        let response = get(server.address, target);
        let date = response.header("Date").unwrap_or_else(|| panic!("no Date: {response:?}"));
        // RFC 9110 section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
        assert!(date.len() == 29 && date.ends_with(" GMT") && &date[3..5] == ", ", "{date}");
    }
}

#[test]
fn a_refusal_names_the_rule_and_the_fix() {
    let server = Server::start(&[]);
    let problem = ask(server.address, post("/topics/chat", "", vec![b'x'; 70_112])).problem(413);
    assert_eq!(problem["type"], "urn:fantail:problem:message-too-large");
    assert_eq!(problem["limit_bytes"], 65536);
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("70112") && detail.contains("65536"), "{detail}");
    assert!(problem["fix"].as_str().is_some_and(|fix| fix.contains("--max-message-size")), "{problem}");
    let broken = post("/topics/chat", "Content-Type: application/json\r\n", "{\"a\":}");
    ask(server.address, broken).problem(400);
    ask(server.address, post("/topics/chat", "Content-Type: text/plain\r\n", b"\xFF")).problem(400);
    ask(server.address, post("/topics/chat", "Content-Encoding: gzip\r\n", "zip")).problem(415);
    server.assert_well();
}

#[test]
fn time_outs_and_limits_are_told() {
    let server = Server::start(&["--ping-interval", "7s", "--max-message-size", "32KiB"]);
    let told = get(server.address, "/.well-known/fantail");
    assert_eq!(told.header("Content-Type"), Some("application/json"));
    let text = told.json().to_string();
    assert!(text.contains("32768") && (text.contains("7000") || text.contains(":7")), "{text}");
}

#[test]
fn every_listener_serves_and_the_admin_listener_serves_itself_alone() {
    let server = support::server::Launch::new(&[]).listen("[::1]:0").start();
    assert_eq!(server.addresses.len(), 2);
    for address in &server.addresses {
        assert_eq!(get(*address, "/healthz").status, 200);
        support::socket::Socket::open(*address, "/echo").echo("each family");
        get(*address, "/metrics").problem(404);
    }
    assert_eq!(Connection::open(server.admin).get("/livez").status, 200);
    assert_eq!(get(server.admin, "/topics/chat").status, 404);
    server.assert_well();
}
