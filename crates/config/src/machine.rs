//! Reads the input of [`Config::load`] from this machine: the environment and the configuration file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use crate::file::File;
use crate::setting::{PREFIX, known_variables};
use crate::{Config, Error, Flags};

/// The path of the configuration file in the working directory. The file is read if it exists and `--config`
/// is not set.
pub const DEFAULT_FILE: &str = "herm.toml";
/// The maximum size of the configuration file in bytes. A larger file is rejected, because it is probably not
/// a configuration file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Loads the configuration from the environment and the configuration file. The file that `--config` names
/// must exist; [`DEFAULT_FILE`] is optional.
///
/// # Errors
/// Fails if the file cannot be read, an environment variable that the server reads is not valid UTF-8, or
/// [`Config::load`] fails.
pub fn load_from_machine(flags: &Flags) -> Result<Config, Error> {
    let file = find_file(flags, Path::new(DEFAULT_FILE))?;
    let env = text_variables(std::env::vars_os(), file.as_ref())?;
    Config::from_sources(flags, &env, file)
}

fn find_file(flags: &Flags, default: &Path) -> Result<Option<File>, Error> {
    let (path, must_exist) = match &flags.config {
        Some(path) => (path.as_path(), true),
        None => (default, false),
    };
    match read(path)? {
        Ok(text) => File::parse(path, &text).map(Some),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(cause) => Err(Error::Unreadable { path: path.to_owned(), cause }),
    }
}

/// Reads the configuration file. The inner result is the text of the file or an I/O error. The outer result
/// is an error only if the file is too large.
fn read(path: &Path) -> Result<io::Result<String>, Error> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(cause) => Ok(Err(cause)),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            Err(Error::TooLarge { path: path.to_owned(), limit_bytes: MAX_FILE_BYTES })
        }
        // Put only the position of the invalid byte into the error, not the bytes: they can contain a secret.
        Ok(_) => Ok(String::from_utf8(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))),
    }
}

/// Returns the environment variables that are valid UTF-8. Fails if a variable that the server reads is not
/// valid UTF-8.
fn text_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    file: Option<&File>,
) -> Result<BTreeMap<String, String>, Error> {
    let known = known_variables();
    let mut env = BTreeMap::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => {
                env.insert(name, value);
            }
            Err(_) => {
                let is_key = file.is_some_and(|file| file.key_variables().any(|variable| variable == name));
                if is_key || name.starts_with(PREFIX) || known.contains(name.as_str()) {
                    return Err(Error::NotText { name });
                }
            }
        }
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn flags(config: &Path) -> Flags {
        Flags { config: Some(config.to_owned()), ..Flags::default() }
    }

    fn error_message<T>(result: Result<T, Error>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn a_missing_file_is_an_error_only_if_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("herm.toml");
        assert!(find_file(&Flags::default(), &absent).unwrap().is_none());
        let error = error_message(find_file(&flags(&absent), &absent));
        assert!(error.contains(absent.to_str().unwrap()) && error.contains("--config"), "{error}");
    }

    #[test]
    fn a_named_file_replaces_the_default_file() {
        let dir = tempfile::tempdir().unwrap();
        let (default, named) = (dir.path().join("herm.toml"), dir.path().join("other.toml"));
        fs::write(&default, "log = 'warn'").unwrap();
        fs::write(&named, "log = 'debug'").unwrap();
        assert_eq!(find_file(&Flags::default(), &default).unwrap().unwrap().path, default);
        assert_eq!(find_file(&flags(&named), &default).unwrap().unwrap().path, named);
    }

    #[test]
    fn an_unreadable_default_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find_file(&Flags::default(), dir.path()), Err(Error::Unreadable { .. })));
        let binary = dir.path().join("herm.toml");
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(matches!(find_file(&Flags::default(), &binary), Err(Error::Unreadable { .. })));
    }

    #[test]
    fn a_file_beyond_the_maximum_size_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("herm.toml");
        let limit = usize::try_from(MAX_FILE_BYTES).unwrap();
        fs::write(&path, "#".repeat(limit)).unwrap();
        assert!(find_file(&flags(&path), &path).is_ok());
        fs::write(&path, "#".repeat(limit + 1)).unwrap();
        assert!(matches!(
            find_file(&flags(&path), &path),
            Err(Error::TooLarge { limit_bytes: MAX_FILE_BYTES, .. })
        ));
    }

    #[test]
    fn an_invalid_variable_is_an_error_only_if_it_is_read() {
        let file = File::parse(Path::new("herm.toml"), "[providers.own]\napi_key_env = 'OWN_KEY'").unwrap();
        let not_text = || OsString::from_vec(vec![0xff]);
        let check = |name: &str| text_variables([(name.into(), not_text())], Some(&file));
        for name in ["HERM_LISTEN", "OPENAI_API_KEY", "OWN_KEY", "HERM_UNKNOWN"] {
            assert!(error_message(check(name)).contains(name));
        }
        assert!(check("LS_COLORS").unwrap().is_empty());
        assert!(text_variables([(not_text(), "text".into())], None).unwrap().is_empty());
    }
}
