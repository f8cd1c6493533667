//! What a URL names, and from where on it wants each of it.
//!
//! ```text
//! topic=a & topic=b & since=earliest                         everybody's, wherever it stands
//! topic=a & topic=b & since=~... & topic=c & since=k3Vq.7    each of those that were named since the one before; the rest from now on
//! ```
//!
//! So who keeps the cursor of each topic's last message, and of some topics only that of all together, says it all in one request.

use std::collections::HashSet;

use super::query::{Query, decode};
use super::question::Question;
use super::refusals;
use crate::frame::{Cursor, CursorError, Cursors, Epoch, Pattern, PatternError, Position, Since, Topic, TopicError};
use crate::http1::Response;

/// What the URL names, each once.
#[derive(Default)]
pub(super) struct Subjects {
    /// In the order of the URL.
    pub(super) topics: Vec<Topic>,
    /// In the order of the URL.
    pub(super) patterns: Vec<Pattern>,
    /// For each topic, how many `since` stand before it.
    topic_groups: Vec<usize>,
    /// For each pattern, the same.
    pattern_groups: Vec<usize>,
}

/// What one `since` says.
enum Given {
    /// The same to each topic.
    Each(Since),
    /// To each topic where it stands.
    Cursors(Cursors),
}

/// Where somebody stands whose `Last-Event-ID` is none of ours: in no life of any topic, so that a gap is told. To refuse it would end
/// the stream of a browser for good.
const UNREADABLE: Since = Since::After(Position { epoch: Epoch::UNKNOWN, offset: 0 });

/// The topics of the URL, each once, for `what` cannot have patterns.
pub(super) fn topics(question: &Question<'_>, name: Option<&str>, what: &str) -> Result<Subjects, Response> {
    let subjects = Subjects::of(question, name)?;
    if subjects.patterns.is_empty() { Ok(subjects) } else { Err(refusals::pattern_not_here(what)) }
}

impl Subjects {
    /// What the URL names; at least one.
    pub(super) fn of(question: &Question<'_>, name: Option<&str>) -> Result<Self, Response> {
        let mut named = Query(question.head.query).topics().peekable();
        let mut subjects = Self::default();
        if let Some(name) = name {
            if named.peek().is_some() {
                return Err(refusals::topic_twice());
            }
            subjects.add(name, 0, Topic::from_path(name), || Pattern::from_path(name))?;
        }
        let mut seen = HashSet::new();
        for (value, group) in named {
            let text = decode(value).map_err(|error| refusals::topic_error(value, error))?;
            let topic = Topic::new(&text);
            if seen.insert(text.clone()) {
                subjects.add(value, group, topic, || Pattern::parse(&text))?;
            }
            if seen.len() > question.options.subscriptions_max {
                return Err(refusals::too_many_subscriptions(question.options.subscriptions_max));
            }
        }
        if !subjects.patterns.is_empty() && !question.grant.patterns {
            return Err(refusals::forbidden("subscribe to patterns"));
        }
        if subjects.count() == 0 { Err(refusals::topic_missing()) } else { Ok(subjects) }
    }

    /// Adds what is named: a name that holds a wildcard is a pattern's.
    fn add(
        &mut self,
        name: &str,
        group: usize,
        topic: Result<Topic, TopicError>,
        pattern: impl FnOnce() -> Result<Pattern, PatternError>,
    ) -> Result<(), Response> {
        match topic {
            Ok(topic) => {
                self.topics.push(topic);
                self.topic_groups.push(group);
            }
            Err(TopicError::Wildcard) => {
                self.patterns.push(pattern().map_err(|error| refusals::pattern_error(name, error))?);
                self.pattern_groups.push(group);
            }
            Err(error) => return Err(refusals::topic_error(name, error)),
        }
        Ok(())
    }

    /// How many topics and patterns.
    pub(super) fn count(&self) -> usize {
        self.topics.len() + self.patterns.len()
    }

