//! `floor`: the barest echo and fan-out server there is, as the line under every comparison.
//!
//! No checks, no limits, no UTF-8, no clean closes. A path of `/echo` echoes; on any other path each message goes to all who are
//! connected to that path. A message becomes one frame, built once; per subscriber and turn there is one `send` of all frames
//! that the turn brought. What a real server needs beyond this is what it costs.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use clap::Args;
use fantail::frame::{FrameHeader, OpCode};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::failure::Failure;
use crate::kernel;
use crate::wire::{Header, accept_of};

const LISTENER: Token = Token(usize::MAX);

/// Room for what one read brings, in bytes; the same as Fantail's default.
const RECEIVE_BYTES: usize = 64 * 1024;

/// The most connections it makes room for, as far as the hard limit goes.
const CONNECTIONS_MAX: usize = 100_000;

/// Flags of `floor`.
#[derive(Args, Debug)]
pub struct Floor {
    /// Where to listen; port 0 is any free one, which is printed
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Keep the server on this CPU, from 0
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
}

struct Server {
    poll: Poll,
    listener: TcpListener,
    connections: Slab<Connection>,
    topics: Vec<Topic>,
    paths: HashMap<Vec<u8>, usize>,
    /// Topics that got something in this turn.
    busy: Vec<usize>,
}

struct Connection {
    socket: TcpStream,
    role: Role,
    /// What came of a frame or head that isn't whole.
    tail: Vec<u8>,
    /// What the kernel did not take.
    out: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Handshake,
    Echo,
    Subscriber { topic: usize },
}

#[derive(Default)]
struct Topic {
    subscribers: Vec<usize>,
    /// The frames of this turn.
    frames: Vec<u8>,
}

/// Runs until it is killed.
pub fn run(options: &Floor) -> Result<(), Failure> {
    options.cpu.map_or(Ok(()), kernel::pin)?;
    kernel::make_room_up_to(CONNECTIONS_MAX)?;
    serve(options.listen).map_err(|error| Failure::System("the floor", error))
}

fn serve(address: SocketAddr) -> io::Result<()> {
    let mut listener = TcpListener::bind(address)?;
    println!("floor: listening on {}, echo at /echo, fan-out elsewhere", listener.local_addr()?);
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut server =
        Server { poll, listener, connections: Slab::new(), topics: Vec::new(), paths: HashMap::new(), busy: Vec::new() };
    let mut events = Events::with_capacity(1024);
    let mut receive = vec![0; RECEIVE_BYTES];
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept()?,
                Token(id) => server.handle(id, &mut receive),
            }
        }
        server.fan_out();
    }
}

impl Server {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The client that gave up while it was queued.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            socket.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            self.poll.registry().register(&mut socket, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
            entry.insert(Connection { socket, role: Role::Handshake, tail: Vec::new(), out: Vec::new() });
        }
    }

    fn handle(&mut self, id: usize, receive: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.flush().and_then(|()| self.read(id, receive)).is_err() {
            self.remove(id);
        }
    }

    fn read(&mut self, id: usize, receive: &mut [u8]) -> io::Result<()> {
        loop {
            let connection = &mut self.connections[id];
            let bytes = match connection.socket.read(receive) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if connection.tail.is_empty() {
                let used = self.consume(id, &mut receive[..bytes])?;
                self.connections[id].tail.extend_from_slice(&receive[used..bytes]);
            } else {
                connection.tail.extend_from_slice(&receive[..bytes]);
                let mut tail = std::mem::take(&mut connection.tail);
                let used = self.consume(id, &mut tail)?;
                tail.drain(..used);
                self.connections[id].tail = tail;
            }
            self.connections[id].flush()?;
            if bytes < receive.len() {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, id: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        if self.connections[id].role == Role::Handshake {
            used = self.upgrade(id, bytes)?;
            if used == 0 {
                return Ok(0);
            }
        }
        while let Some(header) = Header::parse(&bytes[used..]).map_err(|_| io::ErrorKind::InvalidData)? {
            let Some(payload) = bytes.get_mut(used + header.bytes..used + header.frame_bytes()) else { break };
            fantail::ws::unmask(payload, header.mask.unwrap_or_default());
            self.take(id, header.opcode, payload)?;
            used += header.frame_bytes();
        }
        Ok(used)
    }

    /// Answers the upgrade; 0 while its head isn't whole.
    fn upgrade(&mut self, id: usize, bytes: &[u8]) -> io::Result<usize> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        let httparse::Status::Complete(used) = parsed else { return Ok(0) };
        let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"));
        let key = key.ok_or(io::ErrorKind::InvalidData)?.value;
        let connection = &mut self.connections[id];
        connection.out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        connection.out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        connection.out.extend_from_slice(&accept_of(key));
        connection.out.extend_from_slice(b"\r\n\r\n");
        let path = request.path.unwrap_or("/").as_bytes();
        connection.role = if path == b"/echo" {
            Role::Echo
        } else {
            let topic = *self.paths.entry(path.to_vec()).or_insert_with(|| {
                self.topics.push(Topic::default());
                self.topics.len() - 1
            });
            self.topics[topic].subscribers.push(id);
            Role::Subscriber { topic }
        };
        Ok(used)
    }

    fn take(&mut self, id: usize, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        let connection = &mut self.connections[id];
        let out = match (opcode, connection.role) {
            (OpCode::Text | OpCode::Binary, Role::Subscriber { topic }) => {
                let frames = &mut self.topics[topic].frames;
                if frames.is_empty() {
                    self.busy.push(topic);
                }
                frames
            }
            (OpCode::Text | OpCode::Binary | OpCode::Close, _) => &mut connection.out,
            _ => return Ok(()),
        };
        out.extend_from_slice(FrameHeader::new(opcode, payload.len()).as_bytes());
        out.extend_from_slice(payload);
        if opcode == OpCode::Close {
            connection.flush()?;
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// One send per subscriber of what the turn brought.
    fn fan_out(&mut self) {
        let mut gone = Vec::new();
        for topic in self.busy.drain(..) {
            let Topic { subscribers, frames } = &mut self.topics[topic];
            for &id in &*subscribers {
                if self.connections[id].send(frames).is_err() {
                    gone.push(id);
                }
            }
            frames.clear();
        }
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: usize) {
        let Some(mut connection) = self.connections.try_remove(id) else { return };
        // Its descriptor is closed right after.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        if let Role::Subscriber { topic } = connection.role {
            self.topics[topic].subscribers.retain(|&other| other != id);
        }
    }
}

impl Connection {
    /// Writes what is new, behind what the kernel has not taken yet.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = if self.out.is_empty() { write(&mut self.socket, bytes)? } else { 0 };
        self.out.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            let written = write(&mut self.socket, &self.out)?;
            self.out.drain(..written);
        }
        Ok(())
    }
}

/// Writes as much as the kernel takes.
fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match socket.write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
