//! What is published, and the bytes it becomes: topics, patterns, positions, publications, and the frames made of them once.
//!
//! A [`Publication`] owns its payload inside its first wire form (header and payload in one allocation), so the most common
//! subscriber, a raw WebSocket, is served by the very bytes that were accepted. Nothing here does I/O or reads a clock.

mod cursors;
mod event_stream;
mod gap;
mod header;
mod kind;
mod pattern;
mod position;
mod publication;
mod topic;

pub use cursors::{Cursors, TopicHash};
pub use event_stream::{StreamEnd, StreamEvent, chunk};
pub use gap::{Gap, GapReason};
pub use header::{FrameHeader, OpCode};
pub use kind::Kind;
pub use pattern::{Pattern, PatternError};
pub use position::{Cursor, CursorError, Epoch, Position, Since};
pub use publication::{ClassId, Form, Forms, Payload, PayloadError, Publication};
pub use topic::{TOPIC_BYTES_MAX, Topic, TopicError};
