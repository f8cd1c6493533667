//! `connect`: connections a second, each opened, upgraded, checked and closed again.
//!
//! A closed loop: `--concurrency` slots, each of which opens the next connection when its last has gone. Its latencies are
//! service times of a server that sets the pace itself; they say nothing of what waits in front of a server that can't keep up.
//! With `--rate` an open loop: connections are due at fixed times, and latency counts from when they were due. With `--idle` other
//! connections are there meanwhile, and with `--idle-rate` they get messages.

use clap::{Args, ValueEnum};
use fantail::frame::OpCode;

use crate::client::Purpose;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::feed::{Feed, Pace, Through};
use crate::histogram::Histogram;
use crate::kernel::TcpCounters;
use crate::net::{Net, Times};
use crate::payload::{Payload, Stamp};
use crate::report::{Report, late};
use crate::schedule::Schedule;
use crate::stage::Stage;
use crate::target::Target;
use crate::traffic::Traffic;

use super::common::{CLOSED_LOOP, Common, Measure, PUBLISHER_GONE, rate_parameter, tell_left_out};
use super::crowd::Crowd;
use super::failures::Failures;
use super::fanout::TOPIC;
use super::gather::gather;

/// Bytes of a message: of the first echo, and of what idle connections get.
const MESSAGE_BYTES: usize = 64;

/// So many refusals before anything was opened say that nothing will be.
const REFUSALS_MAX: u64 = 100;

/// Flags of `connect`.
#[derive(Args, Debug)]
#[command(mut_arg("url", super::common::websocket_only), mut_arg("sub", |arg| arg.hide(true)))]
pub struct Connect {
    #[command(flatten)]
    common: Common,
    /// How many connections are under way at a time; with --rate, at most [default: 16, with --rate 4096]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// Connections a second, at fixed times: the open loop
    #[arg(long, value_name = "PER_SECOND", value_parser = super::parse_rate)]
    rate: Option<f64>,
    /// How a connection ends once its 101 was checked
    #[arg(long, value_enum, default_value_t = Close::Rst)]
    close: Close,
    /// Send a message first and wait for its echo
    #[arg(long)]
    first_echo: bool,
    /// How many other connections are open meanwhile
    #[arg(long, default_value_t = 0, value_name = "N")]
    idle: u32,
    /// Where those connect to; the same URL where not given
    #[arg(long, value_name = "URL", requires = "idle")]
    idle_url: Option<String>,
    /// How many messages a second each of them gets; the first of them publishes
    #[arg(long, value_name = "PER_SECOND", value_parser = super::parse_rate, requires = "idle")]
    idle_rate: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Close {
    /// With RST at once: no port stays in TIME_WAIT, so any number can follow
    Rst,
    /// With a close frame; when it is answered the client ends TCP
    Client,
    /// With a close frame; it is answered and the server ends TCP, as RFC 6455 section 7.1.1 asks of it
    Server,
}

struct Slots {
    close: Close,
    concurrency: usize,
    schedule: Option<Schedule>,
    /// Connections begun.
    begun: u64,
    /// Whether the 101 of any was right.
    is_served: bool,
    /// Connections under way, closing ones included.
    under_way: usize,
    /// When something was last due though no slot was vacant.
    was_full_at: Nanos,
    /// How many were opened late because no slot was vacant: the server's doing, not the tool's.
    slots_full: u64,
    /// How many were due and not begun when `--timeout` was over after the end.
    never_opened: u64,
    slots: Vec<Slot>,
    first_echo: Option<Payload>,
    stage: Stage,
    idle: Option<Crowd>,
    /// What the others were to get has come.
    idle_is_over: bool,
    done: u64,
    tcp: Histogram,
    upgrade: Histogram,
    echo: Histogram,
    whole: Histogram,
    lateness: Histogram,
    failures: Failures,
    wrong_echoes: u64,
}

/// One connection.
#[derive(Clone, Copy)]
struct Slot {
    due: Nanos,
    /// When its message left.
    asked_at: Nanos,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    /// Waiting for the first echo.
    Asked,
    /// Done; waiting for the end that was asked for.
    Closing,
}

impl Measure for Connect {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let concurrency = self.concurrency.unwrap_or(if self.rate.is_some() { 4096 } else { 16 }) as usize;
        let mut engine = self.common.prepare_websocket(concurrency * 2 + self.idle as usize)?;
        let idle = self.idle_crowd(&mut engine)?;
        let Some(idle) = idle else { return Ok(vec![Report::cut_short("connect", "connection")]) };
        let mut slots = Slots::new(self, concurrency, idle, clock::now());
        let before = TcpCounters::read();
        let interrupted = engine.run(&mut slots)?;
        let by_kernel = TcpCounters::read().zip(before).map(|(now, before)| now.since(before));
        slots.stage.finish(&engine.net, slots.done);
        // What was answered by silence is a finding about the server, and told in a report.
        if !slots.is_served
            && slots.failures.timed_out() == 0
            && let Some(first) = slots.failures.first()
        {
            return Err(Failure::Usage(format!("{}: no connection was opened: {first}", engine.net.target(0).address)));
        }
        self.report(slots, by_kernel, interrupted).map(|report| vec![report])
    }
}

