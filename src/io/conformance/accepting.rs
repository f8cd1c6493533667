//! The duties that are about listeners, each as a function of a driver that has two.

use std::collections::HashSet;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::bench::{Bench, OPTIONS, PATIENCE, read_exactly};
use crate::io::Kernel;

pub(super) fn connections_come_from_every_listener<D: Kernel>(mut bench: Bench<D>) {
    let peers: Vec<_> = bench.addresses.iter().map(|address| TcpStream::connect(address).unwrap()).collect();
    bench.until("both are accepted", |bench| bench.accepted.len() == 2);
    for (at, peer) in peers.iter().enumerate() {
        let address = peer.local_addr().unwrap();
        assert!(bench.accepted.iter().any(|(_, known, listener)| *known == address && *listener == at));
    }
}

pub(super) fn no_more_are_accepted_in_a_turn_than_the_batch<D: Kernel>(mut bench: Bench<D>) {
    bench.turn(Duration::ZERO);
    let peers: Vec<_> = (0..4 * OPTIONS.accept_batch).map(|_| bench.peer()).collect();
    let start = Instant::now();
    while bench.accepted.len() < peers.len() {
        let before = bench.accepted.len();
        bench.turn(Duration::from_millis(5));
        assert!(bench.accepted.len() - before <= OPTIONS.accept_batch);
        assert!(start.elapsed() < PATIENCE);
    }
}

pub(super) fn a_crowd_at_one_listener_keeps_no_other_waiting_and_is_not_held<D: Kernel>(mut bench: Bench<D>) {
    bench.turn(Duration::ZERO);
    let crowd: Vec<_> = (0..10 * OPTIONS.accept_batch).map(|_| bench.peer()).collect();
    let _other = TcpStream::connect(bench.addresses[1]).unwrap();
    bench.until("the first are accepted", |bench| !bench.accepted.is_empty());
    assert!(bench.accepted.iter().any(|(_, _, listener)| *listener == 1), "the other waits for the crowd");
    while bench.accepted.len() < crowd.len() + 1 {
        let before = bench.accepted.len();
        let held = accepted_on(bench.addresses[0]);
        assert!(held <= before + OPTIONS.accept_batch, "{held} descriptors, and {before} connections told");
        bench.turn(PATIENCE);
        assert!(bench.accepted.len() > before);
    }
}

/// Descriptors of connections of a listener: those still in the kernel's queue have no inode. By their peers, because a table that changes
/// while it is read may have a line twice.
fn accepted_on(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("the kernel lists its connections");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let held = lines.filter(|columns| columns[1].ends_with(&port) && columns[3] == "01" && columns[9] != "0");
    held.map(|columns| columns[2]).collect::<HashSet<_>>().len()
}

pub(super) fn while_accepting_is_paused_nobody_new_is_told<D: Kernel>(mut bench: Bench<D>) {
    bench.turn(Duration::ZERO);
    bench.driver.pause_accept();
    bench.idle();
    let _peers: Vec<_> = (0..2).map(|_| bench.peer()).collect();
    bench.idle();
    assert_eq!(bench.accepted.len(), 0);
    bench.driver.resume_accept();
    bench.until("who waited is accepted", |bench| bench.accepted.len() == 2);
}

pub(super) fn closing_listeners_take_in_who_is_queued<D: Kernel>(mut bench: Bench<D>) {
    let peers: Vec<_> = (0..10).map(|_| bench.peer()).collect();
    bench.driver.close_listeners(None);
    bench.until("the listeners are closed", |bench| bench.listeners_closed);
    assert_eq!(bench.accepted.len(), peers.len());
    for address in bench.addresses.clone() {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

pub(super) fn the_listener_to_keep_is_kept<D: Kernel>(mut bench: Bench<D>) {
    bench.turn(Duration::ZERO);
    bench.driver.close_listeners(Some(1));
    bench.until("the listeners are closed", |bench| bench.listeners_closed);
    assert_eq!(TcpStream::connect(bench.addresses[0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let _peer = TcpStream::connect(bench.addresses[1]).unwrap();
    bench.until("it accepts", |bench| bench.accepted.len() == 1);
    assert_eq!(bench.accepted[0].2, 1);
}

pub(super) fn another_driver_can_adopt_what_one_accepted<D: Kernel>(mut bench: Bench<D>) {
    let mut other = bench.another();
    let mut peer = bench.peer();
    bench.until("it is accepted", |bench| bench.accepted.len() == 1);
    let (socket, ..) = bench.accepted.remove(0);
    let token = other.adopt(socket);
    drop(bench);
    peer.write_all(b"hello").unwrap();
    other.until_received(token, 5);
    other.send_all(token, b"there");
    assert_eq!(read_exactly(&mut peer, 5), b"there");
}
