//! The kernel's own counters, which the tool's must agree with, and its limits.

use std::{fs, io};

use rustix::io::Errno;
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
    /// Connections that somebody here began to open.
    pub active_opens: u64,
    /// Openings that were refused or given up.
    pub failed_opens: u64,
}

impl TcpCounters {
    /// Now; None where `/proc/net` can't be read or has them not.
    pub fn read() -> Option<Self> {
        let extended = fs::read_to_string("/proc/net/netstat").ok()?;
        Self::parse(&extended, &fs::read_to_string("/proc/net/snmp").ok()?)
    }

    fn parse(extended: &str, basic: &str) -> Option<Self> {
        Some(Self {
            listen_overflows: named(extended, "ListenOverflows")?,
            syn_retransmits: named(extended, "TCPSynRetrans")?,
            active_opens: named(basic, "ActiveOpens")?,
            failed_opens: named(basic, "AttemptFails")?,
        })
    }

    /// Why a tool must not be believed that began to open so many connections and was refused so many, where these are of the same
    /// stretch of time. Others may open connections, too; but fewer than the tool's own there can't be.
    pub fn doubt(self, opened: u64, refused: u64) -> Option<String> {
        let Self { active_opens, failed_opens, .. } = self;
        let are_fewer = active_opens < opened || failed_opens < refused;
        are_fewer.then(|| {
            let kernel = format!("the kernel counted {active_opens} opens, {failed_opens} of them failed");
            format!("{kernel}: fewer than the load test's {opened} and {refused} refused")
        })
    }

    /// What was counted since `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            listen_overflows: self.listen_overflows - earlier.listen_overflows,
            syn_retransmits: self.syn_retransmits - earlier.syn_retransmits,
            active_opens: self.active_opens - earlier.active_opens,
            failed_opens: self.failed_opens - earlier.failed_opens,
        }
    }
}

/// What the machine's kernel has taken for its own objects, sockets and their like, in bytes; 0 where `/proc/meminfo` isn't there.
pub fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // Slab has the sockets, their files and what epoll keeps; Percpu and PageTables don't depend on them.
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// A line of names is followed by a line of their values.
fn named(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if let Some(at) = names.split_ascii_whitespace().position(|other| other == name) {
            return values.split_ascii_whitespace().nth(at)?.parse().ok();
        }
    }
    None
}

/// How many connections one process may have.
pub fn connections_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_BESIDE))
}

/// Makes room for so many connections, or says what number is needed.
pub fn make_room(connections: usize) -> Result<(), Failure> {
    let needed = (connections as u64).saturating_add(DESCRIPTORS_BESIDE);
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

/// The failure to say where the kernel had no descriptor left for something that needs so many `more`; None of another error.
pub fn out_of_descriptors(error: &io::Error, more: u64) -> Option<Failure> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let is_out = error.raw_os_error() == Some(Errno::MFILE.raw_os_error());
    is_out.then(|| Failure::Descriptors { needed: limit.saturating_add(more), limit })
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
        assert_eq!(named(text, "ListenOverflows"), Some(42));
        assert_eq!(named(text, "TCPSynRetrans"), Some(5));
        assert_eq!(named(text, "Missing"), None);
        let basic = "Tcp: ActiveOpens AttemptFails\nTcp: 7 1\n";
        let all = TcpCounters { listen_overflows: 42, syn_retransmits: 5, active_opens: 7, failed_opens: 1 };
        assert_eq!(TcpCounters::parse(text, basic), Some(all));
        for (extended, basic) in [("", basic), (text, ""), ("", "")] {
            assert_eq!(TcpCounters::parse(extended, basic), None, "what is not there is no zero");
        }
    }

    #[test]
    fn fewer_than_the_tool_s_own_is_a_doubt() {
        let kernel = TcpCounters { active_opens: 10, failed_opens: 2, ..TcpCounters::default() };
        assert_eq!((kernel.doubt(10, 2), kernel.doubt(9, 0)), (None, None));
        let fewer = "the kernel counted 10 opens, 2 of them failed: fewer than the load test's 11 and 0 refused";
        assert_eq!(kernel.doubt(11, 0).unwrap(), fewer);
        assert!(kernel.doubt(10, 3).is_some());
    }

    #[test]
    fn the_kernel_counts_what_is_opened_and_what_it_takes() {
        let before = TcpCounters::read().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(std::net::TcpStream::connect(address).unwrap());
        drop(listener);
        std::net::TcpStream::connect(address).unwrap_err();
        let since = TcpCounters::read().unwrap().since(before);
        assert!(since.active_opens >= 2 && since.failed_opens >= 1, "{since:?}");
        assert!(memory_bytes() > 1 << 20);
    }

    #[test]
    fn a_process_without_a_free_descriptor_says_how_many_it_needs() {
        let none_left = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        let Some(Failure::Descriptors { needed, limit }) = out_of_descriptors(&none_left, 7) else { panic!("it is that error") };
        assert_eq!(needed, limit + 7);
        assert!(out_of_descriptors(&io::ErrorKind::NotFound.into(), 7).is_none());
    }

    #[test]
    fn too_many_connections_are_refused_with_the_number_needed() {
        let Err(Failure::Descriptors { needed, .. }) = make_room(1 << 40) else { panic!("no machine has so many") };
        assert_eq!(needed, (1 << 40) + DESCRIPTORS_BESIDE);
    }
}
