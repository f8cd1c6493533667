//! The command line: help, variables, exit statuses, `pub` and `sub` against a server and in pipes.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use support::http::{ask, get, post};
use support::metrics::Metrics;
use support::server::{Launch, Running, Server, begin, run};
use support::{PATIENCE, eventually};

fn url(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Begins `sub` with these arguments and waits until its subscription to `topic` is in force.
fn subscribe(server: &Server, topic: &str, arguments: &[&str]) -> Running {
    let running = begin(&[&["sub", "--url", &url(server)], arguments].concat(), &[], b"");
    eventually("the subscription is in force", PATIENCE, || {
        get(server.address, &format!("/topics/{topic}")).json()["subscribers"] == 1
    });
    running
}

fn publish(server: &Server, topic: &str, body: &str) {
    assert_eq!(ask(server.address, post(&format!("/topics/{topic}"), "", body)).status, 200);
}

/// Connections that a server took for lost.
fn lost(metrics: &Metrics) -> f64 {
    let ended = |cause| metrics.sum("fantail_connections_closed_total", &[("cause", cause)]);
    ["end_of_stream", "reset", "network_error", "no_pong"].map(ended).iter().sum()
}

#[test]
fn sub_prints_what_is_behind_a_pattern() {
    let server = Server::start(&["--workers", "2"]);
    for (topic, body) in [("news/a", "one"), ("news/b", "two"), ("other", "not this")] {
        publish(&server, topic, body);
    }
    let ended = run(&["sub", "--url", &url(&server), "news/*", "--since", "earliest", "--count", "2"]);
    let lines: std::collections::BTreeSet<&str> = ended.stdout.lines().collect();
    assert_eq!((ended.status, lines), (Some(0), ["news/a\tone", "news/b\ttwo"].into()), "{ended:?}");
    server.assert_well();
}

#[test]
fn nothing_at_all_prints_the_help() {
    let help = run(&[]);
    assert_eq!((help.status, help.stdout.as_str()), (Some(2), ""));
    assert!(help.stderr.contains("Usage: fantail") && help.stderr.contains("Exit status:"), "{help:?}");
}

#[test]
fn help_is_short_enough_for_every_terminal() {
    for arguments in
        [&["--help"][..], &["serve", "--help"], &["serve", "-h"], &["check", "--help"], &["pub", "--help"], &["sub", "--help"]]
    {
        let help = run(arguments);
        assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        for line in help.stdout.lines() {
            assert!(line.chars().count() < 80, "{line:?}");
        }
    }
    let serve = run(&["serve", "--help"]).stdout;
    for flag in ["--listen", "--max-message-size", "--drain-window", "--slow-consumer", "--log-format", "64KiB", "10s"] {
        assert!(serve.contains(flag), "{flag} is missing:\n{serve}");
    }
    assert!(run(&["--version"]).stdout.starts_with("fantail "));
}

#[test]
fn wrong_usage_is_one_line_that_names_the_flag_and_status_2() {
    for (arguments, named) in [
        (&["serve", "--lisen", "127.0.0.1:0"][..], "--lisen"),
        (&["serve", "--ping-interval", "10"], "--ping-interval"),
        (&["serve", "--max-message-size", "64 kilos"], "--max-message-size"),
        (&["serve", "--outbox-size", "64KiB"], "--outbox-size"),
        (&["serve", "--workers", "0"], "--workers"),
        (&["serve", "--allow-origin", "good.example"], "--allow-origin"),
        (&["serve", "--slow-consumer", "ignore"], "--slow-consumer"),
        (&["serve", "--listen", "nowhere"], "--listen"),
        (&["serve", "--history-bytes", "1KiB"], "--history-bytes is 1KiB, less than --max-message-size"),
        (&["serve", "--topic-class", "a;colour=red"], "--topic-class <RULE>': \"colour\" is no key"),
        (&["check", "--topic-class", "*/a;presence=off"], "--topic-class"),
        (&["check", "--topic-class", "a;presence-names=on"], "presence-names is on, and presence is off"),
        (&["check", "--topic-class", "a;presence=list;presence-names=maybe"], "presence-names: give on or off"),
        (&["check", "--presence-grace", "1h"], "--presence-grace is 1h"),
        (&["check", "--topic-class", ""], "--topic-class"),
        (&["check", "--topic-class", "a;presence=off;presence=off"], "presence is set twice"),
        (&["check", "--topic-class", "a;history-ttl=0s"], "--topic-class a: history-ttl is 0s"),
        (&["check", "--topic-class", "*;presence=off", "--topic-class", "a;presence=off"], "--topic-class a never holds"),
        (&["check", "a/*"], "*"),
        (&["nonsense"], "nonsense"),
        (&["pub"], "TOPIC"),
        (&["sub"], "TOPIC"),
        (&["pub", "a/*", "x"], "*"),
        (&["pub", "a//b", "x"], "segment"),
        (&["sub", "a", "--count", "0"], "at least 1"),
        (&["--log-level", "debug", "serve"], "--log-level"),
    ] {
        let failed = run(arguments);
        assert_eq!((failed.status, failed.stdout.as_str()), (Some(2), ""), "{failed:?}");
        let first = failed.stderr.lines().next().unwrap_or_default();
        assert!(first.contains(named), "{arguments:?}: {}", failed.stderr);
        assert!(failed.stderr.lines().count() <= 2, "one line and a fix: {}", failed.stderr);
    }
    let in_environment = begin(&["serve"], &[("FANTAIL_MAX_HEAD_SIZE", "huge")], b"").end();
    assert_eq!(in_environment.status, Some(2), "{in_environment:?}");
}

#[test]
fn a_variable_sets_what_a_flag_does_and_the_flag_wins() {
    let server = Launch::new(&[]).environment("FANTAIL_MAX_MESSAGE_SIZE", "1KiB").start();
    ask(server.address, post("/topics/a", "", vec![b'x'; 1025])).problem(413);
    let server = Launch::new(&["--max-message-size", "2KiB"]).environment("FANTAIL_MAX_MESSAGE_SIZE", "1KiB").start();
    assert_eq!(ask(server.address, post("/topics/a", "", vec![b'x'; 1025])).status, 200);
}

/// Each setting is out of its range, so that the server does not start and the error tells which value was taken.
#[test]
fn a_variable_can_hold_a_list_and_a_switch() {
    let first_line = |arguments: &[&str], variable: (&str, &str)| {
        let failed = begin(arguments, &[variable], b"").end();
        assert_eq!(failed.status, Some(2), "{failed:?}");
        failed.stderr.lines().next().unwrap_or_default().to_string()
    };
    let list = first_line(&["serve"], ("FANTAIL_LISTEN", "127.0.0.1:7,127.0.0.1:7"));
    assert_eq!(list, "fantail: --listen names 127.0.0.1:7 twice");
    let switch = first_line(&["serve", "--workers=0"], ("FANTAIL_ECHO", "1"));
    assert_eq!(switch, "fantail: --workers is 0", "1 is a switch that is on");
    let wrong = first_line(&["serve"], ("FANTAIL_ECHO", "perhaps"));
    assert_eq!(wrong, "fantail: invalid value 'perhaps' for FANTAIL_ECHO: give true or false, yes or no, on or off, 1 or 0");
    let number = first_line(&["serve"], ("FANTAIL_MAX_TOPICS", "abc"));
    assert_eq!(number, "fantail: invalid value 'abc' for FANTAIL_MAX_TOPICS: give a whole number, 0 to 4294967295");
    let flag = first_line(&["serve", "--max-topics=abc"], ("FANTAIL_MAX_TOPICS", "abc"));
    assert!(flag.contains("--max-topics"), "the flag wins: {flag}");
}

/// The rows of a table that `check` printed, those of classes or of topics, by their first cell.
fn row<'a>(printed: &'a str, first: &str) -> Vec<&'a str> {
    let rows = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter().find(|row| row.first() == Some(&first)).unwrap_or_else(|| panic!("no row {first:?}:\n{printed}"))
}

