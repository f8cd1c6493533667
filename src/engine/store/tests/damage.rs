//! A log in which something else stands than was written: refused, with the place.

use std::collections::BTreeMap;

use super::super::faults::Disk;
use super::super::log::Log;
use super::super::record::FRAME_BYTES;
use super::super::segment::{self, HEADER_BYTES};
use super::super::{Damage, OpenError};
use super::{Run, SEGMENT_BYTES};

/// A log of several segments, and of each the places of its frames with their groups.
fn written() -> (Disk, BTreeMap<u64, Vec<(usize, u64)>>) {
    let mut run = Run::new(5, Disk::new(5));
    while run.disk.lengths().len() < 4 || run.disk.lengths().iter().any(|length| *length < 500) {
        run.turn();
    }
    run.settle();
    let names = super::super::files::Files::list(&run.disk).unwrap();
    let frames = names.iter().map(|name| {
        let bytes = run.disk.bytes_of(name);
        let (mut place, mut frames) = (HEADER_BYTES, Vec::new());
        while place < bytes.len() {
            let number = |from: usize, length: usize| {
                let mut number = [0; 8];
                number[..length].copy_from_slice(&bytes[place + from..place + from + length]);
                u64::from_le_bytes(number)
            };
            frames.push((place, number(4, 8)));
            place += FRAME_BYTES + number(0, 4) as usize;
        }
        (segment::number_of(name).unwrap(), frames)
    });
    let frames = frames.collect();
    (run.disk, frames)
}

fn open(disk: &Disk) -> Result<usize, OpenError> {
    Log::open(disk.clone(), SEGMENT_BYTES).map(|opened| opened.stored.len())
}

#[test]
fn a_changed_byte_is_refused_with_its_place() {
    let (disk, segments) = written();
    let last = segments.values().flatten().map(|(_, group)| *group).max().unwrap();
    assert!(open(&disk.after_crash(0)).is_ok());
    for (number, frames) in &segments {
        let name = segment::name(*number);
        let bytes = disk.bytes_of(&name);
        for place in 0..bytes.len() {
            let (start, group) = frames.iter().rev().find(|(start, _)| *start <= place).copied().unwrap_or((0, 0));
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            let result = open(&disk.with(&name, changed));
            let context = format!("byte {place} of {name}");
            match result {
                // Whether the last group was acknowledged nobody knows.
                Ok(_) => assert_eq!(group, last, "{context} is taken"),
                Err(OpenError::Version { path, .. }) => assert!(path.ends_with(&name) && (8..12).contains(&place), "{context}"),
                Err(OpenError::Damaged(damage)) => {
                    assert!(damage.path.ends_with(&name), "{context}: {damage}");
                    let header = if (20..24).contains(&place) { 20 } else { 0 };
                    let expected = if place < HEADER_BYTES { header } else { start };
                    assert!(
                        damage.offset == expected as u64 || place < HEADER_BYTES && damage.offset == 0,
                        "{context}: {damage}"
                    );
                }
                Err(other) => panic!("{context}: {other}"),
            }
        }
    }
}

#[test]
fn what_is_cut_off_is_refused_but_at_the_end() {
    let (disk, segments) = written();
    let last = segments.values().flatten().map(|(_, group)| *group).max().unwrap();
    let newest = *segments.keys().last().unwrap();
    for (number, frames) in &segments {
        let name = segment::name(*number);
        let bytes = disk.bytes_of(&name);
        for length in 0..bytes.len() {
            let result = open(&disk.with(&name, bytes[..length].to_vec()));
            // The newest segment ends with whatever was acknowledged last, as far as anybody knows.
            assert_eq!(result.is_ok(), *number == newest, "{name} cut to {length}: {result:?}");
            if let Err(error) = result {
                // Where whole groups are missing, it is the next segment that goes on with another one than expected.
                let places = [&name, &segment::name(number + 1)];
                let is_there = |damage: &Damage| places.iter().any(|name| damage.path.ends_with(name));
                assert!(matches!(&error, OpenError::Damaged(damage) if is_there(damage)), "{error}");
            }
        }
        assert!(frames.iter().all(|(_, group)| *group <= last));
    }
}

#[test]
fn a_segment_that_is_missing_or_another_one_is_told() {
    let (disk, segments) = written();
    let numbers: Vec<u64> = segments.keys().copied().collect();
    let error = open(&disk.without(&segment::name(numbers[1]))).unwrap_err();
    assert!(matches!(&error, OpenError::Missing { path } if path.ends_with(segment::name(numbers[1]))), "{error}");
    let swapped = disk.with(&segment::name(numbers[1]), disk.bytes_of(&segment::name(numbers[0])));
    assert!(open(&swapped).unwrap_err().to_string().contains("is damaged at byte 0: expected the header of segment"));
    let (other, _) = written();
    let mixed = disk.with(&segment::name(numbers[1]), other.bytes_of(&segment::name(numbers[1])));
    assert!(open(&mixed).unwrap_err().to_string().contains("seed"), "of another store");
    let error = open(&disk.with("notes.txt", Vec::new())).unwrap_err();
    assert_eq!(error.to_string(), "disk/notes.txt is no file of a store");
    assert!(open(&disk.with("lost+found", Vec::new()).with("lock", Vec::new())).is_ok());
}

#[test]
fn a_frame_of_a_payload_is_no_frame() {
    // Bytes of the log itself, as a publisher would send them who had read another store's.
    let (disk, segments) = written();
    let name = segment::name(*segments.keys().last().unwrap());
    let bytes = disk.bytes_of(&name);
    let mut longer = bytes.clone();
    longer.push(1);
    longer.extend_from_slice(&bytes[HEADER_BYTES..]);
    assert!(open(&disk.with(&name, longer)).is_ok(), "what stands elsewhere than where it was written is cut off");
}
