//! Against servers that write down what they saw: what the tool tells is what happened.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::upgrade;
use crate::support::{check_latency, count, measure};

/// Starts a server that does `with` each connection on a thread of its own; returns its address and what the threads tell.
fn serve(with: fn(&TcpStream) -> &'static str) -> (String, Receiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (teller, told): (Sender<&'static str>, _) = channel();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let teller = teller.clone();
            thread::spawn(move || {
                let told = with(&socket);
                drop(socket);
                // The test may have seen enough.
                let _ = teller.send(told);
            });
        }
    });
    (address, told)
}

/// The next masked frame of less than 126 bytes: its first byte and its payload.
pub fn frame(mut socket: &TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 6];
    socket.read_exact(&mut head)?;
    let mut payload = vec![0; usize::from(head[1] & 0x7F)];
    socket.read_exact(&mut payload)?;
    payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Ok((head[0], payload))
}

/// How the tool ended a connection, after a close frame was answered if it sent one.
fn ending(mut socket: &TcpStream) -> &'static str {
    upgrade(socket, false);
    match frame(socket) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return "reset",
        Ok((0x88, payload)) if payload == 1000_u16.to_be_bytes() => {}
        _ => return "something else",
    }
    socket.write_all(&[0x88, 2, 3, 0xE8]).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    match socket.read(&mut [0]) {
        Ok(0) => "closed by the client",
        Err(error) if error.kind() == ErrorKind::WouldBlock => "waits for the server",
        _ => "something else",
    }
}

#[test]
fn connections_end_in_the_way_that_was_asked_for() {
    for (close, expected) in [("rst", "reset"), ("client", "closed by the client"), ("server", "waits for the server")] {
        let (address, told) = serve(ending);
        let flags = ["--rate", "50", "--duration", "500ms", "--warmup", "0s", "--close", close];
        let json = measure(&[&["connect", &format!("ws://{address}/")], &flags[..]].concat());
        assert_eq!((count(&json, "begun"), &json["latencies"]["whole"]["count"]), (25, &25.into()), "{json:#}");
        for _ in 0..25 {
            assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(expected), "--close {close}");
        }
        assert!(told.try_recv().is_err(), "no connection more than was told");
    }
}

#[test]
fn a_stall_of_a_second_shows_in_the_open_loop_of_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut first_at, mut has_stalled) = (None, false);
        for socket in listener.incoming().map_while(Result::ok) {
            if first_at.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(700) && !has_stalled {
                has_stalled = true;
                thread::sleep(Duration::from_secs(1));
            }
            upgrade(&socket, false);
        }
    });
    let json = measure(&["connect", &url, "--rate", "50", "--duration", "2s", "--warmup", "0s"]);
    // What was due in the stall's first half waited for at least its second half: 25 of the 100 connections.
    let whole = &json["latencies"]["whole"];
    assert_eq!(whole["count"], 100, "{json:#}");
    assert!(whole["quantiles"]["max"].as_u64().unwrap() >= 950_000_000, "{whole}");
    assert!(whole["quantiles"]["p90"].as_u64().unwrap() >= 500_000_000, "{whole}");
    // TCP stands without the server's doing.
    assert!(json["latencies"]["tcp"]["quantiles"]["p90"].as_u64().unwrap() < 500_000_000, "{json:#}");
}

/// Pings once, and says whether the pong has the ping's payload.
fn ping(mut socket: &TcpStream) -> &'static str {
    upgrade(socket, false);
    socket.write_all(&[0x89, 2, b'h', b'i']).unwrap();
    let told = if matches!(frame(socket), Ok((0x8A, payload)) if payload == b"hi") { "pong" } else { "something else" };
    let _ = socket.read_to_end(&mut Vec::new());
    told
}

#[test]
fn hold_answers_every_ping_in_every_process_and_counts_them() {
    let pid = std::process::id().to_string();
    for processes in ["1", "3"] {
        let (address, told) = serve(ping);
        let flags = ["--from", "3", "--connections", "12", "--processes", processes, "--duration", "300ms", "--warmup", "100ms"];
        let json = measure(&[&["hold", &format!("ws://{address}/"), "--pid", &pid], &flags[..]].concat());
        assert_eq!((count(&json, "held"), count(&json, "pings_answered")), (12, 12), "{json:#}");
        for _ in 0..12 {
            assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok("pong"));
        }
    }
}

/// Answers POSTs: every tenth with a refusal.
fn answer_posts(mut socket: &TcpStream) -> &'static str {
    let mut reader = BufReader::new(socket);
    for number in 1.. {
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            if !matches!(reader.read_line(&mut line), Ok(1..)) {
                return "";
            }
            if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                bytes = length.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        reader.read_exact(&mut vec![0; bytes]).unwrap();
        let refusal = "HTTP/1.1 507 Full\r\nContent-Length: 5\r\n\r\nfull\n";
        let answer = if number % 10 == 0 { refusal } else { "HTTP/1.1 204 Done\r\n\r\n" };
        // The tool leaves in the midst of it.
        let _ = socket.write_all(answer.as_bytes());
    }
    ""
}

#[test]
fn publications_by_post_are_answered_or_refused_and_each_is_counted() {
    let (address, _) = serve(answer_posts);
    let flags = ["--subscribers", "0", "--publish", "post", "--duration", "500ms", "--warmup", "0s"];
    let json = measure(&[&["publish", &format!("ws://{address}/topics/a")], &flags[..]].concat());
    let published = count(&json, "published");
    assert!(published >= 10, "{json:#}");
    assert_eq!(count(&json, "refused_publications"), published / 10, "{json:#}");
    assert_eq!((count(&json, "answered"), count(&json, "unanswered")), (published - published / 10, 0), "{json:#}");
    assert!(json["notes"].to_string().contains("refused: 507: full"), "{json:#}");
    check_latency(&json, "answer", published - published / 10 - 1);
}
