//! One subscriber of a verification: what it speaks, where it stands, and what is being done to it.
//!
//! ```text
//! Away --time--> Opening --open--> Reading --cut: reset, close--> Away
//!                                     |  `---cut: half-close, close frame--> Ending --the server ends--> Away
//!                                     `------cut: stall--> Stalled --time--> Reading
//! ```
//!
//! A connection that ends of itself leads to Away from anywhere.

use crate::clock::Nanos;

use super::account::Account;

/// The cursor of who comes anew and asks for all there is.
pub const EARLIEST: &str = "earliest";

/// How a subscriber is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WebSocket,
    EventStream,
    LongPoll,
}

/// What is done to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Reset,
    HalfClose,
    Stall,
    Close,
}

/// Where it stands with its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It comes back at this time.
    Away(Nanos),
    Opening,
    /// It is cut at this time.
    Reading(Nanos),
    /// It reads again at this time.
    Stalled(Nanos),
    /// Our direction has ended; what comes is read until the server ends its own.
    Ending,
}

/// A subscriber of one topic.
#[derive(Debug)]
pub struct Subscriber {
    pub kind: Kind,
    pub topic: usize,
    /// It is a WebSocket that publishes, too, and is never cut.
    pub publishes: bool,
    pub state: State,
    /// Its number in the account.
    pub reader: usize,
    /// Behind which it goes on; empty or [`EARLIEST`] where it begins anew.
    pub cursor: String,
    pub connection: Option<usize>,
}

/// So many for each topic, of all kinds in turn, before them the WebSocket that publishes; all are to come at this time.
pub fn all(account: &mut Account, topics: usize, each: usize, now: Nanos) -> Vec<Subscriber> {
    let mut all = Vec::with_capacity(topics * (each + 1));
    for topic in 0..topics {
        for number in 0..=each {
            let kind = number.checked_sub(1).map_or(Kind::WebSocket, |number| Kind::ALL[number % Kind::ALL.len()]);
            let reader = account.join(topic, name(kind, topic, all.len()));
            let (state, cursor) = (State::Away(now), String::new());
            all.push(Subscriber { kind, topic, publishes: number == 0, state, reader, cursor, connection: None });
        }
    }
    all
}

/// What a reader is called in the words of a fault.
pub fn name(kind: Kind, topic: usize, number: usize) -> String {
    format!("{} {number} of topic {topic}", kind.name())
}

impl Kind {
    /// All, in turn.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::EventStream, Self::LongPoll];

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::EventStream => "event stream",
            Self::LongPoll => "long-poll",
        }
    }
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reset, Self::HalfClose, Self::Stall, Self::Close];
}

impl Subscriber {
    /// Whether it has a cursor of its own to come back with.
    pub fn is_placed(&self) -> bool {
        !self.cursor.is_empty() && self.cursor != EARLIEST
    }

    /// Where it stands from now on.
    pub fn stand(&mut self, cursor: &str) {
        self.cursor.clear();
        self.cursor.push_str(cursor);
    }
}
