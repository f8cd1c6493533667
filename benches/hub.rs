//! What the hub costs: a fan-out by its number of subscribers, and beside patterns; coming and going; and the home worker's look-up.
//!
//! The sink adds up slots, so what is measured is the hub's own part of a publication, without outboxes and sockets. The
//! baseline beside it is the same sum over a bare slice.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fantail::frame::{Form, Forms, Pattern, Topic};
use fantail::hub::home::Interests;
use fantail::hub::{Hub, Subscriber};

/// Subscribers a slice, as a worker would ask for.
const SLICE_SUBSCRIBERS: usize = 1024;

fn chat() -> Topic {
    Topic::new("chat").expect("a valid name")
}

fn hub_of(subscribers: u32) -> Hub<u64> {
    let mut hub = Hub::new(1);
    for slot in 0..subscribers {
        hub.subscribe(slot, &chat(), Form::WsRaw);
    }
    hub
}

fn hand_out(hub: &mut Hub<u64>, topic: &Topic) -> u64 {
    let (mut sum, mut subscribers) = (0, Vec::new());
    hub.publish(topic, 1).expect("there are subscribers");
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
        let (mut hub, topic) = (hub_of(subscribers), chat());
        group.bench_function(BenchmarkId::new("hub", subscribers), |bencher| bencher.iter(|| hand_out(&mut hub, &topic)));
        let list: Vec<Subscriber> = (0..subscribers).map(|slot| Subscriber::live(slot, Form::WsRaw)).collect();
        group.bench_function(BenchmarkId::new("bare slice", subscribers), |bencher| {
            bencher.iter(|| black_box(&list).iter().map(|subscriber| u64::from(subscriber.slot) + 1).sum::<u64>());
        });
    }
    group.finish();
}

/// A publication to 1,000 subscribers, all of the topic or all of a pattern, beside so many patterns of others.
fn patterns(criterion: &mut Criterion) {
    const SUBSCRIBERS: u32 = 1_000;
    let pattern = |text: &str| Pattern::parse(text).expect("a valid pattern");
    let topic = Topic::new("prices/eur/usd").expect("a valid name");
    let mut group = criterion.benchmark_group("publish to 1,000");
    group.throughput(Throughput::Elements(SUBSCRIBERS.into()));
    for others in [0, 100, 10_000] {
        for (who, by_pattern) in [("of the topic", false), ("of a pattern", true)] {
            let mut hub = Hub::new(1);
            for slot in 0..SUBSCRIBERS {
                match by_pattern {
                    true => hub.subscribe_pattern(slot, &pattern("prices/**"), Form::WsEnvelope),
                    false => hub.subscribe(slot, &topic, Form::WsEnvelope),
                };
            }
            for number in 0..others {
                hub.subscribe_pattern(SUBSCRIBERS, &pattern(&format!("rooms/{number}/*")), Form::WsEnvelope);
            }
            group.bench_function(BenchmarkId::new(who, format!("{others} patterns of others")), |bencher| {
                bencher.iter(|| {
                    let sum = hand_out(&mut hub, &topic);
                    while hub.poll_interest().is_some() {}
                    hub.release_retired(|_| false);
                    sum
                });
            });
        }
    }
    group.finish();
}

/// The same to one subscriber, so that what is found of the patterns shows: of topics asked for lately it is kept, of others looked up. With no
/// pattern nothing is looked up.
fn matching(criterion: &mut Criterion) {
    let topics: Vec<Topic> =
        (0..20_000).map(|number| Topic::new(&format!("prices/{number}/usd")).expect("a valid name")).collect();
    let mut group = criterion.benchmark_group("publish to 1");
    for patterns in [0, 100, 10_000] {
        let mut hub = Hub::new(1);
        for (slot, topic) in (0..).zip(&topics) {
            hub.subscribe(slot, topic, Form::WsEnvelope);
        }
        for number in 0..patterns {
            let pattern = Pattern::parse(&format!("prices/{number}/more/*")).expect("a valid pattern");
            hub.subscribe_pattern(20_000, &pattern, Form::WsEnvelope);
        }
        while hub.poll_interest().is_some() {}
        group.bench_function(BenchmarkId::new("one topic", format!("{patterns} patterns")), |bencher| {
            bencher.iter(|| hand_out(&mut hub, &topics[7]));
        });
        // More than are remembered, in turn.
        group.bench_function(BenchmarkId::new("20,000 topics in turn", format!("{patterns} patterns")), |bencher| {
            let mut turns = topics.iter().cycle();
            bencher.iter(|| hand_out(&mut hub, turns.next().expect("a cycle has no end")));
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
            || Hub::<u64>::new(1),
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
    let topics = [("one worker", "t/77777"), ("eight workers", "chat"), ("nobody", "t/none")];
    let topics = topics.map(|(name, topic)| (name, Topic::new(topic).expect("a valid name")));
    for patterns in [0, 1_000] {
        for number in 0..patterns {
            let pattern = Pattern::parse(&format!("rooms/{number}/*")).expect("a valid pattern");
            interests.update_pattern(number % 8, &pattern, raw, 1, number as u32);
        }
        for (name, topic) in &topics {
            group.bench_function(BenchmarkId::new(*name, format!("{patterns} patterns")), |bencher| {
                bencher.iter(|| interests.interested(black_box(topic)).map(|(worker, _)| worker).sum::<usize>());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, publish, patterns, matching, come_and_go, interest);
criterion_main!(benches);
