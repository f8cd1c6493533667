//! What is kept of all topics that a pattern matches, a bounded piece at a time.
//!
//! The topics are read one after the other, in the order of their names, each as far as it goes at that moment. Whoever reads so knows by a
//! name alone what lies behind him: a topic up to it has been read to its end, also one that begins its life there later. So the place of a
//! reader among a million topics is one name, and nothing has to be listed or held for him.

use std::ops::Bound;
use std::sync::Arc;

use super::MemoryEngine;
use crate::engine::history::ENVELOPE_BYTES;
use crate::engine::{Page, Scan, Sheaf};
use crate::frame::Since;

/// Topics looked at for one sheaf: some 100 microseconds where nothing of them is wanted.
const TOPICS_MAX: usize = 256;

impl<R, S> MemoryEngine<R, S> {
    /// The next piece for a reader.
    pub(super) fn gather(&self, scan: &Scan<S>) -> Sheaf {
        let Scan { pattern, except, since, place, begun_ns, now_ns, .. } = scan;
        let mut sheaf = Sheaf { place: place.clone(), now_ns: *now_ns, ..Sheaf::default() };
        let mut bytes_left = scan.bytes_max;
        let from = |start: Bound<&str>| self.names.range::<str, _>((start, Bound::Unbounded));
        let mut names = from(match (&place.begun, &place.read) {
            (Some((topic, _)), _) => Bound::Included(topic.as_str()),
            (None, Some(topic)) => Bound::Excluded(topic.as_str()),
            (None, None) => Bound::Included(pattern.prefix()),
        });
        for _ in 0..TOPICS_MAX {
            if bytes_left == 0 {
                return sheaf;
            }
            let Some(topic) = names.next().filter(|topic| topic.as_str().starts_with(pattern.prefix())) else {
                sheaf.is_last = true;
                sheaf.has_forgotten = self.forgotten_before_ns > *begun_ns;
                return sheaf;
            };
            let position = sheaf.place.begun.take().filter(|(begun, _)| begun == topic).map(|(_, position)| position);
            if !pattern.matches(topic.as_str()) {
                // `*` stands for one segment: all that is below this one is passed over in one step. `0` comes next behind `/`.
                let segment = topic.as_str()[pattern.prefix().len()..].split('/').next().unwrap_or_default();
                names = from(Bound::Included(&format!("{}{segment}0", pattern.prefix())));
            } else if let Some(life) = self.topics.get(topic.as_str())
                && !except.iter().any(|except| except.matches(topic.as_str()))
            {
                let since = position.map_or(*since, Since::After);
                let page = life.history.page(life.epoch, life.last, since, bytes_left, *now_ns);
                let unread = || position.is_none().then(|| life.history.gap_since(*begun_ns, life.epoch)).flatten();
                let gap = page.gap.or_else(unread);
                let bytes = bytes_of(&page) + if gap.is_some() { ENVELOPE_BYTES } else { 0 };
                if bytes > bytes_left && !(sheaf.publications.is_empty() && sheaf.gaps.is_empty()) {
                    sheaf.place.begun = position.map(|position| (topic.clone(), position));
                    return sheaf;
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                if let Some(gap) = gap {
                    sheaf.gaps.push((sheaf.publications.len(), topic.clone(), gap));
                }
                sheaf.publications.extend(page.publications);
                if !page.is_last {
                    sheaf.place.begun = Some((topic.clone(), page.position));
                    return sheaf;
                }
            }
            sheaf.place.read = Some(topic.clone());
        }
        sheaf
    }
}

fn bytes_of(page: &Page) -> usize {
    page.publications.iter().map(|publication: &Arc<_>| publication.payload().as_bytes().len() + ENVELOPE_BYTES).sum()
}
