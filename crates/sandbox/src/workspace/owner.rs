//! Changes the owner of a workspace's files. A server that runs as root assigns a separate user to each workspace, and
//! this user owns the workspace's files. A file that the server creates later gets the same owner as its parent
//! directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, openat, statat};
use rustix::io::Errno;

use super::Error;

/// The maximum depth of nested directories. It is limited because each level needs an open file descriptor. Changing
/// the owner of a deeper workspace fails.
pub(super) const MAX_DEPTH: usize = 256;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives a newly created file or directory the same owner as its parent directory.
pub(super) fn inherit_owner(directory: impl AsFd, new: impl AsFd) -> Result<(), Error> {
    let (expected, actual) = (fstat(directory)?, fstat(&new)?);
    if (expected.st_uid, expected.st_gid) != (actual.st_uid, actual.st_gid) {
        fchown(new, Some(Uid::from_raw(expected.st_uid)), Some(Gid::from_raw(expected.st_gid)))?;
    }
    Ok(())
}

/// Makes a user the owner of a workspace and everything in it. The workspace's sandbox must not be running. The server
/// may write to the workspace at the same time.
pub(crate) fn change_owner(dir: &Path, user_id: u32) -> Result<(), Error> {
    let root = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
    if fstat(&root)?.st_uid == user_id {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user_id), Gid::from_raw(user_id));
    change_owner_of_entries(&root, uid, gid, 0)?;
    // Change the owner of the workspace directory after its entries, because a later call takes the directory's owner
    // as the sign that the change is complete. Then change the entries again, to include those that the server created
    // during the first pass.
    fchown(&root, Some(uid), Some(gid))?;
    change_owner_of_entries(&root, uid, gid, 0)
}

fn change_owner_of_entries(directory: &OwnedFd, uid: Uid, gid: Gid, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        match change_owner_of_entry(directory, name, uid, gid, depth) {
            // Skip the entry: the server deleted or replaced it concurrently.
            Err(Error::NotFound | Error::NotADirectory | Error::Symlink) => {}
            result => result?,
        }
    }
    Ok(())
}

fn change_owner_of_entry(
    directory: &OwnedFd,
    name: &std::ffi::CStr,
    uid: Uid,
    gid: Gid,
    depth: usize,
) -> Result<(), Error> {
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    let below = loop {
        match openat(directory, name, DIRECTORY, Mode::empty()) {
            Err(Errno::INTR) => {}
            opened => break opened?,
        }
    };
    change_owner_of_entries(&below, uid, gid, depth + 1)
}
