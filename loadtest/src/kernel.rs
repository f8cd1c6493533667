//! The kernel's own counters, which the tool's must agree with, and its limits.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::Failure;

/// What the tool opens beside its connections: standard streams, epoll, timer, files of `/proc`.
const DESCRIPTORS_BESIDE: u64 = 32;

/// Counters of TCP, of the whole network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Connections dropped because a listener's queue was full.
    pub listen_overflows: u64,
    /// SYN and SYN-ACK sent again.
    pub syn_retransmits: u64,
}

impl TcpCounters {
    /// Now; 0 where `/proc/net/netstat` isn't there.
    pub fn read() -> Self {
        let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
        Self { listen_overflows: named(&text, "ListenOverflows"), syn_retransmits: named(&text, "TCPSynRetrans") }
    }
}

/// A line of names is followed by a line of their values.
fn named(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some(at) = names.split_ascii_whitespace().position(|other| other == name) {
            return values.split_ascii_whitespace().nth(at).and_then(|value| value.parse().ok()).unwrap_or_default();
        }
    }
    0
}

/// Keeps this thread on one CPU, so that the scheduler doesn't move it about while it measures.
pub fn pin(cpu: usize) -> Result<(), Failure> {
    // Only what this process may run on: the crate panics on numbers that no machine has.
    let is_allowed = core_affinity::get_core_ids().is_some_and(|ids| ids.iter().any(|id| id.id == cpu));
    if is_allowed && core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        return Ok(());
    }
    Err(Failure::Usage(format!("--cpu {cpu}: this process may not run on that CPU")))
}

/// Makes room for so many connections, or says what number is needed.
pub fn make_room(connections: usize) -> Result<(), Failure> {
    let needed = connections as u64 + DESCRIPTORS_BESIDE;
    let limits = getrlimit(Resource::Nofile);
    if limits.maximum.is_some_and(|limit| limit < needed) {
        return Err(Failure::Descriptors { needed, limit: limits.maximum.unwrap_or_default() });
    }
    raise_to(needed, limits)
}

/// Makes room for so many connections, or for as many as the hard limit has; returns for how many.
pub fn make_room_up_to(connections: usize) -> Result<usize, Failure> {
    let limits = getrlimit(Resource::Nofile);
    let room = limits.maximum.map_or(connections as u64, |limit| limit.min(connections as u64));
    raise_to(room, limits)?;
    Ok(room as usize)
}

fn raise_to(needed: u64, limits: Rlimit) -> Result<(), Failure> {
    if limits.current.is_some_and(|limit| limit < needed) {
        let raised = Rlimit { current: Some(needed), maximum: limits.maximum };
        setrlimit(Resource::Nofile, raised).map_err(|error| Failure::System("raising the descriptor limit", error.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: A ListenOverflows B\nTcpExt: 1 42 3\nIpExt: X TCPSynRetrans\nIpExt: 4 5\n";
        assert_eq!(named(text, "ListenOverflows"), 42);
        assert_eq!(named(text, "TCPSynRetrans"), 5);
        assert_eq!(named(text, "Missing"), 0);
    }

    #[test]
    fn too_many_connections_are_refused_with_the_number_needed() {
        let Err(Failure::Descriptors { needed, .. }) = make_room(1 << 40) else { panic!("no machine has so many") };
        assert_eq!(needed, (1 << 40) + DESCRIPTORS_BESIDE);
    }
}
