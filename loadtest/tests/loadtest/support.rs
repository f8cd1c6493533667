//! What the tests share: the tool run as a process, its JSON read back.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// The tool.
pub const TOOL: &str = env!("CARGO_BIN_EXE_fantail-loadtest");

/// A run of a second.
pub const SHORT: [&str; 4] = ["--duration", "1s", "--warmup", "200ms"];

/// The floor on any free port.
const FLOOR: [&str; 3] = ["floor", "--listen", "127.0.0.1:0"];

/// A server that ends with its test.
pub struct Process {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl Process {
    /// Fantail with one worker.
    pub fn fantail() -> Self {
        Self::fantail_with(&["--workers", "1"])
    }

    /// Fantail with these flags.
    pub fn fantail_with(flags: &[&str]) -> Self {
        let mut command = Command::new(fantail());
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--echo"]).args(flags);
        Self::start(&mut command)
    }

    /// The tool's own floor.
    pub fn floor() -> Self {
        Self::start(Command::new(TOOL).args(FLOOR))
    }

    /// The floor on epoll, and on io_uring where the kernel has it.
    pub fn floors() -> impl Iterator<Item = Self> {
        [Some(Self::floor()), Self::floor_on_uring()].into_iter().flatten()
    }

    /// The floor on io_uring; `None`, with a word of it, where the kernel has none.
    pub fn floor_on_uring() -> Option<Self> {
        let mut command = Command::new(TOOL);
        let mut child = command.args(FLOOR).arg("--uring").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(address) = listening(&mut child) {
            return Some(Self { child, address });
        }
        let output = child.wait_with_output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert!(line.contains("no io_uring for --uring") && line.lines().count() == 1, "{line}");
        assert_eq!(output.status.code(), Some(1));
        println!("skipped: {line}");
        None
    }

    /// Starts it and waits until it says where it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the server starts");
        let address = listening(&mut child).expect("the server says where it listens");
        Self { child, address }
    }

    /// Its number.
    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which the test then says better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fantail's binary. Cargo builds the binaries of other packages for no test, so it has to be there already.
pub fn fantail() -> String {
    let binary = Path::new(TOOL).with_file_name("fantail");
    assert!(binary.exists(), "{}: run `cargo build` first", binary.display());
    binary.to_str().expect("a path in UTF-8").to_owned()
}

/// Where a server says that it listens; `None` when it ends without a word.
fn listening(child: &mut Child) -> Option<String> {
    let lines = BufReader::new(child.stdout.take()?).lines().map_while(Result::ok);
    lines.filter(|line| line.contains("listening")).find_map(|line| {
        let rest = &line[line.find("127.0.0.1:")?..];
        Some(rest.split(|char: char| !char.is_ascii_digit() && char != '.' && char != ':').next()?.to_owned())
    })
}

/// A whole run of the tool.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(TOOL).args(arguments).output().expect("the tool starts")
}

/// A run that measures, and its JSON. Whether it is valid depends on the machine, so both outcomes will do.
pub fn measure(arguments: &[&str]) -> Value {
    let output = run(&[&arguments[..1], &["--json", "-"], &arguments[1..]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {errors}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let is_valid = reports(&json).iter().all(|report| report["valid"] == true);
    assert_eq!(is_valid, output.status.code() == Some(0), "status and JSON agree");
    assert_eq!(errors.contains("INVALID"), output.status.code() == Some(3), "status and table agree");
    json
}

/// The reports of a run: one, or a list of them.
pub fn reports(json: &Value) -> Vec<Value> {
    json.as_array().cloned().unwrap_or_else(|| vec![json.clone()])
}

/// A count of the report.
pub fn count(json: &Value, name: &str) -> u64 {
    json["counts"][name].as_u64().unwrap_or_else(|| panic!("no count {name} in {json:#}"))
}

/// Runs a command against each server and checks what holds for every report.
pub fn against_each(command: &str, path: &str, flags: &[&str], check: impl Fn(&Value)) {
    for server in [Process::fantail()].into_iter().chain(Process::floors()) {
        let (url, pid) = (format!("ws://{}{path}", server.address), server.pid());
        let json = measure(&[&[command, &url, "--pid", &pid], flags, &SHORT].concat());
        assert!(json["seconds"].as_f64().unwrap() >= 0.05, "{json:#}");
        assert!(json["own"]["cpu_share"].as_f64().unwrap() > 0.0, "{json:#}");
        check(&json);
    }
}

/// Percentiles rise, as far as there are enough latencies for them, and there are as many as there were operations to time.
pub fn check_latency(json: &Value, name: &str, at_least: u64) {
    let latency = &json["latencies"][name];
    assert!(latency["count"].as_u64().unwrap() >= at_least, "{json:#}");
    let quantiles: Vec<u64> =
        ["p50", "p90", "p99", "p99.9", "p99.99", "max"].iter().filter_map(|name| latency["quantiles"][name].as_u64()).collect();
    assert!(quantiles.len() >= 2 && quantiles[0] > 0 && quantiles.is_sorted(), "{latency}");
}

/// Starts a server that does `with` each connection, on a thread of its own, by its number; returns its URL.
pub fn serve_each(with: impl Fn(usize, TcpStream) + Copy + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/topic", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, socket) in listener.incoming().map_while(Result::ok).enumerate() {
            thread::spawn(move || with(number, socket));
        }
    });
    url
}

/// Reads until the tool leaves.
pub fn read_to_end(mut socket: &TcpStream) {
    let _ = socket.read_to_end(&mut Vec::new());
}
