//! What bounds time and memory: the worker's tick, pooled buffers, token buckets and the tables that limits spanning workers need.
//!
//! No clock is read here: the caller says what time it is.

mod bucket;
mod pool;
mod room;
mod tick;

pub use bucket::TokenBucket;
pub use pool::BufferPool;
pub use room::{GiveBack, reserve_tight};
pub use tick::{TICK_MS, Tick};
