//! The rings between every two of several workers, and the rule that keeps them from locking up.
//!
//! A request holds a credit until its reply is taken; there are as many credits as a request ring has slots, so a credit is room
//! for the request too. A delivery ring has one slot per credit beyond those for deliveries, and a delivery goes in only while
//! at least that many slots stay free. What the deliveries leave free can only be used up by replies, each of which has its
//! credit: so a reply always finds its slot.

use super::{Credits, Receiver, Sender, ring};

/// The mailboxes of `workers` workers, in their order. Between every two of them, in each direction, `requests` requests may be
/// under way, and `deliveries` deliveries besides the replies.
///
/// # Panics
///
/// If one of the numbers is 0.
#[must_use]
pub fn mesh<Q, D>(workers: usize, requests: usize, deliveries: usize) -> Vec<Mailbox<Q, D>> {
    assert!(workers > 0 && requests > 0 && deliveries > 0, "a mesh has workers, requests and deliveries");
    let mut mailboxes: Vec<Mailbox<Q, D>> =
        (0..workers).map(|worker| Mailbox { worker, lanes: (0..workers).map(|_| None).collect() }).collect();
    for one in 0..workers {
        for other in one + 1..workers {
            let (there, back) = lanes(requests, deliveries);
            mailboxes[one].lanes[other] = Some(there);
            mailboxes[other].lanes[one] = Some(back);
        }
    }
    mailboxes
}

/// One worker's ends of its rings: a [`Lane`] to every other worker, none to itself.
#[derive(Debug)]
pub struct Mailbox<Q, D> {
    worker: usize,
    lanes: Box<[Option<Lane<Q, D>>]>,
}

impl<Q, D> Mailbox<Q, D> {
    /// The worker whose mailbox this is.
    #[must_use]
    pub const fn worker(&self) -> usize {
        self.worker
    }

    /// The lane to another worker.
    ///
    /// # Panics
    ///
    /// If `other` is this worker itself or does not exist: what a worker has for itself needs no mailbox.
    pub fn lane(&mut self, other: usize) -> &mut Lane<Q, D> {
        self.lanes[other].as_mut().expect("a worker has no lane to itself")
    }

    /// Every lane with the worker it leads to.
    pub fn lanes(&mut self) -> impl Iterator<Item = (usize, &mut Lane<Q, D>)> {
        self.lanes.iter_mut().enumerate().filter_map(|(other, lane)| Some((other, lane.as_mut()?)))
    }

    /// True if there is nothing to take on any lane.
    pub fn is_empty(&mut self) -> bool {
        self.lanes().all(|(_, lane)| lane.is_empty())
    }
}

/// One worker's ends of the four rings between it and another worker.
#[derive(Debug)]
pub struct Lane<Q, D> {
    requests_out: Sender<Q>,
    requests_in: Receiver<Q>,
    deliveries_out: Sender<Letter<D>>,
    deliveries_in: Receiver<Letter<D>>,
    credits: Credits,
    /// Requests of the other worker that were taken here and not yet answered.
    unanswered: usize,
    /// Slots of the delivery ring that deliveries leave to replies.
    reserved: usize,
}

/// What travels in a delivery ring. Told apart here, so that a credit comes back by itself when its reply is taken.
#[derive(Debug)]
enum Letter<D> {
    Delivery(D),
    Reply(D),
}

impl<Q, D> Lane<Q, D> {
    /// Sends a request, for which it takes a credit; the credit comes back when the reply is taken.
    ///
    /// # Errors
    ///
    /// Gives the request back if no credit is left; the reply to an earlier one brings one.
    pub fn try_request(&mut self, request: Q) -> Result<(), Q> {
        if !self.credits.take() {
            return Err(request);
        }
        assert!(self.requests_out.try_send(request).is_ok(), "a credit is room for a request");
        Ok(())
    }

    /// Requests sent whose replies were not taken yet.
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.credits.outstanding()
    }

    /// The other worker's oldest request, left where it is: it's taken once everybody has room for what follows from it.
    pub fn peek_request(&mut self) -> Option<&Q> {
        self.requests_in.peek()
    }

    /// Takes the other worker's oldest request. It must be answered once, by [`Self::reply`].
    pub fn take_request(&mut self) -> Option<Q> {
        let request = self.requests_in.try_recv()?;
        self.unanswered += 1;
        Some(request)
    }

    /// True if at least `deliveries` more fit.
    pub fn has_room(&mut self, deliveries: usize) -> bool {
        self.deliveries_out.has_room(self.reserved + deliveries)
    }

    /// Sends a delivery.
    ///
    /// # Errors
    ///
    /// Gives the delivery back if only the slots of replies are free.
    pub fn try_deliver(&mut self, delivery: D) -> Result<(), D> {
        if !self.has_room(1) {
            return Err(delivery);
        }
        assert!(self.deliveries_out.try_send(Letter::Delivery(delivery)).is_ok(), "room was just seen");
        Ok(())
    }

    /// Announces that this worker waits for room for a delivery. True if there is some already: then it must not wait.
    /// Otherwise the other worker's next [`Self::take_room_request`] after it made room tells it to wake this one.
    #[must_use = "room made before the announcement is not reported"]
    pub fn wait_for_room(&mut self) -> bool {
        self.deliveries_out.wait_for_room() > self.reserved
    }

    /// Answers a request that was taken, in the slot that its credit reserved.
    ///
    /// # Panics
    ///
    /// If no taken request waits for an answer: that is a bug of the caller, and the credits of the other worker would be wrong.
    pub fn reply(&mut self, reply: D) {
        self.unanswered = self.unanswered.checked_sub(1).expect("a reply answers a request");
        assert!(self.deliveries_out.try_send(Letter::Reply(reply)).is_ok(), "a credit reserves the reply's slot");
    }

    /// Takes the oldest delivery or reply; a reply's credit is back with that.
    pub fn take_delivery(&mut self) -> Option<D> {
        match self.deliveries_in.try_recv()? {
            Letter::Delivery(delivery) => Some(delivery),
            Letter::Reply(reply) => {
                self.credits.give();
                Some(reply)
            }
        }
    }

    /// True, once, if the other worker waits for room for its deliveries and some was made: the caller wakes it. To be asked
    /// after taking deliveries.
    pub fn take_room_request(&mut self) -> bool {
        self.deliveries_in.take_room_request()
    }

    /// True if there is a delivery or a reply to take.
    pub fn has_delivery(&mut self) -> bool {
        !self.deliveries_in.is_empty()
    }

    /// True if there is nothing to take.
    pub fn is_empty(&mut self) -> bool {
        self.deliveries_in.is_empty() && self.requests_in.is_empty()
    }
}

