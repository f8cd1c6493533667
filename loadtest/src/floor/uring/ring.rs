//! The two queues: requests go in, and one call submits them all and brings what is done.
//!
//! The ring is leaked, as it lives as long as the process; so it outlives every request. A request carries a token, which its
//! completions carry too: what it is about, and of which connection.
#![allow(unsafe_code, reason = "requests name memory by address, and only their completions say when the kernel is done with it")]

use std::io;

use io_uring::types::BufRingEntry;
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, cqueue, squeue};
use rustix::io::Errno;

/// Room for requests between two submissions: for a crowd of a thousand and what else a turn leads to. A larger one takes
/// several. Between 64 and 1024 no difference could be measured.
const SUBMISSIONS: u32 = 1024;

/// Room for completions; the kernel keeps what doesn't fit, which is slower.
pub const COMPLETIONS: u32 = 4096;

/// The last bits of a token; a connection's number stands before them.
const OPERATION_BITS: u32 = 2;

/// Both queues of an io_uring.
pub struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
}

impl Ring {
    /// One with a table of so many files.
    pub fn new(files_max: usize) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_no_sqarray().setup_cqsize(COMPLETIONS);
        let ring = Box::leak(Box::new(builder.build(SUBMISSIONS)?));
        let (mut submitter, submissions, completions) = ring.split();
        submitter.register_ring_fd()?;
        submitter.register_files_sparse(files_max as u32)?;
        Ok(Self { submitter, submissions, completions })
    }

    /// Makes a ring of provided buffers known under this number.
    ///
    /// # Safety
    ///
    /// There are so many entries, they begin at a page, and they and the buffers they name are never freed.
    pub unsafe fn provide(&self, entries: *mut BufRingEntry, count: u16, group: u16) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.submitter.register_buf_ring_with_flags(entries as u64, count, group, 0) }
    }

    /// Queues a request, after a submission where there is no room.
    ///
    /// # Safety
    ///
    /// Memory that the request names must stay as it is until its completion.
    pub unsafe fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one that is asked for.
        while unsafe { self.submissions.push(request) }.is_err() {
            self.enter(0)?;
        }
        Ok(())
    }

    /// Submits what is queued and waits until something is done; appends what is done.
    pub fn wait(&mut self, done: &mut Vec<cqueue::Entry>) -> io::Result<()> {
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

/// What a completion is about.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Operation {
    Accept,
    Receive,
    Send,
    /// Of whose outcome nothing depends.
    Other,
}

impl Operation {
    /// The token of this operation on connection `id`.
    pub const fn token(self, id: usize) -> u64 {
        (id as u64) << OPERATION_BITS | self as u64
    }

    /// The operation and the connection of a token.
    pub const fn of(token: u64) -> (Self, usize) {
        let operation = match token & ((1 << OPERATION_BITS) - 1) {
            0 => Self::Accept,
            1 => Self::Receive,
            2 => Self::Send,
            _ => Self::Other,
        };
        (operation, (token >> OPERATION_BITS) as usize)
    }
}

/// A completion's result as other calls have theirs.
pub fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}
