//! What a client may offer in its handshake: extensions (RFC 6455 section 9.1) and subprotocols (section 1.9), through one table.
//!
//! An [`Entry`] says under which name something is offered and which offers are accepted. What the server then does with the
//! connection's messages is the entry's `transform`, a value of the caller's own type that comes back in
//! [`Accepted`](super::Accepted). Lists are read in one pass without allocation, whatever their length.

use std::borrow::Cow;

/// What this server can agree on. The first acceptable offer of each name wins.
#[derive(Debug)]
pub struct Table<T: 'static = ()> {
    /// All extensions and subprotocols. Few: every offer is compared with each.
    pub entries: &'static [Entry<T>],
}

/// One extension or subprotocol.
#[derive(Debug)]
pub struct Entry<T> {
    /// The header it is offered in.
    pub offered_in: OfferedIn,
    /// Its registered name. Extensions compare without case, subprotocols with it.
    pub name: &'static str,
    /// Judges an offer by its parameters; a subprotocol has none. `None` declines, and the next offer is looked at.
    pub accept: fn(Params<'_>) -> Option<Agreement<T>>,
}

/// The header that carries an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedIn {
    /// `Sec-WebSocket-Extensions`: any number is accepted.
    Extensions,
    /// `Sec-WebSocket-Protocol`: one is accepted.
    Protocol,
}

/// What an entry makes of an offer.
#[derive(Debug, PartialEq, Eq)]
pub struct Agreement<T> {
    /// The parameters of the answer as they stand behind the name, such as `; window=9`. Mostly empty.
    pub params: String,
    /// What is done with the connection's messages.
    pub transform: T,
}

impl<T> Table<T> {
    /// The entry of this name.
    pub(super) fn find(&self, offered_in: OfferedIn, name: &str) -> Option<&'static Entry<T>> {
        self.entries.iter().find(|entry| {
            entry.offered_in == offered_in
                && match offered_in {
                    OfferedIn::Extensions => entry.name.eq_ignore_ascii_case(name),
                    OfferedIn::Protocol => entry.name == name,
                }
        })
    }
}

/// One offered extension.
#[derive(Clone, Debug)]
pub(super) struct Offer<'h> {
    pub name: &'h str,
    pub params: Params<'h>,
}

/// A list of offers that breaks the grammar of section 9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Reads one line of `Sec-WebSocket-Extensions`. It ends after the first malformed offer.
pub(super) fn offers(line: &[u8]) -> impl Iterator<Item = Result<Offer<'_>, Malformed>> {
    let mut scanner = Scanner { rest: line };
    std::iter::from_fn(move || {
        // Empty elements of a list are skipped (RFC 9110 section 5.6.1.2).
        while scanner.eat(b',') {}
        if scanner.rest.is_empty() {
            return None;
        }
        let offer = scanner.offer();
        if offer.is_none() {
            scanner.rest = &[];
        }
        Some(offer.ok_or(Malformed))
    })
}

/// A parameter of an offer, such as `client_max_window_bits` or `mode="fast"`.
#[derive(Debug, PartialEq, Eq)]
pub struct Param<'h> {
    /// Its name.
    pub name: &'h str,
    /// Its value, quotes and backslashes removed.
    pub value: Option<Cow<'h, str>>,
}

/// The parameters of an offer, in order, duplicates included: whether they are allowed is the extension's matter.
#[derive(Clone, Debug, Default)]
pub struct Params<'h> {
    scanner: Scanner<'h>,
}

impl<'h> Iterator for Params<'h> {
    type Item = Param<'h>;

    fn next(&mut self) -> Option<Param<'h>> {
        // The text was checked when the offer was read, so this ends at its end.
        if self.scanner.eat(b';') { self.scanner.param() } else { None }
    }
}

/// Walks over a header's value. Every method consumes what it accepts, so a whole list takes one pass.
#[derive(Clone, Copy, Debug, Default)]
struct Scanner<'h> {
    rest: &'h [u8],
}

