//! From an accepted socket to a connection, or to a refusal the client can read.

use std::net::SocketAddr;

use crate::http1::{self, Answering, Response};
use crate::io::{Close, Driver, Token};
use crate::limits::Tick;
use crate::metrics::{Cause, RejectReason};
use crate::routes::refusals;

use super::connection::{Connection, Http, Protocol};
use super::ending::LINGER_BYTES_MAX;
use super::{Core, Request};

/// Descriptors or memory have run out: how long accepting rests, in milliseconds. Long enough to cost nothing, short enough that
/// a freed descriptor is used within the second.
const ACCEPT_PAUSE_MS: u64 = 200;

/// What a worker knows of one of its listeners.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its address is a loopback address.
    pub loopback: bool,
    /// It is the admin listener.
    pub admin: bool,
}

/// What is known of a connection when it is accepted, and goes with it to the worker that adopts it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The peer.
    pub peer: SocketAddr,
    /// The listener's address is a loopback address.
    pub listener_is_loopback: bool,
    /// The listener is the admin listener.
    pub admin: bool,
    /// The peer's entry in the table of addresses.
    address: u32,
}

impl<D: Driver> Core<D> {
    /// Takes an accepted socket in, hands it to a worker with far fewer connections, or refuses it.
    pub(super) fn accepted(&mut self, driver: &mut D, socket: D::Socket, peer: SocketAddr, listener: usize) {
        let listener = self.listeners[listener];
        match self.admit(peer, listener.admin) {
            Ok(address) => {
                self.metrics().connections_accepted.add(1);
                let origin = Origin { peer, listener_is_loopback: listener.loopback, admin: listener.admin, address };
                self.place(driver, socket, origin);
            }
            Err(reason) => {
                self.metrics().connections_rejected.of(reason).add(1);
                self.refuse_socket(driver, socket, reason);
            }
        }
    }

    /// Tells a socket why it is refused, and drops what it sends for a while, so that it can read it. Only so many are waited for
    /// at a time; in a flood the others are told and closed at once.
    fn refuse_socket(&mut self, driver: &mut D, socket: D::Socket, reason: RejectReason) {
        let Ok(token) = driver.adopt(socket) else { return };
        self.hold(token, Connection::new(token, Protocol::Lingering(LINGER_BYTES_MAX), 0, 0));
        self.refused += 1;
        let response = self.refusal(reason);
        let date = self.date.at(self.wall_seconds);
        let answering = Answering { head_only: false, keep_alive: false, http11: true };
        let connection = &mut self.connections[token.slot as usize];
        connection.flags.set_refused(true);
        let (entries, store, pool) = (&mut self.entries, driver.store(), &mut self.pool);
        connection.outbox.append_owned(entries, store, pool, |out| response.write(date, answering, out));
        self.last_word(token.slot, Cause::Limit);
        if self.refused > REFUSED_MAX {
            self.flush_one(driver, token.slot);
            self.finish(driver.store(), token.slot, Cause::Limit, Close::InOrder);
        }
    }

    fn refusal(&self, reason: RejectReason) -> Response {
        match reason {
            RejectReason::PerIp => refusals::too_many_of_one_address(u64::from(self.options.connections_per_address_max)),
            RejectReason::AcceptRate => refusals::too_fast(self.options.accept_rate.unwrap_or_default()),
            RejectReason::MaxConnections | RejectReason::Descriptors => {
                refusals::too_many_connections(self.options.connections_max as u64)
            }
        }
    }

    /// Adopts the socket: here, or, where the kernel has spread connections unevenly, by the worker with the fewest.
    fn place(&mut self, driver: &mut D, socket: D::Socket, origin: Origin) {
        if self.options.rebalance && !origin.admin {
            let fewest = self.shared.fewest_connections();
            if fewest != self.index && self.shared.live(self.index) > self.shared.live(fewest) + REBALANCE_SKEW {
                match self.request(fewest, Request::Adopt { socket, origin }) {
                    Ok(()) => return,
                    Err(Request::Adopt { socket, origin }) => return self.adopt(driver, socket, origin),
                    Err(_) => unreachable!("a refused request comes back as it was"),
                }
            }
        }
        self.adopt(driver, socket, origin);
    }

