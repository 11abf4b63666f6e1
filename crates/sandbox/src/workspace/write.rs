//! Writes files atomically: a reader sees either the old or the new content of a file.
//!
//! The bytes are written to an unnamed file (`O_TMPFILE`) in the destination directory. An aborted write therefore
//! leaves nothing behind, even if this process crashes. The file needs a temporary name in two cases: for a moment
//! while it replaces an existing file, and from the start on file systems that do not support unnamed files. The writer
//! holds a lock on the file. A file with a temporary name but without a lock is left over from a crash. It is removed
//! when its directory is listed.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use herm_types::Timestamp;
use herm_types::file::Precondition;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, fsync, linkat, mkdirat,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Error, Workspace, WorkspacePath, etag, modified_at, owner};

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// The permission bits that a file keeps when its content is replaced. The setuid, setgid and sticky bits are dropped.
const PERMISSIONS: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
/// The maximum number of attempts to create a named temporary file. An attempt fails if a concurrent listing locks or
/// removes the file first. If all attempts fail, the write fails.
const MAX_CREATE_ATTEMPTS: usize = 8;
/// The number of directory locks. Each lock serves many directories, but two directories that are in use at the same
/// time rarely share one.
const LOCKS: usize = 64;

/// Locks that allow only one of the server's writers at a time in a directory. Without them, a file could change
/// between the check of a precondition and the write, and two writers with the same precondition could both succeed.
/// Programs in the sandbox do not use these locks.
static DIRECTORY_LOCKS: [Mutex<()>; LOCKS] = [const { Mutex::new(()) }; LOCKS];

/// The behavior of a write if its destination is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLink {
    /// Replaces the link itself. The file to which the link points is unchanged.
    Replace,
    /// Rejects the write with [`Error::Symlink`].
    Refuse,
}

/// The metadata of a file after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file's size in bytes.
    pub size: u64,
    pub modified_at: Timestamp,
    pub etag: String,
}

/// A file that is being written and is not at its destination yet. [`Self::commit`] moves it there. If it is dropped
/// without a commit, it is deleted.
#[derive(Debug)]
pub struct Pending {
    directory: OwnedFd,
    name: String,
    file: File,
    /// The file's temporary name, or `None` if the file is unnamed.
    temporary: Option<String>,
    size: u64,
    limit: u64,
}

impl Workspace {
    /// Creates or replaces a file atomically and syncs it to disk. Creates missing parent directories. If the path is a
    /// symbolic link, the link itself is replaced. The permissions of a replaced file are preserved, so that a program
    /// stays executable. Open handles and other hard links to the old file keep the old content.
    pub fn write_atomic(&self, path: &WorkspacePath, bytes: &[u8], limit: u64) -> Result<(), Error> {
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut pending = self.begin_write(path, limit)?;
        pending.write(bytes)?;
        pending.commit(&Precondition::default(), OnLink::Replace).map(|_| ())
    }

