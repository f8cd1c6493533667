//! Workers on scripted drivers: whole servers in one thread, seeded, with a virtual clock.

/// Stands for a fault of ours in a protocol step: panics when the input asks for it.
pub(super) fn fail_on_request(input: &[u8]) {
    assert!(!input.windows(FAULT.len()).any(|window| window == FAULT), "a fault asked for by a test");
}

const FAULT: &[u8] = b"fail-on-request";

mod cluster;
mod deletion;
mod durable;
mod joins;
mod model;
mod patterns;
mod posting;
mod presence;
mod presence_history;
mod recovery;
mod replays;
mod rows;
mod scans;
mod scenarios;
mod session;
mod several;
mod simulation;
mod slow;
mod stories;
