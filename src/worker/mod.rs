//! The shell: one event loop per core.
