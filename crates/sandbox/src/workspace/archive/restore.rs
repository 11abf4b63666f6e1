//! Restores the members of an archive into a workspace.
//!
//! The workspace may already contain files that were written since the deployment was created. These files are
//! preserved. The exception is a file that has the same path and modification time as a file in the archive: it is
//! assumed to be left over from an interrupted restore, and is replaced.

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
use crate::workspace::remove::{DIRECTORY, grant_owner_access};
use crate::workspace::write::{open_temporary, temporary_name};

/// A file that is being restored and does not have its final name yet.
struct PartialFile {
    parent: OwnedFd,
    file: File,
    temporary: Option<String>,
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Ignore an error: if the file remains, the server removes it the next time it lists the directory.
            let _ = unlinkat(&self.parent, temporary, AtFlags::empty());
        }
    }
}

/// A sink that writes the members of an archive to a workspace.
pub(super) struct Restorer<'a> {
    workspace: &'a Workspace,
    partial_file: Option<PartialFile>,
}

impl<'a> Restorer<'a> {
    pub(super) fn new(workspace: &'a Workspace) -> Self {
        Self { workspace, partial_file: None }
    }

    /// Syncs all restored files to disk.
    pub(super) fn sync(self) -> Result<(), ArchiveError> {
        let root = openat2(&self.workspace.root, ".", DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH)?;
        Ok(syncfs(root)?)
    }

    /// Opens the directory that contains an entry, and creates missing directories. Returns the directory and the
    /// entry's name.
    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), ArchiveError> {
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (parent_path, name) = match at {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (b".".as_slice(), path),
        };
        let open_dir = |path: &[u8]| {
            openat2(&self.workspace.root, path, DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH)
        };
        match open_dir(parent_path) {
            Err(Errno::NOENT | Errno::ACCESS) => {}
            opened => return Ok((opened.map_err(|errno| conflict_or_error(errno, path))?, name)),
        }
        for directory in parents(path) {
            match mkdirat(&self.workspace.root, directory, Mode::RWXU) {
                Ok(()) => continue,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(conflict_or_error(errno, path)),
            }
            // Give the owner access: an interrupted restore may already have set the directory's final permissions,
            // which may deny the owner access.
            let flags = DIRECTORY | OFlags::PATH;
            let directory_fd = openat2(&self.workspace.root, directory, flags, Mode::empty(), BENEATH);
            grant_owner_access(&directory_fd.map_err(|errno| conflict_or_error(errno, path))?)?;
        }
        Ok((open_dir(parent_path).map_err(|errno| conflict_or_error(errno, path))?, name))
    }

    fn add_directory(&self, member: &Member) -> Result<(), ArchiveError> {
        let (parent, name) = self.parent(&member.path)?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(conflict_or_error(errno, &member.path)),
        }
        let directory_fd = openat2(&parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH);
        let directory_fd = directory_fd.map_err(|errno| conflict_or_error(errno, &member.path))?;
        grant_owner_access(&directory_fd)?;
        let directory = rustix::fs::openat(&directory_fd, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        futimens(&directory, &times(member.mtime))?;
        Ok(fchmod(&directory, Mode::from_raw_mode(member.mode))?)
    }

    fn add_symlink(&self, member: &Member, target: &[u8]) -> Result<(), ArchiveError> {
        let (parent, name) = self.parent(&member.path)?;
        match symlinkat(target, &parent, name) {
            Ok(()) => Ok(utimensat(&parent, name, &times(member.mtime), AtFlags::SYMLINK_NOFOLLOW)?),
            Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(conflict_or_error(errno, &member.path)),
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
            Err(Errno::EXIST) if is_from_earlier_restore(&parent, name, member.mtime)? => {
                let temporary = temporary_name()?;
                linkat(&from, first, &parent, &temporary, AtFlags::empty())?;
                renameat(&parent, &temporary, &parent, name)?;
                // Remove the temporary name. It still exists if `name` already referred to the same file, because
                // `rename` then does nothing.
                match unlinkat(&parent, &temporary, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            }
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(conflict_or_error(errno, &member.path)),
        }
    }
}

impl Sink for Restorer<'_> {
    fn begin_file(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let (parent, _) = self.parent(&member.path)?;
        let (file, temporary) = open_temporary(&parent)?;
        self.partial_file = Some(PartialFile { parent, file, temporary });
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let Some(partial_file) = &mut self.partial_file else { return Ok(()) };
        // Seek past zeros instead of writing them. This leaves a hole in the file, which uses no space on disk.
        if bytes.iter().all(|byte| *byte == 0) {
            partial_file.file.seek(SeekFrom::Current(i64::try_from(bytes.len()).unwrap_or(0)))?;
            return Ok(());
        }
        Ok(partial_file.file.write_all(bytes)?)
    }

    fn end_file(&mut self, member: &Member) -> Result<(), ArchiveError> {
        let Some(mut partial_file) = self.partial_file.take() else { return Ok(()) };
        let name = member.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        partial_file.file.set_len(member.size)?;
        fchmod(&partial_file.file, Mode::from_raw_mode(member.mode))?;
        futimens(&partial_file.file, &times(member.mtime))?;
        let fd_path = format!("/proc/self/fd/{}", partial_file.file.as_raw_fd());
        let link =
            |parent: &OwnedFd, name: &[u8]| linkat(CWD, &fd_path, parent, name, AtFlags::SYMLINK_FOLLOW);
        match link(&partial_file.parent, name) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) if is_from_earlier_restore(&partial_file.parent, name, member.mtime)? => {}
            Err(Errno::EXIST) => return Ok(()),
            Err(errno) => return Err(conflict_or_error(errno, &member.path)),
        }
        if partial_file.temporary.is_none() {
            let temporary = temporary_name()?;
            link(&partial_file.parent, temporary.as_bytes())?;
            partial_file.temporary = Some(temporary);
        }
        if let Some(temporary) = &partial_file.temporary {
            renameat(&partial_file.parent, temporary, &partial_file.parent, name)?;
        }
        partial_file.temporary = None;
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

/// Returns true if the entry is a file that an interrupted restore of this archive left behind.
fn is_from_earlier_restore(parent: &OwnedFd, name: &[u8], mtime: Mtime) -> Result<bool, Errno> {
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

/// Converts an OS error code to an error. Returns a path conflict if the cause is an existing entry of another type.
fn conflict_or_error(errno: Errno, path: &[u8]) -> ArchiveError {
    match errno {
        Errno::NOTDIR | Errno::LOOP | Errno::ISDIR => {
            ArchiveError::PathConflict(String::from_utf8_lossy(path).into_owned())
        }
        errno => errno.into(),
    }
}
