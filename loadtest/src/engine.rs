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
    /// An event stream stands there with what is handed over next.
    fn position(&mut self, _net: &mut Net, _id: usize, _cursor: &str) {}
    /// An event stream says that something is missing.
    fn gap(&mut self, _net: &mut Net, _id: usize, _words: &[u8]) {}
    /// The body of a good answer by HTTP; [`Load::answered`] follows.
    fn body(&mut self, _net: &mut Net, _id: usize, _body: &[u8], _at: Nanos) {}
    /// A subscription that an open connection asked for, or its end, is in force.
    fn confirmed(&mut self, _net: &mut Net, _id: usize, _at: Nanos) {}
    /// A publication or a poll was answered; the server's words where it refused.
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;
    use crate::client::Purpose;

    const CONNECTIONS: usize = 100;
    const WORK: Nanos = 20 * MILLISECOND;

    /// Opens connections, and then is at work while an answer comes on each: it does the server's part itself.
    struct Busy {
        listener: TcpListener,
        accepted: Vec<TcpStream>,
        turns: u32,
        closed: usize,
    }

    impl Load for Busy {
        fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
            self.turns += 1;
            match self.turns {
                1 => {
                    for _ in 0..CONNECTIONS {
                        net.open(now, 0, Purpose::Visit).unwrap();
                    }
                }
                2 => {
                    self.accepted.extend((0..CONNECTIONS).map(|_| self.listener.accept().unwrap().0));
                    self.accepted.iter_mut().for_each(|socket| socket.write_all(b"HTTP/1.1 404 No\r\n\r\n").unwrap());
                    thread::sleep(Duration::from_nanos(WORK));
                }
                _ => {}
            }
            Ok(if self.closed == CONNECTIONS { Next::Done } else { Next::At(now + WAIT_MAX) })
        }

        fn closed(&mut self, _net: &mut Net, _id: usize, _ending: Ending, _at: Nanos) {
            self.closed += 1;
        }
    }

    #[test]
    fn a_burst_that_came_while_the_tool_worked_counts_from_when_it_last_looked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::resolve(&format!("ws://{}/", listener.local_addr().unwrap()), None, 1).unwrap();
        let mut engine = Engine::new(target, SECOND, Arc::default()).unwrap();
        engine.run(&mut Busy { listener, accepted: Vec::new(), turns: 0, closed: 0 }).unwrap();
        let lag = &engine.net.lag;
        // Half of them are of the openings.
        assert!(lag.len() >= 2 * CONNECTIONS as u64 && lag.quantile(0.51) >= WORK / 100 * 99, "{} ns", lag.quantile(0.51));
    }

    /// Sleeps until times that are now nearer and now farther than the last.
    struct Sleeper {
        due: Vec<Nanos>,
        late: Nanos,
    }

    impl Load for Sleeper {
        fn turn(&mut self, _net: &mut Net, now: Nanos) -> Result<Next, Failure> {
            while let Some(due) = self.due.pop_if(|due| *due <= now) {
                self.late = self.late.max(now - due);
            }
            Ok(self.due.last().map_or(Next::Done, |&due| Next::At(due)))
        }

        fn closed(&mut self, _net: &mut Net, _id: usize, _ending: Ending, _at: Nanos) {}
    }

    #[test]
    fn every_time_is_kept_though_the_timer_is_not_set_for_each() {
        let target = Target::resolve("ws://127.0.0.1:9/", None, 1).unwrap();
        let mut engine = Engine::new(target, SECOND, Arc::default()).unwrap();
        let start = clock::now();
        let due = [350, 230, 220, 100, 99, 1].map(|after| start + after * MILLISECOND).to_vec();
        let mut sleeper = Sleeper { due, late: 0 };
        engine.run(&mut sleeper).unwrap();
        assert!(sleeper.late < WAIT_MAX / 2, "{} ns late", sleeper.late);
        assert!(clock::now() >= start + 350 * MILLISECOND, "nor is any passed over");
    }
}
