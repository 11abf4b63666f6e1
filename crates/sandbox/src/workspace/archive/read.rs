//! Reads an archive and passes its members to a [`Sink`], which restores or discards them. Each member is checked
//! before it is passed on. At the end, all members and the hashes of the files are compared with the manifest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::member::{self, BLOCK_BYTES, Kind, Member, NextMember, truncated};
use super::{ArchiveError, CHUNK_BYTES, Contents, MAX_ENTRIES, Stop, manifest};

/// The binary logarithm of the zstd decompressor's maximum window size, which is 8 MiB. Archives that need a larger
/// window are rejected.
const MAX_WINDOW_LOG: u32 = 23;
/// The maximum total size of the manifest's lines about omitted entries, in bytes. Archives that exceed it are
/// rejected.
const MAX_LEFT_OUT_BYTES: u64 = 32 * 1024 * 1024;

/// Receives the members of an archive in order.
pub(super) trait Sink {
    fn begin_file(&mut self, member: &Member) -> Result<(), ArchiveError>;
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError>;
    fn end_file(&mut self, member: &Member) -> Result<(), ArchiveError>;
    /// Called for each member that is not a file.
    fn add(&mut self, member: &Member) -> Result<(), ArchiveError>;
}

/// A sink that discards the members. It is used to verify an archive without restoring it.
pub(super) struct Verify;

impl Sink for Verify {
    fn begin_file(&mut self, _: &Member) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn bytes(&mut self, _: &[u8]) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn end_file(&mut self, _: &Member) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn add(&mut self, _: &Member) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// The type of the entry at a path that has occurred in the archive: the path of a member, or of one of its parent
/// directories.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathState {
    /// A directory that contains members that have been read. The directory itself has not been read as a member yet.
    ImpliedDirectory,
    Directory,
    File,
    Other,
}

struct Reader<'a, R> {
    from: R,
    /// All paths that the archive has mentioned so far. The key is the first half of the path's SHA-256.
    paths: HashMap<u128, PathState>,
    contents: Contents,
    expected: Contents,
    /// The running hash of the manifest lines computed from the members so far. The stored manifest must begin with the
    /// same lines.
    lines: Context,
    lines_bytes: u64,
    stop: &'a Stop,
    buffer: Vec<u8>,
}

/// Reads a whole archive, passes its members to `sink` and checks the stored manifest.
pub(super) fn read(
    archive: &File,
    expected: Contents,
    stop: &Stop,
    sink: &mut impl Sink,
) -> Result<(), ArchiveError> {
    let mut from = zstd::Decoder::new(archive)?.single_frame();
    from.window_log_max(MAX_WINDOW_LOG)?;
    let mut reader = Reader {
        from,
        paths: HashMap::new(),
        contents: Contents::default(),
        expected,
        lines: Context::new(&SHA256),
        lines_bytes: 0,
        stop,
        buffer: vec![0; CHUNK_BYTES],
    };
    reader.hash_line(manifest::FIRST);
    while let Some(member) = reader.next()? {
        if member.kind == Kind::File {
            sink.begin_file(&member)?;
            let sha256 = reader.copy(member.size, |bytes| sink.bytes(bytes))?;
            reader.hash_line(&manifest::line(&member, Some(sha256.as_ref())));
            sink.end_file(&member)?;
        } else {
            reader.hash_line(&manifest::line(&member, None));
            sink.add(&member)?;
        }
    }
    if reader.contents.entries != expected.entries || reader.contents.bytes != expected.bytes {
        return Err(ArchiveError::Damaged(format!(
            "the archive is smaller than the recorded snapshot, which has {} entries and {} bytes",
            expected.entries, expected.bytes
        )));
    }
    reader.check_end()
}

