//! A disk for tests, which does what disks may do: it takes less than it was given, loses what was not synced in any choice of pages, fails at
//! a given call, and forgets what it had when syncing failed, as the kernel does.
//!
//! Pages are far smaller than real ones, so that a group has several.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::Files;

const PAGE_BYTES: usize = 64;

/// A disk; clones are the same one.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<Inside>>);

#[derive(Clone)]
struct Inside {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    /// The names that a crash leaves.
    synced_names: BTreeMap<String, usize>,
    /// Calls that change something, so far.
    calls: u64,
    /// The first call that fails, how many do, and how.
    failing: Option<(u64, u64, rustix::io::Errno)>,
    /// All calls from this one on fail, and do nothing.
    crash: Option<u64>,
    has_failed: bool,
    random: fastrand::Rng,
}

/// A file, with or without a name.
#[derive(Clone, Default)]
struct Node {
    bytes: Vec<u8>,
    /// What a crash leaves for certain, but for `dirty` pages.
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
}

impl Disk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inside {
            nodes: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            calls: 0,
            failing: None,
            crash: None,
            has_failed: false,
            random: fastrand::Rng::with_seed(seed),
        })))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    /// Calls that change something, so far.
    pub fn calls(&self) -> u64 {
        self.inside().calls
    }

    /// So many calls fail, from this one on.
    pub fn fail(&self, call: u64, times: u64, error: rustix::io::Errno) {
        self.inside().failing = Some((call, times, error));
    }

    /// No call fails any more.
    pub fn heal(&self) {
        self.inside().failing = None;
    }

    /// Some call has failed.
    pub fn has_failed(&self) -> bool {
        self.inside().has_failed
    }

    /// How long the files are.
    pub fn lengths(&self) -> Vec<usize> {
        let inside = self.inside();
        inside.names.values().map(|node| inside.nodes[*node].bytes.len()).collect()
    }

    /// Nothing is done from this call on, which is done in part.
    pub fn crash_at(&self, call: u64) {
        self.inside().crash = Some(call);
    }

    pub fn has_crashed(&self) -> bool {
        let inside = self.inside();
        inside.crash.is_some_and(|crash| inside.calls > crash)
    }

    /// Everything is on the disk.
    pub fn is_synced(&self) -> bool {
        let inside = self.inside();
        inside.names == inside.synced_names
            && inside.nodes.iter().all(|node| node.dirty.is_empty() && node.bytes.len() == node.synced.len())
    }

    /// The disk after a crash: of what was not synced anything may be there.
    pub fn after_crash(&self, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut inside = self.inside().clone();
        let changed: BTreeSet<String> = inside.names.keys().chain(inside.synced_names.keys()).cloned().collect();
        for name in changed {
            let now = inside.names.get(&name).copied();
            if now != inside.synced_names.get(&name).copied() && random.bool() {
                match now {
                    Some(node) => inside.synced_names.insert(name, node),
                    None => inside.synced_names.remove(&name),
                };
            }
        }
        inside.names = inside.synced_names.clone();
        inside.nodes.iter_mut().for_each(|node| node.crash(&mut random));
        (inside.calls, inside.failing, inside.crash, inside.has_failed) = (0, None, None, false);
        Self(Arc::new(Mutex::new(inside)))
    }

    /// What a file holds.
    pub fn bytes_of(&self, name: &str) -> Vec<u8> {
        let inside = self.inside();
        inside.nodes[inside.names[name]].bytes.clone()
    }

    /// Another disk, where a file holds something else.
    pub fn with(&self, name: &str, bytes: Vec<u8>) -> Self {
        let mut inside = self.inside().clone();
        inside.nodes.push(Node { synced: bytes.clone(), bytes, dirty: BTreeSet::new() });
        let node = inside.nodes.len() - 1;
        inside.names.insert(name.to_owned(), node);
        Self(Arc::new(Mutex::new(inside)))
    }

    /// Another disk, where a file is not there.
    pub fn without(&self, name: &str) -> Self {
        let mut inside = self.inside().clone();
        inside.names.remove(name);
        Self(Arc::new(Mutex::new(inside)))
    }

    /// Begins a call that changes something; if it is to fail, what of it may be done all the same is done by `partly`.
    fn call(&self, partly: impl FnOnce(&mut Inside)) -> io::Result<MutexGuard<'_, Inside>> {
        let mut inside = self.inside();
        let call = inside.calls;
        inside.calls += 1;
        if let Some(crash) = inside.crash
            && call >= crash
        {
            inside.has_failed = true;
            if call == crash {
                partly(&mut inside);
            }
            return Err(rustix::io::Errno::IO.into());
        }
        match inside.failing {
            Some((first, times, error)) if (first..first + times).contains(&call) => {
                inside.has_failed = true;
                partly(&mut inside);
                Err(error.into())
            }
            _ => Ok(inside),
        }
    }
}

