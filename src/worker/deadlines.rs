//! When each slot of a dense table is due.
//!
//! One tick of 4 bytes per slot and no timer objects: with 32 ms ticks, a sweep over all slots now and then is cheaper than
//! keeping them in order, since most deadlines are moved (by any byte that arrives) long before they come. The sweep looks at
//! the least of a chunk at a time, which compilers turn into vector instructions; it's cut into slices, so that a turn stays
//! short however many slots there are.
//!
//! A lower bound of everything due tells when the next sweep is worth its while. Setting a deadline lowers it; moving one away
//! leaves it too low, which costs one sweep for nothing; a complete sweep finds it anew.

use crate::limits::Tick;

/// The deadlines of slots, by number.
#[derive(Debug)]
pub struct Deadlines {
    due: Vec<u32>,
    /// Nothing is due before this.
    bound: u32,
    /// Where the sweep under way goes on; 0 if none is. Beyond the end, the sweep is over: what was set there since is in `left`.
    swept: usize,
    /// The least of what the sweep left behind it and of what was set meanwhile: the next bound.
    left: u32,
}

impl Deadlines {
    /// Slots looked at together: 16 ticks are a cache line.
    const CHUNK: usize = 64;

    /// No slots.
    #[must_use]
    pub const fn new() -> Self {
        Self { due: Vec::new(), bound: NEVER, swept: 0, left: NEVER }
    }

    /// Makes `slot` due at `tick`, in place of what it was due at before.
    pub fn set(&mut self, slot: usize, tick: Tick) {
        if slot >= self.due.len() {
            self.due.resize(slot + 1, NEVER);
        }
        self.due[slot] = tick.0;
        self.bound = self.bound.min(tick.0);
        self.left = self.left.min(tick.0);
    }

    /// When `slot` is due; [`Tick::NEVER`] if it is not.
    #[must_use]
    pub fn due(&self, slot: usize) -> Tick {
        self.due.get(slot).map_or(Tick::NEVER, |due| Tick(*due))
    }

    /// Makes `slot` not due at all.
    pub fn clear(&mut self, slot: usize) {
        if let Some(due) = self.due.get_mut(slot) {
            *due = NEVER;
        }
    }

    /// What the table takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.due.capacity() * size_of::<u32>()
    }

    /// Forgets the slots from `slots` on, and gives memory back once three quarters of it are unused.
    pub fn truncate(&mut self, slots: usize) {
        self.due.truncate(slots);
        if self.due.len() < self.due.capacity() / 4 {
            self.due.shrink_to(self.due.len() * 2);
        }
    }

    /// When [`Self::poll`] must be called next. Never later than the earliest deadline; `None` if there is none.
    #[must_use]
    pub fn next(&self) -> Option<Tick> {
        (self.bound != NEVER).then_some(Tick(self.bound))
    }

    /// Goes on with the sweep over at most `slots_max` slots (at least one); puts those due at `now` into `expired` and clears
    /// them. True if it must be called again before the worker may sleep; when false, nothing is due at `now`.
    ///
    /// A slot due when a sweep begins is reported by that sweep; one set while a sweep is under way, at the latest by the next.
    pub fn poll(&mut self, now: Tick, slots_max: usize, expired: &mut Vec<u32>) -> bool {
        if self.swept == 0 {
            if now.0 < self.bound {
                return false;
            }
            self.left = NEVER;
        }
        let end = self.due.len().min(self.swept.saturating_add(slots_max.max(1)));
        while self.swept < end {
            let chunk_end = end.min(self.swept + Self::CHUNK);
            self.sweep(chunk_end, now, expired);
        }
        if self.swept < self.due.len() {
            return true;
        }
        self.swept = 0;
        self.bound = self.left;
        self.bound <= now.0 && self.bound != NEVER
    }

    /// Sweeps up to `end`. Chunks in which nothing is due, nearly all of them, take the quick look only.
    fn sweep(&mut self, end: usize, now: Tick, expired: &mut Vec<u32>) {
        let start = std::mem::replace(&mut self.swept, end);
        let chunk = &mut self.due[start..end];
        let mut least = chunk.iter().fold(NEVER, |least, &due| least.min(due));
        if least <= now.0 {
            least = NEVER;
            for (slot, due) in (start..).zip(chunk) {
                if *due <= now.0 && *due != NEVER {
                    *due = NEVER;
                    expired.push(slot as u32);
                }
                least = least.min(*due);
            }
        }
        self.left = self.left.min(least);
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::new()
    }
}

