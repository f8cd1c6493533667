//! RFC 6455 by case: Autobahn's numbers (groups 1 to 7, 9 and 10), and rows of faults that a server must stand.
//!
//! Each input is fed whole, cut at every byte, and byte by byte, and must come to the same events and the same end.

use proptest::prelude::*;

use super::{Connection, Event, MessageKind, Options, ProtocolError};
use crate::limits::{BufferPool, Tick};

use ProtocolError as E;
use Seen::{Binary, Close, Ping, Pong, Text};

/// One input and what comes of it.
struct Case {
    id: &'static str,
    input: Vec<u8>,
    expect: Outcome,
}

/// The events in order, and the error that ends them, if one does.
type Outcome = (Vec<Seen>, Option<ProtocolError>);

/// An [`Event`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind: MessageKind::Text, payload } => Text(payload.to_vec()),
            Event::Message { kind: MessageKind::Binary, payload } => Binary(payload.to_vec()),
            Event::Ping(payload) => Ping(payload.to_vec()),
            Event::Pong(payload) => Pong(payload.to_vec()),
            Event::Close(frame) => Close(frame.map(|frame| (frame.code.get(), frame.reason.to_owned()))),
        }
    }
}

/// The limit in force: a little above 64 KiB, so that Autobahn's largest frames of group 1 pass.
const MESSAGE_BYTES_MAX: usize = 70_000;

/// A masked frame; `first` is its first byte: FIN, reserved bits, opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0xFE);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0xFF);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    frame
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// First, middle and last fragment.
const BEGIN: u8 = 0x01;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;

fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

fn case(id: &'static str, input: &[(u8, &[u8])], events: &[Seen], error: Option<ProtocolError>) -> Case {
    Case { id, input: frames(input), expect: (events.to_vec(), error) }
}

/// The same, of bytes that are no frames a client would send.
fn raw(id: &'static str, input: &[u8], error: Option<ProtocolError>) -> Case {
    Case { id, input: input.to_vec(), expect: (Vec::new(), error) }
}

fn text(bytes: impl AsRef<[u8]>) -> Seen {
    Text(bytes.as_ref().to_vec())
}

fn ping(bytes: impl AsRef<[u8]>) -> Seen {
    Ping(bytes.as_ref().to_vec())
}

fn closed(code: u16, reason: &str) -> Seen {
    Close(Some((code, reason.to_owned())))
}

/// Groups 1 and 9: whole messages at the borders of the three lengths.
fn whole_messages() -> Vec<Case> {
    let mut cases = Vec::new();
    for (id, length) in
        [("1.x.1", 0), ("1.x.2", 125), ("1.x.3", 126), ("1.x.4", 127), ("1.x.5", 128), ("1.x.6", 65535), ("1.x.7", 65536)]
    {
        let payload = vec![b'*'; length];
        cases.push(case(id, &[(TEXT, &payload)], &[text(&payload)], None));
        cases.push(case(id, &[(BINARY, &payload)], &[Binary(payload.clone())], None));
    }
    let payload = vec![b'*'; 65536];
    for (id, fragment_bytes) in [("9.3.1", 64), ("9.3.4", 4096), ("10.1.1", 1300)] {
        let mut input: Vec<u8> = payload.chunks(fragment_bytes).flat_map(|chunk| frame(MORE, chunk)).collect();
        input[0] = BEGIN;
        input.extend(frame(LAST, b""));
        cases.push(Case { id, input, expect: (vec![text(&payload)], None) });
    }
    cases
}

/// Groups 2, 3 and 4: pings and pongs, reserved bits, reserved opcodes.
fn single_frames() -> Vec<Case> {
    let binary = [0x00, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0x00, 0xFF];
    let (most, too_many) = ([0xFE; 125], [0xFE; 126]);
    let mut cases = vec![
        case("2.1", &[(PING, b"")], &[ping("")], None),
        case("2.2", &[(PING, b"Hello, world!")], &[ping("Hello, world!")], None),
        case("2.3", &[(PING, &binary)], &[ping(binary)], None),
        case("2.4", &[(PING, &most)], &[ping(most)], None),
        case("2.5", &[(PING, &too_many)], &[], Some(E::ControlTooLong)),
        case("2.7", &[(PONG, b"")], &[Pong(vec![])], None),
        case("2.8", &[(PONG, b"unsolicited")], &[Pong(b"unsolicited".to_vec())], None),
        case("2.9", &[(PONG, b"u"), (PING, b"p")], &[Pong(b"u".to_vec()), ping("p")], None),
        case("2.10", &[(PING, &b"payload"[..]); 10], &vec![ping("payload"); 10], None),
        case("3.1", &[(0x91, b"Hello")], &[], Some(E::ReservedBits)),
        case("3.2", &[(TEXT, b"Hello"), (0xA1, b"Hello"), (PING, b"")], &[text("Hello")], Some(E::ReservedBits)),
        case("3.3", &[(TEXT, b"Hello"), (0xB1, b"Hello"), (PING, b"")], &[text("Hello")], Some(E::ReservedBits)),
        case("3.5", &[(0xD2, &binary)], &[], Some(E::ReservedBits)),
        case("3.6", &[(0xE9, b"Hello")], &[], Some(E::ReservedBits)),
        case("3.7", &[(0xF8, b"Hello")], &[], Some(E::ReservedBits)),
        case("4.1.3", &[(TEXT, b"Hello"), (0x85, b""), (PING, b"")], &[text("Hello")], Some(E::ReservedOpcode)),
        case("4.2.3", &[(TEXT, b"Hello"), (0x8D, b""), (PING, b"")], &[text("Hello")], Some(E::ReservedOpcode)),
    ];
    cases.extend(
        (3..=7).chain(11..=15).map(|opcode| case("4.x.1", &[(0x80 | opcode, b"reserved")], &[], Some(E::ReservedOpcode))),
    );
    cases
}

