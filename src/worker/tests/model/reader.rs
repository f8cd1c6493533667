//! Somebody who reads over many connections, on one of the transports: what it asks for. What it hears stands in [`super::hearing`].

use std::collections::VecDeque;

use serde_json::json;

use super::names::{NAMES, Subscriptions, TOPICS, is_pattern, topics_of};
use super::truth::{Moment, Start, Told, What};
use crate::frame::{Cursors, Since};
use crate::worker::tests::cluster::{events, frame, upgrade, upgrade_to_session};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    WebSocket,
    Events,
    Lines,
    Polls,
    /// A `fantail.v1` socket, which asks for names and leaves them at any time.
    Session,
}

/// What came of one topic, whatever brought it.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// The last that was told of where it stands.
    pub cursor: Option<String>,
    pub story: Vec<Told>,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub how: How,
    /// It asks for several names at a time, and for others now and then.
    is_several: bool,
    /// What it asks for by its URL.
    pub names: Vec<usize>,
    /// The connection it has, if any.
    pub peer: Option<u64>,
    /// The server said that it stops; or that it ends this connection for another reason.
    pub is_drained: bool,
    pub is_cut: bool,
    /// It had got everything, and has not gone, come or asked for anything since.
    pub is_live: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) has_head: bool,
    /// What is missing does not end its connection.
    pub(super) goes_on: bool,
    /// It gave a cursor, so the head says whether all behind it can be had.
    pub(super) has_cursor: bool,
    /// The head says nothing of it: a refusal must follow.
    pub(super) is_untold: bool,
    /// It came back to patterns, of which nobody knows what was missed.
    pub(super) has_missed: bool,
    /// The last id of an event stream; the cursor of all topics of a stream of lines or a poll.
    pub(super) last_id: Option<String>,
    pub(super) subscriptions: Subscriptions,
    next_id: u64,
    /// For each topic.
    pub tracks: [Track; TOPICS.len()],
    /// Topics of names that it heard to be in force.
    pub answered: Vec<usize>,
    /// What it has to say next.
    pub says: VecDeque<Vec<u8>>,
    pub now: Moment,
    random: fastrand::Rng,
}

impl Reader {
    pub fn new(how: How, is_several: bool, random: fastrand::Rng) -> Self {
        let mut reader = Self {
            how,
            is_several,
            names: Vec::new(),
            peer: None,
            is_drained: false,
            is_cut: false,
            is_live: false,
            bytes: Vec::new(),
            has_head: false,
            goes_on: true,
            has_cursor: false,
            is_untold: false,
            has_missed: false,
            last_id: None,
            subscriptions: Subscriptions::default(),
            next_id: 1,
            tracks: Default::default(),
            answered: Vec::new(),
            says: VecDeque::new(),
            now: Moment::default(),
            random,
        };
        reader.draw_names();
        reader
    }

    fn draw_names(&mut self) {
        let polls = self.how == How::Polls;
        let mut names: Vec<usize> = (0..if polls || !self.is_several { TOPICS.len() } else { NAMES.len() }).collect();
        self.random.shuffle(&mut names);
        names.truncate(match (self.is_several, self.how) {
            (false, _) => 1,
            (true, How::Polls) => self.random.usize(2..=TOPICS.len()),
            (true, How::Session) => self.random.usize(0..=2),
            (true, _) => self.random.usize(1..=4),
        });
        self.names = names;
        // That of one topic says nothing of others, and a browser has one for each URL.
        let is_of_several = self.last_id.as_ref().is_some_and(|id| id.starts_with('~'));
        if self.how == How::Events || !is_of_several {
            self.last_id = None;
        }
    }

    /// The topics among its names.
    pub(super) fn named(&self) -> Vec<usize> {
        self.names.iter().copied().filter(|name| !is_pattern(*name)).collect()
    }

    /// Whether its stream or poll has a cursor of several topics.
    pub(super) fn has_cursor_of_several(&self) -> bool {
        self.names.len() > 1 && !self.named().is_empty()
    }

