//! The store as a whole, on a disk that fails: what was acknowledged is there, and nothing else but what was under way.

mod damage;
mod model;

use std::sync::Arc;

use super::faults::Disk;
use super::keeper::Keeper;
use super::log::{Log, Opened};
use super::{Inbox, Port, Stored, ports};
use crate::metrics::StoreMetrics;
use model::{Engine, WORKERS};

/// Segments of a few groups.
const SEGMENT_BYTES: u64 = 2048;
/// Turns of a run: enough for some segments to come and go.
const TURNS: usize = 30;

/// Engines and their store, turn by turn.
struct Run {
    disk: Disk,
    keeper: Option<Keeper<Disk>>,
    ports: Vec<Port>,
    engines: Vec<Engine>,
    random: fastrand::Rng,
}

impl Run {
    /// Begins with an empty disk; a crash while the store is opened leaves it without one.
    fn new(seed: u64, disk: Disk) -> Self {
        let engines = (0..WORKERS).map(Engine::new).collect();
        let mut run = Self { disk, keeper: None, ports: Vec::new(), engines, random: fastrand::Rng::with_seed(seed) };
        let _ = run.open();
        run
    }

    fn open(&mut self) -> Result<Vec<Stored>, super::OpenError> {
        let Opened { log, stored, .. } = Log::open(self.disk.clone(), SEGMENT_BYTES)?;
        let (ports, inbox) = ways(&self.disk);
        self.keeper = Some(Keeper::new(log, inbox, Arc::new(StoreMetrics::default())).without_pauses());
        self.ports = ports;
        Ok(stored)
    }

    /// Some engines hand something over, the store does something, and they hear of it.
    fn turn(&mut self) {
        for (engine, port) in self.engines.iter_mut().zip(&mut self.ports) {
            while port.is_up() && self.random.bool() {
                port.submit(engine.turn(&mut self.random));
            }
        }
        let is_idle = self.engines.iter().all(|engine| engine.is_idle());
        if let Some(keeper) = self.keeper.as_mut().filter(|keeper| !is_idle || keeper.has_work()) {
            keeper.step();
        }
        if self.disk.has_crashed() {
            return;
        }
        for (engine, port) in self.engines.iter_mut().zip(&mut self.ports) {
            if let Some(outcome) = port.receive() {
                engine.hear(outcome);
            }
        }
    }

    /// Turns until everybody has heard of everything, and nothing is left to clean.
    fn settle(&mut self) {
        let mut turns = 0;
        while self.keeper.as_ref().is_some_and(Keeper::has_work) || self.engines.iter().any(|engine| !engine.is_idle()) {
            self.keeper.as_mut().unwrap().step();
            for (engine, port) in self.engines.iter_mut().zip(&mut self.ports) {
                port.receive().into_iter().for_each(|outcome| engine.hear(outcome));
            }
            turns += 1;
            assert!(turns < 10_000, "it goes on for ever");
        }
    }

    /// Ends it in order.
    fn close(&mut self) {
        self.settle();
        self.ports.clear();
        self.keeper.take().unwrap().run();
    }

    /// Opens what a crash or an end has left, and says what is wrong with it.
    fn check(&mut self) -> Result<(), String> {
        let stored = self.open().map_err(|error| error.to_string())?;
        self.engines.iter_mut().try_for_each(|engine| engine.adopt(&stored))
    }
}

/// Ports whose workers look at the disk when they are told of something: nothing that is told may wait for it.
fn ways(disk: &Disk) -> (Vec<Port>, Inbox) {
    let disk = disk.clone();
    ports(WORKERS, move |_| assert!(disk.is_synced() || disk.has_failed(), "acknowledged before it was on the disk"))
}

/// Runs with this seed until it crashes, if it does, and gives it a new disk.
fn crashed(seed: u64, call: u64, after: u64) -> Run {
    let disk = Disk::new(seed);
    disk.crash_at(call);
    let mut run = Run::new(seed, disk);
    for _ in 0..TURNS {
        if run.disk.has_crashed() {
            break;
        }
        run.turn();
    }
    run.keeper = None;
    run.disk = run.disk.after_crash(after);
    run
}

/// How many calls such a run makes.
fn calls(seed: u64) -> u64 {
    let mut run = Run::new(seed, Disk::new(seed));
    (0..TURNS).for_each(|_| run.turn());
    run.disk.calls()
}

#[test]
fn what_is_acknowledged_is_there_whenever_the_power_goes() {
    for seed in 0..seeds(2) {
        for call in 0..=calls(seed) {
            for after in 0..3 {
                let mut run = crashed(seed, call, after);
                let told = |error| panic!("seed {seed}, call {call}, after {after}: {error}");
                run.check().unwrap_or_else(told);
                // It goes on from there.
                (0..10).for_each(|_| run.turn());
                run.close();
                run.check().unwrap_or_else(told);
            }
        }
    }
}

#[test]
fn an_error_at_any_call_fails_what_waits_and_nothing_else() {
    use rustix::io::Errno;
    for seed in 0..seeds(2) {
        let calls = calls(seed);
        for call in 0..=calls {
            for (times, error) in [(1, Errno::IO), (2, Errno::NOSPC), (7, Errno::IO)] {
                let disk = Disk::new(seed);
                let mut run = Run::new(seed, disk.clone());
                disk.fail(disk.calls() + call, times, error);
                (0..TURNS).for_each(|_| run.turn());
                // And the power goes, too; or it ends in order.
                run.disk.heal();
                let told = |error| panic!("seed {seed}, call {call}, {times} times: {error}");
                match run.random.bool() {
                    true => {
                        run.keeper = None;
                        run.disk = run.disk.after_crash(call);
                    }
                    false => run.close(),
                }
                run.check().unwrap_or_else(told);
                (0..10).for_each(|_| run.turn());
                run.close();
                run.check().unwrap_or_else(told);
            }
        }
    }
}

#[test]
fn space_is_given_back_also_when_all_topics_vanish() {
    let mut run = Run::new(3, Disk::new(3));
    (0..2000).for_each(|_| run.turn());
    run.settle();
    let files = run.disk.lengths();
    assert!(files.len() < 40, "{files:?}");
    for (engine, port) in run.engines.iter_mut().zip(&mut run.ports) {
        port.submit(engine.end_all());
    }
    run.settle();
    let bytes: usize = run.disk.lengths().iter().sum();
    // A segment, and the frames that say that it is all over.
    assert!(bytes as u64 <= 2 * SEGMENT_BYTES, "{bytes}");
    run.close();
    run.check().unwrap();
}

#[test]
fn quiet_topics_outlive_the_segments_in_which_they_stood() {
    for seed in 0..8 {
        let mut run = Run::new(seed, Disk::new(seed));
        (0..TURNS).for_each(|_| run.turn());
        run.settle();
        let before = super::files::Files::list(&run.disk).unwrap();
        run.engines.iter_mut().for_each(Engine::calm_down);
        for _ in 0..10 {
            (0..TURNS).for_each(|_| run.turn());
            run.settle();
            run.keeper = None;
            run.disk = run.disk.after_crash(seed);
            run.check().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        let left = super::files::Files::list(&run.disk).unwrap();
        assert!(!before.iter().any(|name| left.contains(name)), "{before:?}, then {left:?}");
    }
}

/// More of them with `FANTAIL_STORE_SEEDS`.
fn seeds(default: u64) -> u64 {
    std::env::var("FANTAIL_STORE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(default)
}
