//! What happens when time has passed.

use crate::frame::OpCode;
use crate::http1::HttpError;
use crate::io::{Close, Driver, Store};
use crate::limits::Tick;
use crate::metrics::Cause;
use crate::routes::refusals;
use crate::ws::Timeout;

use super::Core;
use super::connection::{Do, Protocol};

/// Slots looked at in one turn, 4 bytes each: some 10 microseconds.
const SLOTS_MAX: usize = 64 * 1024;

impl<D: Driver> Core<D> {
    /// Acts on every deadline that has passed. True if some slots were not looked at yet.
    pub(super) fn check_deadlines(&mut self, driver: &mut D) -> bool {
        let mut expired = std::mem::take(&mut self.expired);
        let mut unfinished = self.deadlines.poll(self.tick, SLOTS_MAX, &mut expired);
        for slot in expired.drain(..) {
            self.deadline_passed(driver.store(), slot);
        }
        unfinished |= self.write_windows.poll(self.tick, SLOTS_MAX, &mut expired);
        for slot in expired.drain(..) {
            self.window_ended(driver, slot);
        }
        self.expired = expired;
        if self.ended.due().is_some_and(|due| due <= self.tick) {
            self.ended.log(self.index);
        }
        unfinished
    }

    /// Sees to it that the connection's next deadline is kept. A later one than is set may stay: it is looked at and set anew.
    pub(super) fn arm(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.flags.gone() || connection.flags.close_when_flushed() || connection.flags.linger_when_flushed() {
            return;
        }
        let due = match &connection.protocol {
            Protocol::Http(http) => http.due,
            Protocol::Topics(websocket) | Protocol::Echo(websocket) => websocket.socket.poll_timeout(&self.options.ws),
            Protocol::Session(session) => session.socket.poll_timeout(&self.options.ws).min(session.ping_due),
            Protocol::Stream(stream) => stream.ping_due,
            Protocol::Lingering(_) | Protocol::Vacant => return,
        };
        if due < self.deadlines.due(slot as usize) {
            self.deadlines.set(slot as usize, due);
        }
    }

    fn deadline_passed(&mut self, store: &mut Store, slot: u32) {
        let tick = self.tick;
        let Some(connection) = self.connections.get_mut(slot as usize).filter(|connection| !connection.flags.gone()) else {
            return;
        };
        if connection.flags.close_when_flushed() || connection.flags.linger_when_flushed() {
            return self.reset(store, slot, Cause::StalledWrite);
        }
        match &mut connection.protocol {
            Protocol::Vacant => {}
            Protocol::Lingering(_) => self.finish_lingering(store, slot),
            Protocol::Http(http) if http.due > tick => self.arm(slot),
            Protocol::Http(_) => self.request_timed_out(store, slot),
            Protocol::Topics(_) | Protocol::Session(_) | Protocol::Echo(_) => self.websocket_timed_out(store, slot),
            Protocol::Stream(stream) if stream.ping_due > tick => self.arm(slot),
            Protocol::Stream(_) => self.ping_stream(store, slot),
        }
    }

    fn request_timed_out(&mut self, store: &mut Store, slot: u32) {
        if self.connections[slot as usize].flags.corked() {
            return self.refuse_upgrade(store, slot, refusals::busy(), Cause::Overloaded);
        }
        let unwritten = !self.connections[slot as usize].outbox.is_empty();
        let idle_due = self.tick.after(self.options.idle_timeout);
        let Some(http) = self.connections[slot as usize].http() else { return };
        if http.parser.is_idle() && http.pending.is_none() {
            if unwritten {
                // The last answer is still on its way; the write window sees to it that it moves.
                http.due = idle_due;
                return self.arm(slot);
            }
            // Nothing was asked, so nothing is answered: a client that sends its next request just now must see the close,
            // not take a 408 for the answer to it.
            return self.finish(store, slot, Cause::HandshakeTimeout, Close::InOrder);
        }
        let response = match http.pending.as_ref().map(|pending| &pending.action) {
            Some(Do::Publish(_)) => refusals::publish_timeout(),
            Some(Do::Asked) => refusals::unanswered(),
            Some(Do::Batch(_)) => return self.end_batch(store, slot),
            Some(Do::Inform(_) | Do::Presence | Do::Delete) => refusals::busy(),
            Some(Do::Poll) => return self.end_poll(store, slot),
            Some(Do::Public(_) | Do::Admin(_)) | None => {
                return self.refuse(store, slot, HttpError::Timeout.into_response(), Cause::HandshakeTimeout);
            }
        };
        let Some(pending) = self.connections[slot as usize].http().and_then(|http| http.take_pending()) else { return };
        let token = self.connections[slot as usize].token;
        self.answer(store, slot, response, &pending);
        self.resume_later(token);
    }

    fn websocket_timed_out(&mut self, store: &mut Store, slot: u32) {
        let Self { connections, options, tick, .. } = self;
        let connection = &mut connections[slot as usize];
        if connection.flags.paused() && !connection.flags.close_queued() {
            // It is not heard because it is not read. What it must do meanwhile is read, and the write window looks after that.
            return self.deadlines.set(slot as usize, self.tick.after(options.close_timeout));
        }
        let unwritten = !connection.outbox.is_empty();
        let ping_due = if let Protocol::Session(session) = &connection.protocol { session.ping_due } else { Tick::NEVER };
        let Some(socket) = connection.websocket() else { return };
        let timeout = socket.handle_timeout(&options.ws, *tick);
        // The ping of the WebSocket takes the visible one with it, if that is due soon.
        let soon = if timeout == Timeout::SendPing { options.ws.ping_interval / 2 } else { 0 };
        if ping_due <= tick.after(soon) {
            self.ping_session(store, slot);
        }
        match timeout {
            Timeout::None => {}
            Timeout::SendPing => {
                let Self { connections, entries, .. } = self;
                connections[slot as usize].outbox.push_control(entries, store, OpCode::Ping, &[0x89, 0]);
                self.mark_dirty(slot);
            }
            Timeout::NoPong => return self.reset(store, slot, Cause::NoPong),
            Timeout::MessageTimeout => return self.fail(store, slot, Cause::MessageTimeout, None),
            // The close frame has not left yet: what is queued before it still moves, or the write window ends it.
            Timeout::CloseTimeout if unwritten => {
                let tick = self.tick;
                if let Some(socket) = self.connections[slot as usize].websocket() {
                    socket.close_sent(tick);
                }
            }
            Timeout::CloseTimeout => return self.reset(store, slot, Cause::NoPong),
        }
        self.arm(slot);
    }
}
