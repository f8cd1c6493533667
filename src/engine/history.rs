//! What is kept of one topic: its newest publications, in the order of their offsets.
//!
//! A history is bounded by number, bytes and age, all three by the topic's class. It is read in pages, because who resumes takes
//! what he missed as fast as his socket does. Nothing is taken out of the middle, so what is kept is always the end of the topic,
//! and what is missing always a piece before it.

use std::collections::VecDeque;
use std::sync::Arc;

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
const ENVELOPE_BYTES: usize = 128;

/// The kept publications of one topic.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: VecDeque<Arc<Publication>>,
    bytes: u64,
    payload_bytes: u64,
}

impl History {
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset of the oldest publication that is kept.
    pub fn first(&self) -> Option<u64> {
        self.kept.front().map(|publication| publication.position.offset)
    }

    /// When the oldest publication is too old.
    pub fn due(&self, keep: Keep) -> Option<Tick> {
        self.kept.front().map(|publication| Tick::from_nanoseconds(publication.numbered_ns).after(keep.ticks))
    }

    /// Keeps the newest publication, and no more than `keep` says.
    pub fn push(&mut self, publication: Arc<Publication>, keep: Keep) {
        if keep.publications == 0 {
            return;
        }
        self.bytes += publication.bytes();
        self.payload_bytes += publication.payload().as_bytes().len() as u64;
        self.kept.push_back(publication);
        while self.kept.len() > keep.publications as usize || (self.payload_bytes > keep.bytes && self.kept.len() > 1) {
            self.drop_first();
        }
    }

    /// Lets go of the oldest publication.
    pub fn drop_first(&mut self) {
        if let Some(publication) = self.kept.pop_front() {
            self.bytes -= publication.bytes();
            self.payload_bytes -= publication.payload().as_bytes().len() as u64;
            self.kept.give_back();
        }
    }

    /// Lets go of what is too old, at most `left` publications, which it counts down; returns when the last of them was due.
    pub fn expire(&mut self, keep: Keep, now: Tick, left: &mut usize) -> Option<Tick> {
        let mut last = None;
        while *left > 0
            && let Some(due) = self.due(keep).filter(|due| *due <= now)
        {
            self.drop_first();
            *left -= 1;
            last = Some(due);
        }
        last
    }

    /// When the oldest publication was numbered.
    pub fn oldest_ns(&self) -> Option<u64> {
        self.kept.front().map(|publication| publication.numbered_ns)
    }

    /// What comes behind `since`, at most `bytes_max` bytes with envelopes, but at least one publication unless that is 0. `last` is the
    /// topic's newest offset, kept or not.
    pub fn page(&self, epoch: Epoch, last: u64, since: Since, bytes_max: usize, now_ns: u64) -> Page {
        let first = self.first().unwrap_or(last + 1);
        let (after, reason) = match since {
            Since::Latest => (last, None),
            Since::Earliest => (first - 1, None),
            Since::Within(_) | Since::From(_) => {
                let Since::From(from_ns) = since.fixed(now_ns) else { unreachable!("a time is fixed to a moment") };
                let index = self.kept.partition_point(|publication| publication.numbered_ns < from_ns);
                (self.kept.get(index).map_or(last, |publication| publication.position.offset - 1), None)
            }
            Since::After(known) if known.epoch != epoch => (first - 1, Some(GapReason::Epoch)),
            Since::After(known) if known.offset > last => (last, Some(GapReason::Future)),
            Since::After(known) if known.offset + 1 < first => (first - 1, Some(GapReason::Trimmed)),
            Since::After(known) => (known.offset, None),
        };
        let gap = match (since, reason) {
            (Since::After(from), Some(reason)) => Some(Gap { from, to: Position { epoch, offset: after }, reason }),
            _ => None,
        };
        let start = self.kept.partition_point(|publication| publication.position.offset <= after);
        let (mut publications, mut bytes) = (Vec::new(), 0);
        for publication in self.kept.range(start..) {
            bytes += publication.payload().as_bytes().len() + ENVELOPE_BYTES;
            if bytes_max == 0 || (bytes > bytes_max && !publications.is_empty()) {
                break;
            }
            publications.push(Arc::clone(publication));
        }
        let is_last = start + publications.len() == self.kept.len();
        let offset = match publications.last() {
            _ if is_last => last,
            Some(publication) => publication.position.offset,
            None => after,
        };
        Page { publications, position: Position { epoch, offset }, newest: last, is_last, gap }
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

    /// Publications 1 to `last`, one a tick, each of a payload of 10 bytes.
    fn history(last: u64, keep: Keep) -> History {
        let mut history = History::default();
        for offset in 1..=last {
            let payload = Payload::new(Kind::Text, &[b'x'; 10]).unwrap();
            let position = Position { epoch: epoch("k"), offset };
            let numbered_ns = offset * TICK_MS * 1_000_000;
            let topic = Topic::new("chat").unwrap();
            history.push(Arc::new(Publication::new(topic, position, 0, numbered_ns, payload, Forms::NONE)), keep);
        }
        history
    }

    fn offsets(history: &History) -> Vec<u64> {
        history.kept.iter().map(|publication| publication.position.offset).collect()
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
        let ticks = |count: u64| Since::Within(Duration::from_millis(count * TICK_MS));
        assert_eq!(page(&history, 5, ticks(2), usize::MAX), (vec![4, 5], 5, true, None));
        assert_eq!(page(&history, 5, ticks(0), usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&history, 5, ticks(1 << 40), usize::MAX), (vec![3, 4, 5], 5, true, None));
    }

    #[test]
    fn what_is_missing_is_told() {
        let history = history(5, KEEP);
        assert_eq!(page(&history, 5, after(1), usize::MAX), (vec![3, 4, 5], 5, true, Some((2, GapReason::Trimmed))));
        assert_eq!(page(&history, 5, after(6), usize::MAX), (vec![], 5, true, Some((5, GapReason::Future))));
        let elsewhere = Since::After(Position { epoch: epoch("z"), offset: 4 });
        assert_eq!(page(&history, 5, elsewhere, usize::MAX), (vec![3, 4, 5], 5, true, Some((2, GapReason::Epoch))));
        let nothing = History::default();
        assert_eq!(page(&nothing, 5, after(5), usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&nothing, 5, after(4), usize::MAX), (vec![], 5, true, Some((5, GapReason::Trimmed))));
        assert_eq!(page(&nothing, 5, Since::Earliest, usize::MAX), (vec![], 5, true, None));
        assert_eq!(page(&nothing, 0, after(0), usize::MAX), (vec![], 0, true, None));
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
