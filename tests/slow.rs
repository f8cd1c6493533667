//! Slow subscribers: each `--slow-consumer` policy does exactly what it says, delays nobody, and every message is accounted for.

use std::thread;
use std::time::{Duration, Instant};

use support::server::Server;
use support::socket::{Socket, TEXT, frame};
use support::wire::Connection;
use support::{eventually, figure, percentile};

/// Of one publication: large enough that some hundred of them fill every buffer between server and client.
const MESSAGE_BYTES: usize = 32 * 1024;
/// `--outbox-size` of every server here.
const OUTBOX_BYTES: usize = 1 << 20;
/// Publications of each test: 16 MiB.
const MESSAGES: usize = 512;

fn start(policy: &str) -> Server {
    start_with(policy, "2")
}

fn start_with(policy: &str, workers: &str) -> Server {
    // A slow one must be cut by policy alone: no deadline may come before it, nor before a close that is read late.
    let patience = ["--write-timeout", "30s", "--close-timeout", "30s"];
    Server::start(&[&["--slow-consumer", policy, "--outbox-size", "1MiB", "--workers", workers], &patience[..]].concat())
}

/// The text of publication `number`.
fn body(number: usize) -> String {
    let mut text = format!("{number} ");
    text.extend(std::iter::repeat_n('x', MESSAGE_BYTES - text.len()));
    text
}

fn number(message: &str) -> usize {
    message.split_once(' ').and_then(|(number, _)| number.parse().ok()).expect("a number comes first")
}

/// Publishes all messages to `topic` while `healthy` reads each, and returns how long each took to reach it.
fn publish_all(publisher: &mut Connection, topic: &str, healthy: &mut Socket) -> Vec<Duration> {
    let publish = |message| {
        let start = Instant::now();
        assert_eq!(publisher.post(&format!("/topics/{topic}"), body(message)).status, 200);
        assert_eq!(number(&healthy.message()), message, "a healthy subscriber gets everything in order");
        start.elapsed()
    };
    (0..MESSAGES).map(publish).collect()
}

/// How many messages the server counted as dropped for this reason since `before`, once it has counted `sent` as sent to topic
/// subscribers: a client may have read what its worker is just about to count.
fn dropped(server: &Server, before: &support::metrics::Metrics, sent: usize, reason: &str) -> usize {
    let sockets = [("transport", "websocket")];
    let name = "fantail_messages_sent_total";
    server.expect_metric(name, &sockets, before.sum(name, &sockets) + sent as f64);
    let (name, labels) = ("fantail_messages_dropped_total", [("reason", reason)]);
    (server.metrics().sum(name, &labels) - before.sum(name, &labels)) as usize
}

#[test]
fn disconnect_cuts_the_slow_one_and_tells_it_why() {
    let server = start("disconnect");
    let before = server.metrics();
    let (mut healthy, mut publisher) = (server.socket("/topics/flow"), server.connect());
    let mut slow = Socket::open_narrow(server.address, "/topics/flow");
    let mut latencies = publish_all(&mut publisher, "flow", &mut healthy);
    figure("publish to healthy delivery beside a slow one, p99", percentile(&mut latencies, 0.99), Duration::from_millis(20));

    let mut received = 0;
    let close = loop {
        let frame = slow.frame();
        if frame.first != TEXT {
            break frame;
        }
        assert_eq!(number(&String::from_utf8(frame.payload).expect("text")), received, "no gap before the close");
        received += 1;
    };
    assert_eq!(close.payload[..2], 1013_u16.to_be_bytes(), "{close:?}");
    let reason: serde_json::Value = serde_json::from_slice(&close.payload[2..]).expect("the reason is JSON");
    assert_eq!(reason["cause"], "slow_consumer");
    slow.wire.expect_end();
    drop(slow);
    server.expect_metric("fantail_connections_closed_total", &[("cause", "slow_consumer")], 1.0);
    assert!(received < MESSAGES);
    println!("figure: the slow subscriber got {received} of {MESSAGES} messages before its close");

    // Every message meant for it was sent or is counted as cut off with it; after its end none was meant for it.
    let cut_off = dropped(&server, &before, MESSAGES + received, "connection_closed");
    assert!(cut_off * MESSAGE_BYTES <= OUTBOX_BYTES + 2 * MESSAGE_BYTES, "{cut_off} messages were in its outbox");
    drop((healthy, publisher));
    server.assert_well();
}

