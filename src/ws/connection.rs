//! One peer's WebSocket: the sequence of its frames, and the deadlines.
//!
//! ```text
//!                   +------- any byte -------+
//!                   v                        |
//!   new ---------> Open --- SendPing ---> Pinged --- NoPong --->  the worker ends it
//!                   |                        |
//!                   +--- close_sent ---------+--> CloseSent --- CloseTimeout --->  the worker ends it
//!                   |                        |        |
//!                   +--- Event::Close, or a ProtocolError ---> Deaf: the rest is dropped unread
//! ```
//!
//! A step of input goes like this:
//!
//! 1. What the last event lent is given back to the pool.
//! 2. A header is read, from the input or from the part of it that was kept.
//! 3. A frame that is whole in the input and a message by itself (or a control frame) is unmasked there and lent from there.
//! 4. Anything else is unmasked where it lies, checked, and appended to the message's one flat buffer; the last frame lends it.
//!
//! Between messages a connection holds no memory beyond its own 24 bytes.

use std::time::Duration;

use super::mask::unmask;
use super::parser::{Header, Sequence, parse};
use super::partial::Partial;
use super::{CloseFrame, Event, MessageKind, ProtocolError, Step, Timeout};
use crate::frame::OpCode;
use crate::limits::{BufferPool, Tick};

/// The limits of every connection of a worker. Spans are in ticks, at least 1.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest message, all its fragments together, in bytes.
    pub message_bytes_max: usize,
    /// How long a peer may be silent until it is pinged. The jitter pings it up to an eighth earlier, never later, because proxies
    /// and clients are told this figure and count on it.
    pub ping_interval: u32,
    /// How long a pinged peer may stay silent.
    pub pong_timeout: u32,
    /// How long a message may take from its first byte to its last.
    pub message_timeout: u32,
    /// How long the peer may take to answer our close.
    pub close_timeout: u32,
}

impl Default for Options {
    fn default() -> Self {
        let seconds = |seconds| Tick::count(Duration::from_secs(seconds));
        Self {
            message_bytes_max: 64 * 1024,
            ping_interval: seconds(25),
            pong_timeout: seconds(10),
            message_timeout: seconds(30),
            close_timeout: seconds(5),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    Pinged,
    CloseSent,
    Deaf,
}

/// The protocol state of one peer, 24 bytes.
///
/// The caller feeds [`Connection::handle_input`] until a step has neither consumed nor told anything, **also with an empty input**:
/// that last call is the one that gives the lent buffer back. After an error or [`Event::Close`] all input is dropped unread.
///
/// It keeps one tick per connection: the earlier of what it has and [`Connection::poll_timeout`], asked after every
/// `handle_input` and `close_sent`; when it has passed, [`Connection::handle_timeout`], then `poll_timeout` anew. After
/// `NoPong`, `MessageTimeout` and `CloseTimeout` the caller ends the connection, by [`Connection::close_sent`] or at once.
///
/// ```
/// use fantail::limits::{BufferPool, Tick};
/// use fantail::ws::{Connection, Event, MessageKind, Options};
///
/// let (options, mut pool) = (Options::default(), BufferPool::new(1 << 20));
/// let mut connection = Connection::new(Tick(0), 7);
/// let mut input = *b"\x81\x82\0\0\0\0hi";
/// let step = connection.handle_input(&mut input, &options, &mut pool, Tick(1))?;
/// assert_eq!(step.consumed, 8);
/// assert_eq!(step.event, Some(Event::Message { kind: MessageKind::Text, payload: b"hi" }));
/// # Ok::<(), fantail::ws::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Connection {
    partial: Option<Box<Partial>>,
    heard: Tick,
    /// When the ping or the close that the stage speaks of was sent, or the peer's close heard.
    since: Tick,
    jitter: u16,
    stage: Stage,
}

const _: () = assert!(size_of::<Connection>() <= 32);

impl Connection {
    /// A connection whose handshake is done. `id` is any number that differs between connections: its hash fixes the jitter, so
    /// that connections which came together are not pinged together.
    #[must_use]
    pub const fn new(now: Tick, id: u32) -> Self {
        // Fibonacci hashing: neighbouring ids land far apart.
        let jitter = (id.wrapping_mul(0x9E37_79B9) >> 16) as u16;
        Self { partial: None, heard: now, since: now, jitter, stage: Stage::Open }
    }

