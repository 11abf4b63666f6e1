//! Loads the master key. If the operator does not provide one in the configuration, the server generates a
//! key and stores it in the data directory, in a file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use herm_config::Config;
use herm_crypto::{KeyRing, MasterKey, master_key};
use herm_types::Rng as _;
use herm_types::time::SystemRng;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

/// The name of the master key file in the data directory.
const FILE: &str = "master.key";
/// The maximum size of the master key file, in bytes. A larger file is rejected. A key has 44 characters and
/// may end with a line break.
const MAX_FILE_BYTES: u64 = 1024;
/// The file mode of the master key file: only the owner may read and write it.
const MODE: u32 = 0o600;

/// Returns the keys that encrypt stored secrets. `must_exist` is true if the database already contains
/// encrypted values. A new key could not decrypt them, so none is generated.
pub(crate) fn key_ring(config: &Config, must_exist: bool) -> anyhow::Result<KeyRing> {
    let key = match &config.keys.master {
        Some(setting) => {
            master_key::from_base64(setting.expose_secret()).context("HERM_MASTER_KEY is invalid")?
        }
        None => load_or_create(&config.server.data_dir, must_exist)?,
    };
    Ok(KeyRing::new(&key))
}

/// Returns the location of the master key that a server would use, or `None` if the server would generate
/// one. Changes nothing.
pub(crate) fn find(config: &Config) -> anyhow::Result<Option<String>> {
    if let Some(setting) = &config.keys.master {
        master_key::from_base64(setting.expose_secret()).context("HERM_MASTER_KEY is invalid")?;
        return Ok(Some("HERM_MASTER_KEY".to_owned()));
    }
    let path = config.server.data_dir.join(FILE);
    Ok(read(&path)?.map(|_| path.display().to_string()))
}

/// Reads the master key from its file in the data directory `dir`. If the file is missing, generates a key,
/// or fails if `must_exist` is set. The caller must hold the lock on the directory.
fn load_or_create(dir: &Path, must_exist: bool) -> anyhow::Result<MasterKey> {
    let path = dir.join(FILE);
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    if must_exist {
        bail!(
            "the master key of this database is missing: restore the file {}, or set HERM_MASTER_KEY",
            path.display()
        );
    }
    fs::create_dir_all(dir).with_context(|| format!("failed to create {}", dir.display()))?;
    let key = master_key::generate(&mut |bytes: &mut [u8]| SystemRng.fill(bytes));
    write(dir, &path, &key).with_context(|| format!("failed to write {}", path.display()))?;
    // If another process has written the file in the meantime, use the key in that file.
    read(&path)?.with_context(|| format!("{} disappeared after it was written", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Option<MasterKey>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            bail!("{} is not a master key: the file is too long", path.display())
        }
        _ => {}
    }
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let key = master_key::from_base64(&Zeroizing::new(text))
        .with_context(|| format!("the key in {} is invalid; restore the original file", path.display()))?;
    Ok(Some(key))
}

/// Writes the key to a temporary file and links that file to its final name, so that a crash never leaves a
/// partial file. An existing file is not replaced.
fn write(dir: &Path, path: &Path, key: &MasterKey) -> std::io::Result<()> {
    let draft = dir.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&draft)?;
    file.write_all(key.to_base64().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(dir)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_generated_once_and_readable_only_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("data");
        let first = load_or_create(&inner, false).unwrap();
        let second = load_or_create(&inner, false).unwrap();
        assert_eq!(*first.to_base64(), *second.to_base64());
        let mode = fs::metadata(inner.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no temporary file remains");
    }

    #[test]
    fn a_key_that_must_exist_is_not_generated() {
        let dir = tempfile::tempdir().unwrap();
        let error = load_or_create(dir.path(), true).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("HERM_MASTER_KEY"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        load_or_create(dir.path(), false).unwrap();
        load_or_create(dir.path(), true).unwrap();
    }

    #[test]
    fn an_invalid_file_is_rejected_and_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "not a key", &"x".repeat(5000)] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = load_or_create(dir.path(), false).unwrap_err();
            assert!(error.to_string().contains(FILE), "{error:#}");
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
