//! Somebody who reads over many connections, on one of the transports, and what it notes.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::truth::{Told, What, position};
use crate::frame::{Gap, GapReason};
use crate::worker::tests::cluster::{events, field, frame, take_events, take_frames, take_head, upgrade, upgrade_to_session};
use crate::worker::tests::simulation::take_any_answer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    WebSocket,
    Events,
    Lines,
    Polls,
    Session,
}

impl How {
    pub const ALL: [Self; 5] = [Self::WebSocket, Self::Events, Self::Lines, Self::Polls, Self::Session];
}

/// Ids of a session's requests are a multiple of this and the track's place.
const JOIN: u64 = 100;
const LEAVE: u64 = 200;

/// One topic of a reader: a session has some, all others one.
#[derive(Debug)]
pub(super) struct Track {
    pub topic: usize,
    pub cursor: Option<String>,
    pub story: Vec<Told>,
    /// A session has asked to leave the topic, and has not been answered.
    is_leaving: bool,
    /// A session was told that it has the topic, and not yet that it has left it.
    is_there: bool,
}

#[derive(Debug)]
pub(super) struct Reader {
    pub how: How,
    /// The connection it has, if any.
    pub peer: Option<u64>,
    /// The server said that it stops; or that it ends this connection for another reason.
    pub is_drained: bool,
    pub is_cut: bool,
    /// It had got everything, and has not gone or left a topic since.
    pub is_live: bool,
    bytes: Vec<u8>,
    has_head: bool,
    /// What is missing does not end its connection.
    goes_on: bool,
    /// It gave a cursor, and the head says nothing of it: a refusal must follow.
    is_untold: bool,
    pub tracks: Vec<Track>,
    /// What it has to say next.
    pub says: VecDeque<Vec<u8>>,
    now: u64,
}

impl Track {
    fn new(topic: usize) -> Self {
        Self { topic, cursor: None, story: Vec::new(), is_leaving: false, is_there: false }
    }
}

impl Reader {
    pub fn new(how: How, topics: impl Iterator<Item = usize>) -> Self {
        let tracks = topics.map(Track::new).collect();
        let (peer, bytes, says) = (None, Vec::new(), VecDeque::new());
        Self {
            how,
            peer,
            is_drained: false,
            is_cut: false,
            is_live: false,
            bytes,
            has_head: false,
            goes_on: true,
            is_untold: false,
            tracks,
            says,
            now: 0,
        }
    }

