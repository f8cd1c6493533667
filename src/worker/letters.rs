//! What workers write to one another.

use std::sync::Arc;

use crate::engine::{AppendError, Appended, Extent, Page, Scan, Sheaf, Submission};
use crate::frame::{Epoch, Forms, Pattern, Publication, Since, Topic};
use crate::hub::presence::{State, Told};
use crate::io::Token;
use crate::metrics::Source;

use super::accept::Origin;
use super::presence::Letter;

/// What one worker asks of another.
#[derive(Debug)]
pub enum Request<S> {
    /// Number this and hand it out.
    Publish {
        /// Who gets the answer.
        asker: Asker,
        /// What is to be published.
        submission: Submission,
    },
    /// These are the forms my subscribers of the topic need.
    Interest {
        /// The worker whose subscribers they are.
        worker: usize,
        /// The topic.
        topic: Topic,
        /// Their forms; none when the last has left.
        forms: Forms,
        /// How many they are.
        subscribers: u64,
        /// Which state this is, for the answer.
        version: u32,
    },
    /// The same for a pattern: told to every worker, because the topics that it matches may have any home.
    PatternInterest {
        /// The worker whose subscribers they are.
        worker: usize,
        /// The pattern.
        pattern: Pattern,
        /// Their forms; none when the last has left.
        forms: Forms,
        /// How many they are.
        subscribers: u64,
        /// Which state this is, for the answer.
        version: u32,
    },
    /// Where does this topic stand?
    Information {
        /// Who gets the answer.
        asker: Asker,
        /// The topic.
        topic: Topic,
    },
    /// Let it begin another life, without history.
    Delete {
        /// Who gets the answer.
        asker: Asker,
        /// The topic.
        topic: Topic,
    },
    /// What is kept of this topic?
    Read {
        /// Who gets the page.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// From where on.
        since: Since,
        /// Bytes of the page; 0 for a look at what can be recovered.
        bytes_max: usize,
    },
    /// What is kept of your topics that a pattern matches?
    Scan(Box<Scan<Asker>>),
    /// These are my members and watchers; who is there?
    Presence(Box<Letter>),
    /// Take this connection.
    Adopt {
        /// The socket.
        socket: S,
        /// What is known of it.
        origin: Origin,
    },
}

/// Which request of which connection waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// The worker.
    pub worker: usize,
    /// Its connection.
    pub token: Token,
    /// The number of the request, or of the reading; 0 for a message that has no id.
    pub number: u16,
    /// Which publication of the request.
    pub place: u16,
    /// How the publication came in.
    pub source: Source,
}

/// What a worker gets from another.
#[derive(Debug)]
pub enum Delivery {
    /// A publication for its subscribers.
    Publication(Arc<Publication>),
    /// The answer to [`Request::Publish`].
    Published {
        /// Who asked.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// Where the publication stands, and how many subscribers the home worker knew; or why it was refused.
        result: Result<(Appended, u64), AppendError>,
    },
    /// The answer to [`Request::Interest`]: it is in force.
    InterestKnown(Topic, u32),
    /// The other answer: the topic has no room.
    InterestRefused(Topic, AppendError),
    /// The answer to [`Request::PatternInterest`]: it is in force for the topics of the worker that answers.
    PatternKnown(Pattern, u32),
    /// The answer to [`Request::Information`].
    Information {
        /// Who asked.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// Its life and what is kept of it, if it lives.
        extent: Option<Extent>,
        /// Its subscribers, on all workers.
        subscribers: u64,
    },
    /// The answer to [`Request::Delete`].
    Deleted {
        /// Who asked.
        asker: Asker,
        /// The topic.
        topic: Topic,
        /// Its new life, if it lives; or why it goes on as it was.
        result: Result<Option<Epoch>, AppendError>,
    },
    /// The answer to [`Request::Read`].
    Page {
        /// Who asked.
        asker: Asker,
        /// A piece of the history; or the topic has no room.
        result: Result<Box<Page>, AppendError>,
    },
    /// The answer to [`Request::Scan`]: who asked, and a piece of the history.
    Scanned(Asker, Box<Sheaf>),
    /// The answer to [`Request::Presence`]: it is noted, and this is who is there in the topics that it asks of.
    PresenceNoted(Vec<(Topic, Arc<State>)>),
    /// Who has come and gone, for its watchers.
    PresenceTold(Arc<Told>),
    /// The answer to [`Request::Adopt`].
    Adopted,
}
