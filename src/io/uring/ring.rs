//! The two queues shared with the kernel, and the one system call that moves both.
//!
//! ```text
//!            push               enter                      drain
//!  driver ----------> [ SQ ] ----------> kernel ---> [ CQ ] ----------> completed
//! ```
//!
//! Entries wait in the submission queue until the worker falls asleep, so that what a turn asks for and the sleep itself are one
//! system call. With DEFER_TASKRUN the kernel works on this ring only inside of that call, never in between.
//!
//! The completion queue is four times as long. When it overflows all the same, the kernel keeps what found no room and hands it over
//! at the next call; nothing is lost, it is only slower, and counted.

// Entries carry addresses, which the kernel follows.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use io_uring::IoUring;
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use rustix::io::Errno;

use super::operation::{self, Completion};

/// Completions for each entry of the submission queue: a fan-out's sends complete while they are submitted, and each multishot
/// operation brings many.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// Calls in a row that may bring nothing forward before this counts as a fault of ours: the kernel asks for another call when it has
/// no memory for the moment, or when completions must be taken first.
const CALLS_MAX: usize = 10_000;

/// How long the kernel may take to end operations; it does so at once.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked meanwhile.
const END_RECHECK: Duration = Duration::from_millis(10);

/// A ring of this thread.
pub(super) struct Ring {
    uring: IoUring,
    /// Taken from the completion queue and not yet handed out.
    completed: Vec<Completion>,
    /// Operations that have not had their last completion.
    under_way: u64,
    /// How often the completion queue had overflowed.
    pub(super) overflows: u64,
    /// How often a signal ended the wait.
    pub(super) interruptions: u64,
    /// What the next calls return, without being made.
    #[cfg(test)]
    pub(super) refusals: Vec<Errno>,
}

impl Ring {
    /// A ring with room for `entries` operations between two system calls. Only the calling thread may use it.
    ///
    /// # Errors
    /// The kernel's; [`super::probe`] has the words for them.
    pub(super) fn new(entries: u32) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(entries * COMPLETIONS_PER_ENTRY)
            .build(entries)?;
        Ok(Self {
            uring,
            completed: Vec::new(),
            under_way: 0,
            overflows: 0,
            interruptions: 0,
            #[cfg(test)]
            refusals: Vec::new(),
        })
    }

    /// The ring as the crate has it, to register with and to ask what it can.
    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Puts an operation into the submission queue; a full one goes to the kernel first.
    ///
    /// # Safety
    /// As [`Ring::try_push`].
    ///
    /// # Panics
    /// When io_uring_enter(2) fails for good, which is a fault of ours.
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: the caller's promise is this one's.
        unsafe { self.try_push(entry) }.unwrap_or_else(|error| fault(&error));
    }

    /// Puts an operation into the submission queue; a full one goes to the kernel first.
    ///
    /// # Safety
    /// Bytes that the entry points at must stay where and what they are until the operation's last completion. Message headers
    /// and the slices they name may go once the entry has left the queue (IORING_FEAT_SUBMIT_STABLE).
    ///
    /// # Errors
    /// The kernel's: the operation does not stand in the queue then.
    pub(super) unsafe fn try_push(&mut self, entry: &Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is this one's.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.try_submit()?;
        }
        self.under_way += 1;
        Ok(())
    }

    /// Every entry has gone to the kernel.
    pub(super) fn is_submitted(&mut self) -> bool {
        self.uring.submission().is_empty()
    }

    /// Operations that have not had their last completion.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way
    }

    /// Hands every entry to the kernel and has it work on what is due, without waiting.
    ///
    /// # Panics
    /// As [`Ring::push`].
    pub(super) fn submit(&mut self) {
        self.try_submit().unwrap_or_else(|error| fault(&error));
    }

    /// Hands every entry to the kernel and waits for a completion, at most `timeout`; `None` waits for ever.
    ///
    /// # Panics
    /// As [`Ring::push`].
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        self.try_submit_and_wait(timeout).unwrap_or_else(|error| fault(&error));
    }

    /// Like [`Ring::submit_and_wait`].
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn try_submit_and_wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return self.try_submit();
        }
        self.drain()?;
        if !self.completed.is_empty() {
            return self.try_submit();
        }
        self.enter(1, timeout)?;
        self.drain()?;
        match self.is_submitted() {
            true => Ok(()),
            false => self.try_submit(),
        }
    }

    /// What has completed since it was asked last.
    pub(super) fn take_completed(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        std::mem::swap(&mut self.completed, into);
        self.under_way -= into.iter().filter(|completion| !completion.more).count() as u64;
    }

    /// Ends every operation, and says whether the kernel has let go of all that they point at. The ring is of no use afterwards.
    ///
    /// It is called while a driver is dropped, perhaps by a panic: so it never panics, and looks at nothing but names.
    pub(super) fn end_all(&mut self) -> bool {
        if self.under_way == 0 {
            return true;
        }
        let start = Instant::now();
        // SAFETY: a cancellation points at no memory.
        let mut asked = unsafe { self.try_push(&operation::cancel_all()) };
        let mut completed = Vec::new();
        while asked.is_ok() && self.under_way > 0 && start.elapsed() < END_PATIENCE {
            asked = self.try_submit_and_wait(Some(END_RECHECK));
            self.take_completed(&mut completed);
        }
        self.under_way == 0
    }

    fn try_submit(&mut self) -> io::Result<()> {
        for _ in 0..CALLS_MAX {
            let queue = self.uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                break;
            }
            drop(queue);
            self.enter(0, None)?;
            self.drain()?;
            if self.is_submitted() {
                break;
            }
        }
        if !self.is_submitted() {
            return Err(io::Error::other("the kernel does not take its entries"));
        }
        self.drain()
    }

    /// Empties the completion queue.
    fn drain(&mut self) -> io::Result<()> {
        for _ in 0..CALLS_MAX {
            self.completed.extend(self.uring.completion().map(|entry| Completion::new(&entry)));
            if !self.uring.submission().cq_overflow() {
                break;
            }
            self.overflows += 1;
            self.enter(0, None)?;
        }
        Ok(())
    }

    /// Calls io_uring_enter(2) and judges what it returned.
    fn enter(&mut self, completions: usize, timeout: Option<Duration>) -> io::Result<()> {
        let entered = match timeout.map(Timespec::from) {
            #[cfg(test)]
            _ if !self.refusals.is_empty() => Err(self.refusals.remove(0).into()),
            None => self.uring.submit_and_wait(completions),
            Some(timespec) => self.uring.submitter().submit_with_args(completions, &SubmitArgs::new().timespec(&timespec)),
        };
        let Err(error) = entered else { return Ok(()) };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INTR) => self.interruptions += 1,
            // The time is over; completions must be taken first; there is no memory for the moment: another call is made.
            Some(Errno::TIME | Errno::BUSY | Errno::AGAIN) => {}
            _ => return Err(error),
        }
        Ok(())
    }
}

/// Once a ring has worked, only a descriptor that is no ring, or an argument that is none, can fail: a fault of ours, and the process
/// ends.
fn fault(error: &io::Error) -> ! {
    panic!("io_uring_enter: {error}")
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