    /// It comes, as `peer`: what it says.
    pub fn come(&mut self, peer: u64, goes_on: bool, now: u64) -> Vec<u8> {
        let is_told = matches!(self.how, How::Events | How::Lines | How::Session);
        (self.peer, self.has_head, self.goes_on, self.now) = (Some(peer), false, goes_on || is_told, now);
        (self.is_drained, self.is_cut, self.is_live) = (false, false, false);
        self.bytes.clear();
        self.says.clear();
        let (topic, cursor) = (self.tracks[0].topic, self.tracks[0].cursor.clone());
        let since = cursor.as_deref().unwrap_or("earliest");
        if self.how != How::Session {
            self.note_coming(0);
        }
        match self.how {
            How::WebSocket => {
                let on_gap = if self.goes_on { "&on-gap=continue" } else { "" };
                upgrade(&format!("/topics/t{topic}?envelope&since={since}{on_gap}"))
            }
            // As a browser does: the URL stays as it is.
            How::Events => events(&format!("/topics/t{topic}?envelope&since=earliest"), cursor.as_deref()),
            How::Lines => {
                format!("GET /topics/t{topic}?as=ndjson&since={since} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
            }
            How::Polls => self.poll(),
            How::Session => {
                let mut bytes = upgrade_to_session("/topics");
                for place in 0..self.tracks.len() {
                    bytes.extend(self.join(place));
                }
                bytes
            }
        }
    }

    /// A session leaves one of its topics; it comes back to it when it is told that it has.
    pub fn leave(&mut self, place: usize) -> Option<Vec<u8>> {
        let track = &mut self.tracks[place];
        let asks = !std::mem::replace(&mut track.is_leaving, true);
        asks.then(|| request(LEAVE + place as u64, "unsubscribe", track.topic, None))
    }

    /// Of what is sent from this number on it must get everything.
    pub fn begin_live(&mut self, number: u64) {
        self.is_live = true;
        (0..self.tracks.len()).for_each(|place| self.note(place, What::IsLive(number)));
    }

    fn join(&mut self, place: usize) -> Vec<u8> {
        self.note_coming(place);
        let track = &mut self.tracks[place];
        (track.is_leaving, track.is_there) = (false, false);
        request(JOIN + place as u64, "subscribe", track.topic, Some(track.cursor.as_deref().unwrap_or("earliest")))
    }

    fn poll(&self) -> Vec<u8> {
        let (topic, since) = (self.tracks[0].topic, self.tracks[0].cursor.as_deref().unwrap_or("earliest"));
        format!("GET /topics/t{topic}?since={since}&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
    }

    fn note(&mut self, place: usize, what: What) {
        self.tracks[place].story.push(Told { at_ns: self.now, what });
    }

    fn note_coming(&mut self, place: usize) {
        let since = self.tracks[place].cursor.as_deref().map(position);
        self.note(place, What::Came(since));
    }

    /// The connection has ended.
    pub fn end(&mut self) {
        self.peer = None;
    }

    /// Takes in what the server said.
    pub fn take_in(&mut self, bytes: Vec<u8>, now: u64) {
        self.now = now;
        self.bytes.extend(bytes);
        if self.how == How::Polls {
            return self.take_answers();
        }
        if !self.has_head && !self.take_head() {
            return;
        }
        match self.how {
            How::WebSocket | How::Session => self.take_frames(),
            How::Events => self.take_events(),
            How::Lines => self.take_lines(),
            How::Polls => {}
        }
    }

    /// Whether the head was there, and says that something begins.
    fn take_head(&mut self) -> bool {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let Some(status) = take_head(&mut self.bytes) else { return false };
        self.has_head = true;
        let begins = if matches!(self.how, How::Events | How::Lines) { 200 } else { 101 };
        if status != begins {
            // There was no room for it, or the server stops.
            assert_eq!(status, 503, "{text}");
            self.end();
            return false;
        }
        if self.how != How::Session {
            let head = text.split("\r\n\r\n").next().unwrap_or_default();
            let told = [true, false].into_iter().find(|told| head.contains(&format!("Fantail-Recovered: {told}")));
            // An event stream that is refused for a while begins, too, and ends at once.
            self.is_untold = told.is_none() && self.tracks[0].cursor.is_some();
            assert!(!self.is_untold || self.how == How::Events, "told if a cursor was given: {text}");
            assert!(told.is_none() || self.tracks[0].cursor.is_some(), "told only then: {text}");
            if let Some(told) = told {
                self.note(0, What::Recovered(told));
            }
        }
        true
    }

    fn take_frames(&mut self) {
        for (opcode, payload) in take_frames(&mut self.bytes) {
            match opcode {
                1 => {
                    let object: Value = serde_json::from_slice(&payload).unwrap();
                    if self.how == How::Session { self.session_object(&object) } else { self.object(0, &object) }
                }
                8 => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    assert!([1001, 1013, 4104].contains(&code), "{code}: {}", String::from_utf8_lossy(&payload));
                    if code == 4104 {
                        assert!(!self.goes_on, "it wanted to go on");
                        self.tracks[0].cursor = None;
                        self.note(0, What::Lost);
                    }
                    self.is_drained = code == 1001;
                    self.is_cut = !self.is_drained;
                    self.says.push_back(frame(0x88, &payload[..2]));
                    return self.end();
                }
                9 => self.says.push_back(frame(0x8A, &payload)),
                other => panic!("opcode {other}"),
            }
        }
    }

    fn session_object(&mut self, object: &Value) {
        let (kind, id) = (object["type"].as_str().unwrap(), object["id"].as_u64());
        let place = id.map(|id| (id % JOIN) as usize);
        match (kind, id) {
            ("open" | "ping", None) => {}
            ("ok", Some(LEAVE..)) => {
                let join = self.join(place.unwrap());
                self.says.push_back(join);
            }
            ("ok", Some(JOIN..)) => {
                let place = place.unwrap();
                self.tracks[place].is_there = true;
                let recovered = object.get("recovered").and_then(Value::as_bool);
                assert_eq!(recovered.is_some(), self.tracks[place].cursor.is_some(), "{object}");
                if let Some(recovered) = recovered {
                    self.note(place, What::Recovered(recovered));
                }
                self.note_stand(place, object["cursor"].as_str().unwrap());
            }
            // It was left before it was in force; or the server stops.
            ("error", Some(JOIN..)) => {
                let kind = object["problem"]["type"].as_str().unwrap();
                assert!(kind.ends_with(":cancelled") || kind.ends_with(":draining"), "{object}");
            }
            ("message" | "gap", None) => {
                let topic = object["topic"].as_str().unwrap();
                let place = self.tracks.iter().position(|track| topic == format!("t{}", track.topic)).unwrap();
                assert!(self.tracks[place].is_there, "nothing overtakes an answer: {object}");
                self.object(place, object);
            }
            other => panic!("{other:?}: {object}"),
        }
    }

    fn take_events(&mut self) {
        for event in take_events(&mut self.bytes) {
            let (id, kind, data) = (field(&event, "id"), field(&event, "event"), field(&event, "data"));
            match (kind.as_deref(), data) {
                (None, None) if event.is_empty() => self.end(),
                (None, None) => {
                    assert!(!self.is_untold, "told if a cursor was given");
                    self.note_stand(0, &id.expect("the first event says where it stands"));
                }
                (Some("ping"), Some(_)) => {}
                (Some("end"), Some(data)) => self.note_end(&data),
                (None | Some("gap"), Some(data)) => {
                    self.object(0, &serde_json::from_str(&data).unwrap());
                    assert_eq!(id, self.tracks[0].cursor, "{event}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn take_lines(&mut self) {
        for line in take_events(&mut self.bytes) {
            if line.is_empty() {
                self.end();
                continue;
            }
            let object: Value = serde_json::from_str(&line).unwrap();
            match object["type"].as_str().unwrap() {
                "open" => self.note_stand(0, object["cursor"].as_str().unwrap()),
                "ping" => {}
                "end" => self.note_end(&line),
                _ => self.object(0, &object),
            }
        }
    }

    fn note_end(&mut self, end: &str) {
        let end: Value = serde_json::from_str(end).unwrap();
        self.is_drained = end["cause"] == "drain";
        self.is_cut = !self.is_drained;
        assert!(["drain", "slow_consumer", "overloaded"].iter().any(|cause| end["cause"] == *cause), "{end}");
    }

    /// Who asked for all there is gets what is kept when it is read, and stands nowhere before.
    fn note_stand(&mut self, place: usize, cursor: &str) {
        match &self.tracks[place].cursor {
            Some(_) => self.note(place, What::Stands(position(cursor))),
            None => self.tracks[place].cursor = Some(cursor.to_owned()),
        }
    }

    fn take_answers(&mut self) {
        while let Some((status, answer)) = take_any_answer(&mut self.bytes) {
            match status {
                200 => self.take_poll(&answer),
                503 => {
                    let kind = answer["type"].as_str().unwrap();
                    self.is_drained |= kind.ends_with(":draining");
                    assert!(self.is_drained || kind.ends_with(":busy"), "{answer}");
                }
                _ => panic!("{status}: {answer}"),
            }
            self.note_coming(0);
            let poll = self.poll();
            self.says.push_back(poll);
        }
    }

    fn take_poll(&mut self, answer: &Value) {
        if answer["recovered"] == false {
            self.note(0, What::Lost);
        }
        for message in answer["messages"].as_array().unwrap() {
            self.object(0, message);
        }
        let cursor = answer["cursor"].as_str().unwrap();
        self.note(0, What::Stands(position(cursor)));
        self.tracks[0].cursor = Some(cursor.to_owned());
    }

    /// A `message` or a `gap`.
    fn object(&mut self, place: usize, object: &Value) {
        let at = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("{object}"));
        let (what, cursor) = match object["type"].as_str() {
            Some("message") => (What::Message(position(at("cursor")), at("text").to_owned()), at("cursor")),
            Some("gap") => {
                let reason: GapReason = at("reason").parse().unwrap();
                assert!(self.goes_on || reason == GapReason::Slow, "it wanted to be closed: {object}");
                (What::Gap(Gap { from: position(at("from")), to: position(at("to")), reason }), at("to"))
            }
            _ => panic!("{object}"),
        };
        self.tracks[place].cursor = Some(cursor.to_owned());
        self.note(place, what);
    }
}

fn request(id: u64, kind: &str, topic: usize, since: Option<&str>) -> Vec<u8> {
    let request = json!({"id": id, "type": kind, "topic": format!("t{topic}"), "since": since});
    frame(0x81, request.to_string().as_bytes())
}
