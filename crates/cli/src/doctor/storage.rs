//! Checks the storage of the server: data directory, database and master key.

use std::path::Path;

use herm_config::{Config, Database};
use herm_store::{Location, SCHEMA_VERSION, is_sealed, schema_version};

use super::Check;
use crate::master_key;

const DATA_DIRECTORY: &str = "data directory";
const DATABASE: &str = "database";
const MASTER_KEY: &str = "master key";
/// The minimum free disk space for the data directory, in bytes. If less is free, the check fails, because
/// workspaces and the database grow.
const MIN_FREE_BYTES: u64 = 256 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Checks that the data directory, or its nearest existing ancestor, is writable and has enough free space.
pub(super) fn data_directory(dir: &Path) -> Check {
    let shown = dir.display();
    // The last ancestor of a relative path is the empty path. Replace it with `.`, the current directory.
    let mut ancestors =
        dir.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(existing) = ancestors.find(|path| path.exists()) else {
        return Check::fails(DATA_DIRECTORY, format!("{shown} has no existing parent directory"), advice());
    };
    // Test write access with an unnamed file, which disappears when it is closed.
    if let Err(error) = tempfile::tempfile_in(existing) {
        return Check::fails(
            DATA_DIRECTORY,
            format!("{} is not writable ({error})", existing.display()),
            advice(),
        );
    }
    let free_bytes = match rustix::fs::statvfs(existing) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Check::fails(
                DATA_DIRECTORY,
                format!("failed to read the free space of {shown} ({error})"),
                advice(),
            );
        }
    };
    let state = if existing == dir { "is writable" } else { "will be created by the server" };
    let found = format!("{shown} {state}, {} MiB free", free_bytes / MIB);
    if free_bytes < MIN_FREE_BYTES {
        let advice = format!("free disk space: a server needs at least {} MiB", MIN_FREE_BYTES / MIB);
        return Check::fails(DATA_DIRECTORY, found, advice);
    }
    Check::works(DATA_DIRECTORY, found)
}

fn advice() -> String {
    "set --data-dir or HERM_DATA_DIR to a directory in which the server's user can write".to_owned()
}

fn location(database: &Database) -> (Location, &'static str) {
    match database {
        Database::Sqlite { dir } => (Location::Sqlite(dir.clone()), "SQLite"),
        Database::Postgres { url } => (Location::Postgres(url.clone()), "PostgreSQL"),
    }
}

/// Checks that a valid master key exists. Without one, the check passes only if the database contains no
/// encrypted values yet, because the server then generates a master key.
pub(super) async fn master_key(config: &Config) -> Check {
    let advice =
        "restore the original file master.key in the data directory, or set HERM_MASTER_KEY to its content";
    match master_key::find(config) {
        Ok(Some(source)) => Check::works(MASTER_KEY, source),
        Err(error) => Check::fails(MASTER_KEY, format!("{error:#}"), advice.to_owned()),
        // If the database does not answer, this check passes, because the separate database check reports the
        // failure.
        Ok(None) => match is_sealed(&location(&config.database).0).await {
            Ok(true) => Check::fails(
                MASTER_KEY,
                "the key with which the database is encrypted is missing".to_owned(),
                advice.to_owned(),
            ),
            _ => Check::works(MASTER_KEY, "none yet; the server will generate one".to_owned()),
        },
    }
}

/// Checks that the database answers, and that this binary can use or migrate its schema version.
pub(super) async fn database(database: &Database) -> Check {
    let (location, kind) = location(database);
    let is_sqlite = matches!(location, Location::Sqlite(_));
    match schema_version(&location).await {
        Ok(Some(version)) if version == SCHEMA_VERSION => {
            Check::works(DATABASE, format!("{kind}, schema version {version}"))
        }
        Ok(Some(version)) if version > SCHEMA_VERSION => Check::fails(
            DATABASE,
            format!("{kind}, schema version {version}; this binary needs {SCHEMA_VERSION}"),
            "use the newer version of herm that migrated the database".to_owned(),
        ),
        Ok(found) if is_sqlite => {
            let version =
                found.map_or_else(|| "not created yet".to_owned(), |found| format!("schema version {found}"));
            Check::works(
                DATABASE,
                format!("{kind}, {version}; the server will migrate it to {SCHEMA_VERSION}"),
            )
        }
        Ok(found) => {
            let version =
                found.map_or_else(|| "no schema".to_owned(), |found| format!("schema version {found}"));
            Check::fails(DATABASE, format!("{kind}, {version}"), "run herm migrate".to_owned())
        }
        Err(error) => Check::fails(
            DATABASE,
            format!("{kind}: {:#}", anyhow::Error::new(error)),
            if is_sqlite {
                "restore herm.sqlite3 in the data directory from a backup, or move it away to start with an empty database"
                    .to_owned()
            } else {
                "start the database, and check HERM_DATABASE_URL".to_owned()
            },
        ),
    }
}
