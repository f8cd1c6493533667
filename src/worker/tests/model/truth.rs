//! What a topic was: every publication that was accepted, life after life, and what a reader of it may and must have seen.

use crate::frame::{Cursor, Gap, GapReason, Position, Since};

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

/// When something was seen or said: the time, and how many publications had been sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub ns: u64,
    pub sent: u64,
}

/// A publication whose POST was answered with 200.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub at: Position,
    pub text: String,
    pub kept: Kept,
    pub sent: Moment,
    pub answered_ns: u64,
}

/// What a reader was told, and when it read that.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub at: Moment,
    pub what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// It came, on a new connection.
    Came,
    /// A name that matches the topic is in force.
    InForce(Start),
    /// It leaves the name that it began with, or the last that matches the topic.
    Left,
    /// Whether all behind its cursor can be had.
    Recovered(bool),
    /// It stands here.
    Stands(Position),
    Message(Position, String),
    Gap(Gap),
    /// Something may be missing, and nothing says what.
    Lost,
    /// It has got everything, and reads: of what is sent from this number on it must get even what nobody keeps.
    IsLive(u64),
}

/// From where on a name brings a topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// What was asked for, unless an earlier name brings the topic: then it adds nothing that is older.
    pub since: Option<Since>,
    /// When it was asked for.
    pub asked_ns: u64,
    /// All is promised that is sent from this number on, because its answer has been read.
    pub promised_from: u64,
    /// From this one on also what nobody keeps, because nothing is read back.
    pub live_from: u64,
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
    /// Gaps that tell nothing but that there may be one.
    pub lost: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.gaps.iter_mut().zip(other.gaps).for_each(|(sum, gaps)| *sum += gaps);
        self.lost += other.lost;
    }
}

/// Where a reader stands on its connection.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// The place of what it may get next.
    next: usize,
    /// It must get that.
    is_known: bool,
    /// Some name is in force, and not left.
    is_there: bool,
    /// What is sent from this number on it must get in any case.
    promised_from: u64,
    /// What was sent up to this number may be missing, as it was told.
    lost_to: u64,
    /// What has been kept since this time it must get, as far as it is still kept.
    kept_from: Option<u64>,
    /// Of what is sent from this number on it must get also what nobody keeps.
    live_from: u64,
    /// What the first of its names asked for, and when.
    since: Option<Since>,
    asked_ns: u64,
}

impl Place {
    const NOWHERE: Self = Self {
        next: 0,
        is_known: false,
        is_there: false,
        promised_from: u64::MAX,
        lost_to: 0,
        kept_from: None,
        live_from: u64::MAX,
        since: None,
        asked_ns: 0,
    };

    /// Something came, or is told to be missing, up to here.
    fn stand(&mut self, next: usize, newest: Option<&Accepted>) {
        // What is older than the promise says nothing of what comes behind it.
        let is_promised = newest.is_some_and(|newest| newest.sent.sent >= self.promised_from);
        self.is_known |= self.kept_from.take().is_some() || is_promised;
        self.next = next;
    }

    /// Whether it may get this as the first of the topic.
    fn may_have(&self, one: &Accepted) -> bool {
        match self.since {
            Some(Since::Within(span)) => one.answered_ns + span.as_nanos() as u64 >= self.asked_ns,
            // What is under way to others may reach it, too.
            _ => true,
        }
    }
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

    /// Follows a reader through all it was told; panics where something is missing in silence, comes twice or out of order. `end`: when it had
    /// had time to get everything.
    pub fn follow(&self, story: &[Told], end: Option<Moment>) -> Seen {
        let (mut place, mut seen) = (Place::NOWHERE, Seen::default());
        // A recovery that failed is told again by what comes behind it.
        let mut owes_gap = false;
        for Told { at: now, what } in story {
            if owes_gap {
                let may_precede = matches!(what, What::InForce(_) | What::Stands(_));
                let is_told = matches!(what, What::Gap(_) | What::Lost | What::Came | What::Left);
                assert!(may_precede || is_told, "no gap is told: {what:?}");
                owes_gap = may_precede;
            }
            match what {
                What::Came => place = Place::NOWHERE,
                What::InForce(start) => self.begin(&mut place, start, *now),
                What::Left => place = Place { next: place.next, lost_to: place.lost_to, ..Place::NOWHERE },
                What::Recovered(all) => owes_gap = !all,
                What::Stands(at) => {
                    let at = self.place_behind(*at);
                    let next = self.pass(&place, at, *now);
                    // Who asked for what is kept gets that when it is read, and stands nowhere before.
                    if place.kept_from.is_none() {
                        (place.next, place.is_known) = (next, true);
                    }
                }
                What::Message(at, text) => {
                    let behind = self.place_behind(*at);
                    let own = behind.checked_sub(1).map(|own| &self.accepted[own]).expect("a message is of something");
                    assert_eq!(own.text, *text, "{at:?}");
                    assert!(place.is_known || place.may_have(own), "{own:?} comes, and was not asked for");
                    self.pass(&place, behind - 1, *now);
                    place.stand(behind, Some(own));
                    seen.messages += 1;
                }
                What::Gap(gap) => {
                    let to = self.pass_gap(&place, gap, *now);
                    place.stand(to, to.checked_sub(1).map(|newest| &self.accepted[newest]));
                    seen.gaps[match gap.reason {
                        GapReason::Trimmed => 0,
                        GapReason::Slow => 1,
                        GapReason::Epoch => 2,
                        GapReason::Future | GapReason::Pattern => panic!("nobody comes with such a cursor: {gap:?}"),
                    }] += 1;
                }
                What::Lost => {
                    (place.is_known, place.kept_from) = (false, None);
                    // What is sent from now on is promised as ever.
                    place.lost_to = now.sent;
                    place.promised_from = place.promised_from.max(now.sent);
                    seen.lost += 1;
                }
                What::IsLive(number) => place.live_from = *number,
            }
        }
        if let Some(end) = end {
            self.pass(&place, self.accepted.len(), end);
        }
        seen
    }

