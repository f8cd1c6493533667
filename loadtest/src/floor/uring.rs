//! The floor on io_uring: one system call a turn, which submits all that the turn before led to and waits for what is done.
//!
//! ```text
//! accept   multishot, into the ring's own table of files: no descriptors
//! receive  multishot, into buffers of a provided ring, given back within the turn
//! send     at most one under way a connection; what comes meanwhile waits behind it
//! close    after the last completion
//! ```
//!
//! What a turn brings to a topic is one [`Batch`], which all its subscribers' sends read from; it is used again when the last of
//! them is done. Most sends are done before the submission returns. One that isn't is the kernel's to finish (`MSG_WAITALL`).
//!
//! The kernel reads and writes memory that Rust thinks is ours alone. What keeps that sound: the ring, the provided buffers and
//! their ring are leaked, so they outlive every request; a `Vec` that a send reads from is not touched until the send's
//! completion came; a provided buffer is ours from the completion that names it until it is given back.
#![allow(unsafe_code, reason = "requests name memory by address, and only their completions say when the kernel is done with it")]

use std::io;
use std::mem;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::squeue::Flags;
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Fixed};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, opcode, squeue};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use slab::Slab;

use super::protocol::{Conversation, Over, Topics};

/// Room for requests between two submissions: for a crowd of a thousand and what else a turn leads to. A larger one takes
/// several. Between 64 and 1024 no difference could be measured.
const SUBMISSIONS: u32 = 1024;

/// Room for completions; the kernel keeps what doesn't fit, which is slower.
const COMPLETIONS: u32 = 4096;

/// How many receives a turn can bring before the kernel runs out of buffers and ends them.
const BUFFERS: u16 = 256;

/// Bytes of a provided buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// The provided buffers' number, of which there is one.
const GROUP: u16 = 0;

/// The most that one send is asked for, in bytes; what is longer goes on like a short one.
const SEND_BYTES_MAX: usize = 1 << 30;

const PAGE_BYTES: usize = 4096;

/// Bytes of the provided buffers' own ring.
const ENTRIES_BYTES: usize = BUFFERS as usize * size_of::<BufRingEntry>();

const _: () = assert!(BUFFERS.is_power_of_two(), "the kernel takes no other number");

/// The last bits of a completion's token; a connection's number stands before them.
const OPERATION_BITS: u32 = 2;

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Operation {
    Accept,
    Receive,
    Send,
    /// Of whose outcome nothing depends.
    Other,
}

/// The loop.
pub struct Server {
    ring: Ring,
    buffers: Buffers,
    listener: TcpListener,
    connections: Slab<Connection>,
    topics: Topics,
    batches: Batches,
    /// Connections that got something to send while no send was under way.
    dirty: Vec<usize>,
}

struct Connection {
    file: Fixed,
    conversation: Conversation,
    /// What is to be sent after what is under way.
    waiting: Vec<u8>,
    /// Its own bytes that are under way. Not touched meanwhile.
    own: Vec<u8>,
    send: Option<Send>,
    is_receiving: bool,
    /// Whether what it has under way was told to end.
    is_cancelled: bool,
    phase: Phase,
}

/// A send under way.
#[derive(Clone, Copy)]
struct Send {
    source: Source,
    sent_bytes: usize,
}

#[derive(Clone, Copy)]
enum Source {
    /// The connection's own bytes.
    Own,
    /// What all subscribers get.
    Batch(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Sends what it has to send, then ends.
    Closing,
    /// Ends as soon as nothing is under way.
    Broken,
}

impl Server {
    /// A loop for the connections of `listener`, of which there are at most `connections_max`.
    pub fn new(listener: TcpListener, connections_max: usize) -> io::Result<Self> {
        let ring = Ring::new(connections_max)?;
        let buffers = Buffers::new(&ring)?;
        Ok(Self {
            ring,
            buffers,
            listener,
            connections: Slab::new(),
            topics: Topics::default(),
            batches: Batches::default(),
            dirty: Vec::new(),
        })
    }

