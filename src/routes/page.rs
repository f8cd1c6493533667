//! The embedded pages and the client module: text of the program itself, revalidated by its hash (RFC 9110 sections 8.8.3 and
//! 13.1.2). A page stands under a Content-Security-Policy that names the script and style inside by theirs (W3C CSP Level 3 section
//! 6.7.3.3).

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::http1::{Body, Head, Response};

/// A text that is served as it is. What it determines is worked out when it is first asked for.
pub(super) struct Page {
    text: &'static str,
    media_type: &'static str,
    etag: LazyLock<String>,
    security_policy: Option<LazyLock<String>>,
}

/// `/`: a chat and a live view of the fan-out.
pub(super) static INDEX: Page = Page {
    text: INDEX_HTML,
    media_type: HTML,
    etag: LazyLock::new(|| etag(INDEX_HTML)),
    security_policy: Some(LazyLock::new(|| security_policy(INDEX_HTML))),
};
/// `/chat.html`: the same chat in a few lines, to be read.
pub(super) static CHAT: Page = Page {
    text: CHAT_HTML,
    media_type: HTML,
    etag: LazyLock::new(|| etag(CHAT_HTML)),
    security_policy: Some(LazyLock::new(|| security_policy(CHAT_HTML))),
};
/// `/fantail.js`: the client for browsers and Node, an ES module.
pub(super) static MODULE: Page =
    Page { text: MODULE_JS, media_type: JAVASCRIPT, etag: LazyLock::new(|| etag(MODULE_JS)), security_policy: None };
/// `/fantail.d.ts`: its types.
pub(super) static MODULE_TYPES: Page =
    Page { text: MODULE_D_TS, media_type: PLAIN, etag: LazyLock::new(|| etag(MODULE_D_TS)), security_policy: None };

const HTML: &str = "text/html; charset=utf-8";
/// RFC 9239.
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

const INDEX_HTML: &str = include_str!("page/index.html");
const CHAT_HTML: &str = include_str!("../../docs/chat.html");
const MODULE_JS: &str = include_str!("page/fantail.js");
const MODULE_D_TS: &str = include_str!("page/fantail.d.ts");

/// The page, or 304 if the client has it.
pub(super) fn page(head: &Head<'_>, page: &Page) -> Response {
    let status = if has_it(head, &page.etag) { 304 } else { 200 };
    let response = Response::new(status).header("ETag", page.etag.as_str()).header("Cache-Control", "no-cache");
    if status == 304 {
        return response;
    }
    let response = response.header("Content-Type", page.media_type).header("X-Content-Type-Options", "nosniff");
    let response = match &page.security_policy {
        Some(policy) => response.header("Content-Security-Policy", policy.as_str()),
        None => response,
    };
    response.body(Body::Static(page.text.as_bytes()))
}

/// Whether If-None-Match names this entity tag or `*`; `W/` does not matter here. Our tags hold no comma, so a list splits there.
fn has_it(head: &Head<'_>, etag: &str) -> bool {
    head.values("If-None-Match").flat_map(|line| line.split(|byte| *byte == b',')).any(|tag| {
        let tag = tag.trim_ascii();
        tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes()
    })
}

/// A strong entity tag: equal text, equal tag, in every process and on every machine.
fn etag(text: &str) -> String {
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(Sha1::digest(text)))
}

/// The page runs its own script and style and the client module and no other, talks to this server, is framed by nobody and sends no form. `ws:` and
/// `wss:` stand beside `'self'` for browsers that do not count a WebSocket to the page's own origin under it.
fn security_policy(text: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self' {}; style-src {}; img-src data:; connect-src 'self' ws: wss:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        source(inside(text, "script")),
        source(inside(text, "style")),
    )
}

/// What stands between the tags of the page's one `name` element, byte for byte what a browser hashes.
fn inside<'t>(text: &'t str, name: &str) -> &'t str {
    let after = text.split_once(&format!("<{name}")).and_then(|(_, rest)| rest.split_once('>'));
    after.and_then(|(_, rest)| rest.split_once(&format!("</{name}>"))).map_or("", |(content, _)| content)
}

/// A source expression that allows exactly this content (W3C CSP Level 3 section 2.3.1).
fn source(content: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::testing::{Ask, header};

    #[test]
    fn a_page_says_what_it_is_and_what_it_may() {
        for (target, text) in [("/", INDEX_HTML), ("/chat.html", CHAT_HTML)] {
            let answer = Ask::new("GET", target).answer();
            assert_eq!((answer.status, answer.body.as_bytes()), (200, text.as_bytes()));
            assert_eq!(header(&answer, "Content-Type"), Some("text/html; charset=utf-8"));
            assert_eq!(header(&answer, "X-Content-Type-Options"), Some("nosniff"));
            assert_eq!(header(&answer, "Cache-Control"), Some("no-cache"));
            let policy = header(&answer, "Content-Security-Policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self' 'sha256-"), "{policy}");
            assert!(policy.contains("connect-src 'self' ws: wss:;") && !policy.contains("unsafe"), "{policy}");
        }
    }

    #[test]
    fn the_client_module_says_what_it_is() {
        for (target, media_type, text) in [
            ("/fantail.js", "text/javascript; charset=utf-8", MODULE_JS),
            ("/fantail.d.ts", "text/plain; charset=utf-8", MODULE_D_TS),
        ] {
            let answer = Ask::new("GET", target).answer();
            assert_eq!((answer.status, answer.body.as_bytes()), (200, text.as_bytes()));
            assert_eq!((header(&answer, "Content-Type"), header(&answer, "Content-Security-Policy")), (Some(media_type), None));
            let etag = header(&answer, "ETag").unwrap();
            assert_eq!(Ask::new("GET", target).header("If-None-Match", etag).answer().status, 304);
        }
    }

    #[test]
    fn each_page_has_one_script_and_one_style_and_nothing_inline_beside_them() {
        for text in [INDEX_HTML, CHAT_HTML] {
            for name in ["script", "style"] {
                assert_eq!(text.matches(&format!("<{name}")).count(), 1, "a policy names one {name}");
                assert!(!inside(text, name).is_empty(), "{name}");
            }
            // Attributes that a policy of hashes switches off without a word to who wrote them.
            for attribute in [" style=\"", " onclick=\"", " onload=\""] {
                assert!(!text.contains(attribute), "{attribute}");
            }
        }
    }

    #[test]
    fn a_source_is_the_hash_of_what_stands_between_the_tags() {
        let text = "<style media=all>p{}</style><script type=\"module\">alert('Hello, world.');</script>";
        assert_eq!(inside(text, "style"), "p{}");
        // The example of W3C CSP Level 2, the section on hashes.
        let known = "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='";
        assert_eq!(source(inside(text, "script")), known);
        assert!(security_policy(text).contains(&format!("script-src 'self' {known};")));
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
