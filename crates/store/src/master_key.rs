//! A check text that is stored encrypted (sealed) with the master key of the first server. Later servers decrypt it
//! when they start, to check that they have the same master key.

use crate::row::params;
use crate::{Error, Tx};

/// The name of the only row in the table `master_key_check`.
const NAME: &str = "check";

/// Returns the sealed check text, or `None` if no server has written it yet.
pub async fn find_check(tx: &mut Tx) -> Result<Option<String>, Error> {
    let row = tx.one("SELECT sealed FROM master_key_check WHERE name = $1", params![NAME]).await?;
    row.map(|row| row.text(0)).transpose()
}

/// Stores the sealed check text unless one is already stored. Returns the stored one.
pub async fn write_check(tx: &mut Tx, sealed: &str) -> Result<String, Error> {
    tx.execute(
        "INSERT INTO master_key_check (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        params![NAME, sealed],
    )
    .await?;
    Ok(find_check(tx).await?.unwrap_or_else(|| sealed.to_owned()))
}
