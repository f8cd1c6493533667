//! Medians, their bootstrap intervals, and which of them can be told apart.
//!
//! A median, because one disturbed round then moves nothing. The interval is the percentile bootstrap of the median: it assumes
//! nothing of how figures scatter. With five samples it is their range, from the least to the greatest, which holds the true
//! median 15 times in 16; fewer samples have no interval worth the name, so theirs is without bounds and nothing is told apart
//! by them. The generator is seeded: the same samples have the same interval.

use serde::{Deserialize, Serialize};

/// How often the samples are drawn again.
const RESAMPLES: usize = 4000;

/// Half of what a 95 % interval leaves out.
const TAIL: f64 = 0.025;

/// The fewest samples that have an interval; theirs is their range. The range of four misses the true median once in eight times.
pub const SAMPLES_MIN: usize = 5;

/// A seed like any other.
const SEED: u64 = 0x6661_6e74_6169_6c21;

/// The median of some samples and the interval it is known within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// Where the 95 % interval begins; `None` of fewer samples than [`SAMPLES_MIN`], which say too little about it.
    pub low: Option<f64>,
    /// Where it ends.
    pub high: Option<f64>,
    /// How many samples there were.
    pub samples: usize,
}

impl Estimate {
    /// Of these samples; `None` of none.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let middle = median(samples)?;
        if samples.len() < SAMPLES_MIN {
            return Some(Self { median: middle, low: None, high: None, samples: samples.len() });
        }
        let mut generator = fastrand::Rng::with_seed(SEED);
        let mut drawn = vec![0.0; samples.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                drawn.fill_with(|| samples[generator.usize(..samples.len())]);
                median(&drawn)
            })
            .collect();
        medians.sort_unstable_by(f64::total_cmp);
        let cut = (TAIL * RESAMPLES as f64) as usize;
        let (low, high) = (medians[cut].min(middle), medians[RESAMPLES - 1 - cut].max(middle));
        Some(Self { median: middle, low: Some(low), high: Some(high), samples: samples.len() })
    }

    /// What is known without measuring, such as the ratio of something to itself.
    pub const fn exact(value: f64) -> Self {
        Self { median: value, low: Some(value), high: Some(value), samples: 0 }
    }

    /// Where it may be: everywhere, if nothing is known.
    pub fn bounds(&self) -> (f64, f64) {
        (self.low.unwrap_or(f64::NEG_INFINITY), self.high.unwrap_or(f64::INFINITY))
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => Some(sorted[half]),
        _ => Some((sorted.get(half.checked_sub(1)?)? + sorted[half]) / 2.0),
    }
}

