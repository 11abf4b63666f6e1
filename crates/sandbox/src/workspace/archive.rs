//! Archives a workspace to a single file, and restores a workspace from such a file. The format is tar, compressed with
//! zstd.
//!
//! The archive's members are the entries of the workspace, with paths that begin with `workspace/`. A directory is
//! stored after its content, so that its permissions and modification time are restored last. The last member,
//! `manifest.jsonl`, has one line per entry: path, type, size, permissions, modification time, and for files the
//! SHA-256. Any tar program can unpack an archive.
//!
//! The reader accepts only the kinds of members that the writer creates. It computes the manifest from the members and
//! compares it with the stored manifest. It does not use the stored manifest for anything else. Neither the reader nor
//! the writer holds a whole file in memory.

mod manifest;
mod member;
mod read;
mod restore;
mod write;

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use super::{Error, Workspace};

/// The maximum number of entries in an archive. A workspace with more entries cannot be archived.
pub const MAX_ENTRIES: u64 = 1_000_000;
/// The maximum total size of all files in an archive, in bytes, including holes in files. A workspace that exceeds the
/// limit is considered malicious and cannot be archived.
pub const MAX_CONTENT_BYTES: u64 = 256 * 1024 * 1024 * 1024;
/// The maximum length of an entry's path in bytes. It is lower than the kernel's limit for paths. Entries with longer
/// paths are omitted from the archive.
const MAX_PATH_BYTES: usize = 4000;
/// The maximum number of components in an entry's path, the same as for paths in the API. Entries with more are omitted
/// from the archive.
const MAX_DEPTH: usize = 64;
/// The number of bytes that are read at a time from a file or archive.
const CHUNK_BYTES: usize = 128 * 1024;

/// The reason why a workspace could not be archived or restored.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive was not created by the writer in this module, or it was changed or truncated since.
    #[error("the archive is damaged ({0})")]
    Damaged(String),
    #[error("{0}")]
    TooLarge(String),
    /// The operation was stopped by [`Stop::stop`].
    #[error("the operation was cancelled before it was complete")]
    Stopped,
    /// The workspace already contains an entry of another type at a path that the archive needs, or at one of its
    /// parent directories.
    #[error(
        "{0:?} cannot be restored, because the workspace has an entry of another type at this path or above it"
    )]
    PathConflict(String),
    #[error(transparent)]
    Files(#[from] Error),
}

impl From<Errno> for ArchiveError {
    fn from(errno: Errno) -> Self {
        Self::Files(errno.into())
    }
}

/// Converts an I/O error. An error without an OS error code comes from the decompressor and means that the archive is
/// damaged.
impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => errno.into(),
            None => Self::Damaged(error.to_string()),
        }
    }
}

/// A flag with which another thread stops a blocking operation; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks the operation to stop. It stops the next time it checks the flag.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), ArchiveError> {
        if self.0.load(Ordering::Relaxed) { Err(ArchiveError::Stopped) } else { Ok(()) }
    }
}

/// The size of an archive's uncompressed content, as numbers of entries and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub entries: u64,
    /// The total size of all files in bytes. A file with several hard links counts once.
    pub bytes: u64,
    /// The number of entries that were omitted: sockets, FIFOs, devices, mounts, and entries whose path or link target
    /// is too long or whose path is too deep. The manifest lists the first 1,000 of them.
    pub left_out: u64,
}

/// Archives the workspace in `dir` and writes the archive to `out`. Nothing may write to the workspace while this
/// function runs. `scratch` is an empty temporary file for the manifest.
pub fn write<W: Write>(
    dir: &Path,
    out: W,
    scratch: File,
    stop: &Stop,
) -> Result<(W, Contents), ArchiveError> {
    write::write(&Workspace::create(dir)?, out, scratch, stop)
}

/// Restores an archive into the workspace in `dir`. The whole archive is verified first, so a damaged one is rejected
/// before any file is written. Existing files that do not come from this archive are preserved. Can be repeated after a
/// failure.
///
/// # Errors
/// Returns [`ArchiveError::Damaged`] if the archive is invalid or its content does not match `expected`.
pub fn restore(mut archive: &File, dir: &Path, expected: Contents, stop: &Stop) -> Result<(), ArchiveError> {
    archive.rewind()?;
    read::read(archive, expected, stop, &mut read::Verify)?;
    archive.rewind()?;
    let workspace = Workspace::create(dir)?;
    let mut restorer = restore::Restorer::new(&workspace);
    read::read(archive, expected, stop, &mut restorer)?;
    restorer.sync()
}
