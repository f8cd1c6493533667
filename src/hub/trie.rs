//! Which patterns match a topic.
//!
//! A pattern's only wildcard is its last segment, so a pattern hangs at a node of its own: `news/*` and `news/**` at `news/`, `**` at
//! the root. A topic is matched on the way from the root to its last segment, one node a segment at most, however many
//! patterns there are:
//!
//! ```text
//!   (root)          **
//!     news/         *   **        news/today meets, in this order: ** at the root, then ** and * at news/
//!     prices/
//!       prices/eur/ *
//! ```
//!
//! The nodes stand in one table by the path to them, not as children of one another: a chain of segments at which nothing hangs takes no
//! memory, and a walk looks only at depths where anything hangs. So a topic that no pattern could match is often known by its number
//! of segments.
//!
//! What was found is kept for the topics asked for lately, until a pattern comes or goes. Nothing here knows of subscribers.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::frame::{Pattern, Topic};
use crate::limits::GiveBack;

/// Topics whose matches are kept; the next one begins anew. A walk is a few look-ups, so a topic that is published seldom loses little.
const MATCHED_TOPICS_MAX: usize = 4096;

/// The place of a pattern among all that could match a topic: it grows along the walk, and no two that match one topic have the same.
pub(super) type Rank = u16;

/// Patterns, each with a value.
#[derive(Debug)]
pub(super) struct Trie<V> {
    nodes: HashMap<Box<str>, Node<V>, RandomState>,
    /// How many nodes there are of so many segments.
    depths: Vec<u32>,
    patterns: usize,
    matches: Matches<V>,
}

/// What hangs at a node.
#[derive(Debug)]
struct Node<V> {
    /// `*`.
    one: Option<V>,
    /// `**`.
    many: Option<V>,
}

/// What was found for some topics.
#[derive(Debug)]
struct Matches<V> {
    places: HashMap<Topic, u32, RandomState>,
    found: Vec<Box<[(Rank, V)]>>,
}

impl<V> Default for Matches<V> {
    fn default() -> Self {
        Self { places: HashMap::default(), found: Vec::new() }
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { nodes: HashMap::default(), depths: Vec::new(), patterns: 0, matches: Matches::default() }
    }
}

impl<V: Copy> Trie<V> {
    pub fn is_empty(&self) -> bool {
        self.patterns == 0
    }

    pub fn len(&self) -> usize {
        self.patterns
    }

    pub fn get(&self, pattern: &Pattern) -> Option<V> {
        let node = self.nodes.get(pattern.prefix())?;
        if pattern.is_deep() { node.many } else { node.one }
    }

    /// Adds a pattern with a wildcard that is not there.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let depth = depth(pattern);
        let (nodes, depths) = (&mut self.nodes, &mut self.depths);
        let node = nodes.entry(pattern.prefix().into()).or_insert_with(|| {
            if depths.len() <= depth {
                depths.resize(depth + 1, 0);
            }
            depths[depth] += 1;
            Node { one: None, many: None }
        });
        let before = if pattern.is_deep() { node.many.replace(value) } else { node.one.replace(value) };
        debug_assert!(before.is_none(), "{pattern} is added once");
        self.patterns += 1;
        self.matches = Matches::default();
    }

    pub fn remove(&mut self, pattern: &Pattern) -> Option<V> {
        let node = self.nodes.get_mut(pattern.prefix())?;
        let value = if pattern.is_deep() { node.many.take() } else { node.one.take() }?;
        if node.one.is_none() && node.many.is_none() {
            self.nodes.remove(pattern.prefix());
            self.nodes.give_back();
            self.depths[depth(pattern)] -= 1;
            while self.depths.last() == Some(&0) {
                self.depths.pop();
            }
        }
        self.patterns -= 1;
        self.matches = Matches::default();
        Some(value)
    }

    /// The values of all patterns that match, in the order of their ranks.
    pub fn matching(&mut self, topic: &Topic) -> &[(Rank, V)] {
        let place = match self.matches.places.get(topic.as_str()) {
            Some(&place) => place,
            None => self.find(topic),
        };
        &self.matches.found[place as usize]
    }

    fn find(&mut self, topic: &Topic) -> u32 {
        if self.matches.found.len() == MATCHED_TOPICS_MAX {
            self.matches = Matches::default();
        }
        let found = self.walk(topic.as_str());
        let place = self.matches.found.len() as u32;
        self.matches.found.push(found);
        self.matches.places.insert(topic.clone(), place);
        place
    }

    fn walk(&self, topic: &str) -> Box<[(Rank, V)]> {
        let (mut found, mut path_end) = (Vec::new(), 0);
        for (depth, nodes) in self.depths.iter().enumerate() {
            let segment_end = topic[path_end..].find('/');
            if *nodes > 0
                && let Some(node) = self.nodes.get(&topic[..path_end])
            {
                let rank = 2 * depth as Rank;
                found.extend(node.many.map(|value| (rank, value)));
                found.extend(node.one.filter(|_| segment_end.is_none()).map(|value| (rank + 1, value)));
            }
            let Some(length) = segment_end else { break };
            path_end += length + 1;
        }
        found.into_boxed_slice()
    }

    /// What the nodes and the kept matches take, in bytes, without the nodes' paths.
    pub fn bytes(&self) -> usize {
        let found: usize = self.matches.found.iter().map(|found| size_of_val(&**found)).sum();
        self.nodes.capacity() * size_of::<(Box<str>, Node<V>)>()
            + self.matches.places.capacity() * size_of::<(Topic, u32)>()
            + self.matches.found.capacity() * size_of::<Box<[(Rank, V)]>>()
            + found
    }
}

