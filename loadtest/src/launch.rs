//! Servers that the load test starts itself: on given CPUs, in a process group of their own, gone when it is done with them.
//!
//! A server is a command line that stays in the foreground. What it prints goes to a file without a name, of which the end is
//! told when it does not come up. A group of its own, so that Ctrl-C on a terminal reaches the load test only, which then
//! stops the server and whatever the server started: SIGTERM, and SIGKILL to what is left after [`STOP_TIME`].

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::cpus::Cpus;
use crate::failure::Failure;

/// How long a server may take from SIGTERM to its end.
pub const STOP_TIME: Duration = Duration::from_secs(3);

/// How often to look whether something has come up or gone.
const STEP: Duration = Duration::from_millis(20);

/// How often to try whether a server accepts: what is told of its start is right to this.
const KNOCK: Duration = Duration::from_millis(2);

/// How much of what a server printed is told.
const LAST_LINES: usize = 12;
const LAST_BYTES: u64 = 4096;

/// Below the ports that the kernel gives to clients, so that no connection of the load test takes a server's.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A server to be started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Its command line.
    pub words: Vec<String>,
    /// What is added to its environment.
    pub env: Vec<(String, String)>,
    /// The CPUs it is kept on; all if there are none.
    pub cpus: Option<Cpus>,
}

/// A server that was started. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Launched {
    program: String,
    child: Child,
    output: File,
    /// Its end was taken note of, and its number may be another's.
    is_over: bool,
}

impl Launch {
    /// Starts it, without waiting for anything.
    pub fn start(&self) -> Result<Launched, Failure> {
        let [program, arguments @ ..] = &self.words[..] else {
            return Err(Failure::Usage("a server without a command line cannot be started".to_owned()));
        };
        let output = nameless_file().map_err(|error| Failure::System("a file for what a server prints", error))?;
        let writers = output.try_clone().and_then(|first| Ok((first, output.try_clone()?)));
        let (out, err) = writers.map_err(|error| Failure::System("a file for what a server prints", error))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let spawned = match &self.cpus {
            Some(cpus) => cpus.pinned(|| command.spawn())?,
            None => command.spawn(),
        };
        let child = spawned.map_err(|error| Failure::Program { program: program.clone(), error })?;
        Ok(Launched { program: program.clone(), child, output, is_over: false })
    }
}

impl Launched {
    /// Its process, which leads its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it accepts connections there. False if `interrupted` was set meanwhile; an error if it ended or took longer
    /// than `within`.
    pub fn wait_for(&mut self, address: SocketAddr, within: Duration, interrupted: &AtomicBool) -> Result<bool, Failure> {
        let started = Instant::now();
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(true);
            }
            self.check()?;
            if started.elapsed() > within {
                return Err(self.failure(format!("nothing accepts on {address} after {} s", within.as_secs())));
            }
            std::thread::sleep(KNOCK);
        }
    }

    /// An error, with its last words, if it is no longer there; what it left behind is stopped then.
    pub fn check(&mut self) -> Result<(), Failure> {
        if self.group().is_some_and(|group| !Self::has_ended(group)) {
            return Ok(());
        }
        let how = self.end().map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(self.failure(format!("it ended: {how}")))
    }

    /// Stops it and what it started, and waits for its end. The same as dropping it.
    pub fn stop(self) {
        drop(self);
    }

    /// Kills it and what it started at once, with SIGKILL, and waits for its end.
    pub fn kill(mut self) {
        // That it is gone already is as good.
        let _ = self.end();
    }

    /// The last lines it printed.
    pub fn last_words(&self) -> String {
        let length = self.output.metadata().map_or(0, |metadata| metadata.len());
        let from = length.saturating_sub(LAST_BYTES);
        let mut bytes = vec![0; (length - from) as usize];
        let read = self.output.read_at(&mut bytes, from).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn failure(&self, what: String) -> Failure {
        Failure::Server { program: self.program.clone(), what, output: self.last_words() }
    }

    fn group(&self) -> Option<Pid> {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Whether it has ended, without taking note of it: until then its number, and so its group's, is nobody else's.
    fn has_ended(pid: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    /// Kills what is left of its group, unless that was done before, and takes note of its end.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.is_over {
            self.is_over = true;
            // An error means that there is nobody left, which is what is wanted.
            self.group().map(|group| kill_process_group(group, Signal::KILL));
        }
        self.child.wait()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some(group) = self.group().filter(|_| !self.is_over) {
            let started = Instant::now();
            let _ = kill_process_group(group, Signal::TERM);
            while !Self::has_ended(group) && started.elapsed() < STOP_TIME {
                std::thread::sleep(STEP);
            }
            let _ = self.end();
        }
    }
}