    /// Takes one frame, or what there is of it, from the start of `input`. It costs no more than the bytes it consumes.
    ///
    /// # Errors
    /// A [`ProtocolError`] is final: its close code is to be sent, and nothing is read any more.
    pub fn handle_input<'b>(
        &'b mut self,
        input: &'b mut [u8],
        options: &Options,
        pool: &mut BufferPool,
        now: Tick,
    ) -> Result<Step<'b>, ProtocolError> {
        self.settle(pool);
        if input.is_empty() || self.stage == Stage::Deaf {
            return Ok(Step { consumed: input.len(), event: None });
        }
        self.heard = now;
        let (consumed, whole) = match self.advance(input, options, pool, now) {
            Ok(advance) => advance,
            Err(error) => {
                self.stage = Stage::Deaf;
                self.since = now;
                self.release(pool);
                return Err(error);
            }
        };
        let event = whole.and_then(|whole| self.tell(whole, input, now));
        Ok(Step { consumed, event })
    }

    /// Acts on the clock. If several deadlines have passed, an unfinished message counts before a missing pong.
    pub fn handle_timeout(&mut self, options: &Options, now: Tick) -> Timeout {
        if self.is_closing() {
            return if now >= self.since.after(options.close_timeout) { Timeout::CloseTimeout } else { Timeout::None };
        }
        if self.message_deadline(options).is_some_and(|deadline| now >= deadline) {
            return Timeout::MessageTimeout;
        }
        if now < self.life_deadline(options) {
            return Timeout::None;
        }
        if self.waits_for_pong() {
            return Timeout::NoPong;
        }
        self.stage = Stage::Pinged;
        self.since = now;
        Timeout::SendPing
    }

    /// The next moment at which [`Connection::handle_timeout`] may have something to say. Input moves it later without telling;
    /// it moves earlier only when a message begins and by [`Connection::close_sent`].
    #[must_use]
    pub fn poll_timeout(&self, options: &Options) -> Tick {
        if self.is_closing() {
            return self.since.after(options.close_timeout);
        }
        let life = self.life_deadline(options);
        self.message_deadline(options).map_or(life, |message| message.min(life))
    }

    /// We have queued our close. From now on only the peer's close counts, and the close time-out runs.
    pub fn close_sent(&mut self, now: Tick) {
        if self.stage != Stage::Deaf {
            self.stage = Stage::CloseSent;
        }
        self.since = now;
    }

    /// Whether either side has closed.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::CloseSent | Stage::Deaf)
    }

    /// Gives all memory back: the connection ends.
    pub fn release(&mut self, pool: &mut BufferPool) {
        if let Some(mut partial) = self.partial.take() {
            partial.give_buffer(pool);
        }
    }

    /// Gives back what is of no use any more: what was lent, and the message under way once we have closed.
    fn settle(&mut self, pool: &mut BufferPool) {
        let Some(partial) = &mut self.partial else { return };
        if partial.lent {
            self.release(pool);
        } else if self.stage == Stage::CloseSent {
            partial.give_buffer(pool);
        }
    }

    /// Consumes a frame or a part of it; tells what became whole by it, and where that lies.
    fn advance(
        &mut self,
        input: &mut [u8],
        options: &Options,
        pool: &mut BufferPool,
        now: Tick,
    ) -> Result<(usize, Option<Whole>), ProtocolError> {
        let mut start = 0;
        if !self.partial.as_ref().is_some_and(|partial| partial.in_frame()) {
            let Some((header, header_bytes)) = self.take_header(input, options, now)? else { return Ok((input.len(), None)) };
            start = header_bytes;
            let alone = header.opcode.is_control() || header.fin && header.opcode != OpCode::Continuation;
            if alone && header.payload_bytes <= (input.len() - start) as u64 {
                return self.take_whole(header, start, input, pool);
            }
            self.partial.get_or_insert_with(|| Partial::new(now)).begin(header, pool);
        }
        let skip = self.stage == Stage::CloseSent;
        let Some(partial) = &mut self.partial else { return Ok((start, None)) };
        let consumed = start + partial.take_payload(&mut input[start..], options, skip)?;
        let Some(opcode) = partial.end(skip)? else { return Ok((consumed, None)) };
        if opcode == OpCode::Close {
            CloseFrame::parse(partial.payload(opcode))?;
        }
        Ok((consumed, Some(Whole { opcode, place: Place::Kept })))
    }

    /// Reads a header; if it has not come whole, keeps its bytes.
    fn take_header(&mut self, input: &[u8], options: &Options, now: Tick) -> Result<Option<(Header, usize)>, ProtocolError> {
        let sequence = self.sequence(options);
        if let Some(partial) = &mut self.partial {
            return partial.take_header(input, sequence);
        }
        match parse(input, sequence)? {
            None => self.partial.insert(Partial::new(now)).take_header(input, sequence),
            whole => Ok(whole),
        }
    }

    fn sequence(&self, options: &Options) -> Sequence {
        let in_message = self.partial.as_ref().is_some_and(|partial| partial.in_message());
        let held_bytes = self.partial.as_ref().map_or(0, |partial| partial.message_bytes());
        // Data that is skipped takes no room.
        let skip = self.stage == Stage::CloseSent;
        let room_bytes = if skip { u64::MAX } else { options.message_bytes_max.saturating_sub(held_bytes) as u64 };
        Sequence { in_message, room_bytes }
    }

    /// Unmasks and checks a frame where it lies.
    fn take_whole(
        &mut self,
        header: Header,
        start: usize,
        input: &mut [u8],
        pool: &mut BufferPool,
    ) -> Result<(usize, Option<Whole>), ProtocolError> {
        let end = start + header.payload_bytes as usize;
        let payload = &mut input[start..end];
        unmask(payload, header.mask);
        match header.opcode {
            OpCode::Text if self.stage != Stage::CloseSent => {
                simdutf8::basic::from_utf8(payload).map_err(|_| ProtocolError::InvalidUtf8)?;
            }
            OpCode::Close => {
                CloseFrame::parse(payload)?;
            }
            _ => {}
        }
        // A part of the header may have been kept; nothing of it is needed unless a message is under way around this frame.
        if self.partial.as_ref().is_some_and(|partial| !partial.in_message()) {
            self.release(pool);
        }
        Ok((end, Some(Whole { opcode: header.opcode, place: Place::Input { start, end } })))
    }

    /// Lends what became whole. After our own close only the peer's counts (RFC 6455 section 1.4).
    fn tell<'b>(&'b mut self, whole: Whole, input: &'b [u8], now: Tick) -> Option<Event<'b>> {
        if self.stage == Stage::CloseSent && whole.opcode != OpCode::Close {
            return None;
        }
        if whole.opcode == OpCode::Close {
            self.stage = Stage::Deaf;
            self.since = now;
        }
        let payload = match whole.place {
            Place::Input { start, end } => &input[start..end],
            Place::Kept => self.partial.as_ref().map_or(&[][..], |partial| partial.payload(whole.opcode)),
        };
        Some(match whole.opcode {
            OpCode::Text => Event::Message { kind: MessageKind::Text, payload },
            OpCode::Binary | OpCode::Continuation => Event::Message { kind: MessageKind::Binary, payload },
            OpCode::Ping => Event::Ping(payload),
            OpCode::Pong => Event::Pong(payload),
            // It was checked when it became whole.
            OpCode::Close => Event::Close(CloseFrame::parse(payload).unwrap_or(None)),
        })
    }

    /// A ping is only sent after a silence, so a byte in the very tick of the ping came after it.
    fn waits_for_pong(&self) -> bool {
        self.stage == Stage::Pinged && self.heard < self.since
    }

    fn life_deadline(&self, options: &Options) -> Tick {
        if self.waits_for_pong() {
            return self.since.after(options.pong_timeout);
        }
        let spread = u64::from(options.ping_interval / 8);
        let early = ((spread * u64::from(self.jitter)) >> 16) as u32;
        self.heard.after(options.ping_interval - early)
    }

    fn message_deadline(&self, options: &Options) -> Option<Tick> {
        let partial = self.partial.as_ref().filter(|partial| !partial.lent)?;
        Some(partial.began.after(options.message_timeout))
    }
}

