//! Why a connection ended: one vocabulary for log, metric, API and close reason (docs/wire.md, "Why a connection ended").

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// The peer closed in order.
    ClientClose,
    /// The peer closed with 1001: the person left the page.
    LeftPage,
    /// The peer's stream ended without a close.
    EndOfStream,
    /// The peer reset the connection.
    Reset,
    /// A ping was not answered by any byte in time.
    NoPong,
    /// The kernel reported another failure of the connection.
    NetworkError,
    /// The kernel took too few bytes in a write time-out.
    StalledWrite,
    /// The outbox was full under the policy `disconnect`.
    SlowConsumer,
    /// The request's head or body did not arrive in time, or nothing was asked in the idle time-out.
    HandshakeTimeout,
    /// A message was begun and not finished in time.
    MessageTimeout,
    /// The peer did what this endpoint does not allow.
    Policy,
    /// A stated limit was reached.
    Limit,
    /// The peer broke RFC 6455 or RFC 9112.
    ProtocolError,
    /// A text message or close reason is not UTF-8.
    BadUtf8,
    /// A message is larger than `--max-message-size`.
    TooBig,
    /// The peer may not do what it did.
    Forbidden,
    /// The server is stopping.
    Drain,
    /// The server is over a limit of its own.
    Overloaded,
    /// What was to be resumed is not kept any more, or not all of it.
    Gap,
    /// A fault of the server inside this connection's protocol step.
    Internal,
    /// Of a member of a topic, whose connection goes on: no long-poll followed the last one.
    NotRenewed,
    /// Of a member of a topic, whose connection goes on: it unsubscribed.
    Unsubscribed,
}

impl Cause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 22] = [
        Self::ClientClose,
        Self::LeftPage,
        Self::EndOfStream,
        Self::Reset,
        Self::NoPong,
        Self::NetworkError,
        Self::StalledWrite,
        Self::SlowConsumer,
        Self::HandshakeTimeout,
        Self::MessageTimeout,
        Self::Policy,
        Self::Limit,
        Self::ProtocolError,
        Self::BadUtf8,
        Self::TooBig,
        Self::Forbidden,
        Self::Drain,
        Self::Overloaded,
        Self::Gap,
        Self::Internal,
        Self::NotRenewed,
        Self::Unsubscribed,
    ];

    /// The name in logs, metrics and close reasons.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientClose => "client_close",
            Self::LeftPage => "left_page",
            Self::EndOfStream => "end_of_stream",
            Self::Reset => "reset",
            Self::NoPong => "no_pong",
            Self::NetworkError => "network_error",
            Self::StalledWrite => "stalled_write",
            Self::SlowConsumer => "slow_consumer",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::MessageTimeout => "message_timeout",
            Self::Policy => "policy",
            Self::Limit => "limit",
            Self::ProtocolError => "protocol_error",
            Self::BadUtf8 => "bad_utf8",
            Self::TooBig => "too_big",
            Self::Forbidden => "forbidden",
            Self::Drain => "drain",
            Self::Overloaded => "overloaded",
            Self::Gap => "gap",
            Self::Internal => "internal",
            Self::NotRenewed => "not_renewed",
            Self::Unsubscribed => "unsubscribed",
        }
    }

    /// The close code a WebSocket is told (docs/wire.md, "Why a connection ended"). 0 where none is sent: the peer is gone.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ClientClose => 1000,
            Self::LeftPage | Self::Drain => 1001,
            Self::EndOfStream | Self::Reset | Self::NoPong | Self::NetworkError | Self::NotRenewed | Self::Unsubscribed => 0,
            Self::StalledWrite | Self::SlowConsumer | Self::Overloaded => 1013,
            Self::HandshakeTimeout | Self::MessageTimeout | Self::Policy | Self::Limit => 1008,
            Self::ProtocolError => 1002,
            Self::BadUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Forbidden => 4003,
            Self::Gap => 4104,
            Self::Internal => 1011,
        }
    }

    /// Whether the client meant to go, and said so.
    #[must_use]
    pub const fn is_orderly(self) -> bool {
        matches!(self, Self::ClientClose | Self::LeftPage | Self::Unsubscribed)
    }

    /// Whether a member of a topic is gone with it at once: it meant to go, or is told not to come back. With any other it may be back
    /// soon, also where the server ended the connection.
    #[must_use]
    pub const fn ends_presence(self) -> bool {
        self.is_orderly() || matches!(self, Self::Forbidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_at_their_numbers() {
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
        }
    }
}
