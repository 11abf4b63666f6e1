//! Writing: a file is there as it was or as it shall be, never in between.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fsync, mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Error, Workspace, WorkspacePath};

const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// What a file keeps when it is replaced: nobody is made another user by it.
const PERMISSIONS: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

impl Workspace {
    /// Replaces a file, or makes it, with its missing directories, and waits until it is on the disk. A symbolic
    /// link in its place is itself replaced. A file that was there keeps its permissions, so that a program stays
    /// one; who has it open or linked elsewhere keeps the old bytes.
    pub fn write_atomic(&self, path: &WorkspacePath, bytes: &[u8], limit: u64) -> Result<(), Error> {
        if bytes.len() as u64 > limit {
            return Err(Error::TooLarge { limit });
        }
        let (parent, name) = path.split().ok_or(Error::IsRoot)?;
        let directory = self.make_directories(&parent)?;
        let mode = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => return Err(Error::NotAFile),
                FileType::RegularFile => Some(Mode::from_raw_mode(stat.st_mode) & PERMISSIONS),
                _ => None,
            },
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let temporary = temporary_name()?;
        let written = write_whole(directory.as_fd(), &temporary, bytes, mode)
            .and_then(|()| Ok(renameat(&directory, &temporary, &directory, name)?));
        if let Err(error) = written {
            // What failed was told; that the rest is removed is tried.
            let _ = unlinkat(&directory, &temporary, AtFlags::empty());
            return Err(error);
        }
        Ok(fsync(&directory)?)
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
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.open_beneath(path, flags, Mode::empty())?)
    }
}

fn write_whole(directory: BorrowedFd<'_>, name: &str, bytes: &[u8], mode: Option<Mode>) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, FILE_MODE)?);
    if let Some(mode) = mode {
        fchmod(&file, mode)?;
    }
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.map_err(|error| Errno::from_io_error(&error).map_or(Error::Io(error), Error::from))
}

/// A name that nobody inside can foresee.
pub(super) fn temporary_name() -> Result<String, Error> {
    let mut random = [0u8; 16];
    getrandom(&mut random, GetRandomFlags::empty())?;
    Ok(format!(".herm-{:032x}.tmp", u128::from_le_bytes(random)))
}
