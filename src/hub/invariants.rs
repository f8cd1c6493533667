//! What must hold between two calls of the hub, checked over all tables: for tests and hunting.

use super::topics::List;
use super::{Hub, Subject, TopicId};

impl<P> Hub<P> {
    /// Checks everything that must hold between two calls. It walks all tables: for tests and hunting.
    ///
    /// # Panics
    /// If something does not hold.
    pub fn check_invariants(&self) {
        self.check_subscriptions();
        let marked: Vec<TopicId> = self.changes.marked().collect();
        let turns: Vec<TopicId> = self.fanouts.turns().collect();
        let mut open = 0;
        for (id, list) in self.topics.iter() {
            list.check_cuts();
            assert_eq!(list.interest.subscribers(), list.subscribers().len() as u64);
            match list.subject() {
                Subject::Topic(topic) => assert_eq!(self.topics.find(topic.as_str()), Some(id)),
                Subject::Pattern(pattern) => assert_eq!(self.topics.patterns.get(&pattern), Some(id)),
            }
            assert_eq!(marked.iter().filter(|marked| **marked == id).count(), usize::from(list.interest.is_dirty()));
            let walked = list.course().and_then(|course| course.at).map(|(_, pattern)| &self.topics[pattern]);
            let waits = walked.and_then(List::shared).is_some_and(|shared| shared.waits(id));
            assert!(walked.and_then(List::shared).is_none_or(|shared| shared.has(id)));
            assert_eq!(turns.iter().filter(|turn| **turn == id).count(), usize::from(!list.queue.is_empty() && !waits));
            let is_noted = self.idle.contains(&id) || self.retired.contains(&id);
            assert!(!list.is_idle() || is_noted, "{:?} is never released", list.subject());
            open += self.fanouts.chain_length(list.queue);
        }
        assert_eq!(open, self.fanouts.len());
    }

    fn check_subscriptions(&self) {
        let mut subscriptions = 0;
        for slot in 0..self.slots.span() {
            for (index, entry) in self.slots.of(slot).iter().enumerate() {
                let subscriber = self.topics[entry.topic].subscribers()[entry.position as usize];
                let others = self.slots.of(slot).len() > 1;
                let has_pattern = self.slots.of(slot).iter().any(|entry| self.topics.is_pattern(entry.topic));
                assert_eq!(subscriber.slot, slot);
                assert!(subscriber.overlaps || !(others && has_pattern), "it may get a publication twice");
                assert!(self.slots.of(slot)[..index].iter().all(|earlier| earlier.topic != entry.topic));
                subscriptions += 1;
            }
        }
        assert_eq!(subscriptions, self.subscriptions());
        let listed: usize = self.topics.iter().map(|(_, list)| list.subscribers().len()).sum();
        assert_eq!(subscriptions, listed);
    }
}
