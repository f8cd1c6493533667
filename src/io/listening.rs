//! Listening sockets, for every driver of the kernel: who is accepted when, which errors last, and how a listener closes without
//! resetting anybody.
//!
//! ```text
//!                 something came             a batch                nobody is queued
//!   waits for it ---------------> ready ---------------> next turn -----------------> waits for it
//! ```
//!
//! accept(2) is called by hand, however the driver hears that somebody came: what is not taken waits in the kernel's own queue,
//! `--backlog`, and takes no descriptor. Of each listener at most a batch is told in a turn, so that no crowd at one of them keeps
//! another waiting, the admin listener least of all.
//!
//! What it never does: it waits for nobody, and it does not try again at once where accept(2) fails for a reason that lasts.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::Socket;

use super::Event;

/// The listeners of one driver.
#[derive(Debug)]
pub(super) struct Listeners {
    /// By index; closed ones are gone.
    list: Vec<Option<Listener>>,
    /// The listener that stays when the others are closed.
    keep: Option<usize>,
    accepting: bool,
    /// When the listeners close; until then no new handshake begins at them, and those that had begun are accepted.
    closing: Option<Instant>,
    /// The listener that is asked first: each in its turn, because a descriptor that gets free serves but one of them.
    first: usize,
    batch: usize,
    /// What accepted sockets are made with.
    flags: SocketFlags,
    /// Connections that were gone before they were accepted.
    pub(super) aborted: u64,
}

#[derive(Debug)]
struct Listener {
    socket: Socket,
    /// Somebody may be queued.
    ready: bool,
    accepted_in_turn: usize,
}

impl Listeners {
    /// No listeners yet; each will tell at most `batch` connections in a turn.
    pub(super) fn new(batch: usize, flags: SocketFlags) -> Self {
        Self { list: Vec::new(), keep: None, accepting: true, closing: None, first: 0, batch, flags, aborted: 0 }
    }

    /// Takes listeners in, in the order of their indices; they must be non-blocking.
    pub(super) fn add(&mut self, sockets: Vec<Socket>) {
        self.list.extend(sockets.into_iter().map(|socket| Some(Listener { socket, ready: true, accepted_in_turn: 0 })));
    }

    /// Begins a turn.
    pub(super) fn begin_turn(&mut self) {
        let is_over = self.is_over();
        for listener in self.list.iter_mut().flatten() {
            listener.accepted_in_turn = 0;
            // The last look: who came between the last word of the kernel and now.
            listener.ready |= is_over;
        }
    }

    /// Somebody may have come to this listener.
    pub(super) fn came(&mut self, index: usize) {
        if let Some(Some(listener)) = self.list.get_mut(index) {
            listener.ready = true;
        }
    }

    /// Somebody may have come to any of them.
    pub(super) fn came_to_any(&mut self) {
        self.list.iter_mut().flatten().for_each(|listener| listener.ready = true);
    }

    /// The next thing to tell.
    pub(super) fn next(&mut self) -> Option<Event<OwnedFd>> {
        if !self.may_accept() {
            return None;
        }
        let (first, count) = (self.first, self.list.len());
        for index in (first..first + count).map(|at| at % count) {
            if let Some(event) = self.accept(index) {
                self.first = index + 1;
                return Some(event);
            }
        }
        self.close_when_over()
    }

    /// Something can be told without asking the kernel first.
    pub(super) fn has_work(&self) -> bool {
        self.may_accept() && self.is_ready()
    }

    /// The kernel is to say when somebody comes: all who had come were taken, and more are wanted.
    pub(super) fn wants_word(&self) -> bool {
        self.accepting && !self.is_ready() && self.list.iter().any(Option::is_some)
    }

