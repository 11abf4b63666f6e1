//! Removing: a directory goes whole, and no link on the way leads anywhere else.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat, unlinkat};
use rustix::io::Errno;

use super::{Error, Workspace};

impl Workspace {
    /// Removes the workspace in `dir` with all that is in it. May be done again after it broke off; one that is not
    /// there is removed already.
    pub fn destroy(dir: &Path) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = match rustix::fs::open(dir, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened?,
        };
        empty(root)?;
        match fs::remove_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::Io(error)),
            _ => Ok(()),
        }
    }
}

/// Empties a directory. The directories within are kept on a list of open descriptors rather than on the stack, one
/// for each level, so that depth costs little.
fn empty(root: OwnedFd) -> Result<(), Error> {
    let mut levels = vec![(root, None::<std::ffi::CString>)];
    while let Some((directory, _)) = levels.last() {
        if let Some(name) = remove_files(directory.as_fd())? {
            let below = open_directory(directory.as_fd(), &name)?;
            levels.push((below, Some(name)));
        } else if let (Some((_, Some(name))), Some((parent, _))) = (levels.pop(), levels.last()) {
            ignore_missing(unlinkat(parent, &name, AtFlags::REMOVEDIR))?;
        }
    }
    Ok(())
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // A directory that its owner may not enter is opened up first.
    let _ = rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty());
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// Removes everything but directories; gives the name of one that is there.
fn remove_files(directory: BorrowedFd<'_>) -> Result<Option<std::ffi::CString>, Error> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        ignore_missing(unlinkat(directory, name, AtFlags::empty()))?;
    }
    Ok(None)
}

fn ignore_missing(result: Result<(), Errno>) -> Result<(), Error> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}
