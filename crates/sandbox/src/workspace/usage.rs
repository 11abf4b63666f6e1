//! Measures the disk usage of a workspace.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat2, statat};
use rustix::io::Errno;

use super::remove::{DIRECTORY, is_dots};
use super::{BENEATH, Error};

/// The maximum number of entries in a workspace. Measuring a workspace with more entries fails.
pub(super) const MAX_ENTRIES: u64 = 1_000_000;
/// The maximum depth of nested directories. It is limited because each level needs an open file descriptor. Measuring a
/// deeper workspace fails.
pub(super) const MAX_DEPTH: usize = 256;
/// The unit of `st_blocks` in bytes. It is independent of the file system's block size.
const BLOCK_BYTES: u64 = 512;

/// Returns the number of bytes that the workspace in `dir` uses on disk. Holes in files use no bytes, and a file with
/// several hard links counts once. Symbolic links are not followed. Directories that cannot be read are skipped. A
/// workspace that does not exist uses zero bytes.
///
/// # Errors
/// Returns [`Error::TooManyToMeasure`] if the workspace has too many entries or too deeply nested directories.
pub fn usage(dir: &Path) -> Result<u64, Error> {
    let root = match rustix::fs::open(dir, DIRECTORY | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(0),
        root => root?,
    };
    let mut counter = Counter { bytes: 0, entries: 0, linked: HashSet::new() };
    counter.add_entries(&root, 0)?;
    Ok(counter.bytes)
}

/// Returns the number of bytes on disk that become free when the entry is deleted. Returns zero if the entry is not a
/// regular file or has other hard links.
pub(super) fn freed_bytes(stat: &Stat) -> u64 {
    let is_only = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    if is_only { disk_bytes(stat) } else { 0 }
}

fn disk_bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES)
}

struct Counter {
    bytes: u64,
    entries: u64,
    /// The device and inode number of every file that has several hard links and was already counted.
    linked: HashSet<(u64, u64)>,
}

impl Counter {
    fn add_entries(&mut self, directory: &OwnedFd, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooManyToMeasure);
        }
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::TooManyToMeasure);
            }
            let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                // The entry was deleted while the directory was being read. Skip it.
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory || stat.st_nlink < 2 || self.linked.insert((stat.st_dev, stat.st_ino)) {
                self.bytes = self.bytes.saturating_add(disk_bytes(&stat));
            }
            if is_directory {
                match openat2(directory, name, DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH) {
                    Ok(below) => self.add_entries(&below, depth + 1)?,
                    // Skip the directory: it cannot be read, or it was deleted or replaced concurrently.
                    Err(Errno::ACCESS | Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }
}
