//! Fan-out over two workers: each subscriber gets each publication once, in one order, from the moment it saw its 101.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::server::Server;
use support::socket::{Socket, TEXT, frame};
use support::{PATIENCE, eventually};

#[test]
fn a_thousand_subscribers_get_each_publication_once_and_in_one_order() {
    const SUBSCRIBERS: usize = 1_000;
    const EACH: usize = 50;
    let server = Server::start(&["--workers", "2"]);
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| server.socket("/topics/all")).collect();
    // Both workers have publishers of each sort. A 101 names its worker; other answers don't, but that the kernel gives 32
    // connections to one worker does not happen.
    let mut posting: Vec<Vec<_>> = (0..4).map(|_| (0..8).map(|_| server.connect()).collect()).collect();
    let mut speaking = two_on_each_of_two_workers(&server, "/topics/all");
    let start = Instant::now();
    let publications: HashSet<String> = thread::scope(|scope| {
        let by_post = posting.iter_mut().enumerate().map(|(publisher, connections)| {
            scope.spawn(move || {
                for number in 0..EACH {
                    assert_eq!(connections[number % 8].post("/topics/all", format!("post {publisher} {number}")).status, 200);
                }
            })
        });
        let by_post: Vec<_> = by_post.collect();
        for number in 0..EACH {
            for (publisher, socket) in speaking.iter_mut().enumerate() {
                socket.text(&format!("socket {publisher} {number}"));
            }
        }
        by_post.into_iter().for_each(|thread| thread.join().expect("a publisher ends well"));
        let name = |kind: &str, publisher: usize, number: usize| format!("{kind} {publisher} {number}");
        let numbers = || (0..4).flat_map(|publisher| (0..EACH).map(move |number| (publisher, number)));
        numbers().flat_map(|(publisher, number)| ["post", "socket"].map(|kind| name(kind, publisher, number))).collect()
    });
    let order: Vec<_> = publications.iter().map(|_| subscribers[0].message()).collect();
    assert_eq!(order.iter().cloned().collect::<HashSet<_>>(), publications, "each once");
    for (number, subscriber) in subscribers[1..].iter_mut().chain(&mut speaking).enumerate() {
        for message in &order {
            assert_eq!(&subscriber.message(), message, "subscriber {number} sees another order");
        }
    }
    println!("figure: {} publications to {SUBSCRIBERS} subscribers in {:.1?}", publications.len(), start.elapsed());
    let mut last = server.connect();
    last.post("/topics/all", "end");
    assert!(subscribers.iter_mut().all(|subscriber| subscriber.message() == "end"), "nothing came twice");
    drop((subscribers, posting, speaking, last));
    server.expect_metric("fantail_subscriptions", &[], 0.0);
    server.assert_well();
}

#[test]
fn what_is_coalesced_comes_together_and_its_publisher_does_not_wait() {
    const HOLD: Duration = Duration::from_secs(1);
    let server = Server::start(&["--workers", "2", "--coalesce", "1s"]);
    let mut subscribers = two_on_each_of_two_workers(&server, "/topics/all");
    let mut publisher = server.connect();
    let start = Instant::now();
    for number in 0..5 {
        assert_eq!(publisher.post("/topics/all", number.to_string()).status, 200);
    }
    let answered = start.elapsed();
    subscribers.iter_mut().for_each(|subscriber| subscriber.expect(TEXT, "0"));
    let told = start.elapsed();
    assert!(told >= HOLD && answered < told, "answered after {answered:.1?}, told after {told:.1?}");
    for subscriber in &mut subscribers {
        (1..5).for_each(|number| subscriber.expect(TEXT, number.to_string()));
    }
    drop((subscribers, publisher));
    server.assert_well();
}

fn two_on_each_of_two_workers(server: &Server, target: &str) -> Vec<Socket> {
    let mut sockets: [Vec<_>; 2] = [Vec::new(), Vec::new()];
    eventually("both workers have connections", PATIENCE, || {
        let socket = server.socket(target);
        sockets[socket.worker()].push(socket);
        sockets.iter().all(|of_worker| of_worker.len() >= 2)
    });
    sockets.into_iter().flat_map(|of_worker| of_worker.into_iter().take(2)).collect()
}

