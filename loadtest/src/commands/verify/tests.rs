//! The account against a scripted server: an honest one keeps its promise, and of each fault the account tells exactly that.

use super::account::Account;
use super::tally::Tally;

/// What the scripted server does wrong, and to whom: the second reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// One message of a replay does not come.
    Drop,
    /// The last message of a replay does not come.
    DropLast,
    Twice,
    /// Two messages change places.
    Behind,
    /// A replay begins before the cursor.
    ReplayTooMuch,
    /// What was trimmed is not announced.
    NoGap,
    /// A gap is announced that ends before what is missing does.
    ShortGap,
    /// A gap is announced that begins behind what is missing.
    LateGap,
    /// A restart is not announced.
    NoGapOfRestart,
    /// A gap from another life of the topic, which nobody knows.
    StrangeGap,
    /// One message has another position here than everywhere else.
    OtherPosition,
    /// A gap is announced, and what it covers comes all the same.
    GapAndReplay,
    /// A message that was accepted comes to nobody.
    LostForAll,
    /// Two messages of one publisher are numbered the other way round.
    PublisherOrder,
    /// The answer to a POST has no cursor.
    NoCursor,
}

/// A topic's log, with cursors of one epoch after the other.
struct Server {
    account: Account,
    log: Vec<(u64, String)>,
    offset: u64,
    epoch: &'static str,
    fault: Fault,
}

impl Server {
    fn new(fault: Fault) -> Self {
        Self { account: Account::new(1), log: Vec::new(), offset: 0, epoch: "zk", fault }
    }

    fn restart(&mut self) {
        (self.epoch, self.offset) = ("am", 0);
    }

    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            let is_posted = self.log.len().is_multiple_of(2);
            let number = self.account.publish(0, usize::from(!is_posted), is_posted);
            self.offset += 1;
            let cursor = format!("{}.{}", self.epoch, self.offset);
            if is_posted {
                let has_none = self.fault == Fault::NoCursor && number == 4;
                self.account.accept(0, number, if has_none { "" } else { &cursor });
            }
            self.log.push((number, cursor));
        }
        if self.fault == Fault::PublisherOrder && self.log.len() == 10 {
            let (one, other) = (self.log[5].0, self.log[7].0);
            (self.log[5].0, self.log[7].0) = (other, one);
        }
    }

    fn join(&mut self, name: &str) -> usize {
        let reader = self.account.join(0, name.to_owned());
        self.account.confirm(reader);
        reader
    }

    fn deliver(&mut self, reader: usize, places: std::ops::Range<usize>) {
        for place in places {
            if !(self.fault == Fault::LostForAll && place == 8) {
                let (number, cursor) = &self.log[place];
                self.account.deliver(reader, *number, cursor);
            }
        }
    }

    /// The replay of places 6 to 9, as the fault has it.
    fn replay(&mut self, reader: usize) {
        self.account.return_to(reader);
        let places: &[usize] = match self.fault {
            Fault::Drop => &[6, 7, 9],
            Fault::DropLast => &[6, 7, 8],
            Fault::Twice => &[6, 7, 8, 8, 9],
            Fault::Behind => &[6, 7, 9, 8],
            Fault::ReplayTooMuch => &[4, 5, 6, 7, 8, 9],
            Fault::OtherPosition => &[],
            _ => &[6, 7, 8, 9],
        };
        if self.fault == Fault::OtherPosition {
            self.account.deliver(reader, self.log[6].0, "zk.77");
        }
        places.iter().for_each(|&place| self.deliver(reader, place..place + 1));
    }
}

