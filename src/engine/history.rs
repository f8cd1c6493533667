//! What is kept of one topic: its newest publications, in the order of their offsets.
//!
//! A history is bounded by number, bytes and age, all three by the topic's class; a publisher may let its publication go sooner
//! (`brief`). It is read in pages, because who resumes takes what he missed as fast as his socket does.
//!
//! What had to go by the class's bounds is lost: all up to one offset, and a reader who stands before it is told of a gap. What is gone
//! by its publisher's word is no loss: whoever was away was not meant to get it, so he is told nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::brief::Brief;
use super::{Page, Since};
use crate::class;
use crate::frame::{Epoch, Gap, GapReason, Position, Publication};
use crate::limits::{GiveBack, Tick};

/// How much of a topic is kept: its class's word, with times in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// Publications; 0 keeps none.
    pub publications: u32,
    /// Bytes of their payloads; the newest is kept whatever its size.
    pub bytes: u64,
    /// For how long each is kept.
    pub ticks: u32,
}

impl From<class::History> for Keep {
    fn from(history: class::History) -> Self {
        Self { publications: history.size, bytes: history.bytes, ticks: Tick::count(history.ttl) }
    }
}

/// What a publication counts for in a page beside its payload: the largest part of its envelope. So a page has a bound of its number,
/// too.
pub(super) const ENVELOPE_BYTES: usize = 128;

/// The kept publications of one topic.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: VecDeque<Arc<Publication>>,
    /// Those that go sooner, by their publishers' word.
    brief: Option<Box<Brief>>,
    bytes: u64,
    payload_bytes: u64,
    /// The newest offset that had to go, or could not be kept, by the class's bounds; 0 before the first.
    lost: u64,
    /// The first moment behind that when it was numbered; in a life that began with a deletion, behind the newest of the life before. 0 if
    /// nothing is lost.
    lost_before_ns: u64,
    /// The same of the life before, which a deletion ended.
    ended_before_ns: u64,
    /// Its place in the index of all histories, which belongs to whoever has that.
    pub place: Option<u64>,
    /// Its topic is durable: a store is told what it lets go of.
    pub is_stored: bool,
}

impl History {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.kept.len() + self.brief.as_ref().map_or(0, |brief| brief.len())
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The oldest publication that is kept.
    fn oldest(&self) -> Option<&Arc<Publication>> {
        let brief = self.brief.as_ref().and_then(|brief| brief.first());
        self.kept.front().into_iter().chain(brief).min_by_key(|publication| publication.position.offset)
    }

    /// The offset of the oldest publication that is kept.
    pub fn first(&self) -> Option<u64> {
        self.oldest().map(|publication| publication.position.offset)
    }

