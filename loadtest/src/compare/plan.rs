//! In which order what is run, and how long that takes.
//!
//! ```text
//! tests on servers that stay up   for each round: for each test: servers forward, in the next round backward
//! tests on fresh servers          the same, afterwards
//! ```
//!
//! A drift of the machine then meets every server alike, and no server always runs behind the same neighbour. Memory is
//! measured on fresh servers: what a crowd left behind in an allocator would be given to the next one for nothing.

use std::time::Duration;

use fantail::config::TimeSpan;

use super::file::{Comparison, Server, Test};
use super::warmup;

/// What a run takes beside its duration and warm-up: its start, its connections, its last messages. A fan-out to 1,000 takes 0.4 s,
/// an echo 0.6 s.
const BESIDE: Duration = Duration::from_millis(700);

/// One run to be made.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Of which test.
    pub test: &'a Test,
    /// On which server.
    pub server: &'a Server,
    /// In which round, from 1.
    pub round: u32,
    /// Whether the server is warmed up before, for this kind of URL.
    pub is_first: bool,
}

/// All runs in their order.
pub fn steps(file: &Comparison, rounds: u32) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    for fresh in [false, true] {
        for round in 1..=rounds {
            for test in file.tests.iter().filter(|test| test.wants_fresh_server() == fresh) {
                let mut servers: Vec<&Server> = file.servers.iter().filter(|server| server.has(test)).collect();
                if round % 2 == 0 {
                    servers.reverse();
                }
                for server in servers {
                    let is_same = |step: &Step<'_>| step.server.name == server.name && step.test.url == test.url;
                    let is_first = !fresh && !steps.iter().any(is_same);
                    steps.push(Step { test, server, round, is_first });
                }
            }
        }
    }
    steps
}

/// The test that a server is warmed up with for a kind of URL: of a paced one the rate is given, and a slow one warms little.
pub fn warmup_test<'a>(file: &'a Comparison, url: &str) -> Option<&'a Test> {
    let of_kind = || file.tests.iter().filter(|test| test.url == url && !test.wants_fresh_server());
    of_kind().find(|test| test.flag("--rate").is_none()).or_else(|| of_kind().next())
}

impl Step<'_> {
    /// How long it takes, the first of its kind with its warming up.
    pub fn estimate(&self) -> Duration {
        let flag = |name, default| self.test.flag(name).and_then(|text| text.parse().ok()).map_or(default, TimeSpan::duration);
        let (duration, rest) = (flag("--duration", Duration::from_secs(10)), flag("--warmup", Duration::from_secs(1)));
        match (self.test.wants_fresh_server(), self.is_first) {
            (true, _) => duration + 2 * rest + 3 * BESIDE,
            (false, true) => duration + rest + BESIDE + warmup::RUNS_USUAL * (warmup::RUN_TIME + BESIDE),
            (false, false) => duration + rest + BESIDE,
        }
    }
}

impl Server {
    /// Whether this test can be run on it.
    pub fn has(&self, test: &Test) -> bool {
        self.url.contains_key(&test.url)
    }
}

impl Test {
    /// Whether it needs a server that did nothing before.
    pub fn wants_fresh_server(&self) -> bool {
        self.command[0] == "hold"
    }

    /// The value of a flag in its command.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let (at, attached) = find(&self.command, name)?;
        attached.or_else(|| self.command.get(at + 1).map(String::as_str))
    }

    /// Its command with other values for some flags.
    pub fn command_with(&self, flags: &[(&str, &str)]) -> Vec<String> {
        let mut command = self.command.clone();
        for (name, value) in flags {
            if let Some((at, attached)) = find(&command, name) {
                let words = if attached.is_some() { 1 } else { 2 };
                command.drain(at..(at + words).min(command.len()));
            }
            command.extend([(*name).to_owned(), (*value).to_owned()]);
        }
        command
    }
}

/// Where a flag stands, and its value if that is in the same word.
fn find<'a>(command: &'a [String], name: &str) -> Option<(usize, Option<&'a str>)> {
    command.iter().enumerate().find_map(|(at, word)| {
        let rest = word.strip_prefix(name)?;
        if rest.is_empty() { Some((at, None)) } else { rest.strip_prefix('=').map(|value| (at, Some(value))) }
    })
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::SMALL;
    use super::*;

    #[test]
    fn rounds_alternate_and_fresh_servers_come_last() {
        let file: Comparison = toml::from_str(SMALL).unwrap();
        let steps = steps(&file, 3);
        let words: Vec<String> =
            steps.iter().map(|step| format!("{}{}{}", &step.test.name[..1], step.server.name, step.round)).collect();
        let expected = "ea1 fa1 fb1 ea2 fb2 fa2 ea3 fa3 fb3 ha1 hb1 hb2 ha2 ha3 hb3";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn flags_are_found_and_replaced_either_way_they_are_written() {
        let file: Comparison = toml::from_str(SMALL).unwrap();
        let fanout = &file.tests[1];
        assert_eq!((fanout.flag("--duration"), fanout.flag("--warmup")), (Some("4s"), Some("500ms")));
        assert_eq!((fanout.flag("--connections"), fanout.flag("--size")), (Some("10"), None));
        let command = fanout.command_with(&[("--duration", "1s"), ("--warmup", "0s"), ("--size", "9")]).join(" ");
        assert_eq!(command, "fanout --connections=10 --duration 1s --warmup 0s --size 9");
    }

    #[test]
    fn a_server_is_warmed_up_once_for_each_kind_of_url() {
        let mut file: Comparison = toml::from_str(SMALL).unwrap();
        let mut paced = file.tests[1].clone();
        paced.name = "paced".to_owned();
        paced.command.extend(["--rate".to_owned(), "9".to_owned()]);
        file.tests.insert(0, paced);
        let steps = steps(&file, 3);
        let first = |step: &&Step<'_>| step.is_first;
        let words: Vec<String> =
            steps.iter().filter(first).map(|step| format!("{} {} {}", step.test.name, step.server.name, step.round)).collect();
        assert_eq!(words, ["paced a 1", "paced b 1", "echo a 1"]);
        assert_eq!(warmup_test(&file, "topic").unwrap().name, "fanout", "not the paced one");
        assert!(warmup_test(&file, "none").is_none());
    }

    #[test]
    fn the_shipped_comparison_takes_less_than_28_minutes() {
        let file: Comparison = toml::from_str(include_str!("../../peers/compare.toml")).unwrap();
        assert_eq!(file.rounds, 5, "fewer have no intervals");
        let time: Duration = steps(&file, file.rounds).iter().map(Step::estimate).sum();
        assert!(time < Duration::from_secs(28 * 60), "{time:?} with all servers there");
    }

    #[test]
    fn a_run_takes_longer_than_its_duration() {
        let file: Comparison = toml::from_str(SMALL).unwrap();
        let step = Step { test: &file.tests[1], server: &file.servers[0], round: 2, is_first: false };
        assert_eq!(step.estimate(), Duration::from_millis(5200));
        assert!(Step { is_first: true, ..step }.estimate() > Duration::from_secs(8));
    }
}
