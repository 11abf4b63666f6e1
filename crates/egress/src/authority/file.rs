//! The file in which the authority is kept: its key and its certificate, readable by its owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use herm_types::time::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use zeroize::Zeroizing;

use super::{DAY_MS, LEAF_BACKDATED_MS, date};

/// The file's name in the data directory. One file, so that a key and its certificate are there together or not at all.
const FILE: &str = "egress-ca.pem";
/// Readable and writable by its owner.
const MODE: u32 = 0o600;
/// The most bytes of the file that are read; one that is made here has about a thousand.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// How long the authority holds: ten years. Whoever removes the file has another one made at the next start.
const LIFETIME_MS: i64 = 3653 * DAY_MS;
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// Why the authority cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("failed to read or write {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{} is not the key and certificate of an authority; put the right file back, or remove it to have another made",
        path.display()
    )]
    Broken { path: PathBuf },
    #[error("failed to make a key and certificate")]
    Make(#[source] rcgen::Error),
}

pub(super) struct Kept {
    pub(super) certificate_pem: String,
    pub(super) key_pem: Zeroizing<String>,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

pub(super) fn open(dir: &Path, now: Timestamp) -> Result<Kept, AuthorityError> {
    let path = path(dir);
    let failed = |source| AuthorityError::File { path: path.clone(), source };
    if let Some(kept) = read(&path)? {
        return Ok(kept);
    }
    let text = make(now).map_err(AuthorityError::Make)?;
    fs::create_dir_all(dir).map_err(failed)?;
    write(dir, &path, &text).map_err(failed)?;
    // Whoever else may have written it meanwhile was first.
    read(&path)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))
}

fn read(path: &Path) -> Result<Option<Kept>, AuthorityError> {
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    let broken = || AuthorityError::Broken { path: path.to_owned() };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > MAX_FILE_BYTES => return Err(broken()),
        Ok(_) => {}
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let (key, certificate) = text.split_at(text.find(BEGIN_CERTIFICATE).ok_or_else(broken)?);
    let key_pem = Zeroizing::new(key.to_owned());
    Ok(Some(Kept { certificate_pem: certificate.to_owned(), key_pem }))
}

fn make(now: Timestamp) -> Result<Zeroizing<String>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Herm, for its sandboxes alone");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(now.plus_ms(-LEAF_BACKDATED_MS));
    params.not_after = date(now.plus_ms(LIFETIME_MS));
    let certificate = params.self_signed(&key)?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", *key_pem, certificate.pem().replace("\r\n", "\n"))))
}

/// Writes the whole file under another name and gives it its own last, so that a crash leaves no half of it; what is
/// there already is not replaced.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let draft = dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}
