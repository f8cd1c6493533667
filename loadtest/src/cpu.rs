//! What a server costs: processor time and memory of a process and its descendants, as `/proc` has them; and how long the tool waited
//! for a CPU.
//!
//! User and system stay apart, because they have different remedies. The kernel tells them apart in ticks of 10 ms; the sum it has
//! in nanoseconds, so the ticks only say how the sum divides.

use std::collections::BTreeMap;
use std::{fs, io};

use crate::clock::{MICROSECOND, Nanos};
use crate::failure::Failure;

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
    /// Both, to the nanosecond, where the scheduler tells; of threads that live.
    pub exact: Option<f64>,
}

/// By how much ticks may run ahead of the exact sum, in seconds: a few of them.
const TICKS_SLACK: f64 = 0.05;

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident.
    pub rss: u64,
    /// Resident, what is shared divided among those who share it.
    pub pss: u64,
}

impl CpuTime {
    /// What `root`, its descendants and those it has waited for have used since they started.
    pub fn of_tree(root: u32) -> Result<Self, Failure> {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let all = over_tree(root, |pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            if root == pid && has_ended(&stat) {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it has ended"));
            }
            let times = parse_stat(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stat cannot be read"))?;
            Ok((times, scheduled_seconds(pid)))
        })?;
        let sum = |pick: fn(&[u64; 4]) -> u64| all.iter().map(|(times, _)| pick(times)).sum::<u64>() as f64 / ticks;
        let exact = all.iter().map(|(_, exact)| *exact).sum();
        Ok(Self { user: sum(|times| times[0] + times[2]), system: sum(|times| times[1] + times[3]), exact })
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        let (user, system) = (self.user - earlier.user, self.system - earlier.system);
        let exact = self.exact.zip(earlier.exact).map(|(now, earlier)| now - earlier);
        // Threads that ended took their share of the exact sum along; then the ticks know more.
        match exact.filter(|&exact| exact > 0.0 && exact + TICKS_SLACK >= user + system) {
            Some(exact) if user + system > 0.0 => {
                let scale = exact / (user + system);
                Self { user: user * scale, system: system * scale, exact: Some(exact) }
            }
            Some(exact) => Self { user: 0.0, system: exact, exact: Some(exact) },
            None => Self { user, system, exact: None },
        }
    }
}

impl Memory {
    /// What `pid` and its descendants hold now.
    pub fn of_tree(pid: u32) -> Result<Self, Failure> {
        over_tree(pid, |pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            Ok(Self { rss: named_kib(&rollup, "Rss:") * 1024, pss: named_kib(&rollup, "Pss:") * 1024 })
        })
        .map(|all| all.iter().fold(Self::default(), |sum, one| Self { rss: sum.rss + one.rss, pss: sum.pss + one.pss }))
    }
}

/// Resident memory of `pid` and its descendants, in bytes: the kernel's own running count, which costs the process nothing. For
/// [`Memory`] the kernel walks all of its pages under the lock of its memory, tens of milliseconds for a gibibyte. On several CPUs the
/// count is some pages behind on each.
pub fn rss_of_tree(pid: u32) -> Result<u64, Failure> {
    let page = rustix::param::page_size() as u64;
    let all = over_tree(pid, |pid| {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
        parse_resident(&statm).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its statm cannot be read"))
    })?;
    Ok(all.iter().sum::<u64>() * page)
}

/// Field 2, in pages.
fn parse_resident(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// What the whole machine has spent in softirqs, which is where the kernel receives; 0 where `/proc/stat` isn't there.
pub fn softirq_seconds() -> f64 {
    parse_softirq(&fs::read_to_string("/proc/stat").unwrap_or_default()) / rustix::param::clock_ticks_per_second() as f64
}

/// Field 7 of the first line: user, nice, system, idle, iowait, irq, softirq.
fn parse_softirq(stat: &str) -> f64 {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    line.and_then(|line| line.split_ascii_whitespace().nth(6)?.parse().ok()).unwrap_or_default()
}

/// How long a thread was ready to run and had no CPU, and how often it then got one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queueing {
    waited: Nanos,
    times: u64,
}

