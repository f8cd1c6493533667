//! What a connection keeps of a frame or message that has not come whole. It exists from the first such byte to the last.

use super::mask::unmask;
use super::parser::{CONTROL_BYTES_MAX, HEADER_BYTES_MAX, Header, Sequence, parse};
use super::{MessageKind, Options, ProtocolError, Validator};
use crate::frame::OpCode;
use crate::limits::{BufferPool, Tick};

/// An unfinished header, frame or message.
#[derive(Debug)]
pub(super) struct Partial {
    /// When the first byte of it came: the message time-out counts from here, whatever trickles in later.
    pub began: Tick,
    /// The event told last was the end of it: the next step drops it.
    pub lent: bool,
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u8,
    control_bytes: u8,
    control: [u8; CONTROL_BYTES_MAX],
    frame: Option<Frame>,
    message: Option<MessageKind>,
    utf8: Validator,
    /// All fragments of the message, one behind the other.
    buffer: Vec<u8>,
}

/// The frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: OpCode,
    /// Turned to where the next byte goes on.
    mask: [u8; 4],
    rest_bytes: u64,
}

impl Partial {
    pub fn new(now: Tick) -> Box<Self> {
        Box::new(Self {
            began: now,
            lent: false,
            header: [0; HEADER_BYTES_MAX],
            header_bytes: 0,
            control_bytes: 0,
            control: [0; CONTROL_BYTES_MAX],
            frame: None,
            message: None,
            utf8: Validator::default(),
            buffer: Vec::new(),
        })
    }

    /// Whether a payload is arriving, rather than a header.
    pub const fn in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Whether a fragmented message waits for its next fragment.
    pub const fn in_message(&self) -> bool {
        self.message.is_some()
    }

    /// The bytes gathered of the message.
    pub const fn message_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Reads the header that begins in what was kept and goes on in `input`; tells also how many bytes of `input` belong to it.
    pub fn take_header(&mut self, input: &[u8], sequence: Sequence) -> Result<Option<(Header, usize)>, ProtocolError> {
        let held = self.header_bytes as usize;
        let fresh = input.len().min(HEADER_BYTES_MAX - held);
        self.header[held..held + fresh].copy_from_slice(&input[..fresh]);
        let parsed = parse(&self.header[..held + fresh], sequence)?;
        // An unfinished header has eaten the whole input, for the longest one fits.
        self.header_bytes = if parsed.is_some() { 0 } else { (held + fresh) as u8 };
        Ok(parsed.map(|(header, header_bytes)| (header, header_bytes - held)))
    }

    /// Begins the payload of a frame.
    pub fn begin(&mut self, header: Header, pool: &mut BufferPool) {
        let Header { fin, opcode, mask, payload_bytes } = header;
        self.frame = Some(Frame { fin, opcode, mask, rest_bytes: payload_bytes });
        let kind = match opcode {
            OpCode::Text => MessageKind::Text,
            OpCode::Binary => MessageKind::Binary,
            OpCode::Continuation => return,
            OpCode::Close | OpCode::Ping | OpCode::Pong => {
                self.control_bytes = 0;
                return;
            }
        };
        self.message = Some(kind);
        self.buffer = pool.take();
    }

    /// Unmasks and keeps what `input` has of the frame's payload; returns how many bytes that were. With `skip`, data is dropped.
    pub fn take_payload(&mut self, input: &mut [u8], options: &Options, skip: bool) -> Result<usize, ProtocolError> {
        let Some(frame) = &mut self.frame else { return Ok(0) };
        let length = usize::try_from(frame.rest_bytes).unwrap_or(usize::MAX).min(input.len());
        let piece = &mut input[..length];
        frame.mask = unmask(piece, frame.mask);
        frame.rest_bytes -= length as u64;
        if frame.opcode.is_control() {
            let held = self.control_bytes as usize;
            self.control[held..held + length].copy_from_slice(piece);
            self.control_bytes += length as u8;
        } else if !skip {
            self.gather(piece, options)?;
        }
        Ok(length)
    }

    /// Ends the frame if its payload is there. The opcode of what is whole now, a control frame or a message, else `None`.
    pub fn end(&mut self, skip: bool) -> Result<Option<OpCode>, ProtocolError> {
        let Some(frame) = self.frame.take_if(|frame| frame.rest_bytes == 0) else { return Ok(None) };
        if frame.opcode.is_control() {
            self.lent = self.message.is_none();
            return Ok(Some(frame.opcode));
        }
        if !frame.fin {
            return Ok(None);
        }
        self.lent = true;
        match self.message.take() {
            Some(MessageKind::Text) if !skip => self.utf8.finish()?,
            Some(MessageKind::Text) => {}
            Some(MessageKind::Binary) | None => return Ok(Some(OpCode::Binary)),
        }
        Ok(Some(OpCode::Text))
    }

    /// What [`Partial::end`] found whole.
    pub fn payload(&self, opcode: OpCode) -> &[u8] {
        if opcode.is_control() { &self.control[..self.control_bytes as usize] } else { &self.buffer }
    }

    /// Gives the buffer back.
    pub fn give_buffer(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.buffer));
    }

    /// Appends to the message. Text is checked first, so a bad byte is never kept.
    fn gather(&mut self, piece: &[u8], options: &Options) -> Result<(), ProtocolError> {
        if self.message == Some(MessageKind::Text) {
            self.utf8.push(piece)?;
        }
        let length = self.buffer.len() + piece.len();
        if length > self.buffer.capacity() {
            // Doubling, as a Vec does, but never beyond the largest message. What was declared has no part in it.
            let goal = length.max((2 * self.buffer.capacity()).min(options.message_bytes_max));
            self.buffer.try_reserve_exact(goal - self.buffer.len()).map_err(|_| ProtocolError::NoMemory)?;
        }
        self.buffer.extend_from_slice(piece);
        Ok(())
    }
}