    /// Runs until something fails that concerns all connections.
    pub fn run(mut self) -> io::Result<()> {
        self.accept()?;
        let mut completions = Vec::with_capacity(COMPLETIONS as usize);
        loop {
            self.ring.wait(&mut completions)?;
            for completion in completions.drain(..) {
                self.handle(&completion)?;
            }
            self.fan_out()?;
            self.answer()?;
        }
    }

    fn handle(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        let id = (completion.user_data() >> OPERATION_BITS) as usize;
        match Operation::of(completion.user_data()) {
            Operation::Accept => self.accepted(completion),
            Operation::Receive => self.received(id, completion),
            Operation::Send => self.sent(id, completion.result()),
            Operation::Other => Ok(()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).allocate_file_index(true);
        // SAFETY: an accept without an address names no memory.
        unsafe { self.ring.push(&accept.build().user_data(Operation::Accept.token(0))) }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.accept()?;
        }
        let file = match outcome(completion.result()) {
            Ok(file) => Fixed(file as u32),
            // The client that gave up while it was queued.
            Err(Errno::CONNABORTED) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let id = self.connections.insert(Connection::new(file));
        self.receive(id)
    }

    fn receive(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.is_receiving = true;
        let receive = opcode::RecvMulti::new(connection.file, GROUP).build().user_data(Operation::Receive.token(id));
        // SAFETY: it writes to provided buffers only, which are the kernel's until a completion names them.
        unsafe { self.ring.push(&receive) }
    }

    fn received(&mut self, id: usize, completion: &cqueue::Entry) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.is_receiving = cqueue::more(completion.flags());
        let received = outcome(completion.result());
        let mut phase = match received {
            Ok(1..) | Err(Errno::NOBUFS) => connection.phase,
            // What it asked for before its end it may still get.
            Ok(0) => Phase::Closing,
            Err(_) => Phase::Broken,
        };
        if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
            if connection.phase == Phase::Open {
                // SAFETY: the completion names this buffer with so many bytes, and it is given back below.
                let bytes = unsafe { self.buffers.filled(buffer, received.unwrap_or_default()) };
                match connection.conversation.take(id, bytes, &mut self.topics, &mut connection.waiting) {
                    Ok(()) => {}
                    Err(Over::Closed) => phase = Phase::Closing,
                    Err(Over::Garbage) => phase = Phase::Broken,
                }
                if connection.send.is_none() && !connection.waiting.is_empty() {
                    self.dirty.push(id);
                }
            }
            // SAFETY: the completion made it ours, and the slice of it is used no more.
            unsafe { self.buffers.give_back(buffer) };
        }
        if phase != Phase::Open {
            return self.end(id, phase);
        }
        // The buffers ran out, or the completion queue: the rest comes into what was given back in this turn.
        if connection.is_receiving { Ok(()) } else { self.receive(id) }
    }

    /// One send per subscriber of what the turn brought.
    fn fan_out(&mut self) -> io::Result<()> {
        let Self { ring, connections, topics, batches, .. } = self;
        let mut result = Ok(());
        topics.drain_busy(|topic| {
            let number = batches.fill(&mut topic.frames);
            let batch = &mut batches.all[number];
            for &id in &topic.subscribers {
                let connection = &mut connections[id];
                if connection.send.is_some() || !connection.waiting.is_empty() {
                    connection.waiting.extend_from_slice(&batch.bytes);
                    continue;
                }
                connection.send = Some(Send { source: Source::Batch(number), sent_bytes: 0 });
                batch.pins += 1;
                // SAFETY: the batch is pinned until this send's completion.
                let pushed = unsafe { ring.push(&send(id, connection.file, &batch.bytes)) };
                if pushed.is_err() {
                    result = pushed;
                }
            }
            batches.free_if_unpinned(number);
        });
        result
    }

    /// One send per connection of what waits.
    fn answer(&mut self) -> io::Result<()> {
        while let Some(id) = self.dirty.pop() {
            // It may have ended in this turn, and its number may be another's already.
            if self.connections.get(id).is_some_and(|connection| connection.send.is_none() && !connection.waiting.is_empty()) {
                self.send_waiting(id)?;
            }
        }
        Ok(())
    }

