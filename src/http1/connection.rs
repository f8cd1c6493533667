//! The connection's side of HTTP/1.1: where heads and bodies begin and end, from input cut anywhere.

use super::chunked::{ChunkedDecoder, Part};
use super::scan::{SectionScan, is_token_byte};
use super::{Framing, HttpError};
use crate::limits::BufferPool;

/// Empty lines tolerated before a request, for clients that end a body by a CR LF too many (RFC 9112 section 2.2).
const EMPTY_LINES_MAX: u8 = 2;

/// The smallest buffer worth allocating, in bytes: most heads fit.
const BUFFER_BYTES_MIN: usize = 512;

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest head, in bytes, with its empty line: `--max-head-size`.
    pub head_bytes_max: usize,
    /// The longest decoded body, in bytes: `--max-message-size`.
    pub body_bytes_max: usize,
}

/// What one call took and found.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'b> {
    /// Bytes of the input that the caller must drop. Zero without an event means "bring more".
    pub consumed: usize,
    /// What was found in them.
    pub event: Option<Event<'b>>,
}

/// What happened on the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The bytes of one whole head, for [`Head::parse`](super::Head::parse). Nothing more is consumed until
    /// [`Connection::begin_body`].
    Head(&'b [u8]),
    /// The whole decoded body; empty if there is none, or if it was to be discarded. Nothing more is consumed until
    /// [`Connection::next_request`].
    Body(&'b [u8]),
}

/// What is to become of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// It is kept and lent whole.
    Collect,
    /// It is read over, so that the next request is found, and counted against the limit, but not kept.
    Discard,
}

/// One HTTP/1.1 connection, as the module's picture shows it.
///
/// It holds a buffer, from the pool, only between the first unfinished part of a request and that request's answer. The buffer
/// grows with what was received, never with what was announced.
#[derive(Debug)]
pub struct Connection {
    state: State,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Between requests, with so many empty lines seen; `cr` behind the CR of a further one.
    Idle { empty_lines: u8, cr: bool },
    /// Inside a head.
    Head(SectionScan),
    /// The head was lent; `begin_body` is next.
    Routing,
    /// Inside a body that ends after so many more bytes.
    Length(u64, BodyPlan),
    /// Inside a chunked body.
    Chunked(ChunkedDecoder, BodyPlan),
    /// The body was lent, or the request refused; `next_request` or the end is next.
    Answering,
}

/// What one call found: an [`Event`] whose bytes are all that was consumed, or all that is buffered.
enum Found {
    Nothing,
    Head(Source),
    Body(Source),
}

enum Source {
    Input,
    Buffer,
}

impl Connection {
    /// A connection before its first request.
    #[must_use]
    pub fn new() -> Self {
        Self { state: State::IDLE, buffer: Vec::new() }
    }

