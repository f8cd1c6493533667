//! What a reader hears, on each transport, and what it notes of it.

use serde_json::Value;

use super::names::{NAMES, TOPICS, is_pattern, topics_of};
use super::reader::{How, Reader};
use super::truth::{Moment, What, position};
use crate::frame::{Cursor, Gap, GapReason, Position, Since};
use crate::worker::tests::cluster::{field, frame, take_events, take_frames, take_head};
use crate::worker::tests::simulation::take_any_answer;

impl Reader {
    /// Takes in what the server said.
    pub fn take_in(&mut self, bytes: Vec<u8>, now: Moment) {
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
        if self.how == How::Session {
            return true;
        }
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        let told = [true, false].into_iter().find(|told| head.contains(&format!("Fantail-Recovered: {told}")));
        assert!(told.is_none() || self.has_cursor, "told only if a cursor was given: {text}");
        // An event stream that is refused for a while begins, too, and ends at once.
        self.is_untold = self.has_cursor && told.is_none();
        assert!(!self.is_untold || self.how == How::Events, "told if a cursor was given: {text}");
        if self.is_untold {
            return true;
        }
        (0..self.subscriptions.0.len()).for_each(|at| self.begin(at, self.now.sent));
        if told == Some(false) {
            self.note_failed_recovery();
        }
        assert!(!self.has_missed || told == Some(false), "of a pattern nobody knows what was missed: {text}");
        true
    }

    /// Not everything behind the cursors can be had: of topics that must be told where it can only be they, of patterns always.
    fn note_failed_recovery(&mut self) {
        let (mut resumed, mut missed) = (Vec::new(), Vec::new());
        for own in &self.subscriptions.0 {
            let topics = topics_of(own.name).iter().copied().filter(|topic| own.reads(*topic));
            if is_pattern(own.name) && self.has_missed {
                missed.extend(topics);
            } else if matches!(own.since, Since::After(_)) {
                resumed.extend(topics);
            }
        }
        let owing = if self.has_missed || resumed.len() > 1 { missed } else { resumed };
        owing.into_iter().for_each(|topic| self.note(topic, What::Recovered(false)));
    }

