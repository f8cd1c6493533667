//! The embedded pages: bytes of the program itself, revalidated by their hash (RFC 9110 sections 8.8.3 and 13.1.2).

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha1::{Digest, Sha1};

use crate::http1::{Body, Head, Response};

/// A page without assets of its own.
pub(super) struct Page {
    bytes: &'static [u8],
    etag: LazyLock<String>,
}

/// `/`: a chat and a live view of the fan-out.
pub(super) static INDEX: Page = Page { bytes: INDEX_HTML, etag: LazyLock::new(|| etag(INDEX_HTML)) };
/// `/chat.html`: the same chat in a few lines, to be read.
pub(super) static CHAT: Page = Page { bytes: CHAT_HTML, etag: LazyLock::new(|| etag(CHAT_HTML)) };

const INDEX_HTML: &[u8] = include_bytes!("page/index.html");
const CHAT_HTML: &[u8] = include_bytes!("../../docs/chat.html");

/// One file with script and style inside, which talks to this server and, for sockets on other ports or hosts, to WebSockets;
/// it loads nothing, is framed by nobody and sends no form.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, or 304 if the client has it.
pub(super) fn page(head: &Head<'_>, page: &Page) -> Response {
    let status = if has_it(head, &page.etag) { 304 } else { 200 };
    let response = Response::new(status).header("ETag", page.etag.as_str()).header("Cache-Control", "no-cache");
    if status == 304 {
        return response;
    }
    response
        .header("Content-Type", "text/html; charset=utf-8")
        .header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .header("X-Content-Type-Options", "nosniff")
        .body(Body::Static(page.bytes))
}

/// Whether If-None-Match names this entity tag or `*`; `W/` does not matter here. Our tags hold no comma, so a list splits there.
fn has_it(head: &Head<'_>, etag: &str) -> bool {
    head.values("If-None-Match").flat_map(|line| line.split(|byte| *byte == b',')).any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    })
}

/// A strong entity tag: equal bytes, equal tag, in every process and on every machine.
fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(Sha1::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, header};

    #[test]
    fn a_page_says_what_it_is_and_what_it_may() {
        for (target, bytes) in [("/", INDEX_HTML), ("/chat.html", CHAT_HTML)] {
            let answer = Ask::new("GET", target).answer();
            assert_eq!((answer.status, answer.body.as_bytes()), (200, bytes));
            assert_eq!(header(&answer, "Content-Type"), Some("text/html; charset=utf-8"));
            assert_eq!(header(&answer, "X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(header(&answer, "Cache-Control"), Some("no-cache"));
            assert!(header(&answer, "Content-Security-Policy").unwrap().contains("connect-src 'self' ws: wss:;"));
        }
    }

    #[test]
    fn a_client_that_has_the_page_is_told_so() {
        let answer = Ask::new("GET", "/").answer();
        let etag = header(&answer, "ETag").unwrap();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() == 29, "{etag}");
        for known in [etag.to_owned(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".into()] {
            let again = Ask::new("GET", "/").header("If-None-Match", &known).answer();
            assert_eq!((again.status, again.body.as_bytes()), (304, &b""[..]), "{known}");
            assert_eq!(header(&again, "ETag"), Some(etag));
        }
        for unknown in ["\"x\"", "", etag.trim_matches('"')] {
            assert_eq!(Ask::new("GET", "/").header("If-None-Match", unknown).answer().status, 200, "{unknown}");
        }
    }

    #[test]
    fn different_pages_have_different_tags() {
        assert_ne!(*INDEX.etag, *CHAT.etag);
    }
}
