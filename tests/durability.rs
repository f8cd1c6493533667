//! Durable topics on a real disk: the server killed again and again under load; a disk that is full, and has room again.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::http::{get, post};
use support::server::{Launch, Server};
use support::socket::Socket;
use support::wire::Connection;
use support::{PATIENCE, eventually, figure, scaled};
use tempfile::TempDir;

const TOPICS: [&str; 3] = ["d/a", "d/b", "d/c"];
const PUBLISHERS: usize = 8;
const CLASS: &str = "d/*;durable;history-size=1000000;history-bytes=64MiB;history-ttl=24h";

fn launch(directory: &TempDir) -> Launch {
    let path = directory.path().to_str().expect("UTF-8");
    Launch::new(&["--data-dir", path, "--topic-class", CLASS, "--idempotency-ttl", "1h"])
}

/// Who publishes: what it has not been told of yet is sent again, under its key.
struct Publisher {
    number: usize,
    next: u32,
    open: Option<(usize, String)>,
    accepted: Vec<(usize, u64, String)>,
    repeated: usize,
}

impl Publisher {
    /// Publishes until the connection breaks.
    fn publish(&mut self, address: SocketAddr) {
        let mut connection = Connection::open(address);
        loop {
            let (topic, text) = self.open.take().unwrap_or_else(|| {
                self.next += 1;
                (self.next as usize % TOPICS.len(), format!("{}-{}", self.number, self.next))
            });
            self.open = Some((topic, text.clone()));
            let request = post(&format!("/topics/{}", TOPICS[topic]), &format!("Idempotency-Key: \"{text}\"\r\n"), &text);
            if !connection.try_send(request) {
                return;
            }
            let Some(answer) = connection.try_take_until(b"}") else { return };
            let answer = String::from_utf8(answer).expect("UTF-8");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
            let body: Value = serde_json::from_str(body).expect("JSON");
            self.accepted.push((topic, body["offset"].as_u64().expect("an offset"), text));
            self.repeated += usize::from(head.contains("\r\nIdempotency-Replayed: true") || body.get("repeated").is_some());
            self.open = None;
        }
    }
}

/// The offset of a message, and of nothing else.
fn offset(message: &Value) -> u64 {
    assert_eq!(message["type"], "message", "{message}");
    message["cursor"].as_str().and_then(|cursor| cursor.split_once('.')?.1.parse().ok()).expect("EPOCH.OFFSET")
}

/// All that is kept of a topic, as a subscriber gets it.
fn history(server: &Server, topic: &str) -> Vec<String> {
    let information = get(server.address, &format!("/topics/{topic}"));
    let last = information.json()["last"].as_u64().expect("an offset");
    let mut socket = server.socket(&format!("/topics/{topic}?envelope&since=earliest"));
    let next = |number| {
        let message = socket.json();
        assert_eq!(offset(&message), number, "{message}");
        message["text"].as_str().expect("a text").to_owned()
    };
    (1..=last).map(next).collect()
}

/// Follows a topic from a cursor on until the connection breaks; returns where it stood.
fn follow(mut socket: Socket, mut stood: u64, cursor: &Mutex<String>) -> u64 {
    while let Some(message) = socket.try_json() {
        assert_eq!(offset(&message), stood + 1, "{message}");
        stood += 1;
        message["cursor"].as_str().expect("a cursor").clone_into(&mut cursor.lock().expect("not poisoned"));
    }
    stood
}

