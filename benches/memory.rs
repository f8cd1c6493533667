//! User memory of an idle subscribed WebSocket: the slope of the server's resident memory between 2,000 and 10,000 held.
//!
//! `cargo bench --bench memory`; `FANTAIL_BIN` names another binary than that profile's. Resident memory counts what is touched, in whole pages, so it is the slope that means something:
//! what the server needs without anybody is in both figures. `RssAnon` leaves out the program's own text. A slope beyond what is
//! allowed is a failure: the exit status says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const FEW: usize = 2_000;
const MANY: usize = 10_000;
/// Memory has settled when this many samples in a row are the same; it is given ten seconds.
const SAMPLES_STILL: usize = 5;
const SAMPLE_EVERY: Duration = Duration::from_millis(400);
const SAMPLES_MAX: usize = 25;
/// What docs/architecture.md allows for an idle subscriber ("Memory"), in bytes.
const SUBSCRIBER_BYTES_MAX: f64 = 256.0;

fn main() {
    // `cargo test --benches` and `cargo clippy --all-targets` only want it to build and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut is_within = true;
    for workers in ["1", "2"] {
        let mut server = Server::start(workers);
        let mut held = Vec::with_capacity(MANY);
        let empty = server.settled_bytes();
        subscribe(&server.address, &mut held, FEW);
        let few = server.settled_bytes();
        subscribe(&server.address, &mut held, MANY);
        let many = server.settled_bytes();
        drop(held);
        let after = server.settled_bytes();
        let slope = (many - few) as f64 / (MANY - FEW) as f64;
        println!(
            "{workers} worker(s): {slope:.0} bytes per idle subscriber (at most {SUBSCRIBER_BYTES_MAX}); \
             resident {} KiB empty, {} KiB with {FEW}, {} KiB with {MANY}, {} KiB after they left",
            empty / 1024,
            few / 1024,
            many / 1024,
            after / 1024
        );
        server.stop();
        is_within &= slope <= SUBSCRIBER_BYTES_MAX;
    }
    if !is_within {
        eprintln!("an idle subscriber costs more than {SUBSCRIBER_BYTES_MAX} bytes");
        std::process::exit(1);
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(workers: &str) -> Self {
        let flags = ["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--workers", workers, "--log-level", "warn"];
        let binary = std::env::var_os("FANTAIL_BIN").unwrap_or(env!("CARGO_BIN_EXE_fantail").into());
        let mut child = Command::new(binary).args(flags).stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut banner = Vec::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut piece = [0; 1024];
        let address = loop {
            let length = stdout.read(&mut piece).expect("the banner");
            assert!(length > 0, "the server ended");
            banner.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&banner);
            let found = text.split("listening  http://").nth(1).and_then(|rest| rest.split_once('/'));
            if let Some((address, _)) = found {
                break address.to_owned();
            }
        };
        Self { child, address }
    }

    /// Resident anonymous memory once it has stopped moving: the allocator gives pages back in the second after they were freed, and
    /// later on a busy machine.
    fn settled_bytes(&self) -> usize {
        let (mut bytes, mut still) = (self.resident_bytes(), 0);
        for _ in 0..SAMPLES_MAX {
            std::thread::sleep(SAMPLE_EVERY);
            let now = self.resident_bytes();
            still = if now == bytes { still + 1 } else { 0 };
            bytes = now;
            if still == SAMPLES_STILL {
                break;
            }
        }
        bytes
    }

    fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the server runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
    }

    fn stop(&mut self) {
        self.child.kill().expect("the server is ours to end");
        self.child.wait().expect("the server ends");
    }
}

/// Opens subscribers of one topic until `count` are held.
fn subscribe(address: &str, held: &mut Vec<TcpStream>, count: usize) {
    let request = format!(
        "GET /topics/chat HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    while held.len() < count {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.write_all(request.as_bytes()).expect("the request goes out");
        let mut head = Vec::new();
        let mut piece = [0; 512];
        while !head.ends_with(b"\r\n\r\n") {
            let length = socket.read(&mut piece).expect("an answer");
            assert!(length > 0, "the server closed");
            head.extend_from_slice(&piece[..length]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        held.push(socket);
    }
}
