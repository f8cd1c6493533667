//! The outbox by itself.

use std::sync::Arc;

use super::*;
use crate::frame::{Epoch, Form, Forms, Gap, Kind, Payload, Position, Publication, Topic};
use crate::hub::Hub;

struct Bench {
    entries: Entries,
    store: Store,
    pool: BufferPool,
    outbox: Outbox,
    topics: [TopicId; 2],
}

impl Bench {
    fn new() -> Self {
        let mut hub = Hub::<()>::new(1);
        let topics = ["a", "b"].map(|name| hub.subscribe(0, &Topic::new(name).unwrap(), Form::WsRaw));
        Self { entries: Entries::new(), store: Store::default(), pool: BufferPool::new(1 << 20), outbox: Outbox::new(), topics }
    }

    fn publish(&mut self, topic: usize, text: &str, bytes_max: usize) -> Result<(), Full> {
        let block = self.store.own(text.as_bytes().to_vec());
        let frames = Frames { block, length: text.len() as u32, publications: 1 };
        self.outbox.push_publications(&mut self.entries, frames, self.topics[topic], bytes_max)
    }

    /// Publishes for real, so that the frame knows its number.
    fn number(&mut self, topic: usize, offset: u64) {
        let name = ["a", "b"][topic];
        let text = format!("{name}{offset} ");
        let position = Position { epoch: Epoch::from_random(1), offset };
        let payload = Payload::new(Kind::Text, text.as_bytes()).unwrap();
        let publication = Publication::new(Topic::new(name).unwrap(), position, 0, 0, payload, Forms::NONE);
        let block = self.store.share(&Arc::new(publication), Form::WsRaw);
        let length = text.len() as u32 + 2;
        let frames = Frames { block, length, publications: 1 };
        self.outbox.push_publications(&mut self.entries, frames, self.topics[topic], usize::MAX).unwrap();
    }

    fn drop_oldest(&mut self) -> Option<u64> {
        let Self { entries, store, pool, outbox, .. } = self;
        outbox.drop_oldest(entries, store, pool, |_| true, told).map(|finished| finished.messages)
    }

    fn tell_dropped(&mut self, topic: usize, offset: u64) {
        let Self { entries, store, pool, outbox, topics } = self;
        let position = Position { epoch: Epoch::from_random(1), offset };
        outbox.tell_dropped(entries, store, pool, topics[topic], position, told);
    }

    fn cursor(&mut self, text: &str) {
        self.outbox.push_cursor(&mut self.entries, &mut self.store, text.as_bytes().to_vec());
    }

    fn drop_rest(&mut self) -> u64 {
        let Self { entries, store, pool, outbox, .. } = self;
        std::iter::from_fn(|| outbox.drop_any(entries, store, pool)).map(|finished| finished.messages).sum()
    }

    fn control(&mut self, opcode: OpCode, text: &str) {
        self.outbox.push_control(&mut self.entries, &mut self.store, opcode, text.as_bytes());
    }

    fn append(&mut self, text: &str) {
        self.outbox
            .append_owned(&mut self.entries, &mut self.store, &mut self.pool, |bytes| bytes.extend_from_slice(text.as_bytes()));
    }

    fn take(&mut self, bytes: usize) -> u64 {
        self.outbox.taken(&mut self.entries, &mut self.store, &mut self.pool, bytes).messages
    }

    fn text(&self) -> String {
        let mut segments = Vec::new();
        let offered = self.outbox.offer(&self.entries, &mut segments, usize::MAX, usize::MAX);
        let text: Vec<u8> = segments
            .iter()
            .flat_map(|part| &self.store.bytes(part.block)[part.start as usize..part.end as usize])
            .copied()
            .collect();
        assert_eq!((offered, self.entries.queued_bytes()), (text.len(), text.len() as u64));
        assert_eq!(self.outbox.bytes(), offered);
        // Frames of publications have a header of two bytes.
        let headless = text.iter().enumerate().filter(|(at, _)| text[*at] != 0x81 && (*at == 0 || text[*at - 1] != 0x81));
        String::from_utf8(headless.map(|(_, byte)| *byte).collect()).unwrap()
    }
}

/// A form that can't tell of a gap.
fn silent(_: TopicId, _: &Gap, _: &mut Vec<u8>) {}

/// A form that can; topics have the numbers of their places in the bench.
fn told(topic: TopicId, gap: &Gap, out: &mut Vec<u8>) {
    let name = ["a", "b"][usize::from(format!("{topic:?}") == "TopicId(1)")];
    out.extend_from_slice(format!("<{name} {}-{}> ", gap.from.offset, gap.to.offset).as_bytes());
}