    /// When the oldest publication was numbered.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.oldest().map(|publication| publication.numbered_ns)
    }

    /// When a publication is too old, by its class's word or its publisher's.
    pub fn due(&self, keep: Keep) -> Option<Tick> {
        let kept = self.kept_due(keep);
        self.brief_due().into_iter().chain(kept).min()
    }

    fn kept_due(&self, keep: Keep) -> Option<Tick> {
        self.kept.front().map(|publication| Tick::from_nanoseconds(publication.numbered_ns).after(keep.ticks))
    }

    fn brief_due(&self) -> Option<Tick> {
        self.brief.as_ref()?.next_end().map(|ends_ns| Tick::from_nanoseconds(ends_ns).after(0))
    }

    /// Keeps the newest publication, and no more than `keep` says; it for `ttl` at most.
    pub fn push(&mut self, publication: Arc<Publication>, keep: Keep, ttl: Option<Duration>) {
        if ttl == Some(Duration::ZERO) {
            return;
        }
        if keep.publications == 0 {
            (self.lost, self.lost_before_ns) = (publication.position.offset, publication.numbered_ns + 1);
            return;
        }
        self.bytes += publication.bytes();
        self.payload_bytes += publication.payload().as_bytes().len() as u64;
        match ttl.filter(|ttl| Tick::count(*ttl) < keep.ticks) {
            None => self.kept.push_back(publication),
            Some(ttl) => {
                let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
                self.brief.get_or_insert_default().insert(publication.numbered_ns.saturating_add(ttl_ns), publication);
            }
        }
        while self.len() > keep.publications as usize || (self.payload_bytes > keep.bytes && self.len() > 1) {
            self.drop_first();
        }
    }

    /// Lets go of the oldest publication: it is lost.
    pub fn drop_first(&mut self) {
        let Some((first, numbered_ns)) = self.oldest().map(|oldest| (oldest.position.offset, oldest.numbered_ns)) else { return };
        if self.kept.front().is_some_and(|publication| publication.position.offset == first) {
            self.drop_kept()
        } else {
            self.drop_brief(Brief::pop_first)
        }
        (self.lost, self.lost_before_ns) = (self.lost.max(first), self.lost_before_ns.max(numbered_ns + 1));
    }

    /// Ends this life by a deletion: returns what was kept, and begins anew with nothing but the moment of the newest that is lost so.
    pub fn end(&mut self) -> Self {
        let ended = std::mem::take(self);
        self.is_stored = ended.is_stored;
        let newest = ended.kept.back().into_iter().chain(ended.brief.iter().filter_map(|brief| brief.last()));
        self.ended_before_ns = newest.map(|publication| publication.numbered_ns + 1).fold(ended.lost_before_ns, u64::max);
        self.lost_before_ns = self.ended_before_ns;
        ended
    }

    /// The newest offset that is lost by the class's bounds; 0 if none is.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Goes on from a history of which everything up to this offset is lost.
    pub fn set_lost(&mut self, lost: u64) {
        self.lost = lost;
    }

    /// Before which moment everything was numbered that is lost; 0 if nothing is.
    pub fn lost_before_ns(&self) -> u64 {
        self.lost_before_ns
    }

    /// What is missing for a reader of everything since `begun_ns` who has read nothing of this topic yet.
    pub fn gap_since(&self, begun_ns: u64, epoch: Epoch) -> Option<Gap> {
        let reason = if self.ended_before_ns > begun_ns { GapReason::Epoch } else { GapReason::Trimmed };
        let [from, to] = [0, self.lost].map(|offset| Position { epoch, offset });
        (self.lost_before_ns > begun_ns).then_some(Gap { from, to, reason })
    }

    fn drop_kept(&mut self) {
        if let Some(publication) = self.kept.pop_front() {
            self.uncount(&publication);
            self.kept.give_back();
        }
    }

    fn drop_brief(&mut self, pop: impl FnOnce(&mut Brief) -> Option<Arc<Publication>>) {
        let Some(brief) = &mut self.brief else { return };
        let publication = pop(brief);
        if brief.len() == 0 {
            self.brief = None;
        }
        if let Some(publication) = publication {
            self.uncount(&publication);
        }
    }

    fn uncount(&mut self, publication: &Publication) {
        self.bytes -= publication.bytes();
        self.payload_bytes -= publication.payload().as_bytes().len() as u64;
    }

    /// Lets go of what is too old, at most `left` publications, which it counts down; returns when the last of them was due.
    pub fn expire(&mut self, keep: Keep, now: Tick, left: &mut usize) -> Option<Tick> {
        let mut last = None;
        while *left > 0
            && let Some(due) = self.due(keep).filter(|due| *due <= now)
        {
            if self.brief_due() == Some(due) {
                self.drop_brief(Brief::pop_next_end)
            } else {
                self.drop_first()
            }
            *left -= 1;
            last = Some(due);
        }
        last
    }

    /// What is kept behind this offset and not over yet, in the order of the offsets.
    fn behind(&self, after: u64, now_ns: u64) -> impl Iterator<Item = &Arc<Publication>> {
        let start = self.kept.partition_point(|publication| publication.position.offset <= after);
        let mut kept = self.kept.range(start..).peekable();
        let mut brief = self.brief.iter().flat_map(move |brief| brief.behind(after, now_ns)).peekable();
        std::iter::from_fn(move || match (kept.peek(), brief.peek()) {
            (Some(next), Some(sooner)) if sooner.position.offset < next.position.offset => brief.next(),
            (Some(_), _) => kept.next(),
            (None, _) => brief.next(),
        })
    }

    /// The offset of the first publication that was numbered at `from_ns` or later.
    fn first_since(&self, from_ns: u64) -> Option<u64> {
        let index = self.kept.partition_point(|publication| publication.numbered_ns < from_ns);
        let kept = self.kept.get(index).map(|publication| publication.position.offset);
        let brief = self.brief.as_ref().and_then(|brief| brief.first_since(from_ns));
        kept.into_iter().chain(brief).min()
    }

    /// What comes behind `since`, at most `bytes_max` bytes with envelopes, but at least one publication unless that is 0. `last` is the
    /// topic's newest offset, kept or not.
    pub fn page(&self, epoch: Epoch, last: u64, since: Since, bytes_max: usize, now_ns: u64) -> Page {
        let before_first = || self.behind(0, now_ns).next().map_or(last, |publication| publication.position.offset - 1);
        let (after, reason) = match since {
            Since::Latest => (last, None),
            Since::Earliest => (before_first(), None),
            Since::Within(_) | Since::From(_) => {
                let Since::From(from_ns) = since.fixed(now_ns) else { unreachable!("a time is fixed to a moment") };
                (self.first_since(from_ns).map_or(last, |offset| offset - 1), None)
            }
            Since::After(known) if known.epoch != epoch => (before_first(), Some(GapReason::Epoch)),
            Since::After(known) if known.offset > last => (last, Some(GapReason::Future)),
            Since::After(known) if known.offset < self.lost => (self.lost, Some(GapReason::Trimmed)),
            Since::After(known) => (known.offset, None),
        };
        let gap = match (since, reason) {
            (Since::After(from), Some(reason)) => Some(Gap { from, to: Position { epoch, offset: after }, reason }),
            _ => None,
        };
        let (mut publications, mut bytes, mut rest) = (Vec::new(), 0, self.behind(after, now_ns));
        let is_last = loop {
            let Some(publication) = rest.next() else { break true };
            bytes += publication.payload().as_bytes().len() + ENVELOPE_BYTES;
            if bytes_max == 0 || (bytes > bytes_max && !publications.is_empty()) {
                break false;
            }
            publications.push(Arc::clone(publication));
        };
        let offset = match publications.last() {
            _ if is_last => last,
            Some(publication) => publication.position.offset,
            None => after,
        };
        Page { publications, position: Position { epoch, offset }, newest: last, lost: self.lost, is_last, gap }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::{Forms, Kind, Payload, Topic};
    use crate::limits::TICK_MS;

    const KEEP: Keep = Keep { publications: 3, bytes: u64::MAX, ticks: 100 };

    fn epoch(name: &str) -> Epoch {
        name.parse().unwrap()
    }

    fn history(last: u64, keep: Keep) -> History {
        history_with(last, keep, |_| None)
    }

    /// Publications 1 to `last`, one a tick, each of a payload of 10 bytes.
    fn history_with(last: u64, keep: Keep, ttl: impl Fn(u64) -> Option<Duration>) -> History {
        let mut history = History::default();
        for offset in 1..=last {
            let payload = Payload::new(Kind::Text, &[b'x'; 10]).unwrap();
            let position = Position { epoch: epoch("k"), offset };
            let numbered_ns = offset * TICK_MS * 1_000_000;
            let topic = Topic::new("chat").unwrap();
            history.push(Arc::new(Publication::new(topic, position, 0, numbered_ns, payload, Forms::NONE)), keep, ttl(offset));
        }
        history
    }

    fn offsets(history: &History) -> Vec<u64> {
        history.behind(0, 0).map(|publication| publication.position.offset).collect()
    }

    fn ticks(count: u64) -> Duration {
        Duration::from_millis(count * TICK_MS)
    }

    /// Offsets of the page, where the reader stands, whether it is the last, and the gap before it.
    fn page(history: &History, last: u64, since: Since, bytes_max: usize) -> (Vec<u64>, u64, bool, Option<(u64, GapReason)>) {
        let page = history.page(epoch("k"), last, since, bytes_max, (last + 1) * TICK_MS * 1_000_000);
        let offsets = page.publications.iter().map(|publication| publication.position.offset).collect();
        (offsets, page.position.offset, page.is_last, page.gap.map(|gap| (gap.to.offset, gap.reason)))
    }

    fn after(offset: u64) -> Since {
        Since::After(Position { epoch: epoch("k"), offset })
    }

    #[test]
    fn number_bytes_and_age_are_bounds() {
        assert_eq!(offsets(&history(5, KEEP)), [3, 4, 5]);
        assert_eq!(offsets(&history(5, Keep { publications: 0, ..KEEP })), [0; 0]);
        assert_eq!(offsets(&history(5, Keep { bytes: 20, ..KEEP })), [4, 5]);
        assert_eq!(offsets(&history(5, Keep { bytes: 1, ..KEEP })), [5], "the newest is kept whatever its size");
        let mut aging = history(5, KEEP);
        let due = aging.due(KEEP).unwrap();
        assert_eq!((aging.expire(KEEP, Tick(due.0 - 1), &mut 9), offsets(&aging).len()), (None, 3));
        assert_eq!((aging.expire(KEEP, Tick(due.0 + 1), &mut 1), offsets(&aging)), (Some(due), vec![4, 5]), "so many at a time");
        assert_eq!((aging.expire(KEEP, Tick(due.0 + 1), &mut 9), offsets(&aging)), (Some(Tick(due.0 + 1)), vec![5]));
        assert_eq!((aging.expire(KEEP, Tick::NEVER, &mut 9), aging.bytes(), aging.first()), (Some(Tick(due.0 + 2)), 0, None));
    }

    #[test]
    fn a_page_begins_where_it_is_asked_for() {
        let history = history(5, KEEP);
        assert_eq!(page(&history, 5, Since::Latest, usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&history, 5, Since::Earliest, usize::MAX), (vec![3, 4, 5], 5, true, None));
        assert_eq!(page(&history, 5, after(3), usize::MAX), (vec![4, 5], 5, true, None));
        assert_eq!(page(&history, 5, after(2), usize::MAX), (vec![3, 4, 5], 5, true, None));
        assert_eq!(page(&history, 5, after(5), usize::MAX), (vec![], 5, true, None));
        let within = |count: u64| Since::Within(ticks(count));
        assert_eq!(page(&history, 5, within(2), usize::MAX), (vec![4, 5], 5, true, None));
        assert_eq!(page(&history, 5, within(0), usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&history, 5, within(1 << 40), usize::MAX), (vec![3, 4, 5], 5, true, None));
    }

    #[test]
    fn what_is_missing_is_told() {
        let history = history(5, KEEP);
        assert_eq!(page(&history, 5, after(1), usize::MAX), (vec![3, 4, 5], 5, true, Some((2, GapReason::Trimmed))));
        assert_eq!(page(&history, 5, after(6), usize::MAX), (vec![], 5, true, Some((5, GapReason::Future))));
        let elsewhere = Since::After(Position { epoch: epoch("z"), offset: 4 });
        assert_eq!(page(&history, 5, elsewhere, usize::MAX), (vec![3, 4, 5], 5, true, Some((2, GapReason::Epoch))));
        let nothing = history_with(5, Keep { publications: 0, ..KEEP }, |_| None);
        assert_eq!(page(&nothing, 5, after(5), usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&nothing, 5, after(4), usize::MAX), (vec![], 5, true, Some((5, GapReason::Trimmed))));
        assert_eq!(page(&nothing, 5, Since::Earliest, usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&History::default(), 0, after(0), usize::MAX), (vec![], 0, true, None));
    }

    #[test]
    fn what_goes_by_its_publishers_word_is_passed_over_in_silence() {
        // 2 is never kept, 3 and 5 for two ticks and for four.
        let ttl = |offset| match offset {
            2 => Some(Duration::ZERO),
            3 => Some(ticks(2)),
            5 => Some(ticks(4)),
            _ => None,
        };
        let keep = Keep { publications: 9, ..KEEP };
        let mut history = history_with(6, keep, ttl);
        assert_eq!(offsets(&history), [1, 3, 4, 5, 6]);
        let bytes = history.bytes();
        // At the time of the page 3 is over, and still there.
        assert_eq!(page(&history, 6, after(1), usize::MAX), (vec![4, 5, 6], 6, true, None));
        assert_eq!(page(&history, 6, after(2), 1), (vec![4], 4, false, None));
        assert_eq!(page(&history, 6, Since::Within(ticks(2)), usize::MAX), (vec![5, 6], 6, true, None));
        assert_eq!(history.due(keep), Some(Tick(6)));
        assert_eq!((history.expire(keep, Tick(6), &mut 9), offsets(&history)), (Some(Tick(6)), vec![1, 4, 5, 6]));
        assert_eq!(history.expire(keep, Tick(10), &mut 9), Some(Tick(10)));
        assert_eq!((offsets(&history), history.bytes()), (vec![1, 4, 6], bytes * 3 / 5));
        assert!(history.brief.is_none(), "and costs nothing any more");
        assert_eq!(page(&history, 6, after(4), usize::MAX), (vec![6], 6, true, None));
    }

    #[test]
    fn what_goes_by_the_class_is_lost_whatever_its_publisher_said() {
        let brief = |offset: u64| offset.is_multiple_of(2).then(|| ticks(50));
        let history = history_with(6, KEEP, brief);
        assert_eq!(offsets(&history), [4, 5, 6]);
        assert_eq!(page(&history, 6, after(1), usize::MAX), (vec![4, 5, 6], 6, true, Some((3, GapReason::Trimmed))));
        let nothing = history_with(6, Keep { publications: 0, ..KEEP }, brief);
        assert_eq!(page(&nothing, 6, after(5), usize::MAX), (vec![], 6, true, Some((6, GapReason::Trimmed))));
        let live = history_with(6, Keep { publications: 0, ..KEEP }, |_| Some(Duration::ZERO));
        assert_eq!(page(&live, 6, after(1), usize::MAX), (vec![], 6, true, None), "to be kept was not asked for");
        let longer = history_with(3, KEEP, |_| Some(ticks(1000)));
        assert!(longer.brief.is_none() && longer.due(KEEP) == Some(Tick(1).after(KEEP.ticks)), "the class's age holds");
    }

    #[test]
    fn a_history_is_read_page_by_page() {
        let history = history(5, KEEP);
        assert_eq!(page(&history, 5, after(2), 2 * (10 + ENVELOPE_BYTES)), (vec![3, 4], 4, false, None));
        assert_eq!(page(&history, 5, after(4), 2 * ENVELOPE_BYTES), (vec![5], 5, true, None));
        assert_eq!(page(&history, 5, after(2), 1), (vec![3], 3, false, None), "a page has at least one");
        assert_eq!(page(&history, 5, after(1), 0), (vec![], 2, false, Some((2, GapReason::Trimmed))), "but for a look");
        assert_eq!(page(&history, 5, after(5), 0), (vec![], 5, true, None));
    }
}
