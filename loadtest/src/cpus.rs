//! Sets of CPUs: `0`, `0-1`, `0,2`. What a thread is pinned to, the processes that it starts inherit.

use std::fmt;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Deserialize;

use crate::failure::Failure;

/// One CPU or more, in rising order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cpus(Vec<usize>);

impl Cpus {
    /// Just one.
    pub fn one(cpu: usize) -> Self {
        Self(vec![cpu])
    }

    /// Whether `cpu` is among them.
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// Runs `start` with this thread on these CPUs and then puts it back, so that what it starts is pinned and nothing else is.
    pub fn pinned<T>(&self, start: impl FnOnce() -> T) -> Result<T, Failure> {
        let before = sched_getaffinity(None).map_err(|error| Failure::System("reading the CPUs of a thread", error.into()))?;
        self.pin()?;
        let started = start();
        sched_setaffinity(None, &before).map_err(|error| Failure::System("unpinning a thread", error.into()))?;
        Ok(started)
    }

    /// Keeps this thread on these CPUs for good.
    pub fn pin(&self) -> Result<(), Failure> {
        let mut wanted = CpuSet::new();
        let not_one = || Failure::Usage(format!("this process may not run on CPU {self}"));
        for &cpu in &self.0 {
            if cpu >= CpuSet::MAX_CPU {
                return Err(not_one());
            }
            wanted.set(cpu);
        }
        sched_setaffinity(None, &wanted).map_err(|_| not_one())?;
        // The kernel takes a set of which it knows but one; a figure would then be of another machine than it says.
        let is_whole = sched_getaffinity(None).is_ok_and(|set| self.0.iter().all(|&cpu| set.is_set(cpu)));
        if is_whole { Ok(()) } else { Err(Failure::Usage(format!("this process may not run on all CPUs of {self}"))) }
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<usize>().ok().filter(|&cpu| cpu < CpuSet::MAX_CPU);
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => cpus.extend(first..=last),
                _ => return Err(format!("{text:?} is no set of CPUs: write \"0\", \"0-1\" or \"0,2\"")),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Self(cpus))
    }
}

impl TryFrom<String> for Cpus {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written_elsewhere() {
        for (text, cpus) in [("0", "0"), ("0-2", "0,1,2"), ("3,0", "0,3"), ("0-1, 1-2", "0,1,2")] {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), cpus, "{text}");
        }
        for wrong in ["", "a", "-1", "2-1", "0,", "0-", "99999999"] {
            assert!(wrong.parse::<Cpus>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_started_is_pinned_and_the_starter_is_not() {
        let before = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).unwrap();
        let inside = Cpus::one(first).pinned(|| sched_getaffinity(None).unwrap()).unwrap();
        assert_eq!((inside.count(), inside.is_set(first)), (1, true));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        assert!(Cpus::one(CpuSet::MAX_CPU - 1).pinned(|| ()).is_err(), "no test machine has that many");
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