    /// Takes the next bytes. Call it again with the rest while it consumes any, and with empty input after
    /// [`Connection::begin_body`], since a body may be empty or buffered.
    ///
    /// # Errors
    /// The first rule broken, the same one however the bytes are cut. Nothing is consumed afterwards.
    pub fn handle_input<'b>(
        &'b mut self,
        input: &'b mut [u8],
        limits: &Limits,
        pool: &mut BufferPool,
    ) -> Result<Step<'b>, HttpError> {
        let result = match self.state {
            State::Idle { .. } => self.idle(input, limits, pool),
            State::Head(_) => self.head(input, limits, pool),
            State::Length(..) => self.length_body(input, limits, pool),
            State::Chunked(..) => self.chunked_body(input, limits, pool),
            State::Routing | State::Answering => Ok((0, Found::Nothing)),
        };
        let (consumed, found) = result.inspect_err(|_| self.state = State::Answering)?;
        let lend = |from| match from {
            Source::Input => &input[..consumed],
            Source::Buffer => &self.buffer,
        };
        let event = match found {
            Found::Nothing => None,
            Found::Head(from) => Some(Event::Head(lend(from))),
            Found::Body(from) => Some(Event::Body(lend(from))),
        };
        Ok(Step { consumed, event })
    }

    /// Says how the body ends and what is to become of it, after [`Event::Head`].
    ///
    /// # Errors
    /// [`HttpError::MessageTooLarge`] if the declared length is over the limit: before any of it is read.
    pub fn begin_body(&mut self, framing: Framing, plan: BodyPlan, limits: &Limits) -> Result<(), HttpError> {
        debug_assert!(matches!(self.state, State::Routing), "begin_body follows Event::Head");
        let limit_bytes = limits.body_bytes_max as u64;
        self.buffer.clear();
        self.state = match framing {
            Framing::None => State::Length(0, plan),
            Framing::Length(length) if length > limit_bytes => {
                self.state = State::Answering;
                return Err(HttpError::MessageTooLarge { body_bytes: Some(length), limit_bytes });
            }
            Framing::Length(length) => State::Length(length, plan),
            Framing::Chunked => State::Chunked(ChunkedDecoder::new(), plan),
        };
        Ok(())
    }

    /// Turns to the next request, after the answer.
    pub fn next_request(&mut self, pool: &mut BufferPool) {
        self.release(pool);
        self.state = State::IDLE;
    }

    /// Whether the connection stands between requests, without a byte of the next one but empty lines: the idle time-out counts
    /// instead of the head's.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. })
    }

    /// Gives the buffer back: before the connection is dropped, or becomes another protocol's.
    pub fn release(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.buffer));
    }

    /// Skips empty lines, and begins a head at the first byte of another one.
    fn idle(&mut self, input: &[u8], limits: &Limits, pool: &mut BufferPool) -> Result<(usize, Found), HttpError> {
        let State::Idle { empty_lines, cr } = &mut self.state else { return Ok((0, Found::Nothing)) };
        for (skipped, byte) in input.iter().enumerate() {
            match (*cr, byte) {
                (true, b'\n') => (*empty_lines, *cr) = (*empty_lines + 1, false),
                (true, _) | (false, b'\n') => return Err(HttpError::BareLineEnd),
                (false, b'\r') if *empty_lines < EMPTY_LINES_MAX => *cr = true,
                (false, b'\r') => return Err(HttpError::BadRequestLine),
                (false, byte) if is_token_byte(*byte) => {
                    self.state = State::Head(SectionScan::head());
                    return if skipped == 0 { self.head(input, limits, pool) } else { Ok((skipped, Found::Nothing)) };
                }
                (false, _) => return Err(HttpError::NotHttp),
            }
        }
        Ok((input.len(), Found::Nothing))
    }

    fn head(&mut self, input: &[u8], limits: &Limits, pool: &mut BufferPool) -> Result<(usize, Found), HttpError> {
        let State::Head(scan) = &mut self.state else { return Ok((0, Found::Nothing)) };
        let end = scan.feed(input, limits.head_bytes_max)?;
        let part = &input[..end.unwrap_or(input.len())];
        if end.is_some() {
            self.state = State::Routing;
            if self.buffer.is_empty() {
                return Ok((part.len(), Found::Head(Source::Input)));
            }
        }
        self.keep(part, limits.head_bytes_max, pool)?;
        Ok((part.len(), if end.is_some() { Found::Head(Source::Buffer) } else { Found::Nothing }))
    }

    fn length_body(&mut self, input: &[u8], limits: &Limits, pool: &mut BufferPool) -> Result<(usize, Found), HttpError> {
        let State::Length(left, plan) = &mut self.state else { return Ok((0, Found::Nothing)) };
        let part = &input[..input.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
        *left -= part.len() as u64;
        let (done, plan) = (*left == 0, *plan);
        if done {
            self.state = State::Answering;
            if plan == BodyPlan::Collect && self.buffer.is_empty() {
                return Ok((part.len(), Found::Body(Source::Input)));
            }
        }
        if plan == BodyPlan::Collect {
            self.keep(part, limits.body_bytes_max, pool)?;
        }
        Ok((part.len(), if done { Found::Body(Source::Buffer) } else { Found::Nothing }))
    }

    fn chunked_body(&mut self, input: &[u8], limits: &Limits, pool: &mut BufferPool) -> Result<(usize, Found), HttpError> {
        let mut consumed = 0;
        while consumed < input.len() {
            let State::Chunked(decoder, plan) = &mut self.state else { break };
            let (taken, part) = decoder.next(&input[consumed..], limits.body_bytes_max as u64)?;
            consumed += taken;
            match part {
                Part::Data(data) if *plan == BodyPlan::Collect => self.keep(data, limits.body_bytes_max, pool)?,
                Part::Data(_) | Part::More => {}
                Part::End => {
                    self.state = State::Answering;
                    return Ok((consumed, Found::Body(Source::Buffer)));
                }
            }
        }
        Ok((consumed, Found::Nothing))
    }

    /// Copies an unfinished part into the buffer. Doubling keeps the copying linear, and the limit bounds the last doubling.
    fn keep(&mut self, part: &[u8], bytes_max: usize, pool: &mut BufferPool) -> Result<(), HttpError> {
        if part.is_empty() {
            return Ok(());
        }
        if self.buffer.capacity() == 0 {
            self.buffer = pool.take();
        }
        let needed = self.buffer.len() + part.len();
        if needed > self.buffer.capacity() {
            let wanted = (2 * self.buffer.len()).max(BUFFER_BYTES_MIN).min(bytes_max).max(needed);
            self.buffer.try_reserve_exact(wanted - self.buffer.len()).map_err(|_| HttpError::NoMemory)?;
        }
        self.buffer.extend_from_slice(part);
        Ok(())
    }
}

