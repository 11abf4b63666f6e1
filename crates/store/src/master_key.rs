//! A check text, stored encrypted (sealed) with the master key of the first server that used this database. Later
//! servers decrypt it when they start, to check that they have the same master key.

use crate::row::params;
use crate::{Error, Tx};

/// The name of the only row in the table `master_key_check`.
const NAME: &str = "check";

/// Returns the encrypted text with which servers check their master key, or `None` if no server has written it yet.
pub async fn find_check(tx: &mut Tx) -> Result<Option<String>, Error> {
    let row = tx.one("SELECT sealed FROM master_key_check WHERE name = $1", params![NAME]).await?;
    row.map(|row| row.text(0)).transpose()
}

/// Stores the encrypted text with which servers check their master key, unless one is already stored. Returns the
/// stored text.
pub async fn write_check(tx: &mut Tx, sealed: &str) -> Result<String, Error> {
    tx.execute(
        "INSERT INTO master_key_check (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        params![NAME, sealed],
    )
    .await?;
    Ok(find_check(tx).await?.unwrap_or_else(|| sealed.to_owned()))
}