/// Both ends of what connects two workers.
fn lanes<Q, D>(requests: usize, deliveries: usize) -> (Lane<Q, D>, Lane<Q, D>) {
    let (requests_out, their_requests_in) = ring(requests);
    let (their_requests_out, requests_in) = ring(requests);
    let (deliveries_out, their_deliveries_in) = ring(deliveries + requests);
    let (their_deliveries_out, deliveries_in) = ring(deliveries + requests);
    let lane = |requests_out, requests_in, deliveries_out, deliveries_in| Lane {
        requests_out,
        requests_in,
        deliveries_out,
        deliveries_in,
        credits: Credits::new(requests),
        unanswered: 0,
        reserved: requests,
    };
    (
        lane(requests_out, requests_in, deliveries_out, deliveries_in),
        lane(their_requests_out, their_requests_in, their_deliveries_out, their_deliveries_in),
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn each_worker_reaches_each_other_one() {
        let mut mailboxes = mesh::<(usize, usize), ()>(4, 1, 1);
        for mailbox in &mut mailboxes {
            let from = mailbox.worker();
            let others: Vec<usize> = mailbox.lanes().map(|(other, _)| other).collect();
            assert_eq!(others, (0..4).filter(|&other| other != from).collect::<Vec<_>>());
            for to in others {
                mailbox.lane(to).try_request((from, to)).unwrap();
            }
        }
        for (to, mailbox) in mailboxes.iter_mut().enumerate() {
            assert_eq!(mailbox.worker(), to);
            assert!(!mailbox.is_empty());
            for (from, lane) in mailbox.lanes() {
                assert_eq!(lane.take_request(), Some((from, to)));
            }
            assert!(mailbox.is_empty());
        }
    }

    #[test]
    fn a_full_ring_of_deliveries_still_takes_every_reply() {
        let mut mailboxes = mesh(2, 2, 3);
        let (one, two) = mailboxes.split_at_mut(1);
        let (asking, home) = (one[0].lane(1), two[0].lane(0));
        assert_eq!((asking.try_request(1), asking.try_request(2), asking.try_request(3)), (Ok(()), Ok(()), Err(3)));
        for delivery in 10..13 {
            home.try_deliver(delivery).unwrap();
        }
        assert_eq!(home.try_deliver(13), Err(13));
        assert!(!home.wait_for_room());
        while let Some(request) = home.take_request() {
            home.reply(request);
        }
        let taken: Vec<i32> = std::iter::from_fn(|| asking.take_delivery()).collect();
        assert_eq!(taken, [10, 11, 12, 1, 2]);
        assert!(asking.take_room_request());
        assert_eq!(asking.outstanding(), 0);
        assert!(home.has_room(3) && !home.has_room(4));
    }

    #[test]
    #[should_panic(expected = "a reply answers a request")]
    fn a_reply_too_many_is_a_bug() {
        mesh::<(), ()>(2, 1, 1)[0].lane(1).reply(());
    }

    proptest! {
        /// `reply` panics where it finds no slot; whatever the workers do in whichever order, it never does.
        #[test]
        fn a_reply_always_finds_its_slot(requests in 1..5usize, deliveries in 1..5usize, steps in prop::collection::vec(0..4u8, 0..400)) {
            let mut mailboxes = mesh(2, requests, deliveries);
            let (one, two) = mailboxes.split_at_mut(1);
            let (asking, home) = (one[0].lane(1), two[0].lane(0));
            let mut inside = VecDeque::new();
            for (sent, step) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        let credit_left = asking.outstanding() < requests;
                        prop_assert_eq!(asking.try_request(sent).is_ok(), credit_left);
                    }
                    1 => if home.try_deliver(sent).is_ok() { inside.push_back(sent) },
                    2 => if let Some(request) = home.take_request() {
                        home.reply(request);
                        inside.push_back(request);
                    },
                    _ => prop_assert_eq!(asking.take_delivery(), inside.pop_front()),
                }
            }
        }
    }
}
