//! What all commands have in common: flags, and the way from flags to a loop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use fantail::config::TimeSpan;

use crate::clock::{self, Nanos};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::kernel;
use crate::target::Target;

/// Flags of every command that measures.
#[derive(Args, Debug)]
pub struct Common {
    /// Where to connect: ws://HOST[:PORT]/PATH
    pub url: String,
    /// How long to measure
    #[arg(long, default_value = "10s", value_name = "TIME")]
    pub duration: TimeSpan,
    /// How long to run before measuring; what happens there is in no latency, rate or cost
    #[arg(long, default_value = "1s", value_name = "TIME")]
    pub warmup: TimeSpan,
    /// How long to wait for a connection, an answer or the last message
    #[arg(long, default_value = "5s", value_name = "TIME")]
    pub timeout: TimeSpan,
    /// The server's process: its CPU time per operation, its children included
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Keep the load test on this CPU, from 0
    #[arg(long, value_name = "N")]
    pub cpu: Option<usize>,
    /// Write the results with raw histograms as JSON; - for standard output, and the table to standard error
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Common {
    /// Pins the thread, makes room for the connections, resolves the URL.
    pub fn prepare(&self, connections: usize) -> Result<Engine, Failure> {
        self.cpu.map_or(Ok(()), kernel::pin)?;
        kernel::make_room(connections)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second one ends the process at once; the order of these two lines makes it the second.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
                .map_err(|error| Failure::System("watching for Ctrl-C", error))?;
        }
        Engine::new(Target::resolve(&self.url)?, self.timeout_ns(), interrupted)
    }

    /// `--timeout` in nanoseconds.
    pub fn timeout_ns(&self) -> Nanos {
        clock::length(self.timeout.duration())
    }
}
