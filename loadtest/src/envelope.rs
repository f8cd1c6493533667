//! Fantail's JSON objects as a load test meets them in its stride: one text field found without reading the rest.
//!
//! `message` objects have their cursor before anything a publisher wrote, and quotes inside a topic's name are escaped, so the
//! first `"cursor":"` is the cursor. Whoever needs more than that reads the object as JSON.

use memchr::memmem;

/// The cursor of a `message` object; None of what is none.
pub fn cursor_of(object: &[u8]) -> Option<&str> {
    text_behind(object, b"\"cursor\":\"")
}

/// Behind which cursor a reader goes on after a `gap` object; None of what is none.
pub fn end_of_gap(object: &[u8]) -> Option<&str> {
    object.starts_with(b"{\"type\":\"gap\",").then(|| text_behind(object, b"\"to\":\""))?
}

/// The text from behind the first `name` to the next quote. A cursor has nothing that is escaped.
fn text_behind<'b>(object: &'b [u8], name: &[u8]) -> Option<&'b str> {
    let from = memmem::find(object, name)? + name.len();
    let bytes = memchr::memchr(b'"', &object[from..])?;
    str::from_utf8(&object[from..from + bytes]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_and_only_where_they_are() {
        let message = br#"{"type":"message","topic":"a\"cursor\":\"b","cursor":"k3.7","at_ms":1,"text":"\"cursor\":\"no\""}"#;
        assert_eq!((cursor_of(message), end_of_gap(message)), (Some("k3.7"), None));
        let gap = br#"{"type":"gap","topic":"to","from":"k3.7","to":"k4.0","reason":"epoch"}"#;
        assert_eq!((cursor_of(gap), end_of_gap(gap)), (None, Some("k4.0")));
        for other in [&b"@payload"[..], br#"{"cursor":"k3"#, b"", br#"{"type":"gap","to":7}"#] {
            assert_eq!((cursor_of(other), end_of_gap(other)), (None, None));
        }
    }
}