#[test]
fn an_empty_queue_takes_any_frame_and_a_full_one_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.publish(0, "0123456789", 4), Ok(()));
    assert_eq!(bench.publish(0, "x", 4), Err(Full));
    assert_eq!(bench.take(10), 1);
    assert!(bench.outbox.is_empty());
}

#[test]
fn control_goes_ahead_of_data_but_never_into_a_frame() {
    let mut bench = Bench::new();
    bench.publish(0, "aaaa", 100).unwrap();
    bench.publish(0, "bbbb", 100).unwrap();
    bench.control(OpCode::Pong, "1");
    assert_eq!(bench.text(), "1aaaabbbb");
    assert_eq!(bench.take(3), 0);
    bench.control(OpCode::Ping, "2");
    bench.control(OpCode::Pong, "3");
    bench.control(OpCode::Pong, "4");
    bench.control(OpCode::Ping, "5");
    assert_eq!(bench.text(), "aa534bbbb");
    assert_eq!(bench.take(9), 2);
    assert_eq!(bench.text(), "");
}

#[test]
fn pongs_that_nobody_reads_are_bounded_and_the_newest_stays() {
    let mut bench = Bench::new();
    for number in 0..10_000 {
        bench.control(OpCode::Pong, &format!(" {number}"));
        assert!(bench.outbox.bytes() <= PONG_BYTES_MAX);
    }
    assert!(bench.text().ends_with(" 9998 9999"));
    assert_eq!(bench.store.blocks(), 1);
}

#[test]
fn replies_share_a_block_until_it_is_in_flight() {
    let mut bench = Bench::new();
    bench.append("one ");
    bench.append("two ");
    assert_eq!(bench.store.blocks(), 1);
    bench.publish(0, "P ", 100).unwrap();
    bench.append("three");
    assert_eq!(bench.text(), "one two P three");
    assert_eq!(bench.store.blocks(), 3);
}

#[test]
fn an_answers_head_stays_first() {
    let mut bench = Bench::new();
    bench.publish(0, "early", 100).unwrap();
    bench.outbox.push_first(&mut bench.entries, &mut bench.store, b"101 ".to_vec());
    bench.control(OpCode::Pong, "pong ");
    assert_eq!(bench.text(), "101 pong early");
}

#[test]
fn what_is_pinned_is_not_dropped() {
    let mut bench = Bench::new();
    for text in ["aa", "bb", "cc"] {
        bench.publish(0, text, 100).unwrap();
    }
    bench.take(1);
    let Bench { entries, store, pool, outbox, topics } = &mut bench;
    assert_eq!(outbox.drop_oldest(entries, store, pool, |_| true, silent).unwrap().messages, 1);
    assert_eq!(outbox.drop_topic(entries, store, pool, topics[1], silent), None);
    assert!(outbox.drop_topic(entries, store, pool, topics[0], silent).is_some());
    assert_eq!(outbox.drop_oldest(entries, store, pool, |_| true, silent), None);
    assert_eq!(bench.text(), "a");
    bench.append("z");
    assert_eq!(bench.text(), "az");
}

#[test]
fn what_is_dropped_leaves_a_gap_in_its_place_that_grows() {
    let mut bench = Bench::new();
    bench.publish(1, "first ", 1000).unwrap();
    bench.take(1);
    for (topic, offset) in [(0, 6), (1, 2), (0, 7), (0, 8), (1, 3)] {
        bench.number(topic, offset);
    }
    assert_eq!(bench.drop_oldest(), Some(1));
    assert_eq!(bench.text(), "irst <a 5-6> b2 a7 a8 b3 ");
    assert_eq!((bench.drop_oldest(), bench.drop_oldest()), (Some(1), Some(1)));
    assert_eq!(bench.text(), "irst <a 5-7> <b 1-2> a8 b3 ");
    // What is on its way stays as it is, and so another gap begins.
    bench.outbox.pin(3);
    assert_eq!((bench.drop_oldest(), bench.drop_oldest()), (Some(1), Some(1)));
    assert_eq!(bench.text(), "irst <a 5-7> <b 1-2> <a 7-8> <b 2-3> ");
    assert_eq!(bench.drop_oldest(), None);
    bench.tell_dropped(0, 9);
    assert_eq!(bench.text(), "irst <a 5-7> <b 1-2> <a 7-9> <b 2-3> ");
    bench.number(0, 10);
    bench.tell_dropped(0, 11);
    assert_eq!(bench.text(), "irst <a 5-7> <b 1-2> <a 7-9> <b 2-3> a10 <a 10-11> ");
    let whole = bench.outbox.bytes();
    assert_eq!(bench.take(whole), 2);
    assert!(bench.entries.gaps.is_empty() && bench.store.blocks() == 0);
}

