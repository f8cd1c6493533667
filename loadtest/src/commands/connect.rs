//! `connect`: connections a second, each opened, upgraded, checked and closed again.
//!
//! A closed loop: `--concurrency` slots, each of which opens the next connection when its last has gone. Its latencies are
//! service times of a server that sets the pace itself; they say nothing of what waits in front of a server that can't keep up.

use clap::{Args, ValueEnum};
use fantail::frame::OpCode;

use crate::clock::{MILLISECOND, Nanos};
use crate::ending::Ending;
use crate::engine::{Load, Net, Next, Times};
use crate::failure::Failure;
use crate::histogram::Histogram;
use crate::report::Report;

use super::common::Common;
use super::stage::Stage;

/// Flags of `connect`.
#[derive(Args, Debug)]
pub struct Connect {
    #[command(flatten)]
    common: Common,
    /// How many connections are under way at a time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// How a connection ends once its 101 was checked
    #[arg(long, value_enum, default_value_t = Close::Rst)]
    close: Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Close {
    /// With RST at once: no port stays in TIME_WAIT, so any number can follow
    Rst,
    /// With a close frame; the slot waits for the close that answers it
    Client,
}

struct Slots {
    close: Close,
    vacant: u32,
    stage: Stage,
    opened: u64,
    tcp: Histogram,
    upgrade: Histogram,
    whole: Histogram,
    failures: Failures,
}

/// What went wrong, warm-up included, by cause.
#[derive(Default)]
struct Failures {
    refused: u64,
    reset: u64,
    timed_out: u64,
    rejected: u64,
    other: u64,
    /// The first of them, as an example.
    first: Option<String>,
}

/// Runs `connect`.
pub fn run(options: &Connect) -> Result<(Report, &Common), Failure> {
    let mut engine = options.common.prepare(options.concurrency as usize * 2)?;
    let stage = Stage::new(&options.common, "connect", crate::clock::now());
    let mut slots = Slots {
        close: options.close,
        vacant: options.concurrency,
        stage,
        opened: 0,
        tcp: Histogram::new(),
        upgrade: Histogram::new(),
        whole: Histogram::new(),
        failures: Failures::default(),
    };
    let interrupted = engine.run(&mut slots)?;
    slots.stage.finish(slots.opened)?;
    let failures = slots.failures;
    if slots.opened == 0
        && let Some(first) = failures.first
    {
        return Err(Failure::Usage(format!("{}: no connection was opened: {first}", engine.net.target().address)));
    }
    let mut report = Report::new("connect", "connection", slots.stage.measured(), engine.net.lag.clone());
    report.counts = vec![
        ("refused", failures.refused),
        ("reset", failures.reset),
        ("timed_out", failures.timed_out),
        ("rejected", failures.rejected),
        ("other_failures", failures.other),
    ];
    report.notes.extend(failures.first.map(|first| format!("the first failure: {first}")));
    report.latencies = vec![("tcp", slots.tcp), ("upgrade", slots.upgrade), ("tcp_and_upgrade", slots.whole)];
    report.interrupted = interrupted;
    Ok((report, &options.common))
}

impl Load for Slots {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.opened)?;
        if self.stage.is_over() {
            return Ok(Next::Done);
        }
        while self.vacant > 0 {
            if let Err(ending) = net.open(crate::clock::now()) {
                // What fails at once fails again at once: the slots wait for the next turn.
                self.failures.count(&ending);
                return Ok(Next::At(now + MILLISECOND));
            }
            self.vacant -= 1;
        }
        Ok(Next::At(if now < self.stage.from { self.stage.from } else { self.stage.until }))
    }

    fn opened(&mut self, net: &mut Net, id: usize, times: Times) {
        self.opened += 1;
        if self.stage.is_measured(times.started) {
            self.tcp.record(times.established - times.started);
            self.upgrade.record(times.opened - times.established);
            self.whole.record(times.opened - times.started);
        }
        match self.close {
            Close::Rst => {
                net.reset(id);
                self.vacant += 1;
            }
            Close::Client => net.send(id, OpCode::Close, &1000_u16.to_be_bytes()),
        }
    }

    fn closed(&mut self, _net: &mut Net, _id: usize, ending: Ending, _at: Nanos) {
        self.vacant += 1;
        let is_answer = self.close == Close::Client && matches!(ending, Ending::Closed { code: 1000, .. });
        if !is_answer {
            self.failures.count(&ending);
        }
    }
}

impl Failures {
    fn count(&mut self, ending: &Ending) {
        self.first.get_or_insert_with(|| ending.to_string());
        *match ending {
            Ending::Refused => &mut self.refused,
            Ending::Reset => &mut self.reset,
            Ending::TimedOut => &mut self.timed_out,
            Ending::Rejected { .. } => &mut self.rejected,
            _ => &mut self.other,
        } += 1;
    }
}