/// So long may it take until a thread that wakes runs on a CPU that is idle: that has to be roused first, which takes some
/// microseconds and in a virtual machine more of them.
const WAKING: Nanos = 10 * MICROSECOND;

/// A thread of a server.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its name without its number: what threads of one kind share.
    kind: String,
    /// What it has used since it started, in seconds.
    seconds: f64,
}

/// The threads of `pid` and its descendants, by their numbers. A process that has children supervises them, and is no worker.
pub fn threads_of_tree(pid: u32) -> BTreeMap<u32, Thread> {
    let all = over_tree(pid, |pid| Ok(if children(pid).is_empty() { threads_of(pid) } else { Vec::new() }));
    all.into_iter().flatten().flatten().collect()
}

/// What each of the workers used between two looks: the threads of the kind that used most, the idle ones among them included.
pub fn workers(begun: &BTreeMap<u32, Thread>, ended: &BTreeMap<u32, Thread>) -> Vec<f64> {
    let mut kinds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (id, thread) in ended {
        let used = thread.seconds - begun.get(id).map_or(0.0, |before| before.seconds);
        kinds.entry(&thread.kind).or_default().push(used);
    }
    let sum = |times: &Vec<f64>| times.iter().sum::<f64>();
    kinds.into_values().max_by(|one, other| sum(one).total_cmp(&sum(other))).unwrap_or_default()
}

fn threads_of(pid: u32) -> Vec<(u32, Thread)> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (times, name) = (parse_stat(&stat)?, stat.get(stat.find('(')? + 1..stat.rfind(')')?)?);
        let kind = name.trim_end_matches(|char: char| char.is_ascii_digit() || "-_#: ".contains(char)).to_owned();
        Some((id, Thread { kind, seconds: (times[0] + times[1]) as f64 / ticks }))
    };
    tasks.filter_map(thread).collect()
}

/// What the threads of a process have run, by the scheduler's own account; None where it keeps none.
fn scheduled_seconds(pid: u32) -> Option<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let of_task = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.map(|task| of_task(task.path())).sum::<Option<u64>>().map(|nanoseconds| nanoseconds as f64 / 1e9)
}

/// Reads of `pid`, which must be there, and of its descendants, which may end meanwhile.
fn over_tree<T>(pid: u32, read: impl Fn(u32) -> io::Result<T>) -> Result<Vec<T>, Failure> {
    let mut all = vec![read(pid).map_err(|error| Failure::Process { pid, error })?];
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            all.extend(read(child));
            parents.push(child);
        }
    }
    Ok(all)
}