/// Ten messages with a cut in between, ten of which the server has kept the last five, a restart, and somebody new.
fn scenario(fault: Fault) -> Tally {
    let mut server = Server::new(fault);
    let (whole, cut) = (server.join("whole"), server.join("cut"));
    server.publish(10);
    server.deliver(whole, 0..10);
    server.deliver(cut, 0..6);
    server.replay(cut);
    server.publish(10);
    server.deliver(whole, 10..20);
    server.account.return_to(cut);
    match fault {
        Fault::NoGap => {}
        Fault::ShortGap => server.account.gap(cut, "zk.10", "zk.13"),
        Fault::LateGap => server.account.gap(cut, "zk.12", "zk.15"),
        Fault::StrangeGap => server.account.gap(cut, "xx.10", "zk.15"),
        _ => server.account.gap(cut, "zk.10", "zk.15"),
    }
    server.deliver(cut, if fault == Fault::GapAndReplay { 14..20 } else { 15..20 });
    // What was sent on the WebSocket when the server went was taken or not: nobody is owed it.
    server.account.publish(0, 1, false);
    server.account.publish(0, 0, true);
    server.account.abandon(0, 1);
    server.restart();
    server.publish(3);
    for reader in [whole, cut] {
        server.account.return_to(reader);
        if !(fault == Fault::NoGapOfRestart && reader == cut) {
            server.account.gap(reader, "zk.20", "am.0");
        }
        server.deliver(reader, 20..23);
    }
    let anew = server.join("anew");
    server.account.return_to(anew);
    server.deliver(anew, 20..23);
    server.account.tally()
}

#[test]
fn an_honest_server_keeps_its_promise() {
    let tally = scenario(Fault::None);
    assert!(tally.is_kept(), "{tally}");
    let (accepted, delivered) = (23, 23 + 18 + 3);
    assert_eq!((tally.accepted, tally.unanswered, tally.delivered), (accepted, 2, delivered), "{tally}");
    // 6 to 9 and 15 to 19, three each after the restart and for who came anew.
    assert_eq!((tally.replayed, tally.gaps, tally.announced), (4 + 5 + 3 + 3 + 3, 3, 5), "{tally}");
}

#[test]
fn every_fault_is_told_and_no_other() {
    for (fault, expected) in [
        (Fault::Drop, [1, 0, 0, 0]),
        (Fault::DropLast, [1, 0, 0, 0]),
        (Fault::Twice, [0, 1, 0, 0]),
        (Fault::Behind, [0, 0, 1, 0]),
        (Fault::ReplayTooMuch, [0, 2, 0, 0]),
        (Fault::NoGap, [5, 0, 0, 0]),
        (Fault::ShortGap, [2, 0, 0, 0]),
        (Fault::LateGap, [2, 0, 0, 0]),
        (Fault::StrangeGap, [5, 0, 0, 1]),
        (Fault::GapAndReplay, [0, 0, 1, 0]),
        (Fault::LostForAll, [2, 0, 0, 0]),
        (Fault::PublisherOrder, [0, 0, 1, 0]),
        (Fault::NoCursor, [0, 0, 0, 1]),
    ] {
        let tally = scenario(fault);
        let told = [tally.lost, tally.duplicated, tally.reordered, tally.contradicted];
        assert_eq!(told, expected, "{fault:?}: {tally}");
        assert!(!tally.is_kept() && !tally.words.is_empty(), "{fault:?}: {tally}");
    }
    let tally = scenario(Fault::OtherPosition);
    assert!(tally.contradicted == 1 && tally.lost == 3, "behind k.77 nothing was left to come: {tally}");
}

#[test]
fn a_restart_that_is_not_announced_is_a_loss_only_where_something_was_missed() {
    assert!(scenario(Fault::NoGapOfRestart).is_kept(), "it had all of the old life");
    let mut server = Server::new(Fault::None);
    let reader = server.join("cut");
    server.publish(4);
    server.deliver(reader, 0..3);
    server.restart();
    server.publish(2);
    server.account.return_to(reader);
    server.deliver(reader, 4..6);
    let tally = server.account.tally();
    assert_eq!((tally.lost, tally.words.len()), (1, 1), "{tally}");
    assert!(tally.words[0].contains("message 3 never came"), "{tally}");
}

