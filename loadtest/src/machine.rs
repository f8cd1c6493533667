//! Where something was measured: what a reader has to know of the machine before comparing its figures with others.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The settings of the kernel that figures of this kind depend on.
const SYSCTLS: [&str; 9] = [
    "net.core.somaxconn",
    "net.core.netdev_max_backlog",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
];

/// One machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor, as that calls itself.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Of the first CPU; none on most virtual machines.
    pub governor: Option<String>,
    /// Name and release.
    pub kernel: String,
    /// In bytes.
    pub memory_bytes: u64,
    /// What matters of the kernel's settings.
    pub sysctls: BTreeMap<String, String>,
}

/// The commit of the working directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// Its hash.
    pub id: String,
    /// Whether there were changes beyond it.
    pub dirty: bool,
}

impl Machine {
    /// This one.
    pub fn read() -> Self {
        let name = rustix::system::uname();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next());
        Self {
            cpu: model.map_or_else(|| name.machine().to_string_lossy().into_owned(), |(_, model)| model.trim().to_owned()),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            governor: line_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            kernel: format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
            memory_bytes: total.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024,
            sysctls: SYSCTLS.iter().filter_map(|&name| Some((name.to_owned(), sysctl(name)?))).collect(),
        }
    }
}

impl Commit {
    /// Where `git` is and this is a repository.
    pub fn read() -> Option<Self> {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let id = git(&["rev-parse", "HEAD"])?;
        Some(Self {
            id,
            dirty: git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty()),
        })
    }
}

/// Now in UTC, as RFC 3339 has it.
pub fn timestamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn sysctl(name: &str) -> Option<String> {
    line_of(&format!("/proc/sys/{}", name.replace('.', "/")))
}

fn line_of(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_kernel_and_memory() {
        let machine = Machine::read();
        assert!(machine.cpus > 0 && machine.memory_bytes > 1 << 20 && machine.kernel.starts_with("Linux "), "{machine:?}");
        assert!(machine.sysctls.contains_key("net.core.somaxconn"), "{machine:?}");
    }
}
