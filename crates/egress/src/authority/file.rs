//! Reads and creates the file that holds the private key and the certificate of the certificate authority. Only the
//! operating system user of the server can access the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use herm_types::time::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use zeroize::Zeroizing;

use super::{BACKDATE_MS, DAY_MS, date};

/// The name of the file in the data directory. The key and the certificate share one file, so that both are written
/// atomically.
const FILE: &str = "egress-ca.pem";
/// The permissions of the file: readable and writable by its owner only.
const MODE: u32 = 0o600;
/// The maximum size of the file, in bytes. A larger file is rejected as invalid. A generated file has about a
/// thousand bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The validity period of the authority's certificate, in milliseconds: ten years. To replace the
/// authority before its certificate expires, remove the file: the server generates a new one at its next start.
const LIFETIME_MS: i64 = 3653 * DAY_MS;
const BEGIN_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// The reason why the certificate authority could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("failed to read or write the file of the egress certificate authority, {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{} does not contain the key and certificate of the egress certificate authority; restore the file, or remove it to generate a new one",
        path.display()
    )]
    Invalid { path: PathBuf },
    #[error("failed to generate a key or certificate for the egress proxy")]
    Generate(#[source] rcgen::Error),
}

pub(super) struct StoredAuthority {
    pub(super) certificate_pem: String,
    pub(super) key_pem: Zeroizing<String>,
}

pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

pub(super) fn load_or_create(dir: &Path, now: Timestamp) -> Result<StoredAuthority, AuthorityError> {
    let path = path(dir);
    let failed = |source| AuthorityError::File { path: path.clone(), source };
    if let Some(stored) = read(&path)? {
        return Ok(stored);
    }
    let text = generate(now).map_err(AuthorityError::Generate)?;
    fs::create_dir_all(dir).map_err(failed)?;
    write(dir, &path, &text).map_err(failed)?;
    // Read the file back, because another process may have created it first.
    read(&path)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))
}

fn read(path: &Path) -> Result<Option<StoredAuthority>, AuthorityError> {
    let failed = |source| AuthorityError::File { path: path.to_owned(), source };
    let invalid = || AuthorityError::Invalid { path: path.to_owned() };
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(found) if found.len() > MAX_FILE_BYTES => return Err(invalid()),
        Ok(_) => {}
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let (key, certificate) = text.split_at(text.find(BEGIN_CERTIFICATE).ok_or_else(invalid)?);
    let key_pem = Zeroizing::new(key.to_owned());
    Ok(Some(StoredAuthority { certificate_pem: certificate.to_owned(), key_pem }))
}

fn generate(now: Timestamp) -> Result<Zeroizing<String>, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Herm, for its sandboxes alone");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(now.plus_ms(-BACKDATE_MS));
    params.not_after = date(now.plus_ms(LIFETIME_MS));
    let certificate = params.self_signed(&key)?;
    let key_pem = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", *key_pem, certificate.pem().replace("\r\n", "\n"))))
}

/// Writes a temporary file and then hard-links it to `path`, so that a crash never leaves a partial file at `path`.
/// An existing file at `path` is not replaced.
fn write(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let temporary = dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let link_result = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match link_result {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}
