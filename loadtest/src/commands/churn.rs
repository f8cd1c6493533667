//! `churn`: subscribers come and go while messages flow.
//!
//! Beside the steady subscribers of a fan-out, `--joins` a second subscribe, stay a while and leave: by a connection of their own
//! (`--how connect`), or on one that stays open, where the protocol has that (`--how subscribe`). What is published after a
//! subscription was confirmed must reach its subscriber until it leaves: holes are counted, for those who stay and for those who
//! pass.

use clap::{Args, ValueEnum};
use fantail::config::{ByteSize, TimeSpan};

use crate::client::Purpose;
use crate::clock;
use crate::failure::Failure;
use crate::report::Report;
use crate::schedule::Schedule;

use super::common::{Common, Measure};
use super::crowd::Crowd;
use super::fanout::TOPIC;
use super::gather::gather;
use super::party::{Paced, parse_size};
use super::passing::Passing;

/// Flags of `churn`.
#[derive(Args, Debug)]
pub struct Churn {
    #[command(flatten)]
    paced: Paced,
    /// How many subscribers stay
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many join a second
    #[arg(long, default_value = "200", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    joins: f64,
    /// How long each of those stays
    #[arg(long, default_value = "1s", value_name = "TIME")]
    stay: TimeSpan,
    /// How they join and leave
    #[arg(long, value_enum, default_value_t = How::Connect)]
    how: How,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// Connect and subscribe, leave by a reset
    Connect,
    /// Subscribe and unsubscribe on a connection that stays open: Redis and NATS
    Subscribe,
}

impl Measure for Churn {
    fn common(&self) -> &Common {
        &self.paced.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let common = self.common();
        let steady = self.connections as usize;
        let mut engine = self.paced.publishing.prepare(steady + self.passing_max(), 1)?;
        if self.how == How::Subscribe && !engine.net.target(0).has_subscriptions() {
            let why = "--how subscribe: a WebSocket's subscription is its connection; --how connect opens and resets those";
            return Err(Failure::Usage(why.to_owned()));
        }
        let cut_short = || Ok(vec![Report::cut_short("churn", "delivery")]);
        let Some(party) = self.paced.publishing.gather(&mut engine, &vec![TOPIC; steady])? else { return cut_short() };
        let standing = match self.how {
            How::Connect => None,
            How::Subscribe => match gather(&mut engine, 0, &vec![Purpose::Join; self.standing()])? {
                None => return cut_short(),
                standing => standing,
            },
        };
        let traffic = party.traffic(1, self.size, fastrand::u64(..));
        let start = clock::now();
        let crowd = Crowd::new(common, "churn", start, traffic, self.paced.feed(party.through, start));
        let joins = Schedule::new(start, self.joins);
        let mut passing = Passing::new(crowd, joins, clock::length(self.stay.duration()), common.timeout_ns(), standing);
        let interrupted = engine.run(&mut passing)?;
        let mut report = passing.report(&engine.net, interrupted)?;
        report.parameters =
            vec![("connections", self.connections.into()), self.paced.parameter(), ("size", self.size.bytes().into())];
        Ok(vec![report])
    }
}

impl Churn {
    /// The most that can be there at a time: each may stay until `--timeout` is over.
    fn passing_max(&self) -> usize {
        (self.joins * (self.stay.duration() + self.common().timeout.duration()).as_secs_f64()) as usize + self.standing()
    }

    /// The connections that are open for those who pass: half as many again as there are at a time if nothing waits.
    fn standing(&self) -> usize {
        (1.5 * self.joins * self.stay.duration().as_secs_f64()) as usize + 16
    }
}
