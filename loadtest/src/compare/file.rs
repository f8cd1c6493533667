//! What is compared: the TOML file of servers and tests.
//!
//! The file says everything that a reader would want to challenge: how each server is started, with which settings and why.
//! Unknown fields are errors, and an error names the field and the line.

use std::collections::{BTreeMap, HashSet};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cpus::Cpus;
use crate::failure::Failure;
use crate::launch;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// How often each test is run on each server.
    pub rounds: u32,
    /// The CPUs that servers are kept on.
    pub server_cpus: Cpus,
    /// The CPU of the load test.
    pub client_cpu: usize,
    /// The first that has a test is what the others are compared to.
    #[serde(rename = "server")]
    pub servers: Vec<Server>,
    /// In the order they are run.
    #[serde(rename = "test")]
    pub tests: Vec<Test>,
}

/// One server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What tables call it.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// A command that prints it.
    pub version_command: Option<Vec<String>>,
    /// The year that version was released.
    pub year: Option<u16>,
    /// Why it is marked old.
    pub old: Option<String>,
    /// Its command line; `{port}` becomes a free port.
    pub start: Vec<String>,
    /// What is added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What was set, and which documentation recommends it.
    #[serde(default)]
    pub settings: String,
    /// Added to the command of each test whose `url` is `topic`; `{port}` as above.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Whether it is an error that it is not installed or does not start.
    #[serde(default = "yes")]
    pub required: bool,
    /// Programs and files without which it counts as not installed, beside its own program.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Where to connect, by kind.
    pub url: BTreeMap<String, String>,
}

/// One test.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// What `--test` calls it.
    pub name: String,
    /// What it is, for readers.
    pub title: String,
    /// Which of a server's URLs it goes to.
    pub url: String,
    /// Command and flags of the load test, without the URL.
    pub command: Vec<String>,
}

impl Comparison {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| wrong(path, error.to_string()))?;
        Self::parse(&text).map_err(|what| wrong(path, what))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        file.check().map(|()| file)
    }

    /// Leaves only what is named; nothing named leaves all.
    pub fn only(&mut self, servers: &[String], tests: &[String]) -> Result<(), Failure> {
        keep("--server", &mut self.servers, servers, |server| &server.name)?;
        keep("--test", &mut self.tests, tests, |test| &test.name)
    }

    fn check(&self) -> Result<(), String> {
        at_least_one("rounds", self.rounds as usize)?;
        if self.server_cpus.contains(self.client_cpu) {
            return Err(format!("client_cpu {} is one of server_cpus: the load test would be measured too", self.client_cpu));
        }
        at_least_one("server", self.servers.len())?;
        at_least_one("test", self.tests.len())?;
        unique("server", self.servers.iter().map(|server| &server.name))?;
        unique("test", self.tests.iter().map(|test| &test.name))?;
        self.servers.iter().try_for_each(Server::check)?;
        self.tests.iter().try_for_each(|test| self.check_test(test))
    }

    fn check_test(&self, test: &Test) -> Result<(), String> {
        if test.command.is_empty() {
            return Err(format!("test {}: command is empty", test.name));
        }
        let own = ["--json", "--pid", "--cpu"];
        if let Some(flag) = test.command.iter().find(|word| own.contains(&word.split('=').next().unwrap_or_default())) {
            return Err(format!("test {}: command has {flag}, which compare sets itself", test.name));
        }
        if let Some(word) = test.command.iter().find(|word| word.contains("{port}")) {
            return Err(format!("test {}: {word}: a test is of several servers, each with a port of its own", test.name));
        }
        match self.servers.iter().any(|server| server.url.contains_key(&test.url)) {
            true => Ok(()),
            false => Err(format!("test {}: no server has a url.{}", test.name, test.url)),
        }
    }
}

impl Server {
    /// What of it is not on this machine.
    pub fn missing(&self) -> Option<&str> {
        let all = self.start.first().into_iter().chain(&self.needs);
        all.map(String::as_str).find(|needed| launch::find(needed).is_none())
    }

    /// The addresses it has to accept on before it can be measured.
    pub fn addresses(&self, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let mut addresses = Vec::new();
        for url in self.url.values() {
            let authority = authority(url).unwrap_or_default().replace("{port}", &port.to_string());
            let resolved = authority.to_socket_addrs().ok().and_then(|mut found| found.next());
            addresses.extend(Some(resolved.ok_or_else(|| Failure::Url(url.clone()))?));
        }
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if self.start.is_empty() {
            return Err(format!("server {name}: start is empty"));
        }
        if self.version.is_some() && self.version_command.is_some() {
            return Err(format!("server {name}: version and version_command exclude each other"));
        }
        if let Some(word) = self.version_command.iter().flatten().find(|word| word.contains("{port}")) {
            return Err(format!("server {name}: version_command: {word}: it has no port when it is asked"));
        }
        match self.url.iter().find(|(_, url)| authority(url).is_none_or(|authority| !authority.contains(':'))) {
            Some((kind, url)) => Err(format!("server {name}: url.{kind}: {url:?} is no URL with a port")),
            None => Ok(()),
        }
    }
}

