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
use std::time::Duration;

use io_uring::IoUring;
use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use rustix::io::Errno;

use super::operation::Completion;

/// Completions for each entry of the submission queue: a fan-out's sends complete while they are submitted, and each multishot
/// operation brings many.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// Calls in a row that may bring nothing forward before this counts as a fault of ours: the kernel asks for another call when it has
/// no memory for the moment, or when completions must be taken first.
const CALLS_MAX: usize = 10_000;

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
        Ok(Self { uring, completed: Vec::new(), under_way: 0, overflows: 0, interruptions: 0 })
    }

    /// The ring as the crate has it, to register with and to ask what it can.
    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Puts an operation into the submission queue; a full one goes to the kernel first.
    ///
    /// # Safety
    /// Bytes that the entry points at must stay where and what they are until the operation's last completion. Message headers
    /// and the slices they name may go once the entry has left the queue (IORING_FEAT_SUBMIT_STABLE).
    pub(super) unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: the caller's promise is this one's.
        while unsafe { self.uring.submission().push(entry) }.is_err() {
            self.submit();
        }
        self.under_way += 1;
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
    pub(super) fn submit(&mut self) {
        for _ in 0..CALLS_MAX {
            let queue = self.uring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                break;
            }
            drop(queue);
            let entered = self.uring.submit().map(drop);
            self.entered(entered);
            self.drain();
            if self.is_submitted() {
                break;
            }
        }
        assert!(self.is_submitted(), "io_uring_enter does not take its entries");
        self.drain();
    }

    /// Hands every entry to the kernel and waits for a completion, at most `timeout`; `None` waits for ever.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        if timeout == Some(Duration::ZERO) {
            return self.submit();
        }
        self.drain();
        if !self.completed.is_empty() {
            return self.submit();
        }
        let entered = match timeout.map(Timespec::from) {
            None => self.uring.submit_and_wait(1),
            Some(timespec) => self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timespec)),
        };
        self.entered(entered.map(drop));
        self.drain();
        if !self.is_submitted() {
            self.submit();
        }
    }

    /// What has completed since it was asked last.
    pub(super) fn take_completed(&mut self, into: &mut Vec<Completion>) {
        into.clear();
        std::mem::swap(&mut self.completed, into);
        self.under_way -= into.iter().filter(|completion| !completion.more).count() as u64;
    }

    /// Empties the completion queue.
    fn drain(&mut self) {
        for _ in 0..CALLS_MAX {
            self.completed.extend(self.uring.completion().map(|entry| Completion::new(&entry)));
            if !self.uring.submission().cq_overflow() {
                return;
            }
            self.overflows += 1;
            let entered = self.uring.submit().map(drop);
            self.entered(entered);
        }
    }

    /// Judges what io_uring_enter(2) returned.
    fn entered(&mut self, result: io::Result<()>) {
        let Err(error) = result else { return };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::INTR) => self.interruptions += 1,
            // The time is over; completions must be taken first; there is no memory for the moment: another call is made.
            Some(Errno::TIME | Errno::BUSY | Errno::AGAIN) => {}
            // Only a descriptor that is no ring, or an argument that is none, can fail here: a fault of ours, and the process ends.
            _ => panic!("io_uring_enter: {error}"),
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
