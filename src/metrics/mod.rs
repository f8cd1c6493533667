//! What the server counts, and the one vocabulary of why a connection ended.
//!
//! Each worker has a [`WorkerMetrics`] that it alone writes; whoever is asked for `/metrics` reads them all, adds them up and
//! renders them with what [`ProcessFacts`] says of the process. No label takes a value that a client can invent: label values
//! are the enums of this module.

mod cause;
mod cell;
mod label;
mod process;
mod render;
mod store;
mod text;
mod worker;

pub use cause::Cause;
pub use cell::{BUCKETS_NS, Counter, Gauge, Histogram, PerLabel, Ratio};
pub use label::{
    DropReason, Handler, Label, MemoryKind, PresenceEvent, Recovery, RejectReason, Source, Status, Transport, Trouble,
};
pub use process::ProcessFacts;
pub use render::{CONTENT_TYPE, render};
pub use store::StoreMetrics;
pub use worker::WorkerMetrics;