    fn send_waiting(&mut self, id: usize) -> io::Result<()> {
        let connection = &mut self.connections[id];
        connection.own.clear();
        mem::swap(&mut connection.own, &mut connection.waiting);
        connection.send = Some(Send { source: Source::Own, sent_bytes: 0 });
        // SAFETY: its own bytes are touched again, and the connection removed, after this send's completion only.
        unsafe { self.ring.push(&send(id, connection.file, &connection.own)) }
    }

    fn sent(&mut self, id: usize, result: i32) -> io::Result<()> {
        let connection = &mut self.connections[id];
        let Some(under_way) = &mut connection.send else { return Ok(()) };
        let bytes = match under_way.source {
            Source::Own => &connection.own,
            Source::Batch(number) => &self.batches.all[number].bytes,
        };
        let sent_bytes = outcome(result).unwrap_or_default();
        under_way.sent_bytes += sent_bytes;
        if sent_bytes > 0 && under_way.sent_bytes < bytes.len() && connection.phase != Phase::Broken {
            let rest = send(id, connection.file, &bytes[under_way.sent_bytes..]);
            // SAFETY: what it reads from stays pinned, as the send stays under way.
            return unsafe { self.ring.push(&rest) };
        }
        if let Source::Batch(number) = under_way.source {
            self.batches.all[number].pins -= 1;
            self.batches.free_if_unpinned(number);
        }
        connection.send = None;
        match connection.phase {
            _ if sent_bytes == 0 => self.end(id, Phase::Broken),
            _ if !connection.waiting.is_empty() => self.send_waiting(id),
            Phase::Open => Ok(()),
            phase => self.end(id, phase),
        }
    }

    /// Takes the next step to a connection's end: first what it has to send, then what is under way, then the file.
    fn end(&mut self, id: usize, phase: Phase) -> io::Result<()> {
        let connection = &mut self.connections[id];
        if connection.phase == Phase::Open {
            connection.conversation.leave(id, &mut self.topics);
        }
        if connection.phase != Phase::Broken {
            connection.phase = phase;
        }
        if connection.phase == Phase::Broken {
            connection.waiting.clear();
        } else if connection.send.is_some() || !connection.waiting.is_empty() {
            return Ok(());
        }
        let file = connection.file;
        let request = if connection.send.is_none() && !connection.is_receiving {
            self.connections.remove(id);
            opcode::Close::new(file).build()
        } else if !mem::replace(&mut connection.is_cancelled, true) {
            opcode::AsyncCancel2::new(CancelBuilder::fd(file).all()).build()
        } else {
            return Ok(());
        };
        // SAFETY: neither names memory.
        unsafe { self.ring.push(&request.flags(Flags::SKIP_SUCCESS).user_data(Operation::Other.token(0))) }
    }
}

impl Connection {
    const fn new(file: Fixed) -> Self {
        Self {
            file,
            conversation: Conversation::new(),
            waiting: Vec::new(),
            own: Vec::new(),
            send: None,
            is_receiving: false,
            is_cancelled: false,
            phase: Phase::Open,
        }
    }
}

impl Operation {
    const fn token(self, id: usize) -> u64 {
        (id as u64) << OPERATION_BITS | self as u64
    }

    const fn of(token: u64) -> Self {
        match token & ((1 << OPERATION_BITS) - 1) {
            0 => Self::Accept,
            1 => Self::Receive,
            2 => Self::Send,
            _ => Self::Other,
        }
    }
}

/// A send of as much as the socket takes and then, as it makes room, of the rest.
fn send(id: usize, file: Fixed, bytes: &[u8]) -> squeue::Entry {
    let flags = RecvFlags::WAITALL.bits() | SendFlags::NOSIGNAL.bits();
    let send = opcode::Send::new(file, bytes.as_ptr(), bytes.len().min(SEND_BYTES_MAX) as u32).flags(flags as i32);
    send.build().user_data(Operation::Send.token(id))
}

