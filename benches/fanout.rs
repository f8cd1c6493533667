//! A publication through a whole worker: from the bytes of a frame that a subscriber sends to one send per subscriber.
//!
//! The driver here is the seam without a kernel: it hands the worker its input and takes every send whole at once. So the figures are
//! Fantail's own share of a delivery: parser, request to the home worker, engine, hub, outboxes and flush.

#[path = "../tests/loopless/mod.rs"]
mod loopless;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loopless::Server;

criterion_group!(benches, publish);
criterion_main!(benches);

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish/worker");
    // Where it is only tried, by `cargo test --benches`, a crowd would take a minute.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    for subscribers in [1, 1_000, 100_000].into_iter().filter(|subscribers| is_measured || *subscribers <= 1_000) {
        let mut server = Server::with(subscribers);
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(BenchmarkId::from_parameter(subscribers), |bencher| bencher.iter(|| server.publish()));
    }
    group.finish();
}