#[test]
fn the_newest_of_a_topic_stands_behind_the_gap_of_the_older_ones() {
    let mut bench = Bench::new();
    for (topic, offset) in [(0, 1), (1, 1), (0, 2)] {
        bench.number(topic, offset);
        let Bench { entries, store, pool, outbox, topics, .. } = &mut bench;
        if (topic, offset) == (0, 2) {
            assert_eq!(outbox.drop_topic(entries, store, pool, topics[0], told).unwrap().messages, 1);
            assert_eq!(outbox.drop_topic(entries, store, pool, topics[0], told).unwrap().messages, 1);
            bench.number(0, 3);
        }
    }
    assert_eq!(bench.text(), "<a 0-2> b1 a3 ");
}

#[test]
fn a_gap_does_not_grow_across_what_is_asked_for_or_read_anew() {
    let mut bench = Bench::new();
    bench.tell_dropped(0, 1);
    bench.append("ok ");
    bench.number(0, 2);
    bench.drop_oldest();
    let block = bench.store.own(b"a1 ".to_vec());
    bench.outbox.push_kept(&mut bench.entries, Frames { block, length: 3, publications: 1 });
    bench.number(0, 3);
    bench.drop_oldest();
    bench.tell_dropped(0, 4);
    assert_eq!(bench.text(), "<a 0-1> ok <a 1-2> a1 <a 2-4> ");
}

#[test]
fn of_a_topic_that_was_left_nothing_is_dropped() {
    let mut bench = Bench::new();
    for offset in 1..4 {
        bench.number(0, offset);
    }
    bench.drop_oldest();
    let Bench { entries, outbox, topics, .. } = &mut bench;
    outbox.forget_topic(entries, topics[0]);
    assert_eq!((bench.drop_oldest(), bench.entries.gaps.len()), (None, 0));
    // Its number is another topic's now.
    bench.number(0, 9);
    bench.drop_oldest();
    assert_eq!(bench.text(), "<a 0-1> a2 a3 <a 8-9> ");
    assert_eq!(bench.drop_rest(), 2);
    assert_eq!(bench.text(), "");
}

#[test]
fn a_gap_that_grows_leaves_no_cursor_behind_that_would_bring_it_back() {
    let mut bench = Bench::new();
    bench.cursor("~0 ");
    for (topic, offset) in [(0, 1), (1, 1), (0, 2), (1, 2)] {
        bench.number(topic, offset);
        bench.cursor(&format!("~{topic}{offset} "));
    }
    assert_eq!(bench.drop_oldest(), Some(1));
    assert_eq!(bench.text(), "~0 <a 0-1> ~01 b1 ~11 a2 ~02 b2 ~12 ");
    bench.drop_oldest();
    bench.drop_oldest();
    assert_eq!(bench.text(), "~0 <a 0-2> <b 0-1> ~02 b2 ~12 ");
    bench.drop_oldest();
    assert_eq!(bench.text(), "~0 <a 0-2> <b 0-2> ~12 ");
    assert_eq!(bench.outbox.gap_bytes(&bench.entries), bench.outbox.bytes());
    bench.tell_dropped(0, 3);
    assert_eq!(bench.text(), "~0 <a 0-3> <b 0-2> ");
    let whole = bench.outbox.bytes();
    bench.take(whole);
    assert!(bench.entries.gaps.is_empty() && bench.store.blocks() == 0);
}

#[test]
fn what_moves_a_reader_does_not_outlive_the_publications_before_it() {
    let mut bench = Bench::new();
    for offset in 1..4 {
        bench.number(0, offset);
    }
    bench.append("answer ");
    bench.tell_dropped(0, 4);
    bench.tell_dropped(1, 7);
    // A gap amid a replay.
    let block = bench.store.own(b"<epoch> ".to_vec());
    bench.outbox.push_kept(&mut bench.entries, Frames { block, length: 8, publications: 0 });
    bench.cursor("~4 ");
    bench.take(2);
    bench.take(1);
    assert_eq!(bench.text(), "1 a2 a3 answer <a 3-4> <b 6-7> <epoch> ~4 ");
    let dropped = bench.drop_rest();
    assert_eq!((bench.text().as_str(), dropped), ("1 answer ", 2));
    assert_eq!(bench.entries.gaps(), 0);
}

#[test]
fn a_cleared_queue_gives_everything_back() {
    let mut bench = Bench::new();
    bench.publish(0, "aa", 100).unwrap();
    bench.append("bb");
    bench.take(1);
    let Bench { entries, store, pool, outbox, .. } = &mut bench;
    let mut messages = 0;
    outbox.clear(entries, store, pool, |finished| messages += finished.messages);
    assert_eq!((messages, store.blocks(), bench.text().as_str()), (1, 0, ""));
}
