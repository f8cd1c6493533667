//! The servers of a comparison while they run: each pinned, waited for, and gone when this is.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::cpus::Cpus;
use crate::failure::Failure;
use crate::launch::{self, Launch, Launched};

use super::file::Server;

/// How long a server may take to listen: some compile themselves first, on a machine that is busy.
const START_TIME: Duration = Duration::from_secs(30);

/// Running servers by name.
#[derive(Debug)]
pub struct Fleet<'a> {
    cpus: Cpus,
    interrupted: &'a AtomicBool,
    running: HashMap<String, Running>,
}

#[derive(Debug)]
struct Running {
    launched: Launched,
    port: u16,
}

/// Where a running server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its process.
    pub pid: u32,
    /// What `{port}` stands for.
    pub port: u16,
    /// Whether it was started just now.
    pub is_new: bool,
}

impl<'a> Fleet<'a> {
    /// None running yet.
    pub fn new(cpus: Cpus, interrupted: &'a AtomicBool) -> Self {
        Self { cpus, interrupted, running: HashMap::new() }
    }

    /// Sees to it that a server runs; `None` after Ctrl-C.
    pub fn ensure(&mut self, server: &Server) -> Result<Option<Place>, Failure> {
        if let Some(running) = self.running.get_mut(&server.name)
            && running.launched.check().is_ok()
        {
            return Ok(Some(Place { pid: running.launched.pid(), port: running.port, is_new: false }));
        }
        self.running.remove(&server.name);
        let port = launch::free_port()?;
        let with_port = |text: &String| text.replace("{port}", &port.to_string());
        let launch = Launch {
            words: server.start.iter().map(with_port).collect(),
            env: server.env.iter().map(|(name, value)| (name.clone(), with_port(value))).collect(),
            cpus: Some(self.cpus.clone()),
        };
        let mut launched = launch.start()?;
        for address in server.addresses(port)? {
            if !launched.wait_for(address, START_TIME, self.interrupted)? {
                return Ok(None);
            }
        }
        let place = Place { pid: launched.pid(), port, is_new: true };
        self.running.insert(server.name.clone(), Running { launched, port });
        Ok(Some(place))
    }

    /// Its last words, if it has ended since it was started.
    pub fn obituary(&mut self, server: &Server) -> Option<String> {
        self.running.get_mut(&server.name)?.launched.check().err().map(|failure| failure.to_string())
    }

    /// Stops one.
    pub fn stop(&mut self, server: &Server) {
        self.running.remove(&server.name);
    }

    /// Stops all.
    pub fn stop_all(&mut self) {
        self.running.clear();
    }
}

/// The version a server says it has.
pub fn version(server: &Server) -> Option<String> {
    if server.version.is_some() {
        return server.version.clone();
    }
    let [program, arguments @ ..] = server.version_command.as_deref()? else { return None };
    let output = Command::new(launch::find(program)?).args(arguments).stdin(Stdio::null()).output().ok()?;
    [output.stdout, output.stderr].iter().find_map(|bytes| find_version(&String::from_utf8_lossy(bytes)))
}

/// The first thing that looks like a version: a number with a point and another number, and what belongs to it.
fn find_version(text: &str) -> Option<String> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || "._-+~".contains(char);
    text.split(|char| !is_part(char)).find_map(|word| {
        let start = word.find(|char: char| char.is_ascii_digit())?;
        let version = word[start..].trim_end_matches(|char: char| !char.is_ascii_alphanumeric());
        let (major, rest) = version.split_once('.')?;
        let is_version = major.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with(|char: char| char.is_ascii_digit());
        is_version.then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1", "1.22.1"),
            ("v20.11.1\n", "20.11.1"),
            ("nats-server: v2.9.10", "2.9.10"),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", "7.0.15"),
            ("openjdk version \"17.0.13\" 2024-10-15", "17.0.13"),
            ("fantail 0.1.0-rc.1.", "0.1.0-rc.1"),
            ("9.4.50-4+deb12u2", "9.4.50-4+deb12u2"),
        ] {
            assert_eq!(find_version(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(find_version("no version, 3 words. 4 more"), None);
    }
}