#[test]
fn who_has_left_is_owed_nothing_behind_its_last_message() {
    let mut server = Server::new(Fault::None);
    let (left, stood) = (server.join("left"), server.account.join(0, "stood".to_owned()));
    server.account.stand(stood, "zk.2");
    server.publish(6);
    server.deliver(left, 0..2);
    server.deliver(left, 3..4);
    server.account.leave(left);
    server.deliver(stood, 2..4);
    server.deliver(stood, 5..6);
    let tally = server.account.tally();
    assert_eq!(tally.lost, 2, "the third of who left, the fifth of who stands behind the second: {tally}");
}

#[test]
fn what_a_websocket_sent_is_owed_though_nobody_ever_saw_it_unless_the_socket_ended() {
    let mut server = Server::new(Fault::None);
    let (reader, late) = (server.join("reader"), server.account.join(0, "late".to_owned()));
    server.account.publish(0, 1, false);
    server.account.confirm(late);
    let tally = server.account.tally();
    assert_eq!((tally.accepted, tally.lost), (1, 1), "owed to who was there before it: {tally}");
    server.account.abandon(0, 1);
    let tally = server.account.tally();
    assert_eq!((tally.accepted, tally.lost, tally.unanswered), (0, 0, 1), "it may never have been read: {tally}");
    server.account.deliver(reader, 0, "zk.1");
    let tally = server.account.tally();
    assert_eq!((tally.accepted, tally.lost, tally.unanswered), (1, 0, 0), "it was accepted after all: {tally}");
}

/// Random cuts, trims and restarts of an honest server; one message less of it is exactly one message lost.
#[test]
fn in_random_histories_nothing_is_told_of_an_honest_server_and_every_drop_is() {
    for seed in 0..300 {
        for is_honest in [true, false] {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut server = Server::new(Fault::None);
            // Who is never cut sees every message, so each has its position.
            let (reader, witness) = (server.join("reader"), server.join("witness"));
            let (mut has, mut kept, mut dropped) = (0, 0, 0);
            for _ in 0..random.usize(2..12) {
                let before = server.log.len();
                server.publish(random.u64(..6));
                server.deliver(witness, before..server.log.len());
                match random.u32(..4) {
                    0 => kept = random.usize(kept..=server.log.len()),
                    1 if server.epoch == "zk" && !server.log.is_empty() => {
                        server.restart();
                        kept = server.log.len();
                    }
                    _ => {}
                }
                if random.bool() {
                    continue;
                }
                server.account.return_to(reader);
                if kept > has {
                    let from = has.checked_sub(1).map_or("zk.0".to_owned(), |last| server.log[last].1.clone());
                    let is_new_life = server.epoch == "am" && !server.log[kept - 1].1.starts_with("am");
                    let to = if is_new_life { "am.0".to_owned() } else { server.log[kept - 1].1.clone() };
                    if has == 0 {
                        server.account.stand(reader, &from);
                    }
                    server.account.gap(reader, &from, &to);
                    has = kept;
                }
                let all = server.log.len();
                if !is_honest && dropped == 0 && all > has {
                    let one = random.usize(has..all);
                    server.deliver(reader, has..one);
                    server.deliver(reader, one + 1..all);
                    dropped = 1;
                } else {
                    server.deliver(reader, has..all);
                }
                has = all;
            }
            // The last return, so that all has come.
            let (all, last) = (server.log.len(), has.max(kept));
            if kept > has {
                let from = has.checked_sub(1).map_or("zk.0".to_owned(), |last| server.log[last].1.clone());
                server.account.stand(reader, "zk.0");
                server.account.gap(reader, &from, &server.log[kept - 1].1.clone());
            }
            server.deliver(reader, last..all);
            let tally = server.account.tally();
            let faults = [tally.duplicated, tally.reordered, tally.contradicted];
            assert_eq!((tally.lost, faults), (dropped, [0, 0, 0]), "seed {seed}, honest {is_honest}: {tally}");
        }
    }
}