    fn take_frames(&mut self) {
        for (opcode, payload) in take_frames(&mut self.bytes) {
            match opcode {
                1 => {
                    let object: Value = serde_json::from_slice(&payload).unwrap();
                    match self.how {
                        How::Session => self.session_object(&object),
                        _ => drop(self.object(&object)),
                    }
                }
                8 => {
                    let code = u16::from_be_bytes([payload[0], payload[1]]);
                    assert!([1001, 1013, 4104].contains(&code), "{code}: {}", String::from_utf8_lossy(&payload));
                    if code == 4104 {
                        assert!(!self.goes_on, "it wanted to go on");
                        for topic in 0..TOPICS.len() {
                            self.tracks[topic].cursor = None;
                            self.note(topic, What::Lost);
                        }
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
        match object["type"].as_str().unwrap() {
            "open" | "ping" => {}
            "message" | "gap" => drop(self.object(object)),
            "ok" => self.request_done(object),
            "error" => self.request_refused(object),
            _ => panic!("{object}"),
        }
    }

    /// Which subscription an answer is of; what the URL asks for has no id.
    fn asked(&self, object: &Value) -> Option<usize> {
        let id = object["id"].as_u64();
        let is_own = |name: usize| id.is_some() || object["topic"] == NAMES[name];
        self.subscriptions.0.iter().position(|own| own.id == id && is_own(own.name))
    }

    fn request_done(&mut self, object: &Value) {
        let Some(at) = self.asked(object) else {
            let id = object["id"].as_u64();
            let left = self.subscriptions.0.iter().position(|own| own.leaves.is_some() && own.leaves == id);
            match left {
                Some(left) => drop(self.subscriptions.0.remove(left)),
                None => assert_eq!(object["already"], true, "what was refused is not there: {object}"),
            }
            return;
        };
        let own = &self.subscriptions.0[at];
        let (name, stays, recovered) = (own.name, own.leaves.is_none(), object.get("recovered").and_then(Value::as_bool));
        assert!(!own.in_force && !own.is_refused, "answered twice, or not refused: {object}");
        assert_eq!(object["topic"], NAMES[name]);
        assert_eq!(recovered.is_some(), matches!(own.since, Since::After(_)), "{object}");
        assert_eq!(object.get("cursor").is_some(), !is_pattern(name), "{object}");
        // Else what another name brings may come ahead of it, and says where it stands.
        let stands_alone = stays && !is_pattern(name) && !(own.is_beside && own.since == Since::Latest);
        self.begin(at, self.now.sent);
        self.answered.extend(topics_of(name));
        if stays && recovered == Some(false) {
            self.note(name, What::Recovered(false));
        }
        if stands_alone {
            self.stand(name, position(object["cursor"].as_str().unwrap()));
        }
    }

    fn request_refused(&mut self, object: &Value) {
        let at = self.asked(object).unwrap_or_else(|| panic!("{object}"));
        let own = &self.subscriptions.0[at];
        let kind = object["problem"]["type"].as_str().unwrap().rsplit(':').next().unwrap();
        let may_be = match kind {
            "cancelled" => own.leaves.is_some(),
            "covered" => own.is_refused,
            kind => kind == "draining",
        };
        assert!(may_be && !own.in_force, "{own:?}: {object}");
        // What is cancelled is gone when it has been left.
        if kind != "cancelled" {
            self.subscriptions.0.remove(at);
        }
    }

    fn take_events(&mut self) {
        for event in take_events(&mut self.bytes) {
            let (id, kind, data) = (field(&event, "id"), field(&event, "event"), field(&event, "data"));
            match (kind.as_deref(), data) {
                (None, None) if event.is_empty() => self.end(),
                (Some("end"), Some(data)) => self.note_end(&data),
                _ if self.is_untold => panic!("told if a cursor was given: {event}"),
                (None, None) => {
                    assert_eq!(id.is_some(), !self.named().is_empty(), "where it stands, if it stands somewhere: {event}");
                    if let Some(id) = id {
                        self.stand_at(&id);
                    }
                }
                (Some("cursor"), Some(_)) => self.stand_at(&id.unwrap()),
                (Some("ping"), Some(_)) => {}
                (None | Some("gap"), Some(data)) => {
                    let cursor = self.object(&serde_json::from_str(&data).unwrap());
                    assert_eq!(id, cursor.filter(|_| !self.has_cursor_of_several()), "{event}");
                    self.last_id = id.or(self.last_id.take());
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
                "open" => match object["cursor"].as_str() {
                    Some(cursor) => self.stand_at(cursor),
                    None => assert!(self.named().is_empty(), "{object}"),
                },
                "cursor" => self.stand_at(object["cursor"].as_str().unwrap()),
                "ping" => {}
                "end" => self.note_end(&line),
                _ => drop(self.object(&object)),
            }
        }
    }

    fn note_end(&mut self, end: &str) {
        let end: Value = serde_json::from_str(end).unwrap();
        self.is_drained = end["cause"] == "drain";
        self.is_cut = !self.is_drained;
        assert!(["drain", "slow_consumer", "overloaded"].iter().any(|cause| end["cause"] == *cause), "{end}");
    }

    /// A cursor, of one topic or of all that are named.
    fn stand_at(&mut self, cursor: &str) {
        let named = self.named();
        assert_eq!(cursor.starts_with('~'), self.has_cursor_of_several(), "{cursor}");
        if self.has_cursor_of_several() || self.how == How::Events {
            self.last_id = Some(cursor.to_owned());
        }
        for topic in named {
            match Since::of_topic(cursor, TOPICS[topic]) {
                Ok(Since::After(at)) => self.stand(topic, at),
                other => panic!("{cursor} has no place of {}: {other:?}", TOPICS[topic]),
            }
        }
    }

    fn stand(&mut self, topic: usize, at: Position) {
        self.note(topic, What::Stands(at));
        self.tracks[topic].cursor = Some(Cursor(at).to_string());
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
            let poll = self.poll();
            self.says.push_back(poll);
        }
    }

    fn take_poll(&mut self, answer: &Value) {
        let gaps = answer.get("gaps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        assert_eq!(answer["recovered"], gaps.is_empty(), "{answer}");
        for object in gaps.iter().chain(answer["messages"].as_array().unwrap()) {
            self.object(object);
        }
        self.stand_at(answer["cursor"].as_str().unwrap());
    }

    /// A `message` or a `gap`; where the topic stands by then, if that is known.
    fn object(&mut self, object: &Value) -> Option<String> {
        let name = object["topic"].as_str().unwrap();
        if object["from"].is_null() && object["type"] == "gap" {
            self.unknown_gap(name, object);
            return None;
        }
        let topic = TOPICS.iter().position(|topic| *topic == name).unwrap_or_else(|| panic!("{object}"));
        assert!(self.subscriptions.bring(topic), "it was not asked for, or comes ahead of an answer: {object}");
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
        self.tracks[topic].cursor = Some(cursor.to_owned());
        self.note(topic, what);
        Some(cursor.to_owned())
    }

    /// Something of a name may be missing: it came back to a pattern, its replay was outlasted by a topic, or a name was left amid it.
    fn unknown_gap(&mut self, name: &str, object: &Value) {
        assert!(self.goes_on, "it wanted to be closed: {object}");
        let own = self.subscriptions.0.iter().find(|own| NAMES[own.name] == name && (own.in_force || own.leaves.is_some()));
        let own = own.unwrap_or_else(|| panic!("it was not asked for: {object}"));
        let is_left = object["reason"] == "pattern" && self.how == How::Session;
        assert!(own.leaves.is_some() || !is_left, "it was not left: {object}");
        // On a session others may go on with what was read by one that is left.
        let topics = topics_of(own.name).iter().copied().filter(|topic| own.reads(*topic) || self.how == How::Session);
        let topics: Vec<usize> = topics.collect();
        topics.into_iter().for_each(|topic| self.note(topic, What::Lost));
    }
}
