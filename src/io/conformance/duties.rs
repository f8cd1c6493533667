//! The duties, each as a function of a driver that has two listeners.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::bench::{Bench, OPTIONS, PATIENCE, read_exactly, reset};
use crate::io::{Bell, Close, Event, Kernel, Progress, Segment};

/// Bytes that tell where they are.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

pub(super) fn what_a_peer_sends_is_received_in_order<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let bytes = pattern(300_000);
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || peer.write_all(&sent).map(|()| peer));
    bench.until_received(token, bytes.len());
    assert!(bench.told[&token].received == bytes);
    drop(writer.join());
}

pub(super) fn input_is_lent_mutable<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    bench.mask = Some(b'm');
    peer.write_all(b"clear").unwrap();
    bench.until_received(token, 5);
    assert_eq!(bench.told[&token].received, b"mmmmm");
}

pub(super) fn what_is_sent_arrives_in_order<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let bytes = pattern(2_000_000);
    let reader = std::thread::spawn(move || read_exactly(&mut peer, 2_000_000));
    bench.send_all(token, &bytes);
    assert!(reader.join().unwrap() == bytes);
}

pub(super) fn segments_leave_as_one_stream<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    // More than any driver offers in one call, for more sockets than a queue of messages holds.
    let blocks: Vec<_> = (0..100_u8).map(|at| bench.block(&[at, at, at])).collect();
    let segments: Vec<_> = blocks.iter().map(|block| Segment { block: *block, start: 1, end: 3 }).collect();
    let mut taken = 0;
    while taken < segments.len() * 2 {
        assert_eq!(taken % 2, 0, "a socket with room takes whole segments");
        let before = bench.told[&token].taken;
        bench.send(token, &segments[taken / 2..]).unwrap();
        bench.until("the send is done", |bench| !bench.told[&token].under_way || bench.told[&token].taken > before);
        bench.told.get_mut(&token).unwrap().under_way = false;
        taken = bench.told[&token].taken;
    }
    let expected: Vec<u8> = (0..100_u8).flat_map(|at| [at, at]).collect();
    assert_eq!(read_exactly(&mut peer, 200), expected);
    for block in blocks {
        bench.release(block);
    }
    assert_eq!(bench.driver.store().blocks(), 0);
}

pub(super) fn a_send_to_a_full_socket_goes_on_when_the_peer_reads<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let block = bench.fill(token);
    let taken = bench.told[&token].taken;
    assert!(taken > 0);
    read_exactly(&mut peer, taken);
    bench.until("the send goes on", |bench| !bench.told[&token].under_way);
    bench.release(block);
}

pub(super) fn a_block_is_held_until_the_kernel_has_taken_it<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    for count in [1, 3] {
        let blocks: Vec<_> = (0..count).map(|_| bench.block(&[b'x'; 1000])).collect();
        let segments: Vec<_> = blocks.iter().map(|block| Segment { block: *block, start: 0, end: 1000 }).collect();
        bench.send(token, &segments).unwrap();
        blocks.into_iter().for_each(|block| bench.release(block));
        // What the kernel has still to read stays. Memory that was freed would be read as what stands there then.
        assert_eq!(bench.driver.store().blocks(), count * usize::from(bench.told[&token].is_pinned));
        let taken_by_others = vec![vec![0; 1000]; count];
        bench.until("the send is done", |bench| !bench.told[&token].under_way);
        assert_eq!(read_exactly(&mut peer, count * 1000), vec![b'x'; count * 1000]);
        drop(std::hint::black_box(taken_by_others));
        assert_eq!(bench.driver.store().blocks(), 0);
    }
}

pub(super) fn push_tells_what_was_taken<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    assert_eq!(bench.driver.push(token), None, "nothing is pending");
    let block = bench.block(b"now");
    let sent = bench.driver.send(token, &[Segment { block, start: 0, end: 3 }]).unwrap();
    match sent {
        Progress::Sent(taken) => assert_eq!((taken, bench.driver.push(token)), (3, None)),
        Progress::Pending => assert_eq!(bench.driver.push(token), Some(3)),
    }
    assert_eq!(read_exactly(&mut peer, 3), b"now");
    // It was told: `take` would panic at a second word.
    bench.idle();
    bench.release(block);
}

