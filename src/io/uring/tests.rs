//! What this driver does beyond the duties of all: parking, pausing, waiting for buffers and memory, and how it ends.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::ring::Ring;
use super::socket::{Input, Output};
use super::{ENTRIES_MAX, RETRIES_MAX, RETRY, Uring};
use crate::frame::{Epoch, Form, Forms, Kind, Payload, Position, Publication, Topic};
use crate::io::conformance::can_be_had;
use crate::io::{Close, Driver, Event, Kernel, Options, Segment, Token};
use crate::limits::BufferPool;
use crate::metrics::Trouble;

const OPTIONS: Options = Options {
    accept_batch: 1,
    read_budget_bytes: 4096,
    recv_buffer_bytes: 4096,
    uring_entries: 64,
    uring_buffers: 8,
    uring_buffer_bytes: 512,
};
const PATIENCE: Duration = Duration::from_secs(10);

/// `None`, and a word, where this machine has no io_uring and it was not asked for.
fn driver() -> Option<Uring> {
    can_be_had(&OPTIONS).then(|| Uring::new(OPTIONS, Instant::now()).expect("there was one just now"))
}

fn pair(driver: &mut Uring) -> (UnixStream, Token) {
    let (peer, socket) = UnixStream::pair().expect("there are descriptors");
    (peer, driver.adopt(socket.into()).expect("there is room"))
}

/// Turns until `condition` holds; the bytes received meanwhile.
#[track_caller]
fn until(driver: &mut Uring, condition: impl Fn(&mut Uring, usize) -> bool) -> usize {
    let (start, mut received) = (Instant::now(), 0);
    while !condition(driver, received) {
        assert!(start.elapsed() < PATIENCE);
        driver.wait(Some(Duration::from_millis(5)));
        while let Some(event) = driver.poll() {
            if let Event::Received(_, bytes) = event {
                received += bytes.len();
            }
        }
    }
    received
}

fn input(driver: &mut Uring, token: Token) -> Option<Input> {
    driver.socket(token).map(|socket| socket.input)
}

#[test]
fn a_quiet_socket_is_parked_and_heard_again() {
    let Some(mut driver) = driver() else { return };
    let (mut peer, token) = pair(&mut driver);
    for _ in 0..3 {
        until(&mut driver, |driver, _| input(driver, token) == Some(Input::Watch));
        peer.write_all(b"awake").unwrap();
        until(&mut driver, |_, received| received == 5);
        assert_eq!(input(&mut driver, token), Some(Input::Receive));
    }
    until(&mut driver, |driver, _| input(driver, token) == Some(Input::Watch));
    driver.close(token, Close::InOrder);
    until(&mut driver, |driver, _| driver.sockets.is_empty());
}

#[test]
fn a_pause_ends_the_receive_and_what_comes_stays_with_the_kernel() {
    let Some(mut driver) = driver() else { return };
    let (mut peer, token) = pair(&mut driver);
    until(&mut driver, |driver, _| input(driver, token) == Some(Input::Receive));
    driver.pause_read(token);
    driver.wait(Some(Duration::ZERO));
    peer.write_all(&[7; 3000]).unwrap();
    until(&mut driver, |driver, received| {
        assert_eq!(received, 0);
        input(driver, token) == Some(Input::Idle)
    });
    assert_eq!((driver.kept_bytes, driver.buffer_bytes()), (0, driver.buffers.size_bytes()));
    driver.resume_read(token);
    until(&mut driver, |_, received| received == 3000);
}

#[test]
fn what_came_before_a_pause_is_kept_and_counted() {
    let Some(mut driver) = driver() else { return };
    let mut pairs: Vec<_> = (0..2).map(|_| pair(&mut driver)).collect();
    pairs.iter_mut().for_each(|(peer, _)| peer.write_all(&[7; 3000]).unwrap());
    driver.wait(Some(PATIENCE));
    pairs.iter().for_each(|(_, token)| driver.pause_read(*token));
    assert!(driver.poll().is_none());
    let kept = driver.kept_bytes;
    assert!((1..=2 * 3000).contains(&kept), "{kept}");
    assert_eq!(driver.buffer_bytes(), driver.buffers.size_bytes() + kept);
    // One is read again, the other closed.
    driver.resume_read(pairs[0].1);
    driver.close(pairs[1].1, Close::InOrder);
    until(&mut driver, |driver, received| received == 3000 && driver.sockets.len() == 1);
    assert_eq!(driver.kept_bytes, 0);
}

#[test]
fn more_sockets_than_buffers_wait_for_one_and_are_counted() {
    let Some(mut driver) = driver() else { return };
    let mut pairs: Vec<_> = (0..100).map(|_| pair(&mut driver)).collect();
    driver.wait(Some(Duration::ZERO));
    pairs.iter_mut().for_each(|(peer, _)| peer.write_all(&[7; 300]).unwrap());
    until(&mut driver, |_, received| received == 100 * 300);
    assert!(driver.troubles(Trouble::BuffersExhausted) > 0);
    assert_eq!(driver.buffers.count(), 8);
}

