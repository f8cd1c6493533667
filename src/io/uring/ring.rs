//! The two queues shared with the kernel, and the one system call that moves both.
//!
//! ```text
//!            push               enter                      drain
//!  driver ----------> [ SQ ] ----------> kernel ---> [ CQ ] ----------> completed
//! ```
//!
//! Entries wait in the submission queue until the worker falls asleep, so that what a turn asks for and the sleep itself are one
//! system call. With DEFER_TASKRUN the kernel works on this ring only inside of that call, never in between, and since Linux 6.13 on some
//! 20 operations at a time: so it is called again while it may have more.
//!
//! The completion queue is four times as long. When it overflows all the same, the kernel keeps what found no room and hands it over
//! at the next call; nothing is lost, it is only slower, and counted.
//!
//! Where the kernel has no memory for an operation it takes no entries for the moment: the worker tries again, with pauses, because it
//! can do nothing else.

// Entries carry addresses, which the kernel follows.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};
use rustix::io::Errno;

use super::operation::{self, Completion};

/// Completions for each entry of the submission queue: a fan-out's sends complete while they are submitted, and each multishot
/// operation brings many.
const COMPLETIONS_PER_ENTRY: u32 = 4;

/// Entries of the largest ring: the kernel refuses completion queues beyond 65,536 (IORING_MAX_CQ_ENTRIES).
pub(crate) const ENTRIES_MAX: u32 = 65_536 / COMPLETIONS_PER_ENTRY;

/// What a call brings at least if the kernel stopped before it was done (IO_LOCAL_TW_DEFAULT_MAX).
const DEFERRED_MAX: usize = 20;

/// Time between two calls where the kernel takes no entry and brings nothing: it has no memory for the moment.
const REFUSED_PAUSE: Duration = if cfg!(test) { Duration::from_micros(10) } else { Duration::from_millis(1) };
/// How long that may last, which is as good as for ever: the process is of no use then.
const REFUSED_PATIENCE: Duration = Duration::from_secs(30);

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
    /// How often the kernel had no memory for operations.
    pub(super) refused: u64,
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
            refused: 0,
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

    /// A call could bring something: entries wait for it, or work that the kernel has deferred; or it was brought already.
    pub(super) fn is_due(&mut self) -> bool {
        let entries = self.uring.submission();
        !entries.is_empty() || entries.taskrun() || entries.cq_overflow() || !self.completed.is_empty()
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
        let before = self.completed.len();
        self.enter(1, timeout)?;
        self.drain()?;
        match self.is_submitted() && !self.may_have_more(before) {
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

    /// Like [`Ring::submit`].
    fn try_submit(&mut self) -> io::Result<()> {
        let mut refused_since = None;
        loop {
            let (entries, before) = (self.uring.submission().len(), self.completed.len());
            self.enter(0, None)?;
            self.drain()?;
            let left = self.uring.submission().len();
            if left == 0 && !self.may_have_more(before) {
                return Ok(());
            }
            match left > 0 && left == entries && self.completed.len() == before {
                true => self.pause_refused(*refused_since.get_or_insert_with(Instant::now))?,
                false => refused_since = None,
            }
        }
    }

    /// The kernel may have stopped before it was done, with `before` completions known when it was called. Not for ever: what a turn
    /// works on is bounded by the queue's length.
    fn may_have_more(&mut self, before: usize) -> bool {
        let brought = self.completed.len() - before;
        let stopped = brought >= DEFERRED_MAX || (brought > 0 && self.uring.submission().taskrun());
        stopped && self.completed.len() < self.uring.params().cq_entries() as usize
    }

    /// Waits a moment for memory of the kernel.
    fn pause_refused(&mut self, since: Instant) -> io::Result<()> {
        if self.refused == 0 {
            tracing::warn!("the kernel has no memory for io_uring's operations; the worker tries again until it has");
        }
        self.refused += 1;
        if since.elapsed() > REFUSED_PATIENCE {
            return Err(Errno::AGAIN.into());
        }
        thread::sleep(REFUSED_PAUSE);
        Ok(())
    }

    /// Empties the completion queue.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let before = self.completed.len();
            self.completed.extend(self.uring.completion().map(|entry| Completion::new(&entry)));
            // Without room made here the next call finds none either.
            if self.completed.len() == before || !self.uring.submission().cq_overflow() {
                return Ok(());
            }
            self.overflows += 1;
            self.enter(0, None)?;
        }
    }

    /// Calls io_uring_enter(2) and judges what it returned.
    fn enter(&mut self, completions: u32, timeout: Option<Duration>) -> io::Result<()> {
        #[cfg(test)]
        if !self.refusals.is_empty() {
            return judge(self.refusals.remove(0).into(), &mut self.interruptions);
        }
        let entries = self.uring.submission().len() as u32;
        let entered = match timeout.map(Timespec::from) {
            // SAFETY: the call has no argument.
            None => unsafe { self.uring.submitter().enter::<libc::sigset_t>(entries, completions, WORK, None) },
            Some(timespec) => {
                let arguments = SubmitArgs::new().timespec(&timespec);
                self.uring.submitter().submit_with_args(completions as usize, &arguments)
            }
        };
        entered.map(drop).or_else(|error| judge(error, &mut self.interruptions))
    }
}

/// Has the kernel work on what it had deferred, also where no completion is waited for. The flag by which it says that there is such work
/// need not be looked at.
const WORK: u32 = EnterFlags::GETEVENTS.bits();

/// Whether another call is as good as this one would have been.
fn judge(error: io::Error, interruptions: &mut u64) -> io::Result<()> {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INTR) => *interruptions += 1,
        // The time is over; completions must be taken first; there is no memory for the moment.
        Some(Errno::TIME | Errno::BUSY | Errno::AGAIN | Errno::NOMEM) => {}
        _ => return Err(error),
    }
    Ok(())
}

/// Ends the process. A ring that has worked fails by a fault of ours, by a descriptor that is no ring or an argument that is none, or
/// because the kernel can't go on with it.
fn fault(error: &io::Error) -> ! {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        // Of which operations nobody can know: what they point at could never be freed, nor their sockets closed.
        Some(Errno::BADR) => panic!(
            "io_uring: the kernel had no memory for completions and lost some; give the process more memory, or raise --uring-entries"
        ),
        Some(Errno::AGAIN) => panic!("io_uring: the kernel has had no memory for operations for {REFUSED_PATIENCE:?}"),
        _ => panic!("io_uring_enter: {error}"),
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}