    /// How long until the listeners close, if they are to.
    pub(super) fn time_left(&self) -> Option<Duration> {
        self.closing.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Nobody is accepted until [`Listeners::resume`].
    pub(super) fn pause(&mut self) {
        self.accepting = false;
    }

    pub(super) fn resume(&mut self) {
        self.accepting = true;
        self.came_to_any();
    }

    /// Closes all listeners but `keep` once the handshakes that had begun have ended.
    pub(super) fn close(&mut self, keep: Option<usize>) {
        self.closing = Some(Instant::now() + LISTENER_GRACE);
        self.keep = keep;
        self.resume();
        for (index, listener) in self.list.iter().enumerate() {
            if let Some(listener) = listener.as_ref().filter(|_| Some(index) != keep) {
                // Where the kernel has no filters, a handshake that ends in the moment of the close is reset, as without this.
                let _ = listener.socket.attach_filter(&no_new_handshakes());
            }
        }
    }

    /// The next connection of one listener.
    fn accept(&mut self, index: usize) -> Option<Event<OwnedFd>> {
        let listener = self.list[index].as_mut()?;
        while listener.ready && listener.accepted_in_turn < self.batch {
            match accept(&listener.socket, self.flags) {
                Ok((socket, peer)) => {
                    listener.accepted_in_turn += 1;
                    return Some(Event::Accepted { socket, peer, listener: index });
                }
                Err(Errno::AGAIN) => listener.ready = false,
                Err(errno) if is_of_one_connection(errno) => {
                    self.aborted += 1;
                    listener.accepted_in_turn += 1;
                }
                Err(errno) => {
                    // What is queued then cannot be had: a listener that is to close does so with it.
                    listener.ready = false;
                    self.accepting = false;
                    return Some(Event::AcceptFailed(errno.into()));
                }
            }
        }
        None
    }

    /// Closes the listeners when their time is over and nobody is queued.
    fn close_when_over(&mut self) -> Option<Event<OwnedFd>> {
        if self.is_ready() || !self.is_over() {
            return None;
        }
        self.closing = None;
        for (index, listener) in self.list.iter_mut().enumerate() {
            listener.take_if(|_| Some(index) != self.keep);
        }
        Some(Event::ListenersClosed)
    }

    fn may_accept(&self) -> bool {
        self.accepting || self.is_over()
    }

    fn is_ready(&self) -> bool {
        self.list.iter().flatten().any(|listener| listener.ready)
    }

    fn is_over(&self) -> bool {
        self.closing.is_some_and(|at| at <= Instant::now())
    }
}

/// How long handshakes that had begun when the listeners were to close may take to end: most round trips.
const LISTENER_GRACE: Duration = Duration::from_millis(200);

/// The next connection that is queued. The kernel hands out no socket without a peer, so one whose address is of another family, or
/// missing, was gone in the meantime.
fn accept(listener: &Socket, flags: SocketFlags) -> Result<(OwnedFd, SocketAddr), Errno> {
    let (socket, peer) = acceptfrom_with(listener, flags)?;
    let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).ok_or(Errno::CONNABORTED)?;
    Ok((socket, peer))
}

/// Errors of accept(2) that are the connection's, which is gone with them; the next one may be well. All others would come again:
/// descriptors or memory have run out, a security module forbids it, or the listener is none any more.
fn is_of_one_connection(errno: Errno) -> bool {
    [
        Errno::CONNABORTED,
        Errno::INTR,
        Errno::PROTO,
        Errno::NOPROTOOPT,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NONET,
        Errno::TIMEDOUT,
        Errno::CONNRESET,
    ]
    .contains(&errno)
}

/// A filter of a listener that drops a segment with SYN and without ACK. A closed listener resets what it has queued, and a handshake can
/// end between the last accept and the close; behind this filter none begins any more. Who begins one tries again after a second, and
/// is refused then, or meets the server that came after this one.
fn no_new_handshakes() -> [socket2::SockFilter; 5] {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    [(LOAD_BYTE, 0, 0, FLAGS_AT), (AND, 0, 0, SYN | ACK), (JUMP_IF_EQUAL, 0, 1, SYN), (RETURN, 0, 0, 0), (RETURN, 0, 0, u32::MAX)]
        .map(|(code, if_true, if_false, operand)| socket2::SockFilter::new(code, if_true, if_false, operand))
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};
    use std::net::{Shutdown, TcpStream};

    fn listener() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(128).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    fn listeners(sockets: Vec<Socket>, batch: usize) -> Listeners {
        let mut listeners = Listeners::new(batch, SocketFlags::CLOEXEC);
        listeners.add(sockets);
        listeners.begin_turn();
        listeners
    }

    #[test]
    fn an_error_that_lasts_has_accepting_rest_and_the_other_listener_is_asked_first_then() {
        let (broken, _) = listener();
        let (sound, address) = listener();
        let mut listeners = listeners(vec![broken.try_clone().unwrap(), sound], 3);
        // accept(2) says EINVAL from now on.
        broken.shutdown(Shutdown::Both).unwrap();
        let _peer = TcpStream::connect(address).unwrap();
        for has_come in [true, false, false] {
            assert!(matches!(listeners.next(), Some(Event::AcceptFailed(_))));
            assert!(listeners.next().is_none() && !listeners.has_work() && !listeners.wants_word(), "it rests");
            listeners.resume();
            listeners.begin_turn();
            let event = listeners.next();
            match has_come {
                true => assert!(matches!(event, Some(Event::Accepted { listener: 1, .. })), "{event:?}"),
                false => assert!(matches!(event, Some(Event::AcceptFailed(_))), "{event:?}"),
            }
            listeners.resume();
        }
        assert_eq!(listeners.aborted, 0);
    }

    #[test]
    fn listeners_whose_time_is_over_keep_to_the_batch_and_tell_everybody() {
        let (socket, address) = listener();
        let mut listeners = listeners(vec![socket], 3);
        let _peers: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        listeners.close(None);
        std::thread::sleep(LISTENER_GRACE);
        for told in [3, 3, 2] {
            assert_eq!(listeners.time_left(), Some(Duration::ZERO));
            listeners.begin_turn();
            for _ in 0..told {
                assert!(matches!(listeners.next(), Some(Event::Accepted { .. })));
            }
            let event = listeners.next();
            assert_eq!(event.is_some(), told == 2, "{event:?}");
        }
        assert_eq!(listeners.time_left(), None);
        assert!(TcpStream::connect(address).is_err());
    }

    #[test]
    fn errors_are_the_connections_or_last() {
        assert!([Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN].into_iter().all(is_of_one_connection));
        let lasting = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM, Errno::INVAL, Errno::BADF];
        assert!(!lasting.into_iter().any(is_of_one_connection));
    }
}
