//! What all workers share: fixed tables of atomics, no lock.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use foldhash::fast::FixedState;

use crate::io::Bell;
use crate::mailbox::Sleep;
use crate::metrics::{StoreMetrics, WorkerMetrics};

/// How far the server's stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Serving.
    Running = 0,
    /// Serving, but not ready: load balancers look elsewhere.
    Leaving = 1,
    /// Closing in order.
    Draining = 2,
    /// Ending at once.
    Stopped = 3,
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared<B: Bell> {
    peers: Box<[Peer<B>]>,
    hasher: FixedState,
    seed: u64,
    phase: AtomicU8,
    connections: AtomicUsize,
    /// Workers that have nothing under way any more while draining.
    quiet: AtomicUsize,
    /// Workers whose clients have all gone.
    empty: AtomicUsize,
    /// Joins and goodbyes of members so far.
    tickets: AtomicU64,
    /// What the store counts, if there is one.
    store: OnceLock<Arc<StoreMetrics>>,
    addresses: Option<Box<[AtomicU32]>>,
}

#[derive(Debug)]
struct Peer<B> {
    sleep: Sleep,
    /// Connections it has now.
    live: AtomicUsize,
    bell: OnceLock<B>,
    metrics: WorkerMetrics,
}

/// Whose address it is: an IPv4 address is the same by any listener, and an IPv6 client has a network of 64 bits to choose from.
fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

/// A worker makes a turn each second even when it has nothing to do.
const STUCK_NS: u64 = 5_000_000_000;

/// Entries in the table of addresses. Addresses that share an entry share its limit: with 10,000 addresses connected, one in
/// seven shares.
const ADDRESSES: usize = 1 << 16;

impl<B: Bell> Shared<B> {
    /// What `workers` workers share. `seed` must not be guessable: it keys the hashes of names and addresses that clients choose.
    #[must_use]
    pub fn new(workers: usize, seed: u64, limit_addresses: bool) -> Self {
        let peer =
            |_| Peer { sleep: Sleep::new(), live: AtomicUsize::new(0), bell: OnceLock::new(), metrics: WorkerMetrics::default() };
        Self {
            peers: (0..workers).map(peer).collect(),
            hasher: FixedState::with_seed(seed),
            seed,
            phase: AtomicU8::new(Phase::Running as u8),
            connections: AtomicUsize::new(0),
            quiet: AtomicUsize::new(0),
            empty: AtomicUsize::new(0),
            tickets: AtomicU64::new(0),
            store: OnceLock::new(),
            addresses: limit_addresses.then(|| (0..ADDRESSES).map(|_| AtomicU32::new(0)).collect()),
        }
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.peers.len()
    }

    /// A worker's metrics.
    #[must_use]
    pub fn metrics(&self, worker: usize) -> &WorkerMetrics {
        &self.peers[worker].metrics
    }

