//! HTTP/1.1 (RFC 9112) as bytes in, bytes out: heads, bodies, answers. One request at a time, nothing a proxy could smuggle.

mod head;
mod problem;
mod response;

pub use head::{Head, Method};
pub use problem::Problem;
pub use response::{Body, Response};