#[test]
fn drop_oldest_keeps_the_newest_that_fit() {
    let server = start("drop-oldest");
    let before = server.metrics();
    let (mut healthy, mut publisher) = (server.socket("/topics/flow"), server.connect());
    let mut slow = Socket::open_narrow(server.address, "/topics/flow");
    let mut latencies = publish_all(&mut publisher, "flow", &mut healthy);
    figure("publish to healthy delivery beside a slow one, p99", percentile(&mut latencies, 0.99), Duration::from_millis(20));

    let mut received = vec![number(&slow.message())];
    while received.last() != Some(&(MESSAGES - 1)) {
        received.push(number(&slow.message()));
    }
    assert!(received.windows(2).all(|pair| pair[0] < pair[1]), "order holds: {received:?}");
    assert!(received.len() < MESSAGES, "all buffers together must be smaller than what was published");
    let kept = received.windows(2).rev().take_while(|pair| pair[1] == pair[0] + 1).count() + 1;
    println!("figure: of {MESSAGES} messages {} came, the newest {kept} without a gap", received.len());
    let fit = OUTBOX_BYTES / (MESSAGE_BYTES + 4);
    assert!(
        (fit - 3..=fit + 1).contains(&kept),
        "{kept} were kept where {fit} fit: only the oldest may go, and only when they must"
    );

    let dropped = dropped(&server, &before, MESSAGES + received.len(), "drop_oldest");
    assert_eq!(dropped, MESSAGES - received.len());
    slow.text("a slow reader may still speak");
    assert_eq!(slow.message(), "a slow reader may still speak");
    drop((healthy, publisher, slow));
    server.assert_well();
}

#[test]
fn latest_keeps_one_of_each_topic_at_the_newest_ones_place() {
    // Between topics of two workers there is no order, and this is about the places of two.
    let server = start_with("latest", "1");
    let before = server.metrics();
    let mut healthy = server.socket("/topics/b");
    let mut publisher = server.connect();
    let mut slow = Socket::open_narrow(server.address, "/topics?topic=a&topic=b&envelope");
    // Topic b first, then a: were places kept by the older publication, a would stand before b.
    assert_eq!(publisher.post("/topics/a", body(0)).status, 200);
    publish_all(&mut publisher, "b", &mut healthy);
    assert_eq!(publisher.post("/topics/a", body(1)).status, 200);

    let (mut received, mut told) = (Vec::new(), 0);
    while received.last() != Some(&("a".to_string(), 1)) {
        let message = slow.json();
        if message["type"] == "gap" {
            // It stands where its messages stood.
            assert_eq!((&message["topic"], &message["reason"]), (&"b".into(), &"slow".into()));
            told += 1;
            continue;
        }
        let text = |name: &str| message[name].as_str().expect("a text").to_string();
        received.push((text("topic"), number(&text("text"))));
    }
    assert_eq!(received[received.len() - 2], ("b".to_string(), MESSAGES - 1), "the newest of b, just before that of a");
    let b: Vec<_> = received.iter().filter(|(topic, _)| topic == "b").map(|(_, number)| *number).collect();
    assert!(b.windows(2).all(|pair| pair[0] < pair[1]), "{b:?}");
    // What the kernel had taken came without a gap; from the outbox came the newest alone, and at most one partly written before it.
    let gaps = b.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!((1..=2).contains(&gaps), "{b:?}");
    assert!(told >= gaps, "{gaps} gaps, and {told} are told");
    println!("figure: of {MESSAGES} messages of topic b {} came", b.len());

    let dropped = dropped(&server, &before, MESSAGES + received.len(), "latest");
    let published_to_slow = MESSAGES + 2;
    assert_eq!(dropped, published_to_slow - received.len());
    drop((healthy, publisher, slow));
    server.assert_well();
}

