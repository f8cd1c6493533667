//! Redis, NATS and Socket.IO, the real ones: the same commands, the same account.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{SHORT, count, measure, reports};

/// A broker that ends with its test.
struct Broker {
    child: Child,
    port: u16,
}

impl Broker {
    /// None, said aloud, where it isn't installed; but `scripts/test.sh` installs all.
    fn start(program: &str, arguments: impl Fn(u16) -> Vec<String>) -> Option<Self> {
        // Debian has daemons where only root looks.
        let installed = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(|folder| Path::new(folder).join(program));
        let Some(path) = installed.into_iter().find(|path| path.exists()) else {
            assert!(std::env::var("FANTAIL_TEST_TOOLS").as_deref() != Ok("all"), "{program} is not installed");
            eprintln!("skipped: {program} is not installed");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(path);
        let child = command.args(arguments(port)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let broker = Self { child, port };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(broker);
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{program} does not listen");
    }

    /// The comparison's own server around the package of npm, which `scripts/test.sh` installs.
    fn socket_io() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/node");
        if !folder.join("node_modules/socket.io/package.json").exists() {
            assert!(std::env::var("FANTAIL_TEST_TOOLS").as_deref() != Ok("all"), "socket.io is not installed");
            eprintln!("skipped: socket.io is not installed");
            return None;
        }
        let script = folder.join("socket.io.js").to_str()?.to_owned();
        Self::start("node", |port| vec![script.clone(), port.to_string()])
    }

    fn redis() -> Option<Self> {
        let words = |port: u16| format!("--port {port} --bind 127.0.0.1 --save '' --appendonly no");
        Self::start("redis-server", |port| words(port).split(' ').map(|word| word.replace('\'', "")).collect())
    }

    fn nats() -> Option<Self> {
        Self::start("nats-server", |port| ["-a", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already, which the test then says better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check_all(scheme: &str, broker: &Broker) {
    let url = format!("{scheme}://127.0.0.1:{}/{{topic}}", broker.port);
    let run = |words: &[&str]| reports(&measure(&[&words[..1], &[&url], &words[1..], &SHORT].concat()));
    for (words, each) in [
        (&["fanout", "--connections", "20"][..], 20),
        (&["fanout", "--connections", "20", "--window", "3"], 20),
        (&["notify", "--topics", "95", "--rate", "500"], 1),
        (&["rooms", "--clients", "20", "--rooms", "10", "--rooms-per-client", "5", "--batch", "3"], 10),
        (&["churn", "--connections", "5", "--joins", "50", "--stay", "100ms"], 5),
        (&["churn", "--connections", "5", "--joins", "50", "--stay", "100ms", "--how", "subscribe"], 5),
        (&["publish", "--subscribers", "2", "--publishers", "2", "--inflight", "3"], 2),
    ] {
        for report in run(words) {
            for fault in ["lost", "duplicated", "reordered", "foreign", "connections_lost", "refused_publications"] {
                assert_eq!(count(&report, fault), 0, "{words:?} {fault}: {report:#}");
            }
            assert!(count(&report, "published") > 10, "{words:?}: {report:#}");
            assert_eq!(count(&report, "delivered"), count(&report, "published") * each, "{words:?}: {report:#}");
            if words[0] == "churn" {
                let [joined, left] = ["joined", "left"].map(|name| count(&report, name));
                assert_eq!((joined, left, count(&report, "passing_lost")), (60, 60, 0), "{words:?}: {report:#}");
                assert!(count(&report, "passing_delivered") > 60, "{words:?}: {report:#}");
            }
            if words[0] == "publish" {
                assert_eq!(count(&report, "answered"), count(&report, "published"), "{report:#}");
            }
        }
    }
}

#[test]
fn redis_speaks_resp() {
    if let Some(broker) = Broker::redis() {
        check_all("redis", &broker);
    }
}

#[test]
fn socket_io_hands_on_to_everybody_what_one_says() {
    let Some(broker) = Broker::socket_io() else { return };
    let url = format!("ws://127.0.0.1:{}/socket.io/?EIO=4&transport=websocket&topic={{topic}}", broker.port);
    let json = measure(&[&["fanout", &url, "--sub", "socketio", "--connections", "20"], &SHORT[..]].concat());
    for fault in ["lost", "duplicated", "reordered", "foreign", "connections_lost"] {
        assert_eq!(count(&json, fault), 0, "{fault}: {json:#}");
    }
    assert!(count(&json, "published") > 10, "{json:#}");
    assert_eq!(count(&json, "delivered"), count(&json, "published") * 20, "{json:#}");
}

#[test]
fn nats_speaks_its_own() {
    if let Some(broker) = Broker::nats() {
        check_all("nats", &broker);
    }
}