    /// Begins to write a file in chunks, with at most `limit` bytes in total. Creates missing parent directories.
    pub fn begin_write(&self, path: &WorkspacePath, limit: u64) -> Result<Pending, Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        let directory = self.create_directories(&parent)?;
        if is_directory(&directory, name)? {
            return Err(Error::NotAFile);
        }
        let (file, temporary) = open_temporary(&directory)?;
        owner::inherit_owner(&directory, &file)?;
        Ok(Pending { directory, name: name.to_owned(), file, temporary, size: 0, limit })
    }

    /// Checks that a write with this precondition would succeed now. Fails if the path is a symbolic link.
    pub fn check_write(&self, path: &WorkspacePath, precondition: &Precondition) -> Result<(), Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        match self.open_beneath(&parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(directory) => {
                check_target(stat_entry(&directory, name)?.as_ref(), precondition, OnLink::Refuse)
            }
            Err(Errno::NOENT) => check_target(None, precondition, OnLink::Refuse),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a directory. Creates the directory and its parents if they do not exist.
    fn create_directories(&self, path: &WorkspacePath) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.open_beneath(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        for prefix in path.prefixes() {
            let Some((parent, name)) = prefix.split() else { continue };
            let parent = self.open_beneath(&parent, flags, Mode::empty())?;
            match mkdirat(&parent, name, DIRECTORY_MODE) {
                Ok(()) => {
                    let created =
                        openat(&parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
                    // If opening fails, another entry has replaced the new directory. Do not change the owner of that
                    // entry.
                    if let Ok(created) = created {
                        owner::inherit_owner(&parent, &created)?;
                    }
                    fsync(&parent)?;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.open_beneath(path, flags, Mode::empty())?)
    }
}

impl Pending {
    /// Appends bytes to the file. Fails if the file would exceed its size limit.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size = self.size.saturating_add(bytes.len() as u64);
        if size > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.file.write_all(bytes).map_err(from_io)?;
        self.size = size;
        Ok(())
    }

    /// Moves the file to its destination if the precondition holds, and syncs the file and its directory to disk.
    pub fn commit(mut self, precondition: &Precondition, on_link: OnLink) -> Result<Written, Error> {
        self.file.sync_all().map_err(from_io)?;
        {
            let _guard = lock(&self.directory)?;
            // Try again whenever a file was created at the destination between the precondition check and the move.
            while !self.try_commit(precondition, on_link)? {}
        }
        fsync(&self.directory)?;
        let stat = fstat(&self.file)?;
        Ok(Written { size: self.size, modified_at: modified_at(&stat), etag: etag(&stat) })
    }

    /// Makes one attempt to move the file to its destination. Returns `false` if a file was created at the destination
    /// after the precondition was checked.
    fn try_commit(&mut self, precondition: &Precondition, on_link: OnLink) -> Result<bool, Error> {
        let existing = stat_entry(&self.directory, &self.name)?;
        check_target(existing.as_ref(), precondition, on_link)?;
        if let Some(stat) = existing.filter(is_regular) {
            fchmod(&self.file, Mode::from_raw_mode(stat.st_mode) & PERMISSIONS)?;
        }
        if self.temporary.is_none() {
            if existing.is_none() {
                return match self.link(&self.name) {
                    Ok(()) => Ok(true),
                    Err(Errno::EXIST) => Ok(false),
                    Err(errno) => Err(errno.into()),
                };
            }
            let temporary = temporary_name()?;
            self.link(&temporary)?;
            self.temporary = Some(temporary);
        }
        if let Some(temporary) = &self.temporary {
            renameat(&self.directory, temporary, &self.directory, &self.name)?;
        }
        self.temporary = None;
        Ok(true)
    }

    fn link(&self, name: &str) -> Result<(), Errno> {
        let fd_path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, fd_path, &self.directory, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Ignore an error: if the file remains, it is removed when its directory is listed.
            let _ = unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

/// Checks that a file may be written at its destination. `existing` is the entry that is there now.
fn check_target(existing: Option<&Stat>, precondition: &Precondition, on_link: OnLink) -> Result<(), Error> {
    match existing.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Some(FileType::Directory) => return Err(Error::NotAFile),
        Some(FileType::Symlink) if on_link == OnLink::Refuse => return Err(Error::Symlink),
        _ => {}
    }
    let current = existing.filter(|stat| is_regular(stat)).map(etag);
    if precondition.holds(current.as_deref()) { Ok(()) } else { Err(Error::Precondition) }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Locks a directory against the server's other writers. Programs in the sandbox are not affected.
pub(super) fn lock(directory: &OwnedFd) -> Result<MutexGuard<'static, ()>, Error> {
    let stat = fstat(directory)?;
    let index = usize::try_from(stat.st_ino % LOCKS as u64).unwrap_or(0);
    let mutex = DIRECTORY_LOCKS.get(index).ok_or(Error::NotFound)?;
    Ok(mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Returns the metadata of an entry, or `None` if the entry does not exist. Does not follow symbolic links.
pub(super) fn stat_entry(directory: &OwnedFd, name: &str) -> Result<Option<Stat>, Error> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_directory(directory: &OwnedFd, name: &str) -> Result<bool, Error> {
    let existing = stat_entry(directory, name)?;
    Ok(existing.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

/// Creates an unnamed file or, if the file system does not support unnamed files, a file with an unpredictable name.
/// Returns the file and its name, if it has one.
pub(super) fn open_temporary(directory: &OwnedFd) -> Result<(File, Option<String>), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, FILE_MODE) {
        Ok(fd) => {
            try_lock(&fd)?;
            return Ok((File::from(fd), None));
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    open_named(directory)
}

fn open_named(directory: &OwnedFd) -> Result<(File, Option<String>), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    for _ in 0..MAX_CREATE_ATTEMPTS {
        let name = temporary_name()?;
        let fd = openat(directory, &name, flags, FILE_MODE)?;
        // Check that the file still exists: before it was locked, a concurrent listing may have removed it as stale.
        if try_lock(&fd)? && fstat(&fd)?.st_nlink > 0 {
            return Ok((File::from(fd), Some(name)));
        }
    }
    Err(Error::Busy)
}

/// Tries to lock a temporary file for its writer, without blocking. Returns `false` if the file is already locked.
/// Returns `true` on file systems that do not support locks, where files are never treated as stale.
fn try_lock(file: &OwnedFd) -> Result<bool, Error> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK | Errno::INVAL) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn from_io(error: std::io::Error) -> Error {
    Errno::from_io_error(&error).map_or(Error::Io(error), Error::from)
}

const TEMPORARY_PREFIX: &str = ".herm-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Returns a random name for a temporary file. Programs in the sandbox cannot predict the name.
pub(crate) fn temporary_name() -> Result<String, Error> {
    let mut random = [0u8; 16];
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(format!("{TEMPORARY_PREFIX}{:032x}{TEMPORARY_SUFFIX}", u128::from_le_bytes(random)))
}

/// Removes an entry if it is a stale temporary file: one that was left over from a crash and that no writer has locked.
/// Returns `false` if the entry is not such a file and was left unchanged.
pub(super) fn remove_if_stale(directory: &OwnedFd, name: &str) -> bool {
    let random = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    if !random.is_some_and(|random| random.len() == 32 && random.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return false;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(fd) = openat(directory, name, flags, Mode::empty()) else { return false };
    fstat(&fd).is_ok_and(|stat| is_regular(&stat))
        && flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()
        && unlinkat(directory, name, AtFlags::empty()).is_ok()
}

/// Tests of the fallback for file systems that do not support unnamed files. Other tests do not reach the fallback,
/// because they run on file systems that support unnamed files.
#[cfg(test)]
mod tests {
    use super::*;

    fn names(workspace: &Workspace) -> Vec<String> {
        let entries = workspace.list(&WorkspacePath::parse("").unwrap()).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_named_temporary_file_is_kept_while_it_is_written_and_removed_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(&dir.path().join("workspace")).unwrap();
        let begin = || {
            let directory = workspace.create_directories(&WorkspacePath::parse("").unwrap()).unwrap();
            let (file, temporary) = open_named(&directory).unwrap();
            Pending { directory, name: "file".to_owned(), file, temporary, size: 0, limit: 9 }
        };
        let mut pending = begin();
        pending.write(b"half").unwrap();
        assert_eq!(names(&workspace), [pending.temporary.clone().unwrap()]);
        drop(pending);
        assert!(names(&workspace).is_empty());
        for bytes in [b"one", b"two"] {
            let mut pending = begin();
            pending.write(bytes).unwrap();
            pending.commit(&Precondition::default(), OnLink::Refuse).unwrap();
            assert_eq!(names(&workspace), ["file"]);
            assert_eq!(workspace.read(&WorkspacePath::parse("file").unwrap(), 9).unwrap(), bytes);
        }
        let refused = Precondition { if_none_match: Some(herm_types::file::EntityTags::Any), if_match: None };
        assert!(matches!(begin().commit(&refused, OnLink::Refuse), Err(Error::Precondition)));
        assert_eq!(names(&workspace), ["file"]);
    }
}
