//! Why a handshake is refused, in words that name the header and the fix.

use crate::http1::{Problem, Response};

/// The rule of RFC 6455 section 4.2.1 that a handshake breaks, in the order of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// A draft before the standard.
    Draft,
    /// A key, but no Upgrade header.
    UpgradeRemoved,
    /// Nothing of a handshake at all, where one is needed.
    NoUpgrade,
    /// Not a GET.
    Method,
    /// HTTP/1.0.
    Http10,
    /// A body.
    Body,
    /// No `Connection: Upgrade`.
    NoConnectionUpgrade,
    /// Sec-WebSocket-Version is not 13 once.
    Version,
    /// No Sec-WebSocket-Key.
    KeyMissing,
    /// More than one Sec-WebSocket-Key.
    KeyRepeated,
    /// A Sec-WebSocket-Key that is not the base64 of 16 bytes.
    KeyInvalid,
    /// Sec-WebSocket-Extensions breaks its grammar.
    Extensions,
}

impl HandshakeError {
    /// The rule that was broken.
    #[must_use]
    pub const fn section(self) -> &'static str {
        match self {
            Self::Draft | Self::Version => "RFC 6455 section 4.4",
            Self::Extensions => "RFC 6455 section 9.1",
            Self::Body => "RFC 9110 section 9.3.1",
            _ => "RFC 6455 section 4.2.1",
        }
    }

    /// 405, 426 or 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Draft | Self::UpgradeRemoved | Self::NoUpgrade | Self::Version => 426,
            _ => 400,
        }
    }

    /// The answer. It closes the connection: what follows a refused handshake may be frames, and is never read as a request.
    #[must_use]
    pub fn into_response(self) -> Response {
        let (detail, fix) = self.words();
        let (kind, title) = self.kind();
        let detail = format!("{detail} ({}).", self.section());
        let response = Problem { kind, status: self.status(), title, detail, fix, numbers: Vec::new() }.into_response().close();
        match self.status() {
            405 => response.header("Allow", "GET"),
            // RFC 9110 section 15.5.22 asks for Upgrade, section 7.8 for Connection beside it; RFC 6455 section 4.4 for the version.
            426 => response.header("Upgrade", "websocket").header("Connection", "Upgrade").header("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }

    const fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::Method => ("method-not-allowed", "The method is not allowed here"),
            Self::UpgradeRemoved => ("upgrade-removed", "The Upgrade header was lost on the way"),
            Self::NoUpgrade => ("upgrade-required", "This needs a WebSocket"),
            Self::Draft | Self::Version => ("websocket-version", "This version of WebSocket is not spoken here"),
            _ => ("bad-handshake", "The WebSocket handshake is not valid"),
        }
    }

    /// What went wrong, and what to do about it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Draft => (
                "The handshake is one of a draft (Sec-WebSocket-Key1, Sec-WebSocket-Key2 or Sec-WebSocket-Draft); the version spoken \
                 here is 13, that of RFC 6455",
                "Use a client that speaks RFC 6455, version 13.",
            ),
            Self::UpgradeRemoved => (
                "There is a Sec-WebSocket-Key but no Upgrade header: a proxy between the client and this server removed it",
                "Let the proxy forward the upgrade. In nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
                 proxy_set_header Connection \"upgrade\";",
            ),
            Self::NoUpgrade => ("The request has no Upgrade: websocket", "Open this URL with a WebSocket client."),
            Self::Method => ("A WebSocket handshake is a GET", "Send GET, or leave the Upgrade header out."),
            Self::Http10 => (
                "A WebSocket handshake needs HTTP/1.1 and came as HTTP/1.0",
                "Speak HTTP/1.1. If nginx is between: proxy_http_version 1.1;",
            ),
            Self::Body => (
                "A WebSocket handshake has no body, and this one declares one by Content-Length or Transfer-Encoding",
                "Leave the body out.",
            ),
            Self::NoConnectionUpgrade => (
                "The Connection header does not list Upgrade",
                "Send Connection: Upgrade. If nginx is between: proxy_set_header Connection \"upgrade\";",
            ),
            Self::Version => (
                "The Sec-WebSocket-Version header is not 13, the version of RFC 6455 and the only one spoken here",
                "Send Sec-WebSocket-Version: 13, once.",
            ),
            Self::KeyMissing => ("The Sec-WebSocket-Key header is missing", KEY_FIX),
            Self::KeyRepeated => ("The Sec-WebSocket-Key header occurs more than once", KEY_FIX),
            Self::KeyInvalid => ("The Sec-WebSocket-Key header is not the base64 of 16 bytes", KEY_FIX),
            Self::Extensions => (
                "The Sec-WebSocket-Extensions header is not a list of extensions with parameters",
                "Send a list such as: permessage-deflate; client_max_window_bits",
            ),
        }
    }
}

const KEY_FIX: &str = "Send one Sec-WebSocket-Key: 16 random bytes in base64, 24 characters that end with ==.";

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(error: HandshakeError) -> (Response, serde_json::Value) {
        let response = error.into_response();
        let body = serde_json::from_slice(response.body.as_bytes()).unwrap();
        (response, body)
    }

    fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
        response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_lost_upgrade_is_explained_to_who_runs_the_proxy() {
        let (response, body) = refused(HandshakeError::UpgradeRemoved);
        assert_eq!((response.status, response.close), (426, true));
        assert_eq!(header(&response, "Upgrade"), Some("websocket"));
        assert_eq!(header(&response, "Connection"), Some("Upgrade"));
        assert!(body["detail"].as_str().unwrap().contains("a proxy"));
        let fix = body["fix"].as_str().unwrap();
        for line in
            ["proxy_http_version 1.1;", "proxy_set_header Upgrade $http_upgrade;", "proxy_set_header Connection \"upgrade\";"]
        {
            assert!(fix.contains(line), "{fix}");
        }
    }

    #[test]
    fn refusals_name_what_they_are_about() {
        for (error, status, word) in [
            (HandshakeError::KeyMissing, 400, "Sec-WebSocket-Key"),
            (HandshakeError::KeyRepeated, 400, "Sec-WebSocket-Key"),
            (HandshakeError::KeyInvalid, 400, "Sec-WebSocket-Key"),
            (HandshakeError::NoConnectionUpgrade, 400, "Connection"),
            (HandshakeError::Extensions, 400, "Sec-WebSocket-Extensions"),
            (HandshakeError::Http10, 400, "HTTP/1.1"),
            (HandshakeError::Body, 400, "body"),
            (HandshakeError::Method, 405, "GET"),
            (HandshakeError::Version, 426, "13"),
            (HandshakeError::Draft, 426, "RFC 6455"),
            (HandshakeError::NoUpgrade, 426, "Upgrade"),
        ] {
            let (response, body) = refused(error);
            assert_eq!(response.status, status, "{error:?}");
            assert!(response.close && body["detail"].as_str().unwrap().contains(word), "{body}");
            assert_eq!(header(&response, "Sec-WebSocket-Version"), (status == 426).then_some("13"));
            assert_eq!(header(&response, "Allow"), (status == 405).then_some("GET"));
        }
    }
}
