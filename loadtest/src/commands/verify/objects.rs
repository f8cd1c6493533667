//! The server's JSON: what came of a topic, and what an answer says.

use serde::Deserialize;

/// What an object tells a reader.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// A publication; its text is empty where it is none.
    Message {
        /// Its position.
        cursor: String,
        /// What was published.
        text: String,
    },
    /// Something is missing.
    Gap {
        /// Where the reader stood.
        from: String,
        /// Behind which it goes on.
        to: String,
    },
}

/// What a poll brought.
#[derive(Debug, Deserialize)]
pub struct Polled {
    messages: Vec<Object>,
    /// Where the next poll begins.
    pub cursor: String,
    /// Nothing is missing in front of the first message.
    pub recovered: bool,
}

#[derive(Debug, Deserialize)]
struct Object {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    cursor: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: String,
}

#[derive(Deserialize)]
struct Published {
    cursor: String,
}

impl Polled {
    /// Reads the body of a poll's answer.
    pub fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Cursor and text of each message.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.messages.iter().map(|message| (&*message.cursor, &*message.text))
    }
}

/// Reads a `message` or `gap` object; None of anything else.
pub fn read(object: &[u8]) -> Option<Told> {
    let Object { kind, cursor, text, from, to } = serde_json::from_slice(object).ok()?;
    match &*kind {
        "message" => Some(Told::Message { cursor, text }),
        "gap" => Some(Told::Gap { from, to }),
        _ => None,
    }
}

/// The cursor in the answer to a POST.
pub fn cursor_of_answer(body: &[u8]) -> Option<String> {
    serde_json::from_slice(body).ok().map(|Published { cursor }| cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_read_and_nothing_else() {
        let message = br#"{"type":"message","topic":"a","cursor":"k.7","at_ms":1,"text":"hi"}"#;
        assert_eq!(read(message), Some(Told::Message { cursor: "k.7".to_owned(), text: "hi".to_owned() }));
        let gap = br#"{"type":"gap","topic":"a","from":"k.7","to":"k.9","reason":"trimmed"}"#;
        assert_eq!(read(gap), Some(Told::Gap { from: "k.7".to_owned(), to: "k.9".to_owned() }));
        assert_eq!((read(br#"{"type":"ping"}"#), read(b"payload"), read(b"{}")), (None, None, None));
        assert_eq!(cursor_of_answer(br#"{"topic":"a","cursor":"k.7","epoch":"k","offset":7}"#), Some("k.7".to_owned()));
        assert_eq!(cursor_of_answer(b"ok"), None);
        let other = br#"{"type":"message","topic":"a","cursor":"k.8","at_ms":1,"data":{"x":1}}"#;
        let body = [br#"{"messages":["#, &message[..], b",", other, br#"],"cursor":"k.8","recovered":false}"#].concat();
        let polled = Polled::read(&body).unwrap();
        assert_eq!(polled.messages().collect::<Vec<_>>(), [("k.7", "hi"), ("k.8", "")]);
        assert_eq!((&*polled.cursor, polled.recovered), ("k.8", false));
    }
}
