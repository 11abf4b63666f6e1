//! Writes an archive of a workspace. Nothing may write to the workspace while it is being archived.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::member::{self, BLOCK_BYTES, Kind, Member, Mtime, is_valid_path};
use super::{
    ArchiveError, CHUNK_BYTES, Contents, Error, MAX_CONTENT_BYTES, MAX_ENTRIES, MAX_PATH_BYTES, Stop,
    Workspace, manifest,
};
use crate::workspace::remove::{DIRECTORY, is_dots, open_for_reading};
use crate::workspace::write::remove_if_stale;
use crate::workspace::{BENEATH, WorkspacePath};

/// The compression level, which is zstd's default.
const LEVEL: i32 = 3;
/// The maximum number of omitted entries that the manifest lists. Beyond it, omitted entries are only counted.
const MAX_NAMED: u64 = 1_000;
/// The maximum total size of the paths that are kept in memory to detect hard links, in bytes. Beyond it, hard links to
/// further files are stored as separate files.
const MAX_LINK_BYTES: usize = 64 * 1024 * 1024;

struct Writer<'a, W: Write> {
    out: zstd::Encoder<'static, W>,
    /// The lines of the manifest. They are collected in the scratch file and added to the archive at the end.
    lines: io::BufWriter<File>,
    /// The manifest's lines about omitted entries.
    left_out: String,
    /// The first path of each file that has several hard links. The key is the file's device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_bytes: usize,
    contents: Contents,
    stop: &'a Stop,
    buffer: Vec<u8>,
}

