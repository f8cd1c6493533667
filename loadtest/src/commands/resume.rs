//! `resume`: all subscribers of a topic are cut off at once, so many messages are published meanwhile, and all come back at once,
//! each with the cursor of the last message it got: how long until everybody is up to date, and what a replayed message costs.
//!
//! Measured is the return. Every subscriber counts from the moment in which all begin to come back, whatever it meets on its way.

use clap::Args;
use fantail::config::{ByteSize, TimeSpan};

use crate::client::Purpose;
use crate::clock;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::payload::Payload;
use crate::report::{Figure, Report};
use crate::target::Dialect;

use super::absence::Absence;
use super::common::{Common, Measure};
use super::fanout::TOPIC;
use super::gather::gather;
use super::party::{add_post_target, parse_size};
use super::rest::Rest;
use super::returning::Returning;

/// Flags of `resume`.
#[derive(Args, Debug)]
#[command(mut_arg("url", |url| url.help(URL_HELP)), mut_arg("sub", |sub| sub.help(SUB_HELP).hide_possible_values(true)))]
pub struct Resume {
    #[command(flatten)]
    common: Common,
    /// How many subscribers
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many messages are published while they are away; the server has to keep as many (of Fantail: --history-size)
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    missed: u32,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
    /// Where to POST; the same address and path as the URL where not given
    #[arg(long, value_name = "URL")]
    post: Option<String>,
    /// How long one waits that failed, half of it at least, before it tries again
    #[arg(long, default_value = "500ms", value_name = "TIME")]
    retry: TimeSpan,
}

impl Measure for Resume {
    fn common(&self) -> &Common {
        &self.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        let wanted = self.connections as usize;
        let mut engine = self.common.prepare(wanted.saturating_add(1), 1)?;
        if !matches!(engine.net.target(0).dialect, Dialect::Raw | Dialect::Sse) {
            return Err(Failure::Usage(format!("{}: this command speaks WebSocket and event streams only", self.common.url)));
        }
        let cut_short = || Ok(vec![Report::cut_short("resume", OPERATION)]);
        let post = add_post_target(&mut engine, self.post.as_deref())?;
        let Some(publishers) = gather(&mut engine, post, &[Purpose::Publish])? else { return cut_short() };
        let Some(ids) = gather(&mut engine, 0, &vec![Purpose::Subscribe(TOPIC); wanted])? else { return cut_short() };
        if !Rest::undisturbed(&mut engine, self.common.stage_resting(clock::now()))? {
            return cut_short();
        }
        let mut payload = Payload::new(self.size.bytes(), fastrand::u64(..));
        let (missed, timeout) = (u64::from(self.missed), self.common.timeout_ns());
        let Some(cursors) = Absence::run(&mut engine, &ids, publishers[0], &mut payload, missed, timeout)? else {
            return cut_short();
        };
        let now = clock::now();
        let stage = self.common.stage_at_once("resume", now);
        let retry = clock::length(self.retry.duration()).max(1);
        let mut returning = Returning::new(stage, payload, cursors, missed, retry, now);
        let interrupted = engine.run(&mut returning)?;
        Ok(vec![self.report(returning, &engine, interrupted)])
    }
}

impl Resume {
    fn report(&self, mut run: Returning, engine: &Engine, interrupted: bool) -> Report {
        run.stage.finish(&engine.net, run.counts.replayed);
        let mut report = Report::new("resume", OPERATION, run.stage.measured(), run.stage.lag().clone());
        report.parameters =
            vec![("connections", self.connections.into()), ("missed", self.missed.into()), ("size", self.size.bytes().into())];
        run.tell(&mut report);
        if let Some(length) = run.until_all_are_up_to_date() {
            report.figures.push(Figure { name: "until_all_are_up_to_date", value: length as f64 / 1e6, unit: "ms" });
        } else if !interrupted {
            report.doubts.push("not all are up to date: raise --duration, or see the failures".to_owned());
        }
        if run.counts.gaps_announced > 0 {
            let why =
                "the server has not kept all that was missed: raise its history (of Fantail: --history-size), or lower --missed";
            report.doubts.push(why.to_owned());
        }
        report.latencies = vec![("back", run.back), ("up_to_date", run.up_to_date)];
        report.interrupted = interrupted;
        report
    }
}

/// What the URL has to have so that there are cursors.
const URL_HELP: &str = "Where to connect: ws://HOST[:PORT]/PATH?envelope, or http://... with --sub sse; {cursor} stands for a \
cursor, and where it is missing since=CURSOR is appended";

/// Of all protocols two have cursors.
const SUB_HELP: &str = "sse: event streams, whose ids are the cursors, instead of WebSockets";

/// What one operation is.
const OPERATION: &str = "replayed message";
