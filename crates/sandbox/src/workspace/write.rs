//! Writing: a file is there as it was or as it shall be, never in between.
//!
//! The bytes go into a file beside the destination that has no name (`O_TMPFILE`), so that one that is given up, also by
//! the end of this process, leaves nothing. A name it gets only to take another file's place, for the moment between two
//! system calls; where the file system knows no files without a name, from its beginning. It is locked for as long as
//! somebody writes it, so that what a crash left is known by its lock's absence, and goes when its directory is listed.

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
/// What a file keeps when it is replaced: nobody is made another user by it.
const PERMISSIONS: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);
/// Names that are tried for a file that is locked by somebody else as soon as it has one.
const MAX_NAMES: usize = 8;
/// Locks that writes to all directories share: so many that two seldom meet.
const LOCKS: usize = 64;

/// What stands in a name may change between the look at it and the change of it. The host's own writers wait for each
/// other, so that of two with the same precondition one fails; what is inside the sandbox nobody can hold up.
static PLACES: [Mutex<()>; LOCKS] = [const { Mutex::new(()) }; LOCKS];

/// What becomes of a symbolic link in the place that a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLink {
    /// The link is replaced, and what it leads to stays as it is.
    Replace,
    /// It is an error.
    Refuse,
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub size: u64,
    pub modified_at: Timestamp,
    pub etag: String,
}

/// A file that is being written, and is not yet in its place. Dropped, it is gone.
#[derive(Debug)]
pub struct Pending {
    directory: OwnedFd,
    name: String,
    file: File,
    /// Its name while it has one of its own.
    temporary: Option<String>,
    size: u64,
    limit: u64,
}

impl Workspace {
    /// Replaces a file, or makes it, with its missing directories, and waits until it is on the disk. A symbolic
    /// link in its place is itself replaced. A file that was there keeps its permissions, so that a program stays
    /// one; who has it open or linked elsewhere keeps the old bytes.
    pub fn write_atomic(&self, path: &WorkspacePath, bytes: &[u8], limit: u64) -> Result<(), Error> {
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        let mut pending = self.begin_write(path, limit)?;
        pending.write(bytes)?;
        pending.commit(&Precondition::default(), OnLink::Replace).map(|_| ())
    }