    /// It comes, as `peer`: what it says.
    pub fn come(&mut self, peer: u64, goes_on: bool, now: Moment) -> Vec<u8> {
        let is_told = self.how != How::WebSocket;
        (self.peer, self.has_head, self.goes_on, self.now) = (Some(peer), false, goes_on || is_told, now);
        (self.is_drained, self.is_cut, self.is_live) = (false, false, false);
        self.bytes.clear();
        self.says.clear();
        if self.is_several && self.random.u8(0..4) == 0 {
            self.draw_names();
        }
        let target = self.target();
        match self.how {
            How::WebSocket => upgrade(&format!("{target}envelope{}", if self.goes_on { "&on-gap=continue" } else { "" })),
            How::Events => events(&format!("{target}envelope"), self.last_id.as_deref()),
            How::Lines => get(&format!("{target}as=ndjson")),
            How::Polls => get(&format!("{target}wait=30")),
            How::Session => {
                let mut bytes = upgrade_to_session(&target);
                bytes.extend(self.ask());
                bytes
            }
        }
    }

    /// The URL, up to its last parameter; what it asks for begins anew.
    pub(super) fn target(&mut self) -> String {
        self.subscriptions.0.clear();
        (0..TOPICS.len()).for_each(|topic| self.note(topic, What::Came));
        self.random.shuffle(&mut self.names);
        let named = self.named();
        let is_browser_back = self.how == How::Events && self.last_id.is_some();
        let of_all = self.last_id.clone().filter(|id| id.starts_with('~') && !is_browser_back && self.random.bool());
        // For each name in the order of the URL, what it says, and what that means.
        let mut asked: Vec<(usize, String, Since)> = Vec::new();
        if let Some(all) = of_all.filter(|_| !named.is_empty()) {
            let cursors: Cursors = all.parse().unwrap();
            asked.extend(named.iter().map(|name| (*name, all.clone(), cursors.since(TOPICS[*name]))));
        }
        for name in self.names.clone() {
            if asked.iter().any(|(other, ..)| *other == name) {
                continue;
            }
            let since = self.choose_since(name);
            let mut meant = since.parse().unwrap();
            if let Some(id) = self.last_id.as_ref().filter(|_| is_browser_back) {
                meant = if is_pattern(name) { Since::Latest } else { Since::of_topic(id, TOPICS[name]).unwrap() };
            }
            asked.push((name, since, meant));
        }
        self.has_missed = is_browser_back && named.len() < self.names.len();
        self.has_cursor = self.has_missed || asked.iter().any(|(.., since)| matches!(since, Since::After(_)));
        let target = target(asked.iter().map(|(name, since, _)| (NAMES[*name], since.as_str())).collect());
        asked.sort_by_key(|(name, ..)| *name);
        for (at, (name, _, since)) in asked.into_iter().enumerate() {
            self.subscriptions.ask(None, name, since, self.now.ns);
            if self.how == How::Polls {
                self.begin(at, u64::MAX);
            }
        }
        target
    }

    fn choose_since(&mut self, name: usize) -> String {
        let own = self.tracks.get(name).and_then(|track| track.cursor.clone());
        let where_it_stood = own.unwrap_or_else(|| "earliest".to_owned());
        // So it mostly gets all of a story.
        let latest = if self.how == How::Session { 5..=8 } else { 2..=3 };
        match self.random.u8(0..12) {
            _ if !self.is_several => where_it_stood,
            // Of a poll nobody knows when it is in force.
            0 if self.how != How::Polls => "1s".to_owned(),
            1 if self.how != How::Polls => "5s".to_owned(),
            9..=10 => "earliest".to_owned(),
            number if latest.contains(&number) => "latest".to_owned(),
            _ => where_it_stood,
        }
    }

    /// A session asks for some names, and leaves some.
    pub fn ask(&mut self) -> Vec<u8> {
        self.is_live = false;
        if self.random.u8(0..3) == 0 {
            return self.begin_anew();
        }
        let mut bytes = Vec::new();
        for _ in 0..self.random.usize(1..=3) {
            let name = self.random.usize(0..NAMES.len());
            if !self.subscriptions.has(name) {
                bytes.extend(self.subscribe(name));
            } else if self.random.bool() {
                bytes.extend(self.unsubscribe(name));
            }
        }
        bytes
    }

    /// It leaves whatever brings a topic, and asks for it and then for a pattern that covers it.
    fn begin_anew(&mut self) -> Vec<u8> {
        let topic = self.random.usize(0..TOPICS.len());
        let names: Vec<usize> = (0..NAMES.len()).filter(|name| topics_of(*name).contains(&topic)).collect();
        let mut bytes = Vec::new();
        for name in names.iter().filter(|name| self.subscriptions.has(**name)).copied().collect::<Vec<_>>() {
            bytes.extend(self.unsubscribe(name));
        }
        let pattern = self.random.choice(&names[1..]).copied().expect("some pattern covers each");
        for name in [topic, pattern] {
            let since = if self.random.u8(0..4) == 0 { self.choose_since(name) } else { "latest".to_owned() };
            bytes.extend(self.subscribe_since(name, &since));
        }
        bytes
    }