/// Group 5: fragments.
fn fragments() -> Vec<Case> {
    let whole = || text("fragment1fragment2");
    vec![
        case("5.1", &[(0x09, b"fragment1"), (LAST, b"fragment2")], &[], Some(E::FragmentedControl)),
        case("5.2", &[(0x0A, b"fragment1"), (LAST, b"fragment2")], &[], Some(E::FragmentedControl)),
        case("5.3", &[(BEGIN, b"fragment1"), (LAST, b"fragment2")], &[whole()], None),
        case("5.6", &[(BEGIN, b"fragment1"), (PING, b"ping"), (LAST, b"fragment2")], &[ping("ping"), whole()], None),
        case("5.9", &[(LAST, b"non-continuation"), (TEXT, b"Hello")], &[], Some(E::OrphanContinuation)),
        case("5.12", &[(MORE, b"non-continuation"), (TEXT, b"Hello")], &[], Some(E::OrphanContinuation)),
        case(
            "5.15",
            &[(BEGIN, b"fragment1"), (LAST, b"fragment2"), (MORE, b"fragment3"), (BEGIN, b"fragment4"), (LAST, b"fragment5")],
            &[whole()],
            Some(E::OrphanContinuation),
        ),
        case("5.18", &[(BEGIN, b"fragment1"), (TEXT, b"fragment2")], &[], Some(E::InterruptedMessage)),
        case(
            "5.19",
            &[(BEGIN, b"1"), (MORE, b"2"), (PING, b"pongme 1!"), (MORE, b"3"), (MORE, b"4"), (PING, b"pongme 2!"), (LAST, b"5")],
            &[ping("pongme 1!"), ping("pongme 2!"), text("12345")],
            None,
        ),
    ]
}

/// Group 6: UTF-8. Where a text ends with its bad byte, cutting shows that it fails there and not at FIN.
fn utf8() -> Vec<Case> {
    let kosme = "κόσμε".as_bytes();
    let surrogate = [kosme, b"\xED\xA0", b"\x80edited"].concat();
    let beyond = [kosme, b"\xF4\x90", b"\x80\x80edited"].concat();
    let octets: Vec<(u8, &[u8])> = kosme
        .chunks(1)
        .enumerate()
        .map(|(i, octet)| (if i == 0 { BEGIN } else { MORE }, octet))
        .chain([(LAST, &b""[..])])
        .collect();
    let mut cases = vec![
        case("6.1.2", &[(BEGIN, b""), (MORE, b""), (LAST, b"")], &[text("")], None),
        case("6.1.3", &[(BEGIN, b""), (MORE, b"middle"), (LAST, b"")], &[text("middle")], None),
        case("6.2.1", &[(TEXT, kosme)], &[text(kosme)], None),
        case("6.2.2", &[(BEGIN, &kosme[..5]), (LAST, &kosme[5..])], &[text(kosme)], None),
        case("6.2.3", &octets, &[text(kosme)], None),
        case("6.3.1", &[(TEXT, &surrogate)], &[], Some(E::InvalidUtf8)),
        case("6.4.1", &[(BEGIN, kosme), (MORE, b"\xF4\x90"), (PING, b"")], &[], Some(E::InvalidUtf8)),
        case("6.4.2", &[(BEGIN, &beyond)], &[], Some(E::InvalidUtf8)),
        case("6.6.1", &[(TEXT, &kosme[..1])], &[], Some(E::InvalidUtf8)),
        // The frame declares 20 bytes; the second one that comes cannot stand there.
        raw("6.4.3", &[TEXT, 0x94, 0, 0, 0, 0, 0xED, 0xA0], Some(E::InvalidUtf8)),
    ];
    let valid: [&[u8]; 8] =
        [b"\0", b"\x7F", b"\xC2\x80", b"\xDF\xBF", b"\xE0\xA0\x80", b"\xEF\xBF\xBF", b"\xF0\x90\x80\x80", b"\xF4\x8F\xBF\xBF"];
    cases.extend(valid.map(|bytes| case("6.7-6.9, 6.22", &[(TEXT, bytes)], &[text(bytes)], None)));
    let invalid: [&[u8]; 12] = [
        b"\x80",
        b"\xBF",
        b"\xFF",
        b"\xC0\xAF",
        b"\xC1\xBF",
        b"\xC3",
        b"\xE0\x9F\xBF",
        b"\xE2\x82",
        b"\xED\xA0\x80",
        b"\xF0\x8F\xBF\xBF",
        b"\xF4\x90\x80\x80",
        b"\xF8\x88\x80\x80\x80",
    ];
    cases.extend(invalid.map(|bytes| case("6.10-6.21", &[(TEXT, bytes)], &[], Some(E::InvalidUtf8))));
    cases.extend(invalid.map(|bytes| case("6.10-6.21", &[(BEGIN, bytes), (LAST, b"")], &[], Some(E::InvalidUtf8))));
    cases
}

