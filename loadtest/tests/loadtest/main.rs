//! Black-box tests of the load test tool.

mod brokers;
mod compare;
mod errors;
mod faults;
mod floor;
mod hostile;
mod messages;
mod real;
mod resume;
mod support;
mod tamper;
mod validity;
mod verify;
mod witness;