    /// Whether payloads alone would not say what they are of.
    pub(super) fn need_envelope(&self) -> bool {
        self.count() > 1 || !self.patterns.is_empty()
    }

    /// Refuses more topics than the cursor of a stream or poll may be of.
    pub(super) fn fit_cursor(&self) -> Result<(), Response> {
        if self.topics.len() > Cursors::TOPICS_MAX { Err(refusals::too_many_for_a_cursor()) } else { Ok(()) }
    }

    /// From where on each topic is wanted, and then each pattern, which has no cursor.
    pub(super) fn since(&self, query: Query<'_>) -> Result<Vec<Since>, Response> {
        let given: Vec<Given> = query.since().map(Given::read).collect::<Result<_, _>>()?;
        // One alone is everybody's.
        let number = |group: usize| if given.len() == 1 { 0 } else { group };
        let since_of_topic = |(topic, group): (&Topic, &usize)| {
            let number = number(*group);
            let is_shared = || self.topic_groups.iter().filter(|other| given.len() == 1 || **other == number).count() > 1;
            match given.get(number) {
                None => Ok(Since::Latest),
                Some(Given::Each(Since::After(_))) if is_shared() => Err(refusals::cursor_of_one_topic()),
                Some(Given::Each(since)) => Ok(*since),
                Some(Given::Cursors(cursors)) => Ok(cursors.since(topic.as_str())),
            }
        };
        let since_of_pattern = |group: &usize| match given.get(number(*group)) {
            None => Ok(Since::Latest),
            Some(Given::Each(Since::After(_)) | Given::Cursors(_)) => Err(refusals::cursor_of_pattern()),
            Some(Given::Each(since)) => Ok(*since),
        };
        let topics = self.topics.iter().zip(&self.topic_groups).map(since_of_topic);
        topics.chain(self.pattern_groups.iter().map(since_of_pattern)).collect()
    }

    /// Where each topic goes on for a browser that comes back, and each pattern, which only goes on. That of one topic does not say where
    /// several stand.
    pub(super) fn since_last_event(&self, id: &[u8]) -> Vec<Since> {
        let given = std::str::from_utf8(id).map_err(|_| CursorError).and_then(|id| match id.starts_with('~') {
            true => id.parse().map(Given::Cursors),
            false if self.count() == 1 => id.parse().map(|Cursor(at)| Given::Each(Since::After(at))),
            false => Err(CursorError),
        });
        let since_of = |topic: &Topic| match &given {
            Ok(Given::Each(since)) => *since,
            Ok(Given::Cursors(cursors)) => cursors.since(topic.as_str()),
            Err(CursorError) => UNREADABLE,
        };
        self.topics.iter().map(since_of).chain(self.patterns.iter().map(|_| Since::Latest)).collect()
    }
}

