//! Making an archive of a workspace that nobody writes to any more.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, openat2, readlinkat, statat};
use rustix::io::Errno;

use super::member::{self, BLOCK_BYTES, Kind, Member, Mtime, is_path};
use super::{
    ArchiveError, CHUNK_BYTES, Contents, Error, MAX_CONTENT_BYTES, MAX_ENTRIES, MAX_PATH_BYTES, Stop,
    Workspace, manifest,
};
use crate::workspace::remove::{DIRECTORY, entered, is_dots};
use crate::workspace::write::remove_left_over;
use crate::workspace::{BENEATH, WorkspacePath};

/// zstd's own default: fast, and small enough.
const LEVEL: i32 = 3;
/// Entries that are left out and named; further ones are counted.
const MAX_NAMED: u64 = 1_000;
/// Bytes of paths that are kept to find further names of the same files. What finds no room is kept as a file of its own.
const MAX_LINK_BYTES: usize = 64 * 1024 * 1024;

struct Writer<'a, W: Write> {
    out: zstd::Encoder<'static, W>,
    /// The manifest as far as it goes.
    lines: io::BufWriter<File>,
    /// What was left out, named.
    left_out: String,
    /// The first name of each file that has several, by device and inode.
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
    /// Adds what is in a directory. It goes down as many levels as a path may have.
    fn add_entries(&mut self, directory: &OwnedFd, path: &mut Vec<u8>) -> Result<(), ArchiveError> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_dots(name) || remove_left_over(directory, &name.to_string_lossy()) {
                continue;
            }
            self.stop.check()?;
            let above = path.len();
            if above > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            self.add(directory, name, path)?;
            path.truncate(above);
        }
        Ok(())
    }

    fn add(&mut self, directory: &OwnedFd, name: &CStr, path: &mut Vec<u8>) -> Result<(), ArchiveError> {
        if !is_path(path) {
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
                let found = openat2(parent, name, DIRECTORY | OFlags::PATH, Mode::empty(), BENEATH)?;
                entered(&found)?
            }
            directory => directory?,
        };
        self.add_entries(&directory, path)?;
        let before = Mode::from_raw_mode(stat.st_mode);
        if Mode::from_raw_mode(fstat(&directory)?.st_mode) != before {
            // Should this archive come to nothing, the next one finds what this one found.
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
            let message = format!("the workspace has more than {MAX_CONTENT_BYTES} bytes");
            return Err(ArchiveError::TooLarge(message));
        }
        self.out.write_all(&member.encode())?;
        let sha256 = self.copy(file, member.size)?;
        self.note(&member, Some(&sha256))?;
        if stat.st_nlink > 1 && self.link_bytes + path.len() <= MAX_LINK_BYTES {
            self.link_bytes += path.len();
            self.links.insert(inode, path.to_vec());
        }
        Ok(())
    }

    /// Adds a file's bytes and fills its last block; gives their SHA-256.
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
        self.note(member, sha256)
    }

    fn note(&mut self, member: &Member, sha256: Option<&[u8]>) -> Result<(), ArchiveError> {
        self.count()?;
        self.contents.entries += 1;
        Ok(self.lines.write_all(manifest::line(member, sha256).as_bytes())?)
    }

    fn leave_out(&mut self, path: &[u8], why: &str) -> Result<(), ArchiveError> {
        self.count()?;
        self.contents.left_out += 1;
        if self.contents.left_out <= MAX_NAMED {
            let shown = path.get(..MAX_PATH_BYTES).unwrap_or(path);
            self.left_out.push_str(&manifest::left_out(shown, why));
        }
        Ok(())
    }

    fn count(&self) -> Result<(), ArchiveError> {
        if self.contents.entries + self.contents.left_out < MAX_ENTRIES {
            return Ok(());
        }
        Err(ArchiveError::TooLarge(format!("the workspace has more than {MAX_ENTRIES} entries")))
    }

    /// Adds the manifest, and the two empty blocks that end a tar.
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
#[allow(clippy::unnecessary_fallible_conversions, clippy::useless_conversion, reason = "see above")]
pub(super) fn mtime(stat: &Stat) -> Mtime {
    Mtime { seconds: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Opens a file that a listing has named; one that its owner may not read is given that right for this moment.
fn open_file(parent: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(parent, name, flags, Mode::empty(), BENEATH) {
        Err(Errno::ACCESS) => {}
        opened => return opened,
    }
    let flags_to_find = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat2(parent, name, flags_to_find, Mode::empty(), BENEATH)?;
    let before = Mode::from_raw_mode(fstat(&found)?.st_mode);
    let by_number = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::fs::chmod(&by_number, before | Mode::RUSR)?;
    let opened = openat2(parent, name, flags, Mode::empty(), BENEATH);
    rustix::fs::chmod(&by_number, before)?;
    opened
}
