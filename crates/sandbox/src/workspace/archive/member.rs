//! Encodes and decodes the headers of an archive's members. Each member has a tar header, preceded by a pax header
//! (POSIX.1-2001) with the values that may not fit into the tar header: the full path, a link's target, the size, and
//! the modification time in nanoseconds.

use std::io::{self, Read};

use super::{ArchiveError, MAX_DEPTH, MAX_PATH_BYTES};

pub(super) const BLOCK_BYTES: usize = 512;
/// The prefix of every member's path, except the manifest's.
pub(super) const PREFIX: &[u8] = b"workspace/";
pub(super) const MANIFEST_PATH: &[u8] = b"manifest.jsonl";
/// The maximum size of a pax header in bytes, enough for two paths and a few numbers. Larger headers are rejected.
const MAX_PAX_BYTES: u64 = 16 * 1024;
const MAX_NAME_BYTES: usize = 255;
/// The permission bits that are stored and restored. The setuid, setgid and sticky bits are dropped.
const PERMISSIONS: u32 = 0o777;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    /// A hard link to a file that precedes it in the archive.
    HardLink,
}

impl Kind {
    const ALL: [Self; 4] = [Self::File, Self::Directory, Self::Symlink, Self::HardLink];

    fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::Directory => b'5',
        }
    }
}

/// The modification time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mtime {
    pub(super) seconds: i64,
    pub(super) nanos: u32,
}

impl std::fmt::Display for Mtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

impl Mtime {
    fn parse(text: &[u8]) -> Option<Self> {
        let (seconds, nanos) = std::str::from_utf8(text).ok()?.split_once('.')?;
        let is_whole = nanos.len() == 9 && nanos.bytes().all(|byte| byte.is_ascii_digit());
        Some(Self { seconds: seconds.parse().ok()?, nanos: is_whole.then(|| nanos.parse().ok())?? })
    }
}

/// The metadata of a workspace entry in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// The path, relative to the workspace directory.
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    /// The size in bytes, which is zero unless the entry is a file.
    pub(super) size: u64,
    /// The target of a link. A symbolic link's target is stored unchanged. A hard link's target is a path relative to
    /// the workspace directory.
    pub(super) target: Option<Vec<u8>>,
}

/// The next member that the reader found in an archive.
pub(super) enum NextMember {
    Member(Member),
    /// The manifest. The number is its size in bytes.
    Manifest(u64),
}

impl Member {
    /// Encodes the member's pax header and tar header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let path = [PREFIX, &self.path].concat();
        let target = self.target.as_ref().map(|target| match self.kind {
            Kind::HardLink => [PREFIX, target].concat(),
            _ => target.clone(),
        });
        encode(&path, self.kind.flag(), self.mode & PERMISSIONS, self.mtime, self.size, target.as_deref())
    }
}

pub(super) fn encode_manifest(size: u64) -> Vec<u8> {
    encode(MANIFEST_PATH, Kind::File.flag(), 0o644, Mtime { seconds: 0, nanos: 0 }, size, None)
}

fn encode(path: &[u8], flag: u8, mode: u32, mtime: Mtime, size: u64, target: Option<&[u8]>) -> Vec<u8> {
    let mut records = Vec::new();
    let is_text = std::str::from_utf8(path).is_ok() && target.is_none_or(|t| std::str::from_utf8(t).is_ok());
    if !is_text {
        record(&mut records, "hdrcharset", b"BINARY");
    }
    record(&mut records, "path", path);
    if let Some(target) = target {
        record(&mut records, "linkpath", target);
    }
    record(&mut records, "mtime", mtime.to_string().as_bytes());
    record(&mut records, "size", size.to_string().as_bytes());
    let mut bytes = header(b"PaxHeader", b'x', 0o644, 0, records.len() as u64).to_vec();
    bytes.extend_from_slice(&records);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes.extend_from_slice(&header(path, flag, mode, mtime.seconds, size));
    bytes
}

/// Appends a record to a pax header: the record's own length, the key and the value.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// The byte ranges of a tar header's fields, one constant for each field.
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const OWNER: std::ops::Range<usize> = 108..116;
const GROUP: std::ops::Range<usize> = 116..124;
const SIZE: std::ops::Range<usize> = 124..136;
const MTIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const FLAG: std::ops::Range<usize> = 156..157;
const MAGIC: std::ops::Range<usize> = 257..265;
const USTAR: &[u8] = b"ustar\x0000";

type Block = [u8; BLOCK_BYTES];