impl<R: Read> Reader<'_, R> {
    /// Returns the next member. If it is the manifest, which comes last, checks the manifest and returns `None`.
    fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        self.stop.check()?;
        match member::read(&mut self.from)? {
            NextMember::Manifest(size) => {
                self.check_manifest(size)?;
                Ok(None)
            }
            NextMember::Member(member) => {
                self.check_member(&member)?;
                Ok(Some(member))
            }
        }
    }

    fn check_member(&mut self, member: &Member) -> Result<(), ArchiveError> {
        self.contents.entries += 1;
        self.contents.bytes = self.contents.bytes.saturating_add(member.size);
        if self.contents.entries > self.expected.entries.min(MAX_ENTRIES)
            || self.contents.bytes > self.expected.bytes
        {
            return Err(ArchiveError::Damaged(format!(
                "the archive is larger than the recorded snapshot, which has {} entries and {} bytes",
                self.expected.entries, self.expected.bytes
            )));
        }
        let damaged = |problem: &str| {
            let path = String::from_utf8_lossy(&member.path);
            Err(ArchiveError::Damaged(format!("{path:?} {problem}")))
        };
        for parent in parents(&member.path) {
            let state = self.paths.entry(key(parent)).or_insert(PathState::ImpliedDirectory);
            if *state != PathState::ImpliedDirectory {
                return damaged("is stored after its parent directory, or its parent is not a directory");
            }
        }
        if member.target.as_ref().is_some_and(|target| {
            member.kind == Kind::HardLink && self.paths.get(&key(target)) != Some(&PathState::File)
        }) {
            return damaged("is a hard link to a file that is not an earlier member of the archive");
        }
        let kind = match member.kind {
            Kind::File => PathState::File,
            Kind::Directory => PathState::Directory,
            Kind::Symlink | Kind::HardLink => PathState::Other,
        };
        match self.paths.entry(key(&member.path)) {
            Entry::Vacant(entry) => {
                entry.insert(kind);
                Ok(())
            }
            Entry::Occupied(mut entry)
                if *entry.get() == PathState::ImpliedDirectory && kind == PathState::Directory =>
            {
                entry.insert(kind);
                Ok(())
            }
            Entry::Occupied(_) => damaged("occurs twice"),
        }
    }

    fn hash_line(&mut self, line: &str) {
        self.lines.update(line.as_bytes());
        self.lines_bytes += line.len() as u64;
    }

    /// Reads the `size` bytes of a file's content and the padding after them. Passes the content to `to` and returns
    /// its SHA-256.
    fn copy(
        &mut self,
        size: u64,
        mut to: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<aws_lc_rs::digest::Digest, ArchiveError> {
        let mut context = Context::new(&SHA256);
        let mut remaining = size;
        while remaining > 0 {
            self.stop.check()?;
            let max = usize::try_from(remaining).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let count = self.from.read(self.buffer.get_mut(..max).unwrap_or_default())?;
            let Some(bytes) = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Err(truncated());
            };
            context.update(bytes);
            to(bytes)?;
            remaining -= count as u64;
        }
        self.skip_zeros(size.next_multiple_of(BLOCK_BYTES as u64) - size)?;
        Ok(context.finish())
    }

    /// Reads `count` bytes. Fails if any of them is not zero.
    fn skip_zeros(&mut self, count: u64) -> Result<(), ArchiveError> {
        let mut rest = Vec::new();
        (&mut self.from).take(count).read_to_end(&mut rest)?;
        if rest.len() as u64 != count {
            return Err(truncated());
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Damaged(
                "the padding after an archive entry contains nonzero bytes".to_owned(),
            ));
        }
        Ok(())
    }

    /// Checks that the stored manifest begins with the lines computed from the members. The remaining lines are about
    /// omitted entries and cannot be checked.
    fn check_manifest(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size.checked_sub(self.lines_bytes).is_none_or(|rest| rest > MAX_LEFT_OUT_BYTES) {
            let (min, max) = (self.lines_bytes, self.lines_bytes + MAX_LEFT_OUT_BYTES);
            return Err(ArchiveError::Damaged(format!(
                "the manifest has {size} bytes, but a manifest of these members has {min} to {max} bytes"
            )));
        }
        let mut stored_lines = Context::new(&SHA256);
        let mut remaining = self.lines_bytes;
        let padding = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        let mut lines = (&mut self.from).take(size);
        loop {
            self.stop.check()?;
            let count = lines.read(&mut self.buffer)?;
            let bytes = self.buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let checked = usize::try_from(remaining).unwrap_or(usize::MAX).min(count);
            stored_lines.update(bytes.get(..checked).unwrap_or_default());
            remaining -= checked as u64;
        }
        if lines.limit() > 0 || remaining > 0 {
            return Err(truncated());
        }
        if stored_lines.finish().as_ref() != self.lines.clone().finish().as_ref() {
            return Err(ArchiveError::Damaged("the members do not match the manifest".to_owned()));
        }
        self.skip_zeros(padding)
    }
}

impl Reader<'_, zstd::Decoder<'static, io::BufReader<&File>>> {
    /// Checks that the tar's end marker comes next, and that no data follows it.
    fn check_end(mut self) -> Result<(), ArchiveError> {
        self.skip_zeros(2 * BLOCK_BYTES as u64)?;
        let mut more = [0u8; 1];
        let has_more = self.from.read(&mut more)? > 0 || self.from.finish().read(&mut more)? > 0;
        if has_more {
            Err(ArchiveError::Damaged("the archive contains data after its end marker".to_owned()))
        } else {
            Ok(())
        }
    }
}

/// Returns all parent directories of a path, outermost first.
pub(super) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.filter_map(|end| path.get(..end))
}

fn key(path: &[u8]) -> u128 {
    let hash = digest(&SHA256, path);
    let half = hash.as_ref().iter().take(16);
    half.fold(0, |key, byte| (key << 8) | u128::from(*byte))
}