pub(super) fn push_of_a_full_socket_tells_nothing<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let block = bench.fill(token);
    assert_eq!(bench.driver.push(token), None);
    read_exactly(&mut peer, bench.told[&token].taken);
    bench.until("the send goes on", |bench| !bench.told[&token].under_way);
    bench.release(block);
}

pub(super) fn what_was_sent_is_told_before_what_came<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    for round in 1..=20 {
        let block = bench.block(b"question");
        bench.send(token, &[Segment { block, start: 0, end: 8 }]).unwrap();
        let under_way = bench.told[&token].under_way;
        // The answer is there before the driver looks.
        let answer = std::thread::spawn(move || {
            let question = read_exactly(&mut peer, 8);
            peer.write_all(&question).unwrap();
            peer
        });
        bench.until_received(token, 8 * round);
        peer = answer.join().unwrap();
        assert!(!bench.told[&token].under_way);
        assert!(!under_way || bench.told[&token].received_when_taken == 8 * (round - 1), "the answer came first");
        bench.release(block);
    }
}

pub(super) fn nothing_comes_while_reading_is_paused<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let bytes = pattern(100);
    for part in bytes.chunks(10) {
        let before = bench.told[&token].received.len();
        bench.driver.pause_read(token);
        peer.write_all(part).unwrap();
        bench.idle();
        assert_eq!(bench.told[&token].received.len(), before);
        bench.driver.resume_read(token);
        bench.until_received(token, before + part.len());
    }
    assert_eq!(bench.told[&token].received, bytes);
}

pub(super) fn a_paused_socket_keeps_at_most_its_budget<D: Kernel>(mut bench: Bench<D>) {
    let (peer, token) = bench.pair();
    peer.set_nonblocking(true).unwrap();
    // A receive is under way when reading pauses.
    bench.turn(Duration::ZERO);
    bench.driver.pause_read(token);
    // As much as the kernel holds for a socket that is not read, and what the driver has taken off it.
    let mut sent = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        sent += (&peer).write(&pattern(64 * 1024)).unwrap_or_default();
        bench.turn(Duration::from_millis(1));
    }
    bench.driver.resume_read(token);
    let mut first = 0;
    while first == 0 {
        bench.driver.wait(Some(PATIENCE));
        while let Some(event) = bench.driver.poll() {
            bench.take(event);
        }
        first = bench.told[&token].received.len();
    }
    // What was kept, or else what a turn reads: epoll notices the end of a budget with the receive that passes it.
    assert!(first < OPTIONS.read_budget_bytes + OPTIONS.recv_buffer_bytes, "{first} bytes at once");
    assert!(bench.told[&token].piece <= OPTIONS.recv_buffer_bytes);
    bench.until_received(token, sent);
    assert_eq!(bench.told[&token].received.len(), sent);
}

pub(super) fn the_end_of_the_input_is_told_once_and_behind_its_bytes<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    peer.write_all(b"last words").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    bench.until("the end is told", |bench| bench.told[&token].ends > 0);
    assert_eq!(bench.told[&token].received, b"last words");
    bench.idle();
    assert_eq!(bench.told[&token].ends, 1);
    bench.send_all(token, b"heard");
    assert_eq!(read_exactly(&mut peer, 5), b"heard");
}

pub(super) fn the_end_of_the_input_is_not_told_again_with_other_news<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    peer.shutdown(Shutdown::Write).unwrap();
    bench.until("the end is told", |bench| bench.told[&token].ends > 0);
    let block = bench.fill(token);
    read_exactly(&mut peer, bench.told[&token].taken);
    bench.until("the send goes on", |bench| !bench.told[&token].under_way);
    bench.driver.shutdown_write(token);
    bench.idle();
    assert_eq!(bench.told[&token].ends, 1);
    bench.release(block);
}

