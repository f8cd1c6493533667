//! The way between the engines and the store's thread, both directions bounded by what the engines have under way.
//!
//! A worker takes the lock once in a turn in which it has something for the disk, and the store's thread once for a group; neither does
//! anything long under it. Whoever has no durable topics never comes here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Change;

/// What an engine handed over in one turn.
#[derive(Debug)]
pub struct Batch {
    /// Whose it is.
    pub worker: usize,
    /// Its number among those of its worker.
    number: u64,
    /// After how many failures of that worker it was handed over.
    generation: u64,
    /// What is to be done, in this order.
    pub changes: Vec<Change>,
}

/// What became of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// All up to the one of this number are on the disk.
    pub stored: u64,
    /// All behind it have failed.
    pub has_failed: bool,
}

/// One way for each worker, and the store's end of all; `ring` wakes a worker.
pub fn ports(workers: usize, ring: impl Fn(usize) + Send + Sync + 'static) -> (Vec<Port>, Inbox) {
    let ways = (0..workers).map(|_| Way::new()).collect();
    let middle = Arc::new(Middle { inside: Mutex::default(), arrived: Condvar::new(), is_up: AtomicBool::new(true), ways });
    let port = |worker| Port { middle: Arc::clone(&middle), worker, generation: 0, last: 0 };
    let ports = (0..workers).map(port).collect();
    (ports, Inbox { middle, ring: Box::new(ring), generations: vec![0; workers], missed: Vec::new() })
}

#[derive(Debug)]
struct Middle {
    inside: Mutex<Inside>,
    arrived: Condvar,
    /// Whether the store takes anything.
    is_up: AtomicBool,
    ways: Box<[Way]>,
}

#[derive(Debug, Default)]
struct Inside {
    batches: Vec<Batch>,
    /// For each port that is gone.
    closed: usize,
    /// Nobody takes anything any more.
    is_over: bool,
}

/// The way back to one worker.
#[derive(Debug)]
struct Way {
    has_outcome: AtomicBool,
    outcome: Mutex<Outcome>,
}

impl Way {
    fn new() -> Self {
        Self { has_outcome: AtomicBool::new(false), outcome: Mutex::new(Outcome { stored: 0, has_failed: false }) }
    }
}

/// What is held under these locks is whole whenever they are free.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker's end.
#[derive(Debug)]
pub struct Port {
    middle: Arc<Middle>,
    worker: usize,
    generation: u64,
    last: u64,
}

impl Port {
    /// Whether the store takes anything now; if not, everything would fail.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.middle.is_up.load(Ordering::Relaxed)
    }

    /// The number that the next batch will have.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.last + 1
    }

    /// Hands a batch over, under [`Port::next`].
    pub fn submit(&mut self, changes: Vec<Change>) {
        self.last += 1;
        let batch = Batch { worker: self.worker, number: self.last, generation: self.generation, changes };
        let mut inside = lock(&self.middle.inside);
        if !inside.is_over {
            inside.batches.push(batch);
            self.middle.arrived.notify_one();
        }
    }

    /// Whether there is something to receive.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.middle.ways[self.worker].has_outcome.load(Ordering::Acquire)
    }

    /// What has become of batches since this was last asked.
    pub fn receive(&mut self) -> Option<Outcome> {
        let way = &self.middle.ways[self.worker];
        if !way.has_outcome.swap(false, Ordering::Acquire) {
            return None;
        }
        let outcome = {
            let mut told = lock(&way.outcome);
            let outcome = *told;
            told.has_failed = false;
            outcome
        };
        self.generation += u64::from(outcome.has_failed);
        Some(outcome)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        lock(&self.middle.inside).closed += 1;
        self.middle.arrived.notify_one();
    }
}

/// The store's end.
pub struct Inbox {
    middle: Arc<Middle>,
    ring: Box<dyn Fn(usize) + Send + Sync>,
    /// How often something of each worker has failed.
    generations: Vec<u64>,
    /// What came too late, until it is asked for.
    missed: Vec<Batch>,
}