/// A control frame or a message that has come whole.
struct Whole {
    opcode: OpCode,
    place: Place,
}

/// Where its payload lies.
enum Place {
    Input { start: usize, end: usize },
    Kept,
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options =
        Options { message_bytes_max: 1 << 20, ping_interval: 800, pong_timeout: 300, message_timeout: 900, close_timeout: 150 };

    fn quiet() -> (Connection, BufferPool) {
        (Connection::new(Tick(0), 0), BufferPool::new(1 << 20))
    }

    fn feed(connection: &mut Connection, pool: &mut BufferPool, bytes: &[u8], now: Tick) {
        let mut input = bytes.to_vec();
        let mut rest = &mut input[..];
        loop {
            let step = connection.handle_input(rest, &OPTIONS, pool, now).unwrap();
            let (consumed, told) = (step.consumed, step.event.is_some());
            if consumed == 0 && !told {
                return;
            }
            rest = &mut rest[consumed..];
        }
    }

    #[test]
    fn a_connection_is_small_and_holds_nothing_between_messages() {
        assert_eq!(size_of::<Connection>(), 24);
        let (mut connection, mut pool) = quiet();
        for part in [&[0x02, 0x81, 0][..], &[0, 0, 0, 7], &[0x80, 0x80, 0, 0, 0, 0]] {
            feed(&mut connection, &mut pool, part, Tick(1));
        }
        assert!(connection.partial.is_none());
        assert!(pool.spare_bytes() > 0, "the buffer is back");
    }