    /// Begins to write a file of at most `limit` bytes, piece by piece; its missing directories are made.
    pub fn begin_write(&self, path: &WorkspacePath, limit: u64) -> Result<Pending, Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        let directory = self.make_directories(&parent)?;
        if is_directory(&directory, name)? {
            return Err(Error::NotAFile);
        }
        let (file, temporary) = open_temporary(&directory)?;
        owner::inherit(&directory, &file)?;
        Ok(Pending { directory, name: name.to_owned(), file, temporary, size: 0, limit })
    }

    /// Whether a file could be written now, with this precondition and without replacing a link.
    pub fn check_write(&self, path: &WorkspacePath, precondition: &Precondition) -> Result<(), Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        match self.open_beneath(&parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(directory) => check(look(&directory, name)?.as_ref(), precondition, OnLink::Refuse),
            Err(Errno::NOENT) => check(None, precondition, OnLink::Refuse),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a directory; it and those above it are made where they are missing.
    fn make_directories(&self, path: &WorkspacePath) -> Result<OwnedFd, Error> {
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
                    let made =
                        openat(&parent, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
                    // One that was swapped for something else meanwhile is somebody's already.
                    if let Ok(made) = made {
                        owner::inherit(&parent, &made)?;
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
    /// Adds bytes at the end.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let size = self.size.saturating_add(bytes.len() as u64);
        if size > self.limit {
            return Err(Error::TooLarge { limit: self.limit });
        }
        self.file.write_all(bytes).map_err(from_io)?;
        self.size = size;
        Ok(())
    }

    /// Puts the file into its place, if the precondition holds there, and waits until it is on the disk.
    pub fn commit(mut self, precondition: &Precondition, on_link: OnLink) -> Result<Written, Error> {
        self.file.sync_all().map_err(from_io)?;
        {
            let _place = lock(&self.directory)?;
            // A file that appears between the look and the making is looked at again.
            while !self.put(precondition, on_link)? {}
        }
        fsync(&self.directory)?;
        let stat = fstat(&self.file)?;
        Ok(Written { size: self.size, modified_at: modified_at(&stat), etag: etag(&stat) })
    }

    /// One attempt; `false` if what stands in the place changed meanwhile.
    fn put(&mut self, precondition: &Precondition, on_link: OnLink) -> Result<bool, Error> {
        let there = look(&self.directory, &self.name)?;
        check(there.as_ref(), precondition, on_link)?;
        if let Some(stat) = there.filter(is_regular) {
            fchmod(&self.file, Mode::from_raw_mode(stat.st_mode) & PERMISSIONS)?;
        }
        if self.temporary.is_none() {
            if there.is_none() {
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
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, open, &self.directory, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What failed was told; that the rest is removed is tried.
            let _ = unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

/// Whether a file may be written where `there` stands.
fn check(there: Option<&Stat>, precondition: &Precondition, on_link: OnLink) -> Result<(), Error> {
    match there.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Some(FileType::Directory) => return Err(Error::NotAFile),
        Some(FileType::Symlink) if on_link == OnLink::Refuse => return Err(Error::Symlink),
        _ => {}
    }
    let current = there.filter(|stat| is_regular(stat)).map(etag);
    if precondition.holds(current.as_deref()) { Ok(()) } else { Err(Error::Precondition) }
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Keeps the host's other writers from changing what stands in a directory.
pub(super) fn lock(directory: &OwnedFd) -> Result<MutexGuard<'static, ()>, Error> {
    let stat = fstat(directory)?;
    let index = usize::try_from(stat.st_ino % LOCKS as u64).unwrap_or(0);
    let place = PLACES.get(index).ok_or(Error::NotFound)?;
    Ok(place.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What stands in a name; `None`: nothing.
pub(super) fn look(directory: &OwnedFd, name: &str) -> Result<Option<Stat>, Error> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn is_directory(directory: &OwnedFd, name: &str) -> Result<bool, Error> {
    let there = look(directory, name)?;
    Ok(there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

/// A file without a name, or, where there is no such thing, one with a name that nobody inside can foresee.
pub(super) fn open_temporary(directory: &OwnedFd) -> Result<(File, Option<String>), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, FILE_MODE) {
        Ok(fd) => {
            is_locked(&fd)?;
            return Ok((File::from(fd), None));
        }
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    open_named(directory)
}

fn open_named(directory: &OwnedFd) -> Result<(File, Option<String>), Error> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    for _ in 0..MAX_NAMES {
        let name = temporary_name()?;
        let fd = openat(directory, &name, flags, FILE_MODE)?;
        // Who lists the directory may have taken it for left over before it was locked.
        if is_locked(&fd)? && fstat(&fd)?.st_nlink > 0 {
            return Ok((File::from(fd), Some(name)));
        }
    }
    Err(Error::Busy)
}

/// Locks a file for its writer; `false` if somebody else has. Where files cannot be locked, none is taken for left over.
fn is_locked(file: &OwnedFd) -> Result<bool, Error> {
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

/// A name that nobody inside can foresee.
pub(crate) fn temporary_name() -> Result<String, Error> {
    let mut random = [0u8; 16];
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(format!("{TEMPORARY_PREFIX}{:032x}{TEMPORARY_SUFFIX}", u128::from_le_bytes(random)))
}

/// Removes what a crash left of a write: a file with a name of ours that nobody has locked. `false`: it is none.
pub(super) fn remove_left_over(directory: &OwnedFd, name: &str) -> bool {
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

/// The way for file systems that know no files without a name; those that the tests run on do.
#[cfg(test)]
mod tests {
    use super::*;

    fn names(workspace: &Workspace) -> Vec<String> {
        let entries = workspace.list(&WorkspacePath::parse("").unwrap()).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_file_with_a_name_of_its_own_stays_while_it_is_written_and_goes_when_it_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(&dir.path().join("workspace")).unwrap();
        let begin = || {
            let directory = workspace.make_directories(&WorkspacePath::parse("").unwrap()).unwrap();
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
