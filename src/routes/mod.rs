//! What a URL means: from the head of a request to what the worker has to do.
//!
//! ```text
//! head, where it came from ─ origin ─ grant ─ resource ─ method ─> Action, and the CORS headers of its answer
//! ```
//!
//! 1. A page of a foreign origin is refused before anything else that it could make happen: upgrade, POST, DELETE, preflight.
//! 2. The path below the base path names a resource, the method what is wanted of it.
//! 3. What can be answered at once is ([`Action::Respond`]); for the rest the worker asks hub or engine, and comes back to
//!    [`published`], [`deleted`], [`information`] or [`refusals`] for the answer's words.
//!
//! Pure functions: no socket, no clock, no state. Time and memory are linear in the head, which is bounded by its parser.

mod admin;
mod batch;
mod command;
mod cors;
mod kind;
mod options;
mod page;
mod polls;
mod presence;
mod query;
mod question;
pub mod refusals;
mod streams;
mod subjects;
mod subscribe;
mod terms;
#[cfg(test)]
mod testing;
mod topics;
mod well_known;

use std::borrow::Cow;

use serde::Serialize;

pub use admin::{AdminAction, live, metrics, ready, route_admin};
pub use batch::{batch_published, read_batch};
pub use command::{Command, command, open};
pub use cors::Cors;
pub use options::{Limits, Options, Retry, Timeouts};
pub use polls::polled;
pub use presence::{Client, heard, present, read_bye};
pub use question::Subprotocol;
pub use streams::{come_back, stream_of};
pub use subscribe::{Attach, OnGap, StreamKind, Subscribe};
pub use topics::{deleted, information, kept_for, published};

use crate::auth::{self, Asker};
use crate::engine::Terms;
use crate::frame::{Kind, Topic};
use crate::http1::{Body, Head, Method, Response};
use crate::hub::presence::ClientKey;
use crate::metrics::Handler;
use crate::ws::{self, Handshake};
use question::{Question, Resource};

/// A request, and what only its connection knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The head.
    pub head: &'r Head<'r>,
    /// The peer's address is in 127.0.0.0/8 or is `::1` (or that IPv4 address mapped into IPv6).
    pub peer_is_loopback: bool,
    /// The listener is bound to such an address.
    pub listener_is_loopback: bool,
    /// How far the process is on its way out.
    pub drain: Drain,
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drain {
    /// It is not.
    #[default]
    No,
    /// During `--drain-delay`: `/healthz` says so, so that balancers look elsewhere, and everything else goes on.
    Announced,
    /// New sockets and publications are refused.
    Refusing,
}

/// What the worker has to do for a request.
#[derive(Debug)]
pub enum Action {
    /// Send this answer. The request's body, if there is one, is discarded first.
    Respond(Response),
    /// Collect the body and publish it; [`published`] answers.
    Publish {
        /// Where to.
        topic: Topic,
        /// What the body is said to be; the worker checks it with [`crate::frame::Payload::new`].
        kind: Kind,
        /// What its publisher asks for beside.
        terms: Option<Box<Terms>>,
    },
    /// Collect the body and publish what [`read_batch`] finds in it; [`batch_published`] answers.
    PublishBatch,
    /// Make the connection a WebSocket or an event stream, once its subscriptions are in force.
    Subscribe(Box<Subscribe>),
    /// Make the connection a WebSocket that sends back what it gets.
    Echo(Box<ws::Accepted<Subprotocol>>),
    /// Ask the topic's home worker to delete what is kept; [`deleted`] answers.
    Delete {
        /// Of which topic.
        topic: Topic,
    },
    /// Ask the topic's home worker who is there; [`present`] answers.
    Presence {
        /// In which topic.
        topic: Topic,
    },
    /// Have the client of this key leave all its topics; without it, the body is the key, for [`read_bye`]. [`heard`] answers.
    Bye {
        /// The key that the URL has.
        key: Option<ClientKey>,
    },
    /// Ask the topic's home worker; [`information`] answers.
    Information {
        /// About which topic.
        topic: Topic,
        /// Where the client found us, for the lines to try.
        base_url: String,
    },
}

