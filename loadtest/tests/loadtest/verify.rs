//! `verify` against the real server, through a restart, and against a server whose stream somebody tampers with: what was lost in
//! silence is found, and nothing else.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Process, TOOL, fantail, run};
use crate::tamper::{Fault, proxy};

/// Some seconds in which everybody is cut several times.
const BRISK: [&str; 10] = ["--topics", "2", "--subscribers", "6", "--rate", "100", "--cut-every", "600ms", "--away", "300ms"];

/// What a run printed, and its exit status.
struct Outcome {
    text: String,
    status: Option<i32>,
}

impl Outcome {
    fn of(arguments: &[&str]) -> Self {
        let output = run(&[&["verify"], arguments].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.is_empty(), "{errors}");
        Self { text: String::from_utf8(output.stdout).unwrap(), status: output.status.code() }
    }

    /// The number behind these words.
    fn count(&self, words: &str) -> u64 {
        let behind = self.text.split_once(&format!("{words} ")).unwrap_or_else(|| panic!("no {words} in {}", self.text)).1;
        let digits = behind.split(|char: char| !char.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap_or_else(|_| panic!("no number behind {words} in {}", self.text))
    }

    fn faults(&self) -> [u64; 4] {
        ["lost in silence", "duplicated", "reordered", "contradicted"].map(|words| self.count(words))
    }
}

#[test]
fn the_server_keeps_its_promise_through_every_cut() {
    let server = Process::fantail_with(&["--workers", "2", "--history-size", "1000"]);
    let url = format!("http://{}/topics/{{topic}}", server.address);
    let outcome = Outcome::of(&[&[&url, "--duration", "4s", "--seed", "7"], &BRISK[..]].concat());
    assert_eq!((outcome.status, outcome.faults()), (Some(0), [0; 4]), "{}", outcome.text);
    let summaries = outcome.text.lines().filter(|line| line.starts_with("accepted ")).count();
    assert_eq!(summaries, 1, "{}", outcome.text);
    // 4 s, 100 a second on each of two topics, however late.
    assert_eq!(outcome.count("accepted") + outcome.count("not sent"), 800, "{}", outcome.text);
    assert!(outcome.count("delivered") > 800 * 5, "{}", outcome.text);
    assert_eq!((outcome.count("gaps announced"), outcome.count("refused")), (0, 0), "{}", outcome.text);
    for words in ["replayed", "reset", "half-closed", "stalled", "closed", "came back", "anew"] {
        assert!(outcome.count(words) > 0, "{words}: {}", outcome.text);
    }
    assert_eq!(outcome.count("seed"), 7);
}

#[test]
fn what_is_not_kept_is_announced() {
    let server = Process::fantail_with(&["--workers", "1", "--history-size", "5"]);
    let url = format!("http://{}/topics/{{topic}}", server.address);
    let outcome = Outcome::of(&[&[&url, "--duration", "2s"], &BRISK[..]].concat());
    assert_eq!((outcome.status, outcome.faults()), (Some(0), [0; 4]), "{}", outcome.text);
    assert!(outcome.count("gaps announced") > 0 && outcome.count("missing and announced") > 0, "{}", outcome.text);
}

#[test]
fn a_server_that_is_killed_under_load_comes_back_with_gaps_and_never_with_silence() {
    let flags = ["http://127.0.0.1:{port}/topics/{topic}", "--duration", "4s", "--kill-every", "1s"];
    let command = ["--", &fantail(), "serve", "--workers", "1", "--listen", "127.0.0.1:{port}", "--admin", "127.0.0.1:0"];
    let outcome = Outcome::of(&[&flags[..], &BRISK[..], &command[..]].concat());
    assert_eq!((outcome.status, outcome.faults()), (Some(0), [0; 4]), "{}", outcome.text);
    assert!(outcome.count("gaps announced") > 0, "{}", outcome.text);
    assert!((2..=3).contains(&outcome.count("killed")), "{}", outcome.text);
    assert!(outcome.count("port bound again within") < 5_000, "{}", outcome.text);
}

#[test]
fn whoever_tampers_with_a_stream_is_found_out() {
    for websockets in [true, false] {
        for fault in [Fault::Drop, Fault::Twice, Fault::Behind, Fault::SwallowGaps] {
            let history = if fault == Fault::SwallowGaps { "5" } else { "1000" };
            let server = Process::fantail_with(&["--workers", "1", "--history-size", history]);
            let url = format!("http://{}/topics/{{topic}}", proxy(server.address.clone(), websockets, fault));
            let outcome = Outcome::of(&[&[&url, "--duration", "2s", "--timeout", "1s"], &BRISK[..]].concat());
            let [lost, duplicated, reordered, contradicted] = outcome.faults().map(|count| count > 0);
            // Who is cut right behind a message that came too late goes on behind that one, so it gets the later one twice; and
            // what waits for the next one waits for ever where none comes.
            let expected = match fault {
                Fault::Drop | Fault::SwallowGaps => lost && !duplicated && !reordered,
                Fault::Twice => !lost && duplicated && !reordered,
                Fault::Behind => reordered,
            };
            assert!(expected && !contradicted, "{fault:?}, WebSockets {websockets}: {}", outcome.text);
            assert_eq!(outcome.status, Some(4), "{fault:?}: {}", outcome.text);
            assert!(outcome.text.contains("fault: "), "{}", outcome.text);
        }
    }
}

#[test]
fn ctrl_c_stops_the_server_that_was_started_and_says_what_there_was() {
    let command = ["--", &fantail(), "serve", "--workers", "1", "--listen", "127.0.0.1:{port}", "--admin", "127.0.0.1:0"];
    let mut tool = Command::new(TOOL);
    tool.args(["verify", "http://127.0.0.1:{port}/topics/{topic}", "--duration", "10m"]).args(BRISK).args(command);
    let tool = tool.stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", tool.id())).unwrap();
    let server = children.split_ascii_whitespace().next().expect("the server runs").to_owned();
    assert!(Command::new("kill").args(["-INT", &tool.id().to_string()]).status().unwrap().success());
    let output = tool.wait_with_output().unwrap();
    let outcome = Outcome { text: String::from_utf8(output.stdout).unwrap(), status: output.status.code() };
    assert_eq!(outcome.status, Some(130), "{}", outcome.text);
    assert!(outcome.count("delivered") > 0 && outcome.text.contains("interrupted"), "{}", outcome.text);
    assert!(!std::path::Path::new("/proc").join(&server).exists(), "the server is gone with it");
}

#[test]
fn what_proves_nothing_is_invalid_or_said_in_a_line() {
    let server = Process::fantail_with(&["--workers", "1", "--allow-anonymous", "subscribe"]);
    let url = format!("http://{}/topics/{{topic}}", server.address);
    let refused = Outcome::of(&[&url, "--duration", "1s", "--timeout", "1s"]);
    assert_eq!(refused.status, Some(3), "{}", refused.text);
    assert!(refused.text.contains("INVALID: nothing was accepted: 403: "), "{}", refused.text);
    assert!(refused.text.contains("INVALID: nobody was cut and came back"), "{}", refused.text);
    let nowhere = format!("http://{}/nowhere", server.address);
    let query = format!("{url}?envelope");
    for (arguments, status, words) in [
        (&[&*nowhere][..], 1, "refused with 404"),
        (&[&query], 1, "give the topic's URL without a query"),
        (&["http://127.0.0.1:9/{topic}"], 1, "connection refused"),
        (&[&url, "--kill-every", "1s"], 2, "<COMMAND>"),
        (&["http://127.0.0.1:{port}/a"], 1, "give its command line behind --"),
        (&[&url, "--duration", "24h", "--rate", "100"], 1, "34560000 publications are more than the 4000000"),
        (&[&url, "--duration", "1h", "--cut-every", "1ms"], 1, "129600000 cuts are more than the 4000000"),
        (&["http://127.0.0.1:{port}/a", "--", "false"], 1, "it ended: exit status: 1"),
    ] {
        let output = run(&[&["verify"], arguments].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(status) && errors.contains(words), "{arguments:?}: {errors}");
    }
}