impl<'h> Scanner<'h> {
    /// `extension = extension-token *( ";" extension-param )`, up to a comma or the end.
    fn offer(&mut self) -> Option<Offer<'h>> {
        let name = self.token()?;
        let params = *self;
        while self.eat(b';') {
            self.param()?;
        }
        self.skip_space();
        let params = Params { scanner: Scanner { rest: &params.rest[..params.rest.len() - self.rest.len()] } };
        matches!(self.rest.first(), None | Some(b',')).then_some(Offer { name, params })
    }

    /// `extension-param = token [ "=" (token | quoted-string) ]`.
    fn param(&mut self) -> Option<Param<'h>> {
        let name = self.token()?;
        let value = if self.eat(b'=') { Some(self.value()?) } else { None };
        Some(Param { name, value })
    }

    fn value(&mut self) -> Option<Cow<'h, str>> {
        self.skip_space();
        if self.rest.first() == Some(&b'"') { self.quoted() } else { self.token().map(Cow::Borrowed) }
    }

    /// A quoted string. What it says must be a token again (section 9.1), so only its backslashes are special.
    fn quoted(&mut self) -> Option<Cow<'h, str>> {
        let text = &self.rest[1..];
        let end = closing_quote(text)?;
        self.rest = &text[end + 1..];
        let text = std::str::from_utf8(&text[..end]).ok()?;
        let value = if text.contains('\\') { Cow::Owned(unescape(text)) } else { Cow::Borrowed(text) };
        (!value.is_empty() && value.bytes().all(is_token_byte)).then_some(value)
    }

    fn token(&mut self) -> Option<&'h str> {
        self.skip_space();
        let length = self.rest.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        if token.is_empty() { None } else { std::str::from_utf8(token).ok() }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }
}

fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(text: &str) -> String {
    let mut characters = text.chars();
    std::iter::from_fn(|| characters.next().and_then(|c| if c == '\\' { characters.next() } else { Some(c) })).collect()
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each offer as `name(param=value, ...)`, or `?` for a malformed one.
    fn shown(line: &str) -> Vec<String> {
        let show = |offer: Offer<'_>| {
            let params: Vec<String> =
                offer.params.map(|Param { name, value }| format!("{name}={}", value.unwrap_or_default())).collect();
            format!("{}({})", offer.name, params.join(","))
        };
        offers(line.as_bytes()).map(|offer| offer.map_or("?".into(), show)).collect()
    }

    #[test]
    fn lists_are_read_by_the_grammar() {
        for (line, expected) in [
            ("", vec![]),
            ("permessage-deflate", vec!["permessage-deflate()"]),
            ("permessage-deflate; client_max_window_bits, x", vec!["permessage-deflate(client_max_window_bits=)", "x()"]),
            ("a;b=1;b=2 , , a ; c = \"d\"", vec!["a(b=1,b=2)", "a(c=d)"]),
            (r#"a;b="x\y",c"#, vec!["a(b=xy)", "c()"]),
            ("a b", vec!["?"]),
            ("a;", vec!["?"]),
            ("a;b=", vec!["?"]),
            (r#"a;b="c"#, vec!["?"]),
            (r#"a;b="c d""#, vec!["?"]),
            (r#"a;b="""#, vec!["?"]),
            (r#"a;b="c\"#, vec!["?"]),
            ("ok, =, never", vec!["ok()", "?"]),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_and_never_panic(line in r#"[a-c;,="\\ \xFF]{0,64}"#) {
            let mut reported = false;
            for offer in offers(line.as_bytes()) {
                prop_assert!(!reported, "nothing follows a malformed offer");
                match offer {
                    Ok(offer) => prop_assert!(offer.params.count() <= line.len()),
                    Err(Malformed) => reported = true,
                }
            }
        }
    }
}
