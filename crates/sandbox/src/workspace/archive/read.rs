//! Reading an archive: every member looked at before anything is done with it, every hash compared.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::member::{self, BLOCK_BYTES, Found, Kind, Member, cut_off};
use super::{ArchiveError, CHUNK_BYTES, Contents, MAX_ENTRIES, Stop, manifest};

/// The largest window that an archive may make the decompressor keep, as a power of two: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;
/// Bytes of the manifest's lines on what was left out, at most.
const MAX_LEFT_OUT_BYTES: u64 = 32 * 1024 * 1024;

/// What is done with the members, in their order.
pub(super) trait Sink {
    fn begin_file(&mut self, member: &Member) -> Result<(), ArchiveError>;
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ArchiveError>;
    fn end_file(&mut self, member: &Member) -> Result<(), ArchiveError>;
    /// A member that is no file.
    fn add(&mut self, member: &Member) -> Result<(), ArchiveError>;
}

/// Nothing is done with them: they are looked at alone.
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

/// What stands at a path of which something was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// A directory of which only what is in it has come.
    Within,
    Directory,
    File,
    Other,
}

struct Reader<'a, R> {
    from: R,
    /// By the first half of the SHA-256 of the path.
    seen: HashMap<u128, Seen>,
    contents: Contents,
    expected: Contents,
    /// Of the manifest, as it must begin.
    lines: Context,
    lines_bytes: u64,
    stop: &'a Stop,
    buffer: Vec<u8>,
}

/// Reads an archive to its end.
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
        seen: HashMap::new(),
        contents: Contents::default(),
        expected,
        lines: Context::new(&SHA256),
        lines_bytes: 0,
        stop,
        buffer: vec![0; CHUNK_BYTES],
    };
    reader.note(manifest::FIRST);
    while let Some(member) = reader.next()? {
        if member.kind == Kind::File {
            sink.begin_file(&member)?;
            let sha256 = reader.copy(member.size, |bytes| sink.bytes(bytes))?;
            reader.note(&manifest::line(&member, Some(sha256.as_ref())));
            sink.end_file(&member)?;
        } else {
            reader.note(&manifest::line(&member, None));
            sink.add(&member)?;
        }
    }
    if reader.contents.entries != expected.entries || reader.contents.bytes != expected.bytes {
        return Err(ArchiveError::Damaged("it does not hold what it was made of".to_owned()));
    }
    reader.end()
}

impl<R: Read> Reader<'_, R> {
    /// The next member; `None` when the manifest has come, and is the one it must be.
    fn next(&mut self) -> Result<Option<Member>, ArchiveError> {
        self.stop.check()?;
        match member::read(&mut self.from)? {
            Found::Manifest(size) => {
                self.check_manifest(size)?;
                Ok(None)
            }
            Found::Member(member) => {
                self.check(&member)?;
                Ok(Some(member))
            }
        }
    }

    fn check(&mut self, member: &Member) -> Result<(), ArchiveError> {
        self.contents.entries += 1;
        self.contents.bytes = self.contents.bytes.saturating_add(member.size);
        if self.contents.entries > self.expected.entries.min(MAX_ENTRIES)
            || self.contents.bytes > self.expected.bytes
        {
            return Err(ArchiveError::Damaged("it holds more than it was made of".to_owned()));
        }
        let refuse = |what: &str| {
            let path = String::from_utf8_lossy(&member.path);
            Err(ArchiveError::Damaged(format!("{path:?} {what}")))
        };
        for above in parents(&member.path) {
            let above = self.seen.entry(key(above)).or_insert(Seen::Within);
            if *above != Seen::Within {
                return refuse("comes after the directory that it is in, or is in none");
            }
        }
        if member.target.as_ref().is_some_and(|target| {
            member.kind == Kind::HardLink && self.seen.get(&key(target)) != Some(&Seen::File)
        }) {
            return refuse("is another name of no file that came before");
        }
        let kind = match member.kind {
            Kind::File => Seen::File,
            Kind::Directory => Seen::Directory,
            Kind::Symlink | Kind::HardLink => Seen::Other,
        };
        match self.seen.entry(key(&member.path)) {
            Entry::Vacant(place) => {
                place.insert(kind);
                Ok(())
            }
            Entry::Occupied(mut place) if *place.get() == Seen::Within && kind == Seen::Directory => {
                place.insert(kind);
                Ok(())
            }
            Entry::Occupied(_) => refuse("is there twice"),
        }
    }

    fn note(&mut self, line: &str) {
        self.lines.update(line.as_bytes());
        self.lines_bytes += line.len() as u64;
    }

    /// Reads so many bytes and the rest of their last block; gives their SHA-256.
    fn copy(
        &mut self,
        size: u64,
        mut to: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
    ) -> Result<aws_lc_rs::digest::Digest, ArchiveError> {
        let mut context = Context::new(&SHA256);
        let mut left = size;
        while left > 0 {
            self.stop.check()?;
            let most = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let count = self.from.read(self.buffer.get_mut(..most).unwrap_or_default())?;
            let Some(bytes) = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Err(cut_off());
            };
            context.update(bytes);
            to(bytes)?;
            left -= count as u64;
        }
        self.skip_zeros(size.next_multiple_of(BLOCK_BYTES as u64) - size)?;
        Ok(context.finish())
    }

    /// Reads what must be zeros.
    fn skip_zeros(&mut self, count: u64) -> Result<(), ArchiveError> {
        let mut rest = Vec::new();
        (&mut self.from).take(count).read_to_end(&mut rest)?;
        if rest.len() as u64 != count {
            return Err(cut_off());
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Damaged("there are bytes where none belong".to_owned()));
        }
        Ok(())
    }

    /// The manifest must begin as what was read says; then come the entries that are not here.
    fn check_manifest(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size.checked_sub(self.lines_bytes).is_none_or(|rest| rest > MAX_LEFT_OUT_BYTES) {
            return Err(ArchiveError::Damaged("its manifest is of something else".to_owned()));
        }
        let mut given = Context::new(&SHA256);
        let mut left = self.lines_bytes;
        let filled = size.next_multiple_of(BLOCK_BYTES as u64) - size;
        let mut lines = (&mut self.from).take(size);
        loop {
            self.stop.check()?;
            let count = lines.read(&mut self.buffer)?;
            let bytes = self.buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let ours = usize::try_from(left).unwrap_or(usize::MAX).min(count);
            given.update(bytes.get(..ours).unwrap_or_default());
            left -= ours as u64;
        }
        if lines.limit() > 0 || left > 0 {
            return Err(cut_off());
        }
        if given.finish().as_ref() != self.lines.clone().finish().as_ref() {
            return Err(ArchiveError::Damaged("its files are not those of its manifest".to_owned()));
        }
        self.skip_zeros(filled)
    }
}

impl Reader<'_, zstd::Decoder<'static, io::BufReader<&File>>> {
    /// Nothing may come any more.
    fn end(mut self) -> Result<(), ArchiveError> {
        self.skip_zeros(2 * BLOCK_BYTES as u64)?;
        let mut more = [0u8; 1];
        let has_more = self.from.read(&mut more)? > 0 || self.from.finish().read(&mut more)? > 0;
        if has_more { Err(ArchiveError::Damaged("something comes after its end".to_owned())) } else { Ok(()) }
    }
}

/// The directories that a path lies in.
pub(super) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    ends.filter_map(|end| path.get(..end))
}

fn key(path: &[u8]) -> u128 {
    let hash = digest(&SHA256, path);
    let half = hash.as_ref().iter().take(16);
    half.fold(0, |key, byte| (key << 8) | u128::from(*byte))
}