pub(super) fn write<W: Write>(
    workspace: &Workspace,
    out: W,
    scratch: File,
    stop: &Stop,
) -> Result<(W, Contents), ArchiveError> {
    let mut out = zstd::Encoder::new(out, LEVEL)?;
    out.include_checksum(true)?;
    let mut writer = Writer {
        out,
        lines: io::BufWriter::new(scratch),
        left_out: String::new(),
        links: HashMap::new(),
        link_bytes: 0,
        contents: Contents::default(),
        stop,
        buffer: vec![0; CHUNK_BYTES],
    };
    writer.lines.write_all(manifest::FIRST.as_bytes())?;
    let root = WorkspacePath::parse("").map_err(|error| ArchiveError::Damaged(error.to_string()))?;
    let root = workspace.open_beneath(&root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    writer.add_entries(&root, &mut Vec::new())?;
    writer.finish()
}

impl<W: Write> Writer<'_, W> {
    /// Adds a directory's entries recursively. The maximum depth of paths also limits the depth of the recursion.
    fn add_entries(&mut self, directory: &OwnedFd, path: &mut Vec<u8>) -> Result<(), ArchiveError> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) || remove_if_stale(directory, &name.to_string_lossy()) {
                continue;
            }
            self.stop.check()?;
            let parent_len = path.len();
            if parent_len > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.add(directory, name, path)?;
            path.truncate(parent_len);
        }
        Ok(())
    }

    fn add(&mut self, directory: &OwnedFd, name: &CStr, path: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if !is_valid_path(path) {
            return self.leave_out(path, "its path is too long or too deep");
        }
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.add_directory(directory, name, path, &stat),
            FileType::RegularFile => self.add_file(directory, name, path, &stat),
            FileType::Symlink => {
                let target = readlinkat(directory, name, Vec::new())?.into_bytes();
                if target.len() > MAX_PATH_BYTES {
                    return self.leave_out(path, "its target is too long");
                }
                self.add_member(&Member { target: Some(target), ..member(Kind::Symlink, path, &stat) }, None)
            }
            FileType::Socket => self.leave_out(path, "socket"),
            FileType::Fifo => self.leave_out(path, "FIFO"),
            _ => self.leave_out(path, "device"),
        }
    }

    fn add_directory(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &mut Vec<u8>,
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        let directory = match openat2(parent, name, DIRECTORY | OFlags::RDONLY, Mode::empty(), BENEATH) {
            Err(Errno::XDEV) => return self.leave_out(path, "mount"),
            Err(Errno::ACCESS) => {
                let directory_fd = openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH)?;
                open_for_reading(&directory_fd)?
            }
            directory => directory?,
        };
        self.add_entries(&directory, path)?;
        let before = Mode::from_raw_mode(stat.st_mode);
        if Mode::from_raw_mode(fstat(&directory)?.st_mode) != before {
            // The permissions were changed to read the directory. Restore the original ones, because the workspace may
            // be archived again if this archive is discarded.
            fchmod(&directory, before)?;
        }
        self.add_member(&member(Kind::Directory, path, stat), None)
    }

    fn add_file(
        &mut self,
        parent: &OwnedFd,
        name: &CStr,
        path: &[u8],
        stat: &Stat,
    ) -> Result<(), ArchiveError> {
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&inode) {
            let target = Some(first.clone());
            return self.add_member(&Member { target, size: 0, ..member(Kind::HardLink, path, stat) }, None);
        }
        let file = match open_file(parent, name) {
            Err(Errno::XDEV) => return self.leave_out(path, "mount"),
            file => File::from(file?),
        };
        let stat = fstat(&file)?;
        let member = member(Kind::File, path, &stat);
        self.contents.bytes = self.contents.bytes.saturating_add(member.size);
        if self.contents.bytes > MAX_CONTENT_BYTES {
            let message =
                format!("the files in the workspace have more than {MAX_CONTENT_BYTES} bytes in total");
            return Err(ArchiveError::TooLarge(message));
        }
        self.out.write_all(&member.encode())?;
        let sha256 = self.copy(file, member.size)?;
        self.add_line(&member, Some(&sha256))?;
        if stat.st_nlink > 1 && self.link_bytes + path.len() <= MAX_LINK_BYTES {
            self.link_bytes += path.len();
            self.links.insert(inode, path.to_vec());
        }
        Ok(())
    }

    /// Writes a file's content and padding to the archive. Returns the SHA-256 of the content.
    fn copy(&mut self, file: File, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut context = Context::new(&SHA256);
        let mut file = file.take(size);
        let mut copied = 0;
        loop {
            self.stop.check()?;
            let count = file.read(&mut self.buffer)?;
            let Some(bytes) = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            context.update(bytes);
            self.out.write_all(bytes)?;
            copied += count as u64;
        }
        if copied != size {
            return Err(Error::Busy.into());
        }
        self.pad(size)?;
        Ok(context.finish().as_ref().to_vec())
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let missing = usize::try_from(size.next_multiple_of(BLOCK_BYTES as u64) - size).unwrap_or(0);
        Ok(self.out.write_all([0; BLOCK_BYTES].get(..missing).unwrap_or_default())?)
    }

    fn add_member(&mut self, member: &Member, sha256: Option<&[u8]>) -> Result<(), ArchiveError> {
        self.out.write_all(&member.encode())?;
        self.add_line(member, sha256)
    }

    fn add_line(&mut self, member: &Member, sha256: Option<&[u8]>) -> Result<(), ArchiveError> {
        self.count()?;
        self.contents.entries += 1;
        Ok(self.lines.write_all(manifest::line(member, sha256).as_bytes())?)
    }

    fn leave_out(&mut self, path: &[u8], reason: &str) -> Result<(), ArchiveError> {
        self.count()?;
        self.contents.left_out += 1;
        if self.contents.left_out <= MAX_NAMED {
            let shown = path.get(..MAX_PATH_BYTES).unwrap_or(path);
            self.left_out.push_str(&manifest::left_out(shown, reason));
        }
        Ok(())
    }

    fn count(&self) -> Result<(), ArchiveError> {
        if self.contents.entries + self.contents.left_out < MAX_ENTRIES {
            return Ok(());
        }
        Err(ArchiveError::TooLarge(format!("the workspace has more than {MAX_ENTRIES} entries")))
    }

    /// Completes the archive: adds the manifest and the two zero blocks that mark the end of a tar archive.
    fn finish(mut self) -> Result<(W, Contents), ArchiveError> {
        self.lines.write_all(self.left_out.as_bytes())?;
        if let more @ 1.. = self.contents.left_out.saturating_sub(MAX_NAMED) {
            self.lines.write_all(manifest::more_left_out(more).as_bytes())?;
        }
        self.lines.flush()?;
        let lines = self.lines.get_mut();
        let size = lines.stream_position()?;
        lines.rewind()?;
        self.out.write_all(&member::encode_manifest(size))?;
        io::copy(lines, &mut self.out)?;
        self.pad(size)?;
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        Ok((self.out.finish()?, self.contents))
    }
}

fn member(kind: Kind, path: &[u8], stat: &Stat) -> Member {
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Member {
        kind,
        path: path.to_vec(),
        mode: Mode::from_raw_mode(stat.st_mode).as_raw_mode() & 0o777,
        mtime: mtime(stat),
        size,
        target: None,
    }
}

#[expect(clippy::allow_attributes, reason = "the field's type differs between architectures")]
#[allow(
    clippy::unnecessary_fallible_conversions,
    clippy::useless_conversion,
    reason = "the field's type differs between architectures"
)]
pub(super) fn mtime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Opens a file that was found in a directory listing. If the file's permissions deny its owner read access, grants
/// that access for the duration of this call.
fn open_file(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(parent, name, flags, Mode::empty(), BENEATH) {
        Err(Errno::ACCESS) => {}
        opened => return opened,
    }
    let path_flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory_fd = openat2(parent, name, path_flags, Mode::empty(), BENEATH)?;
    let before = Mode::from_raw_mode(fstat(&directory_fd)?.st_mode);
    let fd_path = format!("/proc/self/fd/{}", directory_fd.as_raw_fd());
    rustix::fs::chmod(&fd_path, before | Mode::RUSR)?;
    let opened = openat2(parent, name, flags, Mode::empty(), BENEATH);
    rustix::fs::chmod(&fd_path, before)?;
    opened
}
