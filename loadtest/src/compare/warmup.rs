//! Warming a server up for a kind of URL: short runs of one of its tests until their rate stays where it is.
//!
//! Compilers that work while a program runs, caches and allocators settle after thousands of operations, not after a fixed time.
//! Of a paced test the rate is given, so two runs do; nothing could be seen of a server that keeps up with it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long one run of it measures.
pub const RUN_TIME: Duration = Duration::from_millis(500);

/// How many runs it is reckoned with beforehand.
pub const RUNS_USUAL: u32 = 3;

/// The most runs; a server that has not settled then is measured as it is, and the results say so.
pub const RUNS_MAX: usize = 8;

/// The change of the rate from one run to the next that counts as none.
const CHANGE_MAX: f64 = 0.02;

/// How the warming up went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Warmup {
    /// By which test.
    pub test: String,
    /// For which kind of URL.
    #[serde(default)]
    pub url: String,
    /// Of which server.
    pub server: String,
    /// Operations a second of each run.
    pub rates: Vec<f64>,
    /// Whether the last two were the same within 2 %.
    pub settled: bool,
}

impl Warmup {
    /// Takes the rate of another run.
    pub fn add(&mut self, rate: f64) {
        if let Some(&before) = self.rates.last() {
            self.settled = rate > 0.0 && ((rate - before) / before).abs() < CHANGE_MAX;
        }
        self.rates.push(rate);
    }

    /// Whether another run is of use.
    pub fn wants_more(&self) -> bool {
        !self.settled && self.rates.len() < RUNS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rates: &[f64]) -> (bool, bool) {
        let mut warmup = Warmup::default();
        rates.iter().for_each(|&rate| warmup.add(rate));
        (warmup.settled, warmup.wants_more())
    }

    #[test]
    fn it_ends_when_the_rate_stays() {
        assert_eq!(after(&[]), (false, true));
        assert_eq!(after(&[100.0]), (false, true), "one run can't tell");
        assert_eq!(after(&[100.0, 103.0]), (false, true));
        assert_eq!(after(&[100.0, 103.0, 104.0]), (true, false));
        assert_eq!(after(&[100.0, 97.9]), (false, true), "slower is a change too");
        assert_eq!(after(&[0.0, 0.0]), (false, true), "nothing done is not settled");
    }

    #[test]
    fn it_ends_in_any_case() {
        let rising: Vec<f64> = (0..RUNS_MAX as i32).map(|power| 1.5_f64.powi(power)).collect();
        assert_eq!(after(&rising), (false, false));
    }
}
