//! Crowds: those who come while the server stops, all who come back at once, the many who never read, and the many who keep nobody
//! waiting.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::server::{Launch, Server};
use support::socket::{CLOSE, PING, PONG, Socket, TEXT, close_payload, frame, handshake};
use support::stream::EventStream;
use support::wire::{Connection, End};
use support::{PATIENCE, figure, percentile, scaled};

#[test]
fn a_storm_of_connections_through_the_stop_sees_no_reset() {
    for round in 0..scaled(3, 10) {
        let mut server = Server::start(&["--drain-window", "500ms", "--close-timeout", "10s"]);
        let address = server.address;
        let storm: Vec<_> = (0..16).map(|_| thread::spawn(move || Storm::rage(address))).collect();
        thread::sleep(Duration::from_millis(300));
        server.terminate();
        let storms = storm.into_iter().map(|thread| thread.join().expect("every answer is complete"));
        let Storm { answered, refused, ended, closed, resets, .. } = storms.reduce(Storm::with).expect("sixteen of them");
        println!(
            "figure: storm {round}: {answered} answered, {refused} refused in words, {ended} ended unanswered in order, {closed} \
             WebSockets closed with 1001, {} reset",
            resets.len()
        );
        assert!(answered > 0 && closed > 0, "the storm did not reach the server");
        assert!(resets.is_empty(), "a server that stops in order resets connections: {resets:?}");
        assert!(server.wait().success());
    }
}

/// What became of the connections of one thread that opens them until nobody listens.
#[derive(Default)]
struct Storm {
    answered: usize,
    refused: usize,
    ended: usize,
    closed: usize,
    /// At which moment each reset came.
    resets: Vec<&'static str>,
    kept: Vec<Connection>,
    sockets: Vec<Socket>,
}

impl Storm {
    fn rage(address: SocketAddr) -> Self {
        let mut storm = Self::default();
        for number in 0.. {
            let Some(connection) = Connection::try_open(address) else { break };
            match number % 3 {
                0 => storm.ask(connection, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
                1 => storm.ask(connection, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                _ => storm.ask(connection, &handshake("/topics/storm", "")),
            }
        }
        for mut connection in std::mem::take(&mut storm.kept) {
            storm.ends(&mut connection, "idle after an answer");
        }
        for mut socket in std::mem::take(&mut storm.sockets) {
            assert_eq!(socket.close().code, Some(1001));
            socket.send(frame(CLOSE, close_payload(1001, "")));
            storm.closed += usize::from(storm.ends(&mut socket.wire, "after a close"));
        }
        storm
    }

    /// One request, whose answer is complete or does not begin.
    fn ask(&mut self, mut connection: Connection, request: &str) {
        // The server may have ended the connection before it was asked anything.
        connection.try_send(request);
        if !connection.has_more() {
            self.ended += usize::from(self.ends(&mut connection, "before an answer"));
            return;
        }
        let response = connection.response();
        match response.status {
            101 => return self.sockets.push(Socket { wire: connection, response }),
            200 => self.answered += 1,
            503 => self.refused += 1,
            status => panic!("{status} is no answer of a server that stops: {response:?}"),
        }
        match response.header("Connection") {
            Some("close") => {
                self.ends(&mut connection, "after the last answer");
            }
            _ => self.kept.push(connection),
        }
    }

    /// Waits for the end; whether it came in order.
    fn ends(&mut self, connection: &mut Connection, when: &'static str) -> bool {
        let (rest, end) = connection.rest(PATIENCE);
        assert!(rest.is_empty(), "bytes after the last answer: {}", rest.escape_ascii());
        self.resets.extend((end == End::Reset).then_some(when));
        end == End::Closed
    }

    fn with(mut self, other: Self) -> Self {
        self.answered += other.answered;
        self.refused += other.refused;
        self.ended += other.ended;
        self.closed += other.closed;
        self.resets.extend(other.resets);
        self
    }
}

#[test]
fn many_who_never_read_are_cut_and_cost_the_healthy_nothing() {
    const MESSAGE_BYTES: usize = 1024;
    let (slow, healthy, messages) = scaled((50, 10, 1_500), (1_000, 100, 6_000));
    let outbox = scaled("256KiB", "1MiB");
    let server = Server::start(&["--outbox-size", outbox, "--slow-consumer", "disconnect"]);
    let memory = server.vitals().memory_bytes;
    let alone = publish_to(&server, "alone", healthy, messages, MESSAGE_BYTES);
    let never_read: Vec<_> = (0..slow).map(|_| Socket::open_narrow(server.address, "/topics/beside")).collect();
    let beside = publish_to(&server, "beside", healthy, messages, MESSAGE_BYTES);
    println!("figure: {healthy} healthy ones beside {slow} that never read: p99 {:.1?}, alone {:.1?}", beside.p99, alone.p99);
    // Where the machine is slow already without them, twice that.
    figure("p99 beside those who never read", beside.p99, (alone.p99 * 2).max(Duration::from_millis(20)));
    let grown = beside.memory_bytes_max.saturating_sub(memory);
    println!("figure: memory grew by {} KiB", grown / 1024);
    let outboxes = slow as u64 * scaled(256 << 10, 1 << 20);
    assert!(
        grown < outboxes,
        "{grown} bytes: publications are shared, so {slow} full outboxes must cost far less than {outboxes}"
    );
    server.expect_metric("fantail_connections_closed_total", &[("cause", "slow_consumer")], slow as f64);
    drop(never_read);
    server.assert_well();
}

/// What healthy subscribers saw.
struct Seen {
    p99: Duration,
    /// The most memory the server had meanwhile.
    memory_bytes_max: u64,
}

/// Publishes `messages`, one a millisecond, to `count` subscribers, who must get each of them in order.
fn publish_to(server: &Server, topic: &str, count: usize, messages: usize, bytes: usize) -> Seen {
    let target = format!("/topics/{topic}");
    let mut subscribers: Vec<_> = (0..count).map(|_| server.socket(&target)).collect();
    let mut publisher = server.socket(&target);
    let start = Instant::now();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers = subscribers.chunks_mut(count.div_ceil(4)).map(|some| scope.spawn(move || latencies(some, messages, start)));
        let readers: Vec<_> = readers.collect();
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = server.vitals().memory_bytes.max(most);
                thread::sleep(Duration::from_millis(10));
            }
            most
        });
        for number in 0..messages {
            thread::sleep((start + Duration::from_millis(number as u64)).saturating_duration_since(Instant::now()));
            publisher.text(&format!("{number} {} {:bytes$}", start.elapsed().as_nanos(), ""));
            publisher.frame();
        }
        let mut samples: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().expect("nothing is lost")).collect();
        done.store(true, Ordering::Relaxed);
        let memory_bytes_max = watch.join().expect("the server runs");
        Seen { p99: percentile(&mut samples, 0.99), memory_bytes_max }
    })
}

