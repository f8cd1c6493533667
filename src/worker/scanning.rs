//! Subscribers that read what is kept of all topics that a pattern matches, before they get what is published.
//!
//! ```text
//! subscribed ─> in force ─> look at each home ─> 101 or ok ─> home 0: sheaf, sheaf, ... ─> home 1: sheaf, ... ─> live
//! ```
//!
//! The homes are read one after the other, and of each home the topics by the order of their names ([`crate::engine::Scan`]), so a name tells
//! how far a reader has come, among however many topics. What is published on a topic comes by itself from the moment on when the topic was
//! read to its end, and passes the reader by until then ([`crate::hub::Frontier`]): a sheaf comes through the same ring as the home's
//! publications, so those ahead of it are in it or before it, and those behind it are not.
//!
//! What was accepted when the subscription was in force is promised. The look asks each home for the time, so that a home can tell later
//! what of the promised it has lost meanwhile: of a topic by a gap of that topic; of topics that it has forgotten altogether, by one of the
//! pattern.
//!
//! Sheaves are pulled as pages are, by the same row ([`super::readers`]), and those of topics that were asked for by name go first.

use std::sync::Arc;

use crate::engine::{Place, Scan, Sheaf};
use crate::frame::{Form, Gap, GapReason, Pattern, Since};
use crate::hub::{Frontier, TopicId};
use crate::io::{Driver, Store};
use crate::metrics::Cause;
use crate::routes::OnGap;

use super::Core;
use super::letters::Asker;
use super::readers::Reader;
use super::replay::{Asked, Purpose, Replay, Stage};

/// A pattern, and how far what is behind it has been read.
#[derive(Debug)]
pub(super) struct Scanning {
    pub(super) pattern: Pattern,
    pub(super) id: TopicId,
    pub(super) since: Since,
    /// Names that the connection subscribed to before, which bring their topics themselves.
    pub(super) except: Arc<[Pattern]>,
    pub(super) stage: Stage,
    /// The home worker that is looked at or read.
    pub(super) home: usize,
    /// How far its topics are read.
    place: Place,
    /// When each home was looked at.
    begun_ns: Vec<u64>,
    /// How it was asked for.
    pub(super) asked: Asked,
}

impl Scanning {
    pub(super) fn new(pattern: Pattern, id: TopicId, since: Since, except: Arc<[Pattern]>, stage: Stage, asked: Asked) -> Self {
        Self { pattern, id, since, except, stage, home: 0, place: Place::default(), begun_ns: Vec::new(), asked }
    }

    /// Up to where everything has been read: what begins its life before a topic that has been begun is not read any more.
    fn frontier(&self) -> Frontier {
        let Place { read, begun } = &self.place;
        let topic = begun.as_ref().map(|(topic, _)| topic).or(read.as_ref()).cloned();
        Frontier { home: self.home, topic, is_whole: begun.is_none() }
    }

    /// What is asked of its home next.
    pub(super) fn scan(&self, request: Asker, page_bytes_max: usize) -> Scan<Asker> {
        let (begun_ns, bytes_max) = match self.begun_ns.get(self.home) {
            Some(begun_ns) if self.stage == Stage::Page => (*begun_ns, page_bytes_max),
            _ => (0, 0),
        };
        Scan {
            request,
            pattern: self.pattern.clone(),
            except: Arc::clone(&self.except),
            since: self.since,
            place: self.place.clone(),
            begun_ns,
            bytes_max,
            now_ns: 0,
        }
    }
}

impl<D: Driver> Core<D> {
    /// A sheaf has come: it goes to who asked for it, if that one still reads.
    pub(super) fn scanned(&mut self, store: &mut Store, asker: Asker, sheaf: Sheaf) {
        self.pages_asked -= 1;
        let reader = Reader::of(asker);
        let slot = asker.token.slot;
        let Some(replay) = self.replays.get_mut(&slot).filter(|replay| replay.reader == reader) else { return };
        replay.is_waiting = false;
        match replay.patterns[replay.at].stage {
            Stage::Look => self.looked_at_home(store, slot, sheaf.now_ns),
            Stage::Force | Stage::Page | Stage::News => self.read_sheaf(store, slot, sheaf),
        }
    }

    /// It is known from when on a home has to tell what it loses; the next one is asked, or it is all of them.
    fn looked_at_home(&mut self, store: &mut Store, slot: u32, now_ns: u64) {
        let homes = self.shared.workers();
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let (at, purpose) = (replay.at, replay.purpose);
        let scanning = &mut replay.patterns[at];
        scanning.begun_ns.push(now_ns);
        scanning.home += 1;
        if scanning.home == homes {
            (scanning.home, scanning.stage) = (0, Stage::Page);
            if purpose == Purpose::Session {
                self.confirm_pattern(store, slot, at);
            }
        }
        self.go_on_from_look(store, slot);
    }

    /// Sends a sheaf on, and moves the reader.
    fn read_sheaf(&mut self, store: &mut Store, slot: u32, sheaf: Sheaf) {
        let homes = self.shared.workers();
        let Some(replay) = self.replays.get_mut(&slot) else { return };
        let Replay { form, on_gap, at, .. } = *replay;
        let scanning = &mut replay.patterns[at];
        let (id, pattern, before) = (scanning.id, scanning.pattern.clone(), scanning.frontier());
        scanning.place = if sheaf.is_last { Place::default() } else { sheaf.place };
        scanning.home += usize::from(sheaf.is_last);
        let place = scanning.frontier();
        let is_through = scanning.home == homes;
        if is_through {
            replay.patterns.remove(at);
        }
        if on_gap == OnGap::Close && (!sheaf.gaps.is_empty() || sheaf.has_forgotten) {
            return self.fail(store, slot, Cause::Gap, None);
        }
        let mut sent = 0;
        for (before, topic, gap) in &sheaf.gaps {
            self.queue_page(store, slot, form, &sheaf.publications[sent..*before]);
            self.queue_gap(store, slot, topic, form, gap);
            sent = *before;
        }
        self.queue_page(store, slot, form, &sheaf.publications[sent..]);
        if sheaf.has_forgotten {
            self.queue_unknown_gap(store, slot, pattern.as_str(), form, GapReason::Trimmed);
        }
        if is_through {
            self.hub.end_reading(slot, id);
        } else if place != before {
            self.hub.advance_reading(slot, id, place);
        }
        self.read_next(slot);
    }

    /// Queues what tells of a gap of which nobody knows from where to where it is.
    pub(super) fn queue_unknown_gap(&mut self, store: &mut Store, slot: u32, name: &str, form: Form, reason: GapReason) {
        self.queue_among_kept(store, slot, |out| Gap::write_unknown(name, reason, form, out));
    }
}
