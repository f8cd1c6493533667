//! Who may do what, before any credential: the `local` rule, `--allow-anonymous`, `--allow-origin`.
//!
//! Two questions are asked of a request, in this order:
//!
//! 1. **May the page it comes from speak to us?** ([`origin_allowed`]) A browser lets any page on the web open a WebSocket to
//!    any server, so the server must look at `Origin` itself (RFC 6455 section 10.2).
//! 2. **May whoever sends it do this?** ([`AllowAnonymous::grant`]) By default a program on the same machine may do everything
//!    and everybody else may only listen, so that a first try needs no set-up and a forgotten one is not an open relay.
//!
//! Everything here is a function of a few texts ([`Asker`]): no header parser, no socket, no clock.

mod local;
mod origin;

use crate::words::words;

pub use local::{Asker, is_local, names_proxy};
pub use origin::{Origin, OriginPattern, OriginPatternError, origin_allowed};

words! {
    /// `--allow-anonymous`: what a request without credentials may do.
    AllowAnonymous, "give local, none, subscribe, publish or all", {
        /// Everything from this machine ([`is_local`]); subscribing to topics alone, not to patterns, from elsewhere.
        Local = "local",
        /// Nothing.
        None = "none",
        /// Subscribing alone.
        Subscribe = "subscribe",
        /// Publishing alone: by POST, or on a `fantail.v1` socket without topics.
        Publish = "publish",
        /// Subscribing and publishing.
        All = "all",
    }
}

impl AllowAnonymous {
    /// What a request may do; `local` is the answer of [`is_local`], and only [`AllowAnonymous::Local`] asks for it.
    #[must_use]
    pub const fn grant(self, local: bool) -> Grant {
        match self {
            Self::Local => Grant { subscribe: true, patterns: local, publish: local },
            Self::None => Grant { subscribe: false, patterns: false, publish: false },
            Self::Subscribe => Grant { subscribe: true, patterns: true, publish: false },
            Self::Publish => Grant { subscribe: false, patterns: false, publish: true },
            Self::All => Grant { subscribe: true, patterns: true, publish: true },
        }
    }
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Get publications, and ask about a topic.
    pub subscribe: bool,
    /// Subscribe to all topics that a pattern matches, whatever their names are.
    pub patterns: bool,
    /// Have a payload numbered and handed out.
    pub publish: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_local_rule_asks_where_a_request_comes_from() {
        for (value, here, elsewhere) in [
            ("local", (true, true, true), (true, false, false)),
            ("none", (false, false, false), (false, false, false)),
            ("subscribe", (true, true, false), (true, true, false)),
            ("publish", (false, false, true), (false, false, true)),
            ("all", (true, true, true), (true, true, true)),
        ] {
            let allow: AllowAnonymous = value.parse().unwrap();
            assert_eq!(allow.name(), value);
            for (local, (subscribe, patterns, publish)) in [(true, here), (false, elsewhere)] {
                assert_eq!(allow.grant(local), Grant { subscribe, patterns, publish }, "{value}, local: {local}");
            }
        }
        assert!("Local".parse::<AllowAnonymous>().is_err());
    }
}
