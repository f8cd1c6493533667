//! Black-box tests of the load test tool.

mod compare;
mod errors;
mod faults;
mod real;
mod support;