    /// Makes a connection of a socket that this worker or another one has accepted.
    pub(super) fn adopt(&mut self, driver: &mut D, socket: D::Socket, origin: Origin) {
        let token = match driver.adopt(socket) {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(%error, "the kernel cannot watch one more socket");
                self.metrics().connections_rejected.of(RejectReason::Descriptors).add(1);
                self.leave(origin.admin, origin.address);
                return;
            }
        };
        self.insert(token, origin);
    }

    /// The listeners rest, because the process or the system has run out of descriptors, or may not accept.
    pub(super) fn accept_failed(&mut self, driver: &mut D, error: &std::io::Error) {
        if self.ended.may_warn(self.tick) {
            tracing::warn!(%error, "accepting rests for {ACCEPT_PAUSE_MS} ms; where descriptors have run out, raise their limit or lower --max-connections");
        }
        self.metrics().connections_rejected.of(RejectReason::Descriptors).add(1);
        driver.pause_accept();
        self.accept_again = Some(Tick::from_nanoseconds(self.now + ACCEPT_PAUSE_MS * 1_000_000));
    }

    /// Ends the rest of the listeners when its time has come.
    pub(super) fn resume_accept(&mut self, driver: &mut D) {
        if self.accept_again.is_some_and(|again| again <= self.tick) {
            self.accept_again = None;
            driver.resume_accept();
        }
    }

    /// Whether one more connection may come in; its entry in the table of addresses. The admin listener is exempt: an operator
    /// must get through when nobody else does.
    fn admit(&mut self, peer: SocketAddr, admin: bool) -> Result<u32, RejectReason> {
        if admin {
            return Ok(0);
        }
        let now = self.now;
        if self.accept_bucket.as_mut().is_some_and(|bucket| !bucket.take(now)) {
            return Err(RejectReason::AcceptRate);
        }
        if !self.shared.try_connect(self.options.connections_max) {
            return Err(RejectReason::MaxConnections);
        }
        self.shared.try_address(peer.ip(), self.options.connections_per_address_max).ok_or_else(|| {
            self.shared.disconnect();
            RejectReason::PerIp
        })
    }

    /// Uncounts a connection that was admitted.
    pub(super) fn leave(&self, admin: bool, address: u32) {
        if !admin {
            self.shared.disconnect();
            self.shared.leave_address(address);
        }
    }

    fn insert(&mut self, token: Token, origin: Origin) {
        let due = self.tick.after(self.options.head_timeout);
        let http = Http {
            parser: http1::Connection::new(),
            pending: None,
            admin: origin.admin,
            peer_is_loopback: origin.peer.ip().to_canonical().is_loopback(),
            listener_is_loopback: origin.listener_is_loopback,
            requests: 0,
            between_requests: false,
            due,
        };
        self.next_id = self.next_id.wrapping_add(1);
        self.hold(token, Connection::new(token, Protocol::Http(Box::new(http)), self.next_id, origin.address));
        self.connections[token.slot as usize].flags.set_admin(origin.admin);
        self.admins += usize::from(origin.admin);
        self.live += 1;
        self.shared.set_live(self.index, self.live);
        self.metrics().connections.of(self.connections[token.slot as usize].transport()).add(1);
        self.deadlines.set(token.slot as usize, due);
        tracing::debug!(worker = self.index, id = self.next_id, peer = %origin.peer, "connected");
    }

    /// Puts a connection into its slot.
    fn hold(&mut self, token: Token, connection: Connection) {
        let slot = token.slot as usize;
        while self.connections.len() <= slot {
            self.connections.push(Connection::vacant());
        }
        self.connections[slot] = connection;
        self.held += 1;
    }
}

/// Refused sockets of a worker that are waited for at a time; they take descriptors from the reserve beside `--max-connections`.
const REFUSED_MAX: usize = 16;

/// How many more connections than the emptiest worker a worker has before it hands new ones over: below it, evenness is not worth
/// a mailbox.
const REBALANCE_SKEW: usize = 16;