    fn subscribe(&mut self, name: usize) -> Vec<u8> {
        let is_refused = self.subscriptions.has_wider(name) && self.random.u8(0..4) > 0;
        let since = if is_refused { "latest".to_owned() } else { self.choose_since(name) };
        self.subscribe_since(name, &since)
    }

    fn subscribe_since(&mut self, name: usize, since: &str) -> Vec<u8> {
        let id = self.take_id();
        self.subscriptions.ask(Some(id), name, since.parse().unwrap(), self.now.ns);
        request(&json!({"id": id, "type": "subscribe", "topic": NAMES[name], "since": since}))
    }

    fn unsubscribe(&mut self, name: usize) -> Vec<u8> {
        let id = self.take_id();
        for topic in self.subscriptions.leave(name, id) {
            self.note(topic, What::Left);
            self.note_promises(topic);
        }
        request(&json!({"id": id, "type": "unsubscribe", "topic": NAMES[name]}))
    }

    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A subscription is in force: what is sent from this number on is promised, unless it is being left.
    pub(super) fn begin(&mut self, at: usize, promised_from: u64) {
        let own = &mut self.subscriptions.0[at];
        (own.in_force, own.promised_from) = (true, promised_from);
        let asked_ns = own.asked_ns;
        let starts: Vec<_> = topics_of(own.name).iter().map(|topic| (*topic, own.reads(*topic).then_some(own.since))).collect();
        for (topic, since) in starts {
            let live_from = if self.subscriptions.may_read(topic) { u64::MAX } else { promised_from };
            self.note(topic, What::InForce(Start { since, asked_ns, promised_from, live_from }));
            if !self.subscriptions.promise(topic) {
                self.note(topic, What::Left);
            }
        }
    }

    /// The name that a topic began with is left: others go on with it, from where on they promise it.
    fn note_promises(&mut self, topic: usize) {
        let others = self.subscriptions.promising(topic);
        let starts: Vec<_> = others.map(|own| (own.asked_ns, own.promised_from)).collect();
        for (asked_ns, promised_from) in starts {
            self.note(topic, What::InForce(Start { since: None, asked_ns, promised_from, live_from: u64::MAX }));
        }
    }

    /// Of what is sent from this number on it must get everything.
    pub fn begin_live(&mut self, number: u64) {
        self.is_live = true;
        for topic in 0..TOPICS.len() {
            if self.subscriptions.promise(topic) {
                self.note(topic, What::IsLive(number));
            }
        }
    }

    pub(super) fn poll(&mut self) -> Vec<u8> {
        get(&format!("{}wait=30", self.target()))
    }

    pub(super) fn note(&mut self, topic: usize, what: What) {
        self.tracks[topic].story.push(Told { at: self.now, what });
    }

    /// The connection has ended.
    pub fn end(&mut self) {
        self.peer = None;
    }
}

/// A URL of these names and what is said of each, up to where another parameter may follow.
fn target(names: Vec<(&str, &str)>) -> String {
    let same = |text: &str| names.iter().all(|(_, since)| *since == text);
    let once = names.first().map(|(_, since)| *since).filter(|since| same(since) && !since.contains('.'));
    let said = |since: &str| format!("since={since}&");
    match (&names[..], once) {
        ([], _) => "/topics?".to_owned(),
        ([(name, _)], Some("latest")) => format!("/topics/{name}?"),
        ([(name, since)], _) => format!("/topics/{name}?{}", said(since)),
        (_, Some(since)) => {
            let names: String = names.iter().map(|(name, _)| format!("topic={name}&")).collect();
            format!("/topics?{names}{}", if since == "latest" { String::new() } else { said(since) })
        }
        // One is said of all that were named since the one before.
        _ => {
            let mut target = "/topics?".to_owned();
            for (at, (name, since)) in names.iter().enumerate() {
                target += &format!("topic={name}&");
                if names.get(at + 1).is_none_or(|(_, next)| next != since || since.contains('.')) {
                    target += &said(since);
                }
            }
            target
        }
    }
}

fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

fn request(request: &serde_json::Value) -> Vec<u8> {
    frame(0x81, request.to_string().as_bytes())
}
