//! What the drivers of the kernel know of listening sockets: which errors last, and how a listener closes without resetting anybody.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::SockRef;

/// How long handshakes that had begun when the listeners were to close may take to end: most round trips.
pub(super) const LISTENER_GRACE: Duration = Duration::from_millis(200);

/// Lets no new handshake begin at `listener`. Where the kernel has no filters, a handshake that ends in the moment of the close is
/// reset, as without this.
pub(super) fn refuse_handshakes(listener: &impl AsFd) {
    let _ = SockRef::from(listener).attach_filter(&no_new_handshakes());
}

/// Errors of accept(2) that the next call would only repeat.
pub(super) fn out_of_resources(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
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