pub(super) fn an_end_that_comes_while_paused_is_told_afterwards<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    bench.driver.pause_read(token);
    peer.write_all(&pattern(10_000)).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    bench.idle();
    assert_eq!((bench.told[&token].ends, bench.told[&token].received.len()), (0, 0));
    bench.driver.resume_read(token);
    bench.until("the end is told", |bench| bench.told[&token].ends == 1);
    assert_eq!(bench.told[&token].received, pattern(10_000));
}

pub(super) fn a_loud_peer_keeps_no_other_waiting<D: Kernel>(mut bench: Bench<D>) {
    let (mut loud, loud_token) = bench.pair();
    let (mut quiet, quiet_token) = bench.pair();
    let writer = std::thread::spawn(move || while loud.write_all(&[b'x'; 64 * 1024]).is_ok() {});
    bench.until_received(loud_token, 1_000_000);
    for round in 1..=20 {
        quiet.write_all(b"here").unwrap();
        let mut turns = 0;
        while bench.told[&quiet_token].received.len() < 4 * round {
            let so_far = bench.told[&loud_token].received.len();
            bench.turn(PATIENCE);
            let more = bench.told[&loud_token].received.len() - so_far;
            assert!(more <= OPTIONS.read_budget_bytes + OPTIONS.recv_buffer_bytes, "{more} bytes in one turn");
            // One in which it is heard of, one in which it is read where it was parked, and one to spare.
            turns += 1;
            assert!(turns <= 3, "the quiet one waits for {turns} turns of the loud one");
        }
    }
    bench.close(loud_token, Close::Reset);
    writer.join().unwrap();
}

pub(super) fn more_at_once_than_there_are_buffers_arrives_whole<D: Kernel>(mut bench: Bench<D>) {
    let mut pairs: Vec<_> = (0..4 * usize::from(OPTIONS.uring_buffers)).map(|_| bench.pair()).collect();
    bench.idle();
    for round in 1..=5 {
        for (peer, _) in &mut pairs {
            peer.write_all(b"all of us").unwrap();
        }
        for (_, token) in &pairs {
            bench.until_received(*token, 9 * round);
        }
    }
    assert!(pairs.iter().all(|(_, token)| bench.told[token].received == b"all of us".repeat(5)));
}

pub(super) fn a_reset_is_told<D: Kernel>(mut bench: Bench<D>) {
    let (peer, token) = bench.pair();
    bench.idle();
    reset(peer);
    bench.until("the reset is told", |bench| !bench.told[&token].failures.is_empty());
    assert_eq!(bench.told[&token].failures[0].kind(), ErrorKind::ConnectionReset);
    bench.close(token, Close::InOrder);
}

pub(super) fn a_send_to_a_broken_connection_fails<D: Kernel>(mut bench: Bench<D>) {
    let (peer, token) = bench.pair();
    bench.driver.pause_read(token);
    reset(peer);
    std::thread::sleep(Duration::from_millis(20));
    let block = bench.block(b"too late");
    let start = Instant::now();
    while bench.send(token, &[Segment { block, start: 0, end: 8 }]).is_ok() {
        bench.until("the send is done", |bench| !bench.told[&token].under_way || !bench.told[&token].failures.is_empty());
        assert!(start.elapsed() < PATIENCE, "sends to nobody succeed");
    }
    bench.release(block);
    bench.close(token, Close::InOrder);
    assert_eq!(bench.driver.store().blocks(), 0);
}

pub(super) fn after_shutdown_the_peer_sees_the_end_and_is_heard<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    bench.send_all(token, b"bye");
    bench.driver.shutdown_write(token);
    bench.turn(Duration::ZERO);
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    peer.write_all(b"good-bye").unwrap();
    bench.until_received(token, 8);
}

