//! What the machine allows: descriptors, cores.

use core_affinity::CoreId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{AutoCount, PinCores};

/// Descriptors that are not connections: listeners, drivers, log, standard streams.
const DESCRIPTORS_RESERVED: usize = 64;
/// Where the kernel states no limit of descriptors, this many connections.
const CONNECTIONS_MAX: usize = 10_000_000;

/// Raises the soft limit of descriptors to the hard one, and returns it; `None` if there is none.
pub(super) fn raise_descriptor_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum;
    }
    current
}

/// How many workers: one for each CPU of the affinity mask, fewer if a cgroup's quota gives less.
pub(super) fn workers(asked: AutoCount) -> usize {
    match asked {
        AutoCount::Exactly(workers) => workers,
        AutoCount::Auto => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// How many connections: what was asked for, or as many as there are descriptors for.
pub(super) fn connections_max(asked: AutoCount, descriptors: Option<u64>) -> usize {
    match (asked, descriptors) {
        (AutoCount::Exactly(connections), _) => connections,
        (AutoCount::Auto, None) => CONNECTIONS_MAX,
        (AutoCount::Auto, Some(descriptors)) => {
            usize::try_from(descriptors).unwrap_or(CONNECTIONS_MAX).saturating_sub(DESCRIPTORS_RESERVED).clamp(1, CONNECTIONS_MAX)
        }
    }
}

/// Which core each worker stays on; none where the kernel may move it. `auto` pins where every CPU has its worker: with fewer
/// workers the kernel finds the idle ones better than a fixed list does.
pub(super) fn cores(pin: &PinCores, workers: usize) -> Vec<Option<CoreId>> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<_> = match pin {
        PinCores::Off => Vec::new(),
        PinCores::Auto if workers < 2 || all.len() != workers => Vec::new(),
        PinCores::Auto | PinCores::On => all.into_iter().cycle().take(workers).map(Some).collect(),
        PinCores::List(list) => list.iter().map(|id| Some(CoreId { id: *id })).collect(),
    };
    cores.resize(workers, None);
    cores
}

/// Pins the calling thread; the core that it cannot be pinned to, if so.
pub(super) fn pin(core: Option<CoreId>) -> Option<CoreId> {
    core.filter(|core| !core_affinity::set_for_current(*core))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_rest() {
        assert_eq!(connections_max(AutoCount::Auto, Some(1024)), 960);
        assert_eq!(connections_max(AutoCount::Auto, Some(10)), 1);
        assert_eq!(connections_max(AutoCount::Exactly(7), Some(1024)), 7);
        assert_eq!(connections_max(AutoCount::Auto, None), CONNECTIONS_MAX);
    }

    #[test]
    fn a_list_of_cores_is_taken_as_it_is() {
        assert_eq!(cores(&PinCores::Off, 2), [None, None]);
        assert_eq!(cores(&PinCores::List(vec![1, 0]), 2), [1, 0].map(|id| Some(CoreId { id })));
    }
}
