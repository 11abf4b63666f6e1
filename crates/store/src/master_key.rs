//! A text that is sealed with the master key, by which a server sees whether it was given the right one.

use crate::row::params;
use crate::{Error, Tx};

/// Of the one row.
const NAME: &str = "check";

/// The sealed text; `None` until a server has written it.
pub async fn find_check(tx: &mut Tx) -> Result<Option<String>, Error> {
    let row = tx.one("SELECT sealed FROM master_key_check WHERE name = $1", params![NAME]).await?;
    row.map(|row| row.text(0)).transpose()
}

/// Writes the sealed text, unless there is one; the one that counts is given back.
pub async fn write_check(tx: &mut Tx, sealed: &str) -> Result<String, Error> {
    tx.execute(
        "INSERT INTO master_key_check (name, sealed) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
        params![NAME, sealed],
    )
    .await?;
    Ok(find_check(tx).await?.unwrap_or_else(|| sealed.to_owned()))
}
