//! What a request on a `fantail.v1` socket means: the same questions that are asked of a URL, asked of a message.

use serde::Serialize;

use super::options::{Options, Retry};
use super::refusals;
use crate::auth::Grant;
use crate::frame::{Pattern, Payload, Since, Topic, TopicError};
use crate::http1::Response;
use crate::hub::Subject;
use crate::hub::presence::{ClientKey, Member};
use crate::v1::{Open, What};

/// What the worker has to do for a request.
#[derive(Debug)]
pub enum Command {
    /// Have the socket get the publications of a topic, or of a pattern's.
    Subscribe {
        /// Which.
        to: Subject,
        /// From where on.
        since: Since,
    },
    /// Have it get them no longer.
    Unsubscribe {
        /// Which.
        from: Subject,
    },
    /// Publish.
    Publish {
        /// Where to.
        topic: Topic,
        /// What.
        payload: Payload,
    },
    /// Tell who is there.
    Presence {
        /// In which topic.
        topic: Topic,
        /// Whether to tell what changes from now on; `None` to leave that as it is.
        watch: Option<bool>,
    },
    /// Answer.
    Ping,
}

/// Decides what a request means, for a socket that may do what `grant` says. A server that drains begins nothing new.
///
/// # Errors
/// The refusal, whose body is the problem that goes into an `error` object.
pub fn command(what: What<'_>, grant: Grant, is_draining: bool) -> Result<Command, Response> {
    match what {
        What::Subscribe { .. } | What::Publish { .. } if is_draining => Err(refusals::draining()),
        What::Subscribe { .. } if !grant.subscribe => Err(refusals::forbidden("subscribe")),
        What::Publish { .. } if !grant.publish => Err(refusals::forbidden("publish")),
        What::Subscribe { topic, since } => match (subject(&topic)?, since) {
            (Subject::Pattern(_), _) if !grant.patterns => Err(refusals::forbidden("subscribe to patterns")),
            (Subject::Pattern(_), Since::After(_)) => Err(refusals::cursor_of_pattern()),
            (to, since) => Ok(Command::Subscribe { to, since }),
        },
        What::Unsubscribe { topic } => Ok(Command::Unsubscribe { from: subject(&topic)? }),
        What::Publish { topic, payload } => {
            let topic = Topic::new(&topic).map_err(|error| refusals::topic_error(&topic, error))?;
            Ok(Command::Publish { topic, payload })
        }
        What::Ping => Ok(Command::Ping),
        What::Auth => {
            Err(refusals::request_not_yet("credentials", "Leave it out; what a socket may do is --allow-anonymous's word."))
        }
        What::Presence { .. } if is_draining => Err(refusals::draining()),
        What::Presence { .. } if !grant.subscribe => Err(refusals::forbidden("ask who is there")),
        What::Presence { topic, watch } => {
            let topic = Topic::new(&topic).map_err(|error| match error {
                TopicError::Wildcard => refusals::presence_not_here("A pattern"),
                error => refusals::topic_error(&topic, error),
            })?;
            Ok(Command::Presence { topic, watch })
        }
    }
}

/// What a request names: a name that holds a wildcard is a pattern's.
fn subject(name: &str) -> Result<Subject, Response> {
    match Topic::new(name) {
        Ok(topic) => Ok(Subject::Topic(topic)),
        Err(TopicError::Wildcard) => {
            Pattern::parse(name).map(Subject::Pattern).map_err(|error| refusals::pattern_error(name, error))
        }
        Err(error) => Err(refusals::topic_error(name, error)),
    }
}

/// What `open` tells: the same names as in `/.well-known/fantail`.
#[derive(Serialize)]
struct Told<'o> {
    ping_ms: u64,
    pong_timeout_ms: u64,
    message_timeout_ms: u64,
    max_message_bytes: usize,
    max_subscriptions: usize,
    max_unconfirmed: u8,
    retry: &'o Retry,
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<Member>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<Box<str>>,
}

