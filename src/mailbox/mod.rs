//! The way into another worker.