    /// One more name of the topic is in force.
    fn begin(&self, place: &mut Place, start: &Start, now: Moment) {
        let Start { since, asked_ns, promised_from, live_from } = *start;
        if !std::mem::replace(&mut place.is_there, true) {
            (place.since, place.asked_ns, place.live_from) = (since, asked_ns, live_from);
        }
        place.promised_from = place.promised_from.min(promised_from.max(place.lost_to));
        let kept_from = match since {
            None | Some(Since::Latest) => return,
            Some(Since::Earliest) => 0,
            Some(Since::Within(span)) => now.ns.saturating_sub(span.as_nanos() as u64),
            Some(Since::From(_)) => panic!("nobody asks like that"),
            Some(Since::After(at)) => {
                assert!(!place.is_known, "what is behind {at:?} was asked for, and something came ahead of it");
                (place.next, place.is_known) = (self.place_behind(at), true);
                return;
            }
        };
        assert!(!place.is_known, "what is kept was asked for, and something came ahead of it");
        (place.next, place.kept_from) = (0, Some(kept_from));
    }

    /// Goes on to `to`: nothing that lies between may be owed to the reader.
    fn pass(&self, place: &Place, to: usize, now: Moment) -> usize {
        assert!(place.next <= to, "{:?} comes again", self.accepted[to].at);
        for (at, missed) in self.accepted[..to].iter().enumerate().skip(place.next) {
            let is_owed = place.is_known
                || missed.sent.sent >= place.promised_from
                || (place.kept_from.is_some_and(|from| missed.sent.ns >= from) && self.is_kept(at, to, now));
            let is_excused = match missed.kept {
                Kept::AsItsClassSays => false,
                Kept::Briefly => missed.sent.sent < place.live_from && now.ns >= missed.sent.ns + BRIEF_S * 1_000_000_000,
                Kept::Not => missed.sent.sent < place.live_from,
            };
            assert!(!is_owed || is_excused, "{missed:?} is missing in silence");
        }
        to
    }

    /// Whether a publication is surely kept, when the reader is in the life of the one at `to`, or of the last.
    fn is_kept(&self, at: usize, to: usize, now: Moment) -> bool {
        let life = self.life(self.accepted[at].at);
        let current = self.accepted.get(to).map_or(Some(self.lives.len() - 1), |one| self.life(one.at));
        let behind = self.accepted[at + 1..].iter().filter(|one| self.life(one.at) == life);
        let may_push = behind.filter(|one| one.kept != Kept::Not && one.sent.sent < now.sent);
        life == current && (may_push.count() as u64) < self.history_size
    }

    fn pass_gap(&self, place: &Place, gap: &Gap, now: Moment) -> usize {
        let (from, to) = (self.place_behind(gap.from), self.place_behind(gap.to));
        // One from the beginning of a life on covers all that was before; and what was kept went with its life.
        if gap.reason != GapReason::Epoch || gap.from.epoch != gap.to.epoch {
            let kept_from = place.kept_from.filter(|_| gap.reason != GapReason::Epoch);
            self.pass(&Place { live_from: u64::MAX, kept_from, ..*place }, from, now);
        }
        let in_life = self.accepted.iter().filter(|one| one.at.epoch == gap.to.epoch).count() as u64;
        match gap.reason {
            GapReason::Trimmed => {
                assert!(from < to && gap.from.epoch == gap.to.epoch, "{gap:?}");
                assert!(gap.to.offset + self.history_size <= in_life, "nothing had to go: {gap:?}, {in_life} in its life");
            }
            GapReason::Slow => assert!(from < to && self.drops, "{gap:?}"),
            // Who reads behind a pattern may stand nowhere in a topic, so it is told of the beginning of this life.
            GapReason::Epoch if gap.from.epoch == gap.to.epoch => {
                assert!(!place.is_known && gap.from.offset == 0 && self.life(gap.to) > Some(0), "{gap:?}");
            }
            GapReason::Epoch => assert!(self.life(gap.from) < self.life(gap.to), "{gap:?}"),
            GapReason::Future | GapReason::Pattern => {}
        }
        to
    }
}

/// A cursor as the server gave it.
pub(super) fn position(cursor: &str) -> Position {
    let Cursor(position) = cursor.parse().unwrap_or_else(|_| panic!("{cursor:?} is no cursor"));
    position
}
