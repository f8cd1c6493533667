//! The workers' threads: first every one of them makes its driver, then all of them begin.
//!
//! ```text
//! hire:   thread, pinned -> driver made --all--> begin: listeners bound, work given -> serving
//!                              |
//!                              +--one is refused--> all of them end, and another driver may be tried
//! ```
//!
//! So workers never run on different drivers, and nobody can connect before all of them have theirs.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use core_affinity::CoreId;

use super::storing::Share;
use super::{Listening, ServeError, machine};
use crate::io::{EventBell, Kernel, Options};
use crate::mailbox::Mailbox;
use crate::server::supervisor::{self, Happened};
use crate::worker::{self, Delivery, Request, Shared, Worker};

/// What a worker begins with.
pub(super) struct Work {
    pub listening: Listening,
    pub mailbox: Mailbox<Request<std::os::fd::OwnedFd>, Delivery>,
    /// Of the store, if there is one.
    pub share: Option<Share>,
    pub options: Arc<worker::Options>,
    pub shared: Arc<Shared<EventBell>>,
    pub tell: Sender<Happened>,
}

/// Threads that have their drivers and wait for their work. Dropped, they end without any.
pub(super) struct Crew {
    hands: Vec<Hand>,
}

struct Hand {
    thread: JoinHandle<()>,
    work: Sender<Work>,
    ready: Receiver<Ready>,
}

/// What a thread says when it is ready: the core it was to stay on and may not, if there is one; or why it has no driver.
type Ready = io::Result<Option<CoreId>>;

impl Crew {
    /// Starts as many threads as there are `cores` to stay on, and returns when each of them has its driver.
    ///
    /// # Errors
    /// [`ServeError::Thread`], or [`ServeError::Driver`] with the first refusal; no thread is left then.
    pub fn hire<D: Kernel + 'static>(cores: &[Option<CoreId>], options: &Options) -> Result<Self, ServeError> {
        let started = Instant::now();
        let mut crew = Self { hands: Vec::with_capacity(cores.len()) };
        for (index, core) in cores.iter().copied().enumerate() {
            let (work, to_do) = mpsc::channel();
            let (say, ready) = mpsc::channel();
            let options = options.clone();
            let run = move || {
                let refused = machine::pin(core);
                // The driver is made on the thread that uses it: an io_uring belongs to its thread.
                serve(D::new(options, started), refused, index, &to_do, &say);
            };
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(run).map_err(ServeError::Thread)?;
            crew.hands.push(Hand { thread, work, ready });
        }
        let refused = crew.hands.iter().map(|hand| is_ready(&hand.ready)).collect::<Result<Vec<_>, _>>()?;
        // Said of those who stay: where one has no driver, others are tried in their place.
        for core in refused.into_iter().flatten() {
            tracing::warn!(core = core.id, "a worker cannot be pinned to this core; the kernel moves it as it likes");
        }
        Ok(crew)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hands.len()
    }

    /// Gives each its work and puts its thread into `threads`; returns when all of them serve.
    ///
    /// # Errors
    /// [`ServeError::Driver`] when a driver can't watch its listeners. Others may serve then, and end with their server.
    pub fn begin(mut self, work: impl Iterator<Item = Work>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), ServeError> {
        let mut begun = Vec::with_capacity(self.hands.len());
        for (hand, work) in self.hands.drain(..).zip(work) {
            // A thread that is gone says so by its silence.
            let _ = hand.work.send(work);
            threads.push(hand.thread);
            begun.push(hand.ready);
        }
        begun.iter().try_for_each(|ready| is_ready(ready).map(drop))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for Hand { thread, work, .. } in self.hands.drain(..) {
            drop(work);
            // A panic has been told by its own message.
            let _ = thread.join();
        }
    }
}

fn is_ready(ready: &Receiver<Ready>) -> Result<Option<CoreId>, ServeError> {
    ready.recv().map_err(|_| ServeError::WorkerPanicked)?.map_err(ServeError::Driver)
}

/// The life of a worker's thread. Whoever waits for `say` may have given up meanwhile.
fn serve<D: Kernel>(driver: io::Result<D>, refused: Option<CoreId>, index: usize, to_do: &Receiver<Work>, say: &Sender<Ready>) {
    let mut driver = match driver {
        Ok(driver) => driver,
        Err(error) => return drop(say.send(Err(error))),
    };
    drop(say.send(Ok(refused)));
    // No work comes where another worker got no driver, or an address is taken.
    let Ok(Work { listening, mailbox, share, options, shared, tell }) = to_do.recv() else { return };
    if let Err(error) = driver.listen(listening.sockets) {
        return drop(say.send(Err(error)));
    }
    let mut worker = Worker::new(driver, index, options, shared, mailbox, listening.facts);
    if let Some((port, stored)) = share {
        worker.attach(port, stored);
    }
    drop(say.send(Ok(None)));
    supervisor::tell_the_end(&tell, || worker.run());
}
