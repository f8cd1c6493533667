//! A server that the load test starts itself, kills, and starts again on the same port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use fantail::config::TimeSpan;

use crate::clock::{self, Nanos};
use crate::failure::Failure;
use crate::launch::{Launch, Launched};

/// How long it may take until it accepts.
const START_TIME: Duration = Duration::from_secs(30);

/// The server, running.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    running: Option<Launched>,
    address: SocketAddr,
    interrupted: Arc<AtomicBool>,
    every: Option<Nanos>,
    kill_at: Nanos,
    kills: u64,
    /// From a SIGKILL until the port accepts again, at most.
    slowest: Duration,
}

impl Server {
    /// Starts this command line with its port and waits until it accepts; None after Ctrl-C.
    pub fn start(
        command: &[String],
        port: u16,
        address: SocketAddr,
        kill_every: Option<TimeSpan>,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Option<Self>, Failure> {
        let words = command.iter().map(|word| word.replace("{port}", &port.to_string())).collect();
        let launch = Launch { words, ..Launch::default() };
        let mut running = launch.start()?;
        if !running.wait_for(address, START_TIME, interrupted)? {
            return Ok(None);
        }
        let every = kill_every.map(|every| clock::length(every.duration()).max(1));
        let kill_at = every.map_or(Nanos::MAX, |every| clock::now().saturating_add(every));
        let (running, interrupted) = (Some(running), Arc::clone(interrupted));
        Ok(Some(Self { launch, running, address, interrupted, every, kill_at, kills: 0, slowest: Duration::ZERO }))
    }

    /// Kills it and starts it again if that is due, and waits until it accepts. One that has ended by itself is an error.
    pub fn turn(&mut self, now: Nanos) -> Result<(), Failure> {
        let Some(every) = self.every.filter(|_| now >= self.kill_at) else {
            return self.running.as_mut().map_or(Ok(()), Launched::check);
        };
        let killed_at = Instant::now();
        self.running.take().into_iter().for_each(Launched::kill);
        let mut running = self.launch.start()?;
        // After Ctrl-C the run is over in a moment.
        running.wait_for(self.address, START_TIME, &self.interrupted)?;
        self.slowest = self.slowest.max(killed_at.elapsed());
        self.running = Some(running);
        self.kills += 1;
        self.kill_at = clock::now().saturating_add(every);
        Ok(())
    }

    /// How often it was killed, and how long it took at most until its port was bound again.
    pub const fn kills(&self) -> (u64, Duration) {
        (self.kills, self.slowest)
    }
}
