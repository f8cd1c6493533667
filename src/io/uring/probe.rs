//! Whether this kernel lets this process have the ring the driver needs; if not, why, in words an operator can act on.
//!
//! Probing is making: a ring with the sizes of the real ones, so that a limit which would stop a worker stops the probe. It is made on
//! a thread of its own, because a ring that goes away interrupts system calls of the thread that made it.

// One operation is tried.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;

use super::Uring;
use super::buffers::GROUP;
use super::operation::{self, Receiving};
use super::ring::Ring;
use crate::io::{Options, Token};

/// Says why there can be no [`Uring`] with these options.
///
/// # Errors
/// The reason, to go on after "io_uring can't be had: ".
pub(crate) fn probe(options: &Options) -> Result<(), String> {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let make = || Uring::new(Vec::new(), options.clone(), Instant::now()).map(drop);
    let made = thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, make)?.join().map_err(|_| io::Error::other("a fault of ours"))?
    });
    made.map_err(|error| reason(&error, disabled.as_deref()))
}

/// Asks a new ring for all that the driver uses.
///
/// # Errors
/// `Unsupported`, with what is missing.
pub(super) fn check(uring: &IoUring) -> io::Result<()> {
    let params = uring.params();
    for (there, what) in [
        (params.is_feature_nodrop(), "completions that are never dropped"),
        (params.is_feature_submit_stable(), "entries that are copied when they are submitted"),
        (params.is_feature_ext_arg(), "waiting with a time-out"),
    ] {
        if !there {
            return Err(missing(what));
        }
    }
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    for (code, what) in [
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::PollAdd::CODE, "poll"),
        (opcode::AsyncCancel::CODE, "cancel"),
    ] {
        if !probe.is_supported(code) {
            return Err(missing(what));
        }
    }
    Ok(())
}

/// How this kernel can receive. The ring has no buffers yet: a receive it knows fails for want of one.
///
/// # Errors
/// The kernel's, when it has no descriptor left to try with.
pub(super) fn receiving(ring: &mut Ring, bytes_max: usize) -> io::Result<Receiving> {
    let bounded = Receiving::Bounded(u32::try_from(bytes_max).unwrap_or(u32::MAX));
    let (socket, _peer) = UnixStream::pair()?;
    let entry = operation::receive(socket.as_raw_fd(), Token { slot: 0, generation: 0 }, GROUP, bounded);
    // SAFETY: the operation points at no memory.
    unsafe { ring.push(&entry) };
    let mut completed = Vec::new();
    while ring.under_way() > 0 {
        ring.submit_and_wait(None);
        ring.take_completed(&mut completed);
    }
    let is_unknown = completed.iter().any(|completion| completion.result == -Errno::INVAL.raw_os_error());
    Ok(if is_unknown { Receiving::Once } else { bounded })
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring lacks {what}"))
}

/// The kernel's error in words. `disabled` is what `/proc/sys/kernel/io_uring_disabled` says, where it exists.
fn reason(error: &io::Error, disabled: Option<&str>) -> String {
    let Some(errno) = error.raw_os_error().map(Errno::from_raw_os_error) else { return error.to_string() };
    match (errno, disabled.map(str::trim)) {
        (Errno::PERM, Some("2")) => "the system has switched it off (sysctl kernel.io_uring_disabled is 2)".into(),
        (Errno::PERM, Some("1")) => {
            "the system allows it to the group kernel.io_uring_group alone (sysctl kernel.io_uring_disabled is 1)".into()
        }
        (Errno::PERM | Errno::ACCESS, _) => {
            "this process may not use it; containers and services often forbid it by a seccomp filter".into()
        }
        (Errno::NOSYS, _) => "this kernel is built without it, or a seccomp filter hides it".into(),
        (Errno::INVAL, _) => "this kernel's is too old: Linux 6.1 is the first with all that is needed".into(),
        (Errno::NOMEM, _) => {
            "the memory this process may lock does not suffice: raise it (ulimit -l), or lower --uring-entries or --uring-buffers"
                .into()
        }
        (Errno::MFILE | Errno::NFILE, _) => "there is no descriptor left: raise the limit (ulimit -n)".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_has_its_words() {
        for (errno, disabled, word) in [
            (Errno::PERM, Some("2\n"), "switched it off"),
            (Errno::PERM, Some("1\n"), "io_uring_group"),
            (Errno::PERM, Some("0\n"), "seccomp"),
            (Errno::PERM, None, "seccomp"),
            (Errno::NOSYS, None, "built without it"),
            (Errno::INVAL, Some("0\n"), "too old"),
            (Errno::NOMEM, Some("0\n"), "ulimit -l"),
            (Errno::MFILE, Some("0\n"), "ulimit -n"),
            (Errno::IO, None, "Input/output error"),
        ] {
            let said = reason(&io::Error::from_raw_os_error(errno.raw_os_error()), disabled);
            assert!(said.contains(word), "{errno}: {said}");
        }
        assert!(reason(&missing("poll"), None).ends_with("lacks poll"));
    }
}
