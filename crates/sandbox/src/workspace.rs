//! A deployment's files, as the host reaches them. Everything that reads or writes them does it here.
//!
//! What is inside is hostile: the agent's commands may put anything there, at any moment. So every path is walked
//! by the kernel beneath the workspace's directory and no symbolic link is ever followed (`openat2` with
//! `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`), only regular files are read, without blocking on what is not
//! one, and sizes are bounded. A hard link can only be to a file that was inside already: the workspace is the
//! one writable directory of its sandbox.

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

pub(crate) use owner::give_to;
pub use path::{PathError, WorkspacePath};
pub use quota::{Quotas, Room};
pub use usage::usage;
pub(crate) use write::temporary_name;
pub use write::{OnLink, Pending, Written};

/// Entries that a directory may have to be listed.
pub const MAX_ENTRIES: usize = 10_000;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Why a file was not reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such file or directory")]
    NotFound,
    #[error("this is not a regular file")]
    NotAFile,
    #[error("this is not a directory")]
    NotADirectory,
    /// A symbolic link stands in the path; it may lead anywhere.
    #[error("a symbolic link is in the path, and links are not followed")]
    Symlink,
    #[error("it is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(
        "the workspace's quota of {limit} bytes (sandbox.disk_mb) has no room for it: {used} are used; remove something \
         first"
    )]
    OverQuota { limit: u64, used: u64 },
    #[error("the workspace has so many or so deep entries that its size cannot be told; remove some first")]
    TooMuch,
    #[error("the directory has more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    #[error("directories lie in each other too deeply")]
    TooDeep,
    #[error("the workspace itself cannot be replaced or removed")]
    IsRoot,
    #[error("its permissions do not let the server reach it")]
    Denied,
    #[error("what is there now is not what the request's precondition asks for")]
    Precondition,
    #[error("the directory is changed all the time while it is written to or removed")]
    Busy,
    #[error("the disk is full, or the quota is used up")]
    NoSpace,
    #[error("the file system failed: {0}")]
    Io(io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            Errno::NOTDIR => Self::NotADirectory,
            // A link is in the path, or a mount, or the path was changed under the kernel's feet again and again.
            Errno::LOOP | Errno::XDEV | Errno::AGAIN => Self::Symlink,
            Errno::ISDIR | Errno::NXIO | Errno::NODEV => Self::NotAFile,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            other => Self::Io(other.into()),
        }
    }
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
}

/// One entry of a directory. Sockets, FIFOs and devices are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes that are not UTF-8 show as U+FFFD.
    pub name: String,
    pub kind: Kind,
    /// Bytes; only of files.
    pub size: Option<u64>,
    pub modified_at: Timestamp,
}

/// A regular file that is open for reading.
#[derive(Debug)]
pub struct OpenFile {
    pub file: File,
    pub size: u64,
    pub modified_at: Timestamp,
    /// Changes whenever the content may have: made of inode, size and time of change.
    pub etag: String,
}

/// A workspace's directory, held open. All methods block.
#[derive(Debug)]
pub struct Workspace {
    root: OwnedFd,
}

impl Workspace {
    /// Opens the workspace in `dir`, which is made if it is missing.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::open(dir, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root }),
            Err(Errno::NOENT) => {
                fs::create_dir_all(dir).map_err(Error::Io)?;
                if let Some(parent) = dir.parent() {
                    // What is written into it is not on the disk before it is there itself.
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

    /// The entries of a directory, by name.
    pub fn list(&self, path: &WorkspacePath) -> Result<Vec<Entry>, Error> {
        let directory = self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut entries = Vec::new();
        let mut seen = 0;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            // What is not listed counts too, as it costs the same to look at.
            seen += 1;
            if seen > MAX_ENTRIES {
                return Err(Error::TooManyEntries);
            }
            let name = entry.file_name().to_string_lossy();
            if write::remove_left_over(&directory, &name) {
                continue;
            }
            match statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => entries.extend(describe(&name, &stat)),
                // It went away while the directory was read.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    /// Opens a regular file. Anything else is refused at once, and is not waited for.
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

    /// The bytes on the disk that writing to this path frees: those of a file with no other name.
    pub fn freed_by_write(&self, path: &WorkspacePath) -> Result<u64, Error> {
        let Some((parent, name)) = path.split() else { return Ok(0) };
        match self.open_beneath(&parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Ok(0),
            parent => Ok(write::look(&parent?, name)?.as_ref().map_or(0, usage::freed)),
        }
    }

    /// A file's bytes, if there are at most `limit`, however it grows while it is read.
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
#[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "see above")]
fn modified_at(stat: &Stat) -> Timestamp {
    let micros = i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1000;
    Timestamp::from_micros(stat.st_mtime.saturating_mul(1_000_000).saturating_add(micros))
}
