//! Exit statuses beside 0 (done), 1 (could not be run) and 2 (wrong flags).

/// Figures that must not be quoted.
pub const INVALID: u8 = 3;

/// A promise was not kept.
pub const BROKEN: u8 = 4;

/// After Ctrl-C, as shells have it: 128 and the number of SIGINT.
pub const INTERRUPTED: u8 = 130;
