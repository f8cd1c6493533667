//! The admin listener: for probes and Prometheus, never for clients.
//!
//! The answers need the state of every worker, so only the question is decided here.

use super::{cors, refusals};
use crate::http1::{Body, Head, Method, Response};
use crate::metrics;

/// What a request to the admin listener asks for.
#[derive(Debug)]
pub enum AdminAction {
    /// The answer is already known.
    Respond(Response),
    /// `/livez`: whether every worker still turns.
    Live,
    /// `/readyz`: whether clients should be sent here.
    Ready,
    /// `/metrics`: the text exposition format.
    Metrics,
}

/// Decides what a request to the admin listener asks for.
#[must_use]
pub fn route_admin(head: &Head<'_>) -> AdminAction {
    const ALLOW: &str = "GET, HEAD, OPTIONS";
    let action = match head.path {
        "/livez" => AdminAction::Live,
        "/readyz" => AdminAction::Ready,
        "/metrics" => AdminAction::Metrics,
        path => return AdminAction::Respond(refusals::not_found(path, "/livez, /readyz and /metrics")),
    };
    match head.method {
        Method::Get | Method::Head => action,
        Method::Options => AdminAction::Respond(cors::options(head, ALLOW)),
        Method::Post | Method::Delete | Method::Other => AdminAction::Respond(refusals::method_not_allowed(ALLOW)),
    }
}

/// `/livez`: 200, or 503 that names a worker which has made no turn for too long.
#[must_use]
pub fn live(stuck_worker: Option<usize>) -> Response {
    match stuck_worker {
        None => text(200, "ok".into()),
        Some(worker) => text(503, format!("worker {worker} makes no turns")),
    }
}

/// `/readyz`: 200, or 503 while the server is stopping.
#[must_use]
pub fn ready(is_ready: bool) -> Response {
    if is_ready { text(200, "ok".into()) } else { text(503, "draining".into()) }
}

/// `/metrics`.
#[must_use]
pub fn metrics(page: String) -> Response {
    Response::new(200).header("Content-Type", metrics::CONTENT_TYPE).body(Body::Owned(page.into_bytes()))
}

fn text(status: u16, text: String) -> Response {
    let response = Response::new(status).header("Content-Type", "text/plain; charset=utf-8").header("Cache-Control", "no-store");
    response.body(Body::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, header};

    fn route(method: &'static str, path: &'static str) -> AdminAction {
        Ask::new(method, path).with_head(route_admin)
    }

    #[test]
    fn three_questions_are_known() {
        for method in ["GET", "HEAD"] {
            assert!(matches!(route(method, "/livez"), AdminAction::Live));
            assert!(matches!(route(method, "/readyz"), AdminAction::Ready));
            assert!(matches!(route(method, "/metrics"), AdminAction::Metrics));
        }
    }

    #[test]
    fn everything_else_is_answered_here() {
        for (method, path, status) in [
            ("OPTIONS", "/metrics", 204),
            ("POST", "/livez", 405),
            ("DELETE", "/readyz", 405),
            ("TRACE", "/metrics", 405),
            ("GET", "/", 404),
            ("GET", "/livez/", 404),
            ("OPTIONS", "*", 404),
        ] {
            let AdminAction::Respond(answer) = route(method, path) else { panic!("{method} {path}") };
            assert_eq!(answer.status, status, "{method} {path}");
            assert_eq!(header(&answer, "Allow").is_some(), status != 404, "{method} {path}");
        }
    }
}
