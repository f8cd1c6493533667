//! What the server counts, and the one vocabulary of why a connection ended.

mod cause;

pub use cause::Cause;