/// How long each message took to each of these subscribers.
fn latencies(subscribers: &mut [Socket], messages: usize, start: Instant) -> Vec<Duration> {
    let mut samples = Vec::with_capacity(messages * subscribers.len());
    for expected in 0..messages {
        for subscriber in &mut *subscribers {
            let message = subscriber.message();
            let mut words = message.split(' ').map_while(|word| word.parse::<u64>().ok());
            assert_eq!(words.next(), Some(expected as u64), "in order, and none left out");
            let sent = Duration::from_nanos(words.next().expect("when it was sent"));
            samples.push(start.elapsed().saturating_sub(sent));
        }
    }
    samples
}

/// How somebody of a crowd is connected.
enum Member {
    Raw(Socket),
    Session(Socket),
    Events(EventStream),
}

impl Member {
    /// The `number`th of a crowd: a third each.
    fn open(address: SocketAddr, number: usize) -> Self {
        match number % 3 {
            0 => Self::Raw(Socket::open(address, "/topics/crowd")),
            1 => {
                let head = handshake("/topics/crowd", "Sec-WebSocket-Protocol: fantail.v1\r\n");
                Self::Session(Socket::upgrade(Connection::open(address), &head))
            }
            _ => Self::Events(EventStream::open(address, "/topics/crowd", "")),
        }
    }

    /// How long it is told to wait before it comes back, if it is lost: from when to when, in milliseconds. A socket of payloads has no
    /// words for it.
    fn delay(&mut self) -> Option<(u64, u64)> {
        match self {
            Self::Raw(_) => None,
            Self::Session(socket) => {
                let (open, ok) = (socket.json(), socket.json());
                assert_eq!((&open["retry"]["jitter"], &ok["type"]), (&"full".into(), &"ok".into()), "{open} {ok}");
                let milliseconds = |name: &str| open["retry"][name].as_u64().expect("a number");
                Some((milliseconds("min_ms"), milliseconds("max_ms")))
            }
            Self::Events(stream) => {
                let told = stream.event().retry_ms.expect("the first event tells it");
                Some((told, told))
            }
        }
    }