impl Node {
    fn write(&mut self, bytes: &[u8], place: usize) {
        let end = place + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[place..end].copy_from_slice(bytes);
        self.dirty.extend(place / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }

    fn truncate(&mut self, bytes: usize) {
        self.bytes.truncate(bytes);
        self.dirty.retain(|page| page * PAGE_BYTES < bytes);
    }

    /// Brings the first `bytes` of a page to the disk.
    fn sync_page(&mut self, page: usize, bytes: usize) {
        let start = (page * PAGE_BYTES).min(self.synced.len());
        let end = (page * PAGE_BYTES + bytes).min(self.synced.len()).min(self.bytes.len()).max(start);
        self.synced[start..end].copy_from_slice(&self.bytes[start..end]);
    }

    fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        for page in std::mem::take(&mut self.dirty) {
            self.sync_page(page, PAGE_BYTES);
        }
    }

    /// Some length between both, some pages, some of them in part; the rest is forgotten, and nothing is waited for any more.
    fn lose(&mut self, random: &mut fastrand::Rng) {
        let (short, long) = (self.bytes.len().min(self.synced.len()), self.bytes.len().max(self.synced.len()));
        let length = match random.u8(..3) {
            0 => self.synced.len(),
            1 => self.bytes.len(),
            _ => random.usize(short..=long),
        };
        self.synced.resize(length, 0);
        for page in std::mem::take(&mut self.dirty) {
            match random.u8(..3) {
                0 => {}
                1 => self.sync_page(page, PAGE_BYTES),
                _ => self.sync_page(page, random.usize(..PAGE_BYTES)),
            }
        }
    }

    fn crash(&mut self, random: &mut fastrand::Rng) {
        self.lose(random);
        self.bytes = self.synced.clone();
    }
}

impl Files for Disk {
    type File = usize;

    fn path(&self) -> &Path {
        Path::new("disk")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inside().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<usize> {
        let mut inside = self.call(|_| ())?;
        if inside.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        inside.nodes.push(Node::default());
        let node = inside.nodes.len() - 1;
        inside.names.insert(name.to_owned(), node);
        Ok(node)
    }

    fn open(&self, name: &str, is_written: bool) -> io::Result<usize> {
        let inside = if is_written { self.call(|_| ())? } else { self.inside() };
        inside.names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    fn length(&self, file: &usize) -> io::Result<u64> {
        Ok(self.inside().nodes[*file].bytes.len() as u64)
    }

    fn read_at(&self, file: &usize, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        let mut inside = self.inside();
        let most = inside.random.usize(1..=buffer.len().max(1));
        let bytes = &inside.nodes[*file].bytes;
        let bytes = &bytes[bytes.len().min(place as usize)..];
        let read = bytes.len().min(buffer.len()).min(most);
        buffer[..read].copy_from_slice(&bytes[..read]);
        Ok(read)
    }

    fn write_at(&self, file: &usize, bytes: &[u8], place: u64) -> io::Result<usize> {
        let some = |inside: &mut Inside| {
            let written = inside.random.usize(..=bytes.len());
            inside.nodes[*file].write(&bytes[..written], place as usize);
        };
        let mut inside = self.call(some)?;
        let written = if inside.random.u8(..4) == 0 { inside.random.usize(1..=bytes.len()) } else { bytes.len() };
        inside.nodes[*file].write(&bytes[..written], place as usize);
        Ok(written)
    }

    fn truncate(&self, file: &usize, bytes: u64) -> io::Result<()> {
        self.call(|_| ())?.nodes[*file].truncate(bytes as usize);
        Ok(())
    }

    fn sync(&self, file: &usize) -> io::Result<()> {
        // What has failed is given up: nothing of it is written again, though it can still be read.
        let give_up = |inside: &mut Inside| inside.nodes[*file].lose(&mut inside.random);
        self.call(give_up)?.nodes[*file].sync();
        Ok(())
    }

    fn forget_cache(&self, file: &usize) -> io::Result<()> {
        let node = &mut self.inside().nodes[*file];
        assert!(node.dirty.is_empty(), "what is not synced can't be forgotten");
        node.synced.resize(node.bytes.len(), 0);
        node.bytes = node.synced.clone();
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call(|_| ())?.names.remove(name).map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut inside = self.call(|_| ())?;
        inside.synced_names = inside.names.clone();
        Ok(())
    }
}