#[test]
fn check_shows_the_classes_and_which_one_a_topic_gets() {
    let rule = "prices/*;history-size=1;history-ttl=10s;history-bytes=64KiB;slow-consumer=latest;presence=list;presence-names=on;durable";
    let flags = ["--data-dir", "/nowhere", "--history-ttl", "1h", "--topic-class", rule, "--topic-class", "**;history-size=2"];
    let checked = run(&[&["check", "prices/eur", "prices/eur/usd"], &flags[..]].concat());
    assert_eq!((checked.status, checked.stderr.as_str()), (Some(0), ""), "{checked:?}");
    assert_eq!(row(&checked.stdout, "1")[1..], ["prices/*", "1", "10s", "64KiB", "latest", "list+names", "yes"]);
    assert_eq!(row(&checked.stdout, "2")[1..], ["**", "2", "1h", "1MiB", "disconnect", "off", "no"]);
    assert_eq!(row(&checked.stdout, "default")[1..], ["-", "100", "1h", "1MiB", "disconnect", "off", "no"]);
    assert_eq!(row(&checked.stdout, "prices/eur")[1..], ["1", "prices/*"]);
    assert_eq!(row(&checked.stdout, "prices/eur/usd")[1..], ["2", "**"]);
}

#[test]
fn classes_come_from_their_variable_unless_the_flag_is_given() {
    let list = ("FANTAIL_TOPIC_CLASS", "a/*;history-size=9,b;history-size=0");
    let by_variable = begin(&["check", "a/1", "c"], &[list], b"").end();
    assert_eq!(by_variable.status, Some(0), "{by_variable:?}");
    assert_eq!(row(&by_variable.stdout, "2")[1..3], ["b", "0"]);
    assert_eq!(row(&by_variable.stdout, "a/1")[1..], ["1", "a/*"]);
    assert_eq!(row(&by_variable.stdout, "c")[1..], ["default", "-"]);
    let by_flag = begin(&["check", "a/1", "--topic-class", "b;history-size=4"], &[list], b"").end();
    assert_eq!(row(&by_flag.stdout, "a/1")[1..], ["default", "-"], "{by_flag:?}");
    let wrong = begin(&["check"], &[("FANTAIL_TOPIC_CLASS", "a;presence=on")], b"").end();
    assert_eq!(wrong.status, Some(2), "{wrong:?}");
    let expected = "fantail: invalid value 'a;presence=on' for FANTAIL_TOPIC_CLASS: presence: give off, count or list\n";
    assert!(wrong.stderr.starts_with(expected), "{wrong:?}");
}

