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

#[cfg(test)]
mod tests {
    use super::super::TOPIC_LINGER;
    use super::super::tests::{append, engine, keeping, topic};
    use super::*;
    use crate::engine::{Engine, EngineEvent, Place};
    use crate::frame::Pattern;
    use crate::limits::{TICK_MS, Tick};

    /// Reads behind a pattern to the end, in sheaves of so many bytes: topics and offsets, and what is told as missing.
    fn scanned(engine: &mut MemoryEngine<u32>, pattern: &str, except: &[&str], bytes_max: usize) -> Vec<String> {
        let (mut place, mut got) = (Place::default(), Vec::new());
        for _ in 0..10_000 {
            let sheaf = scan(engine, pattern, except, place, bytes_max, 1);
            assert!(bytes_max > 1 || sheaf.publications.len() <= 1);
            let mut gaps = sheaf.gaps.iter().peekable();
            for (at, publication) in sheaf.publications.iter().enumerate() {
                got.extend(
                    gaps.next_if(|gap| gap.0 == at)
                        .map(|(_, topic, gap)| format!("{topic} {} to {}", gap.reason.name(), gap.to.offset)),
                );
                got.push(format!("{} {}", publication.topic, publication.position.offset));
            }
            got.extend(gaps.map(|(_, topic, gap)| format!("{topic} {} to {}", gap.reason.name(), gap.to.offset)));
            if sheaf.is_last {
                got.extend(sheaf.has_forgotten.then(|| "forgotten".to_owned()));
                return got;
            }
            place = sheaf.place;
        }
        panic!("the reading comes to no end");
    }

    fn scan(
        engine: &mut MemoryEngine<u32>,
        pattern: &str,
        except: &[&str],
        place: Place,
        bytes_max: usize,
        begun_ns: u64,
    ) -> Sheaf {
        let parse = |text: &str| Pattern::parse(text).unwrap();
        let (pattern, except) = (parse(pattern), except.iter().map(|text| parse(text)).collect());
        engine.scan(Scan { request: 7, pattern, except, since: Since::Earliest, place, begun_ns, bytes_max, now_ns: u64::MAX });
        let Some(EngineEvent::Scanned { request: 7, sheaf }) = engine.poll() else { panic!("no sheaf") };
        sheaf
    }

    #[test]
    fn what_is_behind_a_pattern_is_read_topic_by_topic() {
        let mut engine = keeping(99, 9, Tick(5000));
        for name in ["a/x", "a/b/c", "a", "a/b", "a/x", "b/a", "a/b/d/e", "a/b-c", "a/b"] {
            append(&mut engine, 0, name, Tick(0)).unwrap();
        }
        for bytes_max in [1, 2 * (5 + ENVELOPE_BYTES), usize::MAX] {
            let mut scanned = |pattern, except: &[&str]| scanned(&mut engine, pattern, except, bytes_max);
            assert_eq!(scanned("a/*", &[]), ["a/b 1", "a/b 2", "a/b-c 1", "a/x 1", "a/x 2"]);
            assert_eq!(scanned("a/**", &["a/x", "a/b/*"]), ["a/b 1", "a/b 2", "a/b-c 1", "a/b/d/e 1"]);
            assert_eq!(scanned("*", &[]), ["a 1"]);
            assert_eq!(scanned("**", &["a/**"]), ["a 1", "b/a 1"]);
            assert_eq!(scanned("c/**", &[]), [""; 0]);
        }
    }

    #[test]
    fn a_sheaf_is_bounded_in_bytes_and_in_topics_looked_at() {
        let mut engine = keeping(9999, 9, Tick(5000));
        for number in 0..1000 {
            append(&mut engine, 0, &format!("a/{number:03}"), Tick(0)).unwrap();
        }
        let sheaf = scan(&mut engine, "a/*", &["a/**"], Place::default(), usize::MAX, 1);
        assert_eq!((sheaf.publications.len(), sheaf.is_last), (0, false));
        assert_eq!(sheaf.place, Place { read: Some(topic("a/255")), begun: None });
        let size = 5 + ENVELOPE_BYTES;
        let sheaf = scan(&mut engine, "a/*", &[], sheaf.place, 3 * size + size / 2, 1);
        let names: Vec<_> = sheaf.publications.iter().map(|publication| publication.topic.as_str()).collect();
        assert_eq!(names, ["a/256", "a/257", "a/258"], "what does not fit waits");
        let look = scan(&mut engine, "a/*", &[], Place::default(), 0, 1);
        assert_eq!((look.publications.len(), look.place, look.is_last, look.now_ns), (0, Place::default(), false, u64::MAX));
    }

    #[test]
    fn a_reader_is_told_what_was_lost_since_it_began_and_nothing_else() {
        let mut engine = keeping(9, 1, Tick(5000));
        let ns = |tick: u32| u64::from(tick) * TICK_MS * 1_000_000;
        for (name, tick) in [("old", 10), ("old", 11), ("new", 10), ("new", 20), ("new", 21), ("gone", 20), ("kept", 20)] {
            append(&mut engine, 0, name, Tick(tick)).unwrap();
        }
        engine.delete(0, topic("gone"));
        engine.poll();
        let told = |engine: &mut MemoryEngine<u32>, begun: u32| {
            let sheaf = scan(engine, "**", &[], Place::default(), usize::MAX, ns(begun));
            let gaps = sheaf.gaps.iter().map(|(at, topic, gap)| (*at, topic.to_string(), gap.reason.name(), gap.to.offset));
            (gaps.collect::<Vec<_>>(), sheaf.has_forgotten)
        };
        let gap = |at, name: &str, reason, to| (at, name.to_owned(), reason, to);
        assert_eq!(told(&mut engine, 12), (vec![gap(0, "gone", "epoch", 0), gap(1, "new", "trimmed", 2)], false));
        assert_eq!(told(&mut engine, 21), (vec![], false), "2 of it was numbered earlier");
        append(&mut engine, 0, "gone", Tick(21)).unwrap();
        append(&mut engine, 0, "gone", Tick(21)).unwrap();
        assert_eq!(told(&mut engine, 12).0[0], gap(0, "gone", "epoch", 1), "of the life before, and of this one");
        assert_eq!(told(&mut engine, 21).0, vec![gap(0, "gone", "trimmed", 1)]);
        // All of it ages and is forgotten: nobody knows of which topic something is missing.
        engine.expire(Tick(5022));
        engine.expire(Tick(5022).after(Tick::count(TOPIC_LINGER)));
        engine.expire(Tick::NEVER);
        assert_eq!((engine.topics(), engine.names.len()), (0, 0));
        assert_eq!((told(&mut engine, 21), told(&mut engine, 22)), ((vec![], true), (vec![], false)));
    }

    #[test]
    fn topics_that_keep_nothing_are_not_looked_at() {
        let mut engine = engine(9);
        append(&mut engine, 0, "chat", Tick(0)).unwrap();
        assert!(engine.names.is_empty());
    }
}
