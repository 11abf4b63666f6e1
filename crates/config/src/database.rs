//! Which database keeps the state.

use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use crate::Error;
use crate::setting;
use crate::source::Sources;

/// Which database keeps the state.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file in this directory; one server.
    Sqlite {
        /// The data directory.
        dir: PathBuf,
    },
    /// A PostgreSQL database; several servers can share it.
    Postgres {
        /// `postgres://…`; secret, as it may hold a password.
        url: SecretString,
    },
}

impl Database {
    pub(crate) fn load(sources: &Sources<'_>, data_dir: &Path) -> Result<Self, Error> {
        let Some(found) = sources.text(&setting::DATABASE_URL)? else {
            return Ok(Self::Sqlite { dir: data_dir.to_owned() });
        };
        // The value may hold a password: of it, messages repeat the scheme alone.
        let url = Url::parse(&found.value).map_err(|fault| {
            found.invalid(format!("not a URL ({fault}); write postgres://USER:PASSWORD@HOST/DATABASE"))
        })?;
        match url.scheme() {
            "postgres" | "postgresql" => Ok(Self::Postgres { url: found.into_secret() }),
            "sqlite" | "file" => Err(found.invalid(format!(
                "{}:// is not needed; SQLite in the data directory is the default, so leave this out and set data_dir",
                url.scheme()
            ))),
            other => Err(found.invalid(format!(
                "{other}:// is not supported; write postgres://…, or leave it out for SQLite in the data directory"
            ))),
        }
    }
}
