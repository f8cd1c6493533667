//! The server's side of the opening handshake (RFC 6455 section 4.2).
//!
//! One pass over the headers collects what the handshake is about; everything after it looks at that alone. So a GET that wants
//! something else pays for one comparison of lengths a header.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};

use super::extension::{Agreement, Entry, OfferedIn, Params, Table, is_token_byte, offers};
use super::refusal::HandshakeError;
use crate::http1::{Head, Method, lists};

/// What a request means to do about WebSocket, before anything is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Nothing. Upgrades to other protocols, such as h2c, are ignored and the request is answered (RFC 9110 section 7.8).
    None,
    /// A handshake: the Upgrade header names `websocket`.
    WebSocket,
    /// A handshake whose Upgrade header is gone: some proxy on the way does not forward it.
    UpgradeRemoved,
    /// A handshake of a draft before RFC 6455 that had other headers (hixie-76, or a hybi draft that says so).
    Draft,
}

/// A handshake that has been accepted: what the 101 says, and what was agreed on.
#[derive(Debug)]
pub struct Accepted<T = ()> {
    accept: [u8; ACCEPT_BYTES],
    agreed: Vec<Agreed<T>>,
}

/// An entry of the table together with what it made of the offer.
#[derive(Debug)]
struct Agreed<T> {
    offered_in: OfferedIn,
    name: &'static str,
    agreement: Agreement<T>,
}

impl<T> Accepted<T> {
    /// Appends the 101 and `extra` header lines (RFC 6455 section 4.2.2). The caller answers for what `extra` holds.
    pub fn write_response<'e>(&self, extra: impl IntoIterator<Item = (&'e str, &'e str)>, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(&self.accept);
        out.extend_from_slice(b"\r\n");
        for agreed in &self.agreed {
            let name = match agreed.offered_in {
                OfferedIn::Extensions => "Sec-WebSocket-Extensions",
                OfferedIn::Protocol => "Sec-WebSocket-Protocol",
            };
            write_line(&[name, ": ", agreed.name, &agreed.agreement.params], out);
        }
        for (name, value) in extra {
            write_line(&[name, ": ", value], out);
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What is to be done with the connection's messages: the transforms of the extensions in the order of the client's
    /// preference, then the subprotocol's.
    pub fn transforms(&self) -> impl Iterator<Item = &T> {
        self.agreed.iter().map(|agreed| &agreed.agreement.transform)
    }
}

fn write_line(parts: &[&str], out: &mut Vec<u8>) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// The headers that a handshake is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake<'h> {
    upgrade_websocket: bool,
    connection_upgrade: bool,
    key: Field<'h>,
    version: Field<'h>,
    has_protocols: bool,
    has_extensions: bool,
    draft: bool,
}

/// A header that must occur once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Field<'h> {
    #[default]
    Absent,
    Once(&'h [u8]),
    Repeated,
}

impl<'h> Field<'h> {
    fn add(&mut self, value: &'h [u8]) {
        *self = if *self == Self::Absent { Self::Once(value.trim_ascii()) } else { Self::Repeated };
    }
}

impl<'h> Handshake<'h> {
    /// Reads the headers of a request, once.
    #[must_use]
    pub fn of(head: &Head<'h>) -> Self {
        let mut handshake = Self::default();
        for header in head.headers {
            handshake.add(header);
        }
        handshake
    }

    /// Checks it and picks from its offers. To be called for every intent but [`Intent::None`]: it tells each its own refusal.
    ///
    /// # Errors
    /// [`HandshakeError`] names the header and the rule. Checks come in this order: draft, Upgrade, method, version of HTTP, body,
    /// Connection, version of WebSocket, key, extensions.
    pub fn negotiate<T>(&self, head: &Head<'_>, offers: &Table<T>) -> Result<Accepted<T>, HandshakeError> {
        match self.intent(head.method) {
            Intent::WebSocket => {}
            Intent::Draft => return Err(HandshakeError::Draft),
            Intent::UpgradeRemoved => return Err(HandshakeError::UpgradeRemoved),
            Intent::None => return Err(HandshakeError::NoUpgrade),
        }
        check_request(head)?;
        if !self.connection_upgrade {
            return Err(HandshakeError::NoConnectionUpgrade);
        }
        if self.version != Field::Once(b"13") {
            return Err(HandshakeError::Version);
        }
        let accept = accept_value(check_key(self.key)?);
        let mut agreed = Vec::new();
        if self.has_extensions {
            agree_on_extensions(head, offers, &mut agreed)?;
        }
        if self.has_protocols {
            agreed.extend(agree_on_protocol(head, offers));
        }
        Ok(Accepted { accept, agreed })
    }

