//! Workers on scripted drivers: whole servers in one thread, seeded, with a virtual clock.

mod cluster;
mod scenarios;
mod simulation;
