//! The server as part of another program: built from a Config, on a free port, stopped by its owner.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fantail::server::ServeError;
use fantail::{Config, Server};
use support::figure;
use support::http::{ask, get, post};
use support::socket::{CLOSE, Socket, close_payload, frame};

fn config(listen: &[&str]) -> Config {
    let parsed = |text: &&str| text.parse().expect("an address");
    Config {
        listen: listen.iter().map(parsed).collect(),
        admin: "127.0.0.1:0".parse().expect("an address"),
        workers: "2".parse().expect("a number"),
        drain_window: "0s".parse().expect("a time"),
        ..Config::default()
    }
}

/// The address of a server that listens on one.
fn address(server: &Server) -> SocketAddr {
    let [address] = server.addresses() else { panic!("{:?}", server.addresses()) };
    *address
}

#[test]
fn a_server_serves_until_its_owner_stops_it() {
    let server = Server::start(&config(&["127.0.0.1:0"])).expect("a free port is free");
    assert_eq!(server.workers(), 2);
    let mut subscriber = Socket::open(address(&server), "/topics/chat");
    assert_eq!(ask(address(&server), post("/topics/chat", "", "hello")).status, 200);
    assert_eq!(subscriber.message(), "hello");
    let admin = server.admin_address().expect("it is on");
    assert_eq!(get(admin, "/readyz").status, 200);

    server.drain();
    assert_eq!(subscriber.close().code, Some(1001));
    subscriber.send(frame(CLOSE, close_payload(1001, "")));
    subscriber.wire.expect_end();
    let start = Instant::now();
    server.wait().expect("it stops in order");
    figure("stopped without connections", start.elapsed(), Duration::from_secs(1));
}

#[test]
fn port_0_is_resolved_for_each_address() {
    let server = Server::start(&config(&["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"])).expect("free ports are free");
    let addresses = server.addresses().to_vec();
    assert_eq!(addresses.len(), 3);
    assert_ne!(addresses[0], addresses[2]);
    assert!(addresses[1].is_ipv6(), "the order of the settings: {addresses:?}");
    for address in addresses {
        Socket::open(address, "/echo").echo("here");
    }
}

#[test]
fn a_taken_address_is_an_error_of_the_settings() {
    let first = Server::start(&config(&["127.0.0.1:0"])).expect("a free port is free");
    let error = Server::start(&config(&[&address(&first).to_string()])).expect_err("the address is taken");
    assert!(error.is_setting(), "{error}");
    assert!(
        matches!(&error, ServeError::Bind { flag: "--listen", address: taken, .. } if *taken == address(&first)),
        "{error:?}"
    );
    assert!(error.to_string().contains("address in use") && error.fix().is_some(), "{error}");
    let taken = first.admin_address().expect("it is on");
    let error = Server::start(&Config { admin: taken.to_string().parse().expect("an address"), ..config(&["127.0.0.1:0"]) });
    assert!(matches!(error, Err(ServeError::Bind { flag: "--admin", .. })), "{error:?}");
    // The first one is undisturbed.
    Socket::open(address(&first), "/echo").echo("still here");
}

#[test]
fn settings_that_contradict_each_other_are_refused_before_anything_is_bound() {
    let small = Config { outbox_size: "1KiB".parse().expect("a size"), ..config(&["127.0.0.1:0"]) };
    let error = Server::start(&small).expect_err("an outbox holds two messages");
    assert!(matches!(&error, ServeError::Config(_)) && error.is_setting(), "{error:?}");
    assert!(error.to_string().contains("--outbox-size"), "{error}");
}

#[test]
fn a_dropped_server_frees_its_address() {
    let server = Server::start(&config(&["127.0.0.1:0"])).expect("a free port is free");
    let (address, mut socket) = (address(&server), Socket::open(address(&server), "/echo"));
    socket.echo("here");
    drop(server);
    socket.wire.rest(support::PATIENCE);
    let again = Server::start(&config(&[&address.to_string()])).expect("the address is free again");
    Socket::open(address, "/echo").echo("here again");
    drop(again);
}
