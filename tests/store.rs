//! `fantail store`: on directories that the library has written, whole, damaged and in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fantail::engine::store::{Change, Record, ports};
use fantail::engine::store::{Stored, open};
use fantail::frame::{Epoch, Forms, Kind, Payload, Position, Publication, Topic};
use fantail::metrics::StoreMetrics;
use serde_json::Value;
use support::server::{Run, run};
use support::{PATIENCE, eventually};

fn epoch() -> Epoch {
    Epoch::from_random(7)
}

fn put(name: &str, offset: u64, kind: Kind, payload: &[u8]) -> Change {
    let (topic, position) = (Topic::new(name).unwrap(), Position { epoch: epoch(), offset });
    let payload = Payload::new(kind, payload).unwrap();
    let publication = Arc::new(Publication::new(topic, position, 1000 + offset, 0, payload, Forms::NONE));
    Change::Put(Record { publication, until_ms: None, key: None })
}

/// Has the store's thread write these groups, each on the disk before the next, and ends it in order; what it held before.
fn write(directory: &Path, groups: Vec<Vec<Change>>) -> Vec<Stored> {
    let (store, stored) = open(directory).unwrap();
    let (mut ports, inbox) = ports(1, |_| ());
    let thread = store.spawn(inbox, Arc::new(StoreMetrics::default()), || ()).unwrap();
    for changes in groups {
        let number = ports[0].next();
        ports[0].submit(changes);
        eventually("it is stored", PATIENCE, || {
            ports[0].receive().is_some_and(|outcome| outcome.stored == number && !outcome.has_failed)
        });
    }
    drop(ports);
    thread.join().unwrap();
    stored
}

fn store(action: &str, directory: &Path) -> Run {
    run(&["store", action, directory.to_str().unwrap()])
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some());
    segments.sort();
    segments
}

#[test]
fn a_store_is_checked_dumped_and_compacted() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let long = vec![b'x'; 100_000];
    let mut groups = vec![vec![put("b", 1, Kind::Binary, b"\xff"), put("a", 1, Kind::Json, b"{\"x\":\n1}")]];
    groups.extend((2..12).map(|offset| vec![put("a", offset, Kind::Text, &long)]));
    groups.push(vec![
        put("a", 12, Kind::Text, "end \u{1F600}".as_bytes()),
        Change::Trim { topic: Topic::new("a").unwrap(), epoch: epoch(), first: 12, lost: 11 },
    ]);
    assert!(write(&directory, groups).is_empty());

    let whole = store("check", &directory);
    assert_eq!((whole.status, whole.stderr.as_str()), (Some(0), ""), "{whole:?}");
    for line in [
        "The store is whole: it was ended in order.",
        "topics        2",
        "publications  2",
        "segments      1",
        "newest group  13",
    ] {
        assert!(whole.stdout.lines().any(|found| found == line), "{line} in {whole:?}");
    }
    let dumped = store("dump", &directory);
    assert_eq!((dumped.status, dumped.stderr.as_str()), (Some(0), ""), "{dumped:?}");
    let lines: Vec<Value> = dumped.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let epoch = epoch().to_string();
    assert_eq!(
        lines,
        [
            serde_json::json!({"type": "message", "topic": "a", "cursor": format!("{epoch}.12"), "at_ms": 1012, "text": "end \u{1F600}", "epoch": epoch}),
            serde_json::json!({"type": "message", "topic": "b", "cursor": format!("{epoch}.1"), "at_ms": 1001, "base64": "/w==", "epoch": epoch}),
        ]
    );

    let bytes = || segments(&directory).iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
    assert!(bytes() > 1_000_000);
    assert_eq!(store("compact", &directory).status, Some(0));
    assert!(bytes() < 1000, "{}", bytes());
    assert_eq!(store("dump", &directory).stdout, dumped.stdout);
    let stored = write(&directory, vec![vec![put("a", 13, Kind::Text, b"more")]]);
    let a = stored.iter().find(|stored| stored.topic.as_str() == "a").unwrap();
    assert_eq!((a.last, a.lost, a.kept.len()), (12, 11, 1));
}