impl Connect {
    /// The other connections, if there are to be any; None after Ctrl-C.
    fn idle_crowd(&self, engine: &mut Engine) -> Result<Option<Option<Crowd>>, Failure> {
        if self.idle == 0 {
            return Ok(Some(None));
        }
        let target = match &self.idle_url {
            Some(url) => {
                let target = Target::resolve(url, None, 1)?;
                if !target.is_websocket() {
                    return Err(Failure::Usage(format!("--idle-url {url}: this command speaks WebSocket only")));
                }
                engine.net.add_target(target)
            }
            None => 0,
        };
        let mut traffic = Traffic::new(1, MESSAGE_BYTES, fastrand::u64(..), clock::now());
        let Some(ids) = gather(engine, target, &vec![Purpose::Subscribe(TOPIC); self.idle as usize])? else { return Ok(None) };
        ids.into_iter().for_each(|id| traffic.subscribe(id, TOPIC));
        let start = clock::now();
        let pace = self.idle_rate.map_or(Pace::Never, |rate| Pace::Schedule(Schedule::new(start, rate)));
        let feed = Feed::new(pace, Through::First, 1);
        Ok(Some(Some(Crowd::unseen(&self.common, start, traffic, feed))))
    }

    /// `by_kernel` is what that counted over the whole run, as the tool did.
    fn report(&self, slots: Slots, by_kernel: Option<TcpCounters>, interrupted: bool) -> Result<Report, Failure> {
        let mut report = Report::new("connect", "connection", slots.stage.measured(), slots.stage.lag().clone());
        report.parameters = vec![("concurrency", slots.concurrency.into()), ("idle", self.idle.into())];
        report.parameters.extend(self.rate.map(rate_parameter));
        let (begun, refused) = (slots.begun, slots.failures.refused());
        match by_kernel {
            Some(counters) => report.doubts.extend(counters.doubt(begun, refused)),
            None => report.notes.push("/proc/net cannot be read: what was opened is checked against nothing".to_owned()),
        }
        report.tell_kernel_of_whole_run(by_kernel);
        report.tell("begun", begun);
        slots.failures.tell(&mut report);
        if self.rate.is_some() {
            report.tell("slots_full", slots.slots_full);
            tell_left_out(&mut report, "never_opened", slots.never_opened);
        } else {
            report.notes.push(CLOSED_LOOP.to_owned());
        }
        report.latencies = vec![("tcp", slots.tcp), ("upgrade", slots.upgrade)];
        if self.first_echo {
            report.fault("wrong_echoes", slots.wrong_echoes);
            report.latencies.push(("first_echo", slots.echo));
        }
        report.latencies.push(("whole", slots.whole));
        report.lateness = self.rate.map(|_| ("whole", slots.lateness));
        report.interrupted = interrupted;
        if let Some(idle) = slots.idle {
            self.report_idle(&mut report, idle, interrupted);
        }
        Ok(report)
    }

    fn report_idle(&self, report: &mut Report, mut idle: Crowd, interrupted: bool) {
        let counts = idle.traffic.counts;
        report.tell("idle_delivered", counts.delivered);
        report.fault("idle_lost", idle.traffic.lost(interrupted));
        report.fault("idle_duplicated", counts.duplicated);
        report.fault("idle_reordered", counts.reordered);
        report.fault("idle_connections_lost", counts.connections_lost);
        if self.idle_rate.is_some() {
            tell_left_out(report, "idle_not_sent", idle.left_out(interrupted));
            report.notes.push("server CPU: what the idle ones got is in it".to_owned());
        }
        if idle.feed.is_broken() {
            report.doubts.push(PUBLISHER_GONE.to_owned());
        }
        report.busy.extend(late("idle_delivery", &idle.feed.lateness, &idle.traffic.latency));
        report.latencies.push(("idle_delivery", idle.traffic.latency));
    }
}

impl Slots {
    fn new(options: &Connect, concurrency: usize, idle: Option<Crowd>, start: Nanos) -> Self {
        Self {
            close: options.close,
            concurrency,
            schedule: options.rate.map(|rate| Schedule::new(start, rate)),
            begun: 0,
            is_served: false,
            under_way: 0,
            was_full_at: 0,
            slots_full: 0,
            never_opened: 0,
            slots: Vec::new(),
            first_echo: options.first_echo.then(|| Payload::new(MESSAGE_BYTES, fastrand::u64(..))),
            stage: options.common.stage("connect", start),
            idle,
            idle_is_over: true,
            done: 0,
            tcp: Histogram::new(),
            upgrade: Histogram::new(),
            echo: Histogram::new(),
            whole: Histogram::new(),
            lateness: Histogram::new(),
            failures: Failures::default(),
            wrong_echoes: 0,
        }
    }

