//! The setting that selects the database.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use crate::Error;
use crate::setting;
use crate::source::Sources;

/// The database that the server uses.
#[derive(Clone, Debug)]
pub enum Database {
    /// An SQLite database in the data directory. Only one server at a time can use it.
    Sqlite {
        /// The data directory, which contains the database file.
        dir: PathBuf,
    },
    /// A PostgreSQL database. Only one server at a time can use it.
    Postgres {
        /// The URL `postgres://…`. Secret, because it can contain a password.
        url: SecretString,
    },
}

impl Database {
    pub(crate) fn load(sources: &Sources<'_>, data_dir: &Path) -> Result<Self, Error> {
        let Some(raw) = sources.text(&setting::DATABASE_URL)? else {
            return Ok(Self::Sqlite { dir: data_dir.to_owned() });
        };
        // The URL can contain a password, so error messages contain only its scheme.
        let url = Url::parse(&raw.value).map_err(|error| {
            raw.invalid(format!("not a URL ({error}); expected postgres://USER:PASSWORD@HOST/DATABASE"))
        })?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Postgres { url: raw.into_secret() }),
            "sqlite" | "file" => Err(raw.invalid(format!(
                "{}:// is not supported; SQLite in the data directory is the default, so remove this setting and set data_dir",
                url.scheme()
            ))),
            other => Err(raw.invalid(format!(
                "{other}:// is not supported; use postgres://…, or remove this setting to use SQLite in the data directory"
            ))),
        }
    }
}
