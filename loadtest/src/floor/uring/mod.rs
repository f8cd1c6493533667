//! The floor on io_uring: one system call a turn, which submits all that the turn before led to and waits for what is done.
//!
//! ```text
//! accept   multishot, into the ring's own table of files: no descriptors
//! receive  multishot, into buffers of a provided ring, given back within the turn
//! send     at most one under way a connection; what comes meanwhile waits behind it
//! close    after the last completion
//! ```
//!
//! The kernel reads and writes memory that Rust thinks is ours alone. What keeps that sound is said beside each kind of it:
//!
//! ```text
//! ring        both queues                        leaked, so that they outlive every request
//! buffers     what receives write to             leaked; one is ours from a completion until it is given back
//! connection  bytes of its own that it sends     not touched until that send's completion
//! batches     what a turn brought to a topic     not touched until the last of many sends is done
//! server      the loop, which leads each completion to what it is about
//! ```

mod batches;
mod buffers;
mod connection;
mod ring;
mod server;

pub use server::Server;
