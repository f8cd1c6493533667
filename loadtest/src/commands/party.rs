//! Who takes part in a run: those who subscribe, and those who publish to them.

use std::str::FromStr as _;

use clap::{Args, ValueEnum};
use fantail::config::ByteSize;
use serde_json::Number;

use crate::client::Purpose;
use crate::clock::{self, Nanos};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::feed::{Feed, Pace, Publisher, Through};
use crate::payload::SIZE_MIN;
use crate::schedule::Schedule;
use crate::target::{Dialect, Target, Topics};
use crate::traffic::Traffic;
use crate::wire::PAYLOAD_BYTES_MAX;

use super::common::{Common, rate_parameter};
use super::gather::gather;

/// Flags of every command that publishes.
#[derive(Args, Clone, Debug)]
pub struct Publishing {
    #[command(flatten)]
    pub common: Common,
    /// How to publish: by a subscriber's own WebSocket, or by POST. Redis and NATS have their own way
    #[arg(long, value_enum, value_name = "HOW")]
    publish: Option<How>,
    /// Where to POST, with {topic} for the topic's name; the same address and path as the URL where not given
    #[arg(long, value_name = "URL")]
    post: Option<String>,
    /// How many connections publish, where they do nothing else; topics are divided among them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: u32,
}

/// Flags of the commands with a pace.
#[derive(Args, Clone, Debug)]
pub struct Paced {
    #[command(flatten)]
    pub publishing: Publishing,
    /// Publications a second, at fixed times: the open loop
    #[arg(long, default_value = "50", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    rate: f64,
    /// Flat out instead: so many publications under way at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "rate")]
    pub window: Option<u32>,
}

/// A way to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// As a message of a subscriber's WebSocket
    Ws,
    /// By HTTP POST, on connections of their own
    Post,
}

/// Those who take part, connected.
#[derive(Debug)]
pub struct Party {
    /// Subscribers' connections, and what each is subscribed to.
    pub subscribers: Vec<(usize, Topics)>,
    /// Who publishes.
    pub through: Through,
}

impl Party {
    /// The account of a run in which all subscribers are there for the whole of it.
    pub fn traffic(&self, topics: u32, size: ByteSize, run: u64) -> Traffic {
        let mut traffic = Traffic::new(topics, size.bytes(), run, clock::now());
        self.subscribers.iter().for_each(|&(id, topics)| traffic.subscribe(id, topics));
        traffic
    }
}

impl Paced {
    /// The pace that was asked for, as a parameter of a report.
    pub fn parameter(&self) -> (&'static str, Number) {
        self.window.map_or_else(|| rate_parameter(self.rate), |window| ("window", window.into()))
    }

    /// What to publish from `start` on.
    pub fn feed(&self, through: Through, start: Nanos) -> Feed {
        let schedule = Pace::Schedule(Schedule::new(start, self.rate));
        Feed::new(self.window.map_or(schedule, |window| Pace::Window(window.into())), through, 1)
    }
}

impl Publishing {
    /// The same on a server that is started for it: its URLs filled in, its process measured.
    pub fn on_server(&self, fill: impl Fn(&String) -> String, pid: u32) -> Self {
        let common = Common { url: fill(&self.common.url), pid: Some(pid), ..self.common.clone() };
        Self { common, post: self.post.as_ref().map(fill), ..self.clone() }
    }

    /// A loop with room for so many subscribers and those who publish.
    pub fn prepare(&self, subscribers: usize, topics: u32) -> Result<Engine, Failure> {
        self.common.prepare(subscribers.saturating_add(self.publishers as usize), topics)
    }

    /// Connects a subscriber for each of these, then those who publish; None if somebody pressed Ctrl-C first.
    pub fn gather(&self, engine: &mut Engine, topics: &[Topics]) -> Result<Option<Party>, Failure> {
        let target = self.target(engine)?;
        if target.is_none() && topics.iter().any(|topics| topics.count > 1) {
            let why = "a WebSocket with several topics can't say on which it publishes: use --publish post";
            return Err(Failure::Usage(why.to_owned()));
        }
        let purposes: Vec<Purpose> = topics.iter().map(|&topics| Purpose::Subscribe(topics)).collect();
        let Some(ids) = gather(engine, 0, &purposes)? else { return Ok(None) };
        let through = match target {
            None => Through::First,
            Some(target) => match gather(engine, target, &vec![Purpose::Publish; self.publishers as usize])? {
                None => return Ok(None),
                Some(ids) => Through::Publishers(ids.into_iter().map(Publisher::new).collect()),
            },
        };
        Ok(Some(Party { subscribers: ids.into_iter().zip(topics.iter().copied()).collect(), through }))
    }

    /// Where those connect to who only publish; None where subscribers do it.
    fn target(&self, engine: &mut Engine) -> Result<Option<usize>, Failure> {
        let own = engine.net.target(0);
        let is_posted = self.post.is_some() || own.dialect == Dialect::Sse;
        match (own.dialect, self.publish.unwrap_or(if is_posted { How::Post } else { How::Ws })) {
            (Dialect::Redis | Dialect::Nats, _) if self.publish.is_some() || self.post.is_some() => Err(Failure::Usage(
                "--publish and --post are for WebSocket and HTTP; Redis and NATS have their own way".to_owned(),
            )),
            (Dialect::Redis | Dialect::Nats, _) => Ok(Some(0)),
            (Dialect::Sse, How::Ws) => {
                Err(Failure::Usage("an event stream can't publish: leave --publish out, or use --publish post".to_owned()))
            }
            (_, How::Ws) if self.post.is_some() => {
                Err(Failure::Usage("--post is where to POST: leave --publish ws out, or --post".to_owned()))
            }
            (_, How::Ws) => Ok(None),
            (_, How::Post) => add_post_target(engine, self.post.as_deref()).map(Some),
        }
    }
}

/// Adds where to publish by POST: where `--post` says, else at the address and path of the run's own URL.
pub fn add_post_target(engine: &mut Engine, post: Option<&str>) -> Result<usize, Failure> {
    let own = engine.net.target(0);
    let target = match post {
        Some(url) => Target::resolve(url, Some(Dialect::Post), own.topics())?,
        None => own.clone().for_post()?,
    };
    Ok(engine.net.add_target(target))
}

/// A message's size: it needs room for its stamp, and has to come back whole.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    let size = ByteSize::from_str(text).map_err(|error| error.to_string())?;
    if size.bytes() < SIZE_MIN {
        return Err(format!("at least {SIZE_MIN}: a message carries its number and time"));
    }
    if size.bytes() > PAYLOAD_BYTES_MAX {
        return Err("at most 64MiB: what is longer is taken for garbage when it comes back".to_owned());
    }
    Ok(size)
}
