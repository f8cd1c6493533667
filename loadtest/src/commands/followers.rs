//! The helper processes of a run that needs more connections than one process may have.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::clock::Nanos;
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::kernel;
use crate::report::Report;
use crate::stage::Stage;
use crate::target::Target;

use super::common::Common;
use super::follow::Account;
use super::spread::Layout;

/// All of them. They end with this process, because their orders do.
#[derive(Debug, Default)]
pub struct Followers(Vec<Follower>);

#[derive(Debug)]
struct Follower {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// The most processes of one run.
pub const PROCESSES_MAX: u32 = 64;

/// Descriptors that starting a process takes for a moment: the other ends of its pipes, and one more pipe for its error.
const SPAWNING: u64 = 4;

/// Descriptors by which this process speaks to another: its orders and its answers.
const PIPES: u64 = 2;

/// How many connections each process has: `processes` of them, or as few as the descriptor limit allows. The first share is this
/// process's own, which has so many `others` beside them, and the pipes to the other processes.
pub fn shares(connections: u32, others: u32, processes: Option<u32>) -> Result<Vec<u32>, Failure> {
    let Some(processes) = processes else { return fewest_shares(connections, others, kernel::connections_max()) };
    let processes = processes.clamp(1, connections.max(1));
    let shares = even_shares(connections, processes);
    kernel::make_room(room(&shares, others))?;
    Ok(shares)
}

/// How many descriptors the first of these processes needs for connections and pipes.
pub fn room(shares: &[u32], others: u32) -> usize {
    let needed = u64::from(shares[0]) + u64::from(others) + PIPES * (shares.len() as u64 - 1);
    usize::try_from(needed).unwrap_or(usize::MAX)
}

/// As few shares as there can be where one process may have `most` connections: the first has fewer, as it has the pipes.
fn fewest_shares(connections: u32, others: u32, most: u64) -> Result<Vec<u32>, Failure> {
    for more in 0..PROCESSES_MAX.min(connections.max(1)) {
        let room = most.saturating_sub(u64::from(others) + PIPES * u64::from(more));
        let first = room.min(connections.div_ceil(more + 1).into()) as u32;
        let all = [vec![first], even_shares(connections - first, more)].concat();
        // Who publishes may be a subscriber, so the first process has one.
        let is_whole = all.iter().sum::<u32>() == connections && first >= connections.min(1);
        if is_whole && all.iter().all(|&share| u64::from(share) <= most) {
            return Ok(all);
        }
    }
    // What one process would need; with a higher limit fewer processes do.
    let needed = usize::try_from(u64::from(connections) + u64::from(others)).unwrap_or(usize::MAX);
    kernel::make_room(needed).map(|()| vec![connections])
}

fn even_shares(connections: u32, processes: u32) -> Vec<u32> {
    (0..processes).map(|at| connections / processes + u32::from(at < connections % processes)).collect()
}

impl Followers {
    /// One for each of these shares, for messages of a size and run.
    pub fn start(common: &Common, shares: &[u32], layout: Layout, size: usize, run: u64) -> Result<Self, Failure> {
        let starting = |error| Failure::System("starting another process", error);
        let program = std::env::current_exe().map_err(starting)?;
        let target = Target::resolve(&common.url, common.sub, layout.topics)?;
        let start = |(at, share): (usize, &u32)| {
            let mut command = Command::new(&program);
            command.args(["follow", &common.url, "--topics", &layout.topics.to_string(), "--each", &layout.each.to_string()]);
            let source = common.source.or_else(|| target.source_of(at));
            command.args(source.iter().flat_map(|source| ["--source".to_owned(), source.to_string()]));
            command.args(["--connections", &share.to_string(), "--size", &size.to_string()]);
            command.args(["--run", &run.to_string(), "--timeout", &common.timeout.to_string()]);
            if let Some(dialect) = common.sub {
                command.args(["--sub", dialect.name()]);
            }
            // A group of its own, so that Ctrl-C reaches this process alone; the end of its orders ends it.
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            let needed = (shares.len() - at) as u64 * PIPES + SPAWNING;
            let mut child =
                command.spawn().map_err(|error| kernel::out_of_descriptors(&error, needed).unwrap_or(starting(error)))?;
            let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
                return Err(starting(std::io::ErrorKind::BrokenPipe.into()));
            };
            Ok(Follower { child, orders: Some(orders), answers: BufReader::new(answers) })
        };
        shares.iter().enumerate().map(start).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are any.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets each open as many connections as the list says, numbered from `first` on, and waits until all are open.
    pub fn open(&mut self, first: u32, counts: &[u32]) -> Result<(), Failure> {
        let mut from = first;
        for (follower, count) in self.0.iter_mut().zip(counts) {
            follower.order(&format!("open {from} {}", from + count))?;
            from += count;
        }
        self.0.iter_mut().try_for_each(|follower| match follower.answer()?.split_once(' ') {
            Some(("failed", why)) => Err(Failure::Usage(why.to_owned())),
            _ => Ok(()),
        })
    }

