//! What home workers must be told, and which connections wait until they know.
//!
//! Each form of a topic or pattern is in one of three states:
//!
//! ```text
//! first subscriber          poll_interest                acknowledge_interest, same version or later
//! -----------------> Untold -------------> Told(version) ------------------------------------------> InForce
//!                      ^                                                                                |
//!                      +--------------------- last subscriber of the form gone -------------------------+
//! ```
//!
//! A topic has one home worker; a pattern is acknowledged once all workers have done so.

use std::collections::{BTreeSet, VecDeque};

use super::topics::{Subject, TopicId};
use crate::frame::{Form, Forms};
use crate::limits::GiveBack;

/// What this worker wants of one topic, to be told to the topic's home worker; or of a pattern, to be told to all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The topic or pattern.
    pub subject: Subject,
    /// Its number here.
    pub id: TopicId,
    /// The forms its subscribers need; none when the last one has gone.
    pub forms: Forms,
    /// How many subscribers it has here.
    pub subscribers: u64,
    /// Grows with everything told; 32 bits, which wrap. The home worker acknowledges with it.
    pub version: u32,
}

/// The forms of one topic: how many want each, and what the home worker knows of it.
#[derive(Debug, Default)]
pub(super) struct TopicInterest {
    forms: [FormInterest; Form::ALL.len()],
    dirty: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct FormInterest {
    subscribers: u32,
    told: Told,
}

#[derive(Clone, Copy, Debug, Default)]
enum Told {
    #[default]
    Untold,
    At(u32),
    InForce,
}

impl TopicInterest {
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub fn join(&mut self, form: Form) {
        self.forms[form as usize].subscribers += 1;
    }

    /// A form nobody wants starts anew, even if the home worker never hears that it was gone: waiting once more costs a turn.
    pub fn leave(&mut self, form: Form) {
        let interest = &mut self.forms[form as usize];
        interest.subscribers -= 1;
        if interest.subscribers == 0 {
            interest.told = Told::Untold;
        }
    }

    pub fn forms(&self) -> Forms {
        self.forms_where(|interest| interest.subscribers > 0)
    }

    pub fn subscribers(&self) -> u64 {
        self.forms.iter().map(|interest| u64::from(interest.subscribers)).sum()
    }

    pub fn in_force(&self, form: Form) -> bool {
        matches!(self.forms[form as usize].told, Told::InForce)
    }

    /// Whether some form was told and is not in force yet.
    pub fn is_awaited(&self) -> bool {
        self.forms.iter().any(|interest| matches!(interest.told, Told::At(_)))
    }

    fn tell(&mut self, version: u32) {
        self.dirty = false;
        for interest in self.forms.iter_mut().filter(|interest| interest.subscribers > 0) {
            if matches!(interest.told, Told::Untold) {
                interest.told = Told::At(version);
            }
        }
    }

    /// Returns the forms that come into force by it.
    pub fn acknowledge(&mut self, version: u32) -> Forms {
        let mut forms = Forms::NONE;
        for form in Form::ALL {
            let told = &mut self.forms[form as usize].told;
            if matches!(*told, Told::At(since) if is_at_least(version, since)) {
                *told = Told::InForce;
                forms = forms.with(form);
            }
        }
        forms
    }

    fn forms_where(&self, is_meant: impl Fn(&FormInterest) -> bool) -> Forms {
        let meant = Form::ALL.into_iter().filter(|form| is_meant(&self.forms[*form as usize]));
        meant.fold(Forms::NONE, Forms::with)
    }
}

/// Whether `version` is `other` or was told after it, across the wrap: what is under way spans far less than half the circle.
pub(super) fn is_at_least(version: u32, other: u32) -> bool {
    version.wrapping_sub(other) < 1 << 31
}

/// The topics whose interest has changed since it was told, each once.
#[derive(Debug, Default)]
pub(super) struct Changes {
    dirty: VecDeque<TopicId>,
    /// Could not be told in this round.
    deferred: VecDeque<TopicId>,
    version: u32,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.deferred.is_empty()
    }

    pub fn mark(&mut self, id: TopicId, interest: &mut TopicInterest) {
        if !std::mem::replace(&mut interest.dirty, true) {
            self.dirty.push_back(id);
        }
    }

    pub fn defer(&mut self, id: TopicId, interest: &mut TopicInterest) {
        if !std::mem::replace(&mut interest.dirty, true) {
            self.deferred.push_back(id);
        }
    }

    /// The next dirty topic. `None` ends the round: what was deferred in it belongs to the next one.
    pub fn next(&mut self) -> Option<TopicId> {
        let id = self.dirty.pop_front();
        if id.is_none() {
            self.dirty.give_back();
            std::mem::swap(&mut self.dirty, &mut self.deferred);
        }
        id
    }

    /// Versions are the hub's, not a topic's: an answer to an earlier life of a topic must not confirm a later one.
    pub fn tell(&mut self, interest: &mut TopicInterest) -> u32 {
        self.version = self.version.wrapping_add(1);
        interest.tell(self.version);
        self.version
    }

    #[cfg(any(test, debug_assertions))]
    pub fn marked(&self) -> impl Iterator<Item = TopicId> {
        self.dirty.iter().chain(&self.deferred).copied()
    }
}

/// Connections that wait for all their subscriptions to be in force.
#[derive(Debug, Default)]
pub(super) struct Confirmations {
    awaiting: BTreeSet<u32>,
    /// Those among them whose wait may have ended; looked at again when popped.
    candidates: VecDeque<u32>,
}

impl Confirmations {
    pub fn add(&mut self, slot: u32) {
        self.awaiting.insert(slot);
        self.candidates.push_back(slot);
    }

    pub fn forget(&mut self, slot: u32) {
        self.awaiting.remove(&slot);
    }

    pub fn is_empty(&self) -> bool {
        self.awaiting.is_empty()
    }

    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Something has changed for `slot`; no matter if it does not wait.
    pub fn reconsider(&mut self, slot: u32) {
        if self.awaiting.contains(&slot) {
            self.candidates.push_back(slot);
        }
    }

    /// Pops a connection that waits and of which `in_force` holds.
    pub fn next(&mut self, in_force: impl Fn(u32) -> bool) -> Option<u32> {
        while let Some(slot) = self.candidates.pop_front() {
            if self.awaiting.contains(&slot) && in_force(slot) {
                self.awaiting.remove(&slot);
                return Some(slot);
            }
        }
        self.candidates.give_back();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_in_force_once_a_telling_that_named_it_is_acknowledged() {
        let mut interest = TopicInterest::default();
        interest.join(Form::WsRaw);
        interest.tell(u32::MAX);
        interest.join(Form::WsEnvelope);
        interest.tell(0);
        assert_eq!(interest.acknowledge(u32::MAX), Forms::NONE.with(Form::WsRaw));
        assert!(interest.in_force(Form::WsRaw) && !interest.in_force(Form::WsEnvelope));
        assert_eq!(interest.acknowledge(0), Forms::NONE.with(Form::WsEnvelope));
        interest.leave(Form::WsRaw);
        interest.join(Form::WsRaw);
        assert_eq!(interest.acknowledge(0), Forms::NONE);
        assert!(!interest.in_force(Form::WsRaw) && interest.in_force(Form::WsEnvelope));
    }
}
