//! What lets a script of an allowed page read our answers (WHATWG Fetch section 3.2, CORS).
//!
//! Who may speak is decided by [`crate::auth`]; this only tells browsers. Problems carry the same headers as other answers,
//! because a script that cannot read why it was refused can only guess.

use crate::http1::{Head, Method, Response};

/// What a browser is told along with every answer to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// The origin that may read the answer.
    origin: Option<String>,
    preflight: bool,
}

/// What a script may read beyond the headers that Fetch lets it read anyway.
const EXPOSED: &str =
    "Fantail-Client-Key, Fantail-Connection, Fantail-Member, Fantail-Recovered, Idempotency-Replayed, Retry-After, TTL";
/// What a script may send.
const ALLOWED: &str = "Content-Type, Authorization, Idempotency-Key, Last-Event-ID, Prefer, TTL";
/// A day; browsers cap it at two hours or less, and a preflight costs a whole round trip.
const MAX_AGE_SECONDS: &str = "86400";

impl Cors {
    /// For a request whose `origin`, if it has one, may speak to us.
    pub(super) fn new(head: &Head<'_>, origin: Option<&str>) -> Self {
        Self { origin: origin.map(str::to_owned), preflight: is_preflight(head) }
    }

    /// Adds the headers to an answer. `Vary` goes on each, since an answer kept for one origin would be useless to another.
    #[must_use]
    pub fn apply(&self, response: Response) -> Response {
        let response = response.header("Vary", "Origin");
        let Some(origin) = &self.origin else { return response };
        let response = response.header("Access-Control-Allow-Origin", origin.as_str());
        if self.preflight { response } else { response.header("Access-Control-Expose-Headers", EXPOSED) }
    }
}

/// A browser asking whether a script may send what it is about to send.
pub(super) fn is_preflight(head: &Head<'_>) -> bool {
    head.method == Method::Options && head.values("Access-Control-Request-Method").next().is_some()
}

/// The answer to OPTIONS: the methods a resource has, and for a preflight from an allowed page what it may send.
pub(super) fn options(head: &Head<'_>, allow: &'static str) -> Response {
    let response = Response::new(204).header("Allow", allow);
    if !is_preflight(head) {
        return response;
    }
    response
        .header("Access-Control-Allow-Methods", allow)
        .header("Access-Control-Allow-Headers", ALLOWED)
        .header("Access-Control-Max-Age", MAX_AGE_SECONDS)
}

#[cfg(test)]
mod tests {
    use crate::routes::testing::Ask;

    #[test]
    fn a_preflight_from_an_allowed_page_learns_what_it_may_send() {
        let answer = Ask::new("OPTIONS", "/topics/chat")
            .header("Origin", "http://localhost:3000")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", "content-type")
            .answer();
        assert_eq!(
            (answer.status, answer.headers),
            (
                204,
                vec![
                    ("Allow", "GET, HEAD, POST, DELETE, OPTIONS".into()),
                    ("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE, OPTIONS".into()),
                    (
                        "Access-Control-Allow-Headers",
                        "Content-Type, Authorization, Idempotency-Key, Last-Event-ID, Prefer, TTL".into()
                    ),
                    ("Access-Control-Max-Age", "86400".into()),
                    ("Vary", "Origin".into()),
                    ("Access-Control-Allow-Origin", "http://localhost:3000".into()),
                ]
            )
        );
    }

    #[test]
    fn a_preflight_from_another_page_is_refused_and_told_nothing() {
        let answer = Ask::new("OPTIONS", "/topics/chat")
            .header("Origin", "https://evil.example")
            .header("Access-Control-Request-Method", "POST")
            .answer();
        assert_eq!(answer.status, 403);
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("Access-Control")));
    }

    #[test]
    fn answers_and_problems_can_be_read_by_an_allowed_page() {
        for (method, target, status) in [("GET", "/healthz", 200), ("GET", "/nowhere", 404), ("DELETE", "/topics/chat", 403)] {
            let answer = Ask::new(method, target).header("Origin", "http://127.0.0.1:8080").answer();
            assert_eq!(answer.status, status, "{method} {target}");
            for expected in [
                ("Vary", "Origin"),
                ("Access-Control-Allow-Origin", "http://127.0.0.1:8080"),
                (
                    "Access-Control-Expose-Headers",
                    "Fantail-Client-Key, Fantail-Connection, Fantail-Member, Fantail-Recovered, Idempotency-Replayed, Retry-After, TTL",
                ),
            ] {
                assert!(answer.headers.contains(&(expected.0, expected.1.into())), "{method} {target} {expected:?}");
            }
        }
    }

    #[test]
    fn without_an_allowed_origin_only_caches_are_told() {
        for origin in [None, Some("https://evil.example")] {
            let ask = Ask::new("GET", "/healthz");
            let answer = origin.into_iter().fold(ask, |ask, origin| ask.header("Origin", origin)).answer();
            let told: Vec<_> = answer.headers.iter().filter(|(name, _)| *name == "Vary" || name.starts_with("Access")).collect();
            assert_eq!(told, [&("Vary", "Origin".to_owned())]);
        }
    }
}