impl Inbox {
    /// Waits for batches, for `timeout` if one is given; all that have come, possibly none. `None` when nothing more will come.
    pub fn wait(&mut self, timeout: Option<std::time::Duration>) -> Option<Vec<Batch>> {
        let Middle { inside, arrived, ways, .. } = &*self.middle;
        let is_idle = |inside: &mut Inside| inside.batches.is_empty() && inside.closed < ways.len();
        let guard = lock(inside);
        let mut guard = match timeout {
            None => arrived.wait_while(guard, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => arrived.wait_timeout_while(guard, timeout, is_idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        let batches = std::mem::take(&mut guard.batches);
        let is_over = batches.is_empty() && guard.closed == ways.len();
        drop(guard);
        // What was handed over before its worker heard of a failure has failed with it.
        let generations = &self.generations;
        let (batches, missed) = batches.into_iter().partition(|batch| batch.generation == generations[batch.worker]);
        self.missed = missed;
        (!is_over).then_some(batches)
    }

    /// What the last [`Inbox::wait`] left out, because it had failed before it came: what it would have taken away is still to be.
    pub fn missed(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.missed)
    }

    /// These, and all before them of their workers, are on the disk.
    pub fn stored(&self, batches: &[Batch]) {
        self.tell(batches, |outcome, batch| outcome.stored = batch.number);
    }

    /// These are not, and whatever their workers hand over before they hear of that is none either.
    pub fn failed(&mut self, batches: &[Batch]) {
        self.tell(batches, |outcome, _| outcome.has_failed = true);
        for batch in batches {
            self.generations[batch.worker] = batch.generation + 1;
        }
    }

    /// Says whether anything is taken at all.
    pub fn set_up(&self, is_up: bool) {
        self.middle.is_up.store(is_up, Ordering::Relaxed);
    }

    fn tell(&self, batches: &[Batch], note: impl Fn(&mut Outcome, &Batch)) {
        let mut has_news = vec![false; self.generations.len()];
        for batch in batches {
            let way = &self.middle.ways[batch.worker];
            note(&mut lock(&way.outcome), batch);
            has_news[batch.worker] = true;
        }
        for worker in (0..has_news.len()).filter(|worker| has_news[*worker]) {
            self.middle.ways[worker].has_outcome.store(true, Ordering::Release);
            (self.ring)(worker);
        }
    }
}

/// Nobody takes anything any more: whoever waits is refused.
impl Drop for Inbox {
    fn drop(&mut self) {
        self.set_up(false);
        {
            let mut inside = lock(&self.middle.inside);
            (inside.is_over, inside.batches) = (true, Vec::new());
        }
        for (worker, way) in self.middle.ways.iter().enumerate() {
            lock(&way.outcome).has_failed = true;
            way.has_outcome.store(true, Ordering::Release);
            (self.ring)(worker);
        }
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Inbox")
            .field("middle", &self.middle)
            .field("generations", &self.generations)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::{Epoch, Topic};

    fn change(name: &str) -> Vec<Change> {
        vec![Change::Begin { topic: Topic::new(name).unwrap(), epoch: Epoch::from_random(1) }]
    }

    fn inbox(workers: usize) -> (Vec<Port>, Inbox, Arc<Mutex<Vec<usize>>>) {
        let rung = Arc::new(Mutex::new(Vec::new()));
        let bells = Arc::clone(&rung);
        let (ports, inbox) = ports(workers, move |worker| lock(&bells).push(worker));
        (ports, inbox, rung)
    }

    #[test]
    fn what_came_of_all_workers_is_a_group_and_each_is_rung_once() {
        let (mut ports, mut inbox, rung) = inbox(3);
        for (worker, number) in [(0, 1), (2, 1), (0, 2)] {
            assert_eq!(ports[worker].next(), number);
            ports[worker].submit(change("a"));
        }
        let group = inbox.wait(None).unwrap();
        assert_eq!(group.iter().map(|batch| batch.worker).collect::<Vec<_>>(), [0, 2, 0]);
        assert_eq!(ports[0].receive(), None);
        inbox.stored(&group);
        assert_eq!(*lock(&rung), [0, 2]);
        let outcome = |stored| Some(Outcome { stored, has_failed: false });
        let told: Vec<_> = ports.iter_mut().map(Port::receive).collect();
        assert_eq!(told, [outcome(2), None, outcome(1)]);
        assert_eq!(ports[0].receive(), None, "it is told once");
        assert_eq!(inbox.wait(Some(Duration::ZERO)).map(|group| group.len()), Some(0));
    }

    #[test]
    fn what_is_handed_over_before_a_failure_is_heard_of_fails_with_it() {
        let (mut ports, mut inbox, _) = inbox(2);
        (0..2).for_each(|worker| ports[worker].submit(change("a")));
        let stored = inbox.wait(None).unwrap();
        inbox.stored(&stored);
        ports[0].submit(change("b"));
        let failing = inbox.wait(None).unwrap();
        inbox.failed(&failing);
        ports[0].submit(change("c"));
        ports[1].submit(change("d"));
        let group = inbox.wait(None).unwrap();
        assert_eq!(group.iter().map(|batch| batch.worker).collect::<Vec<_>>(), [1], "the other one's goes on");
        assert_eq!(inbox.missed().iter().map(|batch| batch.worker).collect::<Vec<_>>(), [0]);
        assert!(inbox.missed().is_empty(), "it is told once");
        inbox.stored(&group);
        assert_eq!(ports[0].receive(), Some(Outcome { stored: 1, has_failed: true }), "what was stored before counts");
        assert_eq!(ports[1].receive(), Some(Outcome { stored: 2, has_failed: false }));
        ports[0].submit(change("e"));
        let group = inbox.wait(None).unwrap();
        inbox.stored(&group);
        assert_eq!(ports[0].receive(), Some(Outcome { stored: 4, has_failed: false }));
    }

    #[test]
    fn a_store_that_ends_by_a_fault_takes_everybody_s_hope() {
        let (mut ports, inbox, rung) = inbox(2);
        ports[0].submit(change("a"));
        drop(inbox);
        assert_eq!(*lock(&rung), [0, 1]);
        assert!(ports.iter_mut().all(|port| port.receive() == Some(Outcome { stored: 0, has_failed: true }) && !port.is_up()));
    }

    #[test]
    fn nothing_more_comes_when_all_workers_have_gone() {
        let (mut ports, mut inbox, _) = inbox(2);
        ports[1].submit(change("a"));
        drop(ports);
        assert_eq!(inbox.wait(None).map(|group| group.len()), Some(1));
        assert!(inbox.wait(None).is_none());
    }
}
