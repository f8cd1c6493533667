//! Requests as the tests of this module write them, without a parser.

use super::{Action, Drain, Options, Request, Routed, route};
use crate::http1::{Head, Method, Response};

/// A request to be made: by default from this machine, HTTP/1.1, without a body.
pub(super) struct Ask {
    method: Method,
    target: String,
    headers: Vec<(String, String)>,
    host: String,
    content_length: Option<u64>,
    peer_is_loopback: bool,
    listener_is_loopback: bool,
    drain: Drain,
    options: Options,
}

impl Ask {
    pub(super) fn new(method: &str, target: impl Into<String>) -> Self {
        let method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        };
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            host: "127.0.0.1:8080".into(),
            content_length: Some(0),
            peer_is_loopback: true,
            listener_is_loopback: true,
            drain: Drain::No,
            options: Options::default(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        if name == "Host" {
            self.host = value.into();
        } else {
            self.headers.push((name.into(), value.into()));
        }
        self
    }

    /// The handshake of RFC 6455 section 1.3.
    pub(super) fn upgrade(self) -> Self {
        self.header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("Sec-WebSocket-Version", "13")
    }

    /// From another machine, to a public listener.
    pub(super) fn remote(mut self) -> Self {
        (self.peer_is_loopback, self.listener_is_loopback) = (false, false);
        self.host = "push.example.com".into();
        self
    }

    pub(super) fn content_length(mut self, content_length: Option<u64>) -> Self {
        self.content_length = content_length;
        self
    }

    pub(super) fn drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    pub(super) fn options(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    pub(super) fn with_head<T>(&self, act: impl FnOnce(&Head<'_>) -> T) -> T {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let lines: Vec<_> = self.headers.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        act(&Head {
            method: self.method,
            path,
            query,
            http11: true,
            host: Some(&self.host),
            keep_alive: true,
            expects_continue: false,
            content_length: self.content_length,
            headers: &lines,
        })
    }

    pub(super) fn route(&self) -> Routed {
        self.with_head(|head| {
            let Self { peer_is_loopback, listener_is_loopback, drain, .. } = *self;
            route(&Request { head, peer_is_loopback, listener_is_loopback, drain }, &self.options)
        })
    }

    pub(super) fn action(&self) -> Action {
        self.route().action
    }

    /// The answer that needs nobody else, with its CORS headers.
    pub(super) fn answer(&self) -> Response {
        match self.route() {
            Routed { action: Action::Respond(response), cors, .. } => cors.apply(response),
            _ => panic!("{:?} {} is not answered at once", self.method, self.target),
        }
    }

    /// The status and the last part of the problem's type.
    pub(super) fn problem_type(&self) -> (u16, String) {
        let answer = self.answer();
        (answer.status, problem_type(&answer))
    }
}

/// The value of a header of an answer.
pub(super) fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

/// The problem that an answer carries.
pub(super) fn problem(response: &Response) -> serde_json::Value {
    assert_eq!(header(response, "Content-Type"), Some("application/problem+json"));
    serde_json::from_slice(response.body.as_bytes()).unwrap()
}

/// The last part of the problem's type.
pub(super) fn problem_type(response: &Response) -> String {
    problem(response)["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}