#[test]
fn pub_publishes_an_argument_or_each_line_of_its_input() {
    let server = Server::start(&[]);
    let mut subscriber = server.socket("/topics/chat");
    let once = run(&["pub", "--url", &url(&server), "chat", "hello"]);
    assert_eq!((once.status, once.stderr.as_str()), (Some(0), ""), "{once:?}");
    assert!(once.stdout.trim().contains('.'), "a cursor is printed: {once:?}");
    assert_eq!(subscriber.message(), "hello");
    // Without an argument as with `-` each line of stdin is a message.
    let url = url(&server);
    for data in [&["-"][..], &[]] {
        let arguments = [&["pub", "--url", &url, "chat"], data].concat();
        let lines = begin(&arguments, &[], "one\ntwo\nthrée".as_bytes()).end();
        assert_eq!((lines.status, lines.stdout.lines().count()), (Some(0), 3), "{lines:?}");
        for line in ["one", "two", "thrée"] {
            assert_eq!(subscriber.message(), line);
        }
    }
    let by_variable = begin(&["pub", "chat", "by variable"], &[("FANTAIL_URL", &url)], b"").end();
    assert_eq!(by_variable.status, Some(0), "{by_variable:?}");
    assert_eq!(subscriber.message(), "by variable");
}

#[test]
fn sub_prints_a_message_a_line() {
    let server = Server::start(&[]);
    let before = lost(&server.metrics());
    let raw = subscribe(&server, "chat", &["--count", "2", "chat"]);
    publish(&server, "chat", "one");
    publish(&server, "chat", "two");
    let raw = raw.end();
    assert_eq!((raw.status, raw.stdout.as_str()), (Some(0), "one\ntwo\n"), "{raw:?}");

    let json = subscribe(&server, "room/1", &["--json", "--count", "1", "room/1"]);
    publish(&server, "room/1", "hi");
    let json = json.end();
    let message: Value = serde_json::from_str(json.stdout.trim()).expect("a JSON line");
    assert_eq!((&message["topic"], &message["text"]), (&"room/1".into(), &"hi".into()));
    // Commands leave in order: the server does not call them lost.
    server.expect_metric("fantail_connections", &[("transport", "websocket")], 0.0);
    assert_eq!(lost(&server.metrics()), before);
}

