//! Somebody who stands between the tool and the real server and tampers with what subscribers get.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// What happens to messages on their way to event streams and WebSockets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Drop,
    Twice,
    /// After the next one.
    Behind,
    SwallowGaps,
}

/// The first byte behind the head of an answer.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// How many bytes the first frame or chunk has; None while it isn't whole.
fn unit(bytes: &[u8], is_websocket: bool) -> Option<usize> {
    let length = if is_websocket {
        match *bytes.get(1)? {
            126 => 4 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
            length => 2 + usize::from(length),
        }
    } else {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        end + 2 + usize::from_str_radix(size, 16).unwrap() + 2
    };
    (bytes.len() >= length).then_some(length)
}

/// Passes on what the server says, every 20th message of this connection with the fault.
fn tamper(mut server: TcpStream, mut client: TcpStream, websockets: bool, fault: Fault) {
    let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
    let (mut kind, mut number, mut behind) = (None, 0, Vec::new());
    while let Ok(count @ 1..) = server.read(&mut part) {
        bytes.extend_from_slice(&part[..count]);
        if kind.is_none() {
            let Some(end) = head_end(&bytes) else { continue };
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let is_websocket = head.starts_with("http/1.1 101");
            kind = Some((is_websocket, is_websocket == websockets && (is_websocket || head.contains("text/event-stream"))));
            if client.write_all(&bytes.drain(..end).collect::<Vec<u8>>()).is_err() {
                break;
            }
        }
        let Some((is_websocket, true)) = kind else {
            // Another kind of connection: as it is.
            if client.write_all(&std::mem::take(&mut bytes)).is_err() {
                break;
            }
            continue;
        };
        let mut out = Vec::new();
        while let Some(length) = unit(&bytes, is_websocket) {
            let one: Vec<u8> = bytes.drain(..length).collect();
            let text = String::from_utf8_lossy(&one);
            let is_gap = text.contains("\"type\":\"gap\"");
            let is_message = text.contains('@') && !is_gap;
            number += u64::from(is_message);
            match fault {
                Fault::SwallowGaps if is_gap => {}
                Fault::Drop if is_message && number % 20 == 0 => {}
                Fault::Twice if is_message && number % 20 == 0 => out.extend(one.repeat(2)),
                Fault::Behind if is_message && number % 20 == 0 => behind = one,
                _ => {
                    out.extend(one);
                    if is_message {
                        out.append(&mut behind);
                    }
                }
            }
        }
        if client.write_all(&out).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// Stands between the tool and the server; returns where.
pub fn proxy(server: String, websockets: bool, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let upstream = TcpStream::connect(&server).unwrap();
            client.set_nodelay(true).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || tamper(upstream, client, websockets, fault));
        }
    });
    address
}