pub(super) fn after_close_one_event_comes<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    peer.write_all(&pattern(10_000)).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    // Input is under way when the close comes: `living` and `take` panic at any word behind it.
    bench.driver.wait(Some(PATIENCE));
    bench.driver.close(token, Close::InOrder);
    while let Some(event) = bench.driver.poll() {
        assert!(!matches!(event, Event::Received(..) | Event::EndOfStream(_)), "{event:?}");
        bench.take(event);
    }
    bench.until("the close is told", |bench| bench.told[&token].closed == 1);
    bench.driver.close(token, Close::InOrder);
    bench.driver.pause_read(token);
    bench.driver.resume_read(token);
    bench.idle();
    assert_eq!(bench.told[&token].closed, 1);
}

pub(super) fn a_close_ends_a_send_under_way<D: Kernel>(mut bench: Bench<D>) {
    let (peer, token) = bench.pair();
    let block = bench.fill(token);
    bench.release(block);
    let start = Instant::now();
    bench.close(token, Close::Reset);
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(bench.driver.store().blocks(), 0);
    drop(peer);
}

pub(super) fn a_close_in_order_delivers_what_was_taken<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    let bytes = pattern(100_000);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|_| all)
    });
    bench.send_all(token, &bytes);
    bench.close(token, Close::InOrder);
    assert!(reader.join().unwrap().expect("no reset") == bytes);
}

pub(super) fn a_close_by_reset_resets<D: Kernel>(mut bench: Bench<D>) {
    let (mut peer, token) = bench.pair();
    bench.idle();
    bench.close(token, Close::Reset);
    assert_eq!(peer.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

pub(super) fn slots_are_used_again_and_hear_nothing_old<D: Kernel>(mut bench: Bench<D>) {
    let mut slots = 0;
    for round in 0..100_u32 {
        let (mut peer, token) = bench.pair();
        slots = slots.max(token.slot);
        let greeting = round.to_ne_bytes();
        peer.write_all(&greeting).unwrap();
        if round % 3 > 0 {
            bench.until_received(token, 4);
            assert_eq!(bench.told[&token].received, greeting);
        }
        if round % 3 == 1 {
            let block = bench.block(b"reply");
            bench.send(token, &[Segment { block, start: 0, end: 5 }]).unwrap();
            bench.release(block);
        }
        bench.driver.close(token, if round % 2 == 0 { Close::Reset } else { Close::InOrder });
        if round % 5 == 0 {
            bench.until("the close is told", |bench| bench.told[&token].closed == 1);
        }
    }
    bench.until("all closes are told", |bench| bench.told.values().all(|told| told.closed == 1));
    assert!(slots < 20, "{slots} slots for one connection at a time");
    assert_eq!(bench.driver.store().blocks(), 0);
}

pub(super) fn the_bell_ends_the_wait<D: Kernel>(mut bench: Bench<D>) {
    let bell = bench.driver.bell();
    for _ in 0..3 {
        bench.turn(Duration::ZERO);
        let (bell, start) = (bell.clone(), Instant::now());
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            bell.ring();
        });
        while start.elapsed() < Duration::from_millis(15) {
            bench.driver.wait(Some(PATIENCE));
        }
        assert!(start.elapsed() < PATIENCE / 2, "the bell was not heard");
        ringer.join().unwrap();
    }
}

pub(super) fn the_wait_ends_in_time<D: Kernel>(mut bench: Bench<D>) {
    bench.idle();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(30) {
        bench.driver.wait(Some(Duration::from_millis(30)));
    }
    assert!(start.elapsed() < PATIENCE / 2);
    let start = Instant::now();
    bench.driver.wait(Some(Duration::ZERO));
    assert!(start.elapsed() < PATIENCE / 2);
}

pub(super) fn a_dropped_driver_leaves_nothing_open<D: Kernel>(mut bench: Bench<D>) {
    let (idle, _) = bench.pair();
    let (full, token) = bench.pair();
    bench.fill(token);
    let waiting = bench.peer();
    let address = bench.addresses[0];
    drop(bench);
    for (which, mut peer) in [("idle", idle), ("full", full), ("waiting", waiting)] {
        // The end or a reset, behind what was sent; a connection that lives on has the read time out.
        let ended = peer.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "the {which} connection lives on: {ended:?}");
    }
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "the listener lives on");
}
