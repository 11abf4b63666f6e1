//! Where snapshots lie: one directory, one file each, for the server alone.
//!
//! A file gets its name when all of it is on the disk; until then it has a name of its own and is locked by who writes
//! it, so that what a crash left is known by its lock's absence and goes with the next sweep.

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
/// Names that are tried for a file that is taken for left over before it is locked.
const MAX_NAMES: usize = 8;

/// The directory of snapshots; cheap to clone. All methods block.
#[derive(Clone, Debug)]
pub struct Snapshots {
    dir: PathBuf,
}

/// A snapshot that is on the disk and does not have its name yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Pending {
    dir: PathBuf,
    partial: Partial,
    name: String,
    pub contents: Contents,
    pub size_bytes: u64,
}

/// A file that goes when it is dropped, unless it has been given its name.
#[derive(Debug)]
struct Partial {
    file: File,
    path: PathBuf,
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What has its name by now is no longer here; what failed was told.
        let _ = fs::remove_file(&self.path);
    }
}

impl Snapshots {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Writes a snapshot of the workspace in `dir`, to the disk.
    pub fn write(&self, id: SnapshotId, dir: &Path, stop: &Stop) -> Result<Pending, ArchiveError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let partial = self.partial()?;
        let scratch = self.partial()?;
        let (_, contents) = archive::write(dir, &partial.file, scratch.file.try_clone()?, stop)?;
        partial.file.sync_all()?;
        let size_bytes = partial.file.metadata()?.len();
        Ok(Pending { dir: self.dir.clone(), partial, name: file_name(id), contents, size_bytes })
    }

    /// Restores a snapshot that holds what is expected; see [`archive::restore`].
    pub fn restore(
        &self,
        id: SnapshotId,
        dir: &Path,
        expected: Contents,
        stop: &Stop,
    ) -> Result<(), ArchiveError> {
        archive::restore(&self.open(id)?, dir, expected, stop)
    }

    /// Opens a snapshot's file for reading.
    pub fn open(&self, id: SnapshotId) -> io::Result<File> {
        File::open(self.dir.join(file_name(id)))
    }

    /// Erases a snapshot's file; one that is not there is erased already.
    pub fn remove(&self, id: SnapshotId) -> io::Result<()> {
        match fs::remove_file(self.dir.join(file_name(id))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        File::open(&self.dir)?.sync_all()
    }

    /// Removes what writers that ended before their time left; gives the snapshots whose files are here.
    pub fn sweep(&self) -> io::Result<Vec<SnapshotId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(id) = name.strip_suffix(FILE_SUFFIX).and_then(|id| id.parse().ok()) {
                found.push(id);
            } else if name.ends_with(PARTIAL_SUFFIX) {
                self.remove_left_over(name)?;
            }
        }
        Ok(found)
    }

    fn remove_left_over(&self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        if is_locked(&file)? { fs::remove_file(path) } else { Ok(()) }
    }

    /// A file with a name that nobody else has, locked.
    fn partial(&self) -> Result<Partial, ArchiveError> {
        for _ in 0..MAX_NAMES {
            let path = self.dir.join(format!("{}{PARTIAL_SUFFIX}", temporary_name()?));
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            let partial = Partial { file, path };
            if is_locked(&partial.file)? && partial.file.metadata()?.nlink() > 0 {
                return Ok(partial);
            }
        }
        Err(crate::workspace::Error::Busy.into())
    }
}

impl Pending {
    /// Gives the snapshot its name, for good. One that has it is replaced.
    pub fn put(self) -> io::Result<()> {
        fs::rename(&self.partial.path, self.dir.join(&self.name))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Locks a file; `false` if somebody else has.
fn is_locked(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn file_name(id: SnapshotId) -> String {
    format!("{id}{FILE_SUFFIX}")
}