    /// Most headers of a request are told apart by the length of their name alone.
    fn add(&mut self, header: &httparse::Header<'h>) {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            7 if is("Upgrade") => self.upgrade_websocket |= lists(header.value, b"websocket"),
            10 if is("Connection") => self.connection_upgrade |= lists(header.value, b"upgrade"),
            17 if is("Sec-WebSocket-Key") => self.key.add(header.value),
            18 if is("Sec-WebSocket-Key1") || is("Sec-WebSocket-Key2") => self.draft = true,
            19 if is("Sec-WebSocket-Draft") => self.draft = true,
            21 if is("Sec-WebSocket-Version") => self.version.add(header.value),
            22 if is("Sec-WebSocket-Protocol") => self.has_protocols = true,
            24 if is("Sec-WebSocket-Extensions") => self.has_extensions = true,
            _ => {}
        }
    }

    /// What the request means to do, by its headers and this method.
    #[must_use]
    pub fn intent(&self, method: Method) -> Intent {
        match (self.draft, self.upgrade_websocket) {
            (true, _) => Intent::Draft,
            (false, true) => Intent::WebSocket,
            (false, false) if method == Method::Get && self.key != Field::Absent => Intent::UpgradeRemoved,
            (false, false) => Intent::None,
        }
    }
}

/// Section 4.2.1: a GET of HTTP/1.1. A body would stand where the first frame is expected, so there must be none.
fn check_request(head: &Head<'_>) -> Result<(), HandshakeError> {
    if head.method != Method::Get {
        return Err(HandshakeError::Method);
    }
    if !head.http11 {
        return Err(HandshakeError::Http10);
    }
    if head.content_length != Some(0) {
        return Err(HandshakeError::Body);
    }
    Ok(())
}

fn check_key(key: Field<'_>) -> Result<&[u8], HandshakeError> {
    let key = match key {
        Field::Once(key) => key,
        Field::Absent => return Err(HandshakeError::KeyMissing),
        Field::Repeated => return Err(HandshakeError::KeyRepeated),
    };
    // Base64 of 16 bytes has 24 characters; the decoder asks for the room of 18.
    let mut nonce = [0; 18];
    match KEY_BASE64.decode_slice(key, &mut nonce) {
        Ok(16) => Ok(key),
        _ => Err(HandshakeError::KeyInvalid),
    }
}

/// Section 4.2.2, step 5.4: the base64 of the SHA-1 of the key as it came and the protocol's own identifier.
fn accept_value(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let hash = Sha1::new().chain_update(key).chain_update(IDENTIFIER).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let written = BASE64_STANDARD.encode_slice(hash, &mut accept);
    debug_assert_eq!(written, Ok(ACCEPT_BYTES));
    accept
}

/// Picks the first acceptable offer of each name. A malformed list fails the handshake (section 9.1).
fn agree_on_extensions<T>(head: &Head<'_>, table: &Table<T>, agreed: &mut Vec<Agreed<T>>) -> Result<(), HandshakeError> {
    for offer in head.values("Sec-WebSocket-Extensions").flat_map(offers) {
        let offer = offer.map_err(|_| HandshakeError::Extensions)?;
        let Some(entry) = table.find(OfferedIn::Extensions, offer.name) else { continue };
        if !agreed.iter().any(|before| before.name == entry.name) {
            agreed.extend(agree(entry, offer.params));
        }
    }
    Ok(())
}

