//! Flags of the commands that publish, and the way from them to a [`Feed`].

use clap::{Args, ValueEnum};
use fantail::config::ByteSize;

use crate::client::Purpose;
use crate::clock::Nanos;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::feed::{Feed, Pace, Publisher, Through};
use crate::payload::SIZE_MIN;
use crate::schedule::Schedule;
use crate::target::{Dialect, Target, Topics};

use super::crowd;

/// Flags of every command that publishes.
#[derive(Args, Clone, Debug)]
pub struct Publishing {
    /// How to publish: by a subscriber's own WebSocket, or by POST. Redis and NATS have their own way
    #[arg(long, value_enum, value_name = "HOW")]
    pub publish: Option<How>,
    /// Where to POST, with {topic} for the topic's name; the same address and path as the URL where not given
    #[arg(long, value_name = "URL")]
    pub post: Option<String>,
    /// How many connections publish, where they do nothing else; topics are divided among them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: u32,
}

/// Flags of the commands with a pace.
#[derive(Args, Clone, Debug)]
pub struct Pacing {
    /// Publications a second, at fixed times: the open loop
    #[arg(long, default_value = "50", value_name = "PER_SECOND", value_parser = super::parse_rate)]
    pub rate: f64,
    /// Flat out instead: so many publications under way at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "rate")]
    pub window: Option<u32>,
}

/// A way to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// As a message of a subscriber's WebSocket
    Ws,
    /// By HTTP POST, on connections of their own
    Post,
}

impl Pacing {
    /// What to publish from `start` on.
    pub fn feed(&self, through: Through, start: Nanos) -> Feed {
        let schedule = Pace::Schedule(Schedule::new(start, self.rate));
        Feed::new(self.window.map_or(schedule, |window| Pace::Window(window.into())), through, 1)
    }
}

impl Publishing {
    /// Descriptors it will need beside those of the subscribers.
    pub const fn connections(&self) -> usize {
        self.publishers as usize
    }

    /// Connects those who publish; None after Ctrl-C. `target` is what [`Publishing::target`] said, `topics` what subscribers have.
    pub fn through(&self, engine: &mut Engine, topics: &[Topics], target: Option<usize>) -> Result<Option<Through>, Failure> {
        let Some(target) = target else {
            if topics.iter().any(|topics| topics.count > 1) {
                let why = "a WebSocket with several topics can't say on which it publishes: use --publish post";
                return Err(Failure::Usage(why.to_owned()));
            }
            return Ok(Some(Through::First));
        };
        let purposes = vec![Purpose::Publish; self.connections()];
        let ids = crowd::gather(engine, target, &purposes)?;
        Ok(ids.map(|ids| Through::Publishers(ids.into_iter().map(Publisher::new).collect())))
    }

    /// Where those connect to who only publish; None where subscribers do it.
    pub fn target(&self, engine: &mut Engine, topics: u32) -> Result<Option<usize>, Failure> {
        let own = engine.net.target(0);
        match (own.dialect, self.publish.unwrap_or(if self.post.is_some() { How::Post } else { How::Ws })) {
            (Dialect::Redis | Dialect::Nats, _) if self.publish.is_some() || self.post.is_some() => Err(Failure::Usage(
                "--publish and --post are for WebSocket and HTTP; Redis and NATS have their own way".to_owned(),
            )),
            (Dialect::Redis | Dialect::Nats, _) => Ok(Some(0)),
            (_, How::Ws) => Ok(None),
            (_, How::Post) => {
                let target = match &self.post {
                    Some(url) => Target::resolve(url, Some(Dialect::Post), topics)?,
                    None => own.clone().for_post()?,
                };
                Ok(Some(engine.net.add_target(target)))
            }
        }
    }
}

/// A message needs room for its stamp.
pub fn check_size(size: ByteSize) -> Result<(), Failure> {
    if size.bytes() < SIZE_MIN {
        return Err(Failure::Usage(format!("--size must be at least {SIZE_MIN}: a message carries its number and time")));
    }
    Ok(())
}
