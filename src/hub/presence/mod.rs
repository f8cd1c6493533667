//! Who is there: members of topics, how they come and go, and who is told of it.
//!
//! A member is a client, not a connection. It proves itself by a secret, its [`ClientKey`], and is known to others by a hash of it, its
//! [`Member`] id: so any worker can tell who comes back, nobody keeps a register, and nobody can pass for another by what all can see.
//!
//! ```text
//!   worker of a connection             home worker of the topic                 worker of a watcher
//!
//!   Seats: who of its own    changes   Table: who is there     Told, State     Watching: who wants to know,
//!   is there, what is        -------->  on all workers, who    ------------>   and since when
//!   not told yet                        is in grace
//! ```
//!
//! State of a member in the table:
//!
//! ```text
//!            a connection comes              the last one is lost
//!   absent ---------------------> present ------------------------> in grace
//!     ^                            |   ^                             |    |
//!     |    the last one leaves     |   +-----------------------------+    |
//!     +----------------------------+        a connection comes            |
//!     +-------------------------------------------------------------------+
//!                      the grace is over, or goodbye
//! ```
//!
//! Everything here is state, not a queue of events. What a worker has not told yet, and what watchers have not been told yet, is the
//! difference between two states, so it is bounded by them: who leaves in order between two tellings was never there, who goes and comes
//! back never left. Watchers are told at most once in an interval; the first change behind a quiet one is told at once. That is what
//! makes a mass reconnect silent, and a mass loss a few frames.
//!
//! A topic whose class has no presence never comes here. Pure state: no socket, no thread, no clock.

mod member;
mod seats;
mod table;
#[cfg(test)]
mod table_tests;
mod told;
mod watching;

pub use member::{CLIENT_KEY_BYTES_MAX, CLIENT_KEY_BYTES_MIN, ClientKey, MEMBER_NAME_BYTES_MAX, Member, MemberName};
pub use seats::{Change, Seat, Seats};
pub use table::{Counts, Options, RoomId, Table};
pub use told::{State, Told, write_object};
pub use watching::{Question, Watching};
