//! What a topic was: every publication that was accepted, life after life, and what a reader of it may and must have seen.

use crate::frame::{Cursor, Gap, GapReason, Position};

/// What its publisher asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing: it is kept as its class says.
    AsItsClassSays,
    /// That it is kept for [`BRIEF_S`] at most.
    Briefly,
    /// That it is not kept: who does not get it at once gets it never.
    Not,
}

/// How long a brief one is kept, in seconds.
pub(super) const BRIEF_S: u64 = 3;

/// A publication whose POST was answered with 200.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub at: Position,
    pub text: String,
    pub kept: Kept,
    /// When it was sent, and how many were sent before it.
    pub sent_ns: u64,
    pub number: u64,
}

/// What a reader was told, and when it read that.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub at_ns: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// It came: with a cursor, or for all there is.
    Came(Option<Position>),
    /// Whether all behind its cursor can be had.
    Recovered(bool),
    /// It stands here.
    Stands(Position),
    Message(Position, String),
    Gap(Gap),
    /// Something is missing, and nothing says what.
    Lost,
    /// It has got everything, and reads: of what is sent from this number on it must get even what nobody keeps.
    IsLive(u64),
}

/// All of one topic, in the order in which it happened.
#[derive(Debug)]
pub(super) struct Truth {
    /// The epochs, one for each life; that of the first is empty if nothing was published in it.
    lives: Vec<String>,
    accepted: Vec<Accepted>,
    history_size: u64,
    /// The topic's class drops from full outboxes.
    drops: bool,
}

/// What of a reader's story is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub messages: u64,
    /// By reason: trimmed, slow, epoch.
    pub gaps: [u64; 3],
}

impl Truth {
    /// `deleted` are the epochs that deletions were answered with, in their order.
    pub fn new(deleted: &[String], mut accepted: Vec<Accepted>, history_size: u64, drops: bool) -> Self {
        let first = accepted.iter().map(|one| one.at.epoch.as_str()).find(|epoch| deleted.iter().all(|other| other != epoch));
        let lives: Vec<String> = [first.unwrap_or_default().to_owned()].into_iter().chain(deleted.iter().cloned()).collect();
        let life = |one: &Accepted| lives.iter().position(|epoch| epoch == one.at.epoch.as_str()).expect("one before all others");
        accepted.sort_by_key(|one| (life(one), one.at.offset));
        for pair in accepted.windows(2) {
            let (before, next) = (pair[0].at, pair[1].at);
            let expected = if before.epoch == next.epoch { before.offset + 1 } else { 1 };
            assert_eq!(next.offset, expected, "offsets have no holes: {before:?} {next:?}");
        }
        assert!(accepted.first().is_none_or(|first| first.at.offset == 1));
        Self { lives, accepted, history_size, drops }
    }

    fn life(&self, at: Position) -> Option<usize> {
        let known = self.lives.iter().position(|epoch| epoch == at.epoch.as_str());
        known.or((self.lives[0].is_empty() && at.offset == 0).then_some(0))
    }

    /// How many publications stand up to this position.
    fn place_behind(&self, at: Position) -> usize {
        let life = self.life(at).unwrap_or_else(|| panic!("{at:?} is of no life that was ever told of"));
        let place = self.accepted.partition_point(|one| (self.life(one.at), one.at.offset) <= (Some(life), at.offset));
        let last = place.checked_sub(1).map(|last| self.accepted[last].at).filter(|last| last.epoch == at.epoch);
        assert!(last.map_or(0, |last| last.offset) == at.offset, "{at:?} is ahead of its topic");
        place
    }

    /// Follows a reader through all it was told; panics where something is missing in silence, comes twice or out of order. `must_have_all`:
    /// it had time to get everything.
    pub fn follow(&self, story: &[Told], must_have_all: bool) -> Seen {
        // The place of what it must get next, if that is known.
        let (mut next, mut seen) = (None, Seen::default());
        // A recovery that failed is told again by what comes behind it.
        let mut owes_gap = false;
        let mut live_from = u64::MAX;
        let mut now = 0;
        for Told { at_ns, what } in story {
            now = *at_ns;
            if owes_gap {
                assert!(matches!(what, What::Gap(_) | What::Lost | What::Came(_) | What::Stands(_)), "no gap is told: {what:?}");
            }
            match what {
                What::Came(since) => {
                    (next, owes_gap, live_from) = (since.map(|at| self.place_behind(at)), false, u64::MAX);
                }
                What::Recovered(all) => owes_gap = !all,
                What::Stands(at) => next = Some(self.pass(next, self.place_behind(*at), now, live_from)),
                What::Message(at, text) => {
                    let place = self.place_behind(*at);
                    let own = place.checked_sub(1).map(|own| &self.accepted[own]);
                    assert_eq!(own.map(|own| &own.text), Some(text), "{at:?}");
                    self.pass(next, place - 1, now, live_from);
                    next = Some(place);
                    seen.messages += 1;
                }
                What::Gap(gap) => {
                    next = Some(self.pass_gap(next, gap, now));
                    owes_gap = false;
                    seen.gaps[match gap.reason {
                        GapReason::Trimmed => 0,
                        GapReason::Slow => 1,
                        GapReason::Epoch => 2,
                        GapReason::Future => panic!("nobody has a cursor of the future: {gap:?}"),
                    }] += 1;
                }
                What::Lost => (next, owes_gap) = (None, false),
                What::IsLive(number) => live_from = *number,
            }
        }
        if must_have_all {
            // Who never got anything came to nothing that was kept.
            let last_life = |one: &&Accepted| self.life(one.at) == Some(self.lives.len() - 1);
            let first_kept = || self.accepted.iter().filter(last_life).find(|one| one.kept == Kept::AsItsClassSays);
            assert!(next.is_some() || first_kept().is_none(), "it never got anything");
            self.pass(next, self.accepted.len(), now, live_from);
        }
        seen
    }

    /// Goes on to `place`: nothing that lies between may be owed to the reader.
    fn pass(&self, next: Option<usize>, place: usize, now: u64, live_from: u64) -> usize {
        let Some(next) = next else { return place };
        assert!(next <= place, "{:?} comes again", self.accepted[place].at);
        for missed in &self.accepted[next..place] {
            let may_miss = match missed.kept {
                Kept::AsItsClassSays => false,
                Kept::Briefly => missed.number < live_from && now >= missed.sent_ns + BRIEF_S * 1_000_000_000,
                Kept::Not => missed.number < live_from,
            };
            assert!(may_miss, "{missed:?} is missing in silence");
        }
        place
    }

    fn pass_gap(&self, next: Option<usize>, gap: &Gap, now: u64) -> usize {
        let (from, to) = (self.place_behind(gap.from), self.place_behind(gap.to));
        self.pass(next, from, now, u64::MAX);
        let in_life = self.accepted.iter().filter(|one| one.at.epoch == gap.to.epoch).count() as u64;
        match gap.reason {
            GapReason::Trimmed => {
                assert!(from < to && gap.from.epoch == gap.to.epoch, "{gap:?}");
                assert!(gap.to.offset + self.history_size <= in_life, "nothing had to go: {gap:?}, {in_life} in its life");
            }
            GapReason::Slow => assert!(from < to && self.drops, "{gap:?}"),
            GapReason::Epoch => assert!(self.life(gap.from) < self.life(gap.to), "{gap:?}"),
            GapReason::Future => {}
        }
        to
    }
}

/// A cursor as the server gave it.
pub(super) fn position(cursor: &str) -> Position {
    let Cursor(position) = cursor.parse().unwrap_or_else(|_| panic!("{cursor:?} is no cursor"));
    position
}
