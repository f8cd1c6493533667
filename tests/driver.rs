//! Which driver the server runs on, and what it says where io_uring can't be had.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use support::scaled;
use support::server::{Launch, Run, binary, has_tool, run};

/// Forbids io_uring_setup(2), number 425 on every architecture, as container runtimes do, and becomes the rest of its arguments.
const WITHOUT_URING: &str = r#"
import ctypes, os, struct, sys
LOAD_NUMBER, IF_EQUAL, RETURN, EPERM = (0x20, 0, 0, 0), (0x15, 0, 1, 425), 0x06, 1
program = [LOAD_NUMBER, IF_EQUAL, (RETURN, 0, 0, 0x00050000 | EPERM), (RETURN, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, ctypes.byref(header), 0, 0) == 0, "PR_SET_SECCOMP"
os.execv(sys.argv[1], sys.argv[1:])
"#;

const PYTHON: &str = "/usr/bin/python3";

/// A whole run of the server where io_uring is forbidden. It is ended by `--workers 257`, or by what is tested.
fn run_without_uring(flags: &[&str]) -> Run {
    let mut command = Command::new(PYTHON);
    command.args(["-c", WITHOUT_URING, &binary(), "serve", "--listen", "127.0.0.1:0", "--admin", "off"]).args(flags);
    let output = command.stdin(Stdio::null()).output().expect("python starts");
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
    // An address that is taken ends the run, after the driver was chosen.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let tried = run(&["serve", "--io", "uring", "--listen", &address, "--admin", "off"]);
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
    let refused = run_without_uring(&["--io", "uring"]);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(refused.stdout.is_empty(), "{refused:?}");
    let lines: Vec<_> = refused.stderr.lines().collect();
    assert!(lines[0].starts_with("fantail: --io uring can't be had: ") && lines[0].contains("seccomp"), "{refused:?}");
    assert!(lines.len() == 2 && lines[1].starts_with("fix: ") && lines[1].contains("--io auto"), "{refused:?}");
}

#[test]
fn auto_goes_on_with_epoll_and_says_why_once() {
    if !has_tool(PYTHON) {
        return;
    }
    // An address that is taken ends the run, after the driver was chosen.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let went_on = run_without_uring(&["--io", "auto", "--workers", "4", "--listen", &address]);
    assert_eq!(went_on.status, Some(2), "{went_on:?}");
    assert!(went_on.stderr.contains("address in use"), "{went_on:?}");
    let said: Vec<_> = went_on.stderr.lines().filter(|line| line.contains("io_uring")).collect();
    assert!(said.len() == 1 && said[0].contains("seccomp") && said[0].contains("epoll"), "{went_on:?}");
}
