//! Publications of one topic on their way to this worker's subscribers, framed once for all of them.
//!
//! What a turn brings for a topic stands in a row before anybody is handed the first of it. Such a row of small frames goes out as a
//! run: one block of bytes that each subscriber gets one reference to, where it would have queued, offered and released each frame
//! by itself. The copy that makes a run is paid once for each worker and form; frames that are dearer to copy than to queue stay by
//! themselves.
//!
//! Runs are for the policy that never drops. Where publications may be dropped one by one, they are queued one by one.

use std::sync::Arc;

use crate::frame::{Form, Forms, Position, Publication};
use crate::hub::{Hub, Origin, Subscriber};
use crate::io::{Released, Served, Store};
use crate::limits::BufferPool;

use super::options::{Options, SlowConsumer};
use super::outbox::Frames;

/// A frame above this size is queued by itself: its copy costs a microsecond, as much as queueing it for dozens of subscribers.
const FRAME_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a run, so that a subscriber's outbox is not filled by one entry, nor a cache by one copy.
const RUN_BYTES_MAX: usize = 32 * 1024;
/// Publications of a run.
const RUN_PUBLICATIONS_MAX: usize = 64;

/// One publication or a run, with the blocks of the forms that subscribers take.
#[derive(Debug)]
pub(super) struct Run {
    first: Arc<Publication>,
    /// Those behind it.
    more: Vec<Arc<Publication>>,
    /// The frames' bytes, of each publication in its longest form.
    bytes: usize,
    frames: FramesByForm,
    /// What happens to a subscriber that is too slow for them.
    pub(super) slow_consumer: SlowConsumer,
}

/// For each form its frames, once some subscriber has taken it.
pub(super) type FramesByForm = [Option<Frames>; Form::ALL.len()];

/// Begins the way of a publication of a home worker to the subscribers on this one, if there are any left.
pub(super) fn begin(hub: &mut Hub<Run>, options: &Options, home: usize, publication: Arc<Publication>) {
    // The clone is of a reference: the hub takes the publication itself.
    let topic = publication.topic.clone();
    let class = options.classes.get(publication.class);
    let (slow_consumer, origin) = (class.slow_consumer, Origin { home, is_kept: class.history.size > 0 });
    let bytes_max = match slow_consumer {
        SlowConsumer::Disconnect => RUN_BYTES_MAX.min(options.outbox_bytes_max / 2),
        SlowConsumer::DropOldest | SlowConsumer::Latest => 0,
    };
    // Whoever has left since the interest was told needs nothing any more.
    let _ = hub.publish_or_join(&topic, origin, Run::new(publication, slow_consumer), |last, run| last.join(run, bytes_max));
}

impl Run {
    fn new(first: Arc<Publication>, slow_consumer: SlowConsumer) -> Self {
        let bytes = Form::ALL.iter().filter_map(|form| first.form(*form)).map(<[u8]>::len).max().unwrap_or_default();
        Self { first, more: Vec::new(), bytes, frames: [None; Form::ALL.len()], slow_consumer }
    }

    /// Takes a publication in that nobody has yet; gives it back if the run may not grow.
    fn join(&mut self, next: Self, bytes_max: usize) -> Option<Self> {
        let is_begun = self.frames.iter().any(Option::is_some);
        // A first frame that is too large has no room behind it.
        let largest = next.bytes.max(if self.more.is_empty() { self.bytes } else { 0 });
        if is_begun
            || largest > FRAME_BYTES_MAX
            || self.bytes + next.bytes > bytes_max
            || self.more.len() + 1 == RUN_PUBLICATIONS_MAX
        {
            return Some(next);
        }
        self.bytes += next.bytes;
        self.more.push(next.first);
        None
    }

    /// Where who has got all of it stands in its topic.
    pub(super) fn position(&self) -> Position {
        self.more.last().unwrap_or(&self.first).position
    }