#[test]
fn killed_again_and_again_nothing_accepted_is_missing_nothing_comes_twice_and_no_gap_is_silent() {
    let directory = TempDir::new().expect("a directory");
    let mut publishers: Vec<Publisher> =
        (0..PUBLISHERS).map(|number| Publisher { number, next: 0, open: None, accepted: Vec::new(), repeated: 0 }).collect();
    let (mut address, mut stood, cursor) = (None, 0, Mutex::new("earliest".to_owned()));
    let (mut bounds, mut starts) = (Vec::new(), Vec::new());
    for round in 0..scaled(12, 100) {
        let mut server = match address {
            None => launch(&directory).start(),
            Some(address) => thread::scope(|scope| {
                let began = Instant::now();
                let bound = scope.spawn(move || {
                    eventually("the port is bound", PATIENCE, || TcpStream::connect(address).is_ok());
                    began.elapsed()
                });
                let server = launch(&directory).only(&[address]).start();
                bounds.push(bound.join().expect("it is bound"));
                starts.push(began.elapsed());
                server
            }),
        };
        address = Some(server.address);
        let follower = server.socket(&format!("/topics/{}?envelope&since={}", TOPICS[0], cursor.lock().expect("not poisoned")));
        if round > 0 && stood > 0 {
            assert_eq!(follower.response.header("Fantail-Recovered"), Some("true"), "round {round}");
        }
        stood = thread::scope(|scope| {
            let (cursor, stood) = (&cursor, stood);
            let follower = scope.spawn(move || follow(follower, stood, cursor));
            let address = server.address;
            let work: Vec<_> = publishers.iter_mut().map(|publisher| scope.spawn(move || publisher.publish(address))).collect();
            thread::sleep(Duration::from_millis(20 + 37 * (round % 12)));
            server.kill();
            work.into_iter().for_each(|work| work.join().expect("a publisher ends well"));
            follower.join().expect("what came is in order")
        });
        server.wait();
    }
    let server = launch(&directory).start();
    let mut texts: Vec<Vec<String>> = TOPICS.iter().map(|topic| history(&server, topic)).collect();
    let accepted = publishers.iter().flat_map(|publisher| &publisher.accepted);
    let mut numbers = BTreeMap::new();
    for (topic, offset, text) in accepted {
        assert_eq!(texts[*topic].get(*offset as usize - 1), Some(text), "{topic} {offset}");
        assert!(numbers.insert((*topic, *offset), text).is_none(), "a number was given twice");
    }
    let kept: usize = texts.iter().map(Vec::len).sum();
    assert!(numbers.len() > 100 && kept <= numbers.len() + PUBLISHERS, "{kept} {}", numbers.len());
    for texts in &mut texts {
        let all = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), all, "something was published twice");
    }
    let repeated: usize = publishers.iter().map(|publisher| publisher.repeated).sum();
    println!("figure: accepted {}, kept {kept}, sent again and known already {repeated}, missing 0, twice 0", numbers.len());
    println!("figure: read {kept} and served after the last kill: {:.1?}", starts.last().expect("some starts"));
    figure("bound the port again, the slowest", *bounds.iter().max().expect("some starts"), Duration::from_millis(500));
}

#[test]
fn offsets_and_epochs_go_on_with_another_number_of_workers() {
    let directory = TempDir::new().expect("a directory");
    let mut cursors = Vec::new();
    for (round, workers) in ["1", "3", "2"].iter().enumerate() {
        let path = directory.path().to_str().expect("UTF-8");
        let mut server = Server::start(&["--workers", workers, "--data-dir", path, "--topic-class", CLASS]);
        for (number, topic) in (0..20).map(|number| (number, format!("/topics/d/{number}"))) {
            let answer = server.connect().post(&topic, format!("{round}"));
            assert_eq!((answer.status, &answer.json()["offset"]), (200, &json!(round + 1)));
            if round == 0 {
                cursors.push(answer.json()["cursor"].as_str().expect("a cursor").to_owned());
            }
            let mut socket = server.socket(&format!("{topic}?envelope&since={}", cursors[number]));
            assert_eq!(socket.response.header("Fantail-Recovered"), Some("true"));
            for number in 2..=round as u64 + 1 {
                assert_eq!(offset(&socket.json()), number);
            }
        }
        server.terminate();
        assert!(server.wait().success());
    }
}

#[test]
fn a_second_server_on_the_directory_is_refused() {
    let directory = TempDir::new().expect("a directory");
    let server = launch(&directory).start();
    let path = directory.path().to_str().expect("UTF-8");
    let second = support::server::run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", path, "--topic-class", CLASS]);
    assert_eq!(second.status, Some(2), "{second:?}");
    assert!(second.stderr.contains(path) && second.stderr.contains("another process"), "{}", second.stderr);
    assert_eq!(server.connect().post("/topics/d/a", "x").status, 200);
}