#[test]
fn each_topic_keeps_its_publishers_order() {
    const MESSAGES: usize = 2_000;
    let server = Server::start(&["--workers", "2"]);
    let mut subscribers: Vec<_> = (0..8).map(|_| server.socket("/topics?topic=left&topic=right&envelope")).collect();
    let mut connections = [server.connect(), server.connect()];
    thread::scope(|scope| {
        for (connection, topic) in connections.iter_mut().zip(["left", "right"]) {
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    assert_eq!(connection.post(&format!("/topics/{topic}"), number.to_string()).status, 200);
                }
            });
        }
    });
    for subscriber in &mut subscribers {
        let (mut next, mut last_offset) = ([0, 0], [0, 0]);
        for _ in 0..MESSAGES * 2 {
            let message = subscriber.json();
            let side = usize::from(message["topic"] == "right");
            assert_eq!(message["text"], next[side].to_string());
            next[side] += 1;
            let cursor = message["cursor"].as_str().expect("a text");
            let offset: u64 = cursor.split_once('.').and_then(|(_, offset)| offset.parse().ok()).expect("EPOCH.OFFSET");
            assert!(offset > last_offset[side], "{offset} after {}", last_offset[side]);
            last_offset[side] = offset;
        }
    }
    drop((subscribers, connections));
    server.assert_well();
}

#[test]
fn what_is_accepted_after_a_101_was_seen_reaches_its_client() {
    let server = Server::start(&["--workers", "2"]);
    let mut connections = [server.connect(), server.connect(), server.connect()];
    // A new topic each time: its home worker learns of it with this very subscription.
    for number in 0..300 {
        let topic = format!("/topics/new/{number}");
        let mut subscriber = server.socket(&topic);
        let answer = connections[number % 3].post(&topic, "first");
        assert_eq!(answer.status, 200);
        subscriber.expect(TEXT, "first");
    }
    drop(connections);
    server.assert_well();
}

#[test]
fn a_newcomer_amid_a_stream_misses_nothing_after_its_101() {
    let server = Server::start(&["--workers", "2", "--fanout-slice", "16"]);
    let crowd: Vec<_> = (0..200).map(|_| server.socket("/topics/stream")).collect();
    let mut stream = server.connect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(stream.post("/topics/stream", format!("{number}")).status, 200);
                number += 1;
            }
        });
        // Also when an assertion fails: the stream's thread would go on, and the test with it.
        let _end = OnDrop(&done);
        let mut other = server.connect();
        for number in 0..100 {
            let mut newcomer = server.socket("/topics/stream");
            let mark = format!("mark {number}");
            assert_eq!(other.post("/topics/stream", &mark).status, 200);
            let before: Vec<u64> = newcomer.messages_until(&mark).iter().filter_map(|message| message.parse().ok()).collect();
            assert!(before.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole in the stream: {before:?}");
        }
    });
    drop((crowd, stream));
    server.assert_well();
}

/// Raises a flag at the end of its scope, however that comes.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn workers_that_flood_each_other_do_not_lock_up() {
    const TOPICS: usize = 12;
    const ROUNDS: usize = 20;
    const BURST: usize = 200;
    // Small rings, so that they are full all the time.
    let server = Server::start(&["--workers", "2", "--mailbox-size", "16"]);
    let start = Instant::now();
    thread::scope(|scope| {
        for topic in 0..TOPICS {
            let target = format!("/topics/flood/{topic}");
            let (mut socket, mut witness) = (server.socket(&target), server.socket(&target));
            scope.spawn(move || {
                let mut writer = socket.wire.writer();
                for round in 0..ROUNDS {
                    let text = |number: usize| format!("{topic} {round} {number}");
                    let burst: Vec<u8> = (0..BURST).flat_map(|number| frame(TEXT, text(number))).collect();
                    thread::scope(|scope| {
                        scope.spawn(|| writer.write_all(&burst).expect("the server reads on"));
                        for number in 0..BURST {
                            socket.expect(TEXT, text(number));
                            witness.expect(TEXT, text(number));
                        }
                    });
                }
            });
            let mut connection = server.connect();
            scope.spawn(move || {
                for number in 0..ROUNDS * 10 {
                    let response = connection.post(&format!("/topics/other/{topic}"), number.to_string());
                    assert!(matches!(response.status, 200 | 503), "{response:?}");
                }
            });
        }
    });
    println!("figure: {} publications across two workers in {:.1?}", TOPICS * ROUNDS * (BURST + 10), start.elapsed());
    server.assert_well();
}
