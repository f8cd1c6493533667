//! `follow`: what a helper process does: it holds a share of the subscribers where one process may not have them all.
//!
//! It is told what to do in lines on standard input, answers in lines on standard output, and ends with its input:
//!
//! ```text
//! open FROM TO                      opens those connections           -> opened | failed WHY
//! measure FROM UNTIL                what is due between counts        -> measuring
//! end PUBLISHED TOPIC:NUMBER...     waits for what is still to come, but not for what was refused: its topic and number
//!                                                                     -> its account, as JSON
//! ```

use std::io::{Write as _, stdin, stdout};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::ending::Ending;
use crate::engine::{Engine, Load, Next};
use crate::failure::Failure;
use crate::net::Net;
use crate::stage::Stage;
use crate::traffic::Traffic;

use super::common::Common;
use super::crowd::LINGER;
use super::gather::gather;
use super::spread::Layout;

/// Flags of `follow`.
#[derive(Args, Debug)]
pub struct Follow {
    #[command(flatten)]
    common: Common,
    /// Descriptors to make room for
    #[arg(long)]
    connections: usize,
    /// How many topics there are
    #[arg(long)]
    topics: u32,
    /// How many of them one connection has
    #[arg(long)]
    each: u32,
    /// Bytes of a message
    #[arg(long)]
    size: usize,
    /// What tells this run's messages from another's
    #[arg(long)]
    run: u64,
}

/// What a follower tells at its end. Histograms are V2 in base64.
#[derive(Debug, Deserialize, Serialize)]
pub struct Account {
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub foreign: u64,
    pub connections_lost: u64,
    pub first_ending: Option<String>,
    pub pings: u64,
    /// Deliveries within the measurement.
    pub operations: u64,
    /// Processor time within it, as a share of one processor.
    pub own_cpu_share: f64,
    /// Time in the queue for a CPU within it, as a share of it.
    pub own_wait_share: f64,
    pub lag: String,
    pub latency: String,
    pub last: String,
    /// Where all topics are one: number and latency of each publication that the last of these subscribers got within the measurement.
    pub completions: Vec<(u64, Nanos)>,
}

struct Follower<'a> {
    orders: &'a Receiver<String>,
    traffic: Traffic,
    stage: Stage,
    timeout: Nanos,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until there is an order that the loop can't carry out itself.
    Listening,
    /// The connections from this to that are to be opened.
    Opening(u32, u32),
    /// Since that time nothing more is published.
    Ending(Nanos),
    /// Whoever gave the orders is gone.
    Orphaned,
}

/// Runs until the end of standard input.
pub fn run(options: &Follow) -> Result<(), Failure> {
    let mut engine = options.common.prepare(options.connections, options.topics)?;
    let (sender, orders) = channel();
    // A thread of its own, because standard input can't be waited for together with sockets; it ends with the process.
    thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut follower = Follower {
        orders: &orders,
        traffic: Traffic::following(options.topics, options.size, options.run, clock::now()),
        stage: Stage::unseen(Nanos::MAX, Nanos::MAX),
        timeout: options.common.timeout_ns(),
        state: State::Listening,
    };
    loop {
        let interrupted = engine.run(&mut follower)?;
        match follower.state {
            State::Opening(from, to) => {
                let topics = Layout { topics: options.topics, each: options.each }.of(from, to);
                let purposes: Vec<Purpose> = topics.iter().map(|&topics| Purpose::Subscribe(topics)).collect();
                let answer = match gather(&mut engine, 0, &purposes) {
                    Ok(Some(ids)) => {
                        ids.into_iter().zip(topics).for_each(|(id, topics)| follower.traffic.subscribe(id, topics));
                        "opened".to_owned()
                    }
                    Ok(None) => return Ok(()),
                    Err(failure) => format!("failed {failure}"),
                };
                follower.state = State::Listening;
                say(&answer)?;
            }
            State::Ending(_) => return say(&account(&follower.traffic, &follower.stage, &engine)?),
            State::Listening | State::Orphaned => return Ok(()),
        }
        if interrupted {
            return Ok(());
        }
    }
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(stdout(), "{line}").map_err(|error| Failure::System("answering", error))
}

fn account(traffic: &Traffic, stage: &Stage, engine: &Engine) -> Result<String, Failure> {
    let (counts, measured) = (traffic.counts, stage.measured());
    let account = Account {
        delivered: counts.delivered,
        lost: traffic.lost(false),
        duplicated: counts.duplicated,
        reordered: counts.reordered,
        foreign: counts.foreign,
        connections_lost: counts.connections_lost,
        first_ending: traffic.first_ending.clone(),
        pings: engine.net.pings,
        operations: measured.operations,
        own_cpu_share: measured.own_cpu_share,
        own_wait_share: measured.own_wait_share,
        lag: stage.lag().to_base64(),
        latency: traffic.latency.to_base64(),
        last: traffic.last.to_base64(),
        completions: traffic.completions().to_vec(),
    };
    serde_json::to_string(&account).map_err(|error| Failure::System("answering", error.into()))
}

impl Follower<'_> {
    fn obey(&mut self, order: &str, now: Nanos) -> Result<(), Failure> {
        let words: Vec<&str> = order.split_ascii_whitespace().collect();
        let number = |text: &str| text.parse::<u64>().ok();
        match words[..] {
            ["open", from, to] => {
                let (from, to) = (number(from).unwrap_or_default(), number(to).unwrap_or_default());
                self.state = State::Opening(from as u32, to as u32);
            }
            ["measure", from, until] => {
                let (from, until) = (number(from).unwrap_or_default(), number(until).unwrap_or_default());
                self.stage = Stage::unseen(from, until);
                say("measuring")?;
            }
            ["end", published, ref refused @ ..] => {
                let refused = refused.iter().filter_map(|word| {
                    let (topic, place) = word.split_once(':')?;
                    Some((topic.parse().ok()?, number(place)?))
                });
                self.traffic.end(number(published).unwrap_or_default(), refused);
                self.state = State::Ending(now);
            }
            _ => return Err(Failure::Usage(format!("{order:?} is no order for a follower"))),
        }
        Ok(())
    }
}

impl Load for Follower<'_> {
    fn turn(&mut self, net: &mut Net, now: Nanos) -> Result<Next, Failure> {
        self.stage.tick(net, now, self.traffic.counts.delivered)?;
        while self.state == State::Listening {
            match self.orders.try_recv() {
                Ok(order) => self.obey(&order, now)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.state = State::Orphaned,
            }
        }
        let is_done = match self.state {
            State::Listening => false,
            State::Opening(..) | State::Orphaned => true,
            State::Ending(since) => {
                let patience = if self.traffic.under_way() == 0 { LINGER } else { self.timeout };
                now >= self.traffic.moved_at().max(since) + patience
            }
        };
        // Waits end after a tenth of a second in any case, which is often enough to look for an order.
        Ok(if is_done { Next::Done } else { Next::At(self.stage.next_edge(now)) })
    }

    fn message(&mut self, _net: &mut Net, id: usize, payload: &[u8], at: Nanos) {
        self.traffic.message(&self.stage, id, payload, at);
    }

    fn closed(&mut self, _net: &mut Net, id: usize, ending: Ending, _at: Nanos) {
        self.traffic.closed(id, &ending);
    }
}