fn header(name: &[u8], flag: u8, mode: u32, seconds: i64, size: u64) -> Block {
    let mut block = [0u8; BLOCK_BYTES];
    write_field(&mut block, NAME, name);
    write_field(&mut block, MODE, format!("{mode:07o}").as_bytes());
    write_field(&mut block, OWNER, b"0001750");
    write_field(&mut block, GROUP, b"0001750");
    // If a number is too large for its field in the tar header, write zeros. The pax header contains the number.
    let octal = |number: u64| if number < 1 << 33 { format!("{number:011o}") } else { "0".repeat(11) };
    write_field(&mut block, SIZE, octal(size).as_bytes());
    write_field(&mut block, MTIME, octal(u64::try_from(seconds).unwrap_or(0)).as_bytes());
    write_field(&mut block, FLAG, &[flag]);
    write_field(&mut block, MAGIC, USTAR);
    let sum = checksum(&block);
    write_field(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn write_field(block: &mut Block, range: std::ops::Range<usize>, bytes: &[u8]) {
    if let Some(field) = block.get_mut(range) {
        field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

fn field(block: &Block, range: std::ops::Range<usize>) -> &[u8] {
    block.get(range).unwrap_or_default()
}

/// Returns the checksum of a tar header: the sum of all its bytes, computed as if the checksum field contained spaces.
fn checksum(block: &Block) -> u32 {
    let value = |(index, byte): (usize, &u8)| u32::from(if CHECKSUM.contains(&index) { b' ' } else { *byte });
    block.iter().enumerate().map(value).sum()
}

/// Reads the pax header and the tar header of the next member.
pub(super) fn read(from: &mut impl Read) -> Result<NextMember, ArchiveError> {
    let pax = read_block(from)?;
    if field(&pax, FLAG) != b"x" {
        return Err(damaged("a member has no pax header"));
    }
    let length = octal(&pax, SIZE).filter(|length| *length <= MAX_PAX_BYTES);
    let length = length.ok_or_else(|| damaged("a pax header is too long or has an invalid length"))?;
    let mut text = Vec::new();
    from.take(length.next_multiple_of(BLOCK_BYTES as u64)).read_to_end(&mut text)?;
    if text.len() as u64 != length.next_multiple_of(BLOCK_BYTES as u64) {
        return Err(truncated());
    }
    text.truncate(usize::try_from(length).unwrap_or(0));
    let records = PaxRecords::parse(&text).ok_or_else(|| damaged("a pax header is malformed"))?;
    let header = read_block(from)?;
    let flag = field(&header, FLAG);
    let kind = Kind::ALL.into_iter().find(|kind| flag == [kind.flag()]);
    let kind = kind.ok_or_else(|| damaged("a member is not a file, directory or link"))?;
    let mode = octal(&header, MODE).and_then(|mode| u32::try_from(mode).ok());
    let mode = mode.ok_or_else(|| damaged("a member has no valid permissions"))?;
    records.member(kind, mode & PERMISSIONS)
}

fn read_block(from: &mut impl Read) -> Result<Block, ArchiveError> {
    let mut block = [0u8; BLOCK_BYTES];
    from.read_exact(&mut block).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(),
        _ => error.into(),
    })?;
    let sum = field(&block, CHECKSUM);
    if field(&block, MAGIC) != USTAR || sum != format!("{:06o}\0 ", checksum(&block)).as_bytes() {
        return Err(damaged("a tar header has an unknown format or a wrong checksum"));
    }
    Ok(block)
}

fn octal(block: &Block, range: std::ops::Range<usize>) -> Option<u64> {
    let digits = field(block, range);
    let digits = digits.strip_suffix(b"\0")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

fn damaged(problem: &str) -> ArchiveError {
    ArchiveError::Damaged(problem.to_owned())
}

pub(super) fn truncated() -> ArchiveError {
    damaged("the archive ends unexpectedly")
}

/// The values that a pax header's records contain.
#[derive(Default)]
struct PaxRecords<'a> {
    path: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    mtime: Option<Mtime>,
    size: Option<u64>,
}

impl<'a> PaxRecords<'a> {
    fn parse(mut text: &'a [u8]) -> Option<Self> {
        let mut records = Self::default();
        while !text.is_empty() {
            let space = text.iter().take(8).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(text.get(..space)?).ok()?.parse().ok()?;
            let record = text.get(space + 1..length)?.strip_suffix(b"\n")?;
            text = text.get(length..)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            let is_first = match key {
                b"path" => records.path.replace(value).is_none(),
                b"linkpath" => records.target.replace(value).is_none(),
                b"mtime" => records.mtime.replace(Mtime::parse(value)?).is_none(),
                b"size" => {
                    let size = std::str::from_utf8(value).ok()?.parse().ok()?;
                    records.size.replace(size).is_none()
                }
                b"hdrcharset" => true,
                _ => false,
            };
            if !is_first {
                return None;
            }
        }
        Some(records)
    }

    fn member(self, kind: Kind, mode: u32) -> Result<NextMember, ArchiveError> {
        let (Some(path), Some(mtime), Some(size)) = (self.path, self.mtime, self.size) else {
            return Err(damaged("a pax header lacks one of the records `path`, `mtime` and `size`"));
        };
        if path == MANIFEST_PATH && kind == Kind::File {
            return Ok(NextMember::Manifest(size));
        }
        if kind != Kind::File && size != 0 {
            return Err(damaged("a member that is not a file has content"));
        }
        let target = match (kind, self.target) {
            (Kind::File | Kind::Directory, None) => None,
            (Kind::HardLink, Some(target)) => Some(relative_path(target)?),
            (Kind::Symlink, Some(target)) if is_valid_target(target) => Some(target.to_vec()),
            _ => return Err(damaged("a member has an invalid, missing or unexpected link target")),
        };
        Ok(NextMember::Member(Member { kind, path: relative_path(path)?, mode, mtime, size, target }))
    }
}

fn is_valid_target(target: &[u8]) -> bool {
    (1..=MAX_PATH_BYTES).contains(&target.len()) && !target.contains(&0)
}

/// Converts a path in the archive to a path relative to the workspace. Fails if the path could lead outside the
/// workspace.
fn relative_path(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let inside = path.strip_prefix(PREFIX).filter(|path| is_valid_path(path));
    let invalid = || {
        ArchiveError::Damaged(format!(
            "{:?} is not a valid path in an archive",
            String::from_utf8_lossy(path)
        ))
    };
    inside.map(<[u8]>::to_vec).ok_or_else(invalid)
}

/// Returns true if the path is allowed in an archive: not too long, not too deep, and without the components `.` and
/// `..`.
pub(super) fn is_valid_path(path: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        (1..=MAX_NAME_BYTES).contains(&name.len())
            && ![b".".as_slice(), b".."].contains(&name)
            && !name.contains(&0)
    };
    let names = path.split(|byte| *byte == b'/');
    path.len() <= MAX_PATH_BYTES && names.clone().count() <= MAX_DEPTH && names.into_iter().all(is_name)
}