impl State {
    const IDLE: Self = Self::Idle { empty_lines: 0, cr: false };
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head_bytes_max: 16 * 1024, body_bytes_max: 64 * 1024 };

    /// Brings `bytes` in pieces, each of which must be consumed in one step.
    fn feed(connection: &mut Connection, pool: &mut BufferPool, bytes: &[u8], piece_bytes: usize) {
        for piece in bytes.to_vec().chunks_mut(piece_bytes) {
            let length = piece.len();
            assert_eq!(connection.handle_input(piece, &LIMITS, pool).map(|step| step.consumed), Ok(length));
        }
    }

    #[test]
    fn a_head_one_byte_at_a_time_costs_linear_work() {
        let (mut connection, mut pool) = (Connection::new(), BufferPool::new(0));
        let head = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(16_000));
        let mut reservations = 0;
        for byte in head.as_bytes() {
            let capacity = connection.buffer.capacity();
            feed(&mut connection, &mut pool, &[*byte], 1);
            reservations += usize::from(connection.buffer.capacity() != capacity);
        }
        let looks = crate::http1::scan::LOOKS.get();
        assert!((head.len()..=3 * head.len()).contains(&looks), "{looks} looks at {} bytes", head.len());
        assert!(reservations <= 6, "{reservations} reservations from 512 bytes to 16 KiB");
    }

    #[test]
    fn memory_follows_what_was_received() {
        let (mut connection, mut pool) = (Connection::new(), BufferPool::new(0));
        connection.state = State::Routing;
        connection.begin_body(Framing::Length(64 * 1024), BodyPlan::Collect, &LIMITS).unwrap();
        feed(&mut connection, &mut pool, b"x", 1);
        assert_eq!(connection.buffer.capacity(), BUFFER_BYTES_MIN);
        feed(&mut connection, &mut pool, &vec![b'x'; 64 * 1024 - 2], 1000);
        assert_eq!(connection.buffer.capacity(), LIMITS.body_bytes_max, "the last doubling stops at the limit");
        connection.state = State::Routing;
        connection.begin_body(Framing::Length(64 * 1024), BodyPlan::Discard, &LIMITS).unwrap();
        feed(&mut connection, &mut pool, &vec![b'x'; 64 * 1024], 1000);
        assert!(connection.buffer.is_empty());
    }

    #[test]
    fn what_is_whole_is_lent_and_an_idle_connection_holds_nothing() {
        let (mut connection, mut pool) = (Connection::new(), BufferPool::new(4096));
        assert!(size_of::<Connection>() <= 88, "{} bytes", size_of::<Connection>());
        feed(&mut connection, &mut pool, b"\r\n\r\n", 1);
        assert!(connection.is_idle());
        let mut input = *b"GET / HTTP/1.1\r\n\r\nbody";
        let step = connection.handle_input(&mut input, &LIMITS, &mut pool).unwrap();
        assert_eq!(step, Step { consumed: 18, event: Some(Event::Head(b"GET / HTTP/1.1\r\n\r\n")) });
        connection.begin_body(Framing::Length(4), BodyPlan::Collect, &LIMITS).unwrap();
        let step = connection.handle_input(&mut input[18..], &LIMITS, &mut pool).unwrap();
        assert_eq!(step, Step { consumed: 4, event: Some(Event::Body(b"body")) });
        assert!(!connection.is_idle() && connection.buffer.capacity() == 0);
        connection.next_request(&mut pool);
        feed(&mut connection, &mut pool, b"\r\n", 2);
        assert!(connection.is_idle() && pool.spare_bytes() == 0);
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_unread() {
        let mut connection = Connection { state: State::Routing, buffer: Vec::new() };
        let error = HttpError::MessageTooLarge { body_bytes: Some(65_537), limit_bytes: 65_536 };
        assert_eq!(connection.begin_body(Framing::Length(65_537), BodyPlan::Discard, &LIMITS), Err(error));
        let mut smuggled = *b"GET / HTTP/1.1\r\n\r\n";
        let step = connection.handle_input(&mut smuggled, &LIMITS, &mut BufferPool::new(0));
        assert_eq!(step, Ok(Step { consumed: 0, event: None }));
    }
}
