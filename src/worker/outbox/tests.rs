//! The outbox by itself.

use super::*;
use crate::frame::{Form, Topic};
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
        String::from_utf8(text).unwrap()
    }
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
    assert_eq!(outbox.drop_oldest(entries, store, pool, |_| true).unwrap().messages, 1);
    assert_eq!(outbox.drop_topic(entries, store, pool, topics[1]), None);
    assert!(outbox.drop_topic(entries, store, pool, topics[0]).is_some());
    assert_eq!(outbox.drop_oldest(entries, store, pool, |_| true), None);
    assert_eq!(bench.text(), "a");
    bench.append("z");
    assert_eq!(bench.text(), "az");
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
