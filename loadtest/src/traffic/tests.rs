use super::*;
use crate::clock;

const ALL: Topics = Topics { first: 0, count: 1 };

fn traffic(topics: u32) -> Traffic {
    Traffic::new(topics, 64, 1, 0)
}

fn publish(traffic: &mut Traffic, topic: u32) -> Vec<u8> {
    traffic.publication(topic, clock::now()).to_vec()
}

#[test]
fn a_publication_is_under_way_until_the_last_steady_subscriber_has_it() {
    let (stage, mut traffic) = (Stage::endless(), traffic(1));
    (0..3).for_each(|id| traffic.subscribe(id, ALL));
    traffic.subscribe_passing(3, 0);
    let message = publish(&mut traffic, 0);
    let complete = [3, 0, 2, 1].map(|id| traffic.message(&stage, id, &message, clock::now()).unwrap().is_complete);
    assert_eq!(complete, [false, false, false, true]);
    assert_eq!((traffic.under_way(), traffic.counts.delivered, traffic.counts.passing_delivered), (0, 3, 1));
    let moved_at = traffic.moved_at();
    assert_eq!(traffic.message(&stage, 0, &message, clock::now()), None);
    assert_eq!((traffic.counts.duplicated, traffic.lost(false)), (1, 0));
    assert_eq!(traffic.moved_at(), moved_at, "nothing new came");
    publish(&mut traffic, 0);
    assert_eq!((traffic.lost(false), traffic.lost(true)), (3, 0));
    traffic.refuse(0, 1);
    assert_eq!((traffic.lost(false), traffic.under_way(), traffic.counts.refused), (0, 0, 1));
}

#[test]
fn a_topic_has_more_publications_than_the_digits_of_a_message_can_number() {
    let (stage, mut traffic, mut follower) = (Stage::endless(), traffic(1), Traffic::following(1, 64, 1, 0));
    for side in [&mut traffic, &mut follower] {
        side.topics[0] = Topic::from_number((1 << 30) - 2);
        side.subscribe(0, ALL);
    }
    let messages: Vec<Vec<u8>> = (0..4).map(|_| publish(&mut traffic, 0)).collect();
    for side in [&mut traffic, &mut follower] {
        let came = messages.iter().filter(|message| side.message(&stage, 0, message, clock::now()).is_some());
        assert_eq!((came.count(), side.counts.foreign, side.lost(false), side.under_way()), (4, 0, 0, 0));
    }
}

#[test]
fn beside_a_subscription_only_what_was_published_before_its_end_is_right() {
    let mut traffic = traffic(1);
    let messages = [(); 3].map(|()| publish(&mut traffic, 0));
    for (message, until) in [(&messages[1], 2), (&messages[2], u64::MAX), (&messages[2], 2), (&b"another's".to_vec(), u64::MAX)] {
        traffic.message_beside(message, clock::now(), until);
    }
    assert_eq!((traffic.counts.passing_beside, traffic.counts.foreign), (2, 2));
}

#[test]
fn topics_of_one_connection_have_their_own_numbers_and_others_are_foreign() {
    let (stage, mut traffic) = (Stage::endless(), traffic(5));
    traffic.subscribe(7, Topics { first: 4, count: 2 });
    let messages: Vec<Vec<u8>> = (0..5).map(|topic| publish(&mut traffic, topic)).collect();
    let came: Vec<bool> = messages.iter().map(|m| traffic.message(&stage, 7, m, clock::now()).is_some()).collect();
    assert_eq!(came, [true, false, false, false, true]);
    assert_eq!((traffic.counts.foreign, traffic.lost(false), traffic.under_way()), (3, 0, 0));
    assert_eq!(traffic.message(&stage, 0, &messages[0], clock::now()), None, "not subscribed");
}

#[test]
fn a_follower_learns_what_was_published_from_what_comes_and_from_the_end() {
    let (stage, mut source) = (Stage::endless(), traffic(1));
    let messages: Vec<Vec<u8>> = (0..4).map(|_| publish(&mut source, 0)).collect();
    let mut follower = Traffic::following(1, 64, 1, 0);
    (0..2).for_each(|id| follower.subscribe(id, ALL));
    for (id, number) in [(0, 2), (1, 2), (0, 0)] {
        follower.message(&stage, id, &messages[number], clock::now());
    }
    assert_eq!((follower.under_way(), follower.completions().len(), follower.counts.reordered), (2, 1, 1));
    follower.end(4, [(0, 3)].into_iter());
    assert_eq!((follower.lost(false), follower.under_way()), (3, 2), "0 and 1, and nobody waits for what was refused");
}

#[test]
fn who_leaves_has_its_holes_counted_and_nothing_else() {
    let (stage, mut traffic) = (Stage::endless(), traffic(1));
    publish(&mut traffic, 0);
    traffic.subscribe_passing(0, 0);
    let messages: Vec<Vec<u8>> = (0..4).map(|_| publish(&mut traffic, 0)).collect();
    traffic.message(&stage, 0, &messages[2], clock::now());
    assert_eq!((traffic.missing_to(0, 0), traffic.missing_to(0, 5)), (2, 3));
    traffic.leave(0, 0);
    assert_eq!(traffic.counts.passing_lost, 2, "numbers 1 and 2 lie before 3, and 4 was under way");
    traffic.subscribe_passing(9, 0);
    traffic.leave(9, 5);
    assert_eq!(traffic.counts.passing_lost, 2, "nothing was published while it was there");
}

#[test]
fn who_is_gone_has_still_lost_what_it_did_not_get_whoever_has_its_number_now() {
    let mut traffic = traffic(1);
    (0..2).for_each(|id| traffic.subscribe(id, ALL));
    publish(&mut traffic, 0);
    traffic.closed(0, &Ending::Reset);
    assert_eq!(traffic.first_member_of(0), Some(1));
    traffic.subscribe_passing(0, 0);
    assert_eq!((traffic.lost(false), traffic.counts.connections_lost), (2, 1));
}

#[test]
fn what_was_refused_and_delivered_all_the_same_hides_no_loss() {
    let (stage, mut traffic) = (Stage::endless(), traffic(1));
    (0..2).for_each(|id| traffic.subscribe(id, ALL));
    let refused = publish(&mut traffic, 0);
    traffic.refuse(0, 0);
    traffic.message(&stage, 0, &refused, clock::now());
    publish(&mut traffic, 0);
    assert_eq!(traffic.lost(false), 2, "of the second publication");
}
