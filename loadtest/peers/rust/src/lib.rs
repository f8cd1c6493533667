//! What the small servers have in common: flags, a runtime, a listener, and who is subscribed to what.
//!
//! ```text
//! PEER PORT [--threads N]
//! ```
//!
//! The servers in `src/bin` differ in nothing but the WebSocket crate and what its documentation says about writing. Each
//! connection is one task. A path of `/echo` echoes; on any other path each message goes to all who are connected to that path,
//! the publisher too. A message is handed to a subscriber's task through an unbounded queue, as the chat server among
//! tokio-tungstenite's examples does it; the task takes all that is queued, and writes it with one flush.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// The path that echoes.
pub const ECHO: &str = "/echo";

/// The most messages that a subscriber's task takes at a time.
pub const BATCH_MAX: usize = 64;

/// How many connections may wait for `accept`; the kernel allows that many unless it was told otherwise.
const BACKLOG: u32 = 4096;

/// Runs a server until SIGTERM: one task of `serve` for each connection.
pub fn run<F>(serve: impl Fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let options = Options::from_args();
    options.runtime()?.block_on(async {
        let listener = listen(options.port)?;
        let mut terminate = signal(SignalKind::terminate())?;
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    // The client that gave up while it was queued is no reason to stop.
                    let Ok((stream, _)) = accepted else { continue };
                    stream.set_nodelay(true)?;
                    // The examples of fastwebsockets and tokio-websockets take their tasks out of tokio's budget.
                    tokio::spawn(tokio::task::unconstrained(serve(stream)));
                }
                _ = terminate.recv() => return Ok(()),
            }
        }
    })
}

/// Flags of every server here.
#[derive(Clone, Copy, Debug)]
struct Options {
    port: u16,
    /// Threads of the runtime. One is the current-thread runtime, which is the faster one where a single CPU is measured.
    threads: usize,
}

impl Options {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let parsed = match args[..] {
            [port] => port.parse().ok().map(|port| Self { port, threads: 1 }),
            [port, "--threads", threads] => {
                port.parse().ok().zip(threads.parse().ok()).map(|(port, threads)| Self { port, threads })
            }
            _ => None,
        };
        parsed.filter(|options| options.threads > 0).unwrap_or_else(|| {
            eprintln!("usage: PORT [--threads N]    (1 thread, unless it is said otherwise)");
            std::process::exit(2)
        })
    }

    fn runtime(self) -> io::Result<Runtime> {
        match self.threads {
            1 => Builder::new_current_thread().enable_io().build(),
            threads => Builder::new_multi_thread().worker_threads(threads).enable_io().build(),
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// Who is subscribed to what. `M` is a message in the crate's own type, cheap to clone: its bytes are shared.
pub struct Hub<M>(Mutex<HashMap<String, Arc<Topic<M>>>>);

/// The subscribers of one path.
struct Topic<M>(Mutex<Vec<UnboundedSender<M>>>);

/// A subscriber's place in its topic, which it loses when this is dropped.
pub struct Subscriber<M> {
    topic: Arc<Topic<M>>,
    sender: UnboundedSender<M>,
}

impl<M> Default for Hub<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M: Clone> Hub<M> {
    /// A hub to be shared by all tasks.
    pub fn shared() -> Arc<Self> {
        Arc::default()
    }

    /// Subscribes to the topic of this path. What the subscriber's task has to write comes out of the receiver, which ends when
    /// the subscriber was dropped and all that was queued is taken.
    pub fn subscribe(&self, path: &str) -> (Subscriber<M>, UnboundedReceiver<M>) {
        let topic = Arc::clone(lock(&self.0).entry(path.to_owned()).or_insert_with(|| Arc::new(Topic(Mutex::default()))));
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&topic.0).push(sender.clone());
        (Subscriber { topic, sender }, receiver)
    }
}

impl<M: Clone> Subscriber<M> {
    /// Queues a message for all subscribers of the topic.
    pub fn publish(&self, message: &M) {
        for subscriber in lock(&self.topic.0).iter() {
            // One whose task has just ended takes itself off the list.
            let _ = subscriber.send(message.clone());
        }
    }

    /// Queues a message for this subscriber alone.
    pub fn answer(&self, message: M) {
        // Its own task has the receiver.
        let _ = self.sender.send(message);
    }
}

/// A subscriber's task, for crates whose socket is a stream and a sink of messages. What comes is published where it is data; what
/// is queued is fed, then flushed once. A `next` that is dropped loses nothing, as the stream has what was read.
pub async fn fan_out<S, M, E>(mut socket: S, hub: &Hub<M>, path: &str, is_data: impl Fn(&M) -> bool) -> Result<(), E>
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    M: Clone,
{
    let (subscriber, mut queue) = hub.subscribe(path);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            message = socket.next() => match message.transpose()? {
                Some(message) if is_data(&message) => subscriber.publish(&message),
                Some(_) => {}
                None => return Ok(()),
            },
            _ = queue.recv_many(&mut batch, BATCH_MAX) => {
                for message in batch.drain(..) {
                    socket.feed(message).await?;
                }
                socket.flush().await?;
            }
        }
    }
}

impl<M> Drop for Subscriber<M> {
    fn drop(&mut self) {
        lock(&self.topic.0).retain(|other| !other.same_channel(&self.sender));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("a panic ends the process")
}
