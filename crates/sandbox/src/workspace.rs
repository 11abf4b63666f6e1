//! The server's access to a workspace, the directory that contains an agent's files. All server code that reads or
//! writes an agent's files uses this module.
//!
//! The content of a workspace is untrusted: the agent's commands can change anything in it at any time. Therefore the
//! kernel is told to refuse paths that lead outside the workspace or contain a symbolic link (`openat2` with
//! `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`). Only regular files are read, opening a file never blocks, and sizes
//! are limited. A command cannot create a hard link to a file outside the workspace, because the workspace is a
//! separate mount in the sandbox.

pub mod archive;
mod owner;
mod path;
mod quota;
mod remove;
mod usage;
mod write;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use herm_types::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2, statat};
use rustix::io::Errno;

pub(crate) use owner::change_owner;
pub use path::{PathError, WorkspacePath};
pub use quota::{Quotas, Reservation};
pub use usage::usage;
pub(crate) use write::temporary_name;
pub use write::{OnLink, Pending, Written};

/// The maximum number of entries in a listed directory. Listing a directory with more entries fails.
pub const MAX_ENTRIES: usize = 10_000;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The reason why an operation on a workspace failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file or directory does not exist")]
    NotFound,
    #[error("the path is not a regular file")]
    NotAFile,
    #[error("the path or one of its parents is not a directory")]
    NotADirectory,
    /// The path contains a symbolic link, which could lead outside the workspace.
    #[error("the path contains a symbolic link; symbolic links are not followed")]
    Symlink,
    #[error("the file exceeds the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(
        "the workspace's quota of {limit} bytes (sandbox.disk_mb) would be exceeded: {used} bytes are used; remove some \
         files first"
    )]
    OverQuota { limit: u64, used: u64 },
    #[error(
        "the disk usage of the workspace cannot be measured: it has more than {} entries, or it is nested more than {} \
         levels deep; delete files or directories and try again",
        usage::MAX_ENTRIES,
        usage::MAX_DEPTH
    )]
    TooManyToMeasure,
    #[error("the directory cannot be listed, because it has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    #[error(
        "the workspace has directories nested more than {} levels deep; flatten them and try again",
        owner::MAX_DEPTH
    )]
    TooDeep,
    #[error("the root of the workspace cannot be replaced or removed")]
    IsRoot,
    #[error("the operating system denied access to the file or directory")]
    Denied,
    #[error(
        "precondition failed: the file does not meet `If-Match` or `If-None-Match` of the request; read it again"
    )]
    Precondition,
    #[error("the file or directory is being changed concurrently; try again")]
    Busy,
    #[error("the server's disk is full, or a disk quota on the server is exceeded")]
    NoSpace,
    #[error("a file system operation failed: {0}")]
    Io(io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::NOTDIR => Self::NotADirectory,
            // The path contains a symbolic link or a mount, or it kept changing while the kernel resolved it.
            Errno::LOOP | Errno::XDEV | Errno::AGAIN => Self::Symlink,
            Errno::ISDIR | Errno::NXIO | Errno::NODEV => Self::NotAFile,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            other => Self::Io(other.into()),
        }
    }
}

/// The type of a listed directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// One entry of a directory listing. Sockets, FIFOs and devices are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry's name. Invalid UTF-8 is replaced by U+FFFD.
    pub name: String,
    pub kind: Kind,
    /// The file's size in bytes. `None` for directories and symbolic links.
    pub size: Option<u64>,
    pub modified_at: Timestamp,
}

/// A regular file opened for reading.
#[derive(Debug)]
pub struct OpenFile {
    pub file: File,
    /// The file's size in bytes at the time when it was opened.
    pub size: u64,
    pub modified_at: Timestamp,
    /// The entity tag, derived from the file's inode, size and change time. It changes whenever the content may have
    /// changed.
    pub etag: String,
}

/// A workspace whose directory is open. All methods block the thread.
#[derive(Debug)]
pub struct Workspace {
    root: OwnedFd,
}

impl Workspace {
    /// Opens the workspace in `dir`. Creates the directory if it does not exist.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(dir, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root }),
            Err(Errno::NOENT) => {
                fs::create_dir_all(dir).map_err(Error::Io)?;
                if let Some(parent) = dir.parent() {
                    // Sync the parent directory: files in the workspace survive a power failure only if the workspace's
                    // own directory entry does.
                    File::open(parent).and_then(|parent| parent.sync_all()).map_err(Error::Io)?;
                }
                Ok(Self { root: rustix::fs::open(dir, flags, Mode::empty())? })
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn open_beneath(&self, path: &WorkspacePath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = if path.is_root() { "." } else { path.as_str() };
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode, BENEATH) {
                Err(Errno::INTR) => {}
                opened => return opened,
            }
        }
    }

    /// Lists the entries of a directory, sorted by name.
    pub fn list(&self, path: &WorkspacePath) -> Result<Vec<Entry>, Error> {
        let directory = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        let mut count = 0;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            // Also count entries that are omitted from the list, because reading such an entry costs the same.
            count += 1;
            if count > MAX_ENTRIES {
                return Err(Error::TooManyEntries);
            }
            let name = entry.file_name().to_string_lossy();
            if write::remove_if_stale(&directory, &name) {
                continue;
            }
            match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.extend(describe(&name, &stat)),
                // The entry was deleted while the directory was being read. Skip it.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    /// Opens a regular file for reading. If the path refers to anything else, such as a FIFO, fails immediately and
    /// never blocks.
    pub fn open_read(&self, path: &WorkspacePath) -> Result<OpenFile, Error> {
        let fd =
            self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let stat = fstat(fd.as_fd())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(OpenFile { file: File::from(fd), size, modified_at: modified_at(&stat), etag: etag(&stat) })
    }

    /// Returns the number of bytes on disk that become free when a write replaces the file at this path. Returns zero
    /// if the file does not exist or has other hard links.
    pub fn freed_by_write(&self, path: &WorkspacePath) -> Result<u64, Error> {
        let Some((parent, name)) = path.split() else { return Ok(0) };
        match self.open_beneath(&parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(0),
            parent => Ok(write::stat_entry(&parent?, name)?.as_ref().map_or(0, usage::freed_bytes)),
        }
    }

    /// Reads a whole file. Fails if it is larger than `limit` bytes, even if it grows beyond the limit while being
    /// read.
    pub fn read(&self, path: &WorkspacePath, limit: u64) -> Result<Vec<u8>, Error> {
        let open = self.open_read(path)?;
        if open.size > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut bytes = Vec::new();
        open.file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::Io)?;
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        Ok(bytes)
    }
}

fn etag(stat: &Stat) -> String {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    format!("{:x}-{:x}-{:x}.{:x}", stat.st_ino, size, stat.st_ctime, stat.st_ctime_nsec)
}

fn describe(name: &str, stat: &Stat) -> Option<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => return None,
    };
    let size = (kind == Kind::File).then(|| u64::try_from(stat.st_size).unwrap_or(0));
    Some(Entry { name: name.to_owned(), kind, size, modified_at: modified_at(stat) })
}

#[expect(clippy::allow_attributes, reason = "the field's type differs between architectures")]
#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    reason = "the field's type differs between architectures"
)]
fn modified_at(stat: &Stat) -> Timestamp {
    let micros = i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1000;
    Timestamp::from_micros(stat.st_mtime.saturating_mul(1_000_000).saturating_add(micros))
}
