//! Members of the archive: a tar header each, and before it one in the pax format (POSIX.1-2001) with what has no room
//! there: the whole path, a link's target, the size, the time to the nanosecond.

use std::io::{self, Read};

use super::{ArchiveError, MAX_DEPTH, MAX_PATH_BYTES};

pub(super) const BLOCK_BYTES: usize = 512;
/// What stands before each path.
pub(super) const PREFIX: &[u8] = b"workspace/";
pub(super) const MANIFEST_PATH: &[u8] = b"manifest.jsonl";
/// Bytes of a pax header at most: two paths and some numbers.
const MAX_PAX_BYTES: u64 = 16 * 1024;
const MAX_NAME_BYTES: usize = 255;
/// Permissions that are kept. What makes somebody else of who runs a file is not.
const PERMISSIONS: u32 = 0o777;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    /// A further name of a file that came before.
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

/// An instant as files have it.
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

/// What the archive says of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// Relative to the workspace.
    pub(super) path: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: Mtime,
    /// Bytes; zero of what is no file.
    pub(super) size: u64,
    /// Of a link: as it stands of a symbolic one, relative to the workspace of a hard one.
    pub(super) target: Option<Vec<u8>>,
}

/// What the reader comes upon.
pub(super) enum Found {
    Member(Member),
    /// The manifest, and how many bytes it has.
    Manifest(u64),
}

impl Member {
    /// The headers, as they stand in the archive.
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

/// One record of a pax header: its own length, key and value.
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

/// Where the fields of a header are.
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
    put(&mut block, NAME, name);
    put(&mut block, MODE, format!("{mode:07o}").as_bytes());
    put(&mut block, OWNER, b"0001750");
    put(&mut block, GROUP, b"0001750");
    // A number that has no room here stands in the pax header alone.
    let octal = |number: u64| if number < 1 << 33 { format!("{number:011o}") } else { "0".repeat(11) };
    put(&mut block, SIZE, octal(size).as_bytes());
    put(&mut block, MTIME, octal(u64::try_from(seconds).unwrap_or(0)).as_bytes());
    put(&mut block, FLAG, &[flag]);
    put(&mut block, MAGIC, USTAR);
    let sum = checksum(&block);
    put(&mut block, CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn put(block: &mut Block, range: std::ops::Range<usize>, bytes: &[u8]) {
    if let Some(field) = block.get_mut(range) {
        field.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

fn field(block: &Block, range: std::ops::Range<usize>) -> &[u8] {
    block.get(range).unwrap_or_default()
}

/// The sum of all bytes, those of the sum itself taken as spaces.
fn checksum(block: &Block) -> u32 {
    let at = |(index, byte): (usize, &u8)| u32::from(if CHECKSUM.contains(&index) { b' ' } else { *byte });
    block.iter().enumerate().map(at).sum()
}

/// Reads the next headers.
pub(super) fn read(from: &mut impl Read) -> Result<Found, ArchiveError> {
    let pax = read_block(from)?;
    if field(&pax, FLAG) != b"x" {
        return Err(damaged("a member has no pax header"));
    }
    let length = octal(&pax, SIZE).filter(|length| *length <= MAX_PAX_BYTES);
    let length = length.ok_or_else(|| damaged("a pax header is too long"))?;
    let mut text = Vec::new();
    from.take(length.next_multiple_of(BLOCK_BYTES as u64)).read_to_end(&mut text)?;
    if text.len() as u64 != length.next_multiple_of(BLOCK_BYTES as u64) {
        return Err(cut_off());
    }
    text.truncate(usize::try_from(length).unwrap_or(0));
    let records = Records::parse(&text).ok_or_else(|| damaged("a pax header cannot be read"))?;
    let header = read_block(from)?;
    let flag = field(&header, FLAG);
    let kind = Kind::ALL.into_iter().find(|kind| flag == [kind.flag()]);
    let kind = kind.ok_or_else(|| damaged("a member is neither a file nor a directory nor a link"))?;
    let mode = octal(&header, MODE).and_then(|mode| u32::try_from(mode).ok());
    let mode = mode.ok_or_else(|| damaged("a member has no permissions"))?;
    records.member(kind, mode & PERMISSIONS)
}

fn read_block(from: &mut impl Read) -> Result<Block, ArchiveError> {
    let mut block = [0u8; BLOCK_BYTES];
    from.read_exact(&mut block).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => cut_off(),
        _ => error.into(),
    })?;
    let sum = field(&block, CHECKSUM);
    if field(&block, MAGIC) != USTAR || sum != format!("{:06o}\0 ", checksum(&block)).as_bytes() {
        return Err(damaged("a header is not sound"));
    }
    Ok(block)
}

fn octal(block: &Block, range: std::ops::Range<usize>) -> Option<u64> {
    let digits = field(block, range);
    let digits = digits.strip_suffix(b"\0")?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

fn damaged(what: &str) -> ArchiveError {
    ArchiveError::Damaged(what.to_owned())
}

pub(super) fn cut_off() -> ArchiveError {
    damaged("it ends in the middle")
}

/// What a pax header says.
#[derive(Default)]
struct Records<'a> {
    path: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    mtime: Option<Mtime>,
    size: Option<u64>,
}

impl<'a> Records<'a> {
    fn parse(mut text: &'a [u8]) -> Option<Self> {
        let mut records = Self::default();
        while !text.is_empty() {
            let space = text.iter().take(8).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(text.get(..space)?).ok()?.parse().ok()?;
            let one = text.get(space + 1..length)?.strip_suffix(b"\n")?;
            text = text.get(length..)?;
            let equals = one.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (one.get(..equals)?, one.get(equals + 1..)?);
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

    fn member(self, kind: Kind, mode: u32) -> Result<Found, ArchiveError> {
        let (Some(path), Some(mtime), Some(size)) = (self.path, self.mtime, self.size) else {
            return Err(damaged("a pax header lacks a record"));
        };
        if path == MANIFEST_PATH && kind == Kind::File {
            return Ok(Found::Manifest(size));
        }
        if kind != Kind::File && size != 0 {
            return Err(damaged("a member that is no file has bytes"));
        }
        let target = match (kind, self.target) {
            (Kind::File | Kind::Directory, None) => None,
            (Kind::HardLink, Some(target)) => Some(within(target)?),
            (Kind::Symlink, Some(target)) if is_target(target) => Some(target.to_vec()),
            _ => return Err(damaged("a link has no target that a link can have")),
        };
        Ok(Found::Member(Member { kind, path: within(path)?, mode, mtime, size, target }))
    }
}

fn is_target(target: &[u8]) -> bool {
    (1..=MAX_PATH_BYTES).contains(&target.len()) && !target.contains(&0)
}

/// A path in the archive as one in the workspace: it stays there by its text alone.
fn within(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let inside = path.strip_prefix(PREFIX).filter(|path| is_path(path));
    let shown = || ArchiveError::Damaged(format!("{:?} is no path in it", String::from_utf8_lossy(path)));
    inside.map(<[u8]>::to_vec).ok_or_else(shown)
}

/// Whether a path has a place in an archive.
pub(super) fn is_path(path: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        (1..=MAX_NAME_BYTES).contains(&name.len())
            && ![b".".as_slice(), b".."].contains(&name)
            && !name.contains(&0)
    };
    let names = path.split(|byte| *byte == b'/');
    path.len() <= MAX_PATH_BYTES && names.clone().count() <= MAX_DEPTH && names.into_iter().all(is_name)
}
