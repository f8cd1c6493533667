//! Why a store is not opened, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel refuses something.
    #[error("{}: {error}", path.display())]
    Io {
        /// What it is asked of.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// Another process has the directory.
    #[error("{} is in use by another process", directory.display())]
    InUse {
        /// Which.
        directory: PathBuf,
    },
    /// There is no store in the directory.
    #[error("{} holds no store", directory.display())]
    Empty {
        /// Which.
        directory: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is no file of a store", path.display())]
    Foreign {
        /// What.
        path: PathBuf,
    },
    /// A segment is of a version of the format that this program does not know.
    #[error("{} is of version {version}, and this program knows version {}", path.display(), super::segment::VERSION)]
    Version {
        /// Its file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// There are segments before and behind one that is not there.
    #[error("{} is missing, and there are segments before and behind it", path.display())]
    Missing {
        /// Its file.
        path: PathBuf,
    },
    /// What was on the disk is not there any more.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// A place where something else stands than was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Damage {
    /// The segment's file.
    pub path: PathBuf,
    /// From which byte on.
    pub offset: u64,
    /// What should stand there.
    pub expected: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} is damaged at byte {}: expected {}", self.path.display(), self.offset, self.expected)
    }
}

impl OpenError {
    pub(super) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }

    /// What to do about it.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Io { .. } => "Look at the directory's path, owner and disk.",
            Self::InUse { .. } => "End the other process, or give each server a directory of its own.",
            Self::Empty { .. } => "Give the directory that serve was given with --data-dir.",
            Self::Foreign { .. } => "Move it elsewhere, or give the store a directory of its own.",
            Self::Version { .. } => "Use the version of Fantail that wrote it, or a newer one.",
            Self::Missing { .. } | Self::Damaged(_) => {
                "Restore the directory from a copy; or save what is readable by 'fantail store dump DIR', then start with a new directory."
            }
        }
    }
}

/// What was cut off a log's end: a group that was being written when all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment's file.
    pub path: PathBuf,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, bytes } = self;
        write!(
            formatter,
            "{} ends from byte {offset} on with {bytes} bytes of a group that was not written whole",
            path.display()
        )
    }
}
