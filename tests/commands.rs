//! The command line from outside: variables, exit statuses, Ctrl-C. Nothing here needs a Fantail server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::Message;

fn fantail(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    command.args(words).stdin(Stdio::null());
    command
}

/// Exit status and stderr.
fn ended(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn nothing_at_all_prints_the_help() {
    let (status, help) = ended(&fantail(&[]).output().unwrap());
    assert_eq!(status, Some(2));
    assert!(help.contains("Usage: fantail") && help.contains("Exit status:"), "{help}");
}

#[test]
fn help_and_version_are_no_failure() {
    for words in [&["--help"][..], &["serve", "-h"], &["--version"]] {
        let output = fantail(words).output().unwrap();
        assert_eq!(ended(&output), (Some(0), String::new()));
        assert!(!output.stdout.is_empty());
    }
}

/// Each setting is out of its range, so that the server does not start and the error tells which of the two values was taken.
#[test]
fn a_flag_wins_over_its_variable() {
    let variable = fantail(&["serve"]).env("FANTAIL_WORKERS", "999").output().unwrap();
    assert_eq!(ended(&variable), (Some(2), "fantail: --workers is 999\nfix: Give at most 256.\n".into()));
    let both = fantail(&["serve", "--workers", "888"]).env("FANTAIL_WORKERS", "999").output().unwrap();
    assert_eq!(ended(&both).1, "fantail: --workers is 888\nfix: Give at most 256.\n");
}

#[test]
fn a_variable_can_hold_a_list_and_a_switch() {
    let list = fantail(&["serve"]).env("FANTAIL_LISTEN", "127.0.0.1:7,127.0.0.1:7").output().unwrap();
    assert!(ended(&list).1.starts_with("fantail: --listen names 127.0.0.1:7 twice\n"));
    let switch = fantail(&["serve", "--workers=0"]).env("FANTAIL_ECHO", "1").output().unwrap();
    assert!(ended(&switch).1.starts_with("fantail: --workers is 0\n"), "1 is a switch that is on");
    let wrong = fantail(&["serve"]).env("FANTAIL_ECHO", "perhaps").output().unwrap();
    assert!(ended(&wrong).1.contains("'perhaps' for '--echo'"));
}

#[test]
fn an_unreachable_server_is_status_1_and_a_wrong_topic_2() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for words in [&["pub", "chat", "hello"][..], &["sub", "chat"]] {
        let (status, text) = ended(&fantail(words).env("FANTAIL_URL", format!("http://{address}")).output().unwrap());
        assert_eq!(status, Some(1), "{text}");
        assert!(text.starts_with("fantail: ") && text.contains("can't be reached") && text.contains("\nfix: "), "{text}");
    }
    let (status, text) = ended(&fantail(&["pub", "a//b", "hello"]).output().unwrap());
    assert_eq!(status, Some(2));
    assert!(text.contains("segment"), "{text}");
}

#[test]
fn ctrl_c_ends_a_subscriber_in_order_with_status_130() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
        socket.send(Message::text("hello")).unwrap();
        socket.read().unwrap()
    });
    let mut child = fantail(&["sub", "chat", "--url", &url]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut notes = String::new();
    child.stderr.take().unwrap().read_to_string(&mut notes).unwrap();
    assert_eq!((child.wait().unwrap().code(), notes), (Some(130), String::new()));
    assert!(matches!(server.join().unwrap(), Message::Close(Some(frame)) if u16::from(frame.code) == 1000));
}

#[test]
fn a_closed_stdout_ends_a_subscriber_quietly() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child = fantail(&["sub", "chat", "--url", &url]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut socket = tungstenite::accept(listener.accept().unwrap().0).unwrap();
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    // A process that another test is just starting may hold the pipe's reading end for a moment, so one message is not enough.
    while !matches!(socket.read(), Ok(Message::Close(_))) {
        socket.send(Message::text("nobody reads this")).unwrap();
    }
    drop(socket);
    assert_eq!(ended(&child.wait_with_output().unwrap()), (Some(0), String::new()));
}

#[test]
fn stdin_is_published_line_by_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child = fantail(&["pub", "chat", "--url", &url]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let mut stream = listener.accept().unwrap().0;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\nhello") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0);
        request.extend_from_slice(&bytes[..count]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"cursor\":\"ab.1\"}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ab.1\n"[..]));
}