/// What a request means.
#[derive(Debug)]
pub struct Routed {
    /// What to do.
    pub action: Action,
    /// The resource, as requests are counted.
    pub handler: Handler,
    /// To be applied to every answer to this request: the one above, one of this module's, or a problem found later.
    pub cors: Cors,
    /// It asks for an event stream: what would be 503 is [`come_back`].
    pub wants_events: bool,
    /// Who subscribes, where presence may matter.
    pub client: Option<Box<Client>>,
}

/// Decides what a request means.
#[must_use]
pub fn route(request: &Request<'_>, options: &Options) -> Routed {
    let head = request.head;
    let origin = origin(head);
    let asker = Asker {
        peer_is_loopback: request.peer_is_loopback,
        listener_is_loopback: request.listener_is_loopback,
        host: head.host,
        origin: origin.as_deref(),
        proxied: head.headers.iter().any(|header| auth::names_proxy(header.name)),
    };
    let handshake = Handshake::of(head);
    let question = Question {
        head,
        options,
        handshake,
        intent: handshake.intent(head.method),
        grant: options.allow_anonymous.grant(auth::is_local(&asker)),
        listener_is_loopback: request.listener_is_loopback,
        drain: request.drain,
        wants_events: head.method == Method::Get && streams::wants_events(head),
    };
    let allowed = auth::origin_allowed(&asker, &options.allow_origin);
    let resource = question.resource();
    let handler = resource.as_ref().map_or(Handler::Other, Resource::handler);
    let action = match origin.as_deref().filter(|_| !allowed && question.acts()) {
        Some(foreign) => Err(refusals::origin_refused(foreign)),
        None => resource.and_then(|resource| question.action(resource)),
    };
    let action = action.and_then(|action| match &action {
        Action::Subscribe(subscribe) => presence::client(&question, subscribe).map(|client| (action, client)),
        _ => Ok((action, None)),
    });
    let (action, client) = action.unwrap_or_else(|refusal| (Action::Respond(question.refused(refusal)), None));
    let cors = Cors::new(head, origin.as_deref().filter(|_| allowed));
    Routed { action, handler, cors, wants_events: question.wants_events, client }
}

/// The Origin header. Several lines are one list (RFC 9110 section 5.3), which is no origin, and neither are foreign bytes; but
/// none of these may pass for absent.
fn origin<'h>(head: &Head<'h>) -> Option<Cow<'h, str>> {
    let mut lines = head.values("Origin").map(String::from_utf8_lossy);
    let first = lines.next()?;
    Some(lines.fold(first, |list, line| list + ", " + line))
}

/// 200 with a JSON body.
fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("names and numbers always make JSON");
    Response::new(200).header("Content-Type", "application/json").body(Body::Owned(body))
}

#[cfg(test)]
mod tests {
    use super::testing::{Ask, header};
    use super::*;

    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PATCH"];
    /// What is no answer yet, in the tables below.
    const ASKS_ON: u16 = 0;

    fn status(ask: &Ask) -> u16 {
        match ask.action() {
            Action::Respond(response) => response.status,
            _ => ASKS_ON,
        }
    }

    #[test]
    fn every_path_has_its_methods() {
        for (target, expected) in [
            ("/topics/chat", [ASKS_ON, ASKS_ON, ASKS_ON, 403, 204, 405]),
            ("/topics?topic=chat", [ASKS_ON, ASKS_ON, 415, 405, 204, 405]),
            ("/topics", [400, 400, 415, 405, 204, 405]),
            ("/echo", [426, 426, 405, 405, 204, 405]),
            ("/healthz", [200, 200, 405, 405, 204, 405]),
            ("/.well-known/fantail", [200, 200, 405, 405, 204, 405]),
            ("/", [200, 200, 405, 405, 204, 405]),
            ("/chat.html", [200, 200, 405, 405, 204, 405]),
            ("/cometd", [404; 6]),
            ("/bye", [405, 405, ASKS_ON, 405, 204, 405]),
            ("/nowhere", [404; 6]),
            ("*", [405, 405, 405, 405, 204, 405]),
        ] {
            for (method, expected) in METHODS.into_iter().zip(expected) {
                let ask = Ask::new(method, target);
                assert_eq!(status(&ask), expected, "{method} {target}");
                if matches!(expected, 204 | 405) {
                    assert!(header(&ask.answer(), "Allow").is_some(), "{method} {target}");
                }
            }
        }
    }

