//! How much a workspace holds.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat2, statat};
use rustix::io::Errno;

use super::remove::{DIRECTORY, is_dots};
use super::{BENEATH, Error};

/// Entries that are counted at most; a workspace with more is as good as full.
const MAX_ENTRIES: u64 = 1_000_000;
/// How deep directories are followed: each takes a descriptor while what is in it is looked at.
const MAX_DEPTH: usize = 256;
/// Of the blocks in which the kernel counts what a file takes on the disk, whatever the file system's own.
const BLOCK_BYTES: u64 = 512;

/// The bytes that everything in the workspace in `dir` takes on the disk: holes take none, and what has several names
/// counts once. Links are not followed. What its owner may not look into is not counted, as it cannot be seen. One that
/// is not there holds nothing.
///
/// # Errors
/// [`Error::TooMuch`]: it has so many entries, or so deep ones, that it is not measured to its end.
pub fn usage(dir: &Path) -> Result<u64, Error> {
    let root = match rustix::fs::open(dir, DIRECTORY | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        root => root?,
    };
    let mut counter = Counter { bytes: 0, entries: 0, linked: HashSet::new() };
    counter.add_entries(&root, 0)?;
    Ok(counter.bytes)
}

/// What a file of which this is the only name takes on the disk, and gives back when it goes.
pub(super) fn freed(stat: &Stat) -> u64 {
    let is_only = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    if is_only { on_disk(stat) } else { 0 }
}

fn on_disk(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES)
}

struct Counter {
    bytes: u64,
    entries: u64,
    /// Files with several names that were counted, by device and inode.
    linked: HashSet<(u64, u64)>,
}

impl Counter {
    fn add_entries(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooMuch);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::TooMuch);
            }
            let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It went away while the directory was read.
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory || stat.st_nlink < 2 || self.linked.insert((stat.st_dev, stat.st_ino)) {
                self.bytes = self.bytes.saturating_add(on_disk(&stat));
            }
            if is_directory {
                match openat2(directory, name, DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH) {
                    Ok(below) => self.add_entries(&below, depth + 1)?,
                    // It is closed, or became something else.
                    Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }
}
