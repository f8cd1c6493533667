//! The values that labels may take: all of them known before the first client comes.

use super::Cause;

/// A label's values, numbered from 0 in the order of `ALL`.
pub trait Label: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];

    /// The value's place in `ALL`.
    fn index(self) -> usize;

    /// The value as it is written.
    fn name(self) -> &'static str;
}

/// Defines a label's values together with how they are written, so that neither can be forgotten.
macro_rules! labels {
    ($($(#[$doc:meta])* $label:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum $label { $($(#[$value_doc])* $value,)+ }

        impl $label {
            /// How many values there are.
            pub const COUNT: usize = <Self as Label>::ALL.len();
        }

        impl Label for $label {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)+ }
            }
        }
    )+};
}

labels! {
    /// How a client is attached.
    Transport {
        /// Plain HTTP: a request and its answer.
        Http = "http",
        /// A WebSocket of topics.
        WebSocket = "websocket",
        /// A stream of events.
        Events = "sse",
        /// A stream of lines.
        Lines = "ndjson",
        /// HTTP on the admin listener; apart from the others, because whoever watches the clients is none.
        Admin = "admin",
        /// A WebSocket of `/echo`; apart from the others, because what it sends was not published.
        Echo = "echo",
    }
    /// Why a connection was refused before it was one.
    RejectReason {
        /// `--max-connections` is reached.
        MaxConnections = "max_connections",
        /// `--max-connections-per-ip` is reached for this address.
        PerIp = "per_ip",
        /// Connections come faster than `--accept-rate`.
        AcceptRate = "accept_rate",
        /// The process has no file descriptor left.
        Descriptors = "descriptors",
    }
    /// How a resume with a cursor went.
    Recovery {
        /// Nothing was missing.
        Whole = "recovered",
        /// Something was, and the client was told.
        Gap = "gap",
    }
    /// Why a publication did not reach a subscriber.
    DropReason {
        /// The outbox was full under the policy `drop-oldest`.
        DropOldest = "drop_oldest",
        /// A newer publication of the topic took its place under the policy `latest`.
        Latest = "latest",
        /// The connection ended with it in the outbox.
        ConnectionClosed = "connection_closed",
    }
    /// What watchers of a topic were told of its members.
    PresenceEvent {
        /// Somebody came.
        Join = "join",
        /// Somebody went.
        Leave = "leave",
        /// How many there are.
        Count = "count",
        /// Who is there, because very many came and went.
        List = "list",
    }
    /// How a publication came in.
    Source {
        /// By `POST /topics/NAME`.
        Post = "post",
        /// As a WebSocket message.
        WebSocket = "websocket",
    }
    /// What memory is used for.
    MemoryKind {
        /// Connections with their deadlines and protocol state, without outboxes.
        Connections = "connections",
        /// Receive buffers and pooled spare ones.
        Buffers = "buffers",
        /// Subscriptions and lists of subscribers.
        Hub = "hub",
        /// What the home worker keeps of each topic, without the names.
        Topics = "topics",
    }
    /// What the kernel refused a driver for the moment, or broke off; all of it is made good.
    Trouble {
        /// A signal ended the wait.
        Interrupted = "interrupted",
        /// A connection was gone before it was accepted.
        AcceptAborted = "accept_aborted",
        /// A send found the kernel short of memory and was made again.
        SendRetried = "send_retried",
        /// A receive found no free buffer: more came at once than `--uring-buffers` hold.
        BuffersExhausted = "buffers_exhausted",
        /// Completions found no room and came later: more was completed at once than `--uring-entries` is made for.
        CompletionsOverflowed = "completions_overflowed",
        /// The kernel had no memory for operations, which were handed over later.
        OperationsRefused = "operations_refused",
    }
    /// What answered a request.
    Handler {
        /// `/topics`.
        Topics = "topics",
        /// `/bye`.
        Bye = "bye",
        /// `/echo`.
        Echo = "echo",
        /// `/healthz`.
        Healthz = "healthz",
        /// `/.well-known/fantail`.
        WellKnown = "well_known",
        /// The embedded pages.
        Page = "page",
        /// The admin listener.
        Admin = "admin",
        /// Nothing of these: an unknown path, a request that could not be read.
        Other = "other",
    }
    /// The status code of an answer.
    Status {
        /// 101 Switching Protocols.
        C101 = "101",
        /// 200 OK.
        C200 = "200",
        /// 204 No Content.
        C204 = "204",
        /// 304 Not Modified.
        C304 = "304",
        /// 400 Bad Request.
        C400 = "400",
        /// 401 Unauthorized.
        C401 = "401",
        /// 403 Forbidden.
        C403 = "403",
        /// 404 Not Found.
        C404 = "404",
        /// 405 Method Not Allowed.
        C405 = "405",
        /// 406 Not Acceptable.
        C406 = "406",
        /// 408 Request Timeout.
        C408 = "408",
        /// 411 Length Required.
        C411 = "411",
        /// 413 Content Too Large.
        C413 = "413",
        /// 414 URI Too Long.
        C414 = "414",
        /// 415 Unsupported Media Type.
        C415 = "415",
        /// 417 Expectation Failed.
        C417 = "417",
        /// 426 Upgrade Required.
        C426 = "426",
        /// 429 Too Many Requests.
        C429 = "429",
        /// 431 Request Header Fields Too Large.
        C431 = "431",
        /// 500 Internal Server Error.
        C500 = "500",
        /// 501 Not Implemented.
        C501 = "501",
        /// 503 Service Unavailable.
        C503 = "503",
        /// 505 HTTP Version Not Supported.
        C505 = "505",
        /// A code that this table does not know.
        Other = "other",
    }
}

impl Status {
    /// The label value of a status code.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        match code {
            101 => Self::C101,
            200 => Self::C200,
            204 => Self::C204,
            304 => Self::C304,
            400 => Self::C400,
            401 => Self::C401,
            403 => Self::C403,
            404 => Self::C404,
            405 => Self::C405,
            406 => Self::C406,
            408 => Self::C408,
            411 => Self::C411,
            413 => Self::C413,
            414 => Self::C414,
            415 => Self::C415,
            417 => Self::C417,
            426 => Self::C426,
            429 => Self::C429,
            431 => Self::C431,
            500 => Self::C500,
            501 => Self::C501,
            503 => Self::C503,
            505 => Self::C505,
            _ => Self::Other,
        }
    }
}

impl Label for Cause {
    const ALL: &'static [Self] = &Self::ALL;

    #[inline]
    fn index(self) -> usize {
        self as usize
    }

    fn name(self) -> &'static str {
        Self::name(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn check<L: Label>() {
        let names: HashSet<&str> = L::ALL.iter().map(|value| value.name()).collect();
        assert_eq!(names.len(), L::ALL.len());
        assert!(L::ALL.iter().enumerate().all(|(index, value)| value.index() == index));
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')));
    }

    #[test]
    fn values_are_numbered_in_order_and_need_no_escape() {
        check::<Transport>();
        check::<RejectReason>();
        check::<DropReason>();
        check::<PresenceEvent>();
        check::<Source>();
        check::<MemoryKind>();
        check::<Handler>();
        check::<Status>();
        check::<Cause>();
    }

    #[test]
    fn every_code_keeps_its_name() {
        for code in 100..600 {
            let name = Status::from_code(code).name();
            assert!(name == "other" || name == code.to_string());
        }
        assert!(
            Status::ALL.iter().filter_map(|s| s.name().parse().ok()).all(|code: u16| Status::from_code(code) != Status::Other)
        );
    }
}
