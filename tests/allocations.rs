//! The way of a publication takes memory per publication at most, never per subscriber.

mod loopless;

use allocation_counter::measure;
use loopless::Server;

/// Publications that are counted; ten times as many have gone before, so that tables have their size.
const PUBLICATIONS: usize = 1_000;

#[test]
fn a_thousand_subscribers_cost_no_allocation_more_than_one() {
    let one = allocations(1);
    let thousand = allocations(1_000);
    println!("figure: allocations of {PUBLICATIONS} publications to one subscriber: {one}, to a thousand: {thousand}");
    assert!(one >= PUBLICATIONS as u64, "the counter counts: each publication is memory of its own");
    assert!(thousand <= one, "{thousand} allocations for a thousand subscribers, {one} for one");
}

/// How often a warm worker asks for memory in [`PUBLICATIONS`] publications to so many subscribers.
fn allocations(subscribers: usize) -> u64 {
    let mut server = Server::with(subscribers);
    let mut publish = |times: usize| (0..times).for_each(|_| server.publish());
    publish(PUBLICATIONS * 10);
    measure(|| publish(PUBLICATIONS)).count_total
}
