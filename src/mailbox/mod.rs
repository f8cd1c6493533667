//! The way into another worker: two rings per pair, and one wake-up per sleep.
//!
//! ```text
//! worker A                                worker B
//!   take a credit, then  --requests-->      takes one when every interested worker has room for its delivery
//!   gives the credit back <--reply---.
//!                         <--deliveries-'   a reply travels among the deliveries, in a slot its credit reserved
//! ```
//!
//! Every ring has one sender and one receiver, so nothing here locks, and nothing is allocated after [`mesh`] has made the
//! rings. Two workers that flood each other can't lock up: deliveries and replies are taken in every turn, because they end in
//! an outbox that has a policy of its own, and a reply always finds a slot.
//!
//! The rule of waking: after it has put something into a ring, a worker asks [`Sleep::must_wake`] of the other end (once a turn
//! and worker is enough) and rings that worker's bell if told to. Before it blocks, a worker calls [`Sleep::prepare`], looks at
//! its rings once more, and only then blocks. Somebody who waits for room is woken the same way: see [`Sender::wait_for_room`].
//!
//! All orders of steps are tried by `RUSTFLAGS="--cfg loom" cargo test --lib mailbox::loom`.

mod credits;
mod lane;
#[cfg(all(test, loom))]
mod loom;
mod ring;
mod sleep;
mod sync;

pub use credits::Credits;
pub use lane::{Lane, Mailbox, mesh};
pub use ring::{Receiver, Sender, ring};
pub use sleep::Sleep;
