//! Checks that the server has the master key with which its database is encrypted.

use herm_crypto::Cell;
use herm_store::{Store, master_key};

use crate::{Error, Sealer};

/// An arbitrary plaintext that is stored encrypted. A master key is accepted if it can decrypt the stored
/// value.
const TEXT: &[u8] = b"herm";
const CELL: Cell<'static> = Cell { table: "master_key_check", row: "check", column: "sealed" };

/// The error for a failed check of the master key. The server does not start.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error(
        "the master key does not match this database: provide the original master key in HERM_MASTER_KEY or as the file \
         master.key in the data directory"
    )]
    Mismatch(#[source] herm_crypto::SealError),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Returns true if this database already contains encrypted values. In that case the server needs the master
/// key that encrypted them, and must not generate a new one.
pub async fn is_needed(store: &Store) -> Result<bool, Error> {
    let found = store.read("read_master_key_check", |tx| Box::pin(master_key::find_check(tx))).await?;
    Ok(found.is_some())
}

/// Checks that the master key can decrypt the values in this database. On the first start, stores a check
/// value that later starts try to decrypt.
///
/// # Errors
/// Returns [`MasterKeyError::Mismatch`] if the master key is wrong, or [`MasterKeyError::Failed`] if the
/// check itself fails.
pub async fn check(store: &Store, sealer: &Sealer) -> Result<(), MasterKeyError> {
    let sealed = sealer.seal(CELL, TEXT).map_err(Error::from)?;
    let stored = store
        .transaction("check_master_key", move |tx| {
            Box::pin(async move { master_key::write_check(tx, &sealed).await })
        })
        .await
        .map_err(Error::from)?;
    sealer.open(CELL, &stored).map(|_| ()).map_err(MasterKeyError::Mismatch)
}
