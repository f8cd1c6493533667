//! What the hub costs: a fan-out by its number of subscribers, coming and going, and the home worker's look-up.
//!
//! The sink adds up slots, so what is measured is the hub's own part of a publication, without outboxes and sockets. The
//! baseline beside it is the same sum over a bare slice.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fantail::frame::{Form, Forms, Topic};
use fantail::hub::home::Interests;
use fantail::hub::{Hub, Subscriber};

/// Subscribers a slice, as a worker would ask for.
const SLICE_SUBSCRIBERS: usize = 1024;

fn chat() -> Topic {
    Topic::new("chat").expect("a valid name")
}

fn hub_of(subscribers: u32) -> Hub<u64> {
    let mut hub = Hub::new();
    for slot in 0..subscribers {
        hub.subscribe(slot, &chat(), Form::WsRaw);
    }
    hub
}

fn hand_out(hub: &mut Hub<u64>) -> u64 {
    let (mut sum, mut subscribers) = (0, Vec::new());
    hub.publish("chat", 1).expect("there are subscribers");
    while let Some(mut slice) = hub.next_slice(SLICE_SUBSCRIBERS, &mut subscribers) {
        let publication = *slice.publication.get_mut();
        sum += subscribers.iter().map(|subscriber| u64::from(subscriber.slot) + publication).sum::<u64>();
    }
    sum
}

fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    for subscribers in [1, 1_000, 100_000] {
        group.throughput(Throughput::Elements(subscribers.into()));
        let mut hub = hub_of(subscribers);
        group.bench_function(BenchmarkId::new("hub", subscribers), |bencher| bencher.iter(|| hand_out(&mut hub)));
        let list: Vec<Subscriber> = (0..subscribers).map(|slot| Subscriber::live(slot, Form::WsRaw)).collect();
        group.bench_function(BenchmarkId::new("bare slice", subscribers), |bencher| {
            bencher.iter(|| black_box(&list).iter().map(|subscriber| u64::from(subscriber.slot) + 1).sum::<u64>());
        });
    }
    group.finish();
}

fn come_and_go(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe and unsubscribe");
    let mut hub = hub_of(100_000);
    let topic = chat();
    group.bench_function("the last of 100,000", |bencher| {
        bencher.iter(|| {
            let id = hub.subscribe(100_000, &topic, Form::WsRaw);
            hub.unsubscribe(100_000, id)
        });
    });
    group.bench_function("each of 100,000 in turn", |bencher| {
        let mut slots = (0..100_000).cycle();
        bencher.iter(|| {
            let slot = slots.next().expect("a cycle has no end");
            hub.unsubscribe_all(slot);
            hub.subscribe(slot, &topic, Form::WsRaw)
        });
    });
    group.bench_function("100 new topics", |bencher| {
        let topics: Vec<Topic> = (0..100).map(|number| Topic::new(&format!("t/{number}")).expect("a valid name")).collect();
        bencher.iter_batched_ref(
            Hub::<u64>::new,
            |hub| {
                for (slot, topic) in (0..).zip(&topics) {
                    hub.subscribe(slot, topic, Form::WsRaw);
                }
                for slot in 0..100 {
                    hub.unsubscribe_all(slot);
                }
                while hub.poll_interest().is_some() {}
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn interest(criterion: &mut Criterion) {
    let mut interests = Interests::new(8);
    let raw = Forms::NONE.with(Form::WsRaw);
    for number in 0..100_000 {
        let topic = Topic::new(&format!("t/{number}")).expect("a valid name");
        interests.update(number % 8, &topic, raw, 1, number as u32);
    }
    for worker in 0..8 {
        interests.update(worker, &chat(), raw, 1_000, worker as u32);
    }
    let mut group = criterion.benchmark_group("interest among 100,000 topics");
    for (name, topic) in [("one worker", "t/77777"), ("eight workers", "chat"), ("nobody", "t/none")] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| interests.interested(black_box(topic)).map(|(worker, _)| worker).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, publish, come_and_go, interest);
criterion_main!(benches);
