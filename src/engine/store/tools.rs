//! What a person does with a store that no server uses: look whether it is whole, save what can be read of it, and write it anew.
//!
//! All of it takes the directory for itself, so that none of it can be done while a server runs.

use std::io;
use std::path::Path;

use super::error::{Cut, OpenError};
use super::files::Directory;
use super::log::{Log, Opened, SEGMENT_BYTES};
use super::{Stored, read, segment};

/// What a store holds.
#[derive(Debug)]
pub struct Summary {
    /// Files of the log.
    pub segments: usize,
    /// Their bytes.
    pub log_bytes: u64,
    /// What they would have were the log written anew.
    pub live_bytes: u64,
    /// Topics.
    pub topics: usize,
    /// Publications that are kept.
    pub publications: u64,
    /// All that was read, what is not kept any more included.
    pub frames: u64,
    /// The newest group.
    pub group: u64,
    /// Whether the store was ended in order.
    pub is_closed: bool,
    /// What the next start would cut off.
    pub cut: Option<Cut>,
}

/// Reads all of a store, and changes nothing.
///
/// # Errors
/// As [`super::open`]; the first damage, if there is any.
pub fn check(directory: &Path) -> Result<Summary, OpenError> {
    let contents = read::read(&of_store(directory)?)?;
    Ok(Summary {
        segments: contents.segments.len(),
        log_bytes: contents.segments.iter().map(|segment| segment.bytes).sum(),
        live_bytes: contents.topics.live_bytes(),
        topics: contents.topics.count(),
        publications: contents.topics.records(),
        frames: contents.frames,
        group: contents.group,
        is_closed: contents.is_closed,
        cut: contents.cut,
    })
}

/// Reads what can be read of a store in the order of the topics' names, changes nothing, and tells what can't be read.
///
/// # Errors
/// Another process has it, or nothing at all can be read.
pub fn salvage(directory: &Path, mut tell: impl FnMut(OpenError)) -> Result<Vec<Stored>, OpenError> {
    let contents = read::salvage(&of_store(directory)?, &mut tell)?;
    let (mut stored, _) = contents.topics.part();
    stored.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
    Ok(stored)
}

/// Writes a store anew; the bytes of its files before and after. It is whole whenever this is interrupted.
///
/// # Errors
/// As [`super::open`], or what the kernel says while it is written.
pub fn compact(directory: &Path) -> Result<(u64, u64), OpenError> {
    let refused = |error: io::Error| OpenError::io(directory, error);
    let Opened { mut log, .. } = Log::open(of_store(directory)?, SEGMENT_BYTES)?;
    let before = log.log_bytes();
    log.compact().map_err(refused)?;
    let after = log.log_bytes();
    log.close().map_err(refused)?;
    Ok((before, after))
}

/// The directory, if it has a log.
fn of_store(directory: &Path) -> Result<Directory, OpenError> {
    let names = std::fs::read_dir(directory).map_err(|error| OpenError::io(directory, error))?;
    let is_segment = |name: &std::ffi::OsStr| name.to_str().and_then(segment::number_of).is_some();
    if !names.flatten().any(|entry| is_segment(&entry.file_name())) {
        return Err(OpenError::Empty { directory: directory.to_owned() });
    }
    Directory::open(directory)
}