/// A small file system in memory, which only root may mount.
struct Small {
    directory: TempDir,
}

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let directory = TempDir::new().expect("a directory");
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(Self { directory })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.directory.path()).output();
    }
}

/// Has the disk fail, which `fail` does or the publications themselves, and has it `mended`: who needs it is refused meanwhile, and nobody else;
/// then all goes on by itself, and what was accepted before and after outlives a kill.
fn live_through(data: &Path, bytes: usize, fail: impl FnOnce(), mend: impl FnOnce()) {
    let flags = ["--data-dir", data.to_str().expect("UTF-8"), "--topic-class", CLASS];
    let mut server = Server::start(&flags);
    let mut subscriber = server.socket("/topics/d/a?envelope");
    let (mut connection, mut other) = (server.connect(), server.connect());
    let (mut fail, mut accepted) = (Some(fail), 0_u64);
    let refused = loop {
        let answer = connection.post("/topics/d/a", format!("{accepted:0bytes$}"));
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert_eq!(offset(&subscriber.json()), accepted);
        assert!(accepted < 200, "it takes everything");
        if accepted == 20
            && let Some(fail) = fail.take()
        {
            fail();
        }
    };
    let problem = refused.problem(503);
    assert_eq!((&problem["type"], refused.header("Retry-After")), (&json!("urn:fantail:problem:not-stored"), Some("1")));
    assert!(accepted >= 20, "{accepted}");
    assert_eq!(other.post("/topics/plain", "x").status, 200, "nobody else is refused");
    assert!(server.log().contains("the store is down"), "{}", server.log());
    server.expect_metric("fantail_store_up", &[], 0.0);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(connection.post("/topics/d/a", format!("{:0bytes$}", 0)).status, 503, "it is tried again, and in vain");
    mend();
    let took = eventually("the store is back", Duration::from_secs(20), || connection.post("/topics/d/a", "back").status == 200);
    println!("figure: the store was back {took:.1?} after the disk was");
    assert_eq!(offset(&subscriber.json()), accepted + 1, "what was refused reached nobody, and its number was given again");
    server.expect_metric("fantail_store_up", &[], 1.0);
    server.kill();
    server.wait();
    let texts = history(&Server::start(&flags), "d/a");
    assert_eq!((texts.len() as u64, texts.last().map(String::as_str)), (accepted + 1, Some("back")));
}

#[test]
fn a_full_disk_refuses_who_needs_it_and_nobody_else_until_there_is_room() {
    let Some(small) = Small::mount("8m") else {
        println!("skipped: this needs the right to mount a file system");
        return;
    };
    let ballast = small.directory.path().join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).expect("there is room");
    live_through(&small.directory.path().join("data"), 60_000, || {}, || std::fs::remove_file(&ballast).expect("it is there"));
}

/// Sets or takes away the attribute that has a file be read alone, for root and for who has it open, too; false where there is none.
fn set_immutable(path: &Path, is_set: bool) -> bool {
    let chattr = Command::new("chattr").arg(if is_set { "+i" } else { "-i" }).arg(path).output();
    chattr.is_ok_and(|chattr| chattr.status.success())
}

#[test]
fn a_directory_that_becomes_read_only_refuses_who_needs_it_and_nobody_else_until_it_may_be_written() {
    let directory = TempDir::new().expect("a directory");
    if !set_immutable(directory.path(), true) {
        println!("skipped: this needs root, and a file system with the attribute");
        return;
    }
    assert!(set_immutable(directory.path(), false));
    let set_all = |is_set| {
        for entry in std::fs::read_dir(directory.path()).expect("a directory") {
            assert!(set_immutable(&entry.expect("an entry").path(), is_set));
        }
        assert!(set_immutable(directory.path(), is_set));
    };
    live_through(directory.path(), 100, || set_all(true), || set_all(false));
}
