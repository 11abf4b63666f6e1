//! Removing: a directory goes whole, and no link on the way leads anywhere else.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use herm_types::file::Precondition;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fsync, openat2, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::write::{lock, look, temporary_name};
use super::{BENEATH, Error, Workspace, WorkspacePath, etag};

/// How often a directory is looked into until it is empty: once for each level of what is in it, or for ever while
/// somebody goes on to write into it.
const MAX_LOOKS: usize = 100_000;
/// How often a directory that was empty may be filled again before it is removed.
const MAX_REFILLS: usize = 16;

impl Workspace {
    /// Removes a file, or a directory with all that is in it, if the precondition holds for it; waits until that is on
    /// the disk. A directory that breaks off on the way can be removed again. A symbolic link is refused.
    pub fn remove(&self, path: &WorkspacePath, precondition: &Precondition) -> Result<(), Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        let parent = self.open_beneath(&parent, DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        {
            let _place = lock(&parent)?;
            let stat = look(&parent, name)?.ok_or(Error::NotFound)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind == FileType::Symlink {
                return Err(Error::Symlink);
            }
            let tag = if kind == FileType::RegularFile { etag(&stat) } else { String::new() };
            if !precondition.holds(Some(&tag)) {
                return Err(Error::Precondition);
            }
            if kind != FileType::Directory {
                unlinkat(&parent, name, AtFlags::empty())?;
                return Ok(fsync(&parent)?);
            }
        }
        remove_directory(&parent, name)?;
        Ok(fsync(&parent)?)
    }

    /// Removes the workspace in `dir` with all that is in it. May be done again after it broke off, and twice at the
    /// same time; one that is not there is removed already.
    pub fn destroy(dir: &Path) -> Result<(), Error> {
        for _ in 0..MAX_LOOKS {
            match rustix::fs::open(dir, DIRECTORY | OFlags::PATH, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                opened => match entered(&opened?) {
                    Err(Errno::NOENT) => return Ok(()),
                    root => empty(&root?)?,
                },
            }
            match fs::remove_dir(dir) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                // Somebody else moves directories up at the same time.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
        Err(Error::Busy)
    }
}

fn remove_directory(parent: &OwnedFd, name: &str) -> Result<(), Error> {
    // What was filled once it was empty is emptied again, but not for ever.
    for _ in 0..MAX_REFILLS {
        match openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH) {
            Err(Errno::NOENT) => return Ok(()),
            opened => match entered(&opened?) {
                Err(Errno::NOENT) => return Ok(()),
                directory => empty(&directory?)?,
            },
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Somebody put something into it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Error::Busy)
}

pub(super) const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Empties a directory. A directory within is never gone down into: what it holds is moved up beside it, so that
/// no depth costs anything, neither stack nor descriptors.
fn empty(root: &OwnedFd) -> Result<(), Error> {
    for _ in 0..MAX_LOOKS {
        let mut is_empty = true;
        for entry in Dir::read_from(root)? {
            let entry = entry?;
            if !is_dots(entry.file_name()) {
                is_empty = false;
                remove(root, entry.file_name(), entry.file_type())?;
            }
        }
        if is_empty {
            return Ok(());
        }
    }
    Err(Error::Busy)
}

/// Removes an entry of the root; of a directory the files within, while the directories within become entries.
fn remove(root: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Error> {
    if unlinked(root, name, kind)? {
        return Ok(());
    }
    let Some(found) = find_directory(root, name)? else { return Ok(()) };
    let within = match entered(&found) {
        Err(Errno::NOENT) => return Ok(()),
        within => within?,
    };
    for entry in Dir::read_from(&within)? {
        let entry = entry?;
        if is_dots(entry.file_name()) || unlinked(&within, entry.file_name(), entry.file_type())? {
            continue;
        }
        move_up(&within, entry.file_name(), root)?;
    }
    match unlinkat(root, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves a directory up. One without rights of its own cannot be moved by all servers, so it is given them first.
fn move_up(from: &OwnedFd, name: &CStr, root: &OwnedFd) -> Result<(), Error> {
    let Some(found) = find_directory(from, name)? else { return Ok(()) };
    allow(&found)?;
    let fresh = CString::new(temporary_name()?).map_err(|error| Error::Io(error.into()))?;
    match renameat(from, name, root, fresh) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A directory that a listing has named; `None` if it went away or is something else by now: the next look tells.
fn find_directory(parent: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Error> {
    loop {
        match openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH) {
            Ok(found) => return Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Somebody else moved it up while the kernel looked; a mount would still be there.
            Err(Errno::XDEV)
                if matches!(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) =>
            {
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the entry is gone; `false` for a directory.
fn unlinked(directory: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool, Error> {
    if kind == FileType::Directory {
        return Ok(false);
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Not every file system says in its listing what is a directory.
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory that was found for reading.
pub(super) fn entered(found: &OwnedFd) -> Result<OwnedFd, Errno> {
    allow(found)?;
    rustix::fs::openat(found, c".", DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Gives the owner the right to a directory that was found: to this one, whatever has its name by now.
pub(super) fn allow(found: &OwnedFd) -> Result<(), Errno> {
    let is_allowed = Mode::from_raw_mode(fstat(found)?.st_mode).contains(Mode::RWXU);
    if !is_allowed {
        rustix::fs::chmod(format!("/proc/self/fd/{}", found.as_raw_fd()), Mode::RWXU)?;
    }
    Ok(())
}

pub(super) fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}