/// The first message to the client of this name, with the key it is to come back with and the id it is known by where presence may
/// matter. `unconfirmed_max` of its requests may wait for a home worker at a time.
pub fn open(client: &str, identity: Option<(&ClientKey, Member)>, options: &Options, unconfirmed_max: u8) -> impl Serialize {
    let Options { timeouts, limits, retry, subscriptions_max, .. } = options;
    let told = Told {
        ping_ms: timeouts.ping_ms,
        pong_timeout_ms: timeouts.pong_timeout_ms,
        message_timeout_ms: timeouts.message_timeout_ms,
        max_message_bytes: limits.max_message_bytes,
        max_subscriptions: *subscriptions_max,
        max_unconfirmed: unconfirmed_max,
        retry,
        member: identity.map(|(_, member)| member),
        client_key: identity.map(|(key, _)| key.as_str().into()),
    };
    Open::new(client, told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::routes::testing::problem_type;

    const ALL: Grant = Grant { subscribe: true, patterns: true, publish: true };

    fn subscribe(topic: &str) -> What<'_> {
        What::Subscribe { topic: topic.into(), since: Since::Earliest }
    }

    fn behind_cursor(topic: &str) -> What<'_> {
        What::Subscribe { topic: topic.into(), since: "k3Vq.7".parse().unwrap() }
    }

    fn publish(topic: &str) -> What<'_> {
        What::Publish { topic: topic.into(), payload: Payload::new(Kind::Text, b"x").unwrap() }
    }

    fn presence(topic: &str) -> What<'_> {
        What::Presence { topic: topic.into(), watch: Some(true) }
    }

    fn refused(what: What<'_>, grant: Grant, is_draining: bool) -> (u16, String) {
        let refusal = command(what, grant, is_draining).unwrap_err();
        (refusal.status, problem_type(&refusal))
    }

    #[test]
    fn the_first_message_tells_what_a_client_may_rely_on() {
        let told = serde_json::to_string(&open("0-13", None, &Options::default(), 16)).unwrap();
        assert_eq!(
            told,
            concat!(
                r#"{"type":"open","client":"0-13","ping_ms":25000,"pong_timeout_ms":10000,"message_timeout_ms":30000,"#,
                r#""max_message_bytes":65536,"max_subscriptions":128,"max_unconfirmed":16,"#,
                r#""retry":{"min_ms":500,"max_ms":20000,"jitter":"full"}}"#
            )
        );
        let key = ClientKey::new("0123456789abcdef").unwrap();
        let told = serde_json::to_string(&open("0-13", Some((&key, key.member())), &Options::default(), 16)).unwrap();
        let identity = format!(r#","member":"{}","client_key":"0123456789abcdef"}}"#, key.member());
        assert!(told.ends_with(&identity), "{told}");
    }

    #[test]
    fn what_may_be_done_is_done() {
        let command = |what| command(what, ALL, false).unwrap();
        assert!(
            matches!(command(subscribe("a/b")), Command::Subscribe { to: Subject::Topic(topic), since: Since::Earliest } if topic.as_str() == "a/b")
        );
        assert!(
            matches!(command(subscribe("a/*")), Command::Subscribe { to: Subject::Pattern(pattern), since: Since::Earliest } if pattern.as_str() == "a/*")
        );
        assert!(
            matches!(command(What::Unsubscribe { topic: "a".into() }), Command::Unsubscribe { from: Subject::Topic(topic) } if topic.as_str() == "a")
        );
        assert!(matches!(command(What::Unsubscribe { topic: "**".into() }), Command::Unsubscribe { from: Subject::Pattern(_) }));
        assert!(matches!(command(publish("a%2Fb")), Command::Publish { topic, .. } if topic.as_str() == "a%2Fb"));
        assert!(matches!(command(presence("a")), Command::Presence { topic, watch: Some(true) } if topic.as_str() == "a"));
        assert!(matches!(command(What::Ping), Command::Ping));
    }

    #[test]
    fn what_may_not_is_refused() {
        let may = |subscribe, publish| Grant { subscribe, patterns: subscribe, publish };
        for (what, grant, is_draining, expected) in [
            (subscribe("a"), ALL, true, (503, "draining")),
            (publish("a"), ALL, true, (503, "draining")),
            (subscribe("a"), may(false, true), false, (403, "forbidden")),
            (publish("a"), may(true, false), false, (403, "forbidden")),
            (subscribe("a//b"), ALL, false, (400, "bad-topic")),
            (subscribe("a/*/b"), ALL, false, (400, "bad-pattern")),
            (subscribe("a/*"), Grant { patterns: false, ..ALL }, false, (403, "forbidden")),
            (behind_cursor("a/*"), ALL, false, (400, "cursor-of-one-topic")),
            (What::Unsubscribe { topic: "a*".into() }, ALL, false, (400, "bad-pattern")),
            (publish("a/*"), ALL, false, (400, "bad-topic")),
            (publish("meta/x"), ALL, false, (403, "reserved-topic")),
            (What::Auth, ALL, false, (400, "not-in-this-version")),
            (presence("a"), ALL, true, (503, "draining")),
            (presence("a"), may(false, true), false, (403, "forbidden")),
            (presence("a/*"), ALL, false, (400, "presence-not-here")),
            (presence("a//b"), ALL, false, (400, "bad-topic")),
        ] {
            let told = format!("{what:?}");
            assert_eq!(refused(what, grant, is_draining), (expected.0, expected.1.into()), "{told}");
        }
        assert!(command(What::Unsubscribe { topic: "a".into() }, may(false, false), true).is_ok());
        assert!(command(What::Ping, may(false, false), true).is_ok());
    }
}
