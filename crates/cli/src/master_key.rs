//! The master key: given by the operator, or kept in a file of the data directory that its owner alone reads.

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

/// The file's name in the data directory.
const FILE: &str = "master.key";
/// The most bytes of the file that are read: a key has 44, and perhaps a line's end.
const MAX_FILE_BYTES: u64 = 1024;
/// Readable and writable by its owner.
const MODE: u32 = 0o600;

/// What stored secrets are sealed with. `must_exist`: the database is sealed already, so a new key would be a wrong one.
pub(crate) fn ring(config: &Config, must_exist: bool) -> anyhow::Result<KeyRing> {
    let key = match &config.keys.master {
        Some(given) => {
            master_key::from_base64(given.expose_secret()).context("cannot use HERM_MASTER_KEY")?
        }
        None => of_directory(&config.server.data_dir, must_exist)?,
    };
    Ok(KeyRing::new(&key))
}

/// Where the key is that a server would use; `None` if it would make one. Nothing is made here.
pub(crate) fn find(config: &Config) -> anyhow::Result<Option<String>> {
    if let Some(given) = &config.keys.master {
        master_key::from_base64(given.expose_secret()).context("cannot use HERM_MASTER_KEY")?;
        return Ok(Some("HERM_MASTER_KEY".to_owned()));
    }
    let path = config.server.data_dir.join(FILE);
    Ok(read(&path)?.map(|_| path.display().to_string()))
}

/// The key in the directory's file; made if there is none, unless it must be there. The caller holds the directory.
fn of_directory(dir: &Path, must_exist: bool) -> anyhow::Result<MasterKey> {
    let path = dir.join(FILE);
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    if must_exist {
        bail!(
            "the master key is gone with which this database is sealed: put the file {} back, or set HERM_MASTER_KEY",
            path.display()
        );
    }
    fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let key = master_key::generate(&mut |bytes: &mut [u8]| SystemRng.fill(bytes));
    write(dir, &path, &key).with_context(|| format!("failed to write {}", path.display()))?;
    // Whoever else may have written it meanwhile was first.
    read(&path)?.with_context(|| format!("{} vanished as it was made", path.display()))
}

fn read(path: &Path) -> anyhow::Result<Option<MasterKey>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > MAX_FILE_BYTES => {
            bail!("{} is no master key: it is too long", path.display())
        }
        _ => {}
    }
    let text = fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let key = master_key::from_base64(&Zeroizing::new(text))
        .with_context(|| format!("cannot use the key in {}; put the right file back", path.display()))?;
    Ok(Some(key))
}

/// Writes the whole file under another name and gives it its own last, so that a crash leaves no half of it; what is
/// there already is not replaced.
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
    fn the_key_is_made_once_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("data");
        let first = of_directory(&inner, false).unwrap();
        let second = of_directory(&inner, false).unwrap();
        assert_eq!(*first.to_base64(), *second.to_base64());
        let mode = fs::metadata(inner.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn one_that_must_be_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = of_directory(dir.path(), true).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("HERM_MASTER_KEY"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        of_directory(dir.path(), false).unwrap();
        of_directory(dir.path(), true).unwrap();
    }

    #[test]
    fn a_broken_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "not a key", &"x".repeat(5000)] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = of_directory(dir.path(), false).unwrap_err();
            assert!(error.to_string().contains(FILE), "{error:#}");
            assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), text);
        }
    }
}
