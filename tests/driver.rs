//! Which driver the server runs on, and what it says where io_uring can't be had.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use support::scaled;
use support::server::{Launch, Run, binary, has_tool};

/// Forbids the system call of this number, as container runtimes do, and becomes the rest of its arguments.
const FORBIDDING: &str = r#"
import ctypes, os, struct, sys
LOAD_NUMBER, IF_EQUAL, RETURN, EPERM = (0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1])), 0x06, 1
program = [LOAD_NUMBER, IF_EQUAL, (RETURN, 0, 0, 0x00050000 | EPERM), (RETURN, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, ctypes.byref(header), 0, 0) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// io_uring_setup(2), io_uring_enter(2) and io_uring_register(2), whose numbers are those of every architecture.
const CALLS: [&str; 3] = ["425", "426", "427"];

const PYTHON: &str = "/usr/bin/python3";

/// A whole run of the server where one call of io_uring is forbidden.
fn run_without(call: &str, flags: &[&str]) -> Run {
    let mut command = Command::new(PYTHON);
    command.args(["-c", FORBIDDING, call, &binary()]);
    whole_run(command, flags)
}

/// A whole run of the server that `command` becomes with its arguments. What is tested ends it, or an address that is taken, which is
/// found after the driver was chosen.
fn whole_run(mut command: Command, flags: &[&str]) -> Run {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    command.args(["serve", "--listen", &address, "--admin", "off"]).args(flags);
    let output = command.stdin(Stdio::null()).output().expect("the server starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Run { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn each_driver_serves_and_is_named() {
    for io in ["epoll", "uring", "auto"] {
        if io == "uring" && !has_uring() {
            continue;
        }
        let server = Launch::new(&["--io", io]).start();
        let named = if io == "uring" || (io == "auto" && has_uring()) { "uring" } else { "epoll" };
        assert!(server.banner.contains(&format!("2 workers on {named}\n")), "{}", server.banner);
        assert_eq!(server.metrics().sum("fantail_build_info", &[("io", named)]), 1.0);
        assert_eq!(
            server.log().lines().filter(|line| line.contains("io_uring")).count(),
            usize::from(io == "auto" && !has_uring())
        );
        server.echo_ok();
    }
}

/// Whether this machine lets the server have io_uring; says so if not.
fn has_uring() -> bool {
    let tried = whole_run(Command::new(binary()), &["--io", "uring"]);
    assert_eq!(tried.status, Some(2), "{tried:?}");
    let has = tried.stderr.contains("address in use");
    if !has {
        println!("skipped: {}", tried.stderr.lines().next().unwrap_or_default());
    }
    has
}

/// What the kernel closes of a ring takes longer than the killed process lives, some 20 microseconds for each connection. The listeners
/// must not be among that: an address in use ends the next start.
#[test]
fn after_a_kill_the_address_is_free_however_many_were_connected() {
    for io in ["epoll", "uring"] {
        if io == "uring" && !has_uring() {
            continue;
        }
        let mut server = Launch::new(&["--io", io]).start();
        let addresses = [server.address, server.admin];
        let mut connections: Vec<_> = (0..scaled(4_000, 10_000)).map(|_| server.connect()).collect();
        assert_eq!(connections.iter_mut().last().expect("there are some").get("/healthz").status, 200);
        server.kill();
        server.wait();
        // Bound as the server does it, without the time that a start takes.
        let bound: Vec<_> = addresses.iter().map(TcpListener::bind).collect();
        assert!(bound.iter().all(Result::is_ok), "{io}: {bound:?}");
        drop((bound, connections));
        Launch::new(&["--io", io]).only(&addresses[..1]).start().echo_ok();
    }
}

#[test]
fn a_driver_that_cannot_be_had_is_said_with_its_reason() {
    if !has_tool(PYTHON) {
        return;
    }
    for call in CALLS {
        let refused = run_without(call, &["--io", "uring"]);
        assert_eq!(refused.status, Some(2), "{refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
        let lines: Vec<_> = refused.stderr.lines().collect();
        assert!(lines[0].starts_with("fantail: --io uring can't be had: ") && lines[0].contains("seccomp"), "{refused:?}");
        assert!(lines.len() == 2 && lines[1].starts_with("fix: ") && lines[1].contains("--io auto"), "{refused:?}");
    }
}

#[test]
fn auto_goes_on_with_epoll_and_says_why_once() {
    if !has_tool(PYTHON) {
        return;
    }
    for call in CALLS {
        // Nor is anything else said once for each driver that was tried.
        let nowhere = ["--pin-cores", "1000-1003"];
        let run = run_without(call, &[&["--io", "auto", "--workers", "4"], &nowhere[..]].concat());
        assert_went_on(&run, "seccomp");
        assert_eq!(run.stderr.matches("cannot be pinned").count(), 4, "{run:?}");
    }
}

/// 40 drivers on io_uring take 120 descriptors, on epoll 80.
#[test]
fn auto_goes_on_with_epoll_where_not_every_worker_can_have_io_uring() {
    if !has_uring() {
        return;
    }
    let mut few = Command::new("sh");
    few.args(["-c", r#"ulimit -n 110; exec "$0" "$@""#, &binary()]);
    assert_went_on(&whole_run(few, &["--io", "auto", "--workers", "40"]), "no descriptor left");
}

#[track_caller]
fn assert_went_on(run: &Run, why: &str) {
    assert_eq!(run.status, Some(2), "{run:?}");
    assert!(run.stderr.contains("address in use") && !run.stderr.contains("panicked"), "{run:?}");
    let said: Vec<_> = run.stderr.lines().filter(|line| line.contains("io_uring")).collect();
    assert!(said.len() == 1 && said[0].contains(why) && said[0].contains("epoll"), "{run:?}");
}
