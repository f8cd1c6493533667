//! What this kernel's ring can do, and why there is none, in words an operator can act on.

// One operation is tried.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;
use rustix::system::uname;

use super::buffers::GROUP;
use super::operation::{self, Receiving};
use super::ring::Ring;
use crate::io::Token;

/// Why there is no [`Uring`](super::Uring), to go on after "io_uring can't be had: ".
pub(crate) fn why_not(error: &io::Error) -> String {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    reason(error, disabled.as_deref(), &uname().release().to_string_lossy())
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
/// The kernel's, when it has no descriptor left to try with, or lets this process have a ring and forbids to use it.
pub(super) fn receiving(ring: &mut Ring, bytes_max: usize) -> io::Result<Receiving> {
    let bounded = Receiving::Bounded(u32::try_from(bytes_max).unwrap_or(u32::MAX));
    let (socket, _peer) = UnixStream::pair()?;
    let entry = operation::receive(socket.as_raw_fd(), Token { slot: 0, generation: 0 }, GROUP, bounded);
    // SAFETY: the operation points at no memory.
    unsafe { ring.try_push(&entry)? };
    let mut completed = Vec::new();
    while ring.under_way() > 0 {
        ring.try_submit_and_wait(None)?;
        ring.take_completed(&mut completed);
    }
    let is_unknown = completed.iter().any(|completion| completion.result == -Errno::INVAL.raw_os_error());
    Ok(if is_unknown { Receiving::Once } else { bounded })
}

fn missing(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("this kernel's io_uring lacks {what}"))
}

/// The kernel's error in words. `disabled` is what `/proc/sys/kernel/io_uring_disabled` says, where it exists; `release` what uname(2) does.
fn reason(error: &io::Error, disabled: Option<&str>, release: &str) -> String {
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
        (Errno::INVAL, _) if is_too_old(release) => {
            format!("this kernel's is too old: it is Linux {release}, and 6.1 is the first with all that is needed")
        }
        (Errno::INVAL, _) => "this kernel's takes other settings; what imitates Linux often lacks some".into(),
        (Errno::NOMEM, _) => {
            "the memory this process may lock does not suffice: raise it (ulimit -l), or lower --uring-entries or --uring-buffers"
                .into()
        }
        (Errno::MFILE | Errno::NFILE, _) => "there is no descriptor left: raise the limit (ulimit -n)".into(),
        _ => error.to_string(),
    }
}

/// Whether this release of Linux is before 6.1. What cannot be read is not.
fn is_too_old(release: &str) -> bool {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (6, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_has_its_words() {
        for (errno, disabled, release, word) in [
            (Errno::PERM, Some("2\n"), "6.18.1", "switched it off"),
            (Errno::PERM, Some("1\n"), "6.18.1", "io_uring_group"),
            (Errno::PERM, Some("0\n"), "6.18.1", "seccomp"),
            (Errno::PERM, None, "5.15.0", "seccomp"),
            (Errno::NOSYS, None, "5.15.0", "built without it"),
            (Errno::INVAL, None, "5.15.0-91-generic", "too old: it is Linux 5.15.0-91-generic"),
            (Errno::INVAL, Some("0\n"), "6.1.0", "imitates Linux"),
            (Errno::INVAL, Some("0\n"), "6.18.1", "imitates Linux"),
            (Errno::INVAL, None, "what?", "imitates Linux"),
            (Errno::NOMEM, Some("0\n"), "6.18.1", "ulimit -l"),
            (Errno::MFILE, Some("0\n"), "6.18.1", "ulimit -n"),
            (Errno::IO, None, "6.18.1", "Input/output error"),
        ] {
            let said = reason(&errno.into(), disabled, release);
            assert!(said.contains(word), "{errno}: {said}");
        }
        assert!(reason(&missing("poll"), None, "6.0").ends_with("lacks poll"));
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        assert!(["4.19.0", "5.4", "6.0.12-300.fc37.x86_64"].into_iter().all(is_too_old));
        assert!(!["6.1.0-18-amd64", "6.10.3", "10.0", "", "Linux", "6"].into_iter().any(is_too_old));
    }
}