    #[test]
    fn strange_targets_are_not_found() {
        for target in [
            "//",
            "//topics/chat",
            "/topicsx",
            "/../topics/chat",
            "/%74opics/chat",
            "/healthz/",
            "/%00",
            "/Topics/chat",
            "/\u{1b}",
        ] {
            let answer = Ask::new("GET", target).answer();
            assert_eq!(answer.status, 404, "{target}");
            let body = std::str::from_utf8(answer.body.as_bytes()).unwrap();
            assert!(body.contains("/topics/NAME") && !body.contains('\u{1b}'), "{body}");
        }
    }

    #[test]
    fn pages_and_echo_are_for_this_machine_or_by_flag() {
        for target in ["/", "/chat.html"] {
            assert_eq!(Ask::new("GET", target).remote().problem_type(), (404, "not-found".into()));
            assert_eq!(status(&Ask::new("GET", target).remote().options(|options| options.page = true)), 200);
        }
        assert_eq!(status(&Ask::new("GET", "/echo").remote().upgrade()), 404);
        let allowed = Ask::new("GET", "/echo").remote().upgrade().options(|options| options.echo = true);
        assert!(matches!(allowed.action(), Action::Echo(_)));
        assert!(matches!(Ask::new("GET", "/echo").upgrade().action(), Action::Echo(_)));
    }

    #[test]
    fn everything_lives_below_the_base_path() {
        for base in ["/push", "/push/"] {
            let ask = |target| Ask::new("GET", target).options(|options| options.base_path = base.into());
            for target in ["/push/", "/push/healthz", "/push/chat.html", "/push/.well-known/fantail"] {
                assert_eq!(status(&ask(target)), 200, "{target}");
            }
            for target in ["/", "/healthz", "/topics/chat", "/pushy", "/push/push/", "/pus"] {
                assert_eq!(status(&ask(target)), 404, "{target}");
            }
            let moved = ask("/push").answer();
            assert_eq!((moved.status, header(&moved, "Location")), (308, Some("/push/")));
            let Action::Information { topic, base_url } = ask("/push/topics/chat").action() else { panic!() };
            assert_eq!((topic.as_str(), base_url.as_str()), ("chat", "http://127.0.0.1:8080/push"));
        }
    }

    #[test]
    fn a_foreign_page_can_make_nothing_happen() {
        for origin in ["https://evil.example", "null", "", "http://127.0.0.1:8080.evil.example", "\u{e9}"] {
            for ask in [
                Ask::new("POST", "/topics/chat"),
                Ask::new("POST", "/topics"),
                Ask::new("POST", "/nowhere"),
                Ask::new("DELETE", "/topics/chat"),
                Ask::new("GET", "/topics/chat").upgrade(),
                Ask::new("GET", "/echo").upgrade(),
                Ask::new("GET", "/nowhere").upgrade(),
                Ask::new("OPTIONS", "/topics/chat").header("Access-Control-Request-Method", "POST"),
            ] {
                assert_eq!(ask.header("Origin", origin).problem_type(), (403, "origin-refused".into()), "{origin}");
            }
            assert_eq!(status(&Ask::new("GET", "/topics/chat").header("Origin", origin)), ASKS_ON, "{origin}");
        }
    }

    #[test]
    fn two_origins_are_none() {
        let twice = Ask::new("POST", "/topics/chat").header("Origin", "http://localhost").header("Origin", "http://localhost");
        assert_eq!(twice.problem_type(), (403, "origin-refused".into()));
    }

    #[test]
    fn a_listed_origin_may_connect_and_read() {
        let list = |options: &mut Options| options.allow_origin = vec!["https://*.example.com".parse().unwrap()];
        let ask = || Ask::new("GET", "/topics/chat").remote().upgrade().options(list);
        assert!(matches!(ask().header("Origin", "https://app.example.com").action(), Action::Subscribe(_)));
        assert_eq!(status(&ask().header("Origin", "https://example.com")), 403);
        assert!(matches!(ask().action(), Action::Subscribe(_)));
    }

