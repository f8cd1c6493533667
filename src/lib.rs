//! Fantail: a push server. One URL per topic; whoever holds a connection to that URL gets what is published there.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | worker | one thread with its own listeners, driver, connections, buffers, deadlines and topics; nothing in it waits or locks |
//! | driver | the worker's view of the kernel, [`io`]; the only code that makes socket system calls |
//! | turn | one pass of a worker's loop: wait, read, mailbox, deadlines, flush |
//! | connection | one client socket and its protocol state: HTTP/1.1, swapped in place for WebSocket |
//! | publication | a payload accepted for a topic: kind, epoch, offset |
//! | home worker | the one worker, picked by a hash of the topic, that has its publications numbered and hands them out |
//! | interest | which workers have a subscriber of a topic, and in which wire forms |
//! | frame | a publication encoded once for one wire form, shared by reference by every subscriber |
//! | outbox | a connection's queue waiting to be written, bounded in bytes |
//! | mailbox | the way into another worker: a ring of requests (by credit) and a ring of deliveries (always drained) |
//! | class | what a topic keeps, and what its slow subscribers and its members meet; found by the topic's name |
//! | engine | numbers publications and keeps them |
//!
//! # Layers
//!
//! A module uses rows below its own, never its own row or above:
//!
//! ```text
//! main cli            flags -> Config; one error line; exit status
//! server config       public Server: listeners, workers, signals, drain
//! worker              the shell: turn, connection, outbox, deadlines. Sockets meet protocols only here
//! routes              what a URL means; admin and pages
//! ws v1               the WebSocket protocol, and its subprotocol: bytes and events in, bytes and events out
//! hub engine http1 auth io
//! class               what a topic keeps and tells, found by its name
//! frame limits        Topic, Pattern, Publication, Position; ticks, buffers, tables
//! mailbox metrics log
//! words quantity      values that are one of a few words, or an amount with a unit
//! ```
//!
//! All but `worker`, `server`, `io`, `mailbox`, `log`, `engine::store`, the commands in `cli` and `metrics::ProcessFacts::read` are
//! sans-IO: no socket, no file, no thread, no clock (`now` is an argument).

pub mod auth;
pub mod class;
pub mod cli;
pub mod config;
pub mod engine;
pub mod frame;
pub mod http1;
pub mod hub;
pub mod io;
pub mod limits;
pub mod log;
pub mod mailbox;
pub mod metrics;
pub mod quantity;
pub mod routes;
pub mod server;
pub mod v1;
pub mod words;
pub mod worker;
pub mod ws;

pub use config::Config;
pub use server::Server;
