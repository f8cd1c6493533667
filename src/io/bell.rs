//! What wakes a worker that waits in its driver.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use super::Bell;

/// An eventfd, which every driver of the kernel can wait for, so that all of them share this one bell.
#[derive(Clone, Debug)]
pub struct EventBell(Arc<OwnedFd>);

impl EventBell {
    /// A bell.
    ///
    /// # Errors
    /// The kernel's, when there is no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }
}

impl AsFd for EventBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Bell for EventBell {
    fn ring(&self) {
        // It is ours and non-blocking; the one error left, a counter at 2^64 - 2, would be a bell that rings already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}
