//! Readers of the history behind patterns: where each has been, and what it finds there.

use super::{NAMES, World, home, pattern, topic};
use crate::frame::Form;
use crate::hub::Frontier;

/// What is read behind a pattern.
pub struct Reading {
    /// Names that the slot had before.
    except: Vec<usize>,
    place: Frontier,
}

impl Reading {
    /// Whether the topic is read behind the pattern of this name.
    pub fn reads(&self, name: usize, topic: usize) -> bool {
        pattern(name).matches(NAMES[topic]) && !self.except.iter().any(|except| pattern(*except).matches(NAMES[topic]))
    }
}

impl World {
    pub fn read(&mut self, slot: u32, name: usize) {
        if self.subscriptions.contains_key(&(slot, name)) || self.has_wider(slot, name) {
            return;
        }
        let own = self.subscriptions.keys().filter(|key| key.0 == slot).map(|key| key.1);
        let except: Vec<usize> = own.filter(|own| pattern(*own).meets(&pattern(name))).collect();
        let patterns = except.iter().map(|name| pattern(*name)).collect();
        assert!(self.hub.subscribe_reading(slot, &pattern(name), Form::WsEnvelope, patterns).is_some());
        self.readings.insert((slot, name), Reading { except, place: Frontier::START });
        self.joined(slot, name, Form::WsEnvelope, None);
    }

    pub fn advance(&mut self, slot: u32, name: usize, to: usize, is_whole: bool) {
        let Some(id) = self.id(slot, name) else { return };
        let Some(reading) = self.readings.get_mut(&(slot, name)) else { return };
        let to = Frontier { home: home(to), topic: Some(topic(to)), is_whole };
        let key = |place: &Frontier| (place.home, place.topic.clone(), place.is_whole);
        let is_behind = key(&to) > key(&reading.place);
        if is_behind && self.hub.may_advance_reading(slot, id) {
            reading.place = to.clone();
            self.hub.advance_reading(slot, id, to);
        }
    }

    pub fn finish(&mut self, slot: u32, name: usize) {
        if let (Some(id), true) = (self.id(slot, name), self.readings.contains_key(&(slot, name)))
            && self.hub.may_advance_reading(slot, id)
        {
            self.readings.remove(&(slot, name));
            self.hub.end_reading(slot, id);
        }
    }

    /// Whether a reader of the slot has not come to a topic yet.
    pub fn awaits(&self, slot: u32, topic: usize) -> bool {
        self.readings.iter().filter(|(key, _)| key.0 == slot).any(|((_, name), reading)| {
            let Frontier { home: at, topic: read, is_whole } = &reading.place;
            let has_read =
                read.as_ref().is_some_and(|read| NAMES[topic] < read.as_str() || (*is_whole && NAMES[topic] == read.as_str()));
            reading.reads(*name, topic) && (home(topic) > *at || (home(topic) == *at && !has_read))
        })
    }
}