/// Group 7: the close.
fn closes() -> Vec<Case> {
    let body = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    let (normal, longest, too_long) = (body(1000, b""), body(1000, &[b'*'; 123]), body(1000, &[b'*'; 124]));
    let bad_reason = body(1000, b"\xCE\xBA\xED\xA0\x80");
    let mut cases = vec![
        case("7.1.1", &[(TEXT, b"Hello"), (CLOSE, &normal)], &[text("Hello"), closed(1000, "")], None),
        case("7.1.2", &[(CLOSE, &normal), (CLOSE, &normal)], &[closed(1000, "")], None),
        case("7.1.3", &[(CLOSE, &normal), (PING, b"")], &[closed(1000, "")], None),
        case("7.1.4", &[(CLOSE, &normal), (TEXT, b"\xFF")], &[closed(1000, "")], None),
        case("7.1.5", &[(BEGIN, b"fragment1"), (CLOSE, &normal), (LAST, b"fragment2")], &[closed(1000, "")], None),
        case("7.3.1", &[(CLOSE, b"")], &[Close(None)], None),
        case("7.3.2", &[(CLOSE, b"a")], &[], Some(E::CloseBodyTooShort)),
        case("7.3.4", &[(CLOSE, &body(1000, b"Hello"))], &[closed(1000, "Hello")], None),
        case("7.3.5", &[(CLOSE, &longest)], &[closed(1000, &"*".repeat(123))], None),
        case("7.3.6", &[(CLOSE, &too_long)], &[], Some(E::ControlTooLong)),
        case("7.5.1", &[(CLOSE, &bad_reason)], &[], Some(E::InvalidUtf8)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        cases.push(case("7.7", &[(CLOSE, &body(code, b""))], &[closed(code, "")], None));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        cases.push(case("7.9, 7.13", &[(CLOSE, &body(code, b""))], &[], Some(E::CloseCodeInvalid)));
    }
    cases
}

/// What no client library sends. Where a length is refused, the input ends with it: neither mask nor payload are waited for.
fn faults() -> Vec<Case> {
    let declared = |first: u8, length: u64| [&[first, 0xFF][..], &length.to_be_bytes()].concat();
    let half = vec![0; MESSAGE_BYTES_MAX / 2];
    let max_more = MESSAGE_BYTES_MAX as u64 + 1;
    let tiny: Vec<(u8, &[u8])> =
        std::iter::once((0x02, &b"x"[..])).chain(std::iter::repeat_n((MORE, &b"y"[..]), 300)).chain([(LAST, &b""[..])]).collect();
    vec![
        raw("unmasked text", &[TEXT, 0x05], Some(E::Unmasked)),
        raw("unmasked close", &[CLOSE, 0x00], Some(E::Unmasked)),
        raw("length 2^63", &declared(BINARY, 1 << 63), Some(E::LengthTopBit)),
        raw("length 2^64 - 1", &declared(TEXT, u64::MAX), Some(E::LengthTopBit)),
        raw("length 2^40", &declared(BINARY, 1 << 40), Some(E::TooBig)),
        raw("length MAX + 1", &declared(TEXT, max_more), Some(E::TooBig)),
        raw("reserved opcode, length 2^40", &declared(0x83, 1 << 40), Some(E::ReservedOpcode)),
        raw("125 in two bytes", &[BINARY, 0xFE, 0, 125], Some(E::LengthNotMinimal)),
        raw("65,535 in eight bytes", &declared(BINARY, 0xFFFF), Some(E::LengthNotMinimal)),
        raw("much declared, one byte sent", &[BINARY, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0, 1], None),
        raw("ping of 126 bytes", &[PING, 0xFE], Some(E::ControlTooLong)),
        raw("fragmented ping", &[0x09], Some(E::FragmentedControl)),
        raw("orphan continuation", &[MORE], Some(E::OrphanContinuation)),
        raw("all zero bits", &[0; 64], Some(E::OrphanContinuation)),
        raw("a request instead of frames", b"GET / HTTP/1.1\r\n\r\n", Some(E::ReservedBits)),
        case("a binary inside a text", &[(BEGIN, b"a"), (BINARY, b"b")], &[], Some(E::InterruptedMessage)),
        case("many tiny fragments", &tiny, &[Binary([&b"x"[..], &[b'y'; 300]].concat())], None),
        case("fragments add up to MAX", &[(0x02, &half), (LAST, &half)], &[Binary([&half[..], &half].concat())], None),
        case("fragments add up to MAX + 1", &[(0x02, &half), (MORE, &half), (LAST, b"!")], &[], Some(E::TooBig)),
        case(
            "a full message and a ping",
            &[(0x02, &half), (MORE, &half), (PING, b"p"), (LAST, b"")],
            &[ping("p"), Binary([&half[..], &half].concat())],
            None,
        ),
    ]
}

/// Feeds `input` in the given pieces, as a caller must: until a step does nothing.
fn run<'i>(pieces: impl IntoIterator<Item = &'i [u8]>) -> Outcome {
    let options = Options { message_bytes_max: MESSAGE_BYTES_MAX, ..Options::default() };
    let (mut connection, mut pool) = (Connection::new(Tick(0), 1), BufferPool::new(1 << 20));
    let mut seen = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            match connection.handle_input(rest, &options, &mut pool, Tick(1)) {
                Err(error) => return (seen, Some(error)),
                Ok(step) => {
                    let (consumed, idle) = (step.consumed, step.consumed == 0 && step.event.is_none());
                    seen.extend(step.event.map(Seen::from));
                    assert!(!idle || rest.is_empty(), "a step that does nothing has left {} bytes", rest.len());
                    if idle {
                        break;
                    }
                    // A step without progress would loop for ever.
                    assert!(consumed > 0);
                    rest = &mut rest[consumed..];
                }
            }
        }
    }
    (seen, None)
}

