//! A server of a test's own: started from the real binary on free ports, ended by its process id, its log kept.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::PATIENCE;
use crate::health::Vitals;

/// What is set before the start.
pub struct Launch {
    listen: Vec<String>,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
    log: Option<File>,
}

impl Launch {
    /// One listener on a free port of 127.0.0.1 and two workers, so that every test crosses from one worker to another.
    #[must_use]
    pub fn new(flags: &[&str]) -> Self {
        let mut flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        if !flags.iter().any(|flag| flag == "--workers") {
            flags.extend(["--workers".into(), "2".into()]);
        }
        Self { listen: vec!["127.0.0.1:0".into()], flags, environment: Vec::new(), log: None }
    }

    /// With these listeners instead of a free port of 127.0.0.1.
    #[must_use]
    pub fn only(mut self, addresses: &[SocketAddr]) -> Self {
        self.listen = addresses.iter().map(ToString::to_string).collect();
        self
    }

    /// Adds a listener.
    #[must_use]
    pub fn listen(mut self, address: &str) -> Self {
        self.listen.push(address.into());
        self
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Has the log written there; [`Server::log`] has nothing of it then.
    #[must_use]
    pub fn log_to(mut self, file: impl Into<OwnedFd>) -> Self {
        self.log = Some(file.into().into());
        self
    }

    /// Starts the server, waits until it says where it listens, and warms it up.
    #[must_use]
    pub fn start(self) -> Server {
        raise_descriptor_limit();
        let mut command = Command::new(binary());
        command.arg("serve").args(["--admin", "127.0.0.1:0"]).args(&self.flags);
        for address in &self.listen {
            command.args(["--listen", address]);
        }
        let stderr = self.log.map_or_else(Stdio::piped, Stdio::from);
        command.envs(self.environment).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the binary starts");
        // Else the pipe of a log that goes elsewhere would stay open here, too.
        drop(command);
        let (stderr, reader) = child.stderr.take().map(collect).unzip();
        let stderr = stderr.unwrap_or_default();
        let lines = lines(child.stdout.take().expect("stdout is piped"));
        let Some(banner) = Banner::read(&lines, self.listen.len()) else {
            let _ = child.kill();
            let status = child.wait();
            panic!("no banner with {} listeners; {status:?}\n{}", self.listen.len(), stderr.lock().expect("not poisoned"));
        };
        let mut server = Server {
            address: banner.listeners[0],
            addresses: banner.listeners,
            admin: banner.admin.expect("read() waits for it"),
            banner: banner.text,
            child,
            stderr,
            reader,
            ended: false,
            plateau: Vitals::default(),
        };
        server.warm_up();
        server
    }
}

/// A running server. When dropped it is killed; a panic in its log, or an end nobody asked for, fails the test.
pub struct Server {
    /// The first listener.
    pub address: SocketAddr,
    /// Every listener, in the order of the flags.
    pub addresses: Vec<SocketAddr>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// What the server said on stdout when it started.
    pub banner: String,
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    ended: bool,
    pub(crate) plateau: Vitals,
}

impl Server {
    /// A server with these flags beside what [`Launch::new`] sets.
    #[must_use]
    pub fn start(flags: &[&str]) -> Self {
        Launch::new(flags).start()
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    /// Sends SIGTERM: the server drains.
    pub fn terminate(&mut self) {
        self.ended = true;
        kill_process(self.pid(), Signal::TERM).expect("the process is there until it is waited for");
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.ended = true;
        kill_process(self.pid(), Signal::KILL).expect("the process is there until it is waited for");
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// Waits for the end and returns its status.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE * 3, "the server does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let unasked = self.child.try_wait().ok().flatten().filter(|_| !self.ended);
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{log}");
            return;
        }
        assert!(unasked.is_none(), "the server ended by itself, {unasked:?}:\n{log}");
        for word in ["panicked", "stack overflow", "memory allocation of"] {
            assert!(!log.contains(word), "the server's log says {word:?}:\n{log}");
        }
    }
}

/// The binary under test. Cargo sets the variable for integration tests.
#[must_use]
pub fn binary() -> String {
    std::env::var("CARGO_BIN_EXE_fantail").expect("cargo test says where the binary is")
}

/// What a run of the binary left.
#[derive(Debug)]
pub struct Run {
    /// The exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A run of the binary that has begun.
pub struct Running(Child);

/// Begins a run of the binary that reads `input`, with no variable of the caller's that could change what it does.
#[must_use]
pub fn begin(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Running {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("FANTAIL_URL").envs(environment.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    // A run that does not want its input may be gone already.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input);
    Running(child)
}

/// A whole run of the binary without input.
#[must_use]
pub fn run(arguments: &[&str]) -> Run {
    begin(arguments, &[], b"").end()
}

impl Running {
    /// Closes the reading end of its stdout, as `head` does when it has seen enough.
    pub fn close_stdout(&mut self) {
        self.0.stdout = None;
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("the child is ours").is_none()
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Waits for the end.
    #[must_use]
    #[track_caller]
    pub fn end(mut self) -> Run {
        let start = Instant::now();
        while self.0.try_wait().expect("the child is ours").is_none() {
            if start.elapsed() > PATIENCE {
                let _ = self.0.kill();
                panic!("the command does not end: {:?}", self.0.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = self.0.wait_with_output().expect("the pipes are ours");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Run { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Whether a tool that a test needs is there. `scripts/test.sh` installs them all and sets `FANTAIL_TEST_TOOLS=all`, which makes a
/// missing one an error; elsewhere the test says that it was left out.
#[must_use]
pub fn has_tool(path: &str) -> bool {
    let is_there = if path.contains('/') {
        std::path::Path::new(path).exists()
    } else {
        std::env::var_os("PATH").is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| dir.join(path).exists()))
    };
    assert!(is_there || std::env::var("FANTAIL_TEST_TOOLS").as_deref() != Ok("all"), "{path} is not installed");
    if !is_there {
        println!("left out: {path} is not installed");
    }
    is_there
}

/// Lets this process hold as many sockets as it may: many systems start with 1,024.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
}

/// What the server prints at its start: the one place that knows its form.
#[derive(Default)]
struct Banner {
    listeners: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    text: String,
}

impl Banner {
    /// Reads lines until `listeners` addresses and the admin address were named; `None` if that does not come.
    fn read(lines: &Receiver<String>, listeners: usize) -> Option<Self> {
        let mut banner = Self::default();
        let deadline = Instant::now() + PATIENCE;
        while banner.listeners.len() < listeners || banner.admin.is_none() {
            let line = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            banner.take(&line);
        }
        // What else the banner says comes at once.
        while let Ok(line) = lines.recv_timeout(Duration::from_millis(20)) {
            banner.take(&line);
        }
        Some(banner)
    }

    fn take(&mut self, line: &str) {
        for address in line.split("http://").skip(1).filter_map(authority) {
            if line.contains("admin") {
                self.admin.get_or_insert(address);
            } else if !self.listeners.contains(&address) && self.admin != Some(address) {
                self.listeners.push(address);
            }
        }
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// The socket address at the start of `text`, up to the path.
fn authority(text: &str) -> Option<SocketAddr> {
    text.split(|character: char| character == '/' || character.is_whitespace()).next()?.parse().ok()
}

fn collect(mut stderr: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut bytes) {
            shared.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    });
    (text, reader)
}

fn lines(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // After the banner nobody listens; the pipe is still emptied, so that the server never waits on it.
            let _ = sender.send(line);
        }
    });
    receiver
}
