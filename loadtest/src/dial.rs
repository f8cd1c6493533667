//! The first step to a server: a socket that connects.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::target::Target;

/// Begins a connection, from the address that is asked for.
pub fn dial(target: &Target) -> io::Result<TcpStream> {
    let Some(source) = target.source else { return TcpStream::connect(target.address) };
    let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&target.address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
