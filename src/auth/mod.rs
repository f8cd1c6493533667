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

use std::str::FromStr;

pub use local::{Asker, is_local, names_proxy};
pub use origin::{Origin, OriginPattern, OriginPatternError, origin_allowed};

/// `--allow-anonymous`: what a request without credentials may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowAnonymous {
    /// Everything from this machine ([`is_local`]); subscribing alone from elsewhere.
    #[default]
    Local,
    /// Nothing.
    None,
    /// Subscribing alone.
    Subscribe,
    /// Publishing alone: a socket needs a subscription, so in effect POST.
    Publish,
    /// Subscribing and publishing.
    All,
}

impl AllowAnonymous {
    /// What a request may do; `local` is the answer of [`is_local`], and only [`AllowAnonymous::Local`] asks for it.
    #[must_use]
    pub const fn grant(self, local: bool) -> Grant {
        match self {
            Self::Local => Grant { subscribe: true, publish: local },
            Self::None => Grant { subscribe: false, publish: false },
            Self::Subscribe => Grant { subscribe: true, publish: false },
            Self::Publish => Grant { subscribe: false, publish: true },
            Self::All => Grant { subscribe: true, publish: true },
        }
    }

    /// The value as it is written behind the flag.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::None => "none",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::All => "all",
        }
    }

    /// Every value, in the order the help lists them.
    pub const ALL: [Self; 5] = [Self::Local, Self::None, Self::Subscribe, Self::Publish, Self::All];
}

/// The text is no value of `--allow-anonymous`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected local, none, subscribe, publish or all")]
pub struct AllowAnonymousError;

impl FromStr for AllowAnonymous {
    type Err = AllowAnonymousError;

    fn from_str(text: &str) -> Result<Self, AllowAnonymousError> {
        Self::ALL.into_iter().find(|value| value.name() == text).ok_or(AllowAnonymousError)
    }
}

/// What a request may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Get publications, and ask about a topic.
    pub subscribe: bool,
    /// Have a payload numbered and handed out.
    pub publish: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_local_rule_asks_where_a_request_comes_from() {
        for (value, here, elsewhere) in [
            ("local", (true, true), (true, false)),
            ("none", (false, false), (false, false)),
            ("subscribe", (true, false), (true, false)),
            ("publish", (false, true), (false, true)),
            ("all", (true, true), (true, true)),
        ] {
            let allow: AllowAnonymous = value.parse().unwrap();
            assert_eq!(allow.name(), value);
            for (local, (subscribe, publish)) in [(true, here), (false, elsewhere)] {
                assert_eq!(allow.grant(local), Grant { subscribe, publish }, "{value}, local: {local}");
            }
        }
        assert_eq!("Local".parse::<AllowAnonymous>(), Err(AllowAnonymousError));
    }
}
