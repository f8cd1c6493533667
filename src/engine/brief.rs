//! Publications that go before their topic's class lets go of them, because their publisher said so.
//!
//! They stand beside the others and not among them: what the class keeps goes from its front alone, in constant time, and a topic
//! whose publishers say nothing pays for a pointer. Here any may be the next to go, so they are found by offset and by their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::frame::Publication;

/// Kept publications of one topic, each with an end of its own; times in nanoseconds of the driver's clock.
#[derive(Debug, Default)]
pub(super) struct Brief {
    by_offset: BTreeMap<u64, Entry>,
    /// When each ends, and its offset.
    by_end: BTreeSet<(u64, u64)>,
}

#[derive(Debug)]
struct Entry {
    ends_ns: u64,
    publication: Arc<Publication>,
}

impl Brief {
    pub fn len(&self) -> usize {
        self.by_offset.len()
    }

    /// Keeps a publication until `ends_ns`.
    pub fn insert(&mut self, ends_ns: u64, publication: Arc<Publication>) {
        let offset = publication.position.offset;
        self.by_end.insert((ends_ns, offset));
        self.by_offset.insert(offset, Entry { ends_ns, publication });
    }

    /// The oldest.
    pub fn first(&self) -> Option<&Arc<Publication>> {
        self.by_offset.first_key_value().map(|(_, entry)| &entry.publication)
    }

    /// The newest.
    pub fn last(&self) -> Option<&Arc<Publication>> {
        self.by_offset.last_key_value().map(|(_, entry)| &entry.publication)
    }

    /// Takes the oldest out.
    pub fn pop_first(&mut self) -> Option<Arc<Publication>> {
        let (offset, entry) = self.by_offset.pop_first()?;
        self.by_end.remove(&(entry.ends_ns, offset));
        Some(entry.publication)
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<u64> {
        self.by_end.first().map(|(ends_ns, _)| *ends_ns)
    }

    /// Takes out the one that ends next.
    pub fn pop_next_end(&mut self) -> Option<Arc<Publication>> {
        let (_, offset) = self.by_end.pop_first()?;
        self.by_offset.remove(&offset).map(|entry| entry.publication)
    }

    /// Those behind this offset that have not ended yet, in the order of their offsets.
    pub fn behind(&self, after: u64, now_ns: u64) -> impl Iterator<Item = &Arc<Publication>> {
        let entries = self.by_offset.range(after + 1..).map(|(_, entry)| entry);
        entries.filter(move |entry| entry.ends_ns > now_ns).map(|entry| &entry.publication)
    }

    /// The offset of the first that was numbered at `from_ns` or later: halves the offsets there can be, since offsets grow with time.
    pub fn first_since(&self, from_ns: u64) -> Option<u64> {
        let (mut low, mut high) = (*self.by_offset.first_key_value()?.0, self.by_offset.last_key_value()?.0 + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.by_offset.range(middle..).next() {
                Some((offset, entry)) if entry.publication.numbered_ns < from_ns => low = offset + 1,
                _ => high = middle,
            }
        }
        self.by_offset.range(low..).next().map(|(offset, _)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Epoch, Forms, Kind, Payload, Position, Topic};

    /// The publication of this offset, numbered at ten times that.
    fn publication(offset: u64) -> Arc<Publication> {
        let position = Position { epoch: Epoch::from_random(1), offset };
        let payload = Payload::new(Kind::Text, b"x").unwrap();
        Arc::new(Publication::new(Topic::new("chat").unwrap(), position, 0, offset * 10, payload, Forms::NONE))
    }

    fn offsets<'a>(publications: impl IntoIterator<Item = &'a Arc<Publication>>) -> Vec<u64> {
        publications.into_iter().map(|publication| publication.position.offset).collect()
    }

    #[test]
    fn they_are_read_by_offset_and_go_by_their_ends() {
        let mut brief = Brief::default();
        for (offset, ends_ns) in [(2, 900), (5, 700), (6, 700), (9, 800)] {
            brief.insert(ends_ns, publication(offset));
        }
        assert_eq!(offsets(brief.behind(2, 699)), [5, 6, 9]);
        assert_eq!(offsets(brief.behind(0, 700)), [2, 9], "over is over, also before it is taken out");
        assert_eq!((brief.len(), brief.next_end()), (4, Some(700)));
        assert_eq!(offsets(&[brief.pop_next_end().unwrap(), brief.pop_next_end().unwrap()]), [5, 6]);
        assert_eq!((brief.next_end(), offsets(brief.first())), (Some(800), vec![2]));
        assert_eq!(offsets(&brief.pop_first()), [2]);
        assert_eq!((brief.next_end(), brief.len()), (Some(800), 1));
        assert_eq!(offsets(&brief.pop_next_end()), [9]);
        assert!(brief.pop_next_end().is_none() && brief.pop_first().is_none() && brief.next_end().is_none());
    }

    #[test]
    fn a_moment_is_found_between_offsets_with_holes() {
        let mut brief = Brief::default();
        assert_eq!(brief.first_since(0), None);
        for offset in [3, 4, 50, 1000] {
            brief.insert(u64::MAX, publication(offset));
        }
        for (from_ns, expected) in
            [(0, Some(3)), (30, Some(3)), (31, Some(4)), (41, Some(50)), (9999, Some(1000)), (10_001, None)]
        {
            assert_eq!(brief.first_since(from_ns), expected, "{from_ns}");
        }
    }
}
