//! From addresses to listening sockets: one for each worker and address, spread by SO_REUSEPORT.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// Socket options of every listener, inherited by what it accepts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// Connections the kernel keeps waiting.
    pub backlog: u32,
    /// TCP_NOTSENT_LOWAT in bytes; 0 leaves it alone.
    pub notsent_lowat: u32,
    /// TCP_USER_TIMEOUT; zero leaves it alone.
    pub tcp_user_timeout: Duration,
    /// SO_BUSY_POLL; zero leaves it alone.
    pub busy_poll: Duration,
}

/// Binds `address` once for each of `workers`; port 0 is resolved by the first and shared by the others.
///
/// A listener of another process with SO_REUSEPORT would silently take half the connections, so the address is first bound
/// without it: that fails if anybody listens there.
///
/// # Errors
/// The kernel's; `AddrInUse` above all.
pub(super) fn bind_shared(address: SocketAddr, workers: usize, tuning: Tuning) -> io::Result<(SocketAddr, Vec<Socket>)> {
    if address.port() != 0 {
        // Listening, not just bound: binding alone may succeed beside a listener.
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        probe.listen(1)?;
    }
    let mut sockets = Vec::with_capacity(workers);
    let mut resolved = address;
    for _ in 0..workers {
        let socket = socket(resolved)?;
        socket.set_reuse_port(true)?;
        listen(&socket, resolved, tuning)?;
        resolved.set_port(local_port(&socket)?);
        sockets.push(socket);
    }
    Ok((resolved, sockets))
}

/// Binds an address that one worker has for itself.
///
/// # Errors
/// The kernel's; `AddrInUse` above all.
pub(super) fn bind_alone(address: SocketAddr, tuning: Tuning) -> io::Result<(SocketAddr, Socket)> {
    let socket = socket(address)?;
    listen(&socket, address, tuning)?;
    let mut resolved = address;
    resolved.set_port(local_port(&socket)?);
    Ok((resolved, socket))
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Connections of a server before this one may still be in TIME_WAIT on the port.
    socket.set_reuse_address(true)?;
    if let IpAddr::V6(ip) = address.ip() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    Ok(socket)
}

fn listen(socket: &Socket, address: SocketAddr, tuning: Tuning) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if tuning.notsent_lowat > 0 {
        socket.set_tcp_notsent_lowat(tuning.notsent_lowat)?;
    }
    if !tuning.tcp_user_timeout.is_zero() {
        socket.set_tcp_user_timeout(Some(tuning.tcp_user_timeout))?;
    }
    if !tuning.busy_poll.is_zero() {
        socket.set_busy_poll(u32::try_from(tuning.busy_poll.as_micros()).unwrap_or(u32::MAX))?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(tuning.backlog).unwrap_or(i32::MAX))
}

fn local_port(socket: &Socket) -> io::Result<u16> {
    socket.local_addr()?.as_socket().map(|address| address.port()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNING: Tuning =
        Tuning { backlog: 16, notsent_lowat: 16384, tcp_user_timeout: Duration::from_secs(3), busy_poll: Duration::ZERO };

    #[test]
    fn workers_share_a_port_and_nobody_else_gets_it() {
        let (address, sockets) = bind_shared("127.0.0.1:0".parse().unwrap(), 3, TUNING).unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| local_port(socket).unwrap() == address.port()));
        assert_eq!(bind_shared(address, 1, TUNING).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind_alone(address, TUNING).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        assert!(bind_shared(address, 2, TUNING).is_ok());
    }

    #[test]
    fn a_wildcard_takes_both_families() {
        let (address, _sockets) = bind_shared("[::]:0".parse().unwrap(), 1, TUNING).unwrap();
        let client = std::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, address.port()));
        assert!(client.is_ok(), "{client:?}");
    }
}
