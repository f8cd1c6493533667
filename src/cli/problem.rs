//! A server's refusal in a person's words (RFC 9457).

use serde::Deserialize;

use super::Failure;

/// Bytes of an answer's body that are read: a refusal is far shorter, and the server may be none of ours.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The members that are shown.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
    fix: Option<String>,
}

/// Says what an answer with `status` and `body` refused, and how to mend it.
pub(super) fn describe(status: u16, body: &[u8]) -> Failure {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let said = match (&problem.title, &problem.detail) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(text), None) | (None, Some(text)) => text.clone(),
        (None, None) => String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect(),
    };
    let said = printable(said.trim());
    let separator = if said.is_empty() { "" } else { ": " };
    let failure = Failure::runtime(format!("the server answers {status}{separator}{said}"));
    match problem.fix {
        Some(fix) => failure.with_fix(printable(&fix)),
        None => failure,
    }
}

/// `text` without a way to command the terminal: control characters, the line's end among them, are shown escaped.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Characters shown of a body that is no problem body, such as a proxy's page.
const EXCERPT_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_body_becomes_a_line_and_a_fix() {
        let body = br#"{"type":"urn:fantail:problem:message-too-large","title":"The message is too large","status":413,
            "detail":"The body has 70112 bytes; the limit is 65536.","limit_bytes":65536,"fix":"Send less."}"#;
        assert_eq!(
            describe(413, body).to_string(),
            "fantail: the server answers 413: The message is too large: The body has 70112 bytes; the limit is 65536.\nfix: Send less.\n"
        );
    }

    #[test]
    fn other_bodies_are_shown_in_part_and_cannot_command_the_terminal() {
        assert_eq!(describe(502, b"").to_string(), "fantail: the server answers 502\n");
        let page = format!("\x1b[2J<h1>Bad\r\nGateway</h1>{}", "x".repeat(10_000));
        let text = describe(502, page.as_bytes()).to_string();
        assert!(text.starts_with("fantail: the server answers 502: \\u{1b}[2J<h1>Bad\\r\\nGateway</h1>xx"), "{text}");
        assert!(text.len() < 300);
        assert_eq!(describe(500, br#"{"title":"A\u0007B"}"#).to_string(), "fantail: the server answers 500: A\\u{7}B\n");
        assert_eq!(describe(500, b"\xff").to_string(), "fantail: the server answers 500: \u{fffd}\n");
    }
}
