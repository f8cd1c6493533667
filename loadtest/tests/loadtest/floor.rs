//! The floor delivers exactly: a line under a comparison that loses messages would lie too low.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::{Process, TOOL};

/// Messages of a run; more bytes in all than the sockets on a connection's way hold (`tcp_wmem` ends at 4 MiB).
const MESSAGES: u32 = 6000;

/// Bytes of a message, which its number begins.
const MESSAGE_BYTES: usize = 2000;

/// A message's frame: two bytes, two of length, the payload (RFC 6455 section 5.2).
const FRAME_BYTES: usize = 4 + MESSAGE_BYTES;

/// Receive buffers of readers that are to be slow, in bytes.
const SMALL_BUFFER_BYTES: usize = 4096;

#[test]
fn slow_readers_get_everything_in_order_and_hold_up_nobody() {
    for server in Process::floors() {
        let address = server.address.parse().unwrap();
        let mut publisher = connect(address, "/topics/slow", None);
        let fast: Vec<TcpStream> = (0..5).map(|_| connect(address, "/topics/slow", None)).collect();
        let slow: Vec<TcpStream> = (0..3).map(|_| connect(address, "/topics/slow", Some(SMALL_BUFFER_BYTES))).collect();
        let own = publisher.try_clone().unwrap();
        let readers: Vec<_> = fast.into_iter().chain([own]).map(|socket| thread::spawn(|| read_all(socket))).collect();
        for number in 0..MESSAGES {
            publisher.write_all(&masked(number)).unwrap();
        }
        for reader in readers {
            reader.join().expect("a fast reader gets all while the slow ones read nothing");
        }
        thread::sleep(Duration::from_secs(1));
        for socket in slow {
            read_all(socket);
        }
    }
}

#[test]
fn it_serves_though_nobody_reads_what_it_says() {
    let address: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut floor = Command::new(TOOL).args(["floor", "--listen", &address.to_string()]).stdout(writer).spawn().unwrap();
    let listens = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(address).is_ok()
    });
    // It answers when it has said that it listens.
    let answered = thread::spawn(move || connect(address, "/echo", None)).join();
    floor.kill().unwrap();
    floor.wait().unwrap();
    assert!(listens && answered.is_ok());
}

#[test]
fn a_slow_echo_loses_nothing() {
    for server in Process::floors() {
        let mut writer = connect(server.address.parse().unwrap(), "/echo", Some(SMALL_BUFFER_BYTES));
        let reader = writer.try_clone().unwrap();
        let writing = thread::spawn(move || {
            for number in 0..MESSAGES {
                writer.write_all(&masked(number)).unwrap();
            }
        });
        thread::sleep(Duration::from_secs(1));
        read_all(reader);
        writing.join().unwrap();
    }
}

#[test]
fn who_goes_away_with_much_under_way_leaves_the_others_whole() {
    for server in Process::floors() {
        let address = server.address.parse().unwrap();
        let mut publisher = connect(address, "/topics/gone", None);
        let stays = connect(address, "/topics/gone", Some(SMALL_BUFFER_BYTES));
        let mut goes: Vec<TcpStream> = (0..5).map(|_| connect(address, "/topics/gone", Some(SMALL_BUFFER_BYTES))).collect();
        let own = publisher.try_clone().unwrap();
        let reading = thread::spawn(|| read_all(own));
        for number in 0..MESSAGES {
            publisher.write_all(&masked(number)).unwrap();
            match number {
                // Unread bytes make it a reset.
                3000 => drop(goes.pop()),
                // A close that the server answers once all that waits has left, which is never.
                3500 => goes[0].write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap(),
                4000 => goes[1].shutdown(std::net::Shutdown::Write).unwrap(),
                4500 => drop(goes.pop()),
                // What is no frame (a reserved bit).
                5000 => goes[2].write_all(&[0xC1, 0]).unwrap(),
                5500 => goes.clear(),
                _ => {}
            }
        }
        reading.join().unwrap();
        read_all(stays);
        // Numbers and files of those that went are given to others.
        for _ in 0..20 {
            let mut echo = connect(address, "/echo", None);
            echo.write_all(&masked(7)).unwrap();
            assert_eq!(read_number(&mut echo), 7);
        }
    }
}

#[test]
fn a_close_is_answered_and_ends_the_connection() {
    for server in Process::floors() {
        for path in ["/echo", "/topics/close"] {
            let mut socket = connect(server.address.parse().unwrap(), path, None);
            // With another frame behind it, which nobody answers.
            socket.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 232, 0x81, 0x80, 0, 0, 0, 0]).unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, [0x88, 2, 3, 232]);
        }
    }
}

/// An open connection.
fn connect(address: SocketAddr, path: &str, receive_buffer: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(bytes) = receive_buffer {
        // Before the connection stands: afterwards it would not shrink the window.
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    let mut socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        answer.extend_from_slice(&byte);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    socket
}

/// A client's frame, under a mask that changes nothing.
fn masked(number: u32) -> Vec<u8> {
    let length = (MESSAGE_BYTES as u16).to_be_bytes();
    let mut frame = vec![0x82, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(8 + MESSAGE_BYTES, number as u8);
    frame
}

/// Reads all messages of a run and checks that each is whole and follows the one before.
fn read_all(mut socket: TcpStream) {
    for number in 0..MESSAGES {
        assert_eq!(read_number(&mut socket), number);
    }
}

fn read_number(socket: &mut TcpStream) -> u32 {
    let mut frame = [0; FRAME_BYTES];
    socket.read_exact(&mut frame).unwrap();
    let (header, payload) = frame.split_at(4);
    assert_eq!(header, [&[0x82, 126][..], &(MESSAGE_BYTES as u16).to_be_bytes()].concat());
    let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
    assert!(payload[4..].iter().all(|&byte| byte == number as u8), "message {number} is whole");
    number
}