/// A send that the kernel has not heard of yet, of a frame whose references tell who holds its bytes.
fn send_under_way(driver: &mut Uring) -> (UnixStream, Arc<Publication>) {
    let (peer, token) = pair(driver);
    let position = Position { epoch: Epoch::from_random(1), offset: 1 };
    let payload = Payload::new(Kind::Text, b"x").unwrap();
    let forms = Forms::NONE.with(Form::WsRaw);
    let frame = Arc::new(Publication::new(Topic::new("chat").unwrap(), position, 0, 0, payload, forms));
    let block = driver.store().share(&frame, Form::WsRaw);
    driver.send(token, &[Segment { block, start: 0, end: 3 }]).unwrap();
    driver.store().release(block, &mut BufferPool::new(0));
    (peer, frame)
}

/// Sends until the socket has no room.
fn fill(driver: &mut Uring, token: Token) {
    let block = driver.store().own(vec![b'x'; 1024 * 1024]);
    while driver.socket(token).unwrap().output == Output::Idle {
        driver.send(token, &[Segment { block, start: 0, end: 1024 * 1024 }]).unwrap();
        driver.wait(Some(Duration::ZERO));
        while driver.poll().is_some() {}
    }
}

#[test]
fn a_push_that_can_bring_nothing_is_no_system_call() {
    let Some(mut driver) = driver() else { return };
    let (_peer, token) = pair(&mut driver);
    fill(&mut driver, token);
    driver.wait(Some(Duration::ZERO));
    assert_eq!(driver.socket(token).unwrap().output, Output::Full);
    driver.ring.refusals = vec![Errno::IO];
    assert_eq!(driver.push(token), None);
    assert_eq!(driver.ring.refusals.len(), 1, "a call was made");
    driver.ring.refusals.clear();
}

#[test]
fn a_send_without_room_where_a_poll_has_just_found_some_waits_a_moment() {
    let Some(mut driver) = driver() else { return };
    let (_peer, token) = pair(&mut driver);
    for expected in [Output::Full, Output::Resting] {
        // As the kernel answers where it has no memory for TCP.
        driver.send_completed(token, -Errno::AGAIN.raw_os_error());
        assert_eq!(driver.socket(token).unwrap().output, expected);
        until(&mut driver, |driver, _| driver.socket(token).unwrap().output == Output::Idle);
    }
    assert_eq!(driver.troubles(Trouble::SendRetried), 1);
}

#[test]
fn a_crowd_that_has_shut_its_side_is_asked_for_room_some_at_a_time() {
    let Some(mut driver) = driver() else { return };
    let mut pairs: Vec<_> = (0..3 * RETRIES_MAX).map(|_| pair(&mut driver)).collect();
    for (peer, token) in &pairs {
        peer.shutdown(Shutdown::Write).unwrap();
        fill(&mut driver, *token);
    }
    let asked =
        |driver: &mut Uring| pairs.iter().filter(|(_, token)| driver.socket(*token).unwrap().output == Output::Full).count();
    until(&mut driver, |driver, _| asked(driver) == 0);
    std::thread::sleep(RETRY);
    driver.retry();
    assert_eq!(asked(&mut driver), RETRIES_MAX);
    for (peer, token) in &mut pairs {
        peer.set_nonblocking(true).unwrap();
        while peer.read(&mut [0; 4096]).is_ok() {}
        until(&mut driver, |driver, _| driver.socket(*token).unwrap().output == Output::Idle);
    }
}

#[test]
fn a_peer_that_has_shut_its_side_is_asked_for_room_now_and_then() {
    let Some(mut driver) = driver() else { return };
    let (mut peer, token) = pair(&mut driver);
    peer.shutdown(Shutdown::Write).unwrap();
    fill(&mut driver, token);
    until(&mut driver, |driver, _| driver.socket(token).unwrap().output == Output::Resting);
    let (start, mut turns) = (Instant::now(), 0);
    while start.elapsed() < 10 * RETRY {
        driver.wait(Some(PATIENCE));
        assert!(driver.poll().is_none(), "there is no room");
        turns += 1;
    }
    // For each time one turn in which it is asked and one that ends in time, and twice as many to spare.
    assert!(turns <= 40, "{turns} turns in {:?}", start.elapsed());
    peer.set_nonblocking(true).unwrap();
    while peer.read(&mut [0; 4096]).is_ok() {}
    until(&mut driver, |driver, _| driver.socket(token).unwrap().output == Output::Idle);
    // It is closed while it rests.
    fill(&mut driver, token);
    until(&mut driver, |driver, _| driver.socket(token).unwrap().output == Output::Resting);
    driver.close(token, Close::InOrder);
    until(&mut driver, |driver, _| driver.sockets.is_empty());
}

#[test]
fn a_driver_that_is_dropped_frees_what_the_kernel_has_let_go_of() {
    let Some(mut driver) = driver() else { return };
    let (_peer, frame) = send_under_way(&mut driver);
    assert_eq!(Arc::strong_count(&frame), 2);
    drop(driver);
    assert_eq!(Arc::strong_count(&frame), 1);
}