#[test]
fn an_echo_never_counts_as_slow() {
    let server = start("disconnect");
    let mut socket = Socket::open_narrow(server.address, "/echo");
    let mut writer = socket.wire.writer();
    let sender = thread::spawn(move || {
        for message in 0..MESSAGES {
            std::io::Write::write_all(&mut writer, &frame(TEXT, body(message))).expect("the server pauses, it does not end");
        }
    });
    thread::sleep(Duration::from_millis(300));
    for message in 0..MESSAGES {
        assert_eq!(number(&socket.message()), message);
    }
    sender.join().expect("the writer ends well");
    drop(socket);
    server.assert_well();
}

/// The kernel has threads of its own for operations of io_uring that must block: one for each of them.
#[test]
fn who_shuts_its_side_before_it_reads_costs_no_thread_and_gets_everything() {
    const ECHOES: usize = 16;
    let server = start("disconnect");
    let mut sockets: Vec<_> = (0..20).map(|_| Socket::open_narrow(server.address, "/echo")).collect();
    for socket in &mut sockets {
        (0..ECHOES).for_each(|number| socket.text(&body(number)));
        socket.wire.finish();
    }
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.threads("iou-wrk-"), 0);
    for mut socket in sockets {
        (0..ECHOES).for_each(|expected| assert_eq!(number(&socket.message()), expected));
        socket.wire.expect_end();
    }
    server.assert_well();
}

#[test]
fn every_message_is_accounted_for() {
    const SUBSCRIBERS: usize = 20;
    let server = start("drop-oldest");
    let before = server.metrics();
    let mut healthy: Vec<_> = (0..SUBSCRIBERS / 2).map(|_| server.socket("/topics/flow")).collect();
    let slow: Vec<_> = (0..SUBSCRIBERS / 2).map(|_| Socket::open_narrow(server.address, "/topics/flow")).collect();
    let mut publisher = server.connect();
    for message in 0..MESSAGES / 2 {
        assert_eq!(publisher.post("/topics/flow", body(message)).status, 200);
        for subscriber in &mut healthy {
            assert_eq!(number(&subscriber.message()), message);
        }
    }
    // Half of the slow ones leave by RST, so that something is cut off with them; the others hold their outboxes.
    let mut staying = slow;
    staying.drain(..SUBSCRIBERS / 4).for_each(|socket| socket.wire.reset());
    let balance = || {
        let now = server.metrics();
        let since = |name: &str, labels: &[(&str, &str)]| now.sum(name, labels) - before.sum(name, labels);
        let published = since("fantail_messages_published_total", &[]);
        let sent = since("fantail_messages_sent_total", &[("transport", "websocket")]);
        let dropped = since("fantail_messages_dropped_total", &[]);
        (published * SUBSCRIBERS as f64, sent + dropped, now.sum("fantail_outbox_bytes", &[]))
    };
    let gone = [("reason", "connection_closed")];
    eventually("the torn connections are counted", support::PATIENCE, || {
        server.metrics().sum("fantail_messages_dropped_total", &gone) > before.sum("fantail_messages_dropped_total", &gone)
    });
    let (meant, done, queued_bytes) = balance();
    let queued = meant - done;
    let queued_max = queued_bytes / MESSAGE_BYTES as f64 + staying.len() as f64;
    assert!(queued >= 0.0 && queued <= queued_max, "{meant} meant, {done} sent or dropped, {queued_bytes} bytes queued");
    drop((healthy, staying, publisher));
    // With everybody gone nothing is queued, and the sides meet exactly.
    eventually("published x subscribers = sent + dropped", support::PATIENCE, || {
        let (meant, done, queued_bytes) = balance();
        meant == done && queued_bytes == 0.0
    });
    server.assert_well();
}
