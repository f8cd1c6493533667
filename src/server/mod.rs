//! The server: listeners bound, one worker a core, signals, and a stop that loses nothing.
//!
//! ```no_run
//! use fantail::{Config, Server};
//!
//! let config = Config { listen: vec!["127.0.0.1:0".parse()?], ..Config::default() };
//! let server = Server::start(&config)?;
//! println!("http://{}/", server.addresses()[0]);
//! server.drain();
//! server.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod choice;
mod crew;
mod error;
mod listeners;
mod machine;
mod signals;
mod storing;
mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use crate::config::{Config, IoDriver};
use crate::io::EventBell;
use crate::mailbox::mesh;
use crate::worker::{Listener, Phase, Shared};

use crew::Work;
use supervisor::{Happened, Supervisor};

pub use error::ServeError;

/// A running server.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    connections_max: usize,
    io: IoDriver,
    shared: Arc<Shared<EventBell>>,
    tell: Sender<Happened>,
    /// The thread that holds the workers; none once it has been waited for.
    supervisor: Option<JoinHandle<Result<(), ServeError>>>,
}

/// The listening sockets of one worker.
struct Listening {
    sockets: Vec<socket2::Socket>,
    facts: Vec<Listener>,
}

impl Server {
    /// Binds every address, starts the workers, and returns when all of them serve.
    ///
    /// # Errors
    /// [`ServeError`] names the flag or the address, and the fix.
    pub fn start(config: &Config) -> Result<Self, ServeError> {
        config.validate()?;
        let descriptors = machine::raise_descriptor_limit();
        let connections_max = machine::connections_max(config.max_connections, descriptors);
        let cores = machine::cores(&config.pin_cores, machine::workers(config.workers));
        let (io, crew) = choice::hire(config.io, &cores, &config.driver_options())?;
        let workers = crew.len();
        let (listening, addresses, admin) = bind(config, workers)?;
        let shared = Arc::new(Shared::new(workers, fastrand::u64(..), config.max_connections_per_ip > 0));
        let options = Arc::new(config.worker_options(workers, connections_max, io.name()));
        let (tell, happened) = mpsc::channel();
        let begin = |directory| storing::begin(directory, &shared, tell.clone());
        let (shares, store) = config.data_dir.as_deref().map(begin).transpose()?.unzip();
        let mut shares = shares.into_iter().flatten();
        let (threads, drain_delay) = (Vec::new(), config.drain_delay.into());
        let mut supervisor = Supervisor { shared: Arc::clone(&shared), threads, store, happened, drain_delay };
        let mailboxes = mesh(workers, options.mailbox_requests, options.mailbox_deliveries);
        let work = listening.into_iter().zip(mailboxes).map(|(listening, mailbox)| Work {
            listening,
            mailbox,
            share: shares.next(),
            options: Arc::clone(&options),
            shared: Arc::clone(&shared),
            tell: tell.clone(),
        });
        crew.begin(work, &mut supervisor.threads)?;
        let run = || supervisor.run();
        let supervisor = thread::Builder::new().name("supervisor".into()).spawn(run).map_err(ServeError::Thread)?;
        Ok(Self { addresses, admin, connections_max, io, shared, tell, supervisor: Some(supervisor) })
    }

    /// Where clients connect, ports resolved, in the order of `--listen`.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where the admin listener is, unless it is off.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// How many workers serve.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.workers()
    }

    /// Which driver they run on.
    #[must_use]
    pub fn io(&self) -> &'static str {
        self.io.name()
    }

    /// How many connections all of them take.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        self.connections_max
    }

    /// Begins to stop: readiness says no, and after `--drain-delay` everybody is closed in order. Returns at once;
    /// [`Server::wait`] returns when it is done.
    pub fn drain(&self) {
        // Nobody listens any more when the server has stopped already.
        let _ = self.tell.send(Happened::Signal);
    }

    /// Ends at once, without a word to anybody.
    pub fn stop(&self) {
        self.shared.advance(Phase::Stopped);
    }

    /// Has SIGTERM and SIGINT stop this server as [`Server::drain`] does; a second one ends it at once.
    ///
    /// # Errors
    /// The kernel's, when a signal cannot be handled.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        let tell = self.tell.clone();
        signals::each(move || tell.send(Happened::Signal).is_ok())
    }

    /// Waits until the server has stopped.
    ///
    /// # Errors
    /// [`ServeError::WorkerPanicked`] when a worker's state could not be trusted any more; [`ServeError::Interrupted`] when a second
    /// signal ended the drain.
    pub fn wait(mut self) -> Result<(), ServeError> {
        match self.supervisor.take().map(JoinHandle::join) {
            Some(Ok(stopped)) => stopped,
            // Nothing in the supervisor panics; if it did, its workers would have ended with it.
            Some(Err(_)) => Err(ServeError::WorkerPanicked),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            self.stop();
            let _ = supervisor.join();
        }
    }
}

type Bound = (Vec<Listening>, Vec<SocketAddr>, Option<SocketAddr>);

/// Binds all addresses; the admin listener is the last one of the first worker.
fn bind(config: &Config, workers: usize) -> Result<Bound, ServeError> {
    let tuning = listeners::Tuning {
        backlog: config.backlog,
        notsent_lowat: u32::try_from(config.notsent_lowat.bytes()).unwrap_or(u32::MAX),
        tcp_user_timeout: config.tcp_user_timeout.into(),
        busy_poll: config.busy_poll.into(),
    };
    let mut listening: Vec<Listening> = (0..workers).map(|_| Listening { sockets: Vec::new(), facts: Vec::new() }).collect();
    let mut addresses = Vec::new();
    for asked in config.listen_sockets() {
        let (address, sockets) = match listeners::bind_shared(asked, workers, tuning) {
            Ok(bound) => bound,
            Err(error) if config.may_do_without(asked) && no_such_family(&error) => {
                tracing::warn!(%asked, "this machine has no IPv6; that address is left out");
                continue;
            }
            Err(error) => return Err(ServeError::bind("--listen", asked, error)),
        };
        addresses.push(address);
        for (worker, socket) in listening.iter_mut().zip(sockets) {
            worker.sockets.push(socket);
            worker.facts.push(Listener { loopback: address.ip().to_canonical().is_loopback(), admin: false });
        }
    }
    let mut admin = None;
    if let Some(asked) = config.admin.socket() {
        let (address, socket) =
            listeners::bind_alone(asked, tuning).map_err(|error| ServeError::bind("--admin", asked, error))?;
        listening[0].sockets.push(socket);
        listening[0].facts.push(Listener { loopback: address.ip().to_canonical().is_loopback(), admin: true });
        admin = Some(address);
    }
    Ok((listening, addresses, admin))
}

fn no_such_family(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