#[test]
fn a_driver_whose_ring_fails_leaves_its_memory_to_the_kernel() {
    let Some(mut driver) = driver() else { return };
    let (_peer, frame) = send_under_way(&mut driver);
    driver.ring.refusals = vec![Errno::IO; 8];
    drop(driver);
    assert_eq!(Arc::strong_count(&frame), 2, "the kernel may read it still");
}

#[test]
fn a_panic_ends_the_operations_of_its_driver_too() {
    // The ring fails once and has the worker panic, or it fails for good.
    for (failures, references) in [(1, 1), (8, 2)] {
        let Some(mut driver) = driver() else { return };
        let (_peer, frame) = send_under_way(&mut driver);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut driver = driver;
            driver.ring.refusals = vec![Errno::IO; failures];
            driver.wait(Some(Duration::from_millis(1)));
        }));
        assert!(ended.is_err());
        assert_eq!(Arc::strong_count(&frame), references, "{failures} failures");
    }
}

#[test]
fn a_wait_brings_all_that_the_kernel_has() {
    let Some(mut driver) = driver() else { return };
    let mut pairs: Vec<_> = (0..200).map(|_| pair(&mut driver)).collect();
    until(&mut driver, |driver, _| pairs.iter().all(|(_, token)| input(driver, *token) == Some(Input::Watch)));
    for timeout in [Duration::ZERO, PATIENCE] {
        pairs.iter_mut().for_each(|(peer, _)| peer.write_all(b"!").unwrap());
        driver.wait(Some(timeout));
        let parked = pairs.iter().filter(|(_, token)| input(&mut driver, *token) == Some(Input::Watch)).count();
        assert_eq!(parked, 0, "they were heard of at once");
        until(&mut driver, |driver, _| pairs.iter().all(|(_, token)| input(driver, *token) == Some(Input::Watch)));
    }
}

#[test]
fn a_kernel_without_memory_for_the_moment_is_asked_again() {
    let Some(mut driver) = driver() else { return };
    let mut pairs: Vec<_> = (0..2 * OPTIONS.uring_entries).map(|_| pair(&mut driver)).collect();
    // Longer than a turn: the queue is full, and there is no way but to wait.
    driver.ring.refusals = vec![Errno::AGAIN; 11_000];
    driver.wait(Some(Duration::ZERO));
    assert_eq!(driver.troubles(Trouble::OperationsRefused), 11_000);
    pairs.iter_mut().for_each(|(peer, _)| peer.write_all(b"!").unwrap());
    until(&mut driver, |_, received| received == pairs.len());
}

#[test]
fn lost_completions_end_the_process_with_words() {
    let Some(mut driver) = driver() else { return };
    driver.ring.refusals = vec![Errno::BADR];
    let ended = catch_unwind(AssertUnwindSafe(|| driver.wait(Some(Duration::ZERO)))).expect_err("nobody can know which");
    let said = ended.downcast_ref::<&str>().expect("a panic has words");
    assert!(said.contains("no memory for completions") && said.contains("--uring-entries"), "{said}");
}

#[test]
fn the_largest_ring_has_room_for_its_completions() {
    if driver().is_none() {
        return;
    }
    for entries in [64, ENTRIES_MAX] {
        let ring = Ring::new(entries).expect("the kernel has rings of this size");
        assert!(ring.uring().params().cq_entries() >= 4 * ring.uring().params().sq_entries());
    }
    assert!(Ring::new(2 * ENTRIES_MAX).is_err(), "the bound is the kernel's");
}

#[test]
fn loud_sockets_share_too_few_buffers_evenly() {
    for once in [false, true] {
        let Some(mut driver) = driver() else { return };
        if once {
            driver.receive_once();
        }
        let mut pairs: Vec<_> = (0..5 * driver.buffers.count()).map(|_| pair(&mut driver)).collect();
        pairs.iter_mut().for_each(|(peer, _)| peer.write_all(&[7; 64 * 1024]).unwrap());
        let mut received: HashMap<_, usize> = pairs.iter().map(|(_, token)| (*token, 0)).collect();
        // At most 64 KiB of each: nobody's input ends meanwhile.
        for _ in 0..100 {
            driver.wait(Some(Duration::ZERO));
            while let Some(event) = driver.poll() {
                let Event::Received(token, bytes) = event else { continue };
                *received.entry(token).or_default() += bytes.len();
            }
        }
        let (least, most) = (received.values().min().unwrap(), received.values().max().unwrap());
        assert!(*least > 0 && 2 * least >= *most, "once: {once}, {least} to {most} bytes");
    }
}

#[test]
fn dropping_ends_every_operation() {
    let Some(mut driver) = driver() else { return };
    let (mut peer, _) = pair(&mut driver);
    driver.wait(Some(Duration::ZERO));
    assert!(driver.ring.under_way() > 0, "a receive and the bell's poll");
    drop(driver);
    assert!(peer.write_all(b"anybody?").is_err(), "the socket is still open");
}
