//! What a WebSocket costs per frame and per handshake: each step beside its plain twin where it has one.
//!
//! Run with `cargo bench --bench ws`. Sizes are named by meaning: a line of chat, what fits one TCP segment, a document.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fantail::http1::{Head, Method};
use fantail::limits::{BufferPool, Tick};
use fantail::ws::{Connection, Event, Handshake, Intent, Options, Table, Validator, unmask};

/// Payloads in bytes.
const SIZES: [(&str, usize); 3] = [("chat_line", 64), ("segment", 1400), ("document", 64 * 1024)];

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A masked binary frame.
fn frame(payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload_bytes {
        0..=125 => frame.push(0x80 | payload_bytes as u8),
        126..=0xFFFF => {
            frame.push(0xFE);
            frame.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            frame.push(0xFF);
            frame.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.resize(frame.len() + payload_bytes, b'x');
    frame
}

/// A whole frame from header to lent payload. Unmasking twice gives the payload back, so the same bytes serve every round.
fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, size) in SIZES {
        let mut input = frame(size);
        let options = Options::default();
        let mut pool = BufferPool::new(0);
        let mut connection = Connection::new(Tick(0), 0);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let step =
                    connection.handle_input(black_box(&mut input), &options, &mut pool, Tick(1)).expect("the frame is valid");
                assert!(matches!(step.event, Some(Event::Message { payload, .. }) if payload.len() == size));
            });
        });
    }
    group.finish();
}

fn plain_unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte ^= mask[i % 4];
    }
}

/// Beginning one byte off, as a payload behind a header does.
fn unmasking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for (name, size) in SIZES {
        let mut bytes = vec![b'x'; size + 1];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("{name}/words"), |bencher| bencher.iter(|| unmask(black_box(&mut bytes[1..]), MASK)));
        group.bench_function(format!("{name}/plain"), |bencher| bencher.iter(|| plain_unmask(black_box(&mut bytes[1..]), MASK)));
    }
    group.finish();
}

/// The incremental validator beside the standard library, which wants the text whole.
fn utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8");
    for (text_name, words) in [("ascii", "plain words and more "), ("mixed", "wörter, слова, 言葉, 🙂 ")] {
        for (name, size) in SIZES {
            let mut text = words.repeat(size / words.len() + 1);
            text.truncate((0..=size).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
            let text = text.as_bytes();
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(format!("{text_name}/{name}/incremental"), |bencher| {
                bencher.iter(|| {
                    let mut validator = Validator::default();
                    validator.push(black_box(text)).and_then(|()| validator.finish())
                });
            });
            group.bench_function(format!("{text_name}/{name}/std"), |bencher| {
                bencher.iter(|| std::str::from_utf8(black_box(text)).is_ok());
            });
        }
    }
    group.finish();
}

/// The headers that Chromium sends, already split into lines: intent, checks, accept key, the whole 101.
fn handshake(criterion: &mut Criterion) {
    let headers = [
        ("Host", "push.example.com"),
        ("Connection", "Upgrade"),
        ("Pragma", "no-cache"),
        ("Cache-Control", "no-cache"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"),
        ("Upgrade", "websocket"),
        ("Origin", "https://push.example.com"),
        ("Sec-WebSocket-Version", "13"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-GB,en;q=0.9"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
    ]
    .map(|(name, value)| httparse::Header { name, value: value.as_bytes() });
    let head = Head {
        method: Method::Get,
        path: "/topics/chat",
        query: "",
        http11: true,
        host: Some("push.example.com"),
        keep_alive: true,
        expects_continue: false,
        content_length: Some(0),
        headers: &headers,
    };
    let table: Table = Table { entries: &[] };
    let mut group = criterion.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("browser", |bencher| {
        bencher.iter_batched_ref(
            || Vec::with_capacity(512),
            |out| {
                let handshake = Handshake::of(black_box(&head));
                assert_eq!(handshake.intent(head.method), Intent::WebSocket);
                let accepted = handshake.negotiate(black_box(&head), &table).expect("the handshake is valid");
                accepted.write_response([("Fantail-Connection", "c7f3"), ("Keep-Alive", "timeout=25")], out);
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, parse, unmasking, utf8, handshake);
criterion_main!(benches);