/// Picks the first subprotocol of the client's list that the table accepts. What is not a token is no name of one, and ignored:
/// a client whose offers all fail gets a 101 without the header, and gives up by itself (section 4.1).
fn agree_on_protocol<T>(head: &Head<'_>, table: &Table<T>) -> Option<Agreed<T>> {
    head.values("Sec-WebSocket-Protocol")
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| name.iter().all(|byte| is_token_byte(*byte)))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter_map(|name| table.find(OfferedIn::Protocol, name))
        .find_map(|entry| agree(entry, Params::default()))
}

fn agree<T>(entry: &'static Entry<T>, params: Params<'_>) -> Option<Agreed<T>> {
    let agreement = (entry.accept)(params)?;
    Some(Agreed { offered_in: entry.offered_in, name: entry.name, agreement })
}

/// The identifier of section 1.3.
const IDENTIFIER: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Base64 of the 20 bytes of a SHA-1.
const ACCEPT_BYTES: usize = 28;

/// The key is never used as bytes, so the unused bits of its last character are the client's affair.
const KEY_BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    /// A complete handshake of a browser, with one header replaced, or removed if `value` is empty, and `more` added.
    fn headers<'h>(name: &str, value: &'h str, more: &[(&'h str, &'h str)]) -> Vec<httparse::Header<'h>> {
        let whole = [
            ("Host", "a"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ];
        let replaced = whole.into_iter().map(|(n, v)| (n, if n == name { value } else { v })).filter(|(_, v)| !v.is_empty());
        replaced.chain(more.iter().copied()).map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect()
    }

    fn head<'h>(headers: &'h [httparse::Header<'h>]) -> Head<'h> {
        Head {
            method: Method::Get,
            path: "/topics/chat",
            query: "",
            http11: true,
            host: Some("a"),
            keep_alive: true,
            expects_continue: false,
            content_length: Some(0),
            headers,
        }
    }

    fn answer<T>(table: &Table<T>, name: &str, value: &str, more: &[(&str, &str)]) -> Result<String, HandshakeError> {
        let headers = headers(name, value, more);
        let mut out = Vec::new();
        negotiate(&head(&headers), table)?.write_response([("Keep-Alive", "timeout=60")], &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    const NONE: Table = Table { entries: &[] };

    fn negotiate<T>(head: &Head<'_>, table: &Table<T>) -> Result<Accepted<T>, HandshakeError> {
        Handshake::of(head).negotiate(head, table)
    }

    fn intent_of(head: &Head<'_>) -> Intent {
        Handshake::of(head).intent(head.method)
    }

    #[test]
    fn the_example_of_section_1_3_is_answered_as_it_says() {
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nKeep-Alive: timeout=60\r\n\r\n";
        assert_eq!(answer(&NONE, "", "", &[]).unwrap(), expected);
        assert_eq!(answer(&NONE, "Connection", "keep-alive, UPGRADE", &[]).unwrap(), expected);
        assert_eq!(answer(&NONE, "Upgrade", "h2c", &[("upgrade", "h3c, WebSocket")]).unwrap(), expected);
        assert_eq!(answer(&NONE, "Connection", "keep-alive", &[("connection", " Upgrade ")]).unwrap(), expected);
    }

    #[test]
    fn each_rule_has_its_refusal() {
        for (name, value, more, expected) in [
            ("Sec-WebSocket-Key", "", &[][..], HandshakeError::KeyMissing),
            ("Sec-WebSocket-Key", "c2hvcnQ=", &[], HandshakeError::KeyInvalid),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQAA", &[], HandshakeError::KeyInvalid),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ", &[], HandshakeError::KeyInvalid),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j ==", &[], HandshakeError::KeyInvalid),
            ("", "", &[("sec-websocket-key", KEY)], HandshakeError::KeyRepeated),
            ("Sec-WebSocket-Version", "", &[], HandshakeError::Version),
            ("Sec-WebSocket-Version", "8", &[], HandshakeError::Version),
            ("", "", &[("Sec-WebSocket-Version", "8")], HandshakeError::Version),
            ("Connection", "keep-alive", &[], HandshakeError::NoConnectionUpgrade),
            ("Connection", "", &[], HandshakeError::NoConnectionUpgrade),
            ("Upgrade", "", &[], HandshakeError::UpgradeRemoved),
            ("Sec-WebSocket-Key", "", &[("Sec-WebSocket-Key1", "4 @1")], HandshakeError::Draft),
            ("", "", &[("Sec-WebSocket-Extensions", "a;;b")], HandshakeError::Extensions),
        ] {
            assert_eq!(answer(&NONE, name, value, more).unwrap_err(), expected, "{name}: {value} {more:?}");
        }
    }

    #[test]
    fn the_request_itself_is_checked() {
        let headers = headers("", "", &[]);
        let refused = |head: Head<'_>| negotiate(&head, &NONE).unwrap_err();
        assert_eq!(refused(Head { method: Method::Post, ..head(&headers) }), HandshakeError::Method);
        assert_eq!(refused(Head { http11: false, ..head(&headers) }), HandshakeError::Http10);
        assert_eq!(refused(Head { content_length: Some(1), ..head(&headers) }), HandshakeError::Body);
        assert_eq!(refused(Head { content_length: None, ..head(&headers) }), HandshakeError::Body);
    }

    #[test]
    fn the_intent_is_seen_before_anything_is_checked() {
        let intent = |name, value, more: &[_]| intent_of(&head(&headers(name, value, more)));
        assert_eq!(intent("Sec-WebSocket-Version", "7", &[]), Intent::WebSocket);
        assert_eq!(intent("Upgrade", "", &[]), Intent::UpgradeRemoved);
        assert_eq!(intent("", "", &[("Sec-WebSocket-Draft", "2")]), Intent::Draft);
        assert_eq!(intent("Sec-WebSocket-Key", "", &[]), Intent::WebSocket);
        let h2c = [httparse::Header { name: "Upgrade", value: b"h2c" }];
        assert_eq!(intent_of(&head(&h2c)), Intent::None);
    }

    /// What a sample entry does with messages.
    #[derive(Debug, PartialEq)]
    enum Sample {
        Window(u8),
        Chat,
    }

    /// An extension that needs a window of 9 to 15, and a subprotocol.
    const SAMPLES: Table<Sample> = Table {
        entries: &[
            Entry {
                offered_in: OfferedIn::Extensions,
                name: "x-sample",
                accept: |mut params| {
                    let window = params.next().filter(|param| param.name == "window")?.value?.parse().ok()?;
                    let fits = (9..=15).contains(&window) && params.next().is_none();
                    fits.then(|| Agreement { params: format!("; window={window}"), transform: Sample::Window(window) })
                },
            },
            Entry {
                offered_in: OfferedIn::Protocol,
                name: "chat.v1",
                accept: |_| Some(Agreement { params: String::new(), transform: Sample::Chat }),
            },
        ],
    };

    #[test]
    fn the_first_acceptable_offer_is_agreed_on() {
        let more = [
            ("Sec-WebSocket-Protocol", "Chat.v1, a b, \u{e9}, , chat.v1"),
            ("Sec-WebSocket-Extensions", "unknown, x-sample; window=16, X-Sample; window=\"9\""),
            ("Sec-WebSocket-Protocol", "chat.v1"),
            ("Sec-WebSocket-Extensions", "x-sample; window=10"),
        ];
        let headers = headers("", "", &more);
        let accepted = negotiate(&head(&headers), &SAMPLES).unwrap();
        assert!(accepted.transforms().eq(&[Sample::Window(9), Sample::Chat]));
        let answer = answer(&SAMPLES, "", "", &more).unwrap();
        assert!(
            answer.contains("\r\nSec-WebSocket-Extensions: x-sample; window=9\r\nSec-WebSocket-Protocol: chat.v1\r\n"),
            "{answer}"
        );
    }

    #[test]
    fn offers_that_fit_nothing_are_declined() {
        let many = vec!["x-sample; window=99"; 50].join(", ");
        let long = "chat.v2, ".repeat(8000);
        let answer = answer(&SAMPLES, "", "", &[("Sec-WebSocket-Extensions", &many), ("Sec-WebSocket-Protocol", &long)]).unwrap();
        assert!(!answer.contains("Sec-WebSocket-Extensions") && !answer.contains("Sec-WebSocket-Protocol"));
    }
}
