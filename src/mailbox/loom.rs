//! Every order of steps of two or three threads over the rings and the sleep.
//!
//! A test that blocks parks on [`Bell`]; a wake-up that gets lost is a deadlock, which loom reports.

use super::{Sleep, ring};
use loom::{
    model,
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Stands for a worker's eventfd: keeps a ring until somebody waits.
struct Bell {
    rung: Mutex<u32>,
    heard: Condvar,
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { rung: Mutex::new(0), heard: Condvar::new() })
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() += 1;
        self.heard.notify_one();
    }

    /// Blocks until it was rung; returns how often.
    fn wait(&self) -> u32 {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.heard.wait(rung).unwrap();
        }
        std::mem::take(&mut *rung)
    }
}

#[test]
fn messages_arrive_in_order_and_none_is_lost() {
    model(|| {
        let (mut sender, mut receiver) = ring(2);
        let sending = thread::spawn(move || {
            let accepted: Vec<u32> = (0..3).filter(|&number| sender.try_send(Box::new(number)).is_ok()).collect();
            assert!(accepted.len() >= 2);
            accepted
        });
        let mut received = Vec::new();
        for _ in 0..2 {
            assert!(receiver.peek().is_none_or(|message| **message as usize >= received.len()));
            received.extend(receiver.try_recv().map(|message| *message));
        }
        let accepted = sending.join().unwrap();
        received.extend(std::iter::from_fn(|| receiver.try_recv()).map(|message| *message));
        assert_eq!(received, accepted);
    });
}

#[test]
fn what_is_left_is_dropped_whoever_goes_last() {
    model(|| {
        let message = Arc::new(());
        let (mut sender, mut receiver) = ring(2);
        let sent = Arc::clone(&message);
        let sending = thread::spawn(move || assert!(sender.try_send(sent).is_ok()));
        drop(receiver.try_recv());
        drop(receiver);
        sending.join().unwrap();
        assert_eq!(Arc::strong_count(&message), 1);
    });
}

#[test]
fn a_request_for_room_is_never_lost() {
    model(|| {
        let (mut sender, mut receiver) = ring(1);
        let bell = Bell::new();
        assert!(sender.try_send(0).is_ok());
        let waiting = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || {
                if sender.wait_for_room() == 0 {
                    assert_eq!(bell.wait(), 1);
                }
                assert!(sender.try_send(1).is_ok());
            })
        };
        assert_eq!(receiver.try_recv(), Some(0));
        if receiver.take_room_request() {
            bell.ring();
        }
        assert!(!receiver.take_room_request());
        waiting.join().unwrap();
        assert_eq!(receiver.try_recv(), Some(1));
    });
}

#[test]
fn no_message_is_slept_through() {
    model(|| {
        let (mut sender, mut receiver) = ring(1);
        let (sleep, bell) = (Arc::new(Sleep::new()), Bell::new());
        let sending = {
            let (sleep, bell) = (Arc::clone(&sleep), Arc::clone(&bell));
            thread::spawn(move || {
                assert!(sender.try_send(7).is_ok());
                if sleep.must_wake() {
                    bell.ring();
                }
            })
        };
        sleep.prepare();
        if receiver.is_empty() {
            assert_eq!(bell.wait(), 1);
        }
        sleep.woke();
        assert_eq!(receiver.try_recv(), Some(7));
        sending.join().unwrap();
    });
}

#[test]
fn one_of_several_wakes_a_sleeper() {
    model(|| {
        let (sleep, bell) = (Arc::new(Sleep::new()), Bell::new());
        sleep.prepare();
        let waking: Vec<_> = (0..2)
            .map(|_| {
                let (sleep, bell) = (Arc::clone(&sleep), Arc::clone(&bell));
                thread::spawn(move || {
                    let told = sleep.must_wake();
                    if told {
                        bell.ring();
                    }
                    told
                })
            })
            .collect();
        assert_eq!(bell.wait(), 1);
        assert_eq!(waking.into_iter().map(|thread| thread.join().unwrap()).filter(|&told| told).count(), 1);
    });
}