    #[test]
    fn publishing_needs_every_sign_of_this_machine() {
        assert_eq!(status(&Ask::new("POST", "/topics/chat")), ASKS_ON);
        for (name, value) in [
            ("Host", "push.example.com"),
            ("Forwarded", "for=192.0.2.1"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("X-Real-IP", "192.0.2.1"),
            ("Via", "1.1 proxy"),
        ] {
            let ask = Ask::new("POST", "/topics/chat").header(name, value);
            assert_eq!(ask.problem_type(), (403, "forbidden".into()), "{name}");
        }
        assert_eq!(Ask::new("POST", "/topics/chat").remote().problem_type(), (403, "forbidden".into()));
    }

    #[test]
    fn allow_anonymous_holds_for_every_way_in() {
        for (value, publishes, subscribes) in
            [("none", false, false), ("subscribe", false, true), ("publish", true, false), ("all", true, true)]
        {
            let allow = |ask: Ask| ask.options(|options| options.allow_anonymous = value.parse().unwrap());
            let post = allow(Ask::new("POST", "/topics/chat").remote());
            assert_eq!(status(&post), if publishes { ASKS_ON } else { 403 }, "{value}");
            for ask in [Ask::new("GET", "/topics/chat"), Ask::new("GET", "/topics/chat").upgrade()] {
                let ask = allow(ask);
                assert_eq!(status(&ask), if subscribes { ASKS_ON } else { 403 }, "{value}");
            }
        }
    }

    #[test]
    fn deleting_needs_the_flag_and_the_right_to_publish() {
        let delete =
            |allow: &str| Ask::new("DELETE", "/topics/chat").options(|options| options.allow_anonymous = allow.parse().unwrap());
        let flagged = |ask: Ask| ask.options(|options| options.allow_delete = true);
        for (allow, here, elsewhere) in [
            ("local", true, false),
            ("none", false, false),
            ("subscribe", false, false),
            ("publish", true, true),
            ("all", true, true),
        ] {
            assert_eq!(delete(allow).problem_type(), (403, "forbidden".into()), "{allow}: also on this machine");
            for (ask, expected) in [(delete(allow), here), (delete(allow).remote(), elsewhere)] {
                assert_eq!(status(&flagged(ask)), if expected { ASKS_ON } else { 403 }, "{allow}");
            }
        }
        let Action::Delete { topic } = flagged(Ask::new("DELETE", "/topics/a/b")).action() else { panic!() };
        assert_eq!(topic.as_str(), "a/b");
        assert_eq!(flagged(Ask::new("DELETE", "/topics/a//b")).problem_type(), (400, "bad-topic".into()));
        assert_eq!(flagged(Ask::new("DELETE", "/topics/a")).drain(Drain::Refusing).problem_type(), (503, "draining".into()));
        assert_eq!(status(&flagged(Ask::new("DELETE", "/topics"))), 405);
    }

    #[test]
    fn a_refused_upgrade_closes() {
        for (ask, expected) in [
            (Ask::new("POST", "/topics/chat").upgrade(), 405),
            (Ask::new("HEAD", "/topics/chat").upgrade(), 405),
            (Ask::new("POST", "/topics?topic=chat").upgrade(), 405),
            (Ask::new("POST", "/echo").upgrade(), 405),
            (Ask::new("GET", "/topics/chat").upgrade().content_length(Some(1)), 400),
            (Ask::new("GET", "/topics/chat").upgrade().content_length(None), 400),
            (Ask::new("GET", "/echo").header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"), 400),
            (Ask::new("GET", "/echo").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), 426),
            (Ask::new("GET", "/nowhere").upgrade(), 404),
        ] {
            let answer = ask.answer();
            assert_eq!((answer.status, answer.close), (expected, true));
        }
        assert_eq!(status(&Ask::new("GET", "/topics/chat").header("Upgrade", "h2c")), ASKS_ON);
    }

    #[test]
    fn draining_is_announced_before_anything_is_refused() {
        let asks = || {
            let batch = Ask::new("POST", "/topics").header("Content-Type", "application/json");
            let upgrades = ["/topics/chat", "/echo"].map(|target| Ask::new("GET", target).upgrade());
            [Ask::new("POST", "/topics/chat"), batch].into_iter().chain(upgrades)
        };
        for (drain, health, refused) in [(Drain::No, 200, false), (Drain::Announced, 503, false), (Drain::Refusing, 503, true)] {
            assert_eq!(status(&Ask::new("GET", "/healthz").drain(drain)), health);
            for ask in asks() {
                assert_eq!(status(&ask.drain(drain)), if refused { 503 } else { ASKS_ON });
            }
        }
        let told = Ask::new("GET", "/healthz").drain(Drain::Announced).answer();
        assert_eq!(told.body.as_bytes(), b"draining");
    }
}