    /// The frames of the forms that `subscribers` take; each is held in the store from the first time it is asked for.
    pub(super) fn frames(&mut self, store: &mut Store, subscribers: &[Subscriber]) -> FramesByForm {
        let wanted = subscribers.iter().filter(|subscriber| subscriber.held.is_none());
        let wanted = wanted.fold(Forms::NONE, |wanted, subscriber| wanted.with(subscriber.form));
        for form in Form::ALL.into_iter().filter(|form| wanted.contains(*form)) {
            if self.frames[form as usize].is_none() {
                self.frames[form as usize] = Some(self.share(store, form));
            }
        }
        self.frames
    }

    fn share(&self, store: &mut Store, form: Form) -> Frames {
        let block = match self.more.is_empty() {
            true => store.share(&self.first, form),
            false => store.share_run(std::iter::once(&self.first).chain(&self.more), form),
        };
        Frames { block, length: store.bytes(block).len() as u32, publications: self.more.len() as u16 + 1 }
    }

    /// Gives this fan-out's own references back. Says what was served if nobody else holds some form any more.
    pub(super) fn release(self, store: &mut Store, pool: &mut BufferPool) -> Option<Served> {
        let mut last = None;
        for frames in self.frames.into_iter().flatten() {
            if let Released::Shared(served) = store.release(frames.block, pool) {
                last = Some(served);
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Epoch, Kind, Payload, Topic};

    fn publication(offset: u64, bytes: usize) -> Run {
        let position = Position { epoch: Epoch::from_random(1), offset };
        let payload = Payload::new(Kind::Binary, &vec![b'x'; bytes]).unwrap();
        let topic = Topic::new("chat").unwrap();
        let publication = Arc::new(Publication::new(topic, position, 0, offset, payload, Forms::NONE));
        Run::new(publication, SlowConsumer::Disconnect)
    }

    /// How many of them join the first.
    fn joined(sizes: &[usize], bytes_max: usize) -> usize {
        let mut run = publication(0, sizes[0]);
        sizes[1..].iter().take_while(|size| run.join(publication(1, **size), bytes_max).is_none()).count()
    }

    #[test]
    fn small_frames_join_up_to_the_bounds() {
        assert_eq!(joined(&[10, 10, 10], RUN_BYTES_MAX), 2);
        assert_eq!(joined(&[10; 100], RUN_BYTES_MAX), RUN_PUBLICATIONS_MAX - 1);
        assert_eq!(joined(&[1020; 100], RUN_BYTES_MAX), 31, "a frame has a header of four bytes");
        assert_eq!(joined(&[10, 10, 10], 24), 1);
        assert_eq!(joined(&[10, 10], 0), 0, "with a policy that drops");
    }

    #[test]
    fn a_large_frame_stays_by_itself_at_either_end() {
        assert_eq!(joined(&[FRAME_BYTES_MAX, 10], RUN_BYTES_MAX), 0);
        assert_eq!(joined(&[10, FRAME_BYTES_MAX], RUN_BYTES_MAX), 0);
        assert_eq!(joined(&[4000, 4000, 10, 4000], RUN_BYTES_MAX), 3);
    }

    #[test]
    fn a_run_is_one_block_of_all_frames_in_order_and_no_more_join_once_it_is_taken() {
        let (mut store, mut pool) = (Store::default(), BufferPool::new(1024));
        let mut run = publication(7, 1);
        assert!(run.join(publication(8, 2), 100).is_none());
        let subscribers = [1, 2].map(|slot| Subscriber::live(slot, Form::WsRaw));
        let frames = run.frames(&mut store, &subscribers)[Form::WsRaw as usize].unwrap();
        assert_eq!((store.bytes(frames.block), frames.length, frames.publications), (&b"\x82\x01x\x82\x02xx"[..], 7, 2));
        assert_eq!(run.position().offset, 8);
        assert!(run.join(publication(9, 1), 100).is_some());
        assert_eq!(run.release(&mut store, &mut pool), Some(Served { numbered_ns: 7, publications: 2 }));
        assert_eq!(store.blocks(), 0);
    }
}