    /// What the store counts, which is there from the first time that it is asked for.
    pub fn store_metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(self.store.get_or_init(Arc::default))
    }

    /// The same, if there is a store.
    #[must_use]
    pub fn known_store_metrics(&self) -> Option<&StoreMetrics> {
        self.store.get().map(|metrics| &**metrics)
    }

    /// All workers' metrics, in their order.
    pub fn all_metrics(&self) -> impl Iterator<Item = &WorkerMetrics> {
        self.peers.iter().map(|peer| &peer.metrics)
    }

    /// The worker that is home to `topic`: the same in every worker.
    #[must_use]
    pub fn home_of(&self, topic: &str) -> usize {
        (self.hash(topic) % self.peers.len() as u64) as usize
    }

    /// A seed of its own for each worker.
    #[must_use]
    pub fn seed(&self, worker: usize) -> u64 {
        // Not by the table's hash, which has this same key: it would cancel out.
        fastrand::Rng::with_seed(self.seed.wrapping_add(worker as u64)).u64(..)
    }

    /// Whether the worker sleeps.
    #[must_use]
    pub fn sleep(&self, worker: usize) -> &Sleep {
        &self.peers[worker].sleep
    }

    /// Tells what wakes a worker.
    pub fn set_bell(&self, worker: usize, bell: B) {
        // A worker is made once; a second bell would be a second worker of this index.
        assert!(self.peers[worker].bell.set(bell).is_ok(), "worker {worker} has a bell already");
    }

    /// Wakes a worker that sleeps.
    pub fn wake(&self, worker: usize) {
        let peer = &self.peers[worker];
        if peer.sleep.must_wake()
            && let Some(bell) = peer.bell.get()
        {
            bell.ring();
        }
    }

    /// Wakes all workers, whether they sleep or not.
    pub fn ring_all(&self) {
        for bell in self.peers.iter().filter_map(|peer| peer.bell.get()) {
            bell.ring();
        }
    }

    /// A place in the order of all joins and goodbyes of members, on whatever worker.
    #[must_use]
    pub fn draw_ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How far the stop has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Leaving,
            2 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Moves the stop on, and tells all workers; it never goes back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.ring_all();
    }

    /// Connections of all workers.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections of one worker.
    #[must_use]
    pub fn live(&self, worker: usize) -> usize {
        self.peers[worker].live.load(Ordering::Relaxed)
    }

    /// Tells how many connections a worker has.
    pub fn set_live(&self, worker: usize, connections: usize) {
        self.peers[worker].live.store(connections, Ordering::Relaxed);
    }

    /// The worker with the fewest connections.
    #[must_use]
    pub fn fewest_connections(&self) -> usize {
        (0..self.peers.len()).min_by_key(|worker| self.live(*worker)).unwrap_or(0)
    }

    /// A worker that has made no turn for five seconds: something in it hangs.
    #[must_use]
    pub fn stuck_worker(&self, now_ns: u64) -> Option<usize> {
        (0..self.peers.len()).find(|worker| now_ns.saturating_sub(self.metrics(*worker).last_turn_ns.get()) > STUCK_NS)
    }

    /// Counts a connection, unless there are `max` already.
    pub fn try_connect(&self, max: usize) -> bool {
        let counted = self.connections.fetch_add(1, Ordering::Relaxed) < max;
        if !counted {
            self.disconnect();
        }
        counted
    }

    /// Uncounts a connection.
    pub fn disconnect(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection of `address`, unless it has `max` already. The entry to give back with the connection.
    pub fn try_address(&self, address: IpAddr, max: u32) -> Option<u32> {
        let Some(table) = &self.addresses else { return Some(0) };
        let entry = self.hash(&client_of(address)) as usize % ADDRESSES;
        if table[entry].fetch_add(1, Ordering::Relaxed) < max {
            return Some(entry as u32);
        }
        table[entry].fetch_sub(1, Ordering::Relaxed);
        None
    }

    /// Gives the entry of a connection's address back.
    pub fn leave_address(&self, entry: u32) {
        if let Some(table) = &self.addresses {
            table[entry as usize].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// One more worker has nothing under way.
    pub fn report_quiet(&self) {
        self.quiet.fetch_add(1, Ordering::AcqRel);
        self.ring_all();
    }

    /// No worker has anything under way: what was accepted is in the rings or beyond.
    #[must_use]
    pub fn all_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire) == self.peers.len()
    }

    /// One more worker has no client any more.
    pub fn report_empty(&self) {
        self.empty.fetch_add(1, Ordering::AcqRel);
        self.ring_all();
    }

    /// No worker has a client any more.
    #[must_use]
    pub fn all_empty(&self) -> bool {
        self.empty.load(Ordering::Acquire) == self.peers.len()
    }

    fn hash(&self, value: &(impl Hash + ?Sized)) -> u64 {
        self.hasher.hash_one(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scripted::ScriptedBell;

    #[test]
    fn workers_and_starts_have_seeds_of_their_own() {
        let seeds: std::collections::HashSet<u64> = (0..4)
            .flat_map(|seed| (0..4).map(move |worker| Shared::<ScriptedBell>::new(4, seed << 32, false).seed(worker)))
            .collect();
        assert_eq!(seeds.len(), 16);
    }

    #[test]
    fn an_address_is_counted_as_one_client() {
        let shared = Shared::<ScriptedBell>::new(1, 7, true);
        let [v4, mapped, v6, neighbour, other] =
            ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|ip| ip.parse().unwrap());
        let entry = shared.try_address(v4, 1).unwrap();
        assert_eq!(shared.try_address(mapped, 1), None);
        shared.leave_address(entry);
        assert!(shared.try_address(mapped, 1).is_some() && shared.try_address(v6, 1).is_some());
        assert!(shared.try_address(neighbour, 1).is_none() && shared.try_address(other, 1).is_some());
    }
}