impl Given {
    /// `URLSearchParams` writes `~` as `%7E`.
    fn read(value: &str) -> Result<Self, Response> {
        let read = decode(value).map_err(|_| CursorError).and_then(|text| match text.starts_with('~') {
            true => text.parse().map(Self::Cursors),
            false => text.parse().map(Self::Each),
        });
        let fix = "Use a cursor as the server gave it, earliest, latest, or a time such as 10m.";
        read.map_err(|CursorError| refusals::bad_parameter("since", value, fix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::TopicHash;
    use crate::routes::Action;
    use crate::routes::testing::Ask;

    fn after(offset: u64) -> Since {
        Since::After(Position { epoch: "k3Vq".parse().unwrap(), offset })
    }

    /// The cursor of a at 1 and b at 2.
    fn of_a_and_b() -> String {
        let place = |(name, offset)| (TopicHash::of(name), Position { epoch: "k3Vq".parse().unwrap(), offset });
        Cursors::text([("a", 1), ("b", 2)].into_iter().map(place))
    }

    fn since(ask: &Ask) -> Vec<Since> {
        match ask.action() {
            Action::Subscribe(subscribe) => subscribe.since.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_topic_has_the_since_behind_it_and_one_alone_is_everybodys() {
        let both = of_a_and_b();
        for (query, expected) in [
            ("topic=a&topic=b", vec![Since::Latest; 2]),
            ("since=earliest&topic=a&topic=b", vec![Since::Earliest; 2]),
            ("topic=b&topic=a&topic=c&since=BOTH", vec![after(2), after(1), Since::Latest]),
            ("topic=b&since=BOTH", vec![after(2)]),
            ("topic=a&topic=b&since=BOTH&topic=c&since=k3Vq.7&topic=d", vec![after(1), after(2), after(7), Since::Latest]),
            ("topic=a&since=k3Vq.8&topic=b&topic=c&since=earliest", vec![after(8), Since::Earliest, Since::Earliest]),
            ("topic=a&since=k3Vq.8&topic=a&topic=b&since=k3Vq.9", vec![after(8), after(9)]),
            ("since=earliest&since=latest&topic=a&topic=b", vec![Since::Latest; 2]),
        ] {
            for way in ["as=sse&envelope", "as=ndjson", "wait=1"] {
                let ask = Ask::new("GET", format!("/topics?{}&{way}", query.replace("BOTH", &both)));
                assert_eq!(since(&ask), expected, "{query}");
            }
        }
        let beside_a_pattern = Ask::new("GET", "/topics?topic=c%2F*&since=earliest&topic=a&since=k3Vq.7&as=ndjson");
        assert_eq!(since(&beside_a_pattern), [after(7), Since::Earliest], "topics stand before patterns");
        let socket =
            Ask::new("GET", format!("/topics?topic=a&topic=b&envelope&since={}", both.replacen('~', "%7E", 1))).upgrade();
        assert_eq!(since(&socket), [after(1), after(2)]);
    }

    #[test]
    fn a_since_that_says_nothing_is_refused() {
        let both = of_a_and_b();
        for (query, expected) in [
            ("topic=a&topic=b&since=k3Vq.7", "cursor-of-one-topic"),
            ("topic=a&topic=b&since=k3Vq.7&topic=c&since=k3Vq.8", "cursor-of-one-topic"),
            ("topic=a&topic=b&since=~", "bad-parameter"),
            ("topic=a&topic=b&since=~AAAA", "bad-parameter"),
            ("topic=a&since=earliest&topic=b&since=now", "bad-parameter"),
            ("topic=a&topic=b&since=BOTH.1", "bad-parameter"),
            ("topic=a&topic=b&since=%FF", "bad-parameter"),
            ("topic=a&topic=c%2F*&since=BOTH", "cursor-of-one-topic"),
        ] {
            let ask = Ask::new("GET", format!("/topics?{}&as=ndjson", query.replace("BOTH", &both)));
            assert_eq!(ask.problem_type(), (400, expected.into()), "{query}");
        }
    }

    #[test]
    fn who_comes_back_to_a_stream_says_where_it_stood() {
        let (one, two) = ("/topics/a?as=sse&since=earliest", "/topics?topic=a&topic=b&as=sse&envelope");
        let beside_a_pattern = "/topics?topic=a&topic=c%2F*&as=sse&envelope";
        let both = of_a_and_b();
        for (target, id, expected) in [
            (one, "k3Vq.7", vec![after(7)]),
            (one, &both, vec![after(1)]),
            (one, "7", vec![UNREADABLE]),
            (one, "k3Vq.7.8", vec![UNREADABLE]),
            (two, &both, vec![after(1), after(2)]),
            (two, &both[..both.len() - 1], vec![UNREADABLE; 2]),
            (two, "k3Vq.7", vec![UNREADABLE; 2]),
            (beside_a_pattern, &both, vec![after(1), Since::Latest]),
            (beside_a_pattern, "k3Vq.7", vec![UNREADABLE, Since::Latest]),
        ] {
            assert_eq!(since(&Ask::new("GET", target).header("Last-Event-ID", id)), expected, "{target} {id}");
        }
    }
}
