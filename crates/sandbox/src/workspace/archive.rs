//! All of a workspace as one file, and back: a tar, compressed with zstd.
//!
//! It holds the workspace's entries as `workspace/…`, each directory after what is in it, so that it gets its permissions
//! and its time when nothing comes into it any more. The last member, `manifest.jsonl`, has a line for each: path, type,
//! size, permissions, time, and the SHA-256 of each file. Any program that reads tar unpacks it.
//!
//! The reader knows the members that the writer makes and refuses everything else; it works out the manifest anew and
//! compares it, so that no byte of a manifest decides anything. Neither holds a file in memory, whatever its size.

mod manifest;
mod member;
mod place;
mod read;
mod write;

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::{Error, Workspace};

/// Entries of a workspace that an archive holds at most.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// Bytes of all files that an archive holds at most, holes included: beyond it a workspace is one that was made to hurt.
pub const MAX_CONTENT_BYTES: u64 = 256 * 1024 * 1024 * 1024;
/// Bytes of an entry's path at most, so that the kernel takes it in one call.
const MAX_PATH_BYTES: usize = 4000;
/// Directories that a path goes down at most: what the API can reach.
const MAX_DEPTH: usize = 64;
/// Bytes that are read and written at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// Why there is no archive, or nothing of it was restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not what the writer makes, or not all of it.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("{0}")]
    TooLarge(String),
    /// Its work was stopped on the way.
    #[error("it was stopped before its end")]
    Stopped,
    /// What the workspace has there is something else.
    #[error("{0:?} cannot be restored: something else stands in its place")]
    InTheWay(String),
    #[error(transparent)]
    Files(#[from] Error),
}

impl From<Errno> for ArchiveError {
    fn from(errno: Errno) -> Self {
        Self::Files(errno.into())
    }
}

/// A failed call of the system, or what the decompressor says of bytes that are none of its own.
impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Damaged(error.to_string()),
        }
    }
}

/// Stops work that blocks, from outside; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), ArchiveError> {
        if self.0.load(Ordering::Relaxed) { Err(ArchiveError::Stopped) } else { Ok(()) }
    }
}

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub entries: u64,
    /// Bytes of all files; what is linked counts once.
    pub bytes: u64,
    /// Entries that it does not hold: sockets, FIFOs, devices, mounts, and what lies too deep. The manifest names them.
    pub left_out: u64,
}

/// Writes all that is in the workspace in `dir`; nobody may write to it meanwhile. `scratch` is an empty file for what
/// is gathered on the way.
pub fn write<W: Write>(
    dir: &Path,
    out: W,
    scratch: File,
    stop: &Stop,
) -> Result<(W, Contents), ArchiveError> {
    write::write(&Workspace::create(dir)?, out, scratch, stop)
}

/// Restores an archive into the workspace in `dir`. It is read to its end first, so that one that is refused leaves no
/// file behind. What stands there already and is not of this archive stays; so it may be done again after it broke off.
///
/// # Errors
/// [`ArchiveError::Damaged`] also if it holds more than `expected`.
pub fn restore(mut archive: &File, dir: &Path, expected: Contents, stop: &Stop) -> Result<(), ArchiveError> {
    archive.rewind()?;
    read::read(archive, expected, stop, &mut read::Verify)?;
    archive.rewind()?;
    let workspace = Workspace::create(dir)?;
    let mut placing = place::Placing::new(&workspace);
    read::read(archive, expected, stop, &mut placing)?;
    placing.sync()
}
