//! Opens the store with the database that the configuration selects.

use std::sync::Arc;

use anyhow::Context as _;
use herm_config::{Config, Database};
use herm_store::{DatabaseClock, Location, Options, Store};
use herm_types::IdSource;
use herm_types::time::{SystemClock, SystemRng};

/// The kind of access to the store that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// True for a server, which locks the database so that no second server can open it. Other commands open
    /// it even while a server is running.
    pub(crate) exclusive: bool,
    /// True to migrate a PostgreSQL database to the current schema version. SQLite is always migrated.
    pub(crate) migrate: bool,
}

pub(crate) async fn store(config: &Config, access: Access) -> anyhow::Result<Store> {
    let (location, migrate) = match &config.database {
        Database::Sqlite { dir } => (Location::Sqlite(dir.clone()), true),
        Database::Postgres { url } => (Location::Postgres(url.clone()), access.migrate),
    };
    let options = Options {
        location,
        clock: Arc::new(SystemClock),
        database_clock: DatabaseClock::Database,
        migrate,
        exclusive: access.exclusive,
    };
    Store::open(options).await.context("failed to open the database")
}

pub(crate) fn id_source() -> IdSource {
    IdSource::new(Arc::new(SystemClock), Arc::new(SystemRng))
}
