//! Listeners, workers, signals, drain.
