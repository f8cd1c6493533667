//! A bounded ring with one sender and one receiver.
//!
//! Each end owns one index and keeps its last reading of the other's, so that it touches the other core's cache line only when
//! that reading no longer suffices: when the ring looks full, or looks empty. Indices count on for ever and are masked when a
//! slot is addressed; their difference is the number of messages in the ring.
//!
//! `rtrb` has such a ring and keeps it well. This one is the server's own because its receiver also has to report that room
//! was made to a sender that waits, with a fence between the two, and because that must be tried in every order of steps, for
//! which a ring's atomics have to be loom's.

// The slots are written by one thread and read by another, which no safe cell allows without a lock or an allocation per message.
#![allow(unsafe_code)]

use super::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell, fence};
use crossbeam_utils::CachePadded;
use std::{fmt, mem::MaybeUninit};

/// A ring that holds at most `capacity` messages.
///
/// # Panics
///
/// If `capacity` is 0.
#[must_use]
pub fn ring<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a ring holds at least one message");
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        slots,
        capacity,
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        wants_room: CachePadded::new(AtomicBool::new(false)),
    });
    let sender = Sender { shared: Arc::clone(&shared), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0, made_room: false })
}

struct Shared<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    capacity: usize,
    /// The next slot to read; written by the receiver alone.
    head: CachePadded<AtomicUsize>,
    /// The next slot to write; written by the sender alone.
    tail: CachePadded<AtomicUsize>,
    wants_room: CachePadded<AtomicBool>,
}

// SAFETY: a slot is the sender's from `tail` to `head + capacity` and the receiver's from `head` to `tail`. Each end is one
// value whose methods take `&mut self`, and a slot changes hands by a release store of an index and an acquire load of it.
// Messages move between threads, hence `Send`; they are never referred to from two threads at once.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mut index = self.head.load(Ordering::Relaxed);
        while index != tail {
            // SAFETY: both ends are gone, and the slots from `head` to `tail` hold messages nobody took.
            self.slot(index).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            index = index.wrapping_add(1);
        }
    }
}

/// The end that messages are put into.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

impl<T> Sender<T> {
    /// Puts a message into the ring; does not wake anybody.
    ///
    /// # Errors
    ///
    /// Gives the message back if the ring is full.
    pub fn try_send(&mut self, message: T) -> Result<(), T> {
        if !self.has_room(1) {
            return Err(message);
        }
        // SAFETY: `has_room` saw with acquire that the receiver is done with this slot; until `tail` is stored it's the sender's.
        self.shared.slot(self.tail).with_mut(|slot| unsafe { (*slot).write(message) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// True if at least `messages` more fit. Looks at the receiver's index only if its last reading says no.
    pub fn has_room(&mut self, messages: usize) -> bool {
        self.free_seen() >= messages || self.free() >= messages
    }

    /// How many more messages fit now.
    pub fn free(&mut self) -> usize {
        self.head_seen = self.shared.head.load(Ordering::Acquire);
        self.free_seen()
    }

    /// Announces that this sender waits for room, and returns how many messages fit after that. Only if they are too few may it
    /// wait: room that the receiver makes from now on is reported to it once, by [`Receiver::take_room_request`], but room
    /// made before is not. The report is of any room at all; a sender that needs more announces itself again.
    #[must_use = "room made before the announcement is not reported"]
    pub fn wait_for_room(&mut self) -> usize {
        self.shared.wants_room.store(true, Ordering::Relaxed);
        // Store the wish, then read `head`; the receiver stores `head`, then reads the wish. With a full fence between the two
        // steps on both sides, at least one of them sees the other.
        fence(Ordering::SeqCst);
        self.free()
    }

    fn free_seen(&self) -> usize {
        self.shared.capacity - self.tail.wrapping_sub(self.head_seen)
    }
}

/// The end that messages are taken from.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
    made_room: bool,
}

impl<T> Receiver<T> {
    /// Takes the oldest message.
    pub fn try_recv(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: `is_empty` saw with acquire that this slot was written. It's read once, since `head` moves on past it, and
        // the sender writes it again only after it has seen that.
        let message = self.shared.slot(self.head).with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.store(self.head, Ordering::Release);
        self.made_room = true;
        Some(message)
    }

    /// The oldest message, which stays in the ring.
    pub fn peek(&mut self) -> Option<&T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: as in `try_recv`; the slot stays the receiver's while `self` is borrowed, because only `try_recv` gives it up.
        Some(self.shared.slot(self.head).with(|slot| unsafe { (*slot).assume_init_ref() }))
    }

    /// True if there is nothing to take. Looks at the sender's index only if its last reading says so.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    /// True, once, if the sender waits for room and some was made: the caller then wakes the sender's worker. To be asked
    /// after taking messages, at the latest before the caller sleeps; costs nothing where none were taken.
    pub fn take_room_request(&mut self) -> bool {
        if !std::mem::take(&mut self.made_room) {
            return false;
        }
        fence(Ordering::SeqCst); // the other half stands in `wait_for_room`
        self.shared.wants_room.load(Ordering::Relaxed) && self.shared.wants_room.swap(false, Ordering::Relaxed)
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("sent", &self.tail).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("received", &self.head).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn a_ring_holds_exactly_its_capacity_and_keeps_order() {
        let (mut sender, mut receiver) = ring(3);
        for round in 0..5 {
            for message in 0..3 {
                assert_eq!(sender.free(), 3 - message);
                sender.try_send(round * 3 + message).unwrap();
            }
            assert_eq!(sender.try_send(99), Err(99));
            for message in 0..3 {
                assert_eq!(receiver.peek(), Some(&(round * 3 + message)));
                assert_eq!(receiver.try_recv(), Some(round * 3 + message));
            }
            assert!(receiver.is_empty() && receiver.try_recv().is_none());
        }
    }

    #[test]
    fn room_is_reported_once_and_only_after_it_was_made() {
        let (mut sender, mut receiver) = ring(1);
        sender.try_send(1).unwrap();
        assert_eq!(sender.wait_for_room(), 0);
        assert!(!receiver.take_room_request());
        receiver.try_recv().unwrap();
        assert!(receiver.take_room_request());
        sender.try_send(2).unwrap();
        receiver.try_recv().unwrap();
        assert!(!receiver.take_room_request());
    }

    #[test]
    fn what_nobody_took_is_dropped_with_the_ring() {
        let message = Arc::new(());
        let (mut sender, mut receiver) = ring(4);
        for _ in 0..4 {
            sender.try_send(Arc::clone(&message)).unwrap();
        }
        drop(receiver.try_recv());
        drop(receiver);
        assert_eq!(Arc::strong_count(&message), 4);
        drop(sender);
        assert_eq!(Arc::strong_count(&message), 1);
    }

    #[test]
    fn two_threads_lose_and_reorder_nothing() {
        const MESSAGES: usize = 200_000;
        let (mut sender, mut receiver) = ring(7);
        let sending = thread::spawn(move || {
            for number in 0..MESSAGES {
                let mut message = Box::new(number);
                while let Err(back) = sender.try_send(message) {
                    message = back;
                    thread::yield_now();
                }
            }
        });
        for number in 0..MESSAGES {
            let message = loop {
                match receiver.try_recv() {
                    Some(message) => break message,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*message, number);
        }
        sending.join().unwrap();
        assert!(receiver.is_empty());
    }
}
