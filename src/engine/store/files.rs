//! The files of a store, behind a trait that a faulty disk can stand in for.
//!
//! What the log relies on, and no more: bytes written are on the disk when [`Files::sync`] has returned without an error, and a file's
//! name, new or gone, when [`Files::sync_directory`] has. Before that any part of them may be there after a crash. After an error of
//! `sync` nothing is known of what was written since the one before, and asking again says nothing either: the kernel may have
//! given it up and say that all is well.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation};

use super::error::OpenError;

/// What a log does with files, all in one directory.
pub trait Files: Send {
    /// An open file.
    type File: Send;

    /// Where they are, for messages.
    fn path(&self) -> &Path;

    /// The names of all files there are.
    ///
    /// # Errors
    /// What the kernel says; so in all of these.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file, which must not be there.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading, and for writing if `is_written`.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn open(&self, name: &str, is_written: bool) -> io::Result<Self::File>;

    /// How many bytes it has.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn length(&self, file: &Self::File) -> io::Result<u64>;

    /// Reads from a place on; less than asked for is no error, and none is the end.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], place: u64) -> io::Result<usize>;

    /// Writes from a place on, at least one byte; how many it was.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn write_at(&self, file: &Self::File, bytes: &[u8], place: u64) -> io::Result<usize>;

    /// Cuts it off.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;

    /// Waits until the disk has what was written and its length.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Makes later reads come from the disk. Without effect where there is none behind the file.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn forget_cache(&self, file: &Self::File) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Waits until the disk has the names of the files.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn sync_directory(&self) -> io::Result<()>;

    /// Writes all bytes from a place on.
    ///
    /// # Errors
    /// As [`Files::list`]; then any part of them is written.
    fn write_all_at(&self, file: &Self::File, mut bytes: &[u8], mut place: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(file, bytes, place) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => (bytes, place) = (&bytes[written..], place + written as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads from a place on until `buffer` is full or the file ends; how much it was.
    ///
    /// # Errors
    /// As [`Files::list`].
    fn read_full_at(&self, file: &Self::File, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match self.read_at(file, &mut buffer[read..], place + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

/// A directory that this process alone uses.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    /// Locked as long as it is open.
    _lock: File,
}

/// The file whose lock says that a process uses the directory.
pub(super) const LOCK: &str = "lock";

impl Directory {
    /// Takes a directory for this process alone, and makes it if it is not there.
    ///
    /// # Errors
    /// Another process has it, or what the kernel says.
    pub fn create(path: &Path) -> Result<Self, OpenError> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let sync_parent = || File::open(parent).and_then(|parent| parent.sync_all());
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => sync_parent().map_err(|error| OpenError::io(parent, error))?,
            // Whoever made it may have been killed before its name was on the disk; or it was there long before, where we may not look.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => drop(sync_parent()),
            Err(error) => return Err(OpenError::io(path, error)),
        }
        Self::open(path)
    }

    /// Takes a directory that is there for this process alone.
    ///
    /// # Errors
    /// Another process has it, or what the kernel says.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let handle = File::open(path).map_err(|error| OpenError::io(path, error))?;
        let place = path.join(LOCK);
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&place);
        let lock = lock.map_err(|error| OpenError::io(&place, error))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), handle, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse { directory: path.to_owned() }),
            Err(error) => Err(OpenError::io(&place, error.into())),
        }
    }
}

impl Files for Directory {
    type File = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(self.path.join(name))
    }

    fn open(&self, name: &str, is_written: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(is_written).open(self.path.join(name))
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        file.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], place: u64) -> io::Result<usize> {
        file.read_at(buffer, place)
    }

    fn write_at(&self, file: &File, bytes: &[u8], place: u64) -> io::Result<usize> {
        file.write_at(bytes, place)
    }

    fn truncate(&self, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn forget_cache(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("store");
        assert!(matches!(Directory::open(&path), Err(OpenError::Io { .. })), "it is not there");
        let directory = Directory::create(&path).unwrap();
        let refused = Directory::open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
        drop(directory);
        Directory::create(&path).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Directory::open(parent.path()).unwrap();
        let file = directory.create("a").unwrap();
        assert!(directory.create("a").is_err());
        directory.write_all_at(&file, b"hello", 2).unwrap();
        directory.sync(&file).unwrap();
        directory.forget_cache(&file).unwrap();
        directory.truncate(&file, 6).unwrap();
        let mut buffer = [9; 8];
        assert_eq!(directory.read_full_at(&file, &mut buffer, 0).unwrap(), 6);
        assert_eq!((&buffer[..6], directory.length(&file).unwrap()), (&b"\0\0hell"[..], 6));
        let mut names = directory.list().unwrap();
        names.sort();
        assert_eq!(names, ["a", LOCK]);
        directory.remove("a").unwrap();
        directory.sync_directory().unwrap();
        assert!(directory.open("a", false).is_err());
    }
}
