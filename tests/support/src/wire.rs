//! A raw TCP client: what a test wants to send goes out as it is, and nothing is waited for without end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::PATIENCE;

/// How the server's side of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order, by FIN.
    Closed,
    /// By RST.
    Reset,
}

/// A connection and what was read from it but not yet looked at.
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where the bytes not yet looked at begin.
    start: usize,
    /// How the stream ended. The kernel tells a reset only once, and the next read would look like an end in order.
    end: Option<End>,
}

impl Connection {
    /// Connects.
    #[must_use]
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&address, PATIENCE).expect("the server accepts"))
    }

    /// Connects; `None` if nobody listens.
    #[must_use]
    #[track_caller]
    pub fn try_open(address: SocketAddr) -> Option<Self> {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => Some(Self::new(stream)),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
            Err(error) => panic!("connecting failed: {error}"),
        }
    }

    /// Connects with the smallest receive window the kernel offers: a reader that soon takes nothing more.
    #[must_use]
    pub fn open_narrow(address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("the kernel clamps the size");
        socket.connect(&address.into()).expect("the server accepts");
        Self::new(socket.into())
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("not zero");
        Self { stream, input: Vec::new(), start: 0, end: None }
    }

    /// Takes and answers nothing any more, as a machine does whose network is gone: its own kernel drops what comes, even what would only be
    /// acknowledged.
    pub fn vanish(&mut self) {
        /// The program of one instruction that accepts no byte of any packet: `BPF_RET | BPF_K`, 0 (Linux, networking/filter).
        const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
        SockRef::from(&self.stream).attach_filter(&[NOTHING]).expect("any socket may have a filter");
    }

    /// Sends all bytes.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes the bytes");
    }

    /// Sends what the server takes; `false` if it ended the connection or stopped reading meanwhile.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends each byte in a segment of its own.
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// A second handle of the socket, for a thread that writes while this one reads.
    #[must_use]
    pub fn writer(&self) -> TcpStream {
        self.stream.try_clone().expect("a descriptor is free")
    }

    /// Ends this side in order; the other side may still send.
    pub fn finish(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("the socket is connected");
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
    }

    /// The next `count` bytes.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.unread().len() < count {
            if let Err(why) = self.fill(deadline) {
                panic!("{count} bytes wanted; {why} after {:?}", preview(self.unread()));
            }
        }
        self.consume(count)
    }

    /// The bytes up to and with `mark`.
    #[track_caller]
    pub fn take_until(&mut self, mark: &[u8]) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unread().windows(mark.len()).position(|window| window == mark) {
                return self.consume(at + mark.len());
            }
            if let Err(why) = self.fill(deadline) {
                panic!("{:?} wanted; {why} after {:?}", preview(mark), preview(self.unread()));
            }
        }
    }

    /// The next `count` bytes; `None` if the stream ends before.
    #[track_caller]
    pub fn try_take(&mut self, count: usize) -> Option<Vec<u8>> {
        self.try_fill(|unread| unread.len() >= count).then(|| self.consume(count))
    }

    /// The bytes up to and with `mark`; `None` if the stream ends before.
    #[track_caller]
    pub fn try_take_until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        let find = |unread: &[u8]| unread.windows(mark.len()).position(|window| window == mark);
        self.try_fill(|unread| find(unread).is_some());
        find(self.unread()).map(|at| self.consume(at + mark.len()))
    }

    /// Reads until there is enough (true) or the stream ends.
    #[track_caller]
    fn try_fill(&mut self, is_enough: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while !is_enough(self.unread()) {
            match self.fill(deadline) {
                Ok(()) => {}
                Err(Ended::Stream(_)) => return false,
                Err(Ended::Silent) => panic!("neither enough nor an end for {PATIENCE:?} after {:?}", preview(self.unread())),
            }
        }
        true
    }

    /// All bytes until the server ends the stream, and how it ended.
    #[track_caller]
    pub fn rest(&mut self, within: Duration) -> (Vec<u8>, End) {
        let deadline = Instant::now() + within;
        loop {
            match self.fill(deadline) {
                Ok(()) => {}
                Err(Ended::Silent) => panic!("the connection stays open for {within:?} after {:?}", preview(self.unread())),
                Err(Ended::Stream(end)) => return (self.consume(self.unread().len()), end),
            }
        }
    }

    /// Fails unless the server ends the stream in order, without another byte. Returns how long that took.
    #[track_caller]
    pub fn expect_end(&mut self) -> Duration {
        let start = Instant::now();
        let (rest, end) = self.rest(PATIENCE);
        assert!(rest.is_empty(), "bytes after the last answer: {:?}", preview(&rest));
        assert_eq!(end, End::Closed, "after the last answer the stream must end by FIN, so that nothing of it is lost");
        start.elapsed()
    }

    /// Waits until a byte comes (true) or the stream ends.
    #[must_use]
    #[track_caller]
    pub fn has_more(&mut self) -> bool {
        if !self.unread().is_empty() {
            return true;
        }
        match self.fill(Instant::now() + PATIENCE) {
            Ok(()) => true,
            Err(Ended::Stream(_)) => false,
            Err(Ended::Silent) => panic!("neither an answer nor an end for {PATIENCE:?}"),
        }
    }

    /// Whether nothing comes, and the stream stays open, for `time`.
    #[must_use]
    pub fn is_silent(&mut self, time: Duration) -> bool {
        self.unread().is_empty() && matches!(self.fill(Instant::now() + time), Err(Ended::Silent))
    }

    /// Reads and drops up to `count` bytes; how many came.
    pub fn sip(&mut self, count: usize) -> usize {
        self.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("not zero");
        self.stream.read(&mut vec![0; count]).unwrap_or(0)
    }

    fn unread(&self) -> &[u8] {
        &self.input[self.start..]
    }

    fn consume(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.unread()[..count].to_vec();
        self.start += count;
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
        }
        bytes
    }

    /// Reads once.
    fn fill(&mut self, deadline: Instant) -> Result<(), Ended> {
        if let Some(end) = self.end {
            return Err(Ended::Stream(end));
        }
        let result = self.read_once(deadline);
        if let Err(Ended::Stream(end)) = result {
            self.end = Some(end);
        }
        result
    }

    fn read_once(&mut self, deadline: Instant) -> Result<(), Ended> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).expect("not zero");
        let mut bytes = [0; 65536];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Ended::Stream(End::Closed)),
            Ok(count) => {
                self.input.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Ended::Silent),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Err(Ended::Stream(End::Reset)),
            Err(error) => panic!("reading failed: {error}"),
        }
    }
}

/// Why nothing more was read.
enum Ended {
    Silent,
    Stream(End),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent => formatter.write_str("silence"),
            Self::Stream(End::Closed) => formatter.write_str("end of stream"),
            Self::Stream(End::Reset) => formatter.write_str("reset"),
        }
    }
}

/// The first bytes in a form that a person can read.
fn preview(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(300)];
    format!("{} ({} bytes)", shown.escape_ascii(), bytes.len())
}
