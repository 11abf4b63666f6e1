//! Whether a server was given the master key with which its database is sealed.

use herm_crypto::Cell;
use herm_store::{Store, master_key};

use crate::{Error, Sealer};

/// Says nothing; that it can be opened says all.
const TEXT: &[u8] = b"herm";
const CELL: Cell<'static> = Cell { table: "master_key_check", row: "check", column: "sealed" };

/// Why a server must not start.
#[derive(Debug, thiserror::Error)]
pub enum WrongKey {
    #[error(
        "this database is sealed with another master key than this server was given: give it that one, by \
         HERM_MASTER_KEY or as the file master.key of the data directory"
    )]
    Another(#[source] herm_crypto::SealError),
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Whether a server has sealed anything here, so that its master key must be there too.
pub async fn is_needed(store: &Store) -> Result<bool, Error> {
    let found = store.read("read_master_key_check", |tx| Box::pin(master_key::find_check(tx))).await?;
    Ok(found.is_some())
}

/// Makes sure that what is sealed here can be opened; at the first start it writes what later ones are held against.
///
/// # Errors
/// [`WrongKey::Another`], or the database failed.
pub async fn check(store: &Store, sealer: &Sealer) -> Result<(), WrongKey> {
    let sealed = sealer.seal(CELL, TEXT).map_err(Error::from)?;
    let kept = store
        .transaction("check_master_key", move |tx| {
            Box::pin(async move { master_key::write_check(tx, &sealed).await })
        })
        .await
        .map_err(Error::from)?;
    sealer.open(CELL, &kept).map(|_| ()).map_err(WrongKey::Another)
}
