//! Opening the store that a configuration names.

use std::sync::Arc;

use anyhow::Context as _;
use herm_config::{Config, Database};
use herm_store::{DatabaseClock, Location, Options, Store};
use herm_types::IdSource;
use herm_types::time::{SystemClock, SystemRng};

/// How a command uses the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// It is the one server on this database.
    pub(crate) exclusive: bool,
    /// It brings a PostgreSQL schema up to date.
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
