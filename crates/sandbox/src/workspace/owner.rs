//! Whose a workspace's files are. A server that is root gives each sandbox a user of its own, and with it the
//! workspace; what the host writes there later belongs to whoever has the directory.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchown, fstat, openat, statat};
use rustix::io::Errno;

use super::Error;

/// How deep directories are followed: each takes a descriptor while what is in it is looked at.
const MAX_DEPTH: usize = 256;
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Gives what was just made to the owner of the directory that it was made in.
pub(super) fn inherit(directory: impl AsFd, made: impl AsFd) -> Result<(), Error> {
    let (wanted, found) = (fstat(directory)?, fstat(&made)?);
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid) {
        fchown(made, Some(Uid::from_raw(wanted.st_uid)), Some(Gid::from_raw(wanted.st_gid)))?;
    }
    Ok(())
}

/// Gives a workspace to this user, with all that is in it. Nothing may run in its sandbox; the host's own writers may
/// be at work.
pub(crate) fn give_to(dir: &Path, user_id: u32) -> Result<(), Error> {
    let root = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
    if fstat(&root)?.st_uid == user_id {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(user_id), Gid::from_raw(user_id));
    give_entries(&root, uid, gid, 0)?;
    // Last, as it says that all is done. What was written meanwhile is given once more.
    fchown(&root, Some(uid), Some(gid))?;
    give_entries(&root, uid, gid, 0)
}

fn give_entries(directory: &OwnedFd, uid: Uid, gid: Gid, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [c".", c".."].contains(&name) {
            continue;
        }
        match give_entry(directory, name, uid, gid, depth) {
            // It went away, or became something else, while this looked: the host's writers do that.
            Err(Error::NotFound | Error::NotADirectory | Error::Symlink) => {}
            given => given?,
        }
    }
    Ok(())
}

fn give_entry(
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
    give_entries(&below, uid, gid, depth + 1)
}
