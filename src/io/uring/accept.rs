//! Hearing who comes: one poll for all listeners.
//!
//! The ring never holds a listener. It polls an epoll descriptor in which the listeners are registered, and they are accepted from as
//! with every driver ([`Listeners`]). Two things follow:
//!
//! - A multishot accept cannot be told a number: it empties the kernel's queue, with a descriptor for each connection, before
//!   anybody is counted. Here nobody is accepted before there is room to tell.
//! - What the kernel closes of a ring after a SIGKILL takes longer than the process lives. A listener goes with the process, and the
//!   next start finds its address free.
//!
//! System calls of a new connection: accept4(2), which brings the address, too, and behind a crowd one more for each listener of the
//! worker, which says that nobody is left: the poll does not tell whose connection came. The poll itself is an entry of the ring.

// An operation is handed to the kernel.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::epoll;
use socket2::Socket;

use super::operation;
use super::ring::Ring;
use crate::io::listening::Listeners;

/// The descriptor that is readable while somebody is queued at a listener.
#[derive(Debug)]
pub(super) struct Doorbell {
    epoll: OwnedFd,
    /// The poll is under way.
    armed: bool,
}

impl Doorbell {
    /// A doorbell without listeners.
    ///
    /// # Errors
    /// The kernel's, when it gives no epoll descriptor.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, armed: false })
    }

    /// Heard for these listeners until they are closed.
    ///
    /// # Errors
    /// The kernel's, when it cannot watch one more descriptor.
    pub(super) fn listen(&mut self, listeners: &[Socket]) -> io::Result<()> {
        for listener in listeners {
            epoll::add(&self.epoll, listener, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    /// Begins a turn: the poll is armed once everybody who is known of was taken.
    pub(super) fn arm(&mut self, listeners: &Listeners, ring: &mut Ring) {
        if !self.armed && listeners.wants_word() {
            self.armed = true;
            // SAFETY: the operation points at no memory.
            unsafe { ring.push(&operation::doorbell(self.epoll.as_raw_fd())) };
        }
    }

    /// The poll is done: somebody came, unless it has failed, and then the next one says so, too.
    pub(super) fn rang(&mut self, listeners: &mut Listeners) {
        self.armed = false;
        listeners.came_to_any();
    }
}
