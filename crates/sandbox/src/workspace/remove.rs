//! Removes files and whole directories without following symbolic links.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use herm_types::file::Precondition;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, fsync, openat2, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::write::{lock, stat_entry, temporary_name};
use super::{BENEATH, Error, Workspace, WorkspacePath, etag};

/// The maximum number of passes over a directory to empty it. If it is not empty after that, its removal fails. Each
/// level of nesting needs one pass, and concurrent writes can cause any number of additional passes.
const MAX_PASSES: usize = 100_000;
/// The maximum number of attempts to empty and remove a directory. An attempt fails if a file is created in the
/// directory after it was emptied. If all attempts fail, the removal fails.
const MAX_REFILLS: usize = 16;

impl Workspace {
    /// Removes a file, or a directory with all its content, if the precondition holds. Returns after the removal has
    /// been synced to disk. If the removal of a directory fails halfway, it can be repeated. Symbolic links are
    /// rejected.
    pub fn remove(&self, path: &WorkspacePath, precondition: &Precondition) -> Result<(), Error> {
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        let parent = self.open_beneath(&parent, DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        {
            let _guard = lock(&parent)?;
            let stat = stat_entry(&parent, name)?.ok_or(Error::NotFound)?;
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

    /// Removes the workspace in `dir` with all its content. Can be repeated after a failure, and may be called
    /// concurrently for the same workspace. Succeeds if the workspace does not exist.
    pub fn destroy(dir: &Path) -> Result<(), Error> {
        for _ in 0..MAX_PASSES {
            match rustix::fs::open(dir, DIRECTORY | OFlags::PATH, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(()),
                opened => match open_for_reading(&opened?) {
                    Err(Errno::NOENT) => return Ok(()),
                    root => remove_all_entries(&root?)?,
                },
            }
            match fs::remove_dir(dir) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                // A concurrent call to this function has moved subdirectories into `dir`. Empty `dir` again.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                Err(error) => return Err(Error::Io(error)),
            }
        }
        Err(Error::Busy)
    }
}

fn remove_directory(parent: &OwnedFd, name: &str) -> Result<(), Error> {
    // Retry, because entries may be created in the directory after it was emptied. The number of attempts is limited,
    // because the agent could create entries forever.
    for _ in 0..MAX_REFILLS {
        match openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH) {
            Err(Errno::NOENT) => return Ok(()),
            opened => match open_for_reading(&opened?) {
                Err(Errno::NOENT) => return Ok(()),
                directory => remove_all_entries(&directory?)?,
            },
        }
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // An entry was created in the directory after it was emptied. Empty it again.
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Error::Busy)
}

pub(super) const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes all entries of the directory `root`. Instead of recursing, moves nested directories up into `root`, so that
/// neither the stack nor the number of open file descriptors grows with the depth.
fn remove_all_entries(root: &OwnedFd) -> Result<(), Error> {
    for _ in 0..MAX_PASSES {
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

/// Removes an entry of `root`. If the entry is a directory, its files are deleted and its subdirectories are moved into
/// `root`.
fn remove(root: &OwnedFd, name: &CStr, kind: FileType) -> Result<(), Error> {
    if unlink_non_directory(root, name, kind)? {
        return Ok(());
    }
    let Some(directory_fd) = find_directory(root, name)? else { return Ok(()) };
    let directory = match open_for_reading(&directory_fd) {
        Err(Errno::NOENT) => return Ok(()),
        directory => directory?,
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if is_dots(entry.file_name())
            || unlink_non_directory(&directory, entry.file_name(), entry.file_type())?
        {
            continue;
        }
        move_up(&directory, entry.file_name(), root)?;
    }
    match unlinkat(root, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves a directory into `root`. First gives the directory's owner full access to it: unless the server runs as root,
/// a directory without write permission cannot be moved.
fn move_up(from: &OwnedFd, name: &CStr, root: &OwnedFd) -> Result<(), Error> {
    let Some(directory_fd) = find_directory(from, name)? else { return Ok(()) };
    grant_owner_access(&directory_fd)?;
    let new_name = CString::new(temporary_name()?).map_err(|error| Error::Io(error.into()))?;
    match renameat(from, name, root, new_name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory that was found in a listing. Returns `None` if it has since been deleted or replaced. The next
/// pass then handles the entry, if it still exists.
fn find_directory(parent: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Error> {
    loop {
        match openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH) {
            Ok(directory_fd) => return Ok(Some(directory_fd)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The directory no longer exists: a concurrent call moved it while the kernel resolved the path. A mount
            // point also causes `EXDEV`, but it would still exist.
            Err(Errno::XDEV)
                if matches!(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT)) =>
            {
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Deletes an entry unless it is a directory. Returns `false` for a directory, which is left unchanged.
fn unlink_non_directory(directory: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool, Error> {
    if kind == FileType::Directory {
        return Ok(false);
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // The entry is a directory after all: some file systems do not report entry types in listings.
        Err(Errno::ISDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory for reading, given its `O_PATH` descriptor. The directory's name is not resolved again.
pub(super) fn open_for_reading(directory_fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    grant_owner_access(directory_fd)?;
    rustix::fs::openat(directory_fd, c".", DIRECTORY | OFlags::RDONLY, Mode::empty())
}

/// Gives a directory's owner full access to the directory. Uses its descriptor, because its name may refer to another
/// entry by now.
pub(super) fn grant_owner_access(directory_fd: &OwnedFd) -> Result<(), Errno> {
    let is_allowed = Mode::from_raw_mode(fstat(directory_fd)?.st_mode).contains(Mode::RWXU);
    if !is_allowed {
        rustix::fs::chmod(format!("/proc/self/fd/{}", directory_fd.as_raw_fd()), Mode::RWXU)?;
    }
    Ok(())
}

pub(super) fn is_dots(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}
