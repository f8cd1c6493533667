//! Numbers that one thread writes and others read.
//!
//! A cell is changed by a plain load and a plain store, because its owner alone writes it: that costs what a local variable in
//! memory costs, where an atomic addition would lock the cache line. A reader may see one cell newer than another; each of them
//! is right by itself.

use super::Label;
use std::{
    array,
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. For the owner alone.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
///
/// What one worker adds another may take away, as when a connection moves: the sum over the workers is right even where a
/// single gauge went below zero, because all of them wrap.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the number. For the owner alone.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Adds `n`. For the owner alone.
    #[inline]
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Takes `n` away. For the owner alone.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.set(self.get().wrapping_sub(n));
    }

    /// The number.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A share between 0 and 1.
#[derive(Debug, Default)]
pub struct Ratio(AtomicU64);

impl Ratio {
    /// Sets the share of `part` in `whole`; 0 if there is no whole. For the owner alone.
    pub fn set(&self, part: u64, whole: u64) {
        let share = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        self.0.store(share.to_bits(), Relaxed);
    }

    /// The share.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Upper bounds of a histogram's buckets, in nanoseconds: 10 microseconds to 10 seconds, since a turn may take the one and a
/// large fan-out the other.
pub const BUCKETS_NS: [u64; 19] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How long something took, counted in the buckets of [`BUCKETS_NS`] and one beyond them.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_NS.len() + 1],
    sum_ns: Counter,
}

impl Histogram {
    /// Counts one duration. For the owner alone.
    #[inline]
    pub fn observe_ns(&self, nanoseconds: u64) {
        self.observe_many_ns(nanoseconds, 1);
    }

    /// Counts a duration that so many had in common. For the owner alone.
    #[inline]
    pub fn observe_many_ns(&self, nanoseconds: u64, count: u32) {
        self.buckets[BUCKETS_NS.partition_point(|&bound| bound < nanoseconds)].add(u64::from(count));
        self.sum_ns.add(nanoseconds * u64::from(count));
    }

    /// How many durations fell into each bucket alone; the last is that of those above every bound.
    #[must_use]
    pub fn counts(&self) -> [u64; BUCKETS_NS.len() + 1] {
        array::from_fn(|bucket| self.buckets[bucket].get())
    }

    /// All durations together.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.get()
    }
}

/// One cell for each value of a label.
#[derive(Debug)]
pub struct PerLabel<L, C, const N: usize> {
    cells: [C; N],
    label: PhantomData<L>,
}

impl<L: Label, C, const N: usize> PerLabel<L, C, N> {
    /// The cell of this value.
    #[inline]
    pub fn of(&self, label: L) -> &C {
        &self.cells[label.index()]
    }
}

impl<L: Label, C: Default, const N: usize> Default for PerLabel<L, C, N> {
    fn default() -> Self {
        const { assert!(L::ALL.len() == N, "a cell for each value") };
        Self { cells: array::from_fn(|_| C::default()), label: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 10_000, 10_001, 10_000_000_000, 10_000_000_001] {
            histogram.observe_ns(nanoseconds);
        }
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[18], counts[19]), (2, 1, 1, 1));
        assert_eq!(histogram.sum_ns(), 20_000_020_002);
        histogram.observe_many_ns(2, 3);
        assert_eq!((histogram.counts()[0], histogram.sum_ns()), (5, 20_000_020_008));
    }

    #[test]
    fn gauges_of_two_workers_add_up_though_one_went_below_zero() {
        let (accepted_here, closed_there) = (Gauge::default(), Gauge::default());
        accepted_here.add(5);
        closed_there.sub(2);
        assert_eq!(accepted_here.get().wrapping_add(closed_there.get()), 3);
    }

    #[test]
    fn no_whole_has_no_share() {
        let ratio = Ratio::default();
        ratio.set(1, 4);
        assert_eq!(ratio.get(), 0.25);
        ratio.set(1, 0);
        assert_eq!(ratio.get(), 0.0);
    }
}