    fn expect(&mut self, text: &str) {
        match self {
            Self::Raw(socket) => assert_eq!(socket.message(), text),
            Self::Session(socket) => assert_eq!(socket.json()["text"], text),
            Self::Events(stream) => assert_eq!(stream.event().data.as_deref(), Some(text)),
        }
    }
}

#[test]
fn a_crowd_that_comes_back_at_once_is_let_in_and_told_when_to_come_the_next_time() {
    let count = scaled(1_200, 10_000);
    let mut server = Server::start(&[]);
    let address = server.address;
    let before: Vec<_> = (0..count).map(|number| Member::open(address, number)).collect();
    server.kill();
    server.wait();
    drop(before);
    let server = Launch::new(&[]).only(&[address]).start();
    let start = Instant::now();
    let comers: Vec<_> = (0..8)
        .map(|comer| {
            thread::spawn(move || (comer..count).step_by(8).map(|number| Member::open(address, number)).collect::<Vec<_>>())
        })
        .collect();
    let mut crowd: Vec<_> = comers.into_iter().flat_map(|comer| comer.join().expect("everybody is let in")).collect();
    figure(&format!("{count} came back at once"), start.elapsed(), Duration::from_secs(1) * scaled(1, 10));
    // A crowd that did as it is told would come in over a second at least.
    let delays: Vec<_> = crowd.iter_mut().filter_map(Member::delay).collect();
    let streams: Vec<u64> = delays.iter().filter(|(from, to)| from == to).map(|(from, _)| *from).collect();
    let (least, most) = (streams.iter().min().copied().unwrap_or(0), streams.iter().max().copied().unwrap_or(0));
    let different: HashSet<u64> = streams.iter().copied().collect();
    println!("figure: {} streams are told {} delays of {least} to {most} ms", streams.len(), different.len());
    assert!(least >= 500 && most - least >= 1_000 && different.len() > 100, "a crowd that is told one delay comes back at once");
    assert!(delays.iter().all(|(from, to)| from <= to && *to <= 20_000), "{delays:?}");
    assert_eq!(server.connect().post("/topics/crowd", "welcome").status, 200);
    crowd.iter_mut().for_each(|member| member.expect("welcome"));
    drop(crowd);
    server.expect_metric("fantail_subscriptions", &[], 0.0);
    server.assert_well();
}

/// All of them on one worker, and nobody reads meanwhile, so that this thread can ask the server for pongs as fast as it answers. Who asks
/// is the last to be served: until the publication comes, its fan-out is under way.
#[test]
fn a_ping_is_answered_while_a_fan_out_to_a_crowd_runs() {
    const PUBLICATIONS: usize = 10;
    // The crowd comes one after the other, which takes as long as pings are apart.
    let server = Server::start(&["--workers", "1", "--ping-interval", "10m"]);
    let mut crowd: Vec<_> = (0..scaled(1_500, 19_000)).map(|_| server.socket("/topics/crowd")).collect();
    let mut asker = server.socket("/topics/crowd");
    let mut publisher = server.connect();
    let (mut waits, mut fan_outs) = (Vec::new(), Vec::new());
    for number in 0..PUBLICATIONS {
        let start = Instant::now();
        assert_eq!(publisher.post("/topics/crowd", format!("{number:128}")).status, 200);
        while !ping(&mut asker, &mut waits) {}
        fan_outs.push(start.elapsed());
    }
    for socket in &mut crowd {
        (0..PUBLICATIONS).for_each(|number| socket.expect(TEXT, format!("{number:128}")));
    }
    println!(
        "figure: {} pings while fan-outs to {} ran, {:.1?} each: median {:.1?}, the longest {:.1?}",
        waits.len(),
        crowd.len(),
        percentile(&mut fan_outs, 0.5),
        percentile(&mut waits, 0.5),
        percentile(&mut waits, 1.0)
    );
    // The longest is the machine's: it runs others, too. The small crowd is for debug builds, which only have to go on.
    figure("p99 of the waits for a pong", percentile(&mut waits, 0.99), Duration::from_millis(scaled(100, 5)));
    drop((crowd, asker, publisher));
    server.assert_well();
}

/// Asks for a pong and notes how long it took; whether a publication came before it.
fn ping(asker: &mut Socket, waits: &mut Vec<Duration>) -> bool {
    let start = Instant::now();
    asker.send(frame(PING, b"here?"));
    let mut published = false;
    loop {
        let frame = asker.frame();
        if frame.first == PONG {
            waits.push(start.elapsed());
            return published;
        }
        assert_eq!(frame.first, TEXT);
        published = true;
    }
}