const fn yes() -> bool {
    true
}

fn authority(url: &str) -> Option<&str> {
    url.split_once("://")?.1.split(['/', '?']).next()
}

fn wrong(path: &Path, what: String) -> Failure {
    Failure::File { path: path.display().to_string(), what }
}

fn at_least_one(field: &str, count: usize) -> Result<(), String> {
    if count == 0 { Err(format!("{field}: at least one is needed")) } else { Ok(()) }
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = HashSet::new();
    let mut names = names.filter(|name| !seen.insert(name.as_str()));
    names.next().map_or(Ok(()), |name| Err(format!("{what}: two are called {name}")))
}

fn keep<T>(flag: &str, all: &mut Vec<T>, names: &[String], name_of: impl Fn(&T) -> &String) -> Result<(), Failure> {
    if let Some(unknown) = names.iter().find(|&name| !all.iter().any(|one| name_of(one) == name)) {
        let known: Vec<&str> = all.iter().map(|one| name_of(one).as_str()).collect();
        return Err(Failure::Usage(format!("{flag} {unknown}: there are only {}", known.join(", "))));
    }
    all.retain(|one| names.is_empty() || names.contains(name_of(one)));
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const SMALL: &str = r#"
        rounds = 3
        server_cpus = "0"
        client_cpu = 1
        [[server]]
        name = "a"
        version = "1.0"
        year = 2026
        start = ["sh", "-c", "serve {port}"]
        env = { MODE = "fast" }
        settings = "None."
        url = { echo = "ws://127.0.0.1:{port}/echo", topic = "ws://127.0.0.1:{port}/t/{topic}" }
        [[server]]
        name = "b"
        start = ["no-such-program"]
        required = false
        flags = ["--sub", "redis"]
        url.topic = "redis://127.0.0.1:{port}/{topic}"
        [[test]]
        name = "echo"
        title = "Echo"
        url = "echo"
        command = ["echo", "--duration", "2s"]
        [[test]]
        name = "fanout"
        title = "Fan-out"
        url = "topic"
        command = ["fanout", "--connections=10", "--duration", "4s", "--warmup=500ms"]
        [[test]]
        name = "hold"
        title = "Memory"
        url = "topic"
        command = ["hold", "--connections", "100"]
    "#;

    #[test]
    fn a_file_says_what_it_says() {
        let file = Comparison::parse(SMALL).unwrap();
        assert_eq!((file.rounds, file.servers.len(), file.tests.len()), (3, 2, 3));
        assert_eq!(file.servers[0].missing(), None);
        assert_eq!(file.servers[1].missing(), Some("no-such-program"));
        assert_eq!(file.servers[0].addresses(80).unwrap(), ["127.0.0.1:80".parse().unwrap()], "two URLs, one address");
        assert!(file.servers[0].required && !file.servers[1].required);
    }

    #[test]
    fn only_what_is_named_is_left() {
        let mut file = Comparison::parse(SMALL).unwrap();
        file.only(&["b".to_owned()], &[]).unwrap();
        assert_eq!((file.servers.len(), file.tests.len()), (1, 3));
        let error = file.only(&[], &["ecko".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "--test ecko: there are only echo, fanout, hold");
    }

    #[test]
    fn errors_name_the_field() {
        for (from, to, words) in [
            ("rounds = 3", "round = 3", "round"),
            ("rounds = 3", "rounds = 0", "rounds: at least one"),
            ("rounds = 3", "rounds = \"x\"", "rounds = \"x\""),
            ("year = 2026", "yaer = 2026", "yaer"),
            ("title = \"Echo\"", "", "title"),
            ("server_cpus = \"0\"", "server_cpus = \"a\"", "is no set of CPUs"),
            ("client_cpu = 1", "client_cpu = 0", "client_cpu 0 is one of server_cpus"),
            ("name = \"b\"", "name = \"a\"", "server: two are called a"),
            ("url = \"echo\"", "url = \"ecko\"", "test echo: no server has a url.ecko"),
            ("[\"no-such-program\"]", "[]", "server b: start is empty"),
            ("redis://127.0.0.1:{port}/{topic}", "/no/where", "server b: url.topic"),
            ("[\"echo\", ", "[\"echo\", \"--post={port}\", ", "test echo: --post={port}: a test is of several servers"),
            ("version = \"1.0\"", "version_command = [\"a\", \"{port}\"]", "server a: version_command: {port}"),
            ("[\"echo\", ", "[\"echo\", \"--cpu=3\", ", "--cpu=3, which compare sets itself"),
        ] {
            let text = SMALL.replacen(from, to, 1);
            assert_ne!(text, SMALL, "{from}");
            let error = Comparison::parse(&text).unwrap_err();
            assert!(error.contains(words), "{to}: {error}");
        }
    }
}
