//! What durable topics cost on this disk: groups of the store beside the barest log there is.
//!
//! `cargo bench --bench store`; the directory is made in `FANTAIL_BENCH_DIR`, or where the program is run: it should be on the disk
//! that counts. A group is 64 publications to 64 topics, each with the trim of an older one. In turns with it the same number of bytes is
//! appended to a file and synced, so that whatever else the disk does slows both. Processor time is that of the store's thread and of
//! handing over, without the wait.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fantail::engine::store::{Change, Port, Record, open, ports};
use fantail::frame::{Epoch, Forms, Kind, Payload, Position, Publication, Topic};
use fantail::metrics::StoreMetrics;
use rustix::time::{ClockId, clock_gettime};

/// Publications in a group, each to another topic.
const PUBLICATIONS: u64 = 64;
/// Groups of each sort.
const GROUPS: u64 = 400;
/// What a topic keeps.
const HISTORY: u64 = 100;
/// A line in a chat, and a small document.
const PAYLOADS: [usize; 2] = [128, 1024];

/// That of the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    // `cargo test --benches` and `cargo clippy --all-targets` only want it to build and start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let parent = std::env::var_os("FANTAIL_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    for payload_bytes in PAYLOADS {
        let directory = tempfile::tempdir_in(&parent).expect("a directory");
        measure(directory.path().join("store"), payload_bytes);
    }
}

fn measure(directory: PathBuf, payload_bytes: usize) {
    let mut plain = OpenOptions::new().append(true).create(true).open(directory.with_extension("plain")).expect("a file");
    let (store, _) = open(&directory).expect("a store");
    let (bell, rung) = mpsc::channel();
    let (mut ports, inbox) = ports(1, move |_| {
        let _ = bell.send(());
    });
    let metrics = Arc::new(StoreMetrics::default());
    let thread = store.spawn(inbox, Arc::clone(&metrics), || ()).expect("a thread");
    let topics: Vec<Topic> = (0..PUBLICATIONS).map(|topic| Topic::new(&format!("bench/{topic}")).expect("a name")).collect();
    let (mut of_store, mut of_plain, mut cpu) = (Vec::new(), Vec::new(), Duration::ZERO);
    for offset in 1..=GROUPS {
        let changes = group(&topics, offset, payload_bytes);
        let (before, written) = (cpu_time(), metrics.written_bytes.get());
        of_store.push(commit(&mut ports[0], changes, &rung));
        cpu += cpu_time() - before;
        let bytes = vec![1; (metrics.written_bytes.get() - written) as usize];
        let began = Instant::now();
        plain.write_all(&bytes).and_then(|()| plain.sync_data()).expect("the disk takes it");
        of_plain.push(began.elapsed());
    }
    drop(ports);
    thread.join().expect("the store ends");
    let [of_store, of_plain] = [of_store, of_plain].map(|mut times| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    });
    let publications = PUBLICATIONS * GROUPS;
    println!(
        "{PUBLICATIONS} x {payload_bytes} bytes: p50 {:?} (plain file {:?}, {:.2} times), p99 {:?} (plain file {:?}); {:.2} us of CPU and {} bytes a publication",
        of_store.0,
        of_plain.0,
        of_store.0.as_secs_f64() / of_plain.0.as_secs_f64(),
        of_store.1,
        of_plain.1,
        cpu.as_secs_f64() * 1e6 / publications as f64,
        metrics.written_bytes.get() / publications
    );
    fs::remove_dir_all(&directory).expect("the directory goes");
}

fn group(topics: &[Topic], offset: u64, payload_bytes: usize) -> Vec<Change> {
    let epoch = Epoch::from_random(1);
    let changes = topics.iter().flat_map(|topic| {
        let payload = Payload::new(Kind::Binary, &vec![offset as u8; payload_bytes]).expect("a payload");
        let publication = Publication::new(topic.clone(), Position { epoch, offset }, 0, 0, payload, Forms::NONE);
        let put = Change::Put(Record { publication: Arc::new(publication), until_ms: None, key: None });
        let first = offset.saturating_sub(HISTORY);
        let trim = Change::Trim { topic: topic.clone(), epoch, first: first + 1, lost: first };
        [Some(put), (first > 0).then_some(trim)]
    });
    changes.flatten().collect()
}

fn commit(port: &mut Port, changes: Vec<Change>, rung: &mpsc::Receiver<()>) -> Duration {
    let began = Instant::now();
    port.submit(changes);
    rung.recv().expect("the store answers");
    let took = began.elapsed();
    assert!(port.receive().is_some_and(|outcome| !outcome.has_failed), "the store takes it");
    took
}

/// Of all threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
