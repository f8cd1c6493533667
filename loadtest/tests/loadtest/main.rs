//! Black-box tests of the load test tool.

mod errors;
mod faults;
mod floor;
mod real;
mod support;