/// Where a command line's program is: a path that exists, or a name that `PATH` leads to. Debian keeps servers in `/usr/sbin`,
/// which is in the `PATH` of few who are not root.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A port of loopback that nobody listens on just now.
pub fn free_port() -> Result<u16, Failure> {
    let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    let mut tried = (0..100).map(|_| listen(fastrand::u16(PORTS)));
    let found = tried.find_map(Result::ok).map_or_else(|| listen(0), Ok);
    found.map(|address| address.port()).map_err(|error| Failure::System("looking for a free port", error))
}

/// A file to append to that is gone with its last descriptor.
fn nameless_file() -> io::Result<File> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("fantail-loadtest-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch { words: ["sh", "-c", script].map(str::to_owned).into(), ..Launch::default() }
    }

    fn is_there(pid: &str) -> bool {
        // A zombie is gone for all but its parent.
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    /// Waits until it has printed something.
    fn first_words(server: &Launched) -> String {
        (0..500)
            .find_map(|_| {
                std::thread::sleep(STEP);
                Some(server.last_words()).filter(|words| !words.is_empty())
            })
            .unwrap()
    }

    #[test]
    fn a_server_that_ends_is_an_error_with_its_last_words() {
        let mut server = shell("seq 1 30; echo the reason >&2; exit 4").start().unwrap();
        let address = ([127, 0, 0, 1], free_port().unwrap()).into();
        let error = server.wait_for(address, Duration::from_secs(20), &AtomicBool::new(false)).unwrap_err().to_string();
        assert!(error.starts_with("sh: it ended: exit status: 4; the last it printed:\n20\n"), "{error}");
        assert!(error.ends_with("30\nthe reason"), "{error}");
    }

    #[test]
    fn a_server_that_does_not_listen_is_an_error_and_a_missing_one_too() {
        let mut server = shell("sleep 60").start().unwrap();
        let address = ([127, 0, 0, 1], free_port().unwrap()).into();
        let error = server.wait_for(address, Duration::from_millis(50), &AtomicBool::new(false)).unwrap_err().to_string();
        assert!(error.contains("nothing accepts on") && error.ends_with("it printed nothing"), "{error}");
        assert!(!server.wait_for(address, Duration::from_secs(9), &AtomicBool::new(true)).unwrap(), "interrupted");
        let missing = Launch { words: vec!["no-such-program".to_owned()], ..Launch::default() }.start().unwrap_err();
        assert!(missing.to_string().starts_with("cannot start no-such-program: "), "{missing}");
        let is_there = |program| find(program).is_some();
        assert!(is_there("sh") && is_there("/bin/sh") && !is_there("no-such-program") && !is_there("./none"));
    }

    #[test]
    fn what_a_server_started_goes_with_it_even_if_it_will_not() {
        let server = shell("trap '' TERM; sleep 600 & echo $!; wait; sleep 600").start().unwrap();
        let (leader, member) = (server.pid().to_string(), first_words(&server));
        assert!(is_there(&leader) && is_there(&member));
        let started = Instant::now();
        server.stop();
        assert!(started.elapsed() >= STOP_TIME, "it ignored SIGTERM");
        assert!(!is_there(&leader));
        // Whom nobody waits for may take a moment to go.
        let is_gone = (0..500).any(|_| {
            std::thread::sleep(STEP);
            !is_there(&member)
        });
        assert!(is_gone);
    }

    #[test]
    fn a_server_is_pinned_and_has_its_environment() {
        let mut launch = shell("grep Cpus_allowed_list /proc/self/status; echo $GREETING; sleep 60");
        launch.env = vec![("GREETING".to_owned(), "hello".to_owned())];
        launch.cpus = Some(Cpus::one(0));
        let server = launch.start().unwrap();
        while !server.last_words().contains("hello") {
            std::thread::sleep(STEP);
        }
        assert_eq!(first_words(&server).split_ascii_whitespace().collect::<Vec<_>>(), ["Cpus_allowed_list:", "0", "hello"]);
    }
}
