//! How the process is: what must hold again after every fault.

use std::fs;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::socket::Socket;
use crate::wire::Connection;
use crate::{PATIENCE, eventually, figure};

/// What a process uses, from `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Open descriptors.
    pub descriptors: usize,
    /// Anonymous resident memory in bytes; pages of the binary itself come and go with the page cache.
    pub memory_bytes: u64,
}

/// What memory may grow by beyond the plateau: the larger of this and a tenth.
const GROWTH_BYTES_MAX: u64 = 8 << 20;

/// The unit of CPU times in `/proc/PID/stat`: `USER_HZ` is 100 wherever Linux runs.
const CPU_TICK: Duration = Duration::from_millis(10);

impl Server {
    /// What the process uses now.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let proc = format!("/proc/{}", self.pid());
        let descriptors = fs::read_dir(format!("{proc}/fd")).expect("the process runs").count();
        let status = fs::read_to_string(format!("{proc}/status")).expect("the process runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux 4.5 and later say it");
        let kibibytes: u64 = memory.trim().trim_end_matches(" kB").parse().expect("a number");
        Vitals { descriptors, memory_bytes: kibibytes * 1024 }
    }

    /// How many threads have a name that begins so.
    #[must_use]
    pub fn threads(&self, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process runs");
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|each| each.starts_with(name)).count()
    }

    /// The CPU time that all threads have used, in steps of 10 ms.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process runs");
        // The name in parentheses may hold spaces; what follows it begins with field 3. utime and stime are 14 and 15.
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: u32 = fields[11..13].iter().map(|field| field.parse::<u32>().expect("a number")).sum();
        CPU_TICK * ticks
    }

    /// Touches what a first use touches on every worker, and takes the plateau that later checks compare with.
    pub(crate) fn warm_up(&mut self) {
        for _ in 0..8 {
            Socket::open(self.address, "/echo").leave();
        }
        let _ = self.metrics();
        self.set_plateau();
    }

    /// Takes the present use as the warm plateau: for a test whose first load lawfully leaves tables behind.
    pub fn set_plateau(&mut self) {
        let mut last = self.vitals().descriptors;
        eventually("the number of descriptors settles", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(30));
            std::mem::replace(&mut last, self.vitals().descriptors) == last
        });
        self.plateau = self.vitals();
    }

    /// A new connection gets its echo within a second.
    #[track_caller]
    pub fn echo_ok(&self) {
        let start = Instant::now();
        Socket::open(self.address, "/echo").echo("still here");
        figure("a new connection's echo", start.elapsed(), Duration::from_secs(1));
    }

    /// What must hold after every fault, once its connections are gone: a new connection gets its echo, no panic is in the log,
    /// descriptors are back, memory is at the plateau within 10 s, the CPU is idle.
    #[track_caller]
    pub fn assert_well(&self) {
        self.echo_ok();
        assert!(!self.log().contains("panicked"), "{}", self.log());
        let plateau = self.plateau;
        eventually(&format!("descriptors back to {}", plateau.descriptors), PATIENCE, || {
            self.vitals().descriptors <= plateau.descriptors
        });
        let bytes_max = plateau.memory_bytes + (plateau.memory_bytes / 10).max(GROWTH_BYTES_MAX);
        eventually(&format!("memory back to {bytes_max} bytes"), PATIENCE, || self.vitals().memory_bytes <= bytes_max);
        self.assert_idle();
    }

    /// The process comes to rest: at most one CPU tick in 200 ms.
    #[track_caller]
    pub fn assert_idle(&self) {
        eventually("the CPU is idle", PATIENCE, || {
            let before = self.cpu_time();
            std::thread::sleep(CPU_TICK * 20);
            self.cpu_time() - before <= CPU_TICK
        });
    }

    /// Opens a connection to the first listener.
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Opens a WebSocket at the first listener.
    #[must_use]
    #[track_caller]
    pub fn socket(&self, target: &str) -> Socket {
        Socket::open(self.address, target)
    }
}