    #[test]
    fn memory_follows_what_was_received_not_what_was_declared() {
        let (mut connection, mut pool) = quiet();
        feed(&mut connection, &mut pool, &[0x82, 0xFF, 0, 0, 0, 0, 0, 0x0F, 0xFF, 0xFF, 0, 0, 0, 0, 7], Tick(1));
        assert!(connection.partial.as_ref().unwrap().message_bytes() == 1);
        connection.release(&mut pool);
        assert!(pool.spare_bytes() < 64);
    }

    #[test]
    fn a_silent_peer_is_pinged_and_then_given_up() {
        let (mut connection, _) = quiet();
        let due = connection.poll_timeout(&OPTIONS);
        assert_eq!(due, Tick(801));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(800)), Timeout::None);
        assert_eq!(connection.handle_timeout(&OPTIONS, due), Timeout::SendPing);
        let due = connection.poll_timeout(&OPTIONS);
        assert_eq!(due, Tick(801 + 301));
        assert_eq!(connection.handle_timeout(&OPTIONS, due), Timeout::NoPong);
    }

    #[test]
    fn any_byte_is_life_even_in_the_tick_of_the_ping() {
        let (mut connection, mut pool) = quiet();
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(801)), Timeout::SendPing);
        feed(&mut connection, &mut pool, &[0x8A, 0x80, 0, 0, 0, 0], Tick(801));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(1102)), Timeout::None);
        assert_eq!(connection.poll_timeout(&OPTIONS), Tick(801 + 801));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(1602)), Timeout::SendPing);
    }

    #[test]
    fn jitter_spreads_pings_over_the_last_eighth_of_the_interval() {
        let due: Vec<u32> = (0..64).map(|id| Connection::new(Tick(0), id).poll_timeout(&OPTIONS).0).collect();
        assert!(due.iter().all(|due| (701..=801).contains(due)));
        assert!((701..801).step_by(25).all(|low| due.iter().any(|due| (low..low + 25).contains(due))));
    }

    #[test]
    fn a_message_that_trickles_is_cut_from_its_beginning() {
        let (mut connection, mut pool) = quiet();
        // Endless empty fragments, and a ping among them: each byte is life, none renews the message's deadline.
        feed(&mut connection, &mut pool, &[0x01, 0x80, 0, 0, 0, 0], Tick(10));
        for now in (20..900).step_by(10) {
            feed(&mut connection, &mut pool, &[0x00, 0x80, 0, 0, 0, 0, 0x89, 0x80, 0, 0, 0, 0], Tick(now));
            assert_eq!(connection.handle_timeout(&OPTIONS, Tick(now)), Timeout::None);
        }
        assert_eq!(connection.poll_timeout(&OPTIONS), Tick(911));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(911)), Timeout::MessageTimeout);
        assert_eq!(connection.partial.as_ref().unwrap().message_bytes(), 0);
    }

    #[test]
    fn half_a_header_is_a_message_begun() {
        let (mut connection, mut pool) = quiet();
        feed(&mut connection, &mut pool, &[0x81], Tick(10));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(911)), Timeout::MessageTimeout);
        feed(&mut connection, &mut pool, &[0x80, 0, 0, 0, 0], Tick(912));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(913)), Timeout::None);
    }

    #[test]
    fn after_our_close_only_the_peers_counts() {
        let (mut connection, mut pool) = quiet();
        feed(&mut connection, &mut pool, &[0x01, 0x82, 0, 0, 0, 0, b'h', 0xC3], Tick(1));
        connection.close_sent(Tick(2));
        assert!(connection.is_closing());
        // The rest of the text is not even checked; a message larger than allowed passes by; then the close.
        let mut input = [0x80, 0x80, 0, 0, 0, 0, 0x89, 0x80, 0, 0, 0, 0, 0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8];
        for (start, consumed) in [(0, 6), (6, 6)] {
            let step = connection.handle_input(&mut input[start..], &OPTIONS, &mut pool, Tick(3)).unwrap();
            assert_eq!(step, Step { consumed, event: None });
        }
        assert_eq!(connection.poll_timeout(&OPTIONS), Tick(2 + 151));
        let step = connection.handle_input(&mut input[12..], &OPTIONS, &mut pool, Tick(3)).unwrap();
        assert!(matches!(step.event, Some(Event::Close(Some(CloseFrame { reason: "", .. })))));
    }

    #[test]
    fn an_unanswered_close_ends_at_the_deadline() {
        let (mut connection, mut pool) = quiet();
        connection.close_sent(Tick(5));
        feed(&mut connection, &mut pool, &[0x8A, 0x80, 0, 0, 0, 0], Tick(100));
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(155)), Timeout::None);
        assert_eq!(connection.handle_timeout(&OPTIONS, Tick(156)), Timeout::CloseTimeout);
    }
}
