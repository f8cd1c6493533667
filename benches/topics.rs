//! What a publication costs where very many topics live, and what a topic takes in memory.
//!
//! `cargo bench --bench topics`. A whole worker on a driver without a kernel takes POSTs, among few topics and among as many as
//! `--max-topics` allows; both servers are there at a time and are measured in turns, so that a busy machine slows both. Figures are
//! processor time of this thread. Each topic has had a publication before, and keeps one, so each publication lets an older one go.
//!
//! - to the same few topics, whatever others live: this may cost at most a tenth more among many, or the exit status says so;
//! - to all topics in turn, in no order that a cache could guess: what comes on top is memory that no cache holds, and the same loop over
//!   a plain hash table stands beside it for comparison.

#[path = "../tests/loopless/mod.rs"]
mod loopless;

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use fantail::Config;
use fantail::config::ByteSize;
use foldhash::fast::RandomState;
use loopless::Server;
use rustix::time::{ClockId, clock_gettime};

const FEW: usize = 100;
const MANY: usize = 1_000_000;
/// Publications in one go, and goes of each sort: the median counts.
const PUBLICATIONS: usize = 20_000;
const GOES: usize = 31;
/// A publication among many topics may cost so many times what it costs among few.
const RATIO_MAX: f64 = 1.1;
/// As long as a message in a chat.
const PAYLOAD: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// That of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // `cargo test --benches` and `cargo clippy --all-targets` only want it to build and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut few = Topics::new(FEW);
    let before = resident_bytes();
    let mut many = Topics::new(MANY);
    let bytes = (resident_bytes() - before) / MANY;
    println!("a topic without subscribers that keeps a publication of {} bytes takes {bytes} bytes", PAYLOAD.len());

    let [among_few, among_many, to_all] = &mut [const { Vec::new() }; 3];
    for go in 0..GOES as u64 {
        among_few.push(few.publish(FEW, go));
        among_many.push(many.publish(FEW, go));
        to_all.push(many.publish(MANY, go));
    }
    // Of goes that stood side by side: what else the machine does comes and goes more slowly.
    let mut ratios: Vec<f64> = among_few.iter().zip(&*among_many).map(|(few, many)| many / few).collect();
    let ratio = median(&mut ratios);
    let [among_few, among_many, to_all] = [among_few, among_many, to_all].map(|goes| median(goes));
    println!(
        "a publication to one of {FEW} topics: {among_few:.0} ns where they are all, {among_many:.0} ns among {MANY} ({ratio:.3} times, at most {RATIO_MAX})"
    );
    let plain = plain_lookups();
    println!(
        "a publication to any of {MANY} topics: {to_all:.0} ns; a look-up in a plain table of as many names takes {plain:.0} ns"
    );
    if ratio > RATIO_MAX {
        eprintln!("a publication among {MANY} topics costs more than {RATIO_MAX} times what it costs among {FEW}");
        std::process::exit(1);
    }
}

/// A worker on which so many topics live.
struct Topics {
    server: Server,
}

impl Topics {
    fn new(topics: usize) -> Self {
        let config = Config { history_size: 1, history_memory: ByteSize::mib(4096), ..Config::default() };
        let mut server = Server::posting(&config);
        for topic in 0..topics {
            server.post(&request(topic));
        }
        Self { server }
    }

    /// Publishes to any of the first `topics`; nanoseconds for each publication.
    fn publish(&mut self, topics: usize, go: u64) -> f64 {
        let mut random = fastrand::Rng::with_seed(go);
        // Made beforehand: they are the client's share.
        let requests: Vec<Vec<u8>> = (0..PUBLICATIONS).map(|_| request(random.usize(0..topics))).collect();
        let begin = cpu_ns();
        requests.iter().for_each(|request| self.server.post(request));
        (cpu_ns() - begin) as f64 / PUBLICATIONS as f64
    }
}

/// Names of one length, so that all cost the same to read.
fn name(topic: usize) -> String {
    format!("prices/{topic:08}")
}

fn request(topic: usize) -> Vec<u8> {
    let (name, length) = (name(topic), PAYLOAD.len());
    format!("POST /topics/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{PAYLOAD}").into_bytes()
}

/// What finding a name costs in a table of many: nanoseconds.
fn plain_lookups() -> f64 {
    let table: HashMap<Arc<str>, u64, RandomState> = (0..MANY).map(|topic| (name(topic).into(), topic as u64)).collect();
    let mut goes: Vec<f64> = (0..GOES as u64)
        .map(|go| {
            let mut random = fastrand::Rng::with_seed(go);
            let names: Vec<String> = (0..PUBLICATIONS).map(|_| name(random.usize(0..MANY))).collect();
            let begin = cpu_ns();
            // Each one depends on the one before, as a publication does on its topic.
            black_box(names.iter().fold(0, |sum, name| sum ^ table[black_box(name.as_str())]));
            (cpu_ns() - begin) as f64 / PUBLICATIONS as f64
        })
        .collect();
    median(&mut goes)
}

fn median(goes: &mut [f64]) -> f64 {
    goes.sort_by(f64::total_cmp);
    goes[goes.len() / 2]
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") * 1024
}