/// Puts what cannot be told apart into groups, and the groups in rising order. Each has numbers of `estimates` in their own
/// order, never by value. Overlaps chain: of two in different groups every interval of the one lies below every interval of the
/// other, so the order of groups is one that no interval contradicts.
pub fn tie_groups(estimates: &[Estimate]) -> Vec<Vec<usize>> {
    let mut rising: Vec<usize> = (0..estimates.len()).collect();
    rising.sort_by(|&a, &b| estimates[a].bounds().0.total_cmp(&estimates[b].bounds().0));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut reach = f64::NEG_INFINITY;
    for each in rising {
        let (low, high) = estimates[each].bounds();
        match groups.last_mut() {
            Some(group) if low <= reach => group.push(each),
            _ => groups.push(vec![each]),
        }
        reach = reach.max(high);
    }
    groups.iter_mut().for_each(|group| group.sort_unstable());
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By its definition: as many below as above.
    fn is_median(samples: &[f64], middle: f64) -> bool {
        let below = samples.iter().filter(|&&sample| sample < middle).count();
        let above = samples.iter().filter(|&&sample| sample > middle).count();
        below <= samples.len() / 2 && above <= samples.len() / 2
    }

    /// The plain twin of the bootstrap: every resample there is, so exact, and affordable for few samples.
    fn all_medians(samples: &[f64]) -> Vec<f64> {
        let count = samples.len();
        let mut medians: Vec<f64> = (0..count.pow(count as u32))
            .map(|mut number| {
                let drawn = samples.iter().map(|_| {
                    let sample = samples[number % count];
                    number /= count;
                    sample
                });
                median(&drawn.collect::<Vec<_>>()).unwrap()
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        medians
    }

    fn overlap(one: &Estimate, other: &Estimate) -> bool {
        let ((low, high), (other_low, other_high)) = (one.bounds(), other.bounds());
        low <= other_high && other_low <= high
    }

    /// The plain twin of the groups: whoever overlaps joins, until nobody does.
    fn joined(estimates: &[Estimate]) -> Vec<usize> {
        let mut group_of: Vec<usize> = (0..estimates.len()).collect();
        for _ in estimates {
            for a in 0..estimates.len() {
                for b in 0..estimates.len() {
                    if overlap(&estimates[a], &estimates[b]) {
                        group_of[a] = group_of[a].min(group_of[b]);
                    }
                }
            }
        }
        group_of
    }

    fn intervals() -> impl Strategy<Value = Vec<Estimate>> {
        let one = (0_i32..40, 0_i32..6, any::<bool>()).prop_map(|(low, width, known)| {
            let known = known || width > 0;
            let bound = |at: i32| known.then_some(f64::from(at));
            Estimate { median: f64::from(low), low: bound(low), high: bound(low + width), samples: 5 }
        });
        prop::collection::vec(one, 0..12)
    }

    proptest! {
        #[test]
        fn a_median_has_as_many_below_as_above(samples in prop::collection::vec(-1e9..1e9_f64, 1..30)) {
            prop_assert!(is_median(&samples, median(&samples).unwrap()));
        }

        #[test]
        fn the_interval_is_that_of_all_resamples(samples in prop::collection::vec(0.1..100.0_f64, SAMPLES_MIN)) {
            let estimate = Estimate::of(&samples).unwrap();
            prop_assert_eq!(estimate, Estimate::of(&samples).unwrap());
            let (low, high) = estimate.bounds();
            prop_assert!(low <= estimate.median && estimate.median <= high);
            let all = all_medians(&samples);
            let cut = |share: f64| (all.len() as f64 * share) as usize;
            let (least, most) = (cut(0.015), cut(0.035));
            let last = all.len() - 1;
            // Drawn 4,000 times, a share of 2.5 % is one of 1.5 to 3.5 % with certainty enough.
            prop_assert!(all[least] <= low && low <= all[most], "{low} of {all:?}");
            prop_assert!(all[last - most] <= high && high <= all[last - least], "{high} of {all:?}");
        }

        #[test]
        fn the_order_of_samples_does_not_matter_to_the_median(mut samples in prop::collection::vec(0.1..100.0_f64, 1..9)) {
            let before = median(&samples);
            samples.reverse();
            prop_assert_eq!(median(&samples), before);
        }

        #[test]
        fn nothing_is_ranked_that_overlaps(estimates in intervals()) {
            let groups = tie_groups(&estimates);
            let plain = joined(&estimates);
            let mut group_of = vec![usize::MAX; estimates.len()];
            for (number, group) in groups.iter().enumerate() {
                prop_assert!(group.is_sorted());
                group.iter().for_each(|&each| group_of[each] = number);
            }
            for a in 0..estimates.len() {
                for b in 0..estimates.len() {
                    prop_assert_eq!(group_of[a] == group_of[b], plain[a] == plain[b], "{} and {}", a, b);
                    prop_assert!(group_of[a] >= group_of[b] || estimates[a].bounds().1 < estimates[b].bounds().0);
                }
            }
        }
    }

    #[test]
    fn few_samples_tell_nothing_apart() {
        assert_eq!(Estimate::of(&[]), None);
        let four = Estimate::of(&[1.0, 1.1, 1.2, 1.3]).unwrap();
        assert_eq!((four.samples, four.bounds()), (4, (f64::NEG_INFINITY, f64::INFINITY)));
        let single = Estimate::of(&[3.0]).unwrap();
        assert_eq!((single.median, single.low), (3.0, None));
        assert_eq!(tie_groups(&[Estimate::exact(9.0), single, Estimate::exact(1.0)]), [[0, 1, 2]]);
        assert_eq!(tie_groups(&[Estimate::exact(9.0), Estimate::exact(1.0)]), [[1], [0]]);
    }

    #[test]
    fn five_samples_reach_from_the_least_to_the_greatest() {
        let estimate = Estimate::of(&[1.2, 1.0, 1.1, 1.4, 1.3]).unwrap();
        assert_eq!((estimate.low, estimate.median, estimate.high), (Some(1.0), 1.2, Some(1.4)));
    }
}