#[test]
fn a_closed_stdout_ends_sub_quietly() {
    let server = Server::start(&[]);
    let mut running = subscribe(&server, "chat", &["chat"]);
    running.close_stdout();
    // A process that another test is just starting may hold the pipe's reading end for a moment, so one message is not enough.
    eventually("it ends", PATIENCE, || {
        publish(&server, "chat", "nobody reads this");
        !running.is_running()
    });
    let ended = running.end();
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
}

#[test]
fn refusals_and_absent_servers_are_status_1() {
    let server = Server::start(&["--allow-anonymous", "none"]);
    for command in ["pub", "sub"] {
        let mut arguments = vec![command, "--url"];
        let url = url(&server);
        arguments.extend([url.as_str(), "chat"]);
        if command == "pub" {
            arguments.push("hi");
        }
        let refused = run(&arguments);
        assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains("--allow-anonymous"), "the server's fix is shown: {refused:?}");
    }
    for arguments in
        [["pub", "--url", "http://127.0.0.1:1", "chat", "hi"].as_slice(), &["sub", "--url", "http://127.0.0.1:1", "chat"]]
    {
        let absent = run(arguments);
        assert_eq!(absent.status, Some(1), "{absent:?}");
        assert!(absent.stderr.contains("127.0.0.1:1") && absent.stderr.contains("can't be reached"), "{absent:?}");
        assert!(absent.stderr.contains("\nfix: "), "{absent:?}");
    }
}

#[test]
fn sub_ends_on_ctrl_c_and_comes_back_after_a_restart() {
    let mut server = Server::start(&["--drain-window", "0s"]);
    let address = server.address;
    let running = subscribe(&server, "chat", &["--count", "2", "chat"]);
    publish(&server, "chat", "before");
    server.expect_metric("fantail_messages_sent_total", &[("transport", "websocket")], 1.0);
    server.terminate();
    assert!(server.wait().success());
    let server = Launch::new(&[]).only(&[address]).start();
    // Before it comes back, or after: it gets this all the same, because it asks for what is behind the other life's cursor.
    eventually("it comes back", Duration::from_secs(30), || get(server.address, "/topics/chat").json()["subscribers"] == 1);
    publish(&server, "chat", "after");
    let ended = running.end();
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "before\nafter\n"), "{ended:?}");
    assert!(ended.stderr.contains("drain"), "why it ended is told: {ended:?}");

    let before = lost(&server.metrics());
    let running = subscribe(&server, "other", &["other"]);
    kill_process(running.pid(), Signal::INT).expect("it runs");
    let ended = running.end();
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(130), ""), "{ended:?}");
    server.expect_metric("fantail_connections", &[("transport", "websocket")], 0.0);
    assert_eq!(lost(&server.metrics()), before, "Ctrl-C leaves in order, too");
}