/// A completion's result as other calls have theirs.
fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// What turns brought to topics, for as long as the kernel reads from it.
#[derive(Default)]
struct Batches {
    all: Vec<Batch>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Batch {
    /// Not touched while it is pinned.
    bytes: Vec<u8>,
    /// Sends under way that read from it.
    pins: usize,
}

impl Batches {
    /// Takes the frames of a turn, for which their owner gets an empty buffer; returns the batch's number.
    fn fill(&mut self, frames: &mut Vec<u8>) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(Batch::default());
            self.all.len() - 1
        });
        mem::swap(&mut self.all[number].bytes, frames);
        number
    }

    fn free_if_unpinned(&mut self, number: usize) {
        let batch = &mut self.all[number];
        if batch.pins == 0 {
            batch.bytes.clear();
            self.free.push(number);
        }
    }
}

/// Both queues of an io_uring, which is leaked: it lives as long as the process.
struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
}

impl Ring {
    fn new(files_max: usize) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_no_sqarray().setup_cqsize(COMPLETIONS);
        let ring = Box::leak(Box::new(builder.build(SUBMISSIONS)?));
        let (mut submitter, submissions, completions) = ring.split();
        submitter.register_ring_fd()?;
        submitter.register_files_sparse(files_max as u32)?;
        Ok(Self { submitter, submissions, completions })
    }

    /// Queues a request, after a submission where there is no room.
    ///
    /// # Safety
    ///
    /// Memory that the request names must stay as it is until its completion.
    unsafe fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        while unsafe { self.submissions.push(request) }.is_err() {
            self.enter(0)?;
        }
        Ok(())
    }

    /// Submits what is queued and waits until something is done; appends what is done.
    fn wait(&mut self, done: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        self.enter(1)?;
        self.completions.sync();
        done.extend(&mut self.completions);
        self.completions.sync();
        Ok(())
    }

    fn enter(&mut self, completions: usize) -> io::Result<()> {
        self.submissions.sync();
        let result = loop {
            match self.submitter.submit_and_wait(completions) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.submissions.sync();
        result.map(drop)
    }
}

/// A ring of buffers from which the kernel takes one for each receive.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

impl Buffers {
    fn new(ring: &Ring) -> io::Result<Self> {
        // Leaked, as the kernel may write to them for as long as the process lives.
        let entries = Box::leak(vec![Page([0; PAGE_BYTES]); ENTRIES_BYTES.div_ceil(PAGE_BYTES)].into_boxed_slice());
        let memory = Box::leak(vec![0; usize::from(BUFFERS) * BUFFER_BYTES].into_boxed_slice());
        let mut buffers = Self { entries: entries.as_mut_ptr().cast(), memory: memory.as_mut_ptr(), tail: 0 };
        // SAFETY: the entries are aligned to a page, as many as is said, and never freed.
        unsafe { ring.submitter.register_buf_ring_with_flags(buffers.entries as u64, BUFFERS, GROUP, 0)? };
        for buffer in 0..BUFFERS {
            // SAFETY: each is given once.
            unsafe { buffers.give_back(buffer) };
        }
        Ok(buffers)
    }

    /// The first `bytes` of a buffer.
    ///
    /// # Safety
    ///
    /// A completion has named this buffer and so many bytes of it, and it was not given back since.
    unsafe fn filled(&mut self, buffer: u16, bytes: usize) -> &mut [u8] {
        // SAFETY: the kernel names buffers that it was given, fills them no further than they reach, and is done with this one.
        unsafe { std::slice::from_raw_parts_mut(self.memory.add(usize::from(buffer) * BUFFER_BYTES), bytes) }
    }

    /// Lets the kernel use a buffer.
    ///
    /// # Safety
    ///
    /// The buffer is one of ours, and no slice of it is in use.
    unsafe fn give_back(&mut self, buffer: u16) {
        // SAFETY: the index is below the number of entries, and the kernel reads none that lies at or behind the tail.
        let entry = unsafe { &mut *self.entries.add(usize::from(self.tail % BUFFERS)) };
        // SAFETY: the buffer's number is below the number of buffers.
        entry.set_addr(unsafe { self.memory.add(usize::from(buffer) * BUFFER_BYTES) } as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies within the first entry, is aligned, and only read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        // Release: the entry is whole before the kernel sees the tail behind it.
        tail.store(self.tail, Ordering::Release);
    }
}
