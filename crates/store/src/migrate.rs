//! Migrations of the database schema. Each migration is one SQL file and increases the schema version by one. The
//! missing migrations are applied in order, in one transaction.

use crate::row::params;
use crate::{Error, Tx};

const MIGRATIONS: [&str; 3] = [
    include_str!("../../../migrations/0001_initial.sql"),
    include_str!("../../../migrations/0002_contract.sql"),
    include_str!("../../../migrations/0003_run_numbers.sql"),
];

/// The schema version that this binary needs.
pub const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

const CREATE_VERSION_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)";

/// Fails unless the database has the schema version [`SCHEMA_VERSION`]. With `migrate`, first applies the missing
/// migrations to an older schema.
pub(crate) async fn check(tx: &mut Tx, migrate: bool) -> Result<(), Error> {
    tx.script(CREATE_VERSION_TABLE).await?;
    let found = version(tx).await?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    if found > SCHEMA_VERSION || !migrate {
        return Err(Error::SchemaVersion { found, needed: SCHEMA_VERSION });
    }
    let done = usize::try_from(found).unwrap_or(0);
    for migration in MIGRATIONS.iter().skip(done) {
        tx.script(migration).await?;
    }
    tx.execute("DELETE FROM schema_version", &[]).await?;
    tx.execute("INSERT INTO schema_version (version) VALUES ($1)", params![SCHEMA_VERSION]).await?;
    Ok(())
}

async fn version(tx: &mut Tx) -> Result<i64, Error> {
    let row = tx.one("SELECT MAX(version) FROM schema_version", &[]).await?;
    Ok(row.map(|row| row.opt_int(0)).transpose()?.flatten().unwrap_or(0))
}