impl Queueing {
    /// This thread's, since it started; nothing where the scheduler keeps no account.
    pub fn own() -> Self {
        Self::parse(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
    }

    /// Time on a CPU, time in the queue for one, and how often it got one.
    fn parse(schedstat: &str) -> Self {
        let mut fields = schedstat.split_ascii_whitespace().skip(1).map(|field| field.parse().unwrap_or_default());
        Self { waited: fields.next().unwrap_or_default(), times: fields.next().unwrap_or_default() }
    }

    /// How long others kept it from the CPU since `earlier`: what it waited beyond what it waits for an idle CPU, too.
    pub const fn by_others_since(self, earlier: Self) -> Nanos {
        let waking = (self.times - earlier.times) * WAKING;
        (self.waited - earlier.waited).saturating_sub(waking)
    }
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Whether a process is but an entry that its parent has not read yet: state Z, field 3, or X.
fn has_ended(stat: &str) -> bool {
    let state = stat.rfind(')').and_then(|at| stat[at + 1..].split_ascii_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// utime, stime, cutime and cstime: fields 14 to 17. The name before them may contain anything, so the last `)` ends it.
fn parse_stat(stat: &str) -> Option<[u64; 4]> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse().ok();
    Some([next()?, next()?, next()?, next()?])
}

fn named_kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 11 12 13 14 20 0";
        assert_eq!(parse_stat(stat), Some([11, 12, 13, 14]));
        assert_eq!(parse_stat("7 (a"), None);
        assert!(!has_ended(stat) && !has_ended("7 (a") && has_ended("7 (a ) S) Z 1 7 7 0"));
    }

    #[test]
    fn the_exact_sum_is_divided_as_the_ticks_are() {
        let time = |user, system, exact| CpuTime { user, system, exact };
        let since = time(3.0, 1.0, Some(7.0)).since(time(0.0, 0.0, Some(2.0)));
        assert_eq!((since.user, since.system), (3.75, 1.25));
        let short = time(0.0, 0.0, Some(2.004)).since(time(0.0, 0.0, Some(2.0)));
        assert!(short.user == 0.0 && (short.system - 0.004).abs() < 1e-9);
        let ended = time(3.0, 1.0, Some(2.0)).since(time(0.0, 0.0, Some(1.9)));
        assert_eq!((ended.user, ended.system), (3.0, 1.0), "a thread ended");
    }

    #[test]
    fn workers_are_the_threads_of_the_busiest_kind_the_idle_included() {
        let thread = |kind: &str, seconds| Thread { kind: kind.to_owned(), seconds };
        let begun = BTreeMap::from([(1, thread("main", 9.0)), (2, thread("worker", 1.0)), (3, thread("worker", 1.0))]);
        let ended = BTreeMap::from([(1, thread("main", 9.1)), (2, thread("worker", 4.0)), (3, thread("worker", 1.0))]);
        assert_eq!(workers(&begun, &ended), [3.0, 0.0]);
        assert!(workers(&BTreeMap::new(), &BTreeMap::new()).is_empty());
        let own = threads_of_tree(std::process::id());
        assert!(!own.is_empty() || !children(std::process::id()).is_empty());
    }

    #[test]
    fn what_others_did_is_the_wait_beyond_that_for_an_idle_cpu() {
        assert_eq!(
            (Queueing::parse("11 22 33\n"), Queueing::parse("")),
            (Queueing { waited: 22, times: 33 }, Queueing::default())
        );
        let begun = Queueing { waited: 500 * MICROSECOND, times: 7 };
        let woken = Queueing { waited: 1400 * MICROSECOND, times: 107 };
        assert_eq!(woken.by_others_since(begun), 0, "a hundred times 9 µs");
        let starved = Queueing { waited: 4500 * MICROSECOND, times: 8 };
        assert_eq!(starved.by_others_since(begun), 3990 * MICROSECOND);
    }

    #[test]
    fn softirq_is_the_seventh_field() {
        assert_eq!(parse_softirq("cpu  1 2 3 4 5 6 700 8\ncpu0 1 1 1 1 1 1 1\n"), 700.0);
        assert_eq!(parse_softirq(""), 0.0);
    }

    #[test]
    fn a_child_of_a_child_is_counted() {
        // The shell works in a child of its own and stays until its input ends.
        let script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read x) & read y; wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(shell.stdout.take().unwrap()), &mut line).unwrap();
        let used = CpuTime::of_tree(shell.id()).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(used.user > 0.02, "{used:?}");
    }

    #[test]
    fn a_process_that_ended_is_none_also_before_its_parent_knows() {
        let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
        io::Read::read_to_end(&mut child.stdout.take().unwrap(), &mut Vec::new()).unwrap();
        // Its output ends a moment before it does.
        let is_there = |_: &u32| CpuTime::of_tree(child.id()).is_ok();
        let looks = (0..1000).inspect(|_| std::thread::sleep(std::time::Duration::from_millis(1)));
        assert!(looks.take_while(is_there).count() < 1000);
        child.wait().unwrap();
    }

    #[test]
    fn own_memory_is_some_and_a_process_that_is_gone_is_an_error() {
        let own = Memory::of_tree(std::process::id()).unwrap();
        assert!(own.rss >= own.pss && own.pss > 100_000, "{own:?}");
        let counted = rss_of_tree(std::process::id()).unwrap();
        assert!(counted.abs_diff(own.rss) < own.rss / 2 + (4 << 20), "{counted} {own:?}");
        assert_eq!((parse_resident("9 7 5 3 0 1 0"), parse_resident("9")), (Some(7), None));
        assert!(CpuTime::of_tree(u32::MAX).is_err() && rss_of_tree(u32::MAX).is_err());
    }
}
