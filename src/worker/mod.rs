//! The shell: one event loop per core.

mod deadlines;

pub use deadlines::Deadlines;
