//! Storage for snapshots of workspaces: a directory that only the server can access, with one file per snapshot.
//!
//! A snapshot is first written to a partial file, which is synced to disk and then renamed to its final name. While it
//! is being written, the writer holds a lock on the partial file. A partial file without a lock is left over from a
//! crash. The next call of [`Snapshots::sweep`] removes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use herm_types::SnapshotId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::workspace::archive::{self, ArchiveError, Contents, Stop};
use crate::workspace::temporary_name;

const FILE_SUFFIX: &str = ".tar.zst";
const PARTIAL_SUFFIX: &str = ".partial";
/// The maximum number of attempts to create a partial file. An attempt fails if [`Snapshots::sweep`] runs concurrently
/// and removes the file before it is locked.
const MAX_CREATE_ATTEMPTS: usize = 8;

/// A handle to the directory of snapshots; cheap to clone. All methods block the thread.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

/// A snapshot that has been synced to disk but not committed. [`Self::commit`] makes it available under its id. If it
/// is dropped without a commit, its file is deleted.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    partial_file: PartialFile,
    name: String,
    /// The number of entries in the archive, and their total size.
    pub contents: Contents,
    /// The size of the compressed snapshot file, in bytes.
    pub size_bytes: u64,
}

/// A locked partial file. When dropped, it is deleted, unless it has been renamed to its final name.
#[derive(Debug)]
struct PartialFile {
    file: File,
    path: PathBuf,
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // This fails if the file has been renamed to its final name. There is then nothing to delete.
        let _ = fs::remove_file(&self.path);
    }
}

impl Snapshots {
    /// Creates a handle to the snapshots in `dir`. The directory is created when the first snapshot is written.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes a snapshot of the workspace in `dir` and syncs it to disk. The snapshot cannot be read until it is
    /// committed.
    pub fn write(&self, id: SnapshotId, dir: &Path, stop: &Stop) -> Result<Pending, ArchiveError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let partial_file = self.create_partial_file()?;
        let scratch = self.create_partial_file()?;
        let (_, contents) = archive::write(dir, &partial_file.file, scratch.file.try_clone()?, stop)?;
        partial_file.file.sync_all()?;
        let size_bytes = partial_file.file.metadata()?.len();
        Ok(Pending { dir: self.dir.clone(), partial_file, name: file_name(id), contents, size_bytes })
    }

    /// Restores a snapshot into the workspace in `dir`. See [`archive::restore`].
    pub fn restore(
        &self,
        id: SnapshotId,
        dir: &Path,
        expected: Contents,
        stop: &Stop,
    ) -> Result<(), ArchiveError> {
        archive::restore(&self.open(id)?, dir, expected, stop)
    }

    /// Opens the file of a committed snapshot for reading.
    pub fn open(&self, id: SnapshotId) -> io::Result<File> {
        File::open(self.dir.join(file_name(id)))
    }

    /// Deletes a snapshot's file. Succeeds if the file does not exist.
    pub fn remove(&self, id: SnapshotId) -> io::Result<()> {
        match fs::remove_file(self.dir.join(file_name(id))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Removes partial files that were left over from crashes. Returns the ids of all committed snapshots.
    pub fn sweep(&self) -> io::Result<Vec<SnapshotId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut snapshot_ids = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(id) = name.strip_suffix(FILE_SUFFIX).and_then(|id| id.parse().ok()) {
                snapshot_ids.push(id);
            } else if name.ends_with(PARTIAL_SUFFIX) {
                self.remove_if_stale(name)?;
            }
        }
        Ok(snapshot_ids)
    }

    fn remove_if_stale(&self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        if try_lock(&file)? { fs::remove_file(path) } else { Ok(()) }
    }

    /// Creates a locked partial file with a unique name.
    fn create_partial_file(&self) -> Result<PartialFile, ArchiveError> {
        for _ in 0..MAX_CREATE_ATTEMPTS {
            let path = self.dir.join(format!("{}{PARTIAL_SUFFIX}", temporary_name()?));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            let partial_file = PartialFile { file, path };
            if try_lock(&partial_file.file)? && partial_file.file.metadata()?.nlink() > 0 {
                return Ok(partial_file);
            }
        }
        Err(crate::workspace::Error::Busy.into())
    }
}

impl Pending {
    /// Renames the snapshot's file to its final name, replacing an existing file, and syncs the directory.
    pub fn commit(self) -> io::Result<()> {
        fs::rename(&self.partial_file.path, self.dir.join(&self.name))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Tries to lock a file without blocking. Returns `false` if another open handle holds the lock.
fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn file_name(id: SnapshotId) -> String {
    format!("{id}{FILE_SUFFIX}")
}
