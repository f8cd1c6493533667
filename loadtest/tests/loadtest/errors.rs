//! What can't be measured is said in one line; what was measured until Ctrl-C is printed.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Process, TOOL, run};

/// Status and the line of a run that can't be made.
fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(arguments);
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_cannot_be_run_says_why_and_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("ws://127.0.0.1:{port}/");
    let several = format!("ws://127.0.0.1:{port}/?t={{topic}}");
    let both = format!("ws://127.0.0.1:{port}/{{topic}}");
    for (arguments, status, words) in [
        (vec!["echo", &gone], 1, "connection 1 of 100: connection refused"),
        (vec!["connect", &gone, "--duration", "200ms", "--warmup", "0s"], 1, "no connection was opened: connection refused"),
        (vec!["connect", &gone, "--timeout", "1s", "--duration", "1h"], 1, "no connection was opened: connection refused"),
        (vec!["fanout", "ws://user:word@127.0.0.1/"], 1, "a user and a password in the URL are not supported"),
        (vec!["connect", &gone, "--source", "192.0.2.7"], 1, "--source 192.0.2.7: Cannot assign requested address"),
        (vec!["fanout", "wss://127.0.0.1/"], 1, "TLS is not supported"),
        (vec!["fanout", &gone, "--size", "8"], 2, "at least 23: a message carries its number and time"),
        (vec!["fanout", &gone, "--size", "65MiB"], 2, "at most 64MiB"),
        (vec!["echo", &gone, "--inflight", "4000000000"], 1, "--inflight 4000000000: 400000000000 messages of 64B under way"),
        (vec!["echo", &gone, "--rate", "1", "--size", "64MiB"], 1, "connection 1 of 100: connection refused"),
        (vec!["publish", &gone, "--inflight", "1025", "--size", "1MiB"], 1, "more than 1GiB"),
        (vec!["fanout", &gone, "--rate", "0"], 2, "operations a second"),
        (vec!["hold", &gone], 1, "give its --pid"),
        (vec!["hold", &gone, "--connections", "4000000000", "--pid", "1"], 1, "4000000032 descriptors are needed"),
        (vec!["echo", &gone, "--cpu", "999"], 1, "may not run on CPU 999"),
        (vec!["echo", &gone, "--cpu", "99999"], 1, "may not run on CPU 99999"),
        (vec!["notify", &gone], 1, "put {topic} into the URL"),
        (vec!["notify", &both, "--per-connection", "2"], 1, "room for 1 topic only"),
        (vec!["rooms", &several], 1, "use --publish post"),
        (vec!["rooms", &both, "--interval", "0s"], 2, "more than 0"),
        (vec!["rooms", &both, "--rooms", "4000000000"], 2, "--rooms"),
        (vec!["rooms", &both, "--clients", "100000000"], 1, "1000000033 descriptors are needed"),
        (vec!["rooms", &both, "--clients", "2"], 1, "2 clients in 10 rooms each leave some of 100 rooms empty"),
        (vec!["fanout", &gone, "--window", "1", "--processes", "2"], 1, "use --rate, or fewer connections"),
        (vec!["fanout", "redis://127.0.0.1/a", "--publish", "post"], 1, "Redis and NATS have their own way"),
        (vec!["fanout", "redis://127.0.0.1/a", "--sub", "nats"], 1, "not that of --sub"),
        (vec!["echo", "redis://127.0.0.1/a"], 1, "speaks WebSocket only"),
        // Before anything is connected, so that nothing is measured for nothing.
        (vec!["echo", &gone, "--json", "/no/such/folder/r.json"], 1, "/no/such/folder/r.json: No such file or directory"),
        (vec!["echo", &gone, "--csv", "/proc"], 1, "/proc: is a directory"),
        (vec!["slow", &gone, "--connections", "5", "--slow", "5"], 1, "the others are measured"),
        (vec!["churn", &gone, "--how", "subscribe"], 1, "a WebSocket's subscription is its connection"),
        (vec!["scaling", &gone, "--", "true"], 1, "no {workers}"),
        (vec!["scaling", &both, "--", "false", "{workers}"], 1, "it ended"),
        (vec!["connect", &gone, "--idle-rate", "5"], 2, "--idle"),
        (vec!["connect", &gone, "--idle", "1", "--idle-url", "redis://127.0.0.1/a"], 1, "--idle-url redis://127.0.0.1/a"),
        (vec!["fanout", &gone, "--publish", "ws", "--post", &gone], 1, "--post is where to POST"),
        (vec!["scaling", &both, "--pid", "1", "--", "false", "{workers}"], 1, "--pid: the server that is measured"),
        (vec!["resume", &gone], 1, "connection 1 of 1: connection refused"),
        (vec!["resume", &gone, "--missed", "0"], 2, "--missed"),
        (vec!["resume", &several], 1, "say with --post URL where to publish on one"),
    ] {
        let (code, line) = failure(&arguments);
        assert_eq!(code, Some(status), "{arguments:?}: {line}");
        assert!(line.contains(words), "{arguments:?}: {line}");
    }
}

#[test]
fn help_offers_no_protocol_that_the_command_refuses() {
    let help = String::from_utf8(run(&["resume", "--help"]).stdout).unwrap();
    assert!(help.contains("sse: event streams") && !help.contains("redis") && help.contains("{cursor}"), "{help}");
    for (command, offered) in [("connect", false), ("echo", false), ("fanout", true)] {
        let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains("ws://HOST[:PORT]/PATH"), "{help}");
        assert_eq!((help.contains("redis://"), help.contains("--sub")), (offered, offered), "{command}: {help}");
    }
}

#[test]
fn a_process_that_is_gone_is_an_error_not_a_zero() {
    let server = Process::floor();
    let (code, line) = failure(&["echo", &format!("ws://{}/echo", server.address), "--connections", "1", "--pid", "4194304"]);
    assert_eq!(code, Some(1));
    assert!(line.contains("--pid 4194304"), "{line}");
}

#[test]
fn results_are_printed_though_nobody_reads_the_table() {
    let server = Process::floor();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let flags = ["--connections", "2", "--duration", "200ms", "--warmup", "0s", "--json", "-"];
    let mut tool = Command::new(TOOL);
    let output = tool.args(["echo", &format!("ws://{}/echo", server.address)]).args(flags).stderr(writer).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}", output.status);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["command"], "echo");
}

#[test]
fn ctrl_c_prints_what_was_measured_so_far() {
    let server = Process::floor();
    let url = format!("ws://{}/topics/a", server.address);
    let tool = Command::new(TOOL)
        .args(["fanout", &url, "--connections", "5", "--duration", "1h", "--warmup", "0s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    // Twice: a parent may hand on what the terminal has sent to its whole group.
    for _ in 0..2 {
        let status = Command::new("kill").args(["-INT", &tool.id().to_string()]).status().unwrap();
        assert!(status.success());
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = tool.wait_with_output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(table.contains("interrupted") && table.contains("deliveries"), "{table}");
    assert!(output.stderr.is_empty(), "no progress bar in a pipe");
}

#[test]
fn a_terminal_shows_a_bar_with_rate_and_time_left() {
    let server = Process::floor();
    let line = format!("{TOOL} fanout ws://{}/topics/a --connections 5 --duration 2s --warmup 500ms", server.address);
    // `script` has a terminal of its own for what it starts.
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in ["fanout ", "warm-up, ", "/s, 2s left", "/s, 1s left", " %  "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let table = shown.rsplit("\u{1b}[2K").next().unwrap();
    assert!(table.contains("fanout, 2.0 s measured") && !table.contains("left"), "the bar is gone at the end: {shown}");
}
