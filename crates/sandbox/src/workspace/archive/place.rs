//! Putting an archive's members into a workspace.
//!
//! An agent's files may be there already, written since the deployment was made, and they stay. What is there with the
//! time that the archive says is of an earlier attempt that broke off, and is written anew.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat, openat2,
    renameat, statat, symlinkat, syncfs, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::member::{Kind, Member, Mtime};
use super::read::{Sink, parents};
use super::write::mtime as modified_at;
use super::{ArchiveError, Error, Workspace};
use crate::workspace::BENEATH;
use crate::workspace::remove::{DIRECTORY, allow};
use crate::workspace::write::{open_temporary, temporary_name};

/// The file that is being written.
struct Open {
    parent: OwnedFd,
    file: File,
    temporary: Option<String>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What failed was told; that the rest is removed is tried.
            let _ = unlinkat(&self.parent, temporary, AtFlags::empty());
        }
    }
}

pub(super) struct Placing<'a> {
    workspace: &'a Workspace,
    open: Option<Open>,
}

impl<'a> Placing<'a> {
    pub(super) fn new(workspace: &'a Workspace) -> Self {
        Self { workspace, open: None }
    }

    /// Waits until all of it is on the disk.
    pub(super) fn sync(self) -> Result<(), ArchiveError> {
        let root = openat2(&self.workspace.root, ".", DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH)?;
        Ok(syncfs(root)?)
    }

    /// The directory that an entry belongs into, and its name there.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), ArchiveError> {
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match at {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (b".".as_slice(), path),
        };
        let open = |path: &[u8]| {
            openat2(&self.workspace.root, path, DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH)
        };
        match open(above) {
            Err(Errno::NOENT | Errno::ACCESS) => {}
            opened => return Ok((opened.map_err(|errno| told(errno, path))?, name)),
        }
        for directory in parents(path) {
            match mkdirat(&self.workspace.root, directory, Mode::RWXU) {
                Ok(()) => continue,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(told(errno, path)),
            }
            // It may be of an earlier attempt, with its last permissions.
            let flags = DIRECTORY | OFlags::PATH;
            let found = openat2(&self.workspace.root, directory, flags, Mode::empty(), BENEATH);
            allow(&found.map_err(|errno| told(errno, path))?)?;
        }
        Ok((open(above).map_err(|errno| told(errno, path))?, name))
    }

    fn add_directory(&self, member: &Member) -> Result<(), ArchiveError> {
        let (parent, name) = self.parent(&member.path)?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(told(errno, &member.path)),
        }
        let found = openat2(&parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH);
        let found = found.map_err(|errno| told(errno, &member.path))?;
        allow(&found)?;
        let directory = rustix::fs::openat(&found, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        futimens(&directory, &times(member.mtime))?;
        Ok(fchmod(&directory, Mode::from_raw_mode(member.mode))?)
    }

    fn add_symlink(&self, member: &Member, target: &[u8]) -> Result<(), ArchiveError> {
        let (parent, name) = self.parent(&member.path)?;
        match symlinkat(target, &parent, name) {
            Ok(()) => Ok(utimensat(&parent, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)?),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(told(errno, &member.path)),
        }
    }

    fn add_hard_link(&self, member: &Member, target: &[u8]) -> Result<(), ArchiveError> {
        let (from, first) = self.parent(target)?;
        let stat = statat(&from, first, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::NotAFile.into());
        }
        let (parent, name) = self.parent(&member.path)?;
        match linkat(&from, first, &parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) if is_ours(&parent, name, member.mtime)? => {
                let temporary = temporary_name()?;
                linkat(&from, first, &parent, &temporary, AtFlags::empty())?;
                renameat(&parent, &temporary, &parent, name)?;
                // Between two names of one file nothing is renamed.
                match unlinkat(&parent, &temporary, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(told(errno, &member.path)),
        }
    }
}

impl Sink for Placing<'_> {
    fn begin_file(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let (parent, _) = self.parent(&member.path)?;
        let (file, temporary) = open_temporary(&parent)?;
        self.open = Some(Open { parent, file, temporary });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        // What is empty takes no room on the disk either.
        if bytes.iter().all(|byte| *byte == 0) {
            open.file.seek(SeekFrom::Current(i64::try_from(bytes.len()).unwrap_or(0)))?;
            return Ok(());
        }
        Ok(open.file.write_all(bytes)?)
    }

    fn end_file(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let name = member.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        open.file.set_len(member.size)?;
        fchmod(&open.file, Mode::from_raw_mode(member.mode))?;
        futimens(&open.file, &times(member.mtime))?;
        let by_number = format!("/proc/self/fd/{}", open.file.as_raw_fd());
        let link =
            |parent: &OwnedFd, name: &[u8]| linkat(CWD, &by_number, parent, name, AtFlags::SYMLINK_FOLLOW);
        match link(&open.parent, name) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) if is_ours(&open.parent, name, member.mtime)? => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(told(errno, &member.path)),
        }
        if open.temporary.is_none() {
            let temporary = temporary_name()?;
            link(&open.parent, temporary.as_bytes())?;
            open.temporary = Some(temporary);
        }
        if let Some(temporary) = &open.temporary {
            renameat(&open.parent, temporary, &open.parent, name)?;
        }
        open.temporary = None;
        Ok(())
    }

    fn add(&mut self, member: &Member) -> Result<(), ArchiveError> {
        match (member.kind, &member.target) {
            (Kind::Symlink, Some(target)) => self.add_symlink(member, target),
            (Kind::HardLink, Some(target)) => self.add_hard_link(member, target),
            _ => self.add_directory(member),
        }
    }
}

/// Whether what stands in a name is a file of an earlier attempt.
fn is_ours(parent: &OwnedFd, name: &[u8], mtime: Mtime) -> Result<bool, Errno> {
    let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_file && modified_at(&stat) == mtime)
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// What stands in the way is named.
fn told(errno: Errno, path: &[u8]) -> ArchiveError {
    match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::ISDIR => {
            ArchiveError::InTheWay(String::from_utf8_lossy(path).into_owned())
        }
        errno => errno.into(),
    }
}
