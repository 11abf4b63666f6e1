//! Where a server keeps what it keeps: the data directory and the database.

use std::path::Path;

use herm_config::{Config, Database};
use herm_store::{Location, SCHEMA_VERSION, is_sealed, schema_version};

use super::Check;
use crate::master_key;

const DATA_DIRECTORY: &str = "data directory";
const DATABASE: &str = "database";
const MASTER_KEY: &str = "master key";
/// Less room than this is a fault: workspaces and the database grow.
const LEAST_FREE_BYTES: u64 = 256 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

/// Whether the directory, or the nearest that exists above it, can be written, and how much room there is.
pub(super) fn data_directory(dir: &Path) -> Check {
    let shown = dir.display();
    // The way up from a relative path ends at the directory in which the command runs.
    let mut above =
        dir.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(existing) = above.find(|path| path.exists()) else {
        return Check::fails(DATA_DIRECTORY, format!("{shown} has no place"), advice());
    };
    // A file without a name: nothing of it is left.
    if let Err(error) = tempfile::tempfile_in(existing) {
        return Check::fails(
            DATA_DIRECTORY,
            format!("nothing can be written into {} ({error})", existing.display()),
            advice(),
        );
    }
    let free_bytes = match rustix::fs::statvfs(existing) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Check::fails(DATA_DIRECTORY, format!("{shown} cannot be looked at ({error})"), advice());
        }
    };
    let state = if existing == dir { "can be written" } else { "will be made by the server" };
    let found = format!("{shown} {state}, {} MiB are free", free_bytes / MIB);
    if free_bytes < LEAST_FREE_BYTES {
        let advice = format!("make room: a server needs {} MiB at least", LEAST_FREE_BYTES / MIB);
        return Check::fails(DATA_DIRECTORY, found, advice);
    }
    Check::works(DATA_DIRECTORY, found)
}

fn advice() -> String {
    "give the user that runs the server a directory to write in, by --data-dir or HERM_DATA_DIR".to_owned()
}

fn location(database: &Database) -> (Location, &'static str) {
    match database {
        Database::Sqlite { dir } => (Location::Sqlite(dir.clone()), "SQLite"),
        Database::Postgres { url } => (Location::Postgres(url.clone()), "PostgreSQL"),
    }
}

/// Whether there is a master key that can be used; a server makes one where nothing is sealed yet.
pub(super) async fn master_key(config: &Config) -> Check {
    let advice =
        "put the right file master.key back into the data directory, or set HERM_MASTER_KEY to its text";
    match master_key::find(config) {
        Ok(Some(place)) => Check::works(MASTER_KEY, place),
        Err(error) => Check::fails(MASTER_KEY, format!("{error:#}"), advice.to_owned()),
        // A database that does not answer is told as what it is.
        Ok(None) => match is_sealed(&location(&config.database).0).await {
            Ok(true) => Check::fails(
                MASTER_KEY,
                "the one with which the database is sealed is gone".to_owned(),
                advice.to_owned(),
            ),
            _ => Check::works(MASTER_KEY, "none yet; the server makes one".to_owned()),
        },
    }
}

/// Whether the database answers, and with which schema.
pub(super) async fn database(database: &Database) -> Check {
    let (location, kind) = location(database);
    let is_sqlite = matches!(location, Location::Sqlite(_));
    match schema_version(&location).await {
        Ok(Some(version)) if version == SCHEMA_VERSION => {
            Check::works(DATABASE, format!("{kind}, schema version {version}"))
        }
        Ok(Some(version)) if version > SCHEMA_VERSION => Check::fails(
            DATABASE,
            format!("{kind}, schema version {version}; this binary works on {SCHEMA_VERSION}"),
            "use the newer herm that has worked on it".to_owned(),
        ),
        Ok(found) if is_sqlite => {
            let version =
                found.map_or_else(|| "not made yet".to_owned(), |found| format!("schema version {found}"));
            Check::works(DATABASE, format!("{kind}, {version}; the server brings it to {SCHEMA_VERSION}"))
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
                "put herm.sqlite3 of the data directory back from a backup, or move it away to begin anew"
                    .to_owned()
            } else {
                "start the database, and check HERM_DATABASE_URL".to_owned()
            },
        ),
    }
}
