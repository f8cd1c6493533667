//! One epoll loop over all connections of a run.
//!
//! Sockets are registered once, edge-triggered, for both directions. What a command wants is told by its [`Load`]: the loop asks
//! it in every turn what is due, and tells it what came. Waiting goes through a timer of the kernel's, because epoll itself waits
//! in whole milliseconds, which would be the tool's own lateness in every open-loop figure.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::ending::Ending;
use crate::failure::Failure;
use crate::net::{Net, Times};
use crate::target::Target;

/// The longest wait, so that Ctrl-C, time-outs and the progress bar have their turn.
pub const WAIT_MAX: Nanos = 100 * MILLISECOND;

/// Room for what one read brings, in bytes: larger than any socket's default buffer.
const RECEIVE_BYTES: usize = 256 * 1024;

/// How many sockets one wait tells of.
const EVENTS_MAX: usize = 1024;

const TIMER: Token = Token(usize::MAX);

/// What a command does with the loop.
pub trait Load {
    /// Does what is due, and says when the next is.
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure>;
    /// A connection is open: its 101 was checked.
    fn opened(&mut self, _net: &mut Net, _id: usize, _times: Times) {}
    /// A message was read at `at`.
    fn message(&mut self, _net: &mut Net, _id: usize, _payload: &[u8], _at: Nanos) {}
    /// A subscription that an open connection asked for, or its end, is in force.
    fn confirmed(&mut self, _net: &mut Net, _id: usize, _at: Nanos) {}
    /// A publication was answered; the server's words where it refused.
    fn answered(&mut self, _net: &mut Net, _id: usize, _result: Result<(), String>, _at: Nanos) {}
    /// A connection ended that the load had not dropped itself. Its number may be used again from now on.
    fn closed(&mut self, net: &mut Net, id: usize, ending: Ending, at: Nanos);
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Whatever comes; at this time at the latest.
    At(Nanos),
    /// The run is over.
    Done,
}

/// The loop.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    /// When the timer fires, or has.
    fires_at: Nanos,
    receive: Box<[u8]>,
    interrupted: Arc<AtomicBool>,
    /// The connections.
    pub net: Net,
}

impl Engine {
    /// A loop for connections to `target`; what is awaited for longer than `timeout` has failed.
    pub fn new(target: Target, timeout: Nanos, interrupted: Arc<AtomicBool>) -> Result<Self, Failure> {
        Self::build(target, timeout, interrupted).map_err(|error| Failure::System("epoll", error))
    }

    fn build(target: Target, timeout: Nanos, interrupted: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let net = Net::new(poll.registry().try_clone()?, target, timeout);
        let receive = vec![0; RECEIVE_BYTES].into_boxed_slice();
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX), timer, fires_at: 0, receive, interrupted, net })
    }

    /// Runs until the load is done, or somebody pressed Ctrl-C: then true.
    pub fn run(&mut self, load: &mut impl Load) -> Result<bool, Failure> {
        let mut looked_at = clock::now();
        loop {
            let now = clock::now();
            let next = load.turn(&mut self.net, now)?;
            self.net.settle(load);
            self.net.handle_resumed(&mut self.receive, load);
            let at = match next {
                Next::Done => return Ok(false),
                Next::At(_) if self.is_interrupted() => return Ok(true),
                Next::At(at) => at.min(now + WAIT_MAX),
            };
            let came_after = self.wait(at, looked_at).map_err(|error| Failure::System("waiting for events", error))?;
            let now = clock::now();
            looked_at = now;
            for event in &self.events {
                if event.token() != TIMER {
                    self.net.handle(event.token().0, event.is_read_closed(), &mut self.receive, came_after.unwrap_or(now), load);
                }
            }
            self.net.expire(now, load);
        }
    }

    /// Whether somebody pressed Ctrl-C.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Waits for events until this time at the latest. What is there without a sleep came while the tool was at work: since when it
    /// lay there is not known, so it counts from when the tool last looked, which is returned then.
    fn wait(&mut self, until: Nanos, looked_at: Nanos) -> io::Result<Option<Nanos>> {
        self.poll(Some(Duration::ZERO))?;
        let now = clock::now();
        if !self.events.is_empty() || until <= now {
            return Ok(Some(looked_at));
        }
        // A timer that is set already will do if it fires no later: the loop comes round once more, and a system call is saved
        // for each sleep before.
        if !(now + 1..=until).contains(&self.fires_at) {
            self.set_timer(until)?;
        }
        self.poll(None).map(|()| None)
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }

    fn set_timer(&mut self, at: Nanos) -> io::Result<()> {
        let time = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as i64 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: time };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        self.fires_at = at;
        Ok(())
    }
}