    /// Tells them what is measured, and waits until all have taken note.
    pub fn measure(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.0.iter_mut().try_for_each(|follower| follower.order(&format!("measure {} {}", stage.from, stage.until)))?;
        self.0.iter_mut().try_for_each(|follower| follower.answer().map(|_| ()))
    }

    /// Ends them after `published` publications, of which these were `refused`, by topic and number; returns what they tell.
    pub fn end(mut self, published: u64, refused: impl Iterator<Item = (u32, u64)>) -> Result<Vec<Account>, Failure> {
        let refused: String = refused.map(|(topic, number)| format!(" {topic}:{number}")).collect();
        self.0.iter_mut().try_for_each(|follower| follower.order(&format!("end {published}{refused}")))?;
        let read = |follower: &mut Follower| {
            let line = follower.answer()?;
            serde_json::from_str(&line).map_err(|error| Failure::System("another process' account", error.into()))
        };
        self.0.iter_mut().map(read).collect()
    }
}

impl Follower {
    fn order(&mut self, line: &str) -> Result<(), Failure> {
        let written = self.orders.as_mut().map_or(Ok(()), |orders| writeln!(orders, "{line}"));
        written.map_err(|error| Failure::System("another process", error))
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(0) => Err(Failure::Usage("another process of this load test ended early; its error stands above".to_owned())),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(Failure::System("another process", error)),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // The end of its orders is its end.
        self.orders = None;
        let _ = self.child.wait();
    }
}

/// Adds what followers tell to a report of this process's own share. Where all share one CPU (`pinned`), their processor times add
/// up.
pub fn merge(report: &mut Report, accounts: &[Account], pinned: bool) -> Result<(), Failure> {
    for account in accounts {
        for (name, count) in [
            ("delivered", account.delivered),
            ("lost", account.lost),
            ("duplicated", account.duplicated),
            ("reordered", account.reordered),
            ("foreign", account.foreign),
            ("connections_lost", account.connections_lost),
            ("pings_answered", account.pings),
        ] {
            report.add_count(name, count);
        }
        report.add_lag(&Histogram::from_base64(&account.lag)?);
        report.add_latency("delivery", &Histogram::from_base64(&account.latency)?);
        report.add_latency("last_subscriber", &Histogram::from_base64(&account.last)?);
        report.add_operations(account.operations);
        report.add_own_cpu(account.own_cpu_share, pinned);
        report.add_own_wait(account.own_wait_share);
        report
            .notes
            .extend(account.first_ending.iter().map(|first| format!("the first connection another process lost: {first}")));
    }
    Ok(())
}

/// When the last subscriber of all processes had each publication: when the last process says so. `completions` are this one's.
pub fn last_of_all(accounts: &[Account], completions: &[(u64, Nanos)]) -> Histogram {
    let mut last: HashMap<u64, (usize, Nanos)> = HashMap::new();
    for &(number, latency) in completions.iter().chain(accounts.iter().flat_map(|account| &account.completions)) {
        let (count, slowest) = last.entry(number).or_default();
        *count += 1;
        *slowest = latency.max(*slowest);
    }
    let mut all = Histogram::new();
    last.values().filter(|(count, _)| *count == accounts.len() + 1).for_each(|&(_, slowest)| all.record(slowest));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_each_fits() {
        assert_eq!(shares(10, 0, Some(3)).unwrap(), [4, 3, 3]);
        assert_eq!(shares(2, 1, Some(9)).unwrap(), [1, 1]);
        let most = u32::try_from(kernel::connections_max()).unwrap_or(u32::MAX / 4);
        for others in [0, 7] {
            let all = shares(most * 2 + 1, others, None).unwrap();
            assert_eq!(all.iter().sum::<u32>(), most * 2 + 1);
            assert!(all.len() <= 4 && all.iter().all(|&share| share <= most) && all[0] + others <= most, "{all:?}");
        }
        assert_eq!(shares(most, 0, None).unwrap(), [most]);
    }

    #[test]
    fn pipes_to_other_processes_take_room_of_the_first_share() {
        for (connections, others, most) in
            [(1344, 0, 96), (1344, 5, 96), (97, 0, 96), (96, 0, 96), (96, 1, 96), (1, 0, 1), (0, 0, 9)]
        {
            let all = fewest_shares(connections, others, most).unwrap();
            assert_eq!(all.iter().sum::<u32>(), connections, "{all:?}");
            assert!(room(&all, others) as u64 <= most && all.iter().all(|&share| u64::from(share) <= most), "{all:?}");
        }
        assert_eq!(fewest_shares(96, 0, 96).unwrap(), [96]);
        assert_eq!(fewest_shares(97, 0, 96).unwrap(), [49, 48]);
        assert_eq!(fewest_shares(1344, 0, 96).unwrap().len(), 15);
    }

    #[test]
    fn no_count_of_connections_starts_processes_without_end() {
        let most = kernel::connections_max().saturating_mul(PROCESSES_MAX.into());
        if let Ok(beyond) = u32::try_from(most.saturating_add(1)) {
            assert!(matches!(shares(beyond, 0, None), Err(Failure::Descriptors { .. })));
        }
    }
}