/// The segments before the wildcard.
fn depth(pattern: &Pattern) -> usize {
    pattern.prefix().bytes().filter(|byte| *byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use proptest::prelude::*;

    use super::*;
    use crate::frame::TOPIC_BYTES_MAX;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    fn matching(trie: &mut Trie<u32>, topic: &str) -> Vec<u32> {
        trie.matching(&Topic::new(topic).unwrap()).iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn a_topic_meets_the_patterns_along_its_way() {
        let mut trie = Trie::default();
        for (value, text) in (0..).zip(["**", "*", "news/*", "news/**", "news/a/*", "sport/**"]) {
            trie.insert(&pattern(text), value);
        }
        for (topic, values) in
            [("news", &[0, 1][..]), ("news/a", &[0, 3, 2]), ("news/a/b", &[0, 3, 4]), ("new/s", &[0]), ("sport/a/b/c", &[0, 5])]
        {
            assert_eq!(matching(&mut trie, topic), values, "{topic}");
        }
        assert_eq!((trie.remove(&pattern("news/**")), trie.remove(&pattern("news/**"))), (Some(3), None));
        assert_eq!((matching(&mut trie, "news/a"), trie.len()), (vec![0, 2], 5));
    }

    #[test]
    fn the_longest_topic_meets_one_pattern_a_segment_and_one_more() {
        let topic = vec!["a"; 128].join("/");
        assert_eq!(topic.len(), TOPIC_BYTES_MAX);
        let mut trie = Trie::default();
        let texts = (0..127).map(|depth| format!("{}**", "a/".repeat(depth))).chain([format!("{}*", "a/".repeat(127))]);
        for (value, text) in texts.enumerate() {
            trie.insert(&pattern(&text), value as u32);
        }
        assert_eq!(matching(&mut trie, &topic), (0..128).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_left_is_given_back() {
        let mut trie = Trie::default();
        trie.insert(&pattern("t/*"), 7);
        for number in 0..3 * MATCHED_TOPICS_MAX {
            assert_eq!(matching(&mut trie, &format!("t/{number}")), [7]);
            assert!(trie.matches.found.len() <= MATCHED_TOPICS_MAX && trie.matches.places.len() == trie.matches.found.len());
        }
        trie.remove(&pattern("t/*"));
        assert_eq!((trie.is_empty(), trie.depths.len(), trie.matches.found.capacity()), (true, 0, 0));
        assert!(trie.bytes() < 1024, "{}", trie.bytes());
    }

    fn patterns() -> impl Strategy<Value = String> {
        (prop::collection::vec("[ab]", 0..4), "\\*|\\*\\*").prop_map(|(mut path, last)| {
            path.push(last);
            path.join("/")
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_of_patterns_finds(
            steps in prop::collection::vec((patterns(), any::<bool>(), prop::collection::vec("[abc]", 1..6)), 1..60),
        ) {
            let (mut trie, mut list) = (Trie::default(), BTreeMap::new());
            for (value, (text, comes, topic)) in (0..).zip(steps) {
                let pattern = pattern(&text);
                prop_assert_eq!(trie.get(&pattern), list.get(&text).copied());
                if !comes {
                    prop_assert_eq!(trie.remove(&pattern), list.remove(&text));
                } else if let Entry::Vacant(place) = list.entry(text) {
                    trie.insert(&pattern, value);
                    place.insert(value);
                }
                let topic = Topic::new(&topic.join("/")).unwrap();
                // The second answer is a kept one.
                for _ in 0..2 {
                    let found = trie.matching(&topic);
                    prop_assert!(found.is_sorted_by(|one, next| one.0 < next.0));
                    let mut values: Vec<u32> = found.iter().map(|(_, value)| *value).collect();
                    values.sort_unstable();
                    let matches = |text: &String| Pattern::parse(text).unwrap().matches(topic.as_str());
                    let mut wanted: Vec<u32> = list.iter().filter(|(text, _)| matches(text)).map(|(_, value)| *value).collect();
                    wanted.sort_unstable();
                    prop_assert_eq!(values, wanted);
                }
                prop_assert_eq!(trie.len(), list.len());
            }
        }
    }
}
