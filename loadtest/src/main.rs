//! `fantail-loadtest`: what a WebSocket server does per second, how late, and what it costs, in figures that can be quoted.
//!
//! ```text
//! main       flags -> command; one error line; exit status
//! commands   what a run does: connect, echo, fanout, publish, hold, notify, rooms, churn, storm, resume, slow, scaling
//! feed       what is published: when, on which topics, through whom
//! traffic    who is subscribed to what, and what of it came
//! stage      warm-up, measurement, end
//! engine net one epoll loop over all connections of the run; dial opens their sockets
//! client     one connection's protocol, sans IO: WebSocket, event streams, Redis, NATS, Socket.IO, POST
//! target wire envelope payload schedule topic ledger histogram cpu kernel measured report rows output progress
//! compare    servers side by side: cpus launch machine measure statistics
//! page       `report`: results as one page
//! verify     a time of publishing, cutting and resuming: nothing is lost in silence
//! floor      the barest server there is: the line under every comparison
//! ```
//!
//! One thread, no async runtime, nothing allocated per delivery: the server has to be the bottleneck, and where it wasn't the run
//! says INVALID.

use std::process::ExitCode;

mod client;
mod clock;
mod commands;
mod compare;
mod cpu;
mod cpus;
mod dial;
mod ending;
mod engine;
mod envelope;
mod exit;
mod failure;
mod feed;
mod floor;
mod histogram;
mod interrupt;
mod kernel;
mod launch;
mod ledger;
mod machine;
mod measure;
mod measured;
mod net;
mod output;
mod page;
mod payload;
mod progress;
mod report;
mod rows;
mod schedule;
mod stage;
mod statistics;
mod target;
mod topic;
mod traffic;
mod wire;

fn main() -> ExitCode {
    match commands::run() {
        Ok(status) => status,
        Err(failure) => {
            output::remark(&format!("fantail-loadtest: {failure}"));
            ExitCode::FAILURE
        }
    }
}
