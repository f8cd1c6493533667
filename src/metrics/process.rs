//! What the kernel says of this process, and what the server as a whole says of itself.
//!
//! The kernel's files are read when somebody asks for the metrics, which takes less than a tenth of a millisecond, whatever the
//! number of connections. What can't be read is left out of the page, because an invented 0 would look like a measurement.

use std::{fs, io, sync::LazyLock};

/// Facts that belong to the process, not to a worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessFacts {
    /// The driver in use: `epoll` or `uring`.
    pub io: &'static str,
    /// The server is stopping.
    pub draining: bool,
    /// Lines of the log that were lost because nobody took them.
    pub log_lines_dropped: u64,
    /// Connections the kernel dropped because a listener's queue was full. Counted for the whole network namespace.
    pub listen_overflows: Option<u64>,
    /// Physical memory in use.
    pub resident_memory_bytes: Option<u64>,
    /// Processor time used so far, of the process and the kernel for it.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit of file descriptors.
    pub max_fds: Option<u64>,
    /// When the process started, since 1970.
    pub start_time_seconds: Option<f64>,
}

impl ProcessFacts {
    /// Reads what the kernel says now; the rest is what the server says of itself.
    #[must_use]
    pub fn read(io: &'static str, draining: bool, log_lines_dropped: u64) -> Self {
        let stat = parse_stat(&file("/proc/self/stat"));
        Self {
            io,
            draining,
            log_lines_dropped,
            listen_overflows: listen_overflows(&file("/proc/net/netstat")),
            resident_memory_bytes: named_number(&file("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024),
            cpu_seconds: stat.map(|stat| ticks_in_seconds(stat.cpu_ticks)),
            open_fds: open_fds().ok(),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            start_time_seconds: *START_TIME_SECONDS,
        }
    }
}

/// Read once: it never changes, and making `/proc/stat` costs the kernel a walk over all interrupts of all processors.
static START_TIME_SECONDS: LazyLock<Option<f64>> = LazyLock::new(|| {
    let boot_seconds = named_number(&file("/proc/stat"), "btime")?;
    Some(boot_seconds as f64 + ticks_in_seconds(parse_stat(&file("/proc/self/stat"))?.start_ticks))
});

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn ticks_in_seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Since Linux 6.2 the folder's size is the number of descriptors. Older kernels say 0, and the entries must be counted (one of
/// which is the folder itself); with very many connections that takes milliseconds.
fn open_fds() -> io::Result<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder)?.len() {
        0 => Ok(fs::read_dir(folder)?.count().saturating_sub(1) as u64),
        descriptors => Ok(descriptors),
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

/// Fields 14, 15 (user and system time) and 22 (start) of `/proc/self/stat`. The second field is the program's name in brackets
/// and may hold spaces and brackets itself, so counting begins after the last bracket, with the third.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
}

/// The first number of the line that begins with `name`.
fn named_number(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `ListenOverflows` of `/proc/net/netstat`, where a line of names is followed by a line of numbers with the same first word.
fn listen_overflows(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let (_, number) = names.split_whitespace().zip(numbers.split_whitespace()).find(|(name, _)| *name == "ListenOverflows")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_no_field() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1000 20 18446744073709551615";
        assert_eq!(parse_stat(text), Some(Stat { cpu_ticks: 300, start_ticks: 12345 }));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn a_column_is_found_by_its_name() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 1 22 333\nIpExt: InNoRoutes\nIpExt: 4\n";
        assert_eq!(listen_overflows(text), Some(22));
        assert_eq!(listen_overflows("TcpExt: ListenDrops\nTcpExt: 1\n"), None);
        assert_eq!(named_number("cpu 1\nbtime 99\n", "btime"), Some(99));
    }

    #[test]
    fn this_process_is_there() {
        let kept_open = fs::File::open("/proc/self/stat").unwrap();
        let facts = ProcessFacts::read("epoll", false, 0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(facts.open_fds.unwrap() >= 4 && facts.open_fds <= facts.max_fds.or(Some(u64::MAX)));
        assert!(facts.resident_memory_bytes.unwrap() > 100_000);
        assert!(facts.cpu_seconds.unwrap() >= 0.0);
        assert!((now - facts.start_time_seconds.unwrap()).abs() < 3600.0);
        drop(kept_open);
    }
}
