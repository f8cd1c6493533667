//! `floor`: the barest echo and fan-out server there is, as the line under every comparison.
//!
//! No checks, no limits, no UTF-8, no clean closes. A path of `/echo` echoes; on any other path each message goes to all who are
//! connected to that path. A message becomes one frame, built once; per subscriber and turn there is one send of all frames
//! that the turn brought. What a real server needs beyond this is what it costs.
//!
//! ```text
//! protocol  bytes of a connection -> its answer, frames of its topic
//! epoll     the kernel tells what is ready, and is then asked for each
//! uring     the kernel is asked once a turn, and tells what is done
//! ```

mod epoll;
mod protocol;
mod uring;

use std::io;
use std::net::{SocketAddr, TcpListener};

use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cpus::Cpus;
use crate::failure::Failure;
use crate::kernel;
use crate::output;

/// The most connections it makes room for, as far as the hard limit goes.
const CONNECTIONS_MAX: usize = 100_000;

/// Handshakes that may wait to be accepted; the kernel's `somaxconn` is the limit.
const BACKLOG: i32 = 4096;

/// Flags of `floor`.
#[derive(Args, Debug)]
pub struct Floor {
    /// Where to listen; port 0 is any free one, which is printed
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Keep the server on this CPU, from 0
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// Ask the kernel through io_uring instead of epoll
    #[arg(long)]
    uring: bool,
}

/// Runs until it is killed.
pub fn run(options: &Floor) -> Result<(), Failure> {
    options.cpu.map_or(Ok(()), |cpu| Cpus::one(cpu).pin())?;
    let descriptors = kernel::make_room_up_to(CONNECTIONS_MAX)?;
    let listener = listen(options.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let announce = || output::print(&format!("floor: listening on {address}, echo at /echo, fan-out elsewhere\n"));
    if options.uring {
        let server = uring::Server::new(listener, descriptors).map_err(Failure::Uring)?;
        announce()?;
        server.run().map_err(failed)
    } else {
        let server = epoll::Server::new(listener).map_err(failed)?;
        announce()?;
        server.run().map_err(failed)
    }
}

/// A listener whose connections have `TCP_NODELAY` from birth: Linux hands it down, which saves a call for each.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn failed(error: io::Error) -> Failure {
    Failure::System("the floor", error)
}