const NEVER: u32 = Tick::NEVER.0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set(usize, u32),
        Clear(usize),
        Truncate(usize),
        Wait(u32),
        Poll(usize),
        PollAll(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let slot = 0..300usize;
        let step = prop_oneof![
            6 => (slot.clone(), 0..60u32).prop_map(|(slot, ticks)| Step::Set(slot, ticks)),
            2 => slot.clone().prop_map(Step::Clear),
            1 => slot.prop_map(Step::Truncate),
            2 => (1..20u32).prop_map(Step::Wait),
            4 => (0..150usize).prop_map(Step::Poll),
            1 => (1..150usize).prop_map(Step::PollAll),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// What a table of deadlines means, without any haste.
    #[derive(Default)]
    struct Model {
        due: BTreeMap<usize, u32>,
        now: u32,
    }

    impl Model {
        /// Polls once; everything reported was due, and "nothing more to do" is true.
        fn poll(&mut self, deadlines: &mut Deadlines, slots_max: usize) -> bool {
            let mut expired = Vec::new();
            let again = deadlines.poll(Tick(self.now), slots_max, &mut expired);
            for slot in expired {
                let due = self.due.remove(&(slot as usize));
                assert!(due.is_some_and(|due| due <= self.now), "slot {slot}, due {due:?}, at {}", self.now);
            }
            assert!(again || self.due.values().all(|&due| due > self.now));
            again
        }

        /// With nothing set meanwhile, the rest of a sweep and one more sweep report all that is due.
        fn poll_all(&mut self, deadlines: &mut Deadlines, slots_max: usize) {
            let sweep = 300usize.div_ceil(slots_max);
            assert!((0..2 * sweep).any(|_| !self.poll(deadlines, slots_max)), "not done after two sweeps of {sweep} polls");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_early_and_nothing_missed(steps in steps()) {
            let (mut deadlines, mut model) = (Deadlines::new(), Model::default());
            for step in steps {
                match step {
                    Step::Set(slot, ticks) => {
                        deadlines.set(slot, Tick(model.now + ticks));
                        model.due.insert(slot, model.now + ticks);
                    }
                    Step::Clear(slot) => {
                        deadlines.clear(slot);
                        model.due.remove(&slot);
                    }
                    Step::Truncate(slots) => {
                        deadlines.truncate(slots);
                        model.due.split_off(&slots);
                    }
                    Step::Wait(ticks) => model.now += ticks,
                    Step::Poll(slots_max) => drop(model.poll(&mut deadlines, slots_max)),
                    Step::PollAll(slots_max) => model.poll_all(&mut deadlines, slots_max),
                }
                if let Some(&earliest) = model.due.values().min() {
                    prop_assert!(deadlines.next().is_some_and(|next| next.0 <= earliest));
                }
            }
            model.now += 100;
            model.poll_all(&mut deadlines, 150);
            prop_assert!(model.due.is_empty());
        }
    }

    #[test]
    fn a_sweep_finds_the_bound_anew() {
        let mut deadlines = Deadlines::new();
        deadlines.set(0, Tick(5));
        deadlines.set(1, Tick(9));
        deadlines.clear(0);
        assert_eq!(deadlines.next(), Some(Tick(5)));
        assert!(!deadlines.poll(Tick(5), 10, &mut Vec::new()));
        assert_eq!(deadlines.next(), Some(Tick(9)));
        deadlines.clear(1);
        assert!(!deadlines.poll(Tick(9), 10, &mut Vec::new()));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn the_end_of_time_expires_nothing_that_was_cleared() {
        let mut deadlines = Deadlines::new();
        deadlines.set(0, Tick(1));
        deadlines.set(1, Tick::NEVER);
        let mut expired = Vec::new();
        assert!(!deadlines.poll(Tick::NEVER, 10, &mut expired));
        assert_eq!(expired, [0]);
    }

    #[test]
    fn memory_comes_back() {
        let mut deadlines = Deadlines::new();
        deadlines.set(99_999, Tick(1));
        deadlines.truncate(100);
        assert!(deadlines.due.capacity() <= 400);
    }
}