    /// When the next connection was due, if one is to be opened now.
    fn take_due(&mut self, now: Nanos) -> Option<Nanos> {
        if self.under_way >= self.concurrency {
            self.was_full_at = now;
            return None;
        }
        match &mut self.schedule {
            Some(schedule) => schedule.take(now, self.stage.until),
            None => (!self.stage.is_over()).then(clock::now),
        }
    }

    fn open(&mut self, net: &mut Net, due: Nanos) -> bool {
        let started = clock::now();
        if self.schedule.is_some() && due <= self.was_full_at {
            self.slots_full += 1;
        } else if self.schedule.is_some() && self.stage.is_measured(due) {
            self.lateness.record(started - due);
        }
        match net.open(started, 0, Purpose::Visit) {
            Ok(id) => {
                let slot = Slot { due, asked_at: 0, state: State::Opening };
                if self.slots.len() <= id {
                    self.slots.resize(id + 1, slot);
                }
                self.slots[id] = slot;
                self.under_way += 1;
                self.begun += 1;
                true
            }
            Err(ending) => {
                self.failures.count(&ending);
                false
            }
        }
    }

    /// The connection has done what it was opened for.
    fn complete(&mut self, net: &mut Net, id: usize, at: Nanos) {
        self.done += 1;
        let slot = &mut self.slots[id];
        slot.state = State::Closing;
        if self.stage.is_measured(slot.due) {
            self.whole.record(at - slot.due);
        }
        match self.close {
            Close::Rst => {
                net.reset(id);
                self.under_way -= 1;
            }
            Close::Client | Close::Server => {
                net.send(id, OpCode::Close, &1000_u16.to_be_bytes());
                net.expect(id, at);
                if self.close == Close::Server {
                    net.await_end(id, at);
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        // What is under way is waited for, at most for --timeout, else the slowest and all that hang would be missing; in an open
        // loop so is all that was due.
        let is_done = |schedule: Schedule| schedule.next_at() >= self.stage.until;
        self.stage.is_over() && self.idle_is_over && self.under_way == 0 && self.schedule.is_none_or(is_done)
    }
}

impl Load for Slots {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.done)?;
        if let Some(schedule) = &mut self.schedule
            && net.is_past(now, self.stage.until)
        {
            // A server that can't keep up would hold the run for as long as it likes.
            self.never_opened += schedule.take_all(now, self.stage.until);
        }
        if self.is_over() || (!self.is_served && self.failures.are_all_refused(REFUSALS_MAX)) {
            return Ok(Next::Done);
        }
        // With all slots taken, the next connection's time is when one becomes vacant.
        let is_full = self.under_way >= self.concurrency;
        let mut next = self.schedule.filter(|_| !is_full).map_or(Nanos::MAX, |schedule| schedule.next_at());
        self.idle_is_over = true;
        if let Some(idle) = &mut self.idle
            && let Next::At(due) = idle.turn(net, now)?
        {
            self.idle_is_over = false;
            next = next.min(due);
        }
        while let Some(due) = self.take_due(now) {
            if !self.open(net, due) {
                // What fails at once fails again at once: the slots wait for the next turn.
                return Ok(Next::At(now + MILLISECOND));
            }
        }
        Ok(Next::At(next.min(self.stage.next_edge(now))))
    }

    fn opened(&mut self, net: &mut Net, id: usize, times: Times) {
        if net.purpose(id) != Purpose::Visit {
            return;
        }
        self.is_served = true;
        if self.stage.is_measured(self.slots[id].due) {
            self.tcp.record(times.established - times.started);
            self.upgrade.record(times.opened - times.established);
        }
        let Some(payload) = &mut self.first_echo else { return self.complete(net, id, times.opened) };
        let now = clock::now();
        (self.slots[id].asked_at, self.slots[id].state) = (now, State::Asked);
        net.send(id, OpCode::Text, payload.stamped(Stamp { topic: 0, number: id as u64, due: now }));
        net.expect(id, now);
    }

    fn message(&mut self, net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        if net.purpose(id) != Purpose::Visit {
            if let Some(idle) = &mut self.idle {
                idle.message(id, payload, at);
            }
            return;
        }
        let slot = self.slots[id];
        let stamp = self.first_echo.as_ref().and_then(|echo| echo.stamp_of(payload, at));
        if slot.state != State::Asked || stamp.is_none_or(|stamp| stamp.number != id as u64) {
            self.wrong_echoes += 1;
            return;
        }
        if self.stage.is_measured(slot.due) {
            self.echo.record(at - slot.asked_at);
        }
        net.settle_expectation(id);
        self.complete(net, id, at);
    }

    fn closed(&mut self, net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        if net.purpose(id) != Purpose::Visit {
            if let Some(idle) = &mut self.idle {
                idle.closed(id, &ending);
            }
            return;
        }
        self.under_way -= 1;
        // An answer has the code that was sent or, as RFC 6455 section 5.5.1 leaves that open, none: 1005.
        let is_answer = self.slots[id].state == State::Closing && matches!(ending, Ending::Closed { code: 1000 | 1005, .. });
        if !is_answer {
            self.failures.count(&ending);
        }
    }
}