/// Where inputs are cut in two: at every byte; for the large ones at those near an end, and some between, since one more byte
/// of a payload of one letter shows nothing new.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |cut| length < 2000 || *cut < 40 || length - cut < 40 || cut % 4099 == 0)
}

fn check(cases: Vec<Case>) {
    for Case { id, input, expect } in cases {
        assert_eq!(run([&input[..]]), expect, "{id}, whole");
        for cut in cuts(input.len()) {
            let (first, second) = input.split_at(cut);
            assert_eq!(run([first, second]), expect, "{id}, cut at {cut}");
        }
        assert_eq!(run(input.chunks(1)), expect, "{id}, byte by byte");
    }
}

#[test]
fn whole_messages_conform() {
    check(whole_messages());
}

#[test]
fn single_frames_conform() {
    check(single_frames());
}

#[test]
fn fragments_conform() {
    check(fragments());
}

#[test]
fn utf8_conforms() {
    check(utf8());
}

#[test]
fn closes_conform() {
    check(closes());
}

#[test]
fn faults_end_as_they_must() {
    check(faults());
}

/// Streams that are mostly valid, so that they get far, with every opcode, bad bits here and there, and texts near the borders.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        20 => prop::sample::select(vec![TEXT, BINARY, PING, PONG, BEGIN, MORE, LAST]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        "\\PC{0,50}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..8),
        (120_usize..135).prop_map(|length| vec![b'*'; length]),
    ];
    prop::collection::vec((first, payload), 0..12)
        .prop_map(|list| list.iter().flat_map(|(first, payload)| frame(*first, payload)).collect())
}

proptest! {
    #[test]
    fn any_stream_comes_to_the_same_however_it_is_cut(input in stream(), mut cuts in prop::collection::vec(0_usize..1500, 0..8)) {
        cuts.extend([0, input.len()]);
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(input.len()));
        cuts.sort_unstable();
        let whole = run([&input[..]]);
        prop_assert_eq!(run(cuts.windows(2).map(|pair| &input[pair[0]..pair[1]])), whole.clone());
        prop_assert_eq!(run(input.chunks(1)), whole);
    }

    #[test]
    fn any_bytes_come_to_the_same_however_they_are_cut(input in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(run(input.chunks(1)), run([&input[..]]));
    }
}