#[test]
fn damage_is_told_with_its_place_and_the_rest_is_dumped() {
    let parent = tempfile::tempdir().unwrap();
    write(
        parent.path(),
        (1..=9).map(|offset| vec![put("a", offset, Kind::Text, format!("number {offset}").as_bytes())]).collect(),
    );
    let segment = segments(parent.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let place = bytes.windows(8).position(|window| window == b"number 4").unwrap();
    bytes[place + 2] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let refused = store("check", parent.path());
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(1), ""));
    let told = format!("fantail: {} is damaged at byte ", segment.display());
    let at: usize = refused.stderr.strip_prefix(&told).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(at < place && place - at < 80, "{at} for {place}");
    assert!(
        refused.stderr.contains("fix: Restore the directory from a copy; or save what is readable by 'fantail store dump DIR'")
    );
    assert_eq!(store("compact", parent.path()).status, Some(1));

    let dumped = store("dump", parent.path());
    assert_eq!((dumped.status, dumped.stdout.lines().count()), (Some(1), 8), "{dumped:?}");
    assert!(!dumped.stdout.contains("number 4") && dumped.stderr.contains(&format!("skipped: {} is damaged", segment.display())));
    assert!(dumped.stderr.contains("1 places could not be read"), "{dumped:?}");

    // A torn end is none: it is told, and stays until the next start.
    bytes[place + 2] ^= 1;
    bytes.truncate(bytes.len() - 30);
    fs::write(&segment, &bytes).unwrap();
    let torn = store("check", parent.path());
    assert_eq!(torn.status, Some(0));
    assert!(torn.stdout.contains("of a group that was not written whole; the next start cuts that off"), "{torn:?}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[test]
fn what_is_in_use_or_no_store_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    for action in ["check", "dump", "compact"] {
        let missing = store(action, &directory);
        assert_eq!((missing.status, missing.stdout.as_str()), (Some(2), ""), "{missing:?}");
        let empty = store(action, parent.path());
        assert!(empty.status == Some(2) && empty.stderr.contains("holds no store"), "{empty:?}");
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "nothing is left behind");
    let (held, _) = open(&directory).unwrap();
    for action in ["check", "dump", "compact"] {
        let refused = store(action, &directory);
        assert!(refused.status == Some(2) && refused.stderr.contains("is in use by another process"), "{refused:?}");
    }
    assert!(open(&directory).unwrap_err().to_string().contains("in use"));
    drop(held);
    assert_eq!(store("check", &directory).status, Some(0));
}

#[test]
fn a_store_whose_directory_is_gone_is_down_and_comes_back() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("store");
    let (opened, _) = open(&directory).unwrap();
    let (mut ports, inbox) = ports(1, |_| ());
    let metrics = Arc::new(StoreMetrics::default());
    let thread = opened.spawn(inbox, Arc::clone(&metrics), || ()).unwrap();
    let mut submit = |changes: Vec<Change>| {
        ports[0].submit(changes);
        let mut outcome = None;
        eventually("it is told", PATIENCE, || {
            outcome = ports[0].receive();
            outcome.is_some()
        });
        (outcome.unwrap().has_failed, ports[0].is_up())
    };
    assert_eq!(submit(vec![put("a", 1, Kind::Text, b"one")]), (false, true));
    // The next segment would be made there.
    let elsewhere = parent.path().join("elsewhere");
    fs::rename(&directory, &elsewhere).unwrap();
    let large = vec![b'x'; 17 << 20];
    let mut offset = 1;
    let failed = (0..5).any(|_| {
        offset += 1;
        submit(vec![put("a", offset, Kind::Text, &large)]).0
    });
    assert!(failed && metrics.up.get() == 0 && metrics.failures.get() == 1);
    assert_eq!(submit(vec![put("a", offset, Kind::Text, b"refused")]), (true, false));
    fs::rename(&elsewhere, &directory).unwrap();
    eventually("it is back", PATIENCE.max(Duration::from_secs(5)), || metrics.up.get() == 1);
    assert_eq!(submit(vec![put("a", offset, Kind::Text, b"two")]), (false, true));
    drop(ports);
    thread.join().unwrap();
    let (_, stored) = open(&directory).unwrap();
    assert_eq!((stored[0].last, stored[0].kept.last().map(|kept| kept.payload.as_bytes())), (offset, Some(&b"two"[..])));
}
