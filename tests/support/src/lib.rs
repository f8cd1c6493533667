//! What the black-box tests share: each starts a server of its own from the real binary, talks to it over raw sockets on loopback, and
//! looks afterwards whether the process is as well as before.
//!
//! The clients here are written for this purpose alone. They know nothing of the server's code, they are stricter than any browser, and
//! they can forge every bit.

pub mod health;
pub mod http;
pub mod metrics;
pub mod server;
pub mod socket;
pub mod stream;
pub mod wire;

use std::time::{Duration, Instant};

/// How much longer than its figure anything may take before a test fails: machines that run tests are shared and slow.
pub const SLACK: u32 = 10;

/// How long a test waits for what must come at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The size of a test: the usual one, or with `FANTAIL_FULL=1` the one at which the server is meant to hold
/// (`scripts/robustness.sh`).
#[must_use]
pub fn scaled<T>(usual: T, full: T) -> T {
    if std::env::var_os("FANTAIL_FULL").is_some_and(|value| value == "1") { full } else { usual }
}

/// Prints a measured time beside the figure it is held to, and fails beyond [`SLACK`] times the figure.
#[track_caller]
pub fn figure(what: &str, measured: Duration, limit: Duration) {
    println!("figure: {what}: {measured:.1?} (limit {limit:?}, test fails beyond {:?})", limit * SLACK);
    assert!(measured <= limit * SLACK, "{what} took {measured:?}, the limit is {limit:?}");
}

/// Waits until `holds` does, looking every 10 ms, and returns how long that took.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// The value below which `share` (0 to 1) of `samples` lie.
#[must_use]
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    samples[((samples.len() - 1) as f64 * share) as usize]
}
