//! How the capacity of tables follows their content: tight when they grow, given back when they empty.
//!
//! The standard collections double, which is up to half unused, and never shrink by themselves. A server that holds a million
//! subscribers wants neither. Both rules here cost amortised constant time an element.

use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// Makes room for `additional` more elements and at most a quarter beyond: a large table wastes a fifth of itself, not a half.
pub fn reserve_tight<T>(vector: &mut Vec<T>, additional: usize) {
    if vector.capacity() - vector.len() < additional {
        vector.reserve_exact(additional.max(vector.len() / 4));
    }
}

/// A collection that can return the memory of what it no longer holds.
pub trait GiveBack {
    /// Halves the room or better once less than a quarter of it is used. To be called after elements were removed.
    fn give_back(&mut self);
}

/// Collections below this capacity are left alone: the allocator would gain nothing.
const CAPACITY_MIN: usize = 8;

/// The capacity to shrink to, if shrinking is worth its cost now.
fn smaller(length: usize, capacity: usize) -> Option<usize> {
    (capacity >= CAPACITY_MIN && length < capacity / 4).then_some(length * 2)
}

impl<T> GiveBack for Vec<T> {
    fn give_back(&mut self) {
        if let Some(capacity) = smaller(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T> GiveBack for VecDeque<T> {
    fn give_back(&mut self) {
        if let Some(capacity) = smaller(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<T: Ord> GiveBack for BinaryHeap<T> {
    fn give_back(&mut self) {
        if let Some(capacity) = smaller(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> GiveBack for HashMap<K, V, S> {
    fn give_back(&mut self) {
        if let Some(capacity) = smaller(self.len(), self.capacity()) {
            self.shrink_to(capacity);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_wastes_a_fifth_at_most() {
        let mut vector = Vec::new();
        for number in 0..10_000 {
            reserve_tight(&mut vector, 1);
            vector.push(number);
        }
        assert!(vector.capacity() <= 12_500, "{}", vector.capacity());
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut vector: Vec<u32> = (0..10_000).collect();
        let mut map: HashMap<u32, u32> = (0..10_000).map(|number| (number, number)).collect();
        while vector.pop().is_some() {
            vector.give_back();
        }
        for number in 0..10_000 {
            map.remove(&number);
            map.give_back();
        }
        assert!(vector.capacity() < CAPACITY_MIN && map.capacity() < CAPACITY_MIN);
    }
}
