//! Black-box tests of the load test tool.

mod errors;
mod faults;
mod real;
mod support;
